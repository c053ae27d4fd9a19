// SPDX-License-Identifier: GPL-2.0

//! Directories of the lower filesystem.
//!
//! Everything is done with the mounter's credentials, never with those of the task that reads: the
//! files that a mount gives access to do not depend on what its readers may see.
//!
//! C headers: [`include/linux/namei.h`](srctree/include/linux/namei.h),
//! [`include/linux/fs.h`](srctree/include/linux/fs.h)

use super::{
    credentials::{self, CredentialGuard},
    file::BackingFile,
    open::{open_directory, open_file},
};
use crate::vfs::{bindings, compat::prelude::*};
use core::{mem::MaybeUninit, ptr::NonNull};
use kernel::{
    cred::Credential,
    error::{from_err_ptr, to_result},
    ffi::c_int,
    fs::File,
    str::CStr,
    sync::aref::ARef,
};

/// A directory of the lower filesystem, and the credentials with which it is used.
///
/// # Invariants
///
/// `file` is an `O_PATH` file of a directory. Its credentials are those with which it is used.
pub(crate) struct Directory {
    file: ARef<File>,
}

impl Directory {
    /// Opens a directory by a path of the current task, which may lead through symbolic links.
    pub(crate) fn open(name: &CStr, credentials: &Credential) -> Result<Self> {
        let _guard = CredentialGuard::new(credentials);
        let mut path = MaybeUninit::<bindings::path>::uninit();
        let flags = bindings::VFS_RS_LOOKUP_FOLLOW | bindings::VFS_RS_LOOKUP_DIRECTORY;
        // SAFETY: The name is NUL-terminated; `kern_path` writes the path if it succeeds.
        to_result(unsafe { bindings::kern_path(name.as_char_ptr(), flags, path.as_mut_ptr()) })?;
        // SAFETY: `kern_path` has succeeded and initialised the path, whose references are ours
        // until they are given back here. The credentials are valid; opening takes references of
        // its own.
        let file = unsafe {
            let flags = bindings::O_PATH | bindings::O_DIRECTORY;
            let file = bindings::dentry_open(path.as_ptr(), flags as c_int, credentials.as_ptr());
            bindings::path_put(path.as_ptr());
            from_err_ptr(file)
        }?;
        // SAFETY: `dentry_open` has succeeded with these flags, for a path that is a directory's.
        unsafe { Self::from_raw(file) }
    }

    /// Opens a directory in this one. `name` is one component; no symbolic link is followed.
    pub(crate) fn open_directory(&self, name: &CStr) -> Result<Self> {
        if name.to_bytes().contains(&b'/') {
            return Err(EINVAL);
        }
        let _guard = CredentialGuard::new(self.file.cred());
        let flags = bindings::O_PATH | bindings::O_DIRECTORY | bindings::O_NOFOLLOW;
        // SAFETY: By the type invariants the path is a directory's and valid; the name is
        // NUL-terminated.
        let file = unsafe {
            from_err_ptr(bindings::file_open_root(
                self.path(),
                name.as_char_ptr(),
                flags as c_int,
                0,
            ))
        }?;
        // SAFETY: `file_open_root` has succeeded with these flags.
        unsafe { Self::from_raw(file) }
    }

    /// Opens a directory in this one, as [`Self::open_file`] opens a file. Enters no mount on it.
    ///
    /// # Errors
    ///
    /// [`ENOENT`] if there is no such directory, [`ENOTDIR`] if something else has the name;
    /// without `wait`, [`EAGAIN`] if this directory is locked.
    pub(crate) fn open_directory_at(&self, name: &[u8], wait: bool) -> Result<Self> {
        let _guard = CredentialGuard::new(self.file.cred());
        // SAFETY: By the type invariants the file is an `O_PATH` file of a directory. The guard has
        // overridden the credentials. Nobody else has the reference to the result, an `O_PATH` file
        // of a directory.
        unsafe {
            let opened = open_directory(self.file.as_ptr(), name, wait)?;
            Self::from_raw(opened.as_ptr())
        }
    }

