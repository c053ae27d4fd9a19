// SPDX-License-Identifier: GPL-2.0

//! Readahead: widened to what the filesystem prefers, and done by a work queue if no reader waits.

use super::{folio::FolioRun, read_folios::ReadFolios};
use crate::vfs::{
    bindings,
    compat::prelude::*,
    types::{INode, INodeRef},
    work::{Charge, PendingWork},
};
use core::ops::Range;
use kernel::{
    impl_has_work, new_work,
    workqueue::{Work, WorkItem},
};

/// Reads folios before a reader needs them: the work of `address_space_operations.readahead`.
///
/// # Safety
///
/// `rac` must be a valid request for contents of `inode` that only this task uses.
pub(in crate::vfs) unsafe fn read_ahead<T: ReadFolios>(
    inode: &INode<T>,
    rac: *mut bindings::readahead_control,
) {
    // SAFETY: The request is valid by the safety requirements.
    let range = unsafe { range(rac) };
    if !T::can_read_ahead(inode, &range) {
        // The VFS takes the folios out of the page cache.
        return;
    }
    let may_wait = may_wait();
    if may_wait {
        // SAFETY: The request is valid by the safety requirements, and no folio has been taken yet.
        unsafe { widen(inode, rac) };
    }
    // A work queue reads on another processor what no reader waits for, or may wait for.
    // SAFETY: The request is valid by the safety requirements.
    let is_deferred = !may_wait || unsafe { is_early(rac) };
    let queue = is_deferred
        .then(|| T::readahead_queue(inode.superblock()))
        .flatten();
    let mut deferred = queue.and_then(|queue| Some((queue, Deferred::new(inode).ok()?)));
    // SAFETY: The request is valid by the safety requirements, and ours alone.
    while let Some(run) = unsafe { FolioRun::from_readahead(rac) } {
        let kept = match &mut deferred {
            Some((_, deferred)) => deferred.as_mut().push(run),
            None => Err(run),
        };
        if let Err(mut run) = kept {
            // Folios that are not read now are asked for again.
            if may_wait {
                T::read_folios(inode, &mut run);
            }
        }
    }
    if let Some((queue, deferred)) = deferred {
        queue.enqueue(deferred);
    }
}

/// Returns the range of the file that a request is for.
///
/// # Safety
///
/// `rac` must be a valid request, of which no folio has been taken.
unsafe fn range(rac: *mut bindings::readahead_control) -> Range<u64> {
    // SAFETY: The request is valid by the safety requirements.
    let (start, len) = unsafe {
        (
            bindings::vfs_rs_readahead_pos(rac) as u64,
            bindings::vfs_rs_readahead_length(rac) as u64,
        )
    };
    start..start.saturating_add(len)
}

/// Widens a request to the extent that the filesystem prefers.
///
/// # Safety
///
/// `rac` must be a valid request for contents of `inode`, of which no folio has been taken.
unsafe fn widen<T: ReadFolios>(inode: &INode<T>, rac: *mut bindings::readahead_control) {
    // SAFETY: The request is valid by the safety requirements.
    let range = unsafe { range(rac) };
    let wider = T::read_extent(inode, &range);
    if wider.start < range.start || wider.end > range.end {
        let start = wider.start.min(range.start);
        let len = wider.end.max(range.end) - start;
        if let (Ok(start), Ok(len)) = (i64::try_from(start), usize::try_from(len)) {
            // SAFETY: The request is valid by the safety requirements, and has all its folios. It
            // grows as far as there is memory.
            unsafe { bindings::readahead_expand(rac, start, len) };
        }
    }
}

/// Returns true if the task may wait for the folios of a request.
///
/// A read with `IOCB_NOWAIT` must not wait: the page cache marks its task with `PF_MEMALLOC_NOIO`.
/// Workers that must not cause I/O, such as those of loop devices, have the same mark and may wait.
fn may_wait() -> bool {
    // SAFETY: `current` is valid, and only the task itself changes its flags.
    let flags = unsafe { (*bindings::get_current()).flags };
    flags & bindings::PF_MEMALLOC_NOIO == 0 || flags & bindings::PF_KTHREAD != 0
}

/// Returns true if all of a request lies ahead of the reader. A request for bytes that the reader
/// waits for lies ahead of it only in part.
///
/// # Safety
///
/// `rac` must be a valid request.
unsafe fn is_early(rac: *mut bindings::readahead_control) -> bool {
    // SAFETY: The request is valid by the safety requirements, and so is its state unless it is
    // null.
    unsafe {
        let state = (*rac).ra;
        !state.is_null() && (*state).start == (*rac)._index && (*state).async_size == (*state).size
    }
}

/// The folios of an inode that a work queue reads ahead.
#[pin_data]
struct Deferred<T: ReadFolios> {
    /// Kept here, because the lock of a folio in a shared page cache does not keep the inode.
    inode: INodeRef<'static, T>,
    runs: KVec<FolioRun<'static>>,
    /// The reader's control groups, which pay for the reads.
    charge: Charge,
    #[pin]
    work: Work<Self>,
    /// Dropped last, when the inode has been given back.
    _pending: PendingWork,
}

// SAFETY: The folios may be filled and unlocked by another thread than the one that has locked
// them.
unsafe impl<T: ReadFolios> Send for Deferred<T> {}

impl_has_work! {
    impl{T: ReadFolios} HasWork<Self> for Deferred<T> { self.work }
}

impl<T: ReadFolios> Deferred<T> {
    /// Makes work without folios yet. It is not worth a wait for memory.
    fn new(inode: &INode<T>) -> Result<Pin<KBox<Self>>> {
        KBox::pin_init(
            pin_init!(Self {
                // SAFETY: The superblock waits for this work (`_pending`) before it is shut down,
                // and the inode is given back before that.
                inode: unsafe { INodeRef::keep(inode) },
                runs: KVec::new(),
                charge: Charge::of_current(),
                work <- new_work!("vfs_readahead"),
                // SAFETY: `kill` waits for the superblock's work before it drops the count.
                _pending: unsafe { inode.superblock().pending().begin() },
            }),
            GFP_NOWAIT | __GFP_NOWARN,
        )
    }

    /// Adds a run; gives it back if there is no memory.
    fn push(self: Pin<&mut Self>, run: FolioRun<'static>) -> Result<(), FolioRun<'static>> {
        let runs = self.project().runs;
        match runs.reserve(1, GFP_NOWAIT | __GFP_NOWARN) {
            Ok(()) => runs.push_within_capacity(run).map_err(|e| e.0),
            Err(_) => Err(run),
        }
    }
}

impl<T: ReadFolios> WorkItem for Deferred<T> {
    type Pointer = Pin<KBox<Self>>;

    fn run(mut this: Self::Pointer) {
        let this = this.as_mut().project();
        let _charged = this.charge.enter();
        for mut run in core::mem::take(this.runs) {
            T::read_folios(this.inode, &mut run);
        }
    }
}
