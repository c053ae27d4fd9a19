// SPDX-License-Identifier: GPL-2.0

//! Page caches that inodes share.
//!
//! Inodes with equal contents, of any superblocks, can have one page cache: that of an inode of an
//! internal mount, the host. `i_mapping` of each of them points there, as it does for inodes of
//! block devices. Open files and maps remain those of their own inode: path, permissions,
//! attributes. The page cache asks for pages by way of the file that is read, and so of an inode
//! that knows where the contents are.
//!
//! Locks: the inode hash's lock protects the set of hosts, and `I_NEW` a host that is being
//! initialised. `i_mapping` of a sharing inode changes once, by compare-and-exchange, before the
//! first read of that inode. No lock is taken here.
//!
//! C headers: [`include/linux/pseudo_fs.h`](srctree/include/linux/pseudo_fs.h),
//! [`include/linux/mount.h`](srctree/include/linux/mount.h)

use crate::vfs::{bindings, compat::prelude::*, filesystem_type::FileSystemType};
use core::{
    marker::PhantomData,
    ptr::{self, NonNull},
};
use kernel::{
    error::from_err_ptr,
    ffi::{c_int, c_void},
};

/// The identity of a file's contents, and of the way in which they are verified.
pub(crate) type SharingKey = [u8; 32];

/// The page caches that inodes of the filesystem `T` share.
///
/// They belong to an internal mount, which is unmounted when this is dropped. No inode uses them
/// any more then: only inodes of superblocks that keep an `Arc` of this do.
///
/// # Invariants
///
/// `mount` is an internal mount made for [`Self::init_context`], and is ours. Each inode of its
/// superblock but the root has a `KBox<SharingKey>` in `i_private` and `operations` as `a_ops`.
pub(crate) struct SharedMappings<T: FileSystemType> {
    mount: NonNull<bindings::vfsmount>,
    operations: &'static bindings::address_space_operations,
    _filesystem: PhantomData<T>,
}

// SAFETY: A mount may be used from any thread.
unsafe impl<T: FileSystemType> Send for SharedMappings<T> {}
// SAFETY: Shared references search the inode cache, which has its own lock.
unsafe impl<T: FileSystemType> Sync for SharedMappings<T> {}

impl<T: FileSystemType> SharedMappings<T> {
    const OPS: bindings::super_operations = bindings::super_operations {
        free_inode: Some(free_inode),
        ..pin_init::zeroed()
    };

    /// Makes an internal mount. `readahead` is the maximum readahead, in bytes.
    ///
    /// # Safety
    ///
    /// `fs` must be a file system type with [`Self::init_context`], whose module is in use during
    /// the call. `operations` must fill folios of a mapping by way of open files of `T` whose
    /// inodes share that mapping.
    pub(in crate::vfs) unsafe fn mount(
        fs: *mut bindings::file_system_type,
        operations: &'static bindings::address_space_operations,
        readahead: usize,
    ) -> Result<Self> {
        // SAFETY: The type is valid by the safety requirements, and stays so because the mount
        // holds a reference to its module.
        let mount = unsafe { from_err_ptr(bindings::kern_mount(fs)) }?;
        // INVARIANT: The mount was just made; its superblock has no inode but the root.
        let this = Self {
            mount: NonNull::new(mount).ok_or(ENOMEM)?,
            operations,
            _filesystem: PhantomData,
        };
        // SAFETY: The mount is valid; no file of its superblock is read yet.
        unsafe { set_readahead((*mount).mnt_sb, readahead >> bindings::PAGE_SHIFT) }?;
        Ok(this)
    }

    /// Prepares a context for an internal mount.
    ///
    /// # Safety
    ///
    /// To be called by the VFS as `file_system_type.init_fs_context`.
    pub(in crate::vfs) unsafe extern "C" fn init_context(
        fc: *mut kernel::bindings::fs_context,
    ) -> c_int {
        // SAFETY: The VFS gives a valid new context. The result is null or valid.
        let context = unsafe { bindings::init_pseudo(fc.cast(), T::MAGIC as usize) };
        if context.is_null() {
            return ENOMEM.to_errno();
        }
        // Everything is read-only: nothing is ever written back.
        // SAFETY: The context is valid and ours. `OPS` is promoted to a static: it is a constant of
        // function pointers.
        unsafe {
            (*context).ops = &Self::OPS;
            let fc = fc.cast::<bindings::fs_context>();
            (*fc).sb_flags |= bindings::VFS_RS_SB_RDONLY;
        }
        0
    }

    /// Has an inode share its page cache with all inodes of equal key; returns the number of pages
    /// that are there already.
    ///
    /// # Safety
    ///
    /// `inode` must be a valid regular file's of `T`, and its superblock must keep `self` until its
    /// inodes are evicted.
    pub(in crate::vfs) unsafe fn share(
        &self,
        inode: *mut bindings::inode,
        key: &SharingKey,
    ) -> Result<usize> {
        // SAFETY: The inode is valid by the safety requirements.
        let size = unsafe { bindings::vfs_rs_inode_size(inode) };
        let host = self.host(key, size)?.as_ptr();
        // SAFETY: Both inodes are valid. The reference to the host goes to `inode`, which gives it
        // back when it is evicted, before `self` is dropped.
        unsafe {
            let pages = ptr::addr_of!((*(*host).i_mapping).nrpages).read_volatile();
            if !bindings::vfs_rs_inode_share_mapping(inode, (*host).i_mapping) {
                // Another thread was first.
                bindings::iput(host);
            }
            Ok(pages)
        }
    }

