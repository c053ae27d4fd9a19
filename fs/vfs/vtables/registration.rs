// SPDX-License-Identifier: GPL-2.0

//! Registration of a filesystem with its operations, as the data of a module.

use super::{context::ContextOps, device, superblock};
use crate::vfs::{
    compat::prelude::*,
    filesystem::FileSystem,
    types::{Registration, TypeOperations},
};
use kernel::InPlaceModule;

impl<T: FileSystem> InPlaceModule for Registration<T> {
    /// Registers the filesystem. Called by `module!` alone.
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        let operations = TypeOperations {
            init_context: ContextOps::<T>::init,
            kill_superblock: superblock::kill::<T>,
            device: device::Tables::<T>::OPS,
        };
        // SAFETY: The operations are instances for `T`. `module!` makes this value the data of
        // `module`.
        unsafe { Registration::new(module, T::load, operations) }
    }
}
