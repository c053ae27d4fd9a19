// SPDX-License-Identifier: GPL-2.0

//! Safe abstractions over the virtual filesystem, for read-only filesystems.
//!
//! A filesystem is a type that implements [`FileSystem`]; its [`Registration`] is the
//! type of its module. The VFS's objects appear as [`SuperBlock`] and [`INode`], each with private
//! data of a type that the filesystem chooses; the page cache asks for file contents with a
//! [`FolioRun`], a stretch of locked folios that has to be filled from its beginning to its end.
//! What a filesystem needs of the filesystem below it, if it is a stacked one, is in [`backing`].
//!
//! Nothing here knows of PuzzleFS. A safe implementation of [`FileSystem`] cannot cause undefined
//! behaviour, whatever it returns and keeps: see each type's `# Invariants`. An [`INodeRef`] cannot
//! outlive the call in which it was made, and a superblock keeps the [`SharedMappings`] that its
//! inodes use (`fs/misuse.rs` has what the compiler refuses). Two limits remain, as in the `kernel`
//! crate, because no type knows when a module is unloaded:
//!
//! - `module!` alone may initialise a [`Registration`], which is the data of its module.
//! - A value must not be leaked ([`core::mem::forget`]). The VFS reports a leaked inode at unmount,
//!   and a leaked folio stays locked, but callbacks of a leaked [`ShrinkerRegistration`] or
//!   [`WorkQueue`] would run after the module's code is gone.
//!
//! C headers: [`include/linux/fs.h`](srctree/include/linux/fs.h),
//! [`include/linux/fs_context.h`](srctree/include/linux/fs_context.h),
//! [`include/linux/pagemap.h`](srctree/include/linux/pagemap.h)
//!
//! Reference: <https://docs.kernel.org/filesystems/vfs.html>

pub(crate) mod backing;
mod bindings;
mod charge;
mod compat;
mod context;
mod dir;
mod export;
mod folio;
mod inode;
mod log;
mod queue;
mod registration;
mod sharing;
mod shrinker;
mod superblock;
mod task;
mod verity;
mod wait;
mod xattr;

pub(crate) use compat::prelude;
pub(crate) use context::{MountContext, Param, ParamValue};
pub(crate) use dir::{DirEmitter, DirEntryType};
pub(crate) use folio::FolioRun;
pub(crate) use inode::{CachedINode, INode, INodeKind, INodeParams, INodeRef};
pub(crate) use log::error_ratelimited;
pub(crate) use queue::{Job, Run, WorkQueue};
pub(crate) use registration::Registration;
pub(crate) use sharing::{SharedMappings, SharingKey};
pub(crate) use shrinker::{Shrink, ShrinkerRegistration};
pub(crate) use superblock::{StatFs, SuperBlock, SuperParams, MAX_STACK_DEPTH};
pub(crate) use task::relax;
pub(crate) use wait::WaitQueue;
pub(crate) use xattr::XattrLister;

use core::ops::Range;
use kernel::{seq_file::SeqFile, str::CStr, sync::Arc};
use prelude::*;

/// What a mount parameter was to the filesystem.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum ParamOutcome {
    /// The parameter is one of the filesystem's own, and has been taken.
    Taken,
    /// The filesystem has no such parameter: the VFS looks at it (`source`) or reports it.
    Unknown,
}

