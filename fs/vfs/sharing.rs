// SPDX-License-Identifier: GPL-2.0

//! Page cache that inodes share.
//!
//! Inodes with equal contents, of whatever superblocks, can have one page cache: that of an inode
//! of an internal mount, which nobody sees. `i_mapping` of each of them points there, as it does
//! for inodes of block devices. Open files and maps remain those of their own inode: path,
//! permissions, attributes. The page cache asks for pages by way of the file that somebody reads,
//! and so of an inode that knows where the contents are: see [`folio`].
//!
//! C headers: [`include/linux/pseudo_fs.h`](srctree/include/linux/pseudo_fs.h),
//! [`include/linux/mount.h`](srctree/include/linux/mount.h)

use super::prelude::*;
use super::{bindings, folio, inode::INode, FileSystem, MountContext};
use core::{
    marker::PhantomData,
    ptr::{self, NonNull},
};
use kernel::{
    error::{from_err_ptr, from_result, to_result},
    ffi::{c_int, c_uint, c_void},
};

/// What tells files of other contents, or of contents verified in another way, apart.
pub(crate) type SharingKey = [u8; 32];

/// The page caches that inodes of the filesystem `T` share.
///
/// They belong to an internal mount, which is unmounted when this is dropped. No inode uses them
/// any more then: only inodes of superblocks that keep an `Arc` of this do.
///
/// # Invariants
///
/// `mount` is an internal mount of the type [`Registration::sharing_type`], and is ours. The
/// inodes of its superblock but for the root have a `KBox<SharingKey>` in `i_private`.
pub(crate) struct SharedMappings<T: FileSystem> {
    mount: NonNull<bindings::vfsmount>,
    _filesystem: PhantomData<T>,
}

// SAFETY: A mount may be used from any thread.
unsafe impl<T: FileSystem> Send for SharedMappings<T> {}
// SAFETY: As above; the inode cache has locks of its own.
unsafe impl<T: FileSystem> Sync for SharedMappings<T> {}

/// What is looked for among the inodes of the internal mount.
struct Wanted {
    key: SharingKey,
    /// What a new inode gets.
    owned: Option<KBox<SharingKey>>,
}

impl<T: FileSystem> SharedMappings<T> {
    const OPS: bindings::super_operations = bindings::super_operations {
        free_inode: Some(free_inode),
        ..pin_init::zeroed()
    };

    /// Page caches for inodes of superblocks like the one that is being mounted.
    ///
    /// `readahead` is how far to read ahead at the most, in bytes.
    pub(crate) fn new(context: &MountContext<T>, readahead: usize) -> Result<Self> {
        let registration = context.registration();
        // SAFETY: The type is valid, and stays so as long as its module is in use: by the caller
        // now, by the internal mount afterwards.
        let mount = unsafe { from_err_ptr(bindings::kern_mount(registration.sharing_type())) }?;
        // INVARIANT: The mount was just made.
        let this = Self {
            mount: NonNull::new(mount).ok_or(ENOMEM)?,
            _filesystem: PhantomData,
        };
        // SAFETY: The mount is valid, and its superblock has no inode yet that is read.
        to_result(unsafe {
            bindings::vfs_rs_set_readahead((*mount).mnt_sb, readahead >> bindings::PAGE_SHIFT)
        })?;
        Ok(this)
    }

    /// Prepares a context for an internal mount.
    ///
    /// # Safety
    ///
    /// To be called by the VFS as `file_system_type.init_fs_context`.
    pub(super) unsafe extern "C" fn init(fc: *mut kernel::bindings::fs_context) -> c_int {
        // SAFETY: The VFS gives a valid new context. The result is null or valid.
        let context = unsafe { bindings::init_pseudo(fc.cast(), T::MAGIC as usize) };
        if context.is_null() {
            return ENOMEM.to_errno();
        }
        // SAFETY: As above. `OPS` is promoted to a static: it is a constant of function pointers.
        // Everything is read-only: nothing is ever written back.
        unsafe {
            (*context).ops = &Self::OPS;
            let fc = fc.cast::<bindings::fs_context>();
            (*fc).sb_flags |= bindings::VFS_RS_SB_RDONLY;
        }
        0
    }

