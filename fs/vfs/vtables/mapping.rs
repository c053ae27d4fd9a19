// SPDX-License-Identifier: GPL-2.0

//! `address_space_operations`: the page cache asks for folios.
//!
//! Lock: the folios of a request are locked by the VFS and handed over; `pagecache` unlocks each.

use super::file;
use crate::vfs::{
    bindings,
    compat::prelude::*,
    filesystem::FileSystem,
    pagecache,
    sharing::SharedMappings,
    types::{INode, MountContext},
};
use core::{marker::PhantomData, ptr};
use kernel::ffi::c_int;

/// The operation tables of mappings of the filesystem `T`.
pub(super) struct Tables<T: FileSystem>(PhantomData<T>);

impl<T: FileSystem> Tables<T> {
    /// The operations of a file's own mapping.
    pub(super) const OPS: bindings::address_space_operations = bindings::address_space_operations {
        read_folio: Some(read_folio::<T>),
        readahead: Some(readahead::<T>),
        #[cfg(CONFIG_MIGRATION)]
        migrate_folio: Some(bindings::filemap_migrate_folio),
        ..pin_init::zeroed()
    };

    /// The operations of a mapping that inodes share.
    const SHARED: bindings::address_space_operations = bindings::address_space_operations {
        read_folio: Some(read_shared_folio::<T>),
        readahead: Some(readahead_shared::<T>),
        #[cfg(CONFIG_MIGRATION)]
        migrate_folio: Some(bindings::filemap_migrate_folio),
        ..pin_init::zeroed()
    };
}

impl<T: FileSystem> SharedMappings<T> {
    /// Makes page caches that inodes of the filesystem can share. `readahead` is the maximum
    /// readahead, in bytes.
    pub(crate) fn new(context: &MountContext<T>, readahead: usize) -> Result<Self> {
        let fs = context.registration().sharing_type();
        // SAFETY: The type has `init_context`, and the context holds a reference to its module. The
        // operations fill folios by way of open files of `T` that share the mapping: see `reader`.
        unsafe { Self::mount(fs, &Tables::<T>::SHARED, readahead) }
    }
}

/// Reads ahead: `address_space_operations.readahead`.
///
/// # Safety
///
/// To be called by the VFS for a regular file of the filesystem `T`.
unsafe extern "C" fn readahead<T: FileSystem>(rac: *mut bindings::readahead_control) {
    // SAFETY: The VFS gives a valid request for a file of this filesystem. A mapping's host lives
    // as long as its folios are locked.
    unsafe { pagecache::read_ahead(INode::<T>::from_raw((*(*rac).mapping).host), rac) }
}

/// Reads ahead in a mapping that inodes share: `address_space_operations.readahead`.
///
/// # Safety
///
/// To be called by the VFS for a mapping of a [`SharedMappings<T>`].
unsafe extern "C" fn readahead_shared<T: FileSystem>(rac: *mut bindings::readahead_control) {
    // SAFETY: The VFS gives a valid request, and a file that stays open during it.
    unsafe {
        if let Some(inode) = reader::<T>((*rac).file, (*rac).mapping) {
            pagecache::read_ahead(inode, rac);
        }
    }
}

/// Reads a folio: `address_space_operations.read_folio`.
///
/// # Safety
///
/// To be called by the VFS for a regular file of the filesystem `T`.
unsafe extern "C" fn read_folio<T: FileSystem>(
    _file: *mut bindings::file,
    folio: *mut bindings::folio,
) -> c_int {
    // SAFETY: The VFS gives a folio of a file of this filesystem, locked and not up to date. It
    // stays in its mapping while it is locked, and so does the mapping's host.
    unsafe {
        let host = (*bindings::vfs_rs_folio_mapping(folio)).host;
        pagecache::read_folio(INode::<T>::from_raw(host), folio)
    }
}

/// Reads a folio of a mapping that inodes share: `address_space_operations.read_folio`.
///
/// # Safety
///
/// To be called by the VFS for a mapping of a [`SharedMappings<T>`].
unsafe extern "C" fn read_shared_folio<T: FileSystem>(
    file: *mut bindings::file,
    folio: *mut bindings::folio,
) -> c_int {
    // SAFETY: The VFS gives a folio that is locked and not up to date, and stays in its mapping. A
    // file stays open while it is read.
    unsafe {
        if let Some(inode) = reader::<T>(file, bindings::vfs_rs_folio_mapping(folio)) {
            return pagecache::read_folio(inode, folio);
        }
        // No inode knows where the contents are.
        bindings::folio_end_read(folio, false);
    }
    EIO.to_errno()
}

/// Returns the inode that a shared mapping is read through: that of the file that is read.
///
/// # Safety
///
/// `file` must be null or a valid file for the duration of `'a`.
unsafe fn reader<'a, T: FileSystem>(
    file: *mut bindings::file,
    mapping: *const bindings::address_space,
) -> Option<&'a INode<T>> {
    if file.is_null() {
        return None;
    }
    // SAFETY: The file is valid by the safety requirements, and its inode and operations with it.
    let (inode, operations) = unsafe { ((*file).f_inode, (*file).f_op) };
    // SAFETY: As the file, its inode is valid.
    if !ptr::eq(unsafe { (*inode).i_mapping }, mapping) {
        return None;
    }
    // SAFETY: The operations of an open file are valid.
    let open = unsafe { (*operations).open }?;
    let ours: unsafe extern "C" fn(_, _) -> _ = file::open::<T>;
    if !ptr::fn_addr_eq(open, ours) {
        return None;
    }
    // SAFETY: Only regular files of `T` have this function, so the inode is one of `T`.
    Some(unsafe { INode::from_raw(inode) })
}
