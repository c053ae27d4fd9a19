// SPDX-License-Identifier: GPL-2.0

//! Opens a regular file by its name in a directory.
//!
//! The file is a backing file, as overlayfs has: it does not count against `nr_files`. The file
//! that it backs is an `O_PATH` file of the directory, which sends no fsnotify events; a backing
//! file inherits that. A permission event would be sent while folios are locked, and its listener
//! can wait for one of these folios.
//!
//! Locks: the directory's `i_rwsem`, shared, if the dcache does not have the name. Its holder may
//! be listing the directory into memory that is mapped from a file of ours, and then waits for a
//! folio. Therefore the lock is only tried for a caller that must not wait.

use crate::vfs::{bindings, compat::prelude::*};
use core::ptr::{self, NonNull};
use kernel::{
    error::{from_err_ptr, to_result},
    ffi::{c_int, c_uint},
};

/// Opens a regular file in a directory for reading.
///
/// # Errors
///
/// See [`Directory::open_file`](super::directory::Directory::open_file).
///
/// # Safety
///
/// `directory` must be a valid `O_PATH` file of a directory. The current task must act with the
/// directory's credentials.
pub(super) unsafe fn open_file(
    directory: *mut bindings::file,
    name: &[u8],
    wait: bool,
) -> Result<NonNull<bindings::file>> {
    let len = c_uint::try_from(name.len()).map_err(|_| ENAMETOOLONG)?;
    // SAFETY: The file is valid by the safety requirements, and its path with it.
    let directory_path = unsafe { *bindings::vfs_rs_file_path(directory) };
    // SAFETY: The path is a directory's by the safety requirements; the name is `len` bytes long.
    let dentry = unsafe { lookup(&directory_path, name.as_ptr(), len, wait) }?;
    let path = bindings::path {
        mnt: directory_path.mnt,
        dentry,
    };
    // SAFETY: The dentry is positive, and on the directory's mount. The reference to it, which
    // `lookup` gave us, is dropped afterwards: an open file has its own.
    let file = unsafe {
        let file = open_path(directory, &path, wait);
        bindings::dput(dentry);
        file
    }?;
    NonNull::new(file).ok_or(EIO)
}

/// Opens a directory in a directory as an `O_PATH` file. No mount on it is entered.
///
/// # Errors
///
/// See [`Directory::open_directory_at`](super::directory::Directory::open_directory_at).
///
/// # Safety
///
/// Those of [`open_file`].
pub(super) unsafe fn open_directory(
    directory: *mut bindings::file,
    name: &[u8],
    wait: bool,
) -> Result<NonNull<bindings::file>> {
    let len = c_uint::try_from(name.len()).map_err(|_| ENAMETOOLONG)?;
    // SAFETY: The file is valid by the safety requirements, and its path with it. The name is `len`
    // bytes long. The dentry that `lookup` gives is positive, on the directory's mount, and its
    // reference is ours; an open file has its own.
    let file = unsafe {
        let directory_path = *bindings::vfs_rs_file_path(directory);
        let path = bindings::path {
            mnt: directory_path.mnt,
            dentry: lookup(&directory_path, name.as_ptr(), len, wait)?,
        };
        let file = if bindings::vfs_rs_d_is_dir(path.dentry) {
            let flags = bindings::O_PATH | bindings::O_DIRECTORY;
            let credentials = bindings::vfs_rs_current_cred();
            from_err_ptr(bindings::dentry_open(&path, flags as c_int, credentials))
        } else {
            Err(ENOTDIR)
        };
        bindings::dput(path.dentry);
        file
    }?;
    NonNull::new(file).ok_or(EIO)
}

/// Looks a name up in a directory; returns a positive dentry with a reference.
///
/// # Errors
///
/// [`ENOENT`] if there is no such entry; without `wait`, [`EAGAIN`] if the directory is locked.
///
/// # Safety
///
/// `directory` must be a valid path of a directory, and `name` valid for `len` bytes.
unsafe fn lookup(
    directory: &bindings::path,
    name: *const u8,
    len: c_uint,
    wait: bool,
) -> Result<*mut bindings::dentry> {
    let base = directory.dentry;
    // SAFETY: The path is valid by the safety requirements, and so are its mount and its dentry,
    // which is a directory's. All functions take a name of `len` bytes, and return a dentry with a
    // reference or an error.
    unsafe {
        let idmap = bindings::vfs_rs_mnt_idmap(directory.mnt);
        if wait {
            return from_err_ptr(bindings::vfs_rs_lookup_one_positive_killable(
                idmap, name, len, base,
            ));
        }
        let dentry = match cached(idmap, name, len, base)? {
            Some(dentry) => dentry.as_ptr(),
            None => {
                let inode = (*base).d_inode;
                if bindings::vfs_rs_inode_trylock_shared(inode) == 0 {
                    return Err(EAGAIN);
                }
                let dentry = bindings::vfs_rs_lookup_one(idmap, name, len, base);
                bindings::vfs_rs_inode_unlock_shared(inode);
                from_err_ptr(dentry)?
            }
        };
        if bindings::vfs_rs_dentry_is_negative(dentry) {
            bindings::dput(dentry);
            return Err(ENOENT);
        }
        Ok(dentry)
    }
}