    /// Has an inode of a regular file share its page cache with all those of equal key.
    ///
    /// # Safety
    ///
    /// The inode's superblock must keep `self` until its inodes are evicted.
    unsafe fn share(&self, inode: &INode<T>, key: &SharingKey) -> Result<usize> {
        let mut wanted = Wanted {
            key: *key,
            owned: Some(KBox::new(*key, GFP_KERNEL_ACCOUNT)?),
        };
        let [a, b, c, d, e, f, g, h, ..] = *key;
        // SAFETY: The mount is valid, and its superblock with it; the functions are for inodes of
        // it, and what they are given outlives the call.
        let host = NonNull::new(unsafe {
            bindings::iget5_locked(
                (*self.mount.as_ptr()).mnt_sb,
                u64::from_le_bytes([a, b, c, d, e, f, g, h]),
                Some(is_wanted),
                Some(set_key),
                ptr::from_mut(&mut wanted).cast(),
            )
        })
        .ok_or(ENOMEM)?
        .as_ptr();
        // SAFETY: `iget5_locked` gives a valid inode; if it is new it is ours to initialise. The
        // table is promoted to a static. The reference goes to `inode`, if that has none yet; it
        // gives it back when it is evicted, before `self` is dropped.
        unsafe {
            if bindings::vfs_rs_inode_is_new(host) {
                (*host).i_mode = bindings::S_IFREG as u16 | 0o444;
                let size = bindings::vfs_rs_inode_size(inode.as_ptr());
                bindings::vfs_rs_inode_set_size(host, size);
                (*host).i_data.a_ops = &Self::ADDRESS_SPACE_OPS;
                bindings::vfs_rs_mapping_allow_large_folios((*host).i_mapping);
                bindings::unlock_new_inode(host);
            }
            let pages = ptr::addr_of!((*(*host).i_mapping).nrpages).read_volatile();
            if !bindings::vfs_rs_inode_share_mapping(inode.as_ptr(), (*host).i_mapping) {
                // Another thread was first.
                bindings::iput(host);
            }
            Ok(pages)
        }
    }

    const ADDRESS_SPACE_OPS: bindings::address_space_operations =
        bindings::address_space_operations {
            read_folio: Some(folio::read_shared_folio::<T>),
            readahead: Some(folio::readahead_shared::<T>),
            #[cfg(CONFIG_MIGRATION)]
            migrate_folio: Some(bindings::filemap_migrate_folio),
            ..pin_init::zeroed()
        };
}

impl<T: FileSystem> Drop for SharedMappings<T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the mount is ours. Its inodes go with it: those that
        // referred to them have been evicted, by the requirements of `share`.
        unsafe { bindings::kern_unmount_array(&mut self.mount.as_ptr(), 1) };
    }
}

impl<T: FileSystem> INode<T> {
    /// Has a regular file share its page cache with all files of equal key, which should have equal
    /// contents; returns the number of pages that are there already.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if the inode is not a regular file's, or [`FileSystem::shared_mappings`] gave the
    /// superblock nothing to share.
    pub(crate) fn share_pages(&self, key: &SharingKey) -> Result<usize> {
        if !self.is_regular() {
            return Err(EINVAL);
        }
        let mappings = self.superblock().mappings().ok_or(EINVAL)?;
        // SAFETY: The superblock keeps the mappings in its private data, which is dropped after its
        // inodes have been evicted.
        unsafe { mappings.share(self, key) }
    }
}

/// Whether an inode of an internal mount is the wanted one.
///
/// # Safety
///
/// To be called by `iget5_locked` with a [`Wanted`].
unsafe extern "C" fn is_wanted(inode: *mut bindings::inode, wanted: *mut c_void) -> c_int {
    // SAFETY: Each inode that can be found has a key, which stays until a grace period after
    // nobody can find it any more.
    let (key, wanted) = unsafe {
        let key = (*inode).i_private.cast::<SharingKey>();
        (key.as_ref(), &(*wanted.cast::<Wanted>()).key)
    };
    c_int::from(key == Some(wanted))
}

/// Gives a new inode of an internal mount its key.
///
/// # Safety
///
/// To be called by `iget5_locked` with a [`Wanted`].
unsafe extern "C" fn set_key(inode: *mut bindings::inode, wanted: *mut c_void) -> c_int {
    // SAFETY: The inode is new, and `wanted` ours alone.
    let (inode, wanted) = unsafe { (&mut *inode, &mut *wanted.cast::<Wanted>()) };
    let Some(key) = wanted.owned.take() else {
        return EINVAL.to_errno();
    };
    inode.i_private = KBox::into_raw(key).cast();
    inode.i_ino = u64::from_le_bytes(*wanted.key.first_chunk().unwrap_or(&[0; 8]));
    0
}

/// Frees an inode of an internal mount: `super_operations.free_inode`.
///
/// # Safety
///
/// To be called by the VFS, once, for an inode that nobody uses any more.
unsafe extern "C" fn free_inode(inode: *mut bindings::inode) {
    // SAFETY: What is in `i_private` came from `set_key`; the root has nothing there.
    unsafe {
        let key = (*inode).i_private.cast::<SharingKey>();
        if !key.is_null() {
            drop(KBox::from_raw(key));
        }
        bindings::free_inode_nonrcu(inode);
    }
}

/// The inode whose page cache an inode shares, if it does.
///
/// # Safety
///
/// `inode` must be a valid inode of a filesystem of ours.
pub(super) unsafe fn take_host(inode: *mut bindings::inode) -> *mut bindings::inode {
    // SAFETY: By the safety requirements; nobody uses the inode any more.
    unsafe {
        let own = ptr::addr_of_mut!((*inode).i_data);
        let mapping = core::mem::replace(&mut (*inode).i_mapping, own);
        if mapping == own {
            ptr::null_mut()
        } else {
            (*mapping).host
        }
    }
}

