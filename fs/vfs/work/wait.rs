// SPDX-License-Identifier: GPL-2.0

//! Wait queues whose waits end when the task is killed.
//!
//! A waiter enters the queue before it releases the lock that protects its condition. Therefore a
//! task that changes the condition under this lock, and then wakes, never misses the waiter. The
//! queue's own lock is taken inside that lock.
//!
//! C header: [`include/linux/wait.h`](srctree/include/linux/wait.h)

use super::task::relax;
use crate::vfs::{bindings::VFS_RS_TASK_KILLABLE_FREEZABLE, compat::prelude::*};
use core::{marker::PhantomPinned, ptr};
use kernel::{
    bindings,
    ffi::{c_int, c_long, c_uint},
    str::CStr,
    sync::LockClassKey,
    time::Jiffies,
    types::Opaque,
};

/// A queue of tasks that sleep until they are woken or killed.
///
/// It is the kernel crate's `CondVar` with waits that only a fatal signal interrupts.
#[pin_data]
pub(crate) struct WaitQueue {
    #[pin]
    head: Opaque<bindings::wait_queue_head>,
    #[pin]
    _pin: PhantomPinned,
}

// SAFETY: A wait queue may be used from any thread.
unsafe impl Send for WaitQueue {}
// SAFETY: A wait queue has its own lock.
unsafe impl Sync for WaitQueue {}

impl WaitQueue {
    /// Makes a wait queue; `kernel::static_lock_class!()` gives the key.
    pub(crate) fn new(name: &'static CStr, key: Pin<&'static LockClassKey>) -> impl PinInit<Self> {
        pin_init!(Self {
            // SAFETY: The slot is memory for a wait queue head. The name and the key live as long
            // as the module.
            head <- Opaque::ffi_init(|slot| unsafe {
                bindings::__init_waitqueue_head(slot, name.as_char_ptr(), key.as_ptr())
            }),
            _pin: PhantomPinned,
        })
    }

    /// Sleeps until woken or killed. A wake-up after `unlock` is never missed; spurious ones
    /// happen.
    ///
    /// # Errors
    ///
    /// [`EINTR`] if the task is being killed. It may have been woken as well: a task that was woken
    /// alone must pass the wake-up on.
    pub(crate) fn wait_killable(&self, unlock: impl FnOnce()) -> Result {
        self.wait_killable_for(Jiffies::MAX, unlock).map(drop)
    }

    /// Sleeps like [`Self::wait_killable`], for a limited time; returns the time that is left.
    ///
    /// # Errors
    ///
    /// [`EINTR`] if the task is being killed.
    pub(crate) fn wait_killable_for(
        &self,
        limit: Jiffies,
        unlock: impl FnOnce(),
    ) -> Result<Jiffies> {
        self.wait_for(bindings::TASK_KILLABLE, limit, unlock)
    }

    /// Sleeps like [`Self::wait_killable_for`]. The task can be frozen meanwhile, also with locks
    /// that its callers hold: a task that waits for one of them is killable, or is frozen as well.
    ///
    /// # Errors
    ///
    /// [`EINTR`] if the task is being killed.
    pub(crate) fn wait_freezable_for(
        &self,
        limit: Jiffies,
        unlock: impl FnOnce(),
    ) -> Result<Jiffies> {
        self.wait_for(VFS_RS_TASK_KILLABLE_FREEZABLE, limit, unlock)
    }

    fn wait_for(&self, state: c_uint, limit: Jiffies, unlock: impl FnOnce()) -> Result<Jiffies> {
        let entry = Opaque::<bindings::wait_queue_entry>::uninit();
        // SAFETY: `self` keeps the queue valid. The entry is initialised here, does not move, and
        // is taken out of the queue below before it is dropped: the code between does not unwind.
        unsafe {
            bindings::init_wait(entry.get());
            bindings::prepare_to_wait_exclusive(self.head.get(), entry.get(), state as c_int);
        }
        unlock();
        // The largest value stands for a wait without limit.
        let limit = c_long::try_from(limit).unwrap_or(c_long::MAX);
        // SAFETY: The entry was initialised above, and the queue is valid. Callers may sleep.
        let left = unsafe {
            let left = bindings::schedule_timeout(limit);
            bindings::finish_wait(self.head.get(), entry.get());
            left
        };
        relax()?;
        Ok(Jiffies::try_from(left).unwrap_or(0))
    }

    /// Wakes one task, if any waits.
    pub(crate) fn wake_one(&self) {
        self.wake(1);
    }

    /// Wakes all tasks that wait.
    pub(crate) fn wake_all(&self) {
        self.wake(0);
    }

    /// Wakes `count` tasks, or all if it is 0.
    fn wake(&self, count: c_int) {
        let state = bindings::TASK_NORMAL;
        // SAFETY: `self` keeps the queue valid.
        unsafe { bindings::__wake_up(self.head.get(), state, count, ptr::null_mut()) };
    }
}
