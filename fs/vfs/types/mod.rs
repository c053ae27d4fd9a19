// SPDX-License-Identifier: GPL-2.0

//! The VFS's objects as Rust types, with private data of a
//! [`FileSystemType`](crate::vfs::FileSystemType).
//!
//! Each type that wraps a C structure is transparent and only exists behind a reference that the
//! VFS has lent, or that a counted reference keeps. The operation tables, which decide when the VFS
//! calls the filesystem, are in `vtables`.
//!
//! | module | holds |
//! | --- | --- |
//! | `context` | the filesystem context of a mount or remount, and its parameters |
//! | `registration` | the registered `file_system_type` and the module's data |
//! | `device` | the registered character device |
//! | `dentry` | dentries that the VFS lends |
//! | `inode` | inodes, counted references to them, and their slab cache |
//! | `superblock` | superblocks and their private data |
//! | `emitter`, `lister` | receivers of directory entries and of xattr names |

mod context;
mod dentry;
mod device;
mod emitter;
mod inode;
mod lister;
mod registration;
mod superblock;

pub(crate) use context::{MountContext, Param, ParamOutcome, ParamValue};
pub(crate) use emitter::{DirEmitter, DirEntryType};
pub(crate) use inode::{CachedINode, INode, INodeKind, INodeParams, INodeRef};
pub(crate) use lister::XattrLister;
pub(crate) use registration::Registration;
pub(crate) use superblock::{StatFs, SuperBlock, SuperParams, MAX_STACK_DEPTH};

pub(super) use dentry::Dentry;
pub(super) use inode::{INodeAlloc, NewINode};
pub(super) use registration::TypeOperations;
pub(super) use superblock::{drop_data, new_data, BLOCK_SIZE};