/// Looks a name up in the dcache; returns `None` if only the filesystem can answer.
///
/// # Safety
///
/// `base` must be a valid dentry of a directory on a mount with `idmap`, and `name` valid for `len`
/// bytes.
unsafe fn cached(
    idmap: *mut bindings::mnt_idmap,
    name: *const u8,
    len: c_uint,
    base: *mut bindings::dentry,
) -> Result<Option<NonNull<bindings::dentry>>> {
    // SAFETY: The arguments are valid by the safety requirements. A dentry that is found comes with
    // a reference, which is dropped if it is not returned.
    unsafe {
        let may_search = bindings::inode_permission(idmap, (*base).d_inode, MAY_EXEC);
        to_result(may_search)?;
        let dentry = from_err_ptr(bindings::vfs_rs_try_lookup_noperm(name, len, base))?;
        let Some(found) = NonNull::new(dentry) else {
            return Ok(None);
        };
        if has_flag(dentry, bindings::dentry_flags_DCACHE_OP_REVALIDATE) {
            bindings::dput(dentry);
            return Ok(None);
        }
        Ok(Some(found))
    }
}

/// Opens a regular file by its path for reading. Without `wait`, a lease on it is an [`EAGAIN`].
///
/// # Safety
///
/// `directory` must be a valid file, `path` valid, and its dentry positive.
unsafe fn open_path(
    directory: *mut bindings::file,
    path: &bindings::path,
    wait: bool,
) -> Result<*mut bindings::file> {
    // SAFETY: The path is valid by the safety requirements, and so are its mount, dentry and inode.
    unsafe {
        if !bindings::vfs_rs_d_is_reg(path.dentry) {
            return Err(EINVAL);
        }
        let idmap = bindings::vfs_rs_mnt_idmap(path.mnt);
        let inode = (*path.dentry).d_inode;
        let magic = (*(*inode).i_sb).s_magic;
        // There is no page cache to read from, and each read takes the file's lock.
        if bindings::vfs_rs_is_dax(bindings::vfs_rs_d_real_inode(path.dentry))
            && magic != bindings::FUSE_SUPER_MAGIC as usize
        {
            return Err(EOPNOTSUPP);
        }
        let may_read = bindings::inode_permission(idmap, inode, MAY_OPEN | MAY_READ);
        to_result(may_read)?;
        let mut flags = bindings::O_RDONLY | bindings::O_LARGEFILE;
        if !wait {
            flags |= bindings::O_NONBLOCK;
        }
        // A reader must not cause writes to the lower filesystem.
        if bindings::inode_owner_or_capable(idmap, inode) {
            flags |= bindings::O_NOATIME;
        }
        let credentials = bindings::vfs_rs_current_cred();
        let file = from_err_ptr(bindings::vfs_rs_backing_file_open(
            directory,
            flags as c_int,
            path,
            credentials,
        ))?;
        // Nobody else has the file yet.
        (*file).f_flags &= !bindings::O_NONBLOCK;
        Ok(file)
    }
}

/// Returns true if a dentry has a flag that does not change while it is referenced.
///
/// # Safety
///
/// `dentry` must be valid.
pub(super) unsafe fn has_flag(dentry: *const bindings::dentry, flag: c_uint) -> bool {
    // Other flags may change meanwhile.
    // SAFETY: The dentry is valid by the safety requirements.
    let flags = unsafe { ptr::addr_of!((*dentry).d_flags).read_volatile() };
    flags & flag != 0
}

const MAY_EXEC: c_int = bindings::MAY_EXEC as c_int;
const MAY_READ: c_int = bindings::MAY_READ as c_int;
const MAY_OPEN: c_int = bindings::MAY_OPEN as c_int;
