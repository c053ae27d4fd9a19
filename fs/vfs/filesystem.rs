// SPDX-License-Identifier: GPL-2.0

//! The operations of a filesystem.

use crate::vfs::{
    compat::prelude::*,
    pagecache::ReadFolios,
    sharing::SharedMappings,
    types::{
        DirEmitter, INode, INodeRef, MountContext, Param, ParamOutcome, StatFs, SuperBlock,
        SuperParams, XattrLister,
    },
};
use kernel::{seq_file::SeqFile, sync::Arc};

/// A read-only filesystem.
///
/// All methods run in process context and may sleep. Any number of threads may call them at the
/// same time. Methods with a body are optional.
pub(crate) trait FileSystem: ReadFolios {
    /// Makes the data that all superblocks share. Called once, before the filesystem is registered.
    fn load() -> Result<Arc<Self::Shared>>;

    /// Opens the character device for a task with `CAP_SYS_ADMIN`.
    fn open_device(shared: &Arc<Self::Shared>) -> Result<Self::Device>;

    /// Reads from the device. Returns the number of bytes that were written into memory.
    ///
    /// Without `wait`, [`EAGAIN`] stands for a read that would wait.
    fn read_device(device: &Self::Device, bytes: &mut [u8], wait: bool) -> Result<usize>;

    /// Writes to the device. Returns the number of bytes that were taken.
    fn write_device(device: &Self::Device, bytes: &[u8]) -> Result<usize>;

    /// Takes one mount parameter.
    fn parse_param(
        params: &mut Self::Params,
        context: &MountContext<Self>,
        param: &Param<'_>,
    ) -> Result<ParamOutcome>;

    /// Makes the private data of a new superblock from the parameters collected.
    ///
    /// Runs in the task that mounts. An error ends the mount; the filesystem reports its cause with
    /// [`MountContext::error`].
    fn mount(
        params: &mut Self::Params,
        context: &mut MountContext<Self>,
        shared: &Arc<Self::Shared>,
    ) -> Result<Self::SuperData>;

    /// Refuses a remount whose parameters would change a property that is fixed.
    fn remount(
        params: &mut Self::Params,
        context: &MountContext<Self>,
        data: &Self::SuperData,
    ) -> Result;

    /// Returns the page caches that regular files of the superblock can share, by
    /// [`INode::share_pages`]. The superblock keeps them until it is shut down.
    fn shared_mappings(_data: &Self::SuperData) -> Option<Arc<SharedMappings<Self>>> {
        None
    }

    /// Returns the superblock's properties that follow from its private data.
    fn super_params(data: &Self::SuperData) -> SuperParams;

    /// Returns the root directory.
    fn root(sb: &SuperBlock<Self>) -> Result<INodeRef<'_, Self>>;

    /// Looks up a name in a directory; returns `None` if the directory has no such entry.
    fn lookup<'a>(dir: &'a INode<Self>, name: &[u8]) -> Result<Option<INodeRef<'a, Self>>>;

    /// Returns the inode of a number from a file handle.
    ///
    /// # Errors
    ///
    /// [`ESTALE`] if there is none; this is not logged, because a handle can be any number.
    fn inode_by_number(sb: &SuperBlock<Self>, ino: u64) -> Result<INodeRef<'_, Self>>;

    /// Returns the parent of a directory.
    fn parent(dir: &INode<Self>) -> Result<INodeRef<'_, Self>>;

    /// Emits a directory's entries except `.` and `..`, beginning at the emitter's position.
    fn read_dir(dir: &INode<Self>, emitter: &mut DirEmitter<'_>) -> Result;

    /// Has a regular file share its pages, by [`INode::share_pages`], if the filesystem wants that.
    ///
    /// Called when a file is opened that does not share them yet. An error is that of the open.
    fn share_pages(_inode: &INode<Self>) -> Result {
        Ok(())
    }

    /// Prepares an open file for its reads; returns true if [`Self::release`] must undo that.
    ///
    /// Called for each open file, without locks. An error is that of the open.
    fn open(_inode: &INode<Self>) -> Result<bool> {
        Ok(false)
    }

    /// Notes that an open file is mapped to be executed.
    ///
    /// Called with `mmap_lock` held: it must not wait for anything that a page fault does not wait
    /// for.
    fn map_executable(_inode: &INode<Self>) {}

    /// Undoes [`Self::open`] when the open file is closed.
    fn release(_inode: &INode<Self>) {}

    /// Returns the SHA-256 fs-verity digest of a regular file, if each read of it is checked
    /// against what that digest covers.
    ///
    /// # Errors
    ///
    /// Those of the reads that this takes.
    fn verity_digest(_inode: &INode<Self>) -> Result<Option<[u8; 32]>> {
        Ok(None)
    }

    /// Returns true if a regular file is known to have a [`Self::verity_digest`]. Does no I/O.
    fn has_verity(_inode: &INode<Self>) -> bool {
        false
    }

    /// Calls a function with the value of an extended attribute; returns `None` if the inode has
    /// none of that name.
    ///
    /// `name` is the full name, prefix included.
    fn get_xattr<R>(
        _inode: &INode<Self>,
        _name: &[u8],
        _take: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>> {
        Ok(None)
    }

    /// Lists the names of an inode's extended attributes.
    fn list_xattrs(_inode: &INode<Self>, _lister: &mut XattrLister<'_>) -> Result {
        Ok(())
    }

    /// Returns the sizes that `statfs(2)` reports.
    fn statfs(sb: &SuperBlock<Self>) -> Result<StatFs>;

    /// Prints the mount options, each preceded by a comma, as `/proc/mounts` shows them and
    /// `mount` takes them.
    fn show_options(sb: &SuperBlock<Self>, seq: &SeqFile) -> Result;

    /// Prints the statistics of a mount in `/proc/self/mountstats`, behind the line that names it.
    fn show_stats(_sb: &SuperBlock<Self>, _seq: &SeqFile) -> Result {
        Ok(())
    }
}
