// SPDX-License-Identifier: GPL-2.0

//! `inode_operations`, and the functions of `super_operations` that concern inodes.

use super::{attributes, directory, file, mapping, xattr};
use crate::vfs::{
    bindings,
    compat::prelude::*,
    filesystem::FileSystem,
    sharing,
    types::{INodeAlloc, INodeKind, INodeParams, INodeRef, NewINode, Registration, SuperBlock},
};
use core::{marker::PhantomData, ptr};

/// The operation tables of inodes of the filesystem `T`.
struct Tables<T: FileSystem>(PhantomData<T>);

impl<T: FileSystem> Tables<T> {
    const DIR_INODE_OPS: bindings::inode_operations = bindings::inode_operations {
        getattr: Some(attributes::get),
        lookup: Some(directory::lookup::<T>),
        listxattr: Some(xattr::list::<T>),
        get_inode_acl: Some(xattr::get_acl::<T>),
        set_acl: Some(xattr::set_acl),
        ..pin_init::zeroed()
    };

    const FILE_INODE_OPS: bindings::inode_operations = bindings::inode_operations {
        getattr: Some(attributes::get_of_file::<T>),
        fileattr_get: Some(attributes::get_flags::<T>),
        listxattr: Some(xattr::list::<T>),
        get_inode_acl: Some(xattr::get_acl::<T>),
        set_acl: Some(xattr::set_acl),
        ..pin_init::zeroed()
    };

    /// Of devices, pipes and sockets.
    const SPECIAL_INODE_OPS: bindings::inode_operations = bindings::inode_operations {
        getattr: Some(attributes::get),
        listxattr: Some(xattr::list::<T>),
        get_inode_acl: Some(xattr::get_acl::<T>),
        set_acl: Some(xattr::set_acl),
        ..pin_init::zeroed()
    };

    const LINK_INODE_OPS: bindings::inode_operations = bindings::inode_operations {
        getattr: Some(attributes::get),
        get_link: Some(bindings::simple_get_link),
        listxattr: Some(xattr::list::<T>),
        ..pin_init::zeroed()
    };
}

impl<'a, T: FileSystem> NewINode<'a, T> {
    /// Initialises the inode, and lets the tasks that wait for it go on.
    pub(crate) fn init(self, params: INodeParams<T::INodeData>) -> Result<INodeRef<'a, T>> {
        let size = i64::try_from(params.size).map_err(|_| EFBIG)?;
        let inode = self.as_ptr();
        // SAFETY: By the type invariants the inode is valid, new and locked: nobody else uses it
        // yet. Its superblock is a `SuperBlock<T>`.
        unsafe {
            bindings::vfs_rs_inode_set_owner(inode, params.uid, params.gid);
            set_times(inode, params.mtime);
            set_size(inode, size);
            bindings::set_nlink(inode, params.nlink);
            (*inode).i_generation = SuperBlock::<T>::from_raw((*inode).i_sb).generation();
            if !params.may_have_acl {
                bindings::vfs_rs_cache_no_acl(inode);
            }
            set_kind::<T>(inode, params.kind, params.permissions & 0o7777);
            INodeAlloc::<T>::set_data(inode, params.data);
        }
        // SAFETY: The inode has its operations and its data now: it satisfies the invariants of
        // `INode`.
        Ok(unsafe { self.unlock() })
    }
}

