// SPDX-License-Identifier: GPL-2.0

//! The character device of a filesystem.
//!
//! C header: [`include/linux/miscdevice.h`](srctree/include/linux/miscdevice.h)

use crate::vfs::{bindings, compat::prelude::*};
use kernel::{error::to_result, str::CStr, types::Opaque};

/// A registered character device.
///
/// # Invariants
///
/// `device` is registered, with the operations in `operations`.
#[pin_data(PinnedDrop)]
pub(in crate::vfs) struct DeviceRegistration {
    operations: KBox<bindings::file_operations>,
    #[pin]
    device: Opaque<bindings::miscdevice>,
}

// SAFETY: Registration and unregistration may happen on any thread, and nothing else uses it.
unsafe impl Send for DeviceRegistration {}
// SAFETY: As above.
unsafe impl Sync for DeviceRegistration {}

impl DeviceRegistration {
    /// Registers a device, of which root alone can open the file in `/dev`.
    ///
    /// # Safety
    ///
    /// `operations` must be operations of a device that find its registration by
    /// [`Self::place_of`], whose open files hold a reference to the module that the registration is
    /// part of the data of.
    pub(in crate::vfs) unsafe fn new(
        name: &'static CStr,
        operations: bindings::file_operations,
    ) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            operations: KBox::new(operations, GFP_KERNEL)?,
            // INVARIANT: The device is registered if this initialiser succeeds.
            device <- Opaque::try_ffi_init(|slot: *mut bindings::miscdevice| {
                // SAFETY: The slot is memory for a device, for which all zeros is a valid value. It
                // is pinned, and deregistered before it and its operations are dropped.
                unsafe {
                    slot.write(pin_init::zeroed());
                    (*slot).minor = bindings::MISC_DYNAMIC_MINOR as kernel::ffi::c_int;
                    (*slot).name = name.as_char_ptr();
                    (*slot).mode = 0o600;
                    (*slot).fops = &**operations;
                    to_result(bindings::misc_register(slot))
                }
            }),
        })
    }

    /// Returns the place of the registration of a device.
    ///
    /// # Safety
    ///
    /// `device` must be the device of a registration.
    pub(in crate::vfs) unsafe fn place_of(device: *mut bindings::miscdevice) -> *const Self {
        // SAFETY: By the safety requirements the device is the field of a registration.
        unsafe { kernel::container_of!(Opaque::cast_from(device), Self, device) }
    }
}

#[pinned_drop]
impl PinnedDrop for DeviceRegistration {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariants the device is registered.
        unsafe { bindings::misc_deregister(self.device.get()) };
    }
}
