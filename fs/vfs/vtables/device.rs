// SPDX-License-Identifier: GPL-2.0

//! `file_operations` of the character device.
//!
//! Reads and writes are copied, so that the filesystem sees memory that nobody else changes.

use crate::vfs::{bindings, compat::prelude::*, filesystem::FileSystem, types::Registration};
use core::marker::PhantomData;
use kernel::{
    error::from_result,
    ffi::{c_char, c_int, c_ulong},
    types::ForeignOwnable,
};

/// The largest number of bytes that one call reads or writes.
const MAX_LEN: usize = 64 << 10;

/// The operation table of the device of the filesystem `T`.
pub(super) struct Tables<T: FileSystem>(PhantomData<T>);

impl<T: FileSystem> Tables<T> {
    pub(super) const OPS: bindings::file_operations = bindings::file_operations {
        open: Some(open::<T>),
        release: Some(release::<T>),
        read: Some(read::<T>),
        write: Some(write::<T>),
        llseek: Some(bindings::noop_llseek),
        ..pin_init::zeroed()
    };
}

/// Opens the device: `file_operations.open`.
///
/// # Safety
///
/// To be called by the misc driver for the device of a `Registration<T>`.
unsafe extern "C" fn open<T: FileSystem>(
    _inode: *mut bindings::inode,
    file: *mut bindings::file,
) -> c_int {
    from_result(|| {
        // SAFETY: The task exists.
        if !unsafe { bindings::capable(bindings::CAP_SYS_ADMIN as c_int) } {
            return Err(EPERM);
        }
        // SAFETY: The misc driver puts the device there. Its registration is the data of the module
        // that the file holds a reference to.
        let registration = unsafe {
            let device = (*file).private_data.cast::<bindings::miscdevice>();
            Registration::<T>::of_device(device)
        };
        let device = KBox::new(T::open_device(registration.shared())?, GFP_KERNEL)?;
        // SAFETY: Only this task opens the file.
        unsafe { (*file).private_data = device.into_foreign().cast() };
        Ok(0)
    })
}

/// Closes the device: `file_operations.release`.
///
/// # Safety
///
/// To be called by the VFS, once, for a file that [`open`] has opened.
unsafe extern "C" fn release<T: FileSystem>(
    _inode: *mut bindings::inode,
    file: *mut bindings::file,
) -> c_int {
    // SAFETY: `open` has put it there, and nobody uses the file any more.
    drop(unsafe { KBox::<T::Device>::from_foreign((*file).private_data.cast()) });
    0
}

/// Returns the open device.
///
/// # Safety
///
/// `file` must be a file that [`open`] has opened and that stays open during `'a`.
unsafe fn device<'a, T: FileSystem>(file: *mut bindings::file) -> &'a T::Device {
    // SAFETY: `open` has put it there, and `release` alone takes it away.
    unsafe { KBox::<T::Device>::borrow((*file).private_data.cast()) }
}

/// Reads: `file_operations.read`.
///
/// # Safety
///
/// To be called by the VFS for a file that [`open`] has opened.
unsafe extern "C" fn read<T: FileSystem>(
    file: *mut bindings::file,
    to: *mut c_char,
    len: usize,
    _position: *mut bindings::loff_t,
) -> isize {
    from_result(|| {
        let mut bytes = KVVec::<u8>::zeroed(len.min(MAX_LEN), GFP_KERNEL)?;
        // SAFETY: The VFS gives a valid open file.
        let (device, wait) = unsafe {
            let wait = (*file).f_flags & bindings::O_NONBLOCK == 0;
            (device::<T>(file), wait)
        };
        let read = T::read_device(device, &mut bytes, wait)?.min(bytes.len());
        // SAFETY: `read` bytes are initialised. The function checks the address of the task.
        let left =
            unsafe { bindings::copy_to_user(to.cast(), bytes.as_ptr().cast(), read as c_ulong) };
        if left != 0 {
            return Err(EFAULT);
        }
        Ok(read as isize)
    })
}

/// Writes: `file_operations.write`.
///
/// # Safety
///
/// To be called by the VFS for a file that [`open`] has opened.
unsafe extern "C" fn write<T: FileSystem>(
    file: *mut bindings::file,
    from: *const c_char,
    len: usize,
    _position: *mut bindings::loff_t,
) -> isize {
    from_result(|| {
        if len > MAX_LEN {
            return Err(EINVAL);
        }
        let mut bytes = KVVec::<u8>::zeroed(len, GFP_KERNEL)?;
        // SAFETY: There is memory for `len` bytes. The function checks the address of the task.
        let left = unsafe {
            bindings::copy_from_user(bytes.as_mut_ptr().cast(), from.cast(), len as c_ulong)
        };
        if left != 0 {
            return Err(EFAULT);
        }
        // SAFETY: The VFS gives a valid open file.
        let device = unsafe { device::<T>(file) };
        Ok(T::write_device(device, &bytes)?.min(len) as isize)
    })
}
