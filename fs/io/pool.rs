// SPDX-License-Identifier: GPL-2.0

//! The pool of workspaces of a store.
//!
//! # Locking
//!
//! `pool` protects the list of free workspaces, their counts, and the blobs that are being read as
//! a whole. It is the innermost lock: nothing is allocated, read or waited for under it. A lent
//! workspace belongs to its borrower and has no lock. The shrinker takes `pool`, so it must not be
//! held while memory is allocated.

use super::buffer::BlobBuffer;
use crate::{
    base::{
        blob_id::BlobId,
        limits::{max_readers, MAX_STORED, MAX_WORKSPACES},
        range::ByteRange,
    },
    ports::zstd_safe::DCtx,
    vfs::{prelude::*, Shrink, WaitQueue, WorkQueue},
};
use core::mem::ManuallyDrop;
use kernel::{
    impl_has_work, new_mutex, new_work,
    page::PAGE_SIZE,
    static_lock_class,
    sync::{
        lock::{mutex::MutexBackend, Guard},
        Arc, Mutex,
    },
    workqueue::{Work, WorkItem},
};

/// The buffer and the decoder of one reader.
///
/// The buffer keeps the last reads, for a reader that continues there.
pub(crate) struct Workspace {
    pub(crate) decoder: DCtx,
    pub(crate) buffer: BlobBuffer,
}

impl Workspace {
    fn new() -> Result<Self> {
        Ok(Self {
            decoder: DCtx::try_create()?,
            buffer: BlobBuffer::new(MAX_STORED)?,
        })
    }
}

/// A workspace that a work queue can return to its pool.
#[pin_data]
struct PooledWorkspace {
    workspace: Workspace,
    /// Set while a work queue has the workspace. It takes the pool out again, so that there is
    /// nothing to drop.
    home: ManuallyDrop<Option<Arc<Workspaces>>>,
    #[pin]
    work: Work<Self>,
}

impl_has_work! {
    impl HasWork<Self> for PooledWorkspace { self.work }
}

impl PooledWorkspace {
    fn new() -> Result<Pin<KBox<Self>>> {
        let workspace = Workspace::new()?;
        KBox::pin_init(
            pin_init!(Self {
                workspace,
                home: ManuallyDrop::new(None),
                work <- new_work!("puzzlefs_workspace"),
            }),
            GFP_KERNEL,
        )
    }

    fn workspace(self: &mut Pin<KBox<Self>>) -> &mut Workspace {
        self.as_mut().project().workspace
    }
}

/// Returns a workspace to which a killed task left reads behind.
impl WorkItem for PooledWorkspace {
    type Pointer = Pin<KBox<Self>>;

    fn run(mut this: Self::Pointer) {
        this.workspace().buffer.settle();
        if let Some(home) = this.as_mut().project().home.take() {
            home.put(Some(this), None);
        }
    }
}

/// The blob, or the chunk in one, that a workspace is borrowed to read.
#[derive(Clone, Copy)]
pub(crate) struct Purpose {
    pub(crate) blob: BlobId,
    /// The range of the chunk in the blob, if it is about a chunk.
    pub(crate) chunk: Option<ByteRange>,
    /// Set if the blob or the chunk is read as a whole.
    pub(crate) whole: bool,
}

/// A blob, or the chunk at an offset of a blob, that is being read as a whole.
type Reading = (BlobId, Option<u64>);

impl Purpose {
    /// Returns the blob or the chunk, if it is read as a whole.
    fn whole(self) -> Option<Reading> {
        let chunk = self.chunk.map(|range| range.offset);
        self.whole.then_some((self.blob, chunk))
    }
}

/// The free workspaces of a store, and counts of all.
///
/// # Invariants
///
/// - `free.len() <= made <= count <= max_readers()`.
/// - `made` is at least 1: the first workspace is the reserve of the store.
struct Pool {
    /// The one that was used last is at the end. Has capacity for [`max_readers`].
    free: KVec<Pin<KBox<PooledWorkspace>>>,
    /// The number of workspaces, lent or free, including those that are being made.
    count: usize,
    /// The number of workspaces, lent or free.
    made: usize,
    /// The blobs and chunks that are being read as a whole to lent workspaces.
    reading: [Option<Reading>; MAX_WORKSPACES],
}

type LockedPool<'a> = Guard<'a, Pool, MutexBackend>;

/// The answer of a pool to a borrower.
enum Answer {
    /// Lends a workspace.
    Lent(Pin<KBox<PooledWorkspace>>),
    /// Lets the borrower make one more.
    Make,
    /// Another borrower is reading the blob.
    Reading,
    /// All are lent.
    NoneFree,
}

