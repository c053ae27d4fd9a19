// SPDX-License-Identifier: GPL-2.0

//! Work that is done beside whoever asks for it.
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)

use super::bindings;
use super::charge::Charge;
use super::prelude::*;
use core::ptr::NonNull;
use kernel::{
    impl_has_work, new_work,
    str::CStr,
    sync::Arc,
    types::Opaque,
    workqueue::{Queue, RawWorkItem, Work, WorkItem},
};

/// A work queue, whose work runs on any processor.
///
/// So much of it runs at once, and no more (`WQ_DFL_ACTIVE`): what may wait for long has to have a
/// queue of its own.
///
/// # Invariants
///
/// `queue` is a work queue, and is ours.
pub(crate) struct WorkQueue {
    queue: NonNull<bindings::workqueue_struct>,
}

// SAFETY: A work queue may be used from any thread.
unsafe impl Send for WorkQueue {}
// SAFETY: As above.
unsafe impl Sync for WorkQueue {}

impl WorkQueue {
    /// Makes a work queue. The name is seen in the names of the threads that work.
    pub(crate) fn new(name: &CStr) -> Result<Self> {
        // SAFETY: The name is NUL-terminated, and is copied.
        let queue = unsafe { bindings::vfs_rs_alloc_workqueue(name.as_char_ptr()) };
        // INVARIANT: The queue was just made.
        Ok(Self {
            queue: NonNull::new(queue).ok_or(ENOMEM)?,
        })
    }

    /// Enqueues a job.
    pub(crate) fn run<J: Run>(&self, job: Arc<Job<J>>) {
        // A job that is in the queue already runs once.
        let _ = self.enqueue(job);
    }

    /// Has a piece of work done. Dropping `self` waits for it.
    pub(crate) fn enqueue<W, const ID: u64>(&self, work: W) -> W::EnqueueOutput
    where
        W: RawWorkItem<ID> + Send + 'static,
    {
        // SAFETY: By the type invariants the queue is valid, for as long as `self` exists.
        let queue = unsafe { Queue::from_raw(self.queue.as_ptr().cast()) };
        queue.enqueue(work)
    }
}

impl Drop for WorkQueue {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the queue is ours; work that is left is done first.
        unsafe { bindings::destroy_workqueue(self.queue.as_ptr()) };
    }
}

/// Work that a [`WorkQueue`] can do.
pub(crate) trait Run: Send + Sync + 'static {
    /// Does the work, in a task of its own that holds no locks and may sleep.
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
    pub(crate) fn new(job: J) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                job,
                charge: Charge::of_current(),
                work <- new_work!("puzzlefs_job"),
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

/// How much work there is for somebody, who waits for it before he goes.
pub(super) struct Pending {
    count: Opaque<bindings::atomic_t>,
}

// SAFETY: The count is atomic.
unsafe impl Send for Pending {}
// SAFETY: As above.
unsafe impl Sync for Pending {}

impl Pending {
    /// No work yet.
    pub(super) fn new() -> Self {
        Self {
            count: Opaque::new(bindings::atomic_t { counter: 0 }),
        }
    }

    /// Counts a piece of work, until what this gives is dropped.
    ///
    /// # Safety
    ///
    /// Before `self` goes, or is moved, it has to be waited for.
    pub(super) unsafe fn begin(&self) -> PendingWork {
        // SAFETY: The count is valid.
        unsafe { bindings::vfs_rs_pending_add(self.count.get()) };
        // INVARIANT: It was just counted, and stays where it is by the safety requirements.
        PendingWork {
            pending: self.into(),
        }
    }

    /// Waits until there is no work. More must not begin.
    pub(super) fn wait(&self) {
        // SAFETY: The count is valid.
        unsafe { bindings::vfs_rs_pending_wait(self.count.get()) };
    }
}

/// A piece of work that is counted.
///
/// # Invariants
///
/// `pending` is valid and counts this.
pub(super) struct PendingWork {
    pending: NonNull<Pending>,
}

// SAFETY: The count is atomic.
unsafe impl Send for PendingWork {}

impl Drop for PendingWork {
    fn drop(&mut self) {
        // SAFETY: By the type invariants this is counted, and the count is valid until then.
        unsafe { bindings::vfs_rs_pending_done((*self.pending.as_ptr()).count.get()) };
    }
}
