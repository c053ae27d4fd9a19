// SPDX-License-Identifier: GPL-2.0

//! Registration of a filesystem.

use super::prelude::*;
use super::{
    bindings, context::ContextOps, inode::INodeCache, sharing::SharedMappings,
    superblock::SuperBlock, FileSystem,
};
use kernel::{error::to_result, ffi::c_int, sync::Arc, types::Opaque, InPlaceModule};

/// A filesystem that can be mounted, as the data of its module: `module!` takes this type.
///
/// The module cannot be unloaded while there are mounts or contexts of the filesystem: the VFS
/// holds a reference to the module for each. So nothing of the filesystem is in use when the
/// registration is dropped with the module. There is no other way to make one, because the VFS's
/// references do not keep a registration that somebody drops earlier.
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

impl<T: FileSystem> InPlaceModule for Registration<T> {
    /// Registers the filesystem, as the last thing that can fail. Called by `module!` alone.
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            shared: T::load()?,
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
}

impl<T: FileSystem> Registration<T> {
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