impl Pool {
    /// Lends a workspace: one that holds a part of the blob or the chunk, or else the least
    /// recently used one, unless another borrower is reading all of the blob.
    fn take(&mut self, purpose: Purpose) -> Answer {
        let mut free = self.free.iter();
        let Purpose { blob, chunk, .. } = purpose;
        let holding = free.position(|pooled| pooled.workspace.buffer.holds(blob, chunk));
        let whole = purpose.whole();
        if holding.is_none() && whole.is_some() && self.reading.contains(&whole) {
            return Answer::Reading;
        }
        let answer = match self.free.remove(holding.unwrap_or(0)) {
            Ok(pooled) => Answer::Lent(pooled),
            Err(_) if self.count < max_readers() => {
                // INVARIANT: `count` is below the limit.
                self.count += 1;
                Answer::Make
            }
            Err(_) => return Answer::NoneFree,
        };
        // There are no more workspaces than places.
        if let Some(place) = self.reading.iter_mut().find(|place| place.is_none()) {
            *place = whole;
        }
        answer
    }

    /// Takes a free workspace out of service, unless it is the last.
    fn retire(&mut self) -> Option<Pin<KBox<PooledWorkspace>>> {
        if self.made <= 1 {
            return None;
        }
        let retired = self.free.remove(0).ok()?;
        // INVARIANT: `made` was larger than 1, and there is one workspace less.
        self.made -= 1;
        self.count -= 1;
        Some(retired)
    }

    /// Returns the last workspace, if it is free and its buffer is not empty.
    fn last_with_contents(&mut self) -> Option<&mut Workspace> {
        let last = self.free.first_mut().filter(|_| self.made == 1)?;
        Some(last.workspace()).filter(|workspace| !workspace.buffer.is_empty())
    }

    /// Notes that a blob is no longer being read as a whole.
    fn end_reading(&mut self, whole: Option<Reading>) {
        if let Some(place) = self.reading.iter_mut().find(|place| **place == whole) {
            *place = None;
        }
    }

    /// Takes a workspace back, or none if none could be made.
    fn put(&mut self, pooled: Option<Pin<KBox<PooledWorkspace>>>) {
        match pooled {
            // There is room: it was taken from there, or counted.
            Some(pooled) => {
                let _ = self.free.push_within_capacity(pooled);
            }
            // INVARIANT: The workspace that was counted was not made.
            None => self.count = self.count.saturating_sub(1),
        }
    }
}

/// The workspaces of a store.
///
/// The first is made with the store and stays, so that its blobs can be read however little memory
/// there is. More are made as they are needed, and given back under memory pressure. Readers wait
/// for a free one if there are [`max_readers`] of them, or no memory for one more. Stores do not
/// share workspaces, so that a disk that does not answer delays only its own readers.
///
/// A reader of a small blob that another one is reading waits for it, and finds the blob read.
#[pin_data]
pub(crate) struct Workspaces {
    #[pin]
    pool: Mutex<Pool>,
    /// Wakes one waiter for any workspace.
    #[pin]
    returned: WaitQueue,
    /// Wakes all waiters for a blob.
    #[pin]
    was_read: WaitQueue,
}

impl Workspaces {
    /// Makes a pool with one workspace.
    pub(crate) fn new() -> Result<Arc<Self>> {
        let mut free = KVec::with_capacity(max_readers(), GFP_KERNEL)?;
        free.push(PooledWorkspace::new()?, GFP_KERNEL)?;
        // INVARIANT: There is one workspace, which is free.
        let pool = Pool {
            free,
            count: 1,
            made: 1,
            reading: [None; MAX_WORKSPACES],
        };
        Arc::pin_init(
            pin_init!(Self {
                pool <- new_mutex!(pool, "puzzlefs_workspaces"),
                returned <- WaitQueue::new(c"puzzlefs_workspaces", static_lock_class!()),
                was_read <- WaitQueue::new(c"puzzlefs_blob_read", static_lock_class!()),
            }),
            GFP_KERNEL,
        )
    }

    /// Takes a workspace back, or none if none could be made, and wakes a waiter.
    ///
    /// `purpose` is that of the borrower, unless [`Self::end_purpose`] has ended it.
    fn put(&self, pooled: Option<Pin<KBox<PooledWorkspace>>>, purpose: Option<Purpose>) {
        let mut pool = self.pool.lock();
        if let Some(purpose) = purpose {
            pool.end_reading(purpose.whole());
        }
        pool.put(pooled);
        // If none could be made, there may be none to wake a waiter for.
        let is_any_free = !pool.free.is_empty();
        drop(pool);
        if purpose.is_some_and(|purpose| purpose.whole) {
            self.was_read.wake_all();
        }
        if is_any_free {
            self.returned.wake_one();
        }
    }

