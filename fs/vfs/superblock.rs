// SPDX-License-Identifier: GPL-2.0

//! Superblocks.
//!
//! C header: [`include/linux/fs/super_types.h`](srctree/include/linux/fs/super_types.h)

use super::prelude::*;
use super::{
    bindings,
    export::ExportOps,
    inode::{self, CachedINode, INode, INodeRef, NewINode},
    queue::Pending,
    sharing::SharedMappings,
    xattr, FileSystem,
};
use core::{
    marker::PhantomData,
    ptr::{self, NonNull},
};
use kernel::{
    error::{from_result, to_result},
    ffi::{c_int, c_void},
    seq_file::SeqFile,
    sync::Arc,
    types::{ForeignOwnable, Opaque},
};

/// The properties of a superblock that follow from its private data.
pub(crate) struct SuperParams {
    /// How many filesystems are stacked below this one, as far as is known: one more than the
    /// deepest of those that it reads from. The kernel allows two.
    pub(crate) stack_depth: c_int,
    /// How far to read ahead at the most, in bytes.
    pub(crate) readahead: usize,
    /// What the contents are known by, wherever they are mounted.
    pub(crate) uuid: [u8; 16],
}

/// What `statfs(2)` reports of a read-only filesystem, which has no free space.
pub(crate) struct StatFs {
    /// The size of the contents, in bytes.
    pub(crate) bytes: u64,
    /// The number of inodes.
    pub(crate) files: u64,
    /// The filesystem's identity: the same for each mount of the same contents.
    pub(crate) id: [u32; 2],
}

/// How many filesystems may be stacked on each other.
pub(crate) const MAX_STACK_DEPTH: c_int = bindings::FILESYSTEM_MAX_STACK_DEPTH as c_int;

/// Block size that [`SuperBlock`]s report, in bytes.
const BLOCK_SIZE: u32 = 4096;

/// What `s_fs_info` of a context or a superblock points to.
struct Private<T: FileSystem> {
    data: T::SuperData,
    /// Work that has references to inodes.
    pending: Pending,
    /// The page caches that inodes share. Kept here because inodes refer to them.
    mappings: Option<Arc<SharedMappings<T>>>,
}

/// A superblock of the filesystem `T`.
///
/// # Invariants
///
/// Stands for a valid `struct super_block` of the file system type of a `Registration<T>`, whose
/// `s_fs_info` came from [`new_data::<T>`] and stays until the superblock is shut down.
#[repr(transparent)]
pub(crate) struct SuperBlock<T: FileSystem>(Opaque<bindings::super_block>, PhantomData<T>);

impl<T: FileSystem> SuperBlock<T> {
    const OPS: bindings::super_operations = bindings::super_operations {
        alloc_inode: Some(inode::alloc::<T>),
        free_inode: Some(inode::free::<T>),
        evict_inode: Some(inode::evict::<T>),
        statfs: Some(Self::statfs),
        show_options: Some(Self::show_options),
        show_stats: Some(Self::show_stats),
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// `sb` must satisfy the type's invariants for the duration of `'a`.
    pub(super) unsafe fn from_raw<'a>(sb: *mut bindings::super_block) -> &'a Self {
        // SAFETY: By the function's safety requirements; `Self` is a transparent wrapper.
        unsafe { &*sb.cast() }
    }

    pub(super) fn as_ptr(&self) -> *mut bindings::super_block {
        self.0.get()
    }

    fn private(&self) -> &Private<T> {
        // SAFETY: By the type invariants, `s_fs_info` came from a `KBox<Private<T>>`, which is not
        // taken back while there are inodes or operations that could borrow `self`.
        unsafe { KBox::<Private<T>>::borrow((*self.as_ptr()).s_fs_info.cast()) }
    }

    /// The superblock's private data.
    pub(crate) fn data(&self) -> &T::SuperData {
        &self.private().data
    }

    /// Work that has references to inodes: the superblock waits for it before it is shut down.
    ///
    /// It must only begin while a file is open or mapped, or a mount is looked at.
    pub(super) fn pending(&self) -> &Pending {
        &self.private().pending
    }

    /// The page caches that the superblock's inodes can share.
    pub(super) fn mappings(&self) -> Option<&SharedMappings<T>> {
        self.private().mappings.as_deref()
    }

    /// The generation of all inodes: that of other contents is mostly another.
    pub(super) fn generation(&self) -> u32 {
        // SAFETY: By the type invariants the superblock is valid; its UUID is set before it has
        // inodes, and does not change.
        let [a, b, c, d, ..] = unsafe { (*self.as_ptr()).s_uuid.b };
        u32::from_le_bytes([a, b, c, d])
    }

    /// Gives the inode of that number if it is in memory, or else a new one to be initialised.
    ///
    /// Two threads that ask for one inode get the same: the second waits for the first to have
    /// initialised it.
    pub(crate) fn get_inode(&self, ino: u64) -> Result<CachedINode<'_, T>> {
        // SAFETY: By the type invariants the superblock is valid.
        let inode = unsafe { bindings::iget_locked(self.as_ptr(), ino) };
        let inode = NonNull::new(inode).ok_or(ENOMEM)?;
        // SAFETY: `iget_locked` gives a valid inode.
        if unsafe { bindings::vfs_rs_inode_is_new(inode.as_ptr()) } {
            // SAFETY: The inode was allocated by `inode::alloc::<T>`, is locked, new, and the
            // reference is ours.
            Ok(CachedINode::New(unsafe { NewINode::from_raw(inode) }))
        } else {
            // SAFETY: As above; it has been initialised, as it is not new.
            Ok(CachedINode::Cached(unsafe { INodeRef::from_raw(inode) }))
        }
    }