    /// Takes over a file.
    ///
    /// # Safety
    ///
    /// `file` must be null or an `O_PATH` file of a directory that nobody else has a reference to.
    unsafe fn from_raw(file: *mut bindings::file) -> Result<Self> {
        let file = NonNull::new(file).ok_or(EIO)?;
        // INVARIANT: By the safety requirements the file is an `O_PATH` file of a directory. A file
        // keeps the credentials with which it was opened.
        Ok(Self {
            // SAFETY: By the safety requirements the reference is ours. The file is in no file
            // descriptor table, so that nobody uses its position.
            file: unsafe { ARef::from_raw(file.cast::<File>()) },
        })
    }

    /// Returns the path of the directory.
    fn path(&self) -> *const bindings::path {
        // SAFETY: By the type invariants the file is valid.
        unsafe { bindings::vfs_rs_file_path(self.file.as_ptr()) }
    }

    /// Opens a regular file in this directory for reading.
    ///
    /// `name` is one component. Only a regular file is opened: no symbolic link is followed, and no
    /// device or pipe is opened. No fsnotify event is sent, so that no listener can delay the
    /// reader or deny the file.
    ///
    /// # Errors
    ///
    /// [`ENOENT`] if there is no such file, [`EINVAL`] if it is not a regular one, [`EACCES`] if
    /// the credentials do not allow to read it, [`EOPNOTSUPP`] if its filesystem has no page cache.
    /// Without `wait`, [`EAGAIN`] if the directory is locked, or another process has a lease on the
    /// file and has been asked to give it up. A caller that holds folios or other locks must not
    /// wait, because the holder of the directory's lock can wait for one of these.
    pub(crate) fn open_file(&self, name: &[u8], wait: bool) -> Result<BackingFile> {
        let _guard = CredentialGuard::new(self.file.cred());
        // SAFETY: By the type invariants the file is an `O_PATH` file of a directory. The guard has
        // overridden the credentials. Nobody else has the reference to the result, which is in no
        // file descriptor table.
        unsafe {
            Ok(BackingFile::from_raw(open_file(
                self.file.as_ptr(),
                name,
                wait,
            )?))
        }
    }

    /// Returns the number of filesystems that the directory's filesystem is stacked on.
    pub(crate) fn stack_depth(&self) -> c_int {
        // SAFETY: By the type invariants the path is valid, and a dentry's superblock with it.
        unsafe { (*(*(*self.path()).dentry).d_sb).s_stack_depth }
    }

    /// Returns the magic number of the directory's filesystem.
    pub(crate) fn filesystem_magic(&self) -> usize {
        // SAFETY: By the type invariants the path is valid, and a dentry's superblock with it.
        unsafe { (*(*(*self.path()).dentry).d_sb).s_magic }
    }

    /// Opens a directory by a path of the current task, with the task's own credentials.
    pub(crate) fn open_own(name: &CStr) -> Result<Self> {
        // SAFETY: The current task keeps its credentials during this call.
        let credentials = unsafe { Credential::from_ptr(bindings::vfs_rs_current_cred()) };
        Self::open(name, credentials)
    }

    /// Returns true if two directories are one, through whatever mounts and with whatever
    /// credentials they are seen.
    pub(crate) fn has_inode_of(&self, other: &Self) -> bool {
        // SAFETY: By the type invariants both paths are valid, and their dentries with them. That
        // of an open directory keeps its inode.
        unsafe { (*(*self.path()).dentry).d_inode == (*(*other.path()).dentry).d_inode }
    }

    /// Returns true if two directories are one, seen through one mount and with equal credentials:
    /// each file that can be opened through one can be opened through the other.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        // SAFETY: By the type invariants both files are valid, and their paths with them.
        let (mine, theirs) = unsafe { (*self.path(), *other.path()) };
        mine.mnt == theirs.mnt
            && mine.dentry == theirs.dentry
            && credentials::are_equal(self.file.cred(), other.file.cred())
    }
}