/// A read-only filesystem.
///
/// All methods run in process context and may sleep. They may run at the same time in any number
/// of threads.
pub(crate) trait FileSystem: Sized + Send + Sync + 'static {
    /// The name under which the filesystem is mounted, and its module alias is found.
    const NAME: &'static CStr;

    /// The name of the internal filesystem that shared pages belong to.
    const PAGES_NAME: &'static CStr;

    /// The number that `statfs(2)` gives as `f_type`.
    const MAGIC: u32;

    /// What all superblocks share, for as long as the filesystem is registered or mounted.
    type Shared: Send + Sync;

    /// The mount parameters, as they are being collected before a mount or a remount.
    type Params: Default + Send;

    /// The private data of a superblock: what one mount of the filesystem is made of.
    type SuperData: Send + Sync;

    /// The private data of an inode. Dropped when the inode is evicted, which may be in memory
    /// reclaim: the `Drop` implementation must neither allocate nor wait for anything that does.
    type INodeData: Send + Sync;

    /// Makes what all superblocks share. Called once, before the filesystem is registered.
    fn load() -> Result<Arc<Self::Shared>>;

    /// Takes one mount parameter.
    fn parse_param(
        params: &mut Self::Params,
        context: &MountContext<Self>,
        param: &Param<'_>,
    ) -> Result<ParamOutcome>;

    /// Makes the private data of a new superblock from the parameters collected.
    ///
    /// Runs as the task that mounts. An error ends the mount; what is behind it should be said
    /// with [`MountContext::error`].
    fn mount(
        params: &mut Self::Params,
        context: &mut MountContext<Self>,
        shared: &Arc<Self::Shared>,
    ) -> Result<Self::SuperData>;

    /// Says whether a remount with these parameters changes nothing that cannot be changed.
    fn remount(
        params: &mut Self::Params,
        context: &MountContext<Self>,
        data: &Self::SuperData,
    ) -> Result;

    /// The page caches that regular files of the superblock can share, by [`INode::share_pages`].
    ///
    /// The superblock keeps them until it is shut down.
    fn shared_mappings(data: &Self::SuperData) -> Option<Arc<SharedMappings<Self>>>;

    /// The superblock's properties that follow from its private data.
    fn super_params(data: &Self::SuperData) -> SuperParams;

    /// The root directory.
    fn root(sb: &SuperBlock<Self>) -> Result<INodeRef<'_, Self>>;

    /// Looks up a name in a directory; `None` if the directory has no such entry.
    fn lookup<'a>(dir: &'a INode<Self>, name: &[u8]) -> Result<Option<INodeRef<'a, Self>>>;

    /// The inode of a number that is in a file handle.
    ///
    /// # Errors
    ///
    /// [`ESTALE`] if there is none. That is not worth a message.
    fn inode_by_number(sb: &SuperBlock<Self>, ino: u64) -> Result<INodeRef<'_, Self>>;

    /// The directory that a directory is in.
    fn parent(dir: &INode<Self>) -> Result<INodeRef<'_, Self>>;

    /// Emits a directory's entries, apart from `.` and `..`, beginning at the emitter's position.
    fn read_dir(dir: &INode<Self>, emitter: &mut DirEmitter<'_>) -> Result;

    /// Has a regular file share its pages, by [`INode::share_pages`], if it is to.
    ///
    /// Called when a file is opened that does not share them yet. An error is that of the open.
    fn share_pages(inode: &INode<Self>) -> Result;

    /// Prepares an open file for its reads; returns whether [`Self::release`] must undo that.
    ///
    /// Called for each open file, without locks. An error is that of the open.
    fn open(inode: &INode<Self>) -> Result<bool>;

    /// Undoes [`Self::open`] when the open file goes.
    fn release(inode: &INode<Self>);

    /// Does what [`Self::read_folios`] has postponed in a range, without folio locks.
    ///
    /// The caller may hold other locks: waits must be killable and bounded. An error is that of
    /// the read. Otherwise the read is tried again.
    fn prepare(inode: &INode<Self>, range: &Range<u64>) -> Result;

    /// Fills a run of folios of a regular file.
    ///
    /// What is not filled when the run is dropped counts as unreadable. Does not report errors to
    /// the caller, who may only be reading ahead: it logs them.
    fn read_folios(inode: &INode<Self>, run: &mut FolioRun<'_>);

    /// Returns the SHA-256 fs-verity digest of a regular file, if each read of it is checked
    /// against what that digest covers.
    ///
    /// # Errors
    ///
    /// Why that could not be found out.
    fn verity_digest(inode: &INode<Self>) -> Result<Option<[u8; 32]>>;

    /// Returns true if a regular file is known to have a [`Self::verity_digest`]. Does no I/O.
    fn has_verity(inode: &INode<Self>) -> bool;

    /// Where what is read ahead of a mount is read, beside others who wait for the same disk.
    fn readahead_queue(sb: &SuperBlock<Self>) -> &WorkQueue;

    /// What had best be read of a regular file where some range of it is: what comes without more
    /// work, inside the file.
    fn read_extent(inode: &INode<Self>, range: &Range<u64>) -> Range<u64>;

    /// The value of an extended attribute; `None` if the inode has none of that name.
    ///
    /// `name` is the full name, prefix included.
    fn get_xattr<'a>(inode: &'a INode<Self>, name: &[u8]) -> Result<Option<&'a [u8]>>;

    /// Lists the names of an inode's extended attributes.
    fn list_xattrs(inode: &INode<Self>, lister: &mut XattrLister<'_>) -> Result;

    /// What `statfs(2)` reports.
    fn statfs(sb: &SuperBlock<Self>) -> Result<StatFs>;

    /// Prints the mount options, each preceded by a comma, as `/proc/mounts` shows them and
    /// `mount` takes them.
    fn show_options(sb: &SuperBlock<Self>, seq: &SeqFile) -> Result;

    /// Prints what `/proc/self/mountstats` has of a mount, behind the line that names it.
    fn show_stats(sb: &SuperBlock<Self>, seq: &SeqFile) -> Result;
}
