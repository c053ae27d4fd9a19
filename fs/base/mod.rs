// SPDX-License-Identifier: GPL-2.0

//! Plain types that every layer uses: faults, messages, counters, registries.
//!
//! Owns no state of a mount. May use [`crate::vfs`] only.

pub(crate) mod fault;
pub(crate) mod message;
pub(crate) mod registry;
pub(crate) mod statistics;
