// SPDX-License-Identifier: GPL-2.0

//! Work queues, and jobs that the task waits for which has enqueued them.
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)

use super::charge::Charge;
use crate::vfs::{bindings, compat::prelude::*};
use core::ptr::NonNull;
use kernel::{
    impl_has_work, new_work,
    str::CStr,
    sync::Arc,
    workqueue::{Queue, RawWorkItem, Work, WorkItem},
};

/// A work queue, whose work runs on any processor.
///
/// At most `WQ_DFL_ACTIVE` pieces of work run at once: work that can wait for long needs its own
/// queue.
///
/// # Invariants
///
/// `queue` is a valid work queue, and is ours.
pub(crate) struct WorkQueue {
    queue: NonNull<bindings::workqueue_struct>,
}

// SAFETY: A work queue may be used and destroyed from any thread.
unsafe impl Send for WorkQueue {}
// SAFETY: A work queue has its own locks.
unsafe impl Sync for WorkQueue {}

impl WorkQueue {
    /// Makes a work queue. The names of its threads contain its name.
    pub(crate) fn new(name: &CStr) -> Result<Self> {
        // SAFETY: The name is NUL-terminated, and is copied.
        let queue = unsafe {
            bindings::vfs_rs_alloc_workqueue(name.as_char_ptr(), bindings::wq_flags_WQ_UNBOUND)
        };
        // INVARIANT: The queue was just made.
        Ok(Self {
            queue: NonNull::new(queue).ok_or(ENOMEM)?,
        })
    }

    /// Enqueues a job.
    pub(crate) fn run<J: Run>(&self, job: Arc<Job<J>>) {
        // A job that is already in the queue runs once.
        let _ = self.enqueue(job);
    }

    /// Enqueues a piece of work. Dropping `self` waits for it.
    pub(crate) fn enqueue<W, const ID: u64>(&self, work: W) -> W::EnqueueOutput
    where
        W: RawWorkItem<ID> + Send + 'static,
    {
        // SAFETY: By the type invariants the queue is valid while `self` exists.
        let queue = unsafe { Queue::from_raw(self.queue.as_ptr().cast()) };
        queue.enqueue(work)
    }
}

impl Drop for WorkQueue {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the queue is ours. `destroy_workqueue` first runs the work
        // that is left.
        unsafe { bindings::destroy_workqueue(self.queue.as_ptr()) };
    }
}

/// The work of a [`Job`].
pub(crate) trait Run: Send + Sync + 'static {
    /// Does the work, in a worker that holds no locks and may sleep.
    fn run(&self);
}

/// Work that can be enqueued, and is shared with the tasks that wait for it. The control groups of
/// the task that has made it pay for it.
#[pin_data]
pub(crate) struct Job<J: Run> {
    job: J,
    charge: Charge,
    #[pin]
    work: Work<Self>,
}

impl_has_work! {
    impl{J: Run} HasWork<Self> for Job<J> { self.work }
}

impl<J: Run> Job<J> {
    /// Makes a job that the current task pays for.
    pub(crate) fn new(job: J) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                job,
                charge: Charge::of_current(),
                work <- new_work!("vfs_job"),
            }),
            GFP_KERNEL,
        )
    }
}

impl<J: Run> core::ops::Deref for Job<J> {
    type Target = J;

    fn deref(&self) -> &J {
        &self.job
    }
}

impl<J: Run> WorkItem for Job<J> {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        let _charged = this.charge.enter();
        this.job.run();
    }
}
