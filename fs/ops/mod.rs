// SPDX-License-Identifier: GPL-2.0

//! The VFS-facing filesystem: mount options, superblocks, inodes, directories, extended attributes.
//!
//! Owns the mounted image. May use every layer below; no other layer names it.

pub(crate) mod dir;
pub(crate) mod image;
pub(crate) mod inode;
pub(crate) mod options;
pub(crate) mod sharing;
pub(crate) mod superblock;
pub(crate) mod verity;
pub(crate) mod xattr;
