// SPDX-License-Identifier: GPL-2.0

//! File handles: inodes named by numbers, for `open_by_handle_at(2)`, NFS and overlayfs' index.
//!
//! A handle holds an inode's number and the generation that the superblock gives all its inodes, so
//! that a handle to other contents is stale. A connectable handle also has its directory's number.
//!
//! C header: [`include/linux/exportfs.h`](srctree/include/linux/exportfs.h)
//!
//! Reference: <https://docs.kernel.org/filesystems/nfs/exporting.html>

use crate::vfs::{
    bindings,
    compat::prelude::*,
    filesystem::FileSystem,
    types::{Dentry, INodeRef, SuperBlock},
};
use core::{marker::PhantomData, ptr, slice};
use kernel::ffi::c_int;

/// The operation table for file handles of the filesystem `T`.
pub(super) struct ExportOps<T: FileSystem>(PhantomData<T>);

impl<T: FileSystem> ExportOps<T> {
    pub(super) const OPS: bindings::export_operations = bindings::export_operations {
        encode_fh: Some(Self::encode),
        fh_to_dentry: Some(Self::decode::<false>),
        fh_to_parent: Some(Self::decode::<true>),
        get_parent: Some(Self::parent),
        ..pin_init::zeroed()
    };

    /// Makes a handle: `export_operations.encode_fh`.
    ///
    /// # Safety
    ///
    /// To be called by the VFS for an inode of the filesystem `T`, with a buffer of `*max_len`
    /// words, and a directory or null.
    unsafe extern "C" fn encode(
        inode: *mut bindings::inode,
        handle: *mut u32,
        max_len: *mut c_int,
        parent: *mut bindings::inode,
    ) -> c_int {
        // SAFETY: The inode is valid; its number and generation do not change.
        let (ino, generation) = unsafe { ((*inode).i_ino, (*inode).i_generation) };
        let (parent, len, kind) = if parent.is_null() {
            (0, LEN, bindings::fid_type_FILEID_INO64_GEN)
        } else {
            (
                // SAFETY: The directory is valid; its number does not change.
                unsafe { (*parent).i_ino },
                LEN_WITH_PARENT,
                bindings::fid_type_FILEID_INO64_GEN_PARENT,
            )
        };
        let [low, high] = [ino as u32, (ino >> 32) as u32];
        let [parent_low, parent_high] = [parent as u32, (parent >> 32) as u32];
        let words = [low, high, generation, parent_low, parent_high, generation];
        // SAFETY: The VFS gives a valid length, which is ours during the call.
        let room = unsafe { ptr::replace(max_len, len as c_int) };
        if usize::try_from(room).map_or(true, |room| room < len) {
            return bindings::fid_type_FILEID_INVALID as c_int;
        }
        // SAFETY: The buffer has room for `len` words, and nothing else refers to it.
        unsafe { slice::from_raw_parts_mut(handle, len) }
            .iter_mut()
            .zip(words)
            .for_each(|(to, word)| *to = word);
        kind as c_int
    }

    /// Finds the inode of a handle, or the directory of a connectable handle:
    /// `export_operations.fh_to_dentry` and `fh_to_parent`.
    ///
    /// # Safety
    ///
    /// To be called by the VFS with a superblock of the filesystem `T` and a handle of `len` words.
    unsafe extern "C" fn decode<const PARENT: bool>(
        sb: *mut bindings::super_block,
        handle: *mut bindings::fid,
        len: c_int,
        kind: c_int,
    ) -> *mut bindings::dentry {
        // SAFETY: The VFS gives a handle of `len` words, which do not change during the call.
        let words = unsafe {
            slice::from_raw_parts(handle.cast::<u32>(), usize::try_from(len).unwrap_or(0))
        };
        let number = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
        let (ino, generation) = match (kind as u32, words, PARENT) {
            (
                bindings::fid_type_FILEID_INO64_GEN | bindings::fid_type_FILEID_INO64_GEN_PARENT,
                &[low, high, generation, ..],
                false,
            ) => (number(low, high), generation),
            (
                bindings::fid_type_FILEID_INO64_GEN_PARENT,
                &[_, _, _, low, high, generation, ..],
                true,
            ) => (number(low, high), generation),
            // A handle of another kind: null makes it stale.
            _ => return ptr::null_mut(),
        };
        // SAFETY: The VFS gives a superblock of this filesystem.
        let sb = unsafe { SuperBlock::<T>::from_raw(sb) };
        if generation != sb.generation() {
            return ESTALE.to_ptr();
        }
        obtain(T::inode_by_number(sb, ino))
    }

    /// Finds the parent of a directory: `export_operations.get_parent`.
    ///
    /// # Safety
    ///
    /// To be called by the VFS for a positive dentry of the filesystem `T`.
    unsafe extern "C" fn parent(child: *mut bindings::dentry) -> *mut bindings::dentry {
        // SAFETY: The VFS gives a valid dentry of this filesystem.
        match unsafe { Dentry::<T>::from_raw(child).inode() } {
            Some(dir) => obtain(T::parent(dir)),
            None => ESTALE.to_ptr(),
        }
    }
}

/// Returns a dentry of an inode, which need not be connected to the root yet.
fn obtain<T: FileSystem>(inode: Result<INodeRef<'_, T>>) -> *mut bindings::dentry {
    match inode {
        // SAFETY: `d_obtain_alias` takes the reference to the inode even if it fails.
        Ok(inode) => unsafe { bindings::d_obtain_alias(inode.into_raw()) },
        Err(e) => e.to_ptr(),
    }
}

/// The length of a handle without its directory's number, in words of 32 bits.
const LEN: usize = 3;

/// The length of a handle with its directory's number, in words of 32 bits.
const LEN_WITH_PARENT: usize = 6;
