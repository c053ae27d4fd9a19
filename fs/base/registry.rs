// SPDX-License-Identifier: GPL-2.0

//! What several mounts use together, for as long as one of them does: stores, metadata of images.

use crate::vfs::prelude::*;
use kernel::{new_mutex, sync::Arc, sync::Mutex};

/// A value, and how many [`InUse`] there are of it.
struct Slot<T> {
    value: Arc<T>,
    users: usize,
}

/// The values of one kind that are in use.
#[pin_data]
pub(crate) struct Registry<T> {
    #[pin]
    slots: Mutex<KVec<Slot<T>>>,
}

impl<T> Registry<T> {
    pub(crate) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                slots <- new_mutex!(KVec::new(), "puzzlefs_registry"),
            }),
            GFP_KERNEL,
        )
    }

    /// The value that is wanted, if it is in use, or else a new one.
    ///
    /// Others are not kept waiting while it is made; should one of them have made it meanwhile,
    /// theirs is taken.
    pub(crate) fn get_or_make(
        self: &Arc<Self>,
        is_wanted: impl Fn(&T) -> bool,
        make: impl FnOnce() -> Result<Arc<T>>,
    ) -> Result<InUse<T>> {
        let in_use = |value| InUse {
            value,
            registry: self.clone(),
        };
        if let Some(value) = find(&mut self.slots.lock(), &is_wanted) {
            return Ok(in_use(value));
        }
        // Before the lock, so that it is dropped behind it if it is not needed.
        let made = make()?;
        let mut slots = self.slots.lock();
        if let Some(value) = find(&mut slots, &is_wanted) {
            return Ok(in_use(value));
        }
        let slot = Slot {
            value: made.clone(),
            users: 1,
        };
        slots.push(slot, GFP_KERNEL)?;
        Ok(in_use(made))
    }

    /// Gives up one use of a value; gives the value if that was the last.
    fn give_up(&self, value: &Arc<T>) -> Option<Slot<T>> {
        let mut slots = self.slots.lock();
        let index = slots.iter().position(|s| Arc::ptr_eq(&s.value, value))?;
        let slot = slots.get_mut(index)?;
        slot.users -= 1;
        if slot.users > 0 {
            return None;
        }
        slots.remove(index).ok()
    }
}

/// Finds a value, and counts another use of it.
fn find<T>(slots: &mut KVec<Slot<T>>, is_wanted: impl Fn(&T) -> bool) -> Option<Arc<T>> {
    let slot = slots.iter_mut().find(|slot| is_wanted(&slot.value))?;
    slot.users += 1;
    Some(slot.value.clone())
}

/// The use of a value, which stays in its registry as long.
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
