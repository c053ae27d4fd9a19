// SPDX-License-Identifier: GPL-2.0

//! Attributes of inodes and fs-verity: `statx(2)`, `ioctl(FS_IOC_GETFLAGS)` and
//! `ioctl(FS_IOC_MEASURE_VERITY)`.
//!
//! A filesystem that reads each file from another, which checks it by fs-verity, gives the same
//! guarantee as fs-verity itself, and therefore the same answers.
//!
//! C header: [`include/uapi/linux/fsverity.h`](srctree/include/uapi/linux/fsverity.h)

use crate::vfs::{
    bindings,
    compat::prelude::*,
    filesystem::FileSystem,
    types::{Dentry, INode},
};
use kernel::{
    error::from_result,
    ffi::{c_int, c_long, c_uint, c_ulong},
    uaccess::{UserPtr, UserSlice},
};

/// Measures fs-verity of a regular file: `file_operations.unlocked_ioctl`.
///
/// # Safety
///
/// To be called by the VFS for a regular file of the filesystem `T`.
pub(super) unsafe extern "C" fn control<T: FileSystem>(
    file: *mut bindings::file,
    command: c_uint,
    argument: c_ulong,
) -> c_long {
    if command != bindings::VFS_RS_IOC_MEASURE_VERITY {
        return ENOTTY.to_errno() as c_long;
    }
    // SAFETY: The VFS gives a valid open file of this filesystem.
    let (inode, mode) = unsafe { (INode::<T>::from_raw((*file).f_inode), (*file).f_mode) };
    let result = if mode & bindings::VFS_RS_FMODE_READ == 0 {
        Err(EBADF)
    } else {
        measure(inode, argument)
    };
    result.map_or_else(|e| e.to_errno() as c_long, |()| 0)
}

/// Copies the fs-verity digest of a file to a `struct fsverity_digest` in user memory.
fn measure<T: FileSystem>(inode: &INode<T>, address: usize) -> Result {
    let digest = T::verity_digest(inode)?.ok_or(ENODATA)?;
    let len = size_of::<Header>() + digest.len();
    let user = || UserSlice::new(UserPtr::from_addr(address), len);
    let [_, room]: Header = {
        let mut reader = UserSlice::new(UserPtr::from_addr(address), size_of::<Header>()).reader();
        [reader.read()?, reader.read()?]
    };
    if usize::from(room) < digest.len() {
        return Err(EOVERFLOW);
    }
    let mut writer = user().writer();
    writer.write(&(bindings::FS_VERITY_HASH_ALG_SHA256 as u16))?;
    writer.write(&(digest.len() as u16))?;
    writer.write_slice(&digest)
}

/// Gets the flags of a regular file: `inode_operations.fileattr_get`.
///
/// The file is not marked as immutable, although the filesystem is read-only: overlayfs would copy
/// the mark up, and refuse changes in a writable layer.
///
/// # Safety
///
/// To be called by the VFS for a positive dentry of the filesystem `T` and a structure to fill.
pub(super) unsafe extern "C" fn get_flags<T: FileSystem>(
    dentry: *mut bindings::dentry,
    attributes: *mut bindings::file_kattr,
) -> c_int {
    from_result(|| {
        // SAFETY: The VFS gives a valid dentry of this filesystem.
        let dentry = unsafe { Dentry::<T>::from_raw(dentry) };
        let inode = dentry.inode().ok_or(ENOENT)?;
        let flags = if T::verity_digest(inode)?.is_some() {
            bindings::VFS_RS_VERITY_FL
        } else {
            0
        };
        // SAFETY: The structure is ours during the call.
        unsafe { bindings::fileattr_fill_flags(attributes, flags) };
        Ok(0)
    })
}

/// Gets the attributes of a regular file: `inode_operations.getattr`.
///
/// # Safety
///
/// To be called by the VFS for a valid path of the filesystem `T` and a structure to fill.
pub(super) unsafe extern "C" fn get_of_file<T: FileSystem>(
    idmap: *mut bindings::mnt_idmap,
    path: *const bindings::path,
    stat: *mut bindings::kstat,
    request_mask: u32,
    flags: c_uint,
) -> c_int {
    let verity = u64::from(bindings::STATX_ATTR_VERITY);
    // SAFETY: The VFS gives a valid path of this filesystem, and a structure that is ours during
    // the call.
    unsafe {
        (*stat).attributes_mask |= verity;
        if Dentry::<T>::from_raw((*path).dentry)
            .inode()
            .is_some_and(T::has_verity)
        {
            (*stat).attributes |= verity;
        }
        get(idmap, path, stat, request_mask, flags)
    }
}

/// Gets the attributes of an inode, which cannot be changed: `inode_operations.getattr`.
///
/// # Safety
///
/// To be called by the VFS for a valid path and a structure to fill.
pub(super) unsafe extern "C" fn get(
    idmap: *mut bindings::mnt_idmap,
    path: *const bindings::path,
    stat: *mut bindings::kstat,
    request_mask: u32,
    _flags: c_uint,
) -> c_int {
    let immutable = u64::from(bindings::STATX_ATTR_IMMUTABLE);
    // SAFETY: The VFS gives a positive dentry and a structure that is ours during the call.
    unsafe {
        (*stat).attributes |= immutable;
        (*stat).attributes_mask |= immutable;
        bindings::generic_fillattr(idmap, request_mask, (*(*path).dentry).d_inode, stat);
    }
    0
}

/// The beginning of `struct fsverity_digest`: the algorithm and the digest's size.
type Header = [u16; 2];
