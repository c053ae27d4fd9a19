// SPDX-License-Identifier: GPL-2.0

//! The kernel's zstd, SHA-256 and XXH64, behind the interfaces of well-known crates; tracepoints.
//!
//! Owns no state. Uses [`crate::vfs`] only.
//!
//! | module | content |
//! | --- | --- |
//! | `sha256`, `xxhash`, `zstd_safe` | one algorithm each |
//! | `trace` | tracepoints |
//! | `bindings` | the C interfaces |

mod bindings;
pub(crate) mod sha256;
pub(crate) mod trace;
pub(crate) mod xxhash;
pub(crate) mod zstd_safe;