    /// Takes back a workspace after its use.
    ///
    /// If reads to it are under way, because the task is being killed, `queue` does so later.
    fn give_back(
        self: &Arc<Self>,
        queue: &WorkQueue,
        mut pooled: Pin<KBox<PooledWorkspace>>,
        purpose: Purpose,
    ) {
        if pooled.workspace().buffer.check_settled().is_ok() {
            return self.put(Some(pooled), Some(purpose));
        }
        // It still counts, so that killed tasks take no more memory than others.
        self.pool.lock().end_reading(purpose.whole());
        if purpose.whole {
            self.was_read.wake_all();
        }
        **pooled.as_mut().project().home = Some(self.clone());
        queue.enqueue(pooled);
    }

    /// Waits for a wake-up, which can be spurious. The caller checks its condition again.
    fn wait<'a>(&'a self, queue: &WaitQueue, pool: LockedPool<'a>) -> Result<LockedPool<'a>> {
        queue.wait_killable(|| drop(pool))?;
        Ok(self.pool.lock())
    }

    /// Waits until a workspace may be free.
    fn wait_for_any<'a>(&'a self, pool: LockedPool<'a>) -> Result<LockedPool<'a>> {
        self.wait(&self.returned, pool).inspect_err(|_| {
            // Pass on a wake-up that this task does not use.
            self.returned.wake_one();
        })
    }

    /// Borrows a workspace, and waits for one unless `now` is set; `None` if none is free then.
    ///
    /// A reader of a whole blob waits in any case while another one is reading it.
    fn take(
        self: &Arc<Self>,
        purpose: Purpose,
        now: bool,
    ) -> Result<Option<Pin<KBox<PooledWorkspace>>>> {
        let mut pool = self.pool.lock();
        loop {
            match pool.take(purpose) {
                Answer::Lent(pooled) => return Ok(Some(pooled)),
                Answer::Make => {
                    drop(pool);
                    if let Ok(pooled) = PooledWorkspace::new() {
                        // INVARIANT: `count` has it already.
                        self.pool.lock().made += 1;
                        return Ok(Some(pooled));
                    }
                    // The reserve exists, but another reader has it.
                    self.put(None, Some(purpose));
                    if now {
                        return Ok(None);
                    }
                    pool = self.pool.lock();
                    if pool.free.is_empty() {
                        pool = self.wait_for_any(pool)?;
                    }
                }
                Answer::Reading => {
                    // Pass on a wake-up that this task does not use.
                    self.returned.wake_one();
                    pool = self.wait(&self.was_read, pool)?;
                }
                Answer::NoneFree if now => return Ok(None),
                Answer::NoneFree => pool = self.wait_for_any(pool)?,
            }
        }
    }

    /// Lends a workspace to `work`, as soon as one is free.
    ///
    /// If `now` is set and none is free, `work` gets none, but it still waits for a reader of the
    /// same whole blob. `returns` takes workspaces back that killed tasks leave behind.
    ///
    /// # Errors
    ///
    /// [`EINTR`] if the task is killed while it waits.
    pub(crate) fn with<R>(
        self: &Arc<Self>,
        returns: &WorkQueue,
        purpose: Purpose,
        now: bool,
        work: impl FnOnce(Option<&mut Workspace>) -> R,
    ) -> Result<R> {
        let Some(mut pooled) = self.take(purpose, now)? else {
            return Ok(work(None));
        };
        let result = work(Some(pooled.workspace()));
        self.give_back(returns, pooled, purpose);
        Ok(result)
    }
}

/// The memory of a workspace, in pages.
const PAGES: usize = MAX_STORED / PAGE_SIZE;

/// Counts and frees the memory of free workspaces, in pages. The last one keeps its memory; its
/// contents, which memory reclaim empties, count as one page.
impl Shrink for Workspaces {
    fn count(&self) -> usize {
        let mut pool = self.pool.lock();
        let unused = pool.free.len().min(pool.made.saturating_sub(1));
        let to_clear = usize::from(pool.last_with_contents().is_some());
        unused.saturating_mul(PAGES) + to_clear
    }

    fn shrink(&self, pages: usize) -> usize {
        let mut freed = 0;
        while freed < pages {
            let retired = self.pool.lock().retire();
            if retired.is_none() {
                if let Some(last) = self.pool.lock().last_with_contents() {
                    last.buffer.clear();
                    freed += 1;
                }
                break;
            }
            freed += PAGES;
        }
        freed
    }
}