    /// Finds or makes the host of a key; returns it with a reference.
    fn host(&self, key: &SharingKey, size: i64) -> Result<NonNull<bindings::inode>> {
        let mut wanted = Wanted {
            key: *key,
            owned: Some(KBox::new(*key, GFP_KERNEL_ACCOUNT)?),
        };
        // SAFETY: By the type invariants the mount is valid, and its superblock with it. The
        // functions are for inodes of it, and for a `Wanted`, which outlives the call.
        let host = NonNull::new(unsafe {
            bindings::iget5_locked(
                (*self.mount.as_ptr()).mnt_sb,
                number(key),
                Some(is_wanted),
                Some(set_key),
                ptr::from_mut(&mut wanted).cast(),
            )
        })
        .ok_or(ENOMEM)?;
        let inode = host.as_ptr();
        // INVARIANT: A new host gets the operations here, and got its key from `set_key`.
        // SAFETY: `iget5_locked` gives a valid inode. If it is new, it is locked and ours to
        // initialise.
        unsafe {
            if bindings::vfs_rs_inode_is_new(inode) {
                (*inode).i_mode = bindings::S_IFREG as u16 | 0o444;
                bindings::vfs_rs_inode_set_size(inode, size);
                (*inode).i_data.a_ops = self.operations;
                bindings::vfs_rs_mapping_allow_large_folios((*inode).i_mapping);
                bindings::unlock_new_inode(inode);
            }
        }
        Ok(host)
    }
}

impl<T: FileSystemType> Drop for SharedMappings<T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the mount is ours. Its inodes go with it: the inodes that
        // referred to them have been evicted, by the requirements of `share`.
        unsafe { bindings::kern_unmount_array(&mut self.mount.as_ptr(), 1) };
    }
}

/// Sets the maximum readahead of a superblock without a device, in pages.
///
/// # Safety
///
/// `sb` must be valid, without device info of its own, and without files that are read.
unsafe fn set_readahead(sb: *mut bindings::super_block, pages: usize) -> Result {
    // SAFETY: No requirements.
    let info = unsafe { bindings::bdi_alloc(bindings::NUMA_NO_NODE) };
    if info.is_null() {
        return Err(ENOMEM);
    }
    // SAFETY: The info is new and ours. The superblock, which is valid by the safety requirements,
    // takes the reference and drops it when it is shut down.
    unsafe {
        (*info).ra_pages = pages;
        (*info).io_pages = pages;
        (*sb).s_bdi = info;
    }
    Ok(())
}

/// Returns true if an inode uses the page cache of a host.
///
/// # Safety
///
/// `inode` must be valid.
pub(in crate::vfs) unsafe fn is_shared(inode: *mut bindings::inode) -> bool {
    // SAFETY: The inode is valid by the safety requirements.
    unsafe { !ptr::eq((*inode).i_mapping, ptr::addr_of!((*inode).i_data)) }
}

/// Takes the host from an inode that is evicted; returns it with the inode's reference, or null.
///
/// # Safety
///
/// `inode` must be valid and without references.
pub(in crate::vfs) unsafe fn take_host(inode: *mut bindings::inode) -> *mut bindings::inode {
    // SAFETY: By the safety requirements the inode is valid, and nobody else uses it.
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

/// The subject of a search among the inodes of the internal mount.
struct Wanted {
    key: SharingKey,
    /// The key that a new inode takes.
    owned: Option<KBox<SharingKey>>,
}

/// Returns the number of the host of a key.
fn number(key: &SharingKey) -> u64 {
    u64::from_le_bytes(*key.first_chunk().unwrap_or(&[0; 8]))
}

/// Returns 1 if an inode of an internal mount is the wanted one.
///
/// # Safety
///
/// To be called by `iget5_locked` with a [`Wanted`].
unsafe extern "C" fn is_wanted(inode: *mut bindings::inode, wanted: *mut c_void) -> c_int {
    // SAFETY: Each inode that can be found has a key from `set_key`. `free_inode` drops it a grace
    // period after nobody can find the inode any more. The caller gives a `Wanted`.
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
    // SAFETY: The inode is new, and `wanted` belongs to the caller of `iget5_locked` alone.
    let (inode, wanted) = unsafe { (&mut *inode, &mut *wanted.cast::<Wanted>()) };
    let Some(key) = wanted.owned.take() else {
        return EINVAL.to_errno();
    };
    inode.i_private = KBox::into_raw(key).cast();
    inode.i_ino = number(&wanted.key);
    0
}

/// Frees an inode of an internal mount: `super_operations.free_inode`.
///
/// # Safety
///
/// To be called by the VFS, once, for an inode that nobody uses any more.
unsafe extern "C" fn free_inode(inode: *mut bindings::inode) {
    // SAFETY: `i_private` is null for the root, and otherwise from `set_key`, which gave the key
    // away. The VFS calls this once, when nobody uses the inode any more.
    unsafe {
        let key = (*inode).i_private.cast::<SharingKey>();
        if !key.is_null() {
            drop(KBox::from_raw(key));
        }
        bindings::free_inode_nonrcu(inode);
    }
}
