// SPDX-License-Identifier: GPL-2.0

//! Directories: lookup and iteration.

use super::prelude::*;
use super::{
    bindings,
    inode::{INode, INodeRef},
    FileSystem,
};
use core::ptr;
use kernel::{
    error::from_result,
    ffi::{c_int, c_uint},
};

/// The type of a directory entry, as `getdents(2)` gives it in `d_type`.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(crate) enum DirEntryType {
    /// Not known without a look at the inode.
    Unknown = bindings::DT_UNKNOWN,
    /// A named pipe.
    Fifo = bindings::DT_FIFO,
    /// A character device.
    CharDevice = bindings::DT_CHR,
    /// A directory.
    Directory = bindings::DT_DIR,
    /// A block device.
    BlockDevice = bindings::DT_BLK,
    /// A regular file.
    Regular = bindings::DT_REG,
    /// A symbolic link.
    Symlink = bindings::DT_LNK,
    /// A socket.
    Socket = bindings::DT_SOCK,
}

/// Where a directory's entries go.
///
/// The position is a number of the filesystem's own choice: 0 at the beginning, otherwise what was
/// given with the last entry that was emitted.
pub(crate) struct DirEmitter<'a> {
    context: &'a mut bindings::dir_context,
}

/// The positions that stand for `.` and `..`.
const DOTS: i64 = 2;

impl DirEmitter<'_> {
    /// Where to begin, or to go on.
    pub(crate) fn position(&self) -> u64 {
        self.context.pos.saturating_sub(DOTS).max(0) as u64
    }

    /// Emits an entry; `next` is the position behind it.
    ///
    /// Returns whether there is room for more. If not, the entry was not taken, and iteration has
    /// to end.
    pub(crate) fn emit(&mut self, name: &[u8], ino: u64, kind: DirEntryType, next: u64) -> bool {
        let (Ok(len), Some(next)) = (
            c_int::try_from(name.len()),
            i64::try_from(next).ok().and_then(|n| n.checked_add(DOTS)),
        ) else {
            return false;
        };
        // SAFETY: The context is valid, and the name is `len` bytes long.
        let taken = unsafe {
            bindings::vfs_rs_dir_emit(self.context, name.as_ptr().cast(), len, ino, kind as c_uint)
        };
        if taken {
            self.context.pos = next;
        }
        taken
    }
}

/// `file_operations.iterate_shared`.
///
/// # Safety
///
/// To be called by the VFS for an open directory of the filesystem `T`.
pub(super) unsafe extern "C" fn iterate<T: FileSystem>(
    file: *mut bindings::file,
    context: *mut bindings::dir_context,
) -> c_int {
    from_result(|| {
        // SAFETY: The VFS gives an open directory of this filesystem, and a context that is ours
        // during the call. A file's inode lives as long as the file.
        let (dir, context) = unsafe { (INode::<T>::from_raw((*file).f_inode), &mut *context) };
        // SAFETY: As above.
        if !unsafe { bindings::vfs_rs_dir_emit_dots(file, context) } {
            return Ok(0);
        }
        T::read_dir(dir, &mut DirEmitter { context })?;
        Ok(0)
    })
}

/// `inode_operations.lookup`.
///
/// # Safety
///
/// To be called by the VFS for a directory of the filesystem `T`.
pub(super) unsafe extern "C" fn lookup<T: FileSystem>(
    dir: *mut bindings::inode,
    dentry: *mut bindings::dentry,
    _flags: c_uint,
) -> *mut bindings::dentry {
    // SAFETY: The VFS gives a directory of this filesystem.
    let dir = unsafe { INode::<T>::from_raw(dir) };
    // SAFETY: The dentry is new and in lookup, so its name does not change.
    let name = unsafe {
        let mut len = 0;
        let name = bindings::vfs_rs_dentry_name(dentry, &mut len);
        core::slice::from_raw_parts(name, len as usize)
    };
    if name.len() > bindings::NAME_MAX as usize {
        return ENAMETOOLONG.to_ptr();
    }
    match T::lookup(dir, name) {
        Ok(inode) => {
            let inode = inode.map_or(ptr::null_mut(), INodeRef::into_raw);
            // SAFETY: The dentry is the one to be looked up; the reference to the inode is given
            // away, also if it fails. Without an inode the dentry becomes a negative one.
            unsafe { bindings::d_splice_alias(inode, dentry) }
        }
        Err(e) => e.to_ptr(),
    }
}
