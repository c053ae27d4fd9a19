// SPDX-License-Identifier: GPL-2.0

//! The operations of directories: lookup and iteration.
//!
//! Lock: the VFS holds the directory's `i_rwsem` at least shared in each call.

use crate::vfs::{
    bindings,
    compat::prelude::*,
    filesystem::FileSystem,
    types::{Dentry, DirEmitter, INode, INodeRef},
};
use core::{marker::PhantomData, ptr};
use kernel::{
    error::from_result,
    ffi::{c_int, c_uint},
};

/// The operation table of open directories of the filesystem `T`.
pub(super) struct Tables<T: FileSystem>(PhantomData<T>);

impl<T: FileSystem> Tables<T> {
    pub(super) const OPS: bindings::file_operations = bindings::file_operations {
        llseek: Some(bindings::generic_file_llseek),
        read: Some(bindings::generic_read_dir),
        iterate_shared: Some(iterate::<T>),
        fsync: Some(bindings::noop_fsync),
        setlease: Some(bindings::generic_setlease),
        ..pin_init::zeroed()
    };
}

/// Emits a directory's entries: `file_operations.iterate_shared`.
///
/// # Safety
///
/// To be called by the VFS for an open directory of the filesystem `T`.
unsafe extern "C" fn iterate<T: FileSystem>(
    file: *mut bindings::file,
    context: *mut bindings::dir_context,
) -> c_int {
    from_result(|| {
        // SAFETY: The VFS gives an open directory of this filesystem, and a context that is ours
        // during the call. A file's inode lives as long as the file.
        let (dir, context) = unsafe { (INode::<T>::from_raw((*file).f_inode), &mut *context) };
        // SAFETY: The file is valid, and the context is ours.
        if !unsafe { bindings::vfs_rs_dir_emit_dots(file, context) } {
            return Ok(0);
        }
        T::read_dir(dir, &mut DirEmitter::new(context))?;
        Ok(0)
    })
}

/// Looks up a name: `inode_operations.lookup`.
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
    // SAFETY: The VFS gives a dentry of this filesystem that is new and in lookup.
    let name = unsafe { Dentry::<T>::from_raw(dentry).name_in_lookup() };
    if name.len() > bindings::NAME_MAX as usize {
        return ENAMETOOLONG.to_ptr();
    }
    match T::lookup(dir, name) {
        Ok(inode) => {
            let inode = inode.map_or(ptr::null_mut(), INodeRef::into_raw);
            // Without an inode the dentry becomes a negative one.
            // SAFETY: The dentry is the one to be looked up. `d_splice_alias` takes the reference
            // to the inode even if it fails.
            unsafe { bindings::d_splice_alias(inode, dentry) }
        }
        Err(e) => e.to_ptr(),
    }
}
