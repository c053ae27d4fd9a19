// SPDX-License-Identifier: GPL-2.0

//! The operations on extended attributes and POSIX ACLs.
//!
//! C headers: [`include/linux/xattr.h`](srctree/include/linux/xattr.h),
//! [`include/linux/posix_acl_xattr.h`](srctree/include/linux/posix_acl_xattr.h)

use crate::vfs::{
    bindings,
    compat::prelude::*,
    filesystem::FileSystem,
    types::{Dentry, INode, XattrLister},
};
use core::{marker::PhantomData, ptr, slice};
use kernel::{
    error::from_result,
    ffi::{c_char, c_int, c_void},
    str::CStr,
};

/// Lists the names of an inode's attributes: `inode_operations.listxattr`.
///
/// # Safety
///
/// To be called by the VFS for a positive dentry of the filesystem `T`.
pub(super) unsafe extern "C" fn list<T: FileSystem>(
    dentry: *mut bindings::dentry,
    buffer: *mut c_char,
    size: usize,
) -> isize {
    // SAFETY: The VFS gives a valid dentry of this filesystem.
    let Some(inode) = (unsafe { Dentry::<T>::from_raw(dentry).inode() }) else {
        return ENOENT.to_errno() as isize;
    };
    // SAFETY: No requirements: this looks at the current task. It does not report the question to
    // the audit subsystem, because the task has not asked for the names.
    let shows_trusted = unsafe {
        let namespace = ptr::addr_of_mut!(bindings::init_user_ns);
        bindings::ns_capable_noaudit(namespace, bindings::CAP_SYS_ADMIN as c_int)
    };
    // SAFETY: The VFS gives a buffer of `size` bytes, or null and 0.
    let mut lister = unsafe { XattrLister::new(buffer.cast(), size, shows_trusted) };
    match T::list_xattrs(inode, &mut lister) {
        Ok(()) => lister.used() as isize,
        Err(e) => e.to_errno() as isize,
    }
}

/// The xattr handlers of the filesystem `T`: one for each of the kernel's namespaces.
pub(super) struct Handlers<T: FileSystem>(PhantomData<T>);

impl<T: FileSystem> Handlers<T> {
    const USER: bindings::xattr_handler = Self::handler(c"user.");
    const TRUSTED: bindings::xattr_handler = Self::handler(c"trusted.");
    const SECURITY: bindings::xattr_handler = Self::handler(c"security.");
    const SYSTEM: bindings::xattr_handler = Self::handler(c"system.");

    pub(super) const LIST: &'static [*const bindings::xattr_handler] = &[
        &Self::USER,
        &Self::TRUSTED,
        &Self::SECURITY,
        &Self::SYSTEM,
        ptr::null(),
    ];

    const fn handler(prefix: &'static CStr) -> bindings::xattr_handler {
        bindings::xattr_handler {
            prefix: prefix.to_bytes_with_nul().as_ptr(),
            get: Some(Self::get),
            ..pin_init::zeroed()
        }
    }

    /// Gets the value of an attribute: `xattr_handler.get`.
    ///
    /// # Safety
    ///
    /// To be called by the VFS for an inode of the filesystem `T`.
    unsafe extern "C" fn get(
        handler: *const bindings::xattr_handler,
        _dentry: *mut bindings::dentry,
        inode: *mut bindings::inode,
        name: *const c_char,
        buffer: *mut c_void,
        size: usize,
    ) -> c_int {
        from_result(|| {
            // SAFETY: The VFS gives an inode of this filesystem and a NUL-terminated name, before
            // which stands the handler's prefix.
            let (inode, name) = unsafe {
                let name = bindings::xattr_full_name(handler, name);
                (INode::<T>::from_raw(inode), CStr::from_char_ptr(name))
            };
            let copied = T::get_xattr(inode, name.to_bytes(), |value| {
                let len = c_int::try_from(value.len()).map_err(|_| E2BIG)?;
                if !buffer.is_null() {
                    if value.len() > size {
                        return Err(ERANGE);
                    }
                    // SAFETY: The VFS gives a buffer of `size` bytes, which nothing else refers to.
                    unsafe {
                        slice::from_raw_parts_mut(buffer.cast::<u8>(), value.len())
                            .copy_from_slice(value)
                    };
                }
                Ok(len)
            });
            copied?.ok_or(ENODATA)?
        })
    }
}

/// Refuses to set an ACL: `inode_operations.set_acl`.
///
/// Without this function, overlayfs takes the filesystem for one without ACLs, and has none itself.
///
/// # Safety
///
/// None: no argument is used.
pub(super) unsafe extern "C" fn set_acl(
    _idmap: *mut bindings::mnt_idmap,
    _dentry: *mut bindings::dentry,
    _acl: *mut kernel::bindings::posix_acl,
    _kind: c_int,
) -> c_int {
    EROFS.to_errno()
}

/// Gets an ACL, which the VFS caches: `inode_operations.get_inode_acl`.
///
/// ACLs are extended attributes like others, in the format of `<linux/posix_acl_xattr.h>`.
///
/// # Safety
///
/// To be called by the VFS for an inode of the filesystem `T`.
pub(super) unsafe extern "C" fn get_acl<T: FileSystem>(
    inode: *mut bindings::inode,
    kind: c_int,
    rcu: bool,
) -> *mut kernel::bindings::posix_acl {
    if rcu {
        return ECHILD.to_ptr();
    }
    let name: &[u8] = match kind as u32 {
        bindings::ACL_TYPE_ACCESS => b"system.posix_acl_access",
        bindings::ACL_TYPE_DEFAULT => b"system.posix_acl_default",
        _ => return EINVAL.to_ptr(),
    };
    // SAFETY: The VFS gives an inode of this filesystem.
    let inode = unsafe { INode::<T>::from_raw(inode) };
    // SAFETY: The value is valid for its length; one that is no ACL is an error. The initial user
    // namespace always exists.
    let acl = T::get_xattr(inode, name, |value| unsafe {
        bindings::posix_acl_from_xattr(
            ptr::addr_of_mut!(bindings::init_user_ns),
            value.as_ptr().cast(),
            value.len(),
        )
    });
    match acl {
        Ok(Some(acl)) => acl.cast(),
        Ok(None) => ptr::null_mut(),
        Err(e) => e.to_ptr(),
    }
}
