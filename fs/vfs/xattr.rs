// SPDX-License-Identifier: GPL-2.0

//! Extended attributes and POSIX ACLs.
//!
//! C headers: [`include/linux/xattr.h`](srctree/include/linux/xattr.h),
//! [`include/linux/posix_acl_xattr.h`](srctree/include/linux/posix_acl_xattr.h)

use super::prelude::*;
use super::{bindings, inode::INode, FileSystem};
use core::{marker::PhantomData, ptr, slice};
use kernel::{
    error::from_result,
    ffi::{c_char, c_int, c_void},
    str::CStr,
};

/// Where the names of an inode's extended attributes go.
///
/// # Invariants
///
/// `buffer` is valid for `capacity` bytes, or null if only the size is asked for.
pub(crate) struct XattrLister<'a> {
    buffer: *mut u8,
    capacity: usize,
    used: usize,
    trusted: bool,
    _buffer: PhantomData<&'a mut [u8]>,
}

impl XattrLister<'_> {
    /// Lists a name that consists of these parts.
    ///
    /// The names in `trusted.` are left out for those who have not the privilege to read them.
    ///
    /// # Errors
    ///
    /// [`ERANGE`] if there is no room left.
    pub(crate) fn add(&mut self, parts: &[&[u8]]) -> Result {
        // The first part has the namespace.
        let is_trusted = parts
            .first()
            .is_some_and(|part| part.starts_with(b"trusted."));
        if is_trusted && !self.trusted {
            return Ok(());
        }
        for part in parts {
            self.append(part)?;
        }
        self.append(&[0])
    }

    /// Appends bytes to the list.
    fn append(&mut self, bytes: &[u8]) -> Result {
        let end = self.used.checked_add(bytes.len()).ok_or(ERANGE)?;
        if !self.buffer.is_null() {
            if end > self.capacity {
                return Err(ERANGE);
            }
            // SAFETY: By the type invariants the buffer has `capacity` bytes, and `end` is not
            // beyond it. The bytes cannot overlap the buffer, because no other reference to it
            // exists.
            unsafe {
                ptr::copy_nonoverlapping(bytes.as_ptr(), self.buffer.add(self.used), bytes.len());
            }
        }
        self.used = end;
        Ok(())
    }
}

/// `inode_operations.listxattr`.
///
/// # Safety
///
/// To be called by the VFS for a positive dentry of the filesystem `T`.
pub(super) unsafe extern "C" fn list<T: FileSystem>(
    dentry: *mut bindings::dentry,
    buffer: *mut c_char,
    size: usize,
) -> isize {
    // SAFETY: The VFS gives a positive dentry of this filesystem.
    let inode = unsafe { INode::<T>::from_raw((*dentry).d_inode) };
    // INVARIANT: The VFS gives a buffer of `size` bytes, or null and 0.
    let mut lister = XattrLister {
        buffer: buffer.cast(),
        capacity: size,
        used: 0,
        // SAFETY: No requirements.
        trusted: unsafe { bindings::vfs_rs_may_see_trusted() },
        _buffer: PhantomData,
    };
    match T::list_xattrs(inode, &mut lister) {
        Ok(()) => lister.used as isize,
        Err(e) => e.to_errno() as isize,
    }
}

/// The table of handlers: one for each of the kernel's namespaces.
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
            let value = T::get_xattr(inode, name.to_bytes())?.ok_or(ENODATA)?;
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
        })
    }
}

/// `inode_operations.set_acl`: refused like all changes.
///
/// It is there nevertheless, as overlayfs takes its absence for a filesystem without ACLs, and then
/// has none itself.
///
/// # Safety
///
/// None of the arguments is looked at.
pub(super) unsafe extern "C" fn set_acl(
    _idmap: *mut bindings::mnt_idmap,
    _dentry: *mut bindings::dentry,
    _acl: *mut kernel::bindings::posix_acl,
    _kind: c_int,
) -> c_int {
    EROFS.to_errno()
}

/// `inode_operations.get_inode_acl`.
///
/// The ACLs are extended attributes of the image like others, in the form that
/// `<linux/posix_acl_xattr.h>` gives them; the VFS caches what is returned.
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
    match T::get_xattr(inode, name) {
        // SAFETY: The value is valid for its length. A value that is no ACL is an error. The user
        // namespace is the initial one, which always exists.
        Ok(Some(value)) => unsafe {
            bindings::posix_acl_from_xattr(
                ptr::addr_of_mut!(bindings::init_user_ns),
                value.as_ptr().cast(),
                value.len(),
            )
            .cast()
        },
        Ok(None) => ptr::null_mut(),
        Err(e) => e.to_ptr(),
    }
}
