// SPDX-License-Identifier: GPL-2.0

//! Objects that several mounts share, for as long as one of them uses them: stores, metadata of
//! images, the cache of frames.
//!
//! # Locking
//!
//! `values` protects the list and its counts. Objects are made and dropped without it.

use crate::vfs::prelude::*;
use kernel::{new_mutex, sync::Arc, sync::Mutex};

/// A value, and the number of its users.
///
/// # Invariants
///
/// There are `users` of [`InUse`] for the value, at least one.
struct SharedValue<T> {
    value: Arc<T>,
    users: usize,
}

/// The values of one kind that are in use.
#[pin_data]
pub(crate) struct Registry<T> {
    #[pin]
    values: Mutex<KVec<SharedValue<T>>>,
}

impl<T> Registry<T> {
    /// Makes an empty registry.
    pub(crate) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                values <- new_mutex!(KVec::new(), "puzzlefs_registry"),
            }),
            GFP_KERNEL,
        )
    }

    /// Returns the wanted value, which is made if it is not in use.
    ///
    /// Other tasks can use the registry while it is made. If one of them makes an equal value
    /// first, that one is returned.
    pub(crate) fn get_or_make<E: From<Error>>(
        self: &Arc<Self>,
        is_wanted: impl Fn(&T) -> bool,
        make: impl FnOnce() -> Result<Arc<T>, E>,
    ) -> Result<InUse<T>, E> {
        let in_use = |value| InUse {
            value,
            registry: self.clone(),
        };
        if let Some(value) = find(&mut self.values.lock(), &is_wanted) {
            return Ok(in_use(value));
        }
        // Made before the lock is taken, so that a superfluous value is dropped without the lock.
        let made = make()?;
        let mut values = self.values.lock();
        if let Some(value) = find(&mut values, &is_wanted) {
            return Ok(in_use(value));
        }
        let shared = SharedValue {
            value: made.clone(),
            users: 1,
        };
        values.push(shared, GFP_KERNEL).map_err(Error::from)?;
        Ok(in_use(made))
    }

    /// Ends one use of a value. Returns the value if that was the last, to be dropped without lock.
    fn give_up(&self, value: &Arc<T>) -> Option<SharedValue<T>> {
        let mut values = self.values.lock();
        let index = values.iter().position(|s| Arc::ptr_eq(&s.value, value))?;
        let shared = values.get_mut(index)?;
        // INVARIANT: The caller is an `InUse` that is being dropped.
        shared.users -= 1;
        if shared.users > 0 {
            return None;
        }
        values.remove(index).ok()
    }
}

/// Finds a value, and counts one more use of it. The caller makes the [`InUse`].
fn find<T>(values: &mut KVec<SharedValue<T>>, is_wanted: impl Fn(&T) -> bool) -> Option<Arc<T>> {
    let shared = values.iter_mut().find(|shared| is_wanted(&shared.value))?;
    shared.users += 1;
    Some(shared.value.clone())
}

/// A use of a value, which stays in its registry for as long.
pub(crate) struct InUse<T> {
    value: Arc<T>,
    registry: Arc<Registry<T>>,
}

impl<T> core::ops::Deref for InUse<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> Drop for InUse<T> {
    fn drop(&mut self) {
        drop(self.registry.give_up(&self.value));
    }
}
