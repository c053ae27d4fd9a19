// SPDX-License-Identifier: GPL-2.0

//! Dentries.
//!
//! C header: [`include/linux/dcache.h`](srctree/include/linux/dcache.h)

use super::{inode::INode, superblock::SuperBlock};
use crate::vfs::{bindings, filesystem_type::FileSystemType};
use core::{marker::PhantomData, slice};
use kernel::types::Opaque;

/// A dentry of the filesystem `T`.
///
/// # Invariants
///
/// Stands for a valid `struct dentry` of a superblock that is a `SuperBlock<T>`. If it is positive,
/// it stays so while it is borrowed: the VFS holds a reference to a dentry during each call that
/// lends it, and only the last reference may turn a dentry negative.
#[repr(transparent)]
pub(in crate::vfs) struct Dentry<T: FileSystemType>(Opaque<bindings::dentry>, PhantomData<T>);

impl<T: FileSystemType> Dentry<T> {
    /// Borrows a dentry.
    ///
    /// # Safety
    ///
    /// `dentry` must satisfy the type's invariants for the duration of `'a`.
    pub(in crate::vfs) unsafe fn from_raw<'a>(dentry: *mut bindings::dentry) -> &'a Self {
        // SAFETY: By the function's safety requirements; `Self` is a transparent wrapper.
        unsafe { &*dentry.cast() }
    }

    /// Returns the superblock that the dentry belongs to.
    pub(in crate::vfs) fn superblock(&self) -> &SuperBlock<T> {
        // SAFETY: By the type invariants the dentry is valid and its superblock a `SuperBlock<T>`,
        // which outlives its dentries.
        unsafe { SuperBlock::from_raw((*self.0.get()).d_sb) }
    }

    /// Returns the dentry's inode, or `None` if the dentry is negative.
    pub(in crate::vfs) fn inode(&self) -> Option<&INode<T>> {
        // SAFETY: By the type invariants the dentry is valid and does not turn negative while it is
        // borrowed: it keeps its inode, which is one of `T` because the superblock is.
        unsafe {
            let inode = (*self.0.get()).d_inode;
            (!inode.is_null()).then(|| INode::from_raw(inode))
        }
    }

    /// Returns the dentry's name.
    ///
    /// # Safety
    ///
    /// The dentry must be in lookup: nobody renames it before the lookup has ended.
    pub(in crate::vfs) unsafe fn name_in_lookup(&self) -> &[u8] {
        let mut len = 0;
        // SAFETY: By the type invariants the dentry is valid; by the safety requirements its name
        // of `len` bytes does not change.
        unsafe {
            let name = bindings::vfs_rs_dentry_name(self.0.get(), &mut len);
            slice::from_raw_parts(name, len as usize)
        }
    }
}
