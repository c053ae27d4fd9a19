// SPDX-License-Identifier: GPL-2.0

//! Plain types that every layer uses.
//!
//! Owns no state of a mount. Uses [`crate::ports`] and [`crate::vfs`] only.
//!
//! | module | content |
//! | --- | --- |
//! | `fault` | causes of failed reads, and their log line |
//! | `message` | printing of values |
//! | `trace` | tracepoints |
//! | `blob_id`, `limits`, `range`, `registry`, `statistics`, `verify` | plain types and constants |

pub(crate) mod blob_id;
pub(crate) mod fault;
pub(crate) mod limits;
pub(crate) mod message;
pub(crate) mod range;
pub(crate) mod registry;
pub(crate) mod statistics;
pub(crate) mod trace;
pub(crate) mod verify;