    /// Initialises a new superblock.
    ///
    /// # Safety
    ///
    /// To be called by `get_tree_nodev` for a context of this filesystem whose `s_fs_info` has
    /// become the superblock's.
    pub(super) unsafe extern "C" fn fill(
        sb: *mut kernel::bindings::super_block,
        _fc: *mut bindings::fs_context,
    ) -> c_int {
        from_result(|| {
            // SAFETY: The VFS gives a valid new superblock, to which `sget_fc` has moved the
            // context's `s_fs_info`: what `get_tree` put there.
            let this = unsafe { Self::from_raw(sb) };
            let params = T::super_params(this.data());
            if params.stack_depth > MAX_STACK_DEPTH {
                return Err(ELOOP);
            }
            // SAFETY: Until this function returns, nobody else uses the superblock. The tables are
            // promoted to statics: they are constants of function pointers.
            unsafe {
                (*sb).s_op = &Self::OPS;
                (*sb).s_xattr = xattr::Handlers::<T>::LIST.as_ptr();
                (*sb).s_magic = T::MAGIC as usize;
                (*sb).s_flags |= (bindings::VFS_RS_SB_RDONLY
                    | bindings::VFS_RS_SB_NOATIME
                    | bindings::VFS_RS_SB_POSIXACL) as usize;
                (*sb).s_maxbytes = bindings::VFS_RS_MAX_LFS_FILESIZE;
                (*sb).s_blocksize = BLOCK_SIZE as usize;
                (*sb).s_blocksize_bits = BLOCK_SIZE.trailing_zeros() as u8;
                (*sb).s_time_gran = 1;
                (*sb).s_stack_depth = params.stack_depth;
                (*sb).s_export_op = ptr::from_ref(&ExportOps::<T>::OPS).cast();
                (*sb).s_uuid.b = params.uuid;
                (*sb).s_uuid_len = params.uuid.len() as u8;
            }
            // SAFETY: The superblock is valid and has no device info of its own yet.
            to_result(unsafe { bindings::vfs_rs_setup_bdi(sb) })?;
            // SAFETY: `vfs_rs_setup_bdi` succeeded, so `s_bdi` is valid and this superblock's own.
            unsafe {
                let pages = params.readahead >> bindings::PAGE_SHIFT;
                (*(*sb).s_bdi).ra_pages = pages;
                (*(*sb).s_bdi).io_pages = pages;
            }

            let root = T::root(this)?;
            if !root.is_directory() {
                return Err(ENOTDIR);
            }
            // SAFETY: The reference to the inode is given away: `d_make_root` takes it even when
            // it fails.
            let dentry = unsafe { bindings::d_make_root(root.into_raw()) };
            if dentry.is_null() {
                return Err(ENOMEM);
            }
            // SAFETY: `sb` is still ours alone.
            unsafe { (*sb).s_root = dentry };
            Ok(0)
        })
    }

