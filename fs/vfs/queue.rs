// SPDX-License-Identifier: GPL-2.0

//! Work that is done beside whoever asks for it.
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)

use super::bindings;
use core::ptr::NonNull;
use kernel::{prelude::*, str::CStr, workqueue::Queue};

/// A work queue of the filesystem's own, whose work runs on any processor.
///
/// # Invariants
///
/// `queue` is a work queue, and is ours.
pub(super) struct OwnQueue {
    queue: NonNull<bindings::workqueue_struct>,
}

// SAFETY: A work queue may be used from any thread.
unsafe impl Send for OwnQueue {}
// SAFETY: As above.
unsafe impl Sync for OwnQueue {}

impl OwnQueue {
    /// Makes a work queue. The name is seen in the names of the threads that work.
    pub(super) fn new(name: &CStr) -> Result<Self> {
        // SAFETY: The name is NUL-terminated, and is copied.
        let queue = unsafe { bindings::vfs_rs_alloc_workqueue(name.as_char_ptr()) };
        // INVARIANT: The queue was just made.
        Ok(Self {
            queue: NonNull::new(queue).ok_or(ENOMEM)?,
        })
    }

    /// Waits until all work that has been enqueued so far is done.
    pub(super) fn flush(&self) {
        // SAFETY: By the type invariants the queue is valid.
        unsafe { bindings::__flush_workqueue(self.queue.as_ptr()) };
    }

    /// What work is enqueued in.
    pub(super) fn queue(&self) -> &Queue {
        // SAFETY: By the type invariants the queue is valid, for as long as `self` exists.
        unsafe { Queue::from_raw(self.queue.as_ptr().cast()) }
    }
}

impl Drop for OwnQueue {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the queue is ours; work that is left is done first.
        unsafe { bindings::destroy_workqueue(self.queue.as_ptr()) };
    }
}
