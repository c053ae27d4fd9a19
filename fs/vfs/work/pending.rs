// SPDX-License-Identifier: GPL-2.0

//! Counts of work that an owner waits for before it is destroyed.
//!
//! C header: [`include/linux/wait_bit.h`](srctree/include/linux/wait_bit.h)

use crate::vfs::bindings;
use core::ptr::NonNull;
use kernel::types::Opaque;

/// A count of the work that is under way for the owner of this value.
///
/// # Invariants
///
/// `count` is the number of [`PendingWork`]s that refer to this value.
pub(in crate::vfs) struct Pending {
    count: Opaque<bindings::atomic_t>,
}

// SAFETY: The count is atomic.
unsafe impl Send for Pending {}
// SAFETY: The count is atomic.
unsafe impl Sync for Pending {}

impl Pending {
    /// Makes a count of no work.
    pub(in crate::vfs) fn new() -> Self {
        Self {
            count: Opaque::new(bindings::atomic_t { counter: 0 }),
        }
    }

    /// Counts a piece of work until the result is dropped.
    ///
    /// # Safety
    ///
    /// The owner must call [`Self::wait`] before `self` is dropped or moved.
    pub(in crate::vfs) unsafe fn begin(&self) -> PendingWork {
        // SAFETY: `self` keeps the count valid.
        unsafe { bindings::atomic_inc(self.count.get()) };
        // INVARIANT: The work was just counted. By the safety requirements `self` stays in its
        // place until the result is dropped.
        PendingWork {
            pending: self.into(),
        }
    }

    /// Waits until there is no work. No more work may begin.
    pub(in crate::vfs) fn wait(&self) {
        // SAFETY: `self` keeps the count valid.
        unsafe { bindings::vfs_rs_wait_until_zero(self.count.get()) };
    }
}

/// A piece of work that is counted.
///
/// # Invariants
///
/// `pending` is valid, and counts this piece of work.
pub(in crate::vfs) struct PendingWork {
    pending: NonNull<Pending>,
}

// SAFETY: The count is atomic: any thread may decrement it.
unsafe impl Send for PendingWork {}

impl Drop for PendingWork {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the count includes this work, and is valid until it is
        // decremented. Afterwards only its address is used.
        unsafe {
            let count = (*self.pending.as_ptr()).count.get();
            if bindings::atomic_dec_and_test(count) {
                bindings::wake_up_var(count.cast());
            }
        }
    }
}
