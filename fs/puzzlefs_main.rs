// SPDX-License-Identifier: GPL-2.0
//! t
mod vfs;