/// Sets the type of an inode, and the operations of that type.
///
/// # Safety
///
/// `inode` must be new, locked, and part of an `INodeAlloc<T>`.
unsafe fn set_kind<T: FileSystem>(inode: *mut bindings::inode, kind: INodeKind, permissions: u16) {
    let mode = |kind: u32| kind as u16 | permissions;
    // SAFETY: By the safety requirements nobody else uses the inode yet. The tables are promoted to
    // statics: they are constants of function pointers. The target of `i_link` lives as long as the
    // inode's memory.
    unsafe {
        (*inode).i_op = &Tables::<T>::SPECIAL_INODE_OPS;
        match kind {
            INodeKind::Regular => {
                (*inode).i_mode = mode(bindings::S_IFREG);
                (*inode).i_op = &Tables::<T>::FILE_INODE_OPS;
                bindings::vfs_rs_inode_set_fop(inode, &file::Tables::<T>::OPS);
                (*inode).i_data.a_ops = &mapping::Tables::<T>::OPS;
                bindings::vfs_rs_mapping_allow_large_folios((*inode).i_mapping);
            }
            INodeKind::Directory => {
                (*inode).i_mode = mode(bindings::S_IFDIR);
                (*inode).i_op = &Tables::<T>::DIR_INODE_OPS;
                bindings::vfs_rs_inode_set_fop(inode, &directory::Tables::<T>::OPS);
                (*inode).i_blocks = 0;
            }
            INodeKind::Symlink(target) => {
                (*inode).i_mode = mode(bindings::S_IFLNK);
                (*inode).i_op = &Tables::<T>::LINK_INODE_OPS;
                (*inode).i_blocks = 0;
                let target = INodeAlloc::<T>::set_link(inode, target);
                bindings::vfs_rs_inode_set_link(inode, target);
            }
            INodeKind::CharDevice { major, minor } => {
                let number = device_number(major, minor);
                bindings::init_special_inode(inode, mode(bindings::S_IFCHR), number)
            }
            INodeKind::BlockDevice { major, minor } => {
                let number = device_number(major, minor);
                bindings::init_special_inode(inode, mode(bindings::S_IFBLK), number)
            }
            INodeKind::Fifo => bindings::init_special_inode(inode, mode(bindings::S_IFIFO), 0),
            INodeKind::Socket => bindings::init_special_inode(inode, mode(bindings::S_IFSOCK), 0),
        }
    }
}

/// Sets all times of an inode that has only one.
///
/// # Safety
///
/// `inode` must be new and locked.
unsafe fn set_times(inode: *mut bindings::inode, (seconds, nanoseconds): (i64, u32)) {
    // SAFETY: By the safety requirements nobody else uses the inode yet.
    unsafe {
        bindings::vfs_rs_inode_set_mtime(inode, seconds, nanoseconds);
        bindings::vfs_rs_inode_set_ctime(inode, seconds, nanoseconds);
        bindings::vfs_rs_inode_set_atime(inode, seconds, nanoseconds);
    }
}

/// Sets the size of an inode, and the number of sectors that it would take.
///
/// # Safety
///
/// `inode` must be new and locked.
unsafe fn set_size(inode: *mut bindings::inode, size: i64) {
    // SAFETY: By the safety requirements nobody else uses the inode yet.
    unsafe {
        bindings::vfs_rs_inode_set_size(inode, size);
        (*inode).i_blocks = (size as u64).div_ceil(u64::from(bindings::SECTOR_SIZE));
    }
}

/// Allocates an inode: `super_operations.alloc_inode`.
///
/// # Safety
///
/// To be called by the VFS for a superblock of the filesystem `T`.
pub(super) unsafe extern "C" fn alloc<T: FileSystem>(
    sb: *mut bindings::super_block,
) -> *mut bindings::inode {
    // SAFETY: The VFS gives a valid superblock, whose type is the one of a `Registration<T>`, which
    // outlives it.
    unsafe { Registration::<T>::of((*sb).s_type).inode_cache().alloc(sb) }
}

/// Frees an inode after a grace period: `super_operations.free_inode`.
///
/// # Safety
///
/// To be called by the VFS, once, for an inode of the filesystem `T` that nobody uses any more.
pub(super) unsafe extern "C" fn free<T: FileSystem>(inode: *mut bindings::inode) {
    // SAFETY: The VFS calls this when nobody can use the inode any more, not even an RCU path walk.
    // `evict` has dropped the data, or it never was set.
    unsafe { INodeAlloc::<T>::free(inode) };
}

/// Evicts an inode: `super_operations.evict_inode`.
///
/// # Safety
///
/// To be called by the VFS, once, for an inode of the filesystem `T` without references.
pub(super) unsafe extern "C" fn evict<T: FileSystem>(inode: *mut bindings::inode) {
    // SAFETY: The VFS calls this when the last reference to the inode is gone. The reference to the
    // host was the inode's; `iput` accepts null.
    unsafe {
        let host = sharing::take_host(inode);
        bindings::truncate_inode_pages_final(ptr::addr_of_mut!((*inode).i_data));
        bindings::clear_inode(inode);
        INodeAlloc::<T>::drop_data(inode);
        bindings::iput(host);
    }
}

/// Returns the kernel's representation of a device number.
fn device_number(major: u32, minor: u32) -> bindings::dev_t {
    (major << bindings::MINORBITS) | (minor & ((1 << bindings::MINORBITS) - 1))
}
