// SPDX-License-Identifier: GPL-2.0

//! What the kernel has already, behind the interfaces of well-known crates.

mod bindings;
pub(crate) mod sha256;
pub(crate) mod xxhash;
pub(crate) mod zstd_safe;
