// SPDX-License-Identifier: GPL-2.0

//! Mount parameters: the filesystem context.
//!
//! C header: [`include/linux/fs_context.h`](srctree/include/linux/fs_context.h)
//!
//! Reference: <https://docs.kernel.org/filesystems/mount_api.html>

use super::registration::Registration;
use crate::vfs::{bindings, compat::prelude::*, filesystem_type::FileSystemType};
use core::marker::PhantomData;
use kernel::{cred::Credential, ffi::c_void, fmt, str::CStr, types::Opaque};

/// The context in which a superblock is being made or reconfigured.
///
/// # Invariants
///
/// Stands for a valid `struct fs_context` that only the current task uses, of the file system type
/// of a `Registration<T>`.
#[repr(transparent)]
pub(crate) struct MountContext<T: FileSystemType>(Opaque<bindings::fs_context>, PhantomData<T>);

impl<T: FileSystemType> MountContext<T> {
    /// Borrows a context.
    ///
    /// # Safety
    ///
    /// `fc` must be valid, of the file system type of a `Registration<T>`, and used by the current
    /// task alone, for the duration of `'a`.
    pub(in crate::vfs) unsafe fn from_raw<'a>(fc: *mut bindings::fs_context) -> &'a mut Self {
        // SAFETY: By the function's safety requirements; `Self` is a transparent wrapper.
        unsafe { &mut *fc.cast() }
    }

    /// Returns the registration of the filesystem that is mounted.
    pub(in crate::vfs) fn registration(&self) -> &Registration<T> {
        // SAFETY: By the type invariants the context is valid, and its type that of a
        // `Registration<T>`. The context holds a reference to the type's module, and the
        // registration is that module's data.
        unsafe { Registration::of((*self.0.get()).fs_type) }
    }

    /// Returns the `source` parameter: the thing to mount, as the user named it.
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

    /// Replaces the `source` that the user named. `/proc/mounts` shows the new one, and a mount
    /// accepts it.
    pub(crate) fn set_source(&mut self, source: &CStr) -> Result {
        // SAFETY: `source` is NUL-terminated, and is copied.
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

    /// Returns the mounter's credentials.
    pub(crate) fn credentials(&self) -> &Credential {
        // SAFETY: By the type invariants the context is valid. Its `cred` is set when it is
        // allocated and the context owns a reference until it is freed.
        unsafe { Credential::from_ptr((*self.0.get()).cred) }
    }

    /// Reports why a mount fails: to the context's log, which is read from the file descriptor of
    /// `fsopen(2)`, or to the kernel's log for a caller of `mount(2)`.
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

/// The result of offering a mount parameter to the filesystem.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum ParamOutcome {
    /// The parameter is one of the filesystem's own, and has been taken.
    Taken,
    /// The filesystem has no such parameter: the VFS takes it (`source`) or reports it.
    Unknown,
}
