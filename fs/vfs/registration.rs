// SPDX-License-Identifier: GPL-2.0

//! Registration of a filesystem.

use super::prelude::*;
use super::{
    bindings, context::ContextOps, inode::INodeCache, sharing::SharedMappings,
    superblock::SuperBlock, FileSystem,
};
use kernel::{error::to_result, ffi::c_int, sync::Arc, types::Opaque};

/// A filesystem that can be mounted, for as long as this exists.
///
/// The filesystem's module cannot be unloaded while there are mounts of it, so nothing of the
/// filesystem is in use when the registration is dropped.
///
/// # Invariants
///
/// `fs` is registered, and is the file system type of all `SuperBlock<T>`s.
#[pin_data(PinnedDrop)]
pub(crate) struct Registration<T: FileSystem> {
    shared: Arc<T::Shared>,
    // Dropped behind those, which may have inodes.
    inode_cache: INodeCache<T>,
    #[pin]
    sharing: Opaque<bindings::file_system_type>,
    #[pin]
    fs: Opaque<bindings::file_system_type>,
}

// SAFETY: Registration and unregistration may happen on any thread.
unsafe impl<T: FileSystem> Send for Registration<T> {}
// SAFETY: A shared reference gives access to the inode cache and the shared data, which are `Sync`.
unsafe impl<T: FileSystem> Sync for Registration<T> {}

impl<T: FileSystem> Registration<T> {
    /// Registers the filesystem.
    pub(crate) fn new(
        module: &'static ThisModule,
        shared: Arc<T::Shared>,
    ) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            shared,
            inode_cache: INodeCache::new(T::NAME)?,
            // Never registered: nobody but `SharedMappings` mounts it.
            sharing <- Opaque::try_ffi_init(|slot: *mut bindings::file_system_type| {
                // SAFETY: As below.
                unsafe {
                    slot.write(pin_init::zeroed());
                    // Another name: what security policies say of the filesystem is not for it.
                    (*slot).name = T::PAGES_NAME.as_char_ptr();
                    (*slot).owner = module.as_ptr();
                    (*slot).init_fs_context = Some(SharedMappings::<T>::init);
                    (*slot).kill_sb = Some(bindings::kill_anon_super);
                }
                Ok::<(), Error>(())
            }),
            fs <- Opaque::try_ffi_init(|slot: *mut bindings::file_system_type| {
                // SAFETY: The slot is memory for a `file_system_type`, for which all zeros is a
                // valid value. It is pinned, and unregistered before it is dropped.
                unsafe {
                    slot.write(pin_init::zeroed());
                    (*slot).name = T::NAME.as_char_ptr();
                    (*slot).owner = module.as_ptr();
                    (*slot).fs_flags = bindings::FS_ALLOW_IDMAP as c_int;
                    (*slot).init_fs_context = Some(ContextOps::<T>::init);
                    (*slot).kill_sb = Some(SuperBlock::<T>::kill);
                    to_result(bindings::register_filesystem(slot))
                }
            }),
        })
    }

    /// The registration that a file system type belongs to.
    ///
    /// # Safety
    ///
    /// `fs` must be the file system type of a `Registration<T>` that outlives `'a`.
    pub(super) unsafe fn of<'a>(fs: *mut bindings::file_system_type) -> &'a Self {
        // SAFETY: By the safety requirements the type is the field of a registration.
        unsafe { &*kernel::container_of!(Opaque::cast_from(fs), Self, fs) }
    }

    /// The type of the internal mounts whose inodes' page caches are shared.
    pub(super) fn sharing_type(&self) -> *mut bindings::file_system_type {
        self.sharing.get()
    }

    /// The filesystem's inode cache.
    pub(super) fn inode_cache(&self) -> &INodeCache<T> {
        &self.inode_cache
    }

    /// What all superblocks share.
    pub(super) fn shared(&self) -> &Arc<T::Shared> {
        &self.shared
    }
}

#[pinned_drop]
impl<T: FileSystem> PinnedDrop for Registration<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariants the filesystem is registered.
        unsafe { bindings::unregister_filesystem(self.fs.get()) };
    }
}
