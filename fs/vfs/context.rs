// SPDX-License-Identifier: GPL-2.0

//! Mount parameters: the filesystem context.
//!
//! C header: [`include/linux/fs_context.h`](srctree/include/linux/fs_context.h)
//!
//! Reference: <https://docs.kernel.org/filesystems/mount_api.html>

use super::prelude::*;
use super::{
    bindings,
    registration::Registration,
    superblock::{self, SuperBlock},
    FileSystem, ParamOutcome,
};
use core::marker::PhantomData;
use kernel::{
    cred::Credential,
    error::{from_result, to_result},
    ffi::{c_int, c_void},
    fmt,
    str::CStr,
    types::{ForeignOwnable, Opaque},
};

/// The context in which a superblock is being made or reconfigured.
///
/// # Invariants
///
/// Stands for a valid `struct fs_context` that only the current task uses, of the file system type
/// of a `Registration<T>`.
#[repr(transparent)]
pub(crate) struct MountContext<T: FileSystem>(Opaque<bindings::fs_context>, PhantomData<T>);

impl<T: FileSystem> MountContext<T> {
    /// # Safety
    ///
    /// `fc` must be valid, of the file system type of a `Registration<T>`, and used by the current
    /// task alone, for the duration of `'a`.
    unsafe fn from_raw<'a>(fc: *mut bindings::fs_context) -> &'a mut Self {
        // SAFETY: By the function's safety requirements; `Self` is a transparent wrapper.
        unsafe { &mut *fc.cast() }
    }

    /// The registration of the filesystem that is mounted.
    pub(super) fn registration(&self) -> &Registration<T> {
        // SAFETY: By the type invariants the context is valid, and its type that of a
        // `Registration<T>`. The context holds a reference to the type's module, and the
        // registration is that module's data.
        unsafe { Registration::of((*self.0.get()).fs_type) }
    }

    /// The `source` parameter: what the user named as the thing to mount.
    pub(crate) fn source(&self) -> Option<&CStr> {
        // SAFETY: By the type invariants, the context is valid and not changed by others.
        let source = unsafe { (*self.0.get()).source };
        if source.is_null() {
            return None;
        }
        // SAFETY: A context's source is a NUL-terminated string, which belongs to it and which
        // only a later parameter could replace: not while `self` is borrowed.
        Some(unsafe { CStr::from_char_ptr(source) })
    }

    /// Puts another `source` in the place of what the user named: what `/proc/mounts` shows, and a
    /// mount with what it shows takes.
    pub(crate) fn set_source(&mut self, source: &CStr) -> Result {
        // SAFETY: The string is copied.
        let copy = unsafe { bindings::kstrdup(source.as_char_ptr(), bindings::GFP_KERNEL) };
        if copy.is_null() {
            return Err(ENOMEM);
        }
        let fc = self.0.get();
        // SAFETY: By the type invariants only this task uses the context, whose source is null or
        // from the slab, and freed with it. What `source()` has lent is not used any more, as
        // `self` is borrowed mutably.
        unsafe {
            bindings::kfree((*fc).source.cast());
            (*fc).source = copy;
        }
        Ok(())
    }

    /// The mounter's credentials.
    pub(crate) fn credentials(&self) -> &Credential {
        // SAFETY: By the type invariants the context is valid. Its `cred` is set when it is
        // allocated and the context owns a reference until it is freed.
        unsafe { Credential::from_ptr((*self.0.get()).cred) }
    }

    /// Says why a mount fails: in the context's log, which `fsopen(2)`'s file descriptor gives to
    /// be read, or in the kernel's log for a caller of `mount(2)`.
    pub(crate) fn error(&self, message: fmt::Arguments<'_>) {
        let fc = self.0.get();
        // SAFETY: By the type invariants the context is valid, and its log with it. The format
        // takes one pointer to an `Arguments`, which is formatted before the call returns.
        unsafe {
            bindings::logfc(
                (*fc).log.log,
                (*fc).log.prefix,
                b'e',
                c"%pA".as_char_ptr(),
                core::ptr::from_ref(&message).cast::<c_void>(),
            );
        }
    }
}

/// The value of a mount parameter.
#[derive(Clone, Copy)]
pub(crate) enum ParamValue<'a> {
    /// The parameter was given without a value.
    Flag,
    /// The parameter was given with a string.
    String(&'a CStr),
    /// The parameter is a file descriptor, a path or binary data.
    Other,
}

/// A mount parameter.
pub(crate) struct Param<'a> {
    /// The parameter's name.
    pub(crate) key: &'a CStr,
    /// The parameter's value.
    pub(crate) value: ParamValue<'a>,
}

/// The operations of a context of the filesystem `T`.
pub(super) struct ContextOps<T: FileSystem>(PhantomData<T>);

impl<T: FileSystem> ContextOps<T> {
    const OPS: bindings::fs_context_operations = bindings::fs_context_operations {
        free: Some(Self::free),
        dup: None,
        parse_param: Some(Self::parse_param),
        parse_monolithic: None,
        get_tree: Some(Self::get_tree),
        reconfigure: Some(Self::reconfigure),
    };

