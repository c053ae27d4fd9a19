// SPDX-License-Identifier: GPL-2.0

//! Superblocks.
//!
//! Lifetime: `s_fs_info` is set before the superblock exists, borrowed while it is active, and
//! taken back when its inodes have been evicted. No lock protects it, because nothing changes it
//! between.
//!
//! C header: [`include/linux/fs/super_types.h`](srctree/include/linux/fs/super_types.h)

use crate::vfs::{
    bindings, compat::prelude::*, filesystem_type::FileSystemType, sharing::SharedMappings,
    work::Pending,
};
use core::marker::PhantomData;
use kernel::{
    ffi::{c_int, c_void},
    sync::Arc,
    types::{ForeignOwnable, Opaque},
};

/// The target of `s_fs_info` of a context or a superblock.
struct Private<T: FileSystemType> {
    data: T::SuperData,
    /// The work that holds references to inodes.
    pending: Pending,
    /// The page caches that inodes share. Kept here because the inodes refer to them.
    mappings: Option<Arc<SharedMappings<T>>>,
}

/// A superblock of the filesystem `T`.
///
/// # Invariants
///
/// Stands for a valid `struct super_block` of the file system type of a `Registration<T>`, whose
/// `s_fs_info` came from [`new_data::<T>`] and stays until the superblock is shut down.
#[repr(transparent)]
pub(crate) struct SuperBlock<T: FileSystemType>(Opaque<bindings::super_block>, PhantomData<T>);

impl<T: FileSystemType> SuperBlock<T> {
    /// Borrows a superblock.
    ///
    /// # Safety
    ///
    /// `sb` must satisfy the type's invariants for the duration of `'a`.
    pub(in crate::vfs) unsafe fn from_raw<'a>(sb: *mut bindings::super_block) -> &'a Self {
        // SAFETY: By the function's safety requirements; `Self` is a transparent wrapper.
        unsafe { &*sb.cast() }
    }

    /// Returns the C structure.
    pub(super) fn as_ptr(&self) -> *mut bindings::super_block {
        self.0.get()
    }

    /// Returns the target of `s_fs_info`.
    fn private(&self) -> &Private<T> {
        // SAFETY: By the type invariants `s_fs_info` came from a `KBox<Private<T>>`. `kill` takes
        // it back when no inode or operation is left that could borrow `self`.
        unsafe { KBox::<Private<T>>::borrow((*self.as_ptr()).s_fs_info.cast()) }
    }

    /// Returns the superblock's private data.
    pub(crate) fn data(&self) -> &T::SuperData {
        &self.private().data
    }

    /// Returns the device number, as the kernel has it.
    pub(crate) fn device(&self) -> u32 {
        // SAFETY: By the type invariants the superblock is valid; its device number is set before
        // it has inodes, and does not change.
        unsafe { (*self.as_ptr()).s_dev }
    }

    /// Returns the count of work that holds references to inodes. The superblock waits for this
    /// work before it is shut down.
    ///
    /// Work must only begin while the superblock is active: in a call for an open or mapped file.
    pub(in crate::vfs) fn pending(&self) -> &Pending {
        &self.private().pending
    }

    /// Returns the page caches that the superblock's inodes can share.
    pub(super) fn mappings(&self) -> Option<&SharedMappings<T>> {
        self.private().mappings.as_deref()
    }

    /// Returns the generation of all inodes. Superblocks of other contents have, most likely,
    /// another.
    pub(in crate::vfs) fn generation(&self) -> u32 {
        // SAFETY: By the type invariants the superblock is valid; its UUID is set before it has
        // inodes, and does not change.
        let [a, b, c, d, ..] = unsafe { (*self.as_ptr()).s_uuid.b };
        u32::from_le_bytes([a, b, c, d])
    }
}

// SAFETY: A superblock may be used from any thread; its private data is `Sync`.
unsafe impl<T: FileSystemType> Sync for SuperBlock<T> {}

/// Makes the target of `s_fs_info` from the private data of a superblock.
pub(in crate::vfs) fn new_data<T: FileSystemType>(
    data: T::SuperData,
    mappings: Option<Arc<SharedMappings<T>>>,
) -> Result<*mut c_void> {
    let private = Private::<T> {
        mappings,
        pending: Pending::new(),
        data,
    };
    Ok(KBox::new(private, GFP_KERNEL)?.into_foreign().cast())
}

/// Drops the private data of a superblock, or of a context that has become no superblock.
///
/// # Safety
///
/// `data` must be null or come from [`new_data::<T>`], and not be used again.
pub(in crate::vfs) unsafe fn drop_data<T: FileSystemType>(data: *mut c_void) {
    if !data.is_null() {
        // SAFETY: By the safety requirements the data came from `new_data`, and is taken once.
        drop(unsafe { KBox::<Private<T>>::from_foreign(data.cast()) });
    }
}

/// The properties of a superblock that follow from its private data.
pub(crate) struct SuperParams {
    /// The number of filesystems stacked below this one: one more than the deepest of those that it
    /// reads from. The kernel allows [`MAX_STACK_DEPTH`].
    pub(crate) stack_depth: c_int,
    /// The maximum readahead, in bytes.
    pub(crate) readahead: usize,
    /// The identity of the contents, equal in all mounts of them.
    pub(crate) uuid: [u8; 16],
}

/// The sizes that `statfs(2)` reports of a read-only filesystem, which has no free space.
pub(crate) struct StatFs {
    /// The size of the contents, in bytes.
    pub(crate) bytes: u64,
    /// The number of inodes.
    pub(crate) files: u64,
    /// The filesystem's identity: the same for each mount of the same contents.
    pub(crate) id: [u32; 2],
}

/// The maximum number of filesystems that are stacked on each other.
pub(crate) const MAX_STACK_DEPTH: c_int = bindings::FILESYSTEM_MAX_STACK_DEPTH as c_int;

/// The block size that [`SuperBlock`]s report, in bytes.
pub(in crate::vfs) const BLOCK_SIZE: u32 = 4096;
