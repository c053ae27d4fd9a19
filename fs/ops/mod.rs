// SPDX-License-Identifier: GPL-2.0

//! The VFS-facing filesystem.
//!
//! Owns mounted images, and the stores that they share. Uses every layer below. No other layer
//! names an inode or a superblock.
//!
//! | module | content |
//! | --- | --- |
//! | `filesystem` | the operations that the VFS calls |
//! | `superblock`, `dir` | superblocks, directories |
//! | `inode` | inodes, from the metadata |
//! | `fetcher` | the device of fetchers |
//! | `file`, `sharing`, `verity`, `xattr` | regular files, page caches, fs-verity, attributes |
//! | `node` | the private data of inodes |
//! | `image` | a mounted image |
//! | `stores` | stores in use |
//! | `options` | mount options |
//! | `fs_type` | the filesystem type |

mod dir;
mod fetcher;
mod file;
mod filesystem;
pub(crate) mod fs_type;
mod image;
pub(crate) mod inode;
mod node;
mod options;
mod sharing;
mod stores;
mod superblock;
mod verity;
mod xattr;

pub(crate) use fs_type::PuzzleFs;