    /// Prepares a new context.
    ///
    /// # Safety
    ///
    /// To be called by the VFS as `file_system_type.init_fs_context` of a `Registration<T>`.
    pub(super) unsafe extern "C" fn init(fc: *mut kernel::bindings::fs_context) -> c_int {
        let fc = fc.cast::<bindings::fs_context>();
        from_result(|| {
            let params = KBox::new(T::Params::default(), GFP_KERNEL)?;
            // SAFETY: The VFS gives a valid context that nobody else uses yet. `OPS` is promoted
            // to a static: it is a constant of function pointers.
            unsafe {
                (*fc).fs_private = params.into_foreign().cast();
                (*fc).ops = &Self::OPS;
            }
            Ok(0)
        })
    }

    /// The parameters collected so far.
    ///
    /// # Safety
    ///
    /// `fc` must be a context made by [`ContextOps::init`], and the result must be the only
    /// reference to its parameters during `'a`.
    unsafe fn params<'a>(fc: *mut bindings::fs_context) -> &'a mut T::Params {
        // SAFETY: `init` put a `KBox<T::Params>` there, which `free` alone takes away; nobody else
        // borrows it, by the safety requirements.
        unsafe { &mut *(*fc).fs_private.cast::<T::Params>() }
    }

    /// Frees a context: `fs_context_operations.free`.
    ///
    /// # Safety
    ///
    /// To be called by the VFS, once, for a context made by [`ContextOps::init`].
    unsafe extern "C" fn free(fc: *mut bindings::fs_context) {
        // SAFETY: The VFS calls this once, for a context of ours, when nobody uses it any more.
        // `fs_private` is null only if `init` failed.
        unsafe {
            if !(*fc).fs_private.is_null() {
                drop(KBox::<T::Params>::from_foreign((*fc).fs_private.cast()));
            }
            // Left here when no superblock came to own it.
            superblock::drop_data::<T>((*fc).s_fs_info);
        }
    }

    /// Takes a parameter: `fs_context_operations.parse_param`.
    ///
    /// # Safety
    ///
    /// To be called by the VFS for a context made by [`ContextOps::init`].
    unsafe extern "C" fn parse_param(
        fc: *mut bindings::fs_context,
        param: *mut bindings::fs_parameter,
    ) -> c_int {
        // SAFETY: The VFS gives a valid parameter, whose key is a NUL-terminated string, as is its
        // value where it is of the string type.
        let param = unsafe {
            Param {
                key: CStr::from_char_ptr((*param).key),
                value: match bindings::vfs_rs_fc_value_type(param) {
                    bindings::fs_value_type_fs_value_is_flag => ParamValue::Flag,
                    bindings::fs_value_type_fs_value_is_string => {
                        ParamValue::String(CStr::from_char_ptr(bindings::vfs_rs_fc_string(param)))
                    }
                    _ => ParamValue::Other,
                },
            }
        };
        // SAFETY: A context is used by one task at a time (`uapi_mutex`), and `params` is the only
        // borrow of its parameters.
        let (params, context) = unsafe { (Self::params(fc), MountContext::<T>::from_raw(fc)) };
        match T::parse_param(params, context, &param) {
            Ok(ParamOutcome::Taken) => 0,
            Ok(ParamOutcome::Unknown) => -(bindings::ENOPARAM as c_int),
            Err(e) => e.to_errno(),
        }
    }

    /// Makes a superblock: `fs_context_operations.get_tree`.
    ///
    /// # Safety
    ///
    /// To be called by the VFS for a context made by [`ContextOps::init`].
    unsafe extern "C" fn get_tree(fc: *mut bindings::fs_context) -> c_int {
        from_result(|| {
            // SAFETY: As in `parse_param`.
            let (params, context) = unsafe { (Self::params(fc), MountContext::<T>::from_raw(fc)) };
            let shared = context.registration().shared().clone();
            let data = superblock::new_data::<T>(T::mount(params, context, &shared)?)?;
            // SAFETY: The context is valid and ours. From here its `s_fs_info` owns the data, until
            // `get_tree_nodev` hands it to the superblock.
            unsafe { (*fc).s_fs_info = data };
            // SAFETY: `fill` is the one that belongs to contexts of this filesystem.
            to_result(unsafe { bindings::get_tree_nodev(fc, Some(SuperBlock::<T>::fill)) })?;
            Ok(0)
        })
    }

    /// Reconfigures a superblock: `fs_context_operations.reconfigure`.
    ///
    /// # Safety
    ///
    /// To be called by the VFS for a context made by [`ContextOps::init`].
    unsafe extern "C" fn reconfigure(fc: *mut bindings::fs_context) -> c_int {
        from_result(|| {
            // SAFETY: As in `parse_param`. In a reconfiguration `root` is a dentry of the
            // superblock in question, which is of this filesystem and active.
            let (params, context, sb) = unsafe {
                (
                    Self::params(fc),
                    MountContext::<T>::from_raw(fc),
                    SuperBlock::<T>::from_raw((*(*fc).root).d_sb),
                )
            };
            T::remount(params, context, sb.data())?;
            // SAFETY: The context is valid and ours.
            let flags = unsafe { (*fc).sb_flags };
            // SAFETY: As above.
            let mask = unsafe { (*fc).sb_flags_mask };
            if mask & bindings::VFS_RS_SB_RDONLY != 0 && flags & bindings::VFS_RS_SB_RDONLY == 0 {
                context.error(fmt!("the filesystem is read-only"));
                return Err(EROFS);
            }
            // SAFETY: As above. The superblock's flags stay what they are.
            unsafe { (*fc).sb_flags |= bindings::VFS_RS_SB_RDONLY };
            Ok(0)
        })
    }
}
