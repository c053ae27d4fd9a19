// SPDX-License-Identifier: GPL-2.0

//! The lower filesystem.

mod file;

pub(crate) use file::{BackingFile, Directory, FileRead, ReadBuffer, Version};
