// SPDX-License-Identifier: GPL-2.0

//! The operation tables through which the VFS calls a
//! [`FileSystem`](crate::vfs::FileSystem).
//!
//! Each function here is called by the VFS alone, with C structures whose validity its `# Safety`
//! section takes from the VFS. It turns them into the types of `types` and calls one function of
//! the filesystem. Decisions about page-cache requests are in `pagecache`.
//!
//! | module | is |
//! | --- | --- |
//! | `registration` | the module's data: a registered filesystem |
//! | `context` | `fs_context_operations` |
//! | `device` | `file_operations` of the character device |
//! | `superblock` | `super_operations`, the beginning and end of a superblock |
//! | `inode`, `export` | `inode_operations` and the life of an inode; `export_operations` |
//! | `mapping` | `address_space_operations` |
//! | `file`, `directory`, `xattr` | `file_operations`, lookup and iteration, xattrs and ACLs |
//! | `attributes` | `statx(2)` and fs-verity of files |

mod attributes;
mod context;
mod device;
mod directory;
mod export;
mod file;
mod inode;
mod mapping;
mod registration;
mod superblock;
mod xattr;
