// SPDX-License-Identifier: GPL-2.0

//! The identity of a filesystem, and the types of its private data.

use kernel::str::CStr;

/// A type of filesystem, as `struct file_system_type` stands for one in C.
///
/// The VFS's objects ([`SuperBlock`](crate::vfs::SuperBlock), [`INode`](crate::vfs::INode)) carry
/// private data of the types that are chosen here. The operations are in
/// [`FileSystem`](crate::vfs::FileSystem).
pub(crate) trait FileSystemType: Sized + Send + Sync + 'static {
    /// The name under which the filesystem is mounted, and its module alias is found.
    const NAME: &'static CStr;

    /// The name of the internal filesystem that shared pages belong to. It differs from
    /// [`Self::NAME`], so that no security policy for the filesystem applies to it.
    const PAGES_NAME: &'static CStr = c"shared_pages";

    /// The number that `statfs(2)` reports as `f_type`.
    const MAGIC: u32;

    /// An open file of the character device of this filesystem, which has the name of the
    /// filesystem.
    type Device: Send + Sync + 'static;

    /// Data that all superblocks share while the filesystem is registered or mounted.
    type Shared: Send + Sync + 'static;

    /// The mount parameters that are collected before a mount or a remount.
    type Params: Default + Send;

    /// The private data of a superblock.
    type SuperData: Send + Sync;

    /// The private data of an inode. It is dropped when the inode is evicted, which can happen in
    /// memory reclaim: the `Drop` implementation must neither allocate nor wait for a task that
    /// does.
    type INodeData: Send + Sync;
}