/// Opens a regular file: `file_operations.open`.
///
/// # Safety
///
/// To be called by the VFS for an inode of the filesystem `T`.
pub(super) unsafe extern "C" fn open<T: FileSystem>(
    inode: *mut bindings::inode,
    file: *mut bindings::file,
) -> c_int {
    // SAFETY: The VFS gives a valid inode of this filesystem.
    let shares = unsafe { !ptr::eq((*inode).i_mapping, ptr::addr_of!((*inode).i_data)) };
    if !shares {
        // SAFETY: As above.
        if let Err(e) = T::share_pages(unsafe { INode::<T>::from_raw(inode) }) {
            return e.to_errno();
        }
    }
    // SAFETY: The file is being opened by this task alone. The mapping stays as long as the inode.
    unsafe {
        (*file).f_mapping = (*inode).i_mapping;
        let error = bindings::vfs_rs_open_nowait(inode, file);
        if error != 0 {
            return error;
        }
        from_result(|| {
            // The VFS will set the readahead of the internal mount.
            let mut marks = TO_PREPARE;
            if T::open(INode::<T>::from_raw(inode))? {
                marks |= TO_RELEASE;
            }
            (*file).private_data = ptr::without_provenance_mut(marks);
            Ok(0)
        })
    }
}

/// Closes a regular file: `file_operations.release`.
///
/// # Safety
///
/// To be called by the VFS for a file that [`open`] has opened.
pub(super) unsafe extern "C" fn release<T: FileSystem>(
    inode: *mut bindings::inode,
    file: *mut bindings::file,
) -> c_int {
    // SAFETY: The VFS gives a valid file, and a valid inode of this filesystem.
    unsafe {
        if (*file).private_data.addr() & TO_RELEASE != 0 {
            T::release(INode::<T>::from_raw(inode));
        }
    }
    0
}

/// A mark in `private_data` of an open file: nothing of it has been read yet.
const TO_PREPARE: usize = 1;

/// A mark in `private_data` of an open file: [`FileSystem::release`] is due for it.
const TO_RELEASE: usize = 2;

/// Before the first read of a file, sets how far to read ahead to the value that its own mount has
/// at this time.
///
/// # Safety
///
/// `file` must be a valid open file of a filesystem of ours.
unsafe fn prepare(file: *mut bindings::file) {
    // SAFETY: By the safety requirements. Several tasks may be here: whoever is not the first may
    // read less or more ahead this time. All of them write the same marks.
    unsafe {
        let state = ptr::addr_of_mut!((*file).private_data);
        let marks = state.read_volatile().addr();
        if marks & TO_PREPARE != 0 {
            bindings::vfs_rs_file_set_readahead(file, 1);
            state.write_volatile(ptr::without_provenance_mut(marks & !TO_PREPARE));
        }
    }
}

/// `file_operations.read_iter`.
///
/// # Safety
///
/// To be called by the VFS for a regular file of a filesystem of ours.
pub(super) unsafe extern "C" fn read(
    iocb: *mut bindings::kiocb,
    to: *mut bindings::iov_iter,
) -> isize {
    // SAFETY: The VFS gives a valid request for an open file.
    unsafe {
        prepare((*iocb).ki_filp);
        bindings::generic_file_read_iter(iocb, to)
    }
}

/// `file_operations.splice_read`.
///
/// # Safety
///
/// As for [`read`].
pub(super) unsafe extern "C" fn splice(
    file: *mut bindings::file,
    position: *mut bindings::loff_t,
    pipe: *mut bindings::pipe_inode_info,
    len: usize,
    flags: c_uint,
) -> isize {
    // SAFETY: The VFS gives a valid open file and a pipe that is locked.
    unsafe {
        prepare(file);
        bindings::filemap_splice_read(file, position, pipe, len, flags)
    }
}

/// `file_operations.mmap_prepare`.
///
/// # Safety
///
/// As for [`read`].
pub(super) unsafe extern "C" fn map(area: *mut bindings::vm_area_desc) -> c_int {
    // SAFETY: The VFS gives a valid description of a map of an open file.
    unsafe {
        prepare((*area).file);
        bindings::generic_file_readonly_mmap_prepare(area)
    }
}

/// `file_operations.fadvise`.
///
/// # Safety
///
/// As for [`read`].
pub(super) unsafe extern "C" fn advise(
    file: *mut bindings::file,
    offset: bindings::loff_t,
    len: bindings::loff_t,
    advice: c_int,
) -> c_int {
    // SAFETY: The VFS gives a valid open file.
    unsafe {
        prepare(file);
        let result = bindings::generic_fadvise(file, offset, len, advice);
        // It has taken the readahead of the internal mount.
        match advice as c_uint {
            bindings::POSIX_FADV_NORMAL if result == 0 => {
                bindings::vfs_rs_file_set_readahead(file, 1)
            }
            bindings::POSIX_FADV_SEQUENTIAL if result == 0 => {
                bindings::vfs_rs_file_set_readahead(file, 2)
            }
            _ => {}
        }
        result
    }
}