    /// Shuts a superblock down.
    ///
    /// # Safety
    ///
    /// To be called by the VFS as `file_system_type.kill_sb` of a `Registration<T>`.
    pub(super) unsafe extern "C" fn kill(sb: *mut bindings::super_block) {
        // No file is open any more, and so nothing more begins: what reads ahead gives its inodes
        // back. Without private data, the superblock was never filled.
        // SAFETY: The superblock is valid, and its data is there until below.
        unsafe {
            if !(*sb).s_fs_info.is_null() {
                Self::from_raw(sb).pending().wait();
            }
        }
        // SAFETY: The VFS calls this once, when the last reference to an active superblock is gone.
        unsafe { bindings::kill_anon_super(sb) };
        // SAFETY: `kill_anon_super` has evicted the inodes, so nobody can borrow the data any more.
        unsafe {
            let data = (*sb).s_fs_info;
            (*sb).s_fs_info = core::ptr::null_mut();
            drop_data::<T>(data);
        }
    }

    /// Reports the sizes of a filesystem: `super_operations.statfs`.
    ///
    /// # Safety
    ///
    /// To be called by the VFS for a dentry of the filesystem `T`.
    unsafe extern "C" fn statfs(
        dentry: *mut bindings::dentry,
        out: *mut kernel::bindings::kstatfs,
    ) -> c_int {
        from_result(|| {
            // SAFETY: The VFS gives a valid dentry of a superblock of this filesystem.
            let sb = unsafe { Self::from_raw((*dentry).d_sb) };
            let stat = T::statfs(sb)?;
            let out = out.cast::<bindings::kstatfs>();
            // SAFETY: The VFS gives a valid structure to fill, which it has zeroed.
            unsafe {
                (*out).f_type = T::MAGIC as isize;
                (*out).f_bsize = BLOCK_SIZE as isize;
                (*out).f_frsize = BLOCK_SIZE as isize;
                (*out).f_blocks = stat.bytes.div_ceil(u64::from(BLOCK_SIZE));
                (*out).f_files = stat.files;
                (*out).f_fsid.val = [stat.id[0] as c_int, stat.id[1] as c_int];
                (*out).f_namelen = bindings::NAME_MAX as isize;
            }
            Ok(0)
        })
    }

    /// Shows the mount options: `super_operations.show_options`.
    ///
    /// # Safety
    ///
    /// To be called by the VFS for a dentry of the filesystem `T`.
    unsafe extern "C" fn show_options(
        seq: *mut bindings::seq_file,
        root: *mut bindings::dentry,
    ) -> c_int {
        from_result(|| {
            // SAFETY: The VFS gives a valid dentry of a superblock of this filesystem, and a
            // sequence file that only this task uses.
            let (sb, seq) = unsafe { (Self::from_raw((*root).d_sb), SeqFile::from_raw(seq)) };
            T::show_options(sb, seq)?;
            Ok(0)
        })
    }

    /// Shows statistics: `super_operations.show_stats`.
    ///
    /// # Safety
    ///
    /// To be called by the VFS for a dentry of the filesystem `T`.
    unsafe extern "C" fn show_stats(
        seq: *mut bindings::seq_file,
        root: *mut bindings::dentry,
    ) -> c_int {
        from_result(|| {
            // SAFETY: As in `show_options`.
            let (sb, seq) = unsafe { (Self::from_raw((*root).d_sb), SeqFile::from_raw(seq)) };
            T::show_stats(sb, seq)?;
            Ok(0)
        })
    }
}

/// Makes what `s_fs_info` is to be, of the private data of a superblock.
pub(super) fn new_data<T: FileSystem>(data: T::SuperData) -> Result<*mut c_void> {
    let private = Private::<T> {
        mappings: T::shared_mappings(&data),
        pending: Pending::new(),
        data,
    };
    Ok(KBox::new(private, GFP_KERNEL)?.into_foreign().cast())
}

/// Drops the private data of a superblock, or of a context that no superblock came of.
///
/// # Safety
///
/// `data` must be null or come from [`new_data::<T>`], and not be used again.
pub(super) unsafe fn drop_data<T: FileSystem>(data: *mut c_void) {
    if !data.is_null() {
        // SAFETY: By the safety requirements.
        drop(unsafe { KBox::<Private<T>>::from_foreign(data.cast()) });
    }
}

// SAFETY: A superblock may be used from any thread; its private data is `Sync`.
unsafe impl<T: FileSystem> Sync for SuperBlock<T> {}

/// The superblock of an inode.
impl<T: FileSystem> INode<T> {
    /// The superblock that the inode belongs to.
    pub(crate) fn superblock(&self) -> &SuperBlock<T> {
        // SAFETY: An inode's superblock outlives it, and is of the same filesystem.
        unsafe { SuperBlock::from_raw((*self.as_ptr()).i_sb) }
    }
}
