// SPDX-License-Identifier: GPL-2.0

//! Safe abstractions over the virtual filesystem, for read-only filesystems.
//!
//! A filesystem is a type that implements [`FileSystemType`], [`ReadFolios`] and [`FileSystem`];
//! its [`Registration`] is the type of its module. The VFS's objects appear as [`SuperBlock`] and
//! [`INode`], each with private data of a type that the filesystem chooses. The page cache asks for
//! file contents with a [`FolioRun`], a run of locked folios to fill from beginning to end.
//!
//! Nothing here knows of the filesystem that uses it. A safe implementation cannot cause undefined
//! behaviour, whatever it returns and keeps: see each type's `# Invariants`. An [`INodeRef`] cannot
//! outlive the call in which it was made, and a superblock keeps the [`SharedMappings`] that its
//! inodes use. `fs/misuse.rs` has examples that the compiler refuses. Two limits remain, as in the
//! `kernel` crate, because no type knows when a module is unloaded:
//!
//! - `module!` alone may initialise a [`Registration`], which is the data of its module.
//! - A value must not be leaked ([`core::mem::forget`]). The VFS reports a leaked inode at unmount,
//!   and a leaked folio stays locked, but callbacks of a leaked [`ShrinkerRegistration`] or
//!   [`WorkQueue`] would run after the module's code is gone.
//!
//! # Modules
//!
//! A module uses modules of rows below its own.
//!
//! | module | holds |
//! | --- | --- |
//! | `vtables` | the operation tables through which the VFS calls the filesystem |
//! | `filesystem` | the operations that a filesystem implements |
//! | `pagecache` | runs of folios to fill, readahead |
//! | `types` | superblocks, inodes, dentries, mount contexts, registrations |
//! | `sharing`, `lower` | page caches that inodes share; files of the lower filesystem |
//! | `work`, `shrinker`, `log` | work queues, waits, control groups; memory reclaim; messages |
//! | `gfp` | flags of allocations |
//! | `filesystem_type` | the identity of a filesystem and the types of its private data |
//! | `compat`, `bindings` | differences between kernels; the C interfaces |
//!
//! # Locks
//!
//! In the order in which they are taken, outermost first. Each file states the locks that it relies
//! on.
//!
//! 1. The VFS's locks that are held when it calls the filesystem: `s_umount`, `i_rwsem` of a
//!    directory, `mmap_lock` in a page fault.
//! 2. Folio locks, held by a [`FolioRun`].
//! 3. Locks of the filesystem that implements [`FileSystem`].
//! 4. Locks of the lower filesystem that it takes to read a page. A lock whose holder can wait for
//!    1 or 2 is only tried: see `lower`.
//!
//! C headers: [`include/linux/fs.h`](srctree/include/linux/fs.h),
//! [`include/linux/fs_context.h`](srctree/include/linux/fs_context.h),
//! [`include/linux/pagemap.h`](srctree/include/linux/pagemap.h)
//!
//! Reference: <https://docs.kernel.org/filesystems/vfs.html>

mod bindings;
mod compat;
mod filesystem;
mod filesystem_type;
mod gfp;
mod log;
pub(crate) mod lower;
mod pagecache;
mod sharing;
mod shrinker;
mod types;
mod vtables;
mod work;

pub(crate) use compat::prelude;
pub(crate) use filesystem::FileSystem;
pub(crate) use filesystem_type::FileSystemType;
pub(crate) use gfp::gfp_optional;
pub(crate) use log::error_ratelimited;
pub(crate) use pagecache::{FolioRun, ReadFolios};
pub(crate) use sharing::{SharedMappings, SharingKey};
pub(crate) use shrinker::{Shrink, ShrinkerRegistration};
pub(crate) use types::{
    CachedINode, DirEmitter, DirEntryType, INode, INodeKind, INodeParams, INodeRef, MountContext,
    Param, ParamOutcome, ParamValue, Registration, StatFs, SuperBlock, SuperParams, XattrLister,
    MAX_STACK_DEPTH,
};
pub(crate) use work::{relax, Job, Run, WaitQueue, WorkQueue};
