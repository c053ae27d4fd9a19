// SPDX-License-Identifier: GPL-2.0

//! Registration of a filesystem.

use super::{device::DeviceRegistration, inode::INodeCache};
use crate::vfs::{
    bindings, compat::prelude::*, filesystem_type::FileSystemType, sharing::SharedMappings,
};
use kernel::{error::to_result, ffi::c_int, sync::Arc, types::Opaque};

/// A registered filesystem, as the data of its module: `module!` takes this type.
///
/// The VFS holds a reference to the module for each mount and each context of the filesystem.
/// Therefore nothing of the filesystem is in use when the registration is dropped with the module.
/// `InPlaceModule::init` is the only constructor, because these references would not keep a
/// registration that is dropped earlier.
///
/// # Invariants
///
/// `fs` is registered, and is the file system type of each `SuperBlock<T>`.
#[pin_data(PinnedDrop)]
pub(crate) struct Registration<T: FileSystemType> {
    shared: Arc<T::Shared>,
    // Dropped after `shared`, which may own inodes.
    inode_cache: INodeCache<T>,
    #[pin]
    device: DeviceRegistration,
    #[pin]
    sharing: Opaque<bindings::file_system_type>,
    #[pin]
    fs: Opaque<bindings::file_system_type>,
}

// SAFETY: Registration and unregistration may happen on any thread.
unsafe impl<T: FileSystemType> Send for Registration<T> {}
// SAFETY: A shared reference gives access to the inode cache and the shared data, which are `Sync`.
unsafe impl<T: FileSystemType> Sync for Registration<T> {}

impl<T: FileSystemType> Registration<T> {
    /// Makes what all superblocks share with `load`, then registers the filesystem as the last step
    /// that can fail.
    ///
    /// # Safety
    ///
    /// `operations` must be those of the filesystem `T`. The registration must be the data of
    /// `module`.
    pub(in crate::vfs) unsafe fn new(
        module: &'static ThisModule,
        load: fn() -> Result<Arc<T::Shared>>,
        operations: TypeOperations,
    ) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            shared: load()?,
            inode_cache: INodeCache::new(T::NAME)?,
            // SAFETY: The operations are those of the device by the safety requirements. A file
            // that they open holds a reference to the module, whose data this is.
            device <- unsafe {
                DeviceRegistration::new(T::NAME, bindings::file_operations {
                    owner: module.as_ptr(),
                    ..operations.device
                })
            },
            // Never registered: only `SharedMappings` mounts it.
            sharing <- Opaque::try_ffi_init(move |slot: *mut bindings::file_system_type| {
                // SAFETY: The slot is memory for a `file_system_type`, for which all zeros is a
                // valid value.
                unsafe {
                    slot.write(pin_init::zeroed());
                    (*slot).name = T::PAGES_NAME.as_char_ptr();
                    (*slot).owner = module.as_ptr();
                    (*slot).init_fs_context = Some(SharedMappings::<T>::init_context);
                    (*slot).kill_sb = Some(bindings::kill_anon_super);
                }
                Ok::<(), Error>(())
            }),
            // INVARIANT: The type is registered if this initialiser succeeds.
            fs <- Opaque::try_ffi_init(move |slot: *mut bindings::file_system_type| {
                // SAFETY: The slot is memory for a `file_system_type`, for which all zeros is a
                // valid value. It is pinned, and unregistered before it is dropped. The functions
                // are for this type by the safety requirements.
                unsafe {
                    slot.write(pin_init::zeroed());
                    (*slot).name = T::NAME.as_char_ptr();
                    (*slot).owner = module.as_ptr();
                    (*slot).fs_flags = bindings::FS_ALLOW_IDMAP as c_int;
                    (*slot).init_fs_context = Some(operations.init_context);
                    (*slot).kill_sb = Some(operations.kill_superblock);
                    to_result(bindings::register_filesystem(slot))
                }
            }),
        })
    }

    /// Returns the registration that a file system type belongs to.
    ///
    /// # Safety
    ///
    /// `fs` must be the file system type of a `Registration<T>` that outlives `'a`.
    pub(in crate::vfs) unsafe fn of<'a>(fs: *mut bindings::file_system_type) -> &'a Self {
        // SAFETY: By the safety requirements the type is the field of a registration.
        unsafe { &*kernel::container_of!(Opaque::cast_from(fs), Self, fs) }
    }

    /// Returns the registration that a character device belongs to.
    ///
    /// # Safety
    ///
    /// `device` must be the device of a `Registration<T>` that outlives `'a`.
    pub(in crate::vfs) unsafe fn of_device<'a>(device: *mut bindings::miscdevice) -> &'a Self {
        // SAFETY: By the safety requirements the device is that of the field of a registration.
        unsafe {
            let field = DeviceRegistration::place_of(device);
            &*kernel::container_of!(field, Self, device)
        }
    }

    /// Returns the type of the internal mounts whose inodes' page caches are shared.
    pub(in crate::vfs) fn sharing_type(&self) -> *mut bindings::file_system_type {
        self.sharing.get()
    }

    /// Returns the filesystem's inode cache.
    pub(in crate::vfs) fn inode_cache(&self) -> &INodeCache<T> {
        &self.inode_cache
    }

    /// Returns the data that all superblocks share.
    pub(in crate::vfs) fn shared(&self) -> &Arc<T::Shared> {
        &self.shared
    }
}

#[pinned_drop]
impl<T: FileSystemType> PinnedDrop for Registration<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariants the filesystem is registered.
        unsafe { bindings::unregister_filesystem(self.fs.get()) };
    }
}

/// The functions of a `file_system_type`, and of the device.
pub(in crate::vfs) struct TypeOperations {
    /// `file_system_type.init_fs_context`.
    pub(in crate::vfs) init_context:
        unsafe extern "C" fn(*mut kernel::bindings::fs_context) -> c_int,
    /// `file_system_type.kill_sb`.
    pub(in crate::vfs) kill_superblock: unsafe extern "C" fn(*mut bindings::super_block),
    /// The operations of the character device, without an owner.
    pub(in crate::vfs) device: bindings::file_operations,
}
