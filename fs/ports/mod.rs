// SPDX-License-Identifier: GPL-2.0

//! What the kernel has already, behind the interfaces of well-known crates.

pub(crate) mod sha256;
