// SPDX-License-Identifier: GPL-2.0

//! Waiting to be told of something, as long as one is not killed.
//!
//! C header: [`include/linux/wait.h`](srctree/include/linux/wait.h)

use super::prelude::*;
use super::task::relax;
use core::{marker::PhantomPinned, ptr};
use kernel::{
    bindings,
    ffi::{c_int, c_long},
    str::CStr,
    sync::LockClassKey,
    time::Jiffies,
    types::Opaque,
};

/// Where tasks wait to be told of something.
///
/// The kernel crate's `CondVar` with a wait that only a fatal signal ends.
#[pin_data]
pub(crate) struct WaitQueue {
    #[pin]
    head: Opaque<bindings::wait_queue_head>,
    #[pin]
    _pin: PhantomPinned,
}

// SAFETY: A wait queue may be used from any thread.
unsafe impl Send for WaitQueue {}
// SAFETY: As above: it has a lock of its own.
unsafe impl Sync for WaitQueue {}

impl WaitQueue {
    /// Makes one; `kernel::static_lock_class!()` is the key.
    pub(crate) fn new(name: &'static CStr, key: Pin<&'static LockClassKey>) -> impl PinInit<Self> {
        pin_init!(Self {
            // SAFETY: The slot is valid; the name and the key live as long as the module.
            head <- Opaque::ffi_init(|slot| unsafe {
                bindings::__init_waitqueue_head(slot, name.as_char_ptr(), key.as_ptr())
            }),
            _pin: PhantomPinned,
        })
    }

    /// Waits to be told. Of what is told once `unlock` runs, this task is; it may also be told
    /// without reason.
    ///
    /// # Errors
    ///
    /// [`EINTR`] if the task is being killed. It may have been told then, too.
    pub(crate) fn wait_killable(&self, unlock: impl FnOnce()) -> Result {
        self.wait_killable_for(Jiffies::MAX, unlock).map(drop)
    }

    /// Waits like [`Self::wait_killable`], for a limited time; returns how much of it is left.
    ///
    /// # Errors
    ///
    /// [`EINTR`] if the task is being killed.
    pub(crate) fn wait_killable_for(
        &self,
        limit: Jiffies,
        unlock: impl FnOnce(),
    ) -> Result<Jiffies> {
        let entry = Opaque::<bindings::wait_queue_entry>::uninit();
        // SAFETY: The entry is valid, stays where it is, and is out of the queue, which is valid as
        // long as `self` is, before it goes. What is between does not unwind.
        unsafe {
            bindings::init_wait(entry.get());
            let state = bindings::TASK_KILLABLE as c_int;
            bindings::prepare_to_wait_exclusive(self.head.get(), entry.get(), state);
        }
        unlock();
        // The largest value stands for a wait without limit.
        let limit = c_long::try_from(limit).unwrap_or(c_long::MAX);
        // SAFETY: As above; callers of this may sleep.
        let left = unsafe {
            let left = bindings::schedule_timeout(limit);
            bindings::finish_wait(self.head.get(), entry.get());
            left
        };
        relax()?;
        Ok(Jiffies::try_from(left).unwrap_or(0))
    }

    /// Tells one task, if any waits.
    pub(crate) fn tell_one(&self) {
        self.tell(1);
    }

    /// Tells all who wait.
    pub(crate) fn tell_all(&self) {
        self.tell(0);
    }

    fn tell(&self, count: c_int) {
        let state = bindings::TASK_NORMAL;
        // SAFETY: The queue is valid.
        unsafe { bindings::__wake_up(self.head.get(), state, count, ptr::null_mut()) };
    }
}
