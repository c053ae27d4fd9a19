// SPDX-License-Identifier: GPL-2.0

//! Direct reads: past the page cache of the lower filesystem, several at once.
//!
//! One task starts reads; any number of tasks can wait for them.
//!
//! Lock: a direct read takes the inode's lock (`i_rwsem`). It must not wait for it: a page fault
//! may have brought the caller here, with `mmap_lock` and folios of ours locked, and the holder of
//! the inode's lock may be about to take those, to copy to or from user memory (a write, FIEMAP).
//! Therefore the reads have `IOCB_NOWAIT`: instead of waiting they fail with [`EAGAIN`], and are
//! done through the page cache.

use super::cached::was_read;
use crate::vfs::{bindings, compat::prelude::*};
use core::{
    mem::MaybeUninit,
    ptr::{self, NonNull},
};
use kernel::{
    error::to_result,
    ffi::{c_int, c_long, c_uint},
    sync::atomic::{Acquire, Atomic, Full, Relaxed},
};

/// A read to start.
#[derive(Clone, Copy)]
pub(super) struct Request {
    /// The file.
    pub(super) file: *mut bindings::file,
    /// The memory to read to.
    pub(super) memory: *mut u8,
    /// The number of bytes.
    pub(super) len: usize,
    /// The position in the file.
    pub(super) offset: i64,
}

impl Request {
    /// No read.
    pub(super) const NONE: Self = Self {
        file: ptr::null_mut(),
        memory: ptr::null_mut(),
        len: 0,
        offset: 0,
    };
}

/// Direct reads that are done at once.
///
/// # Invariants
///
/// `reads` points to a `Reads` from a `KBox`, and is ours. If `in_flight` is not 0, reads were
/// started and nobody has noticed their end: their completion uses `reads`, and they hold their
/// files. The task that makes it 0 has seen the completion before, and gives the files back.
pub(super) struct DirectReads {
    reads: NonNull<Reads>,
    in_flight: Atomic<u32>,
}

// SAFETY: Another task than the one that started reads may wait for them, and free the memory.
unsafe impl Send for DirectReads {}
// SAFETY: A shared reference waits for the reads, which a completion allows to any number of tasks,
// and gives results, which nobody writes once `in_flight` is 0. One task alone makes it 0.
unsafe impl Sync for DirectReads {}

impl DirectReads {
    /// The maximum number of reads that are done at once.
    pub(super) const MAX: usize = 8;

    /// Allocates the memory that reads need while they are under way.
    pub(super) fn new() -> Result<Self> {
        let reads = KBox::<Reads>::new_uninit(GFP_KERNEL | __GFP_ZERO)?;
        // INVARIANT: The memory was just allocated; no read is under way. Zeros are a valid value
        // of `Reads`.
        Ok(Self {
            reads: NonNull::new(KBox::into_raw(reads).cast()).ok_or(ENOMEM)?,
            in_flight: Atomic::new(0),
        })
    }

    /// Returns true if reads were started and nobody has noticed their end.
    pub(super) fn is_in_flight(&self) -> bool {
        self.in_flight.load(Acquire) != 0
    }

    /// Returns true if no read is under way. Does not wait.
    pub(super) fn have_ended(&self) -> bool {
        if !self.is_in_flight() {
            return true;
        }
        // SAFETY: By the type invariants `reads` is valid, and reads were started with it.
        let ended = unsafe { bindings::completion_done(&mut (*self.reads.as_ptr()).done) };
        if ended {
            // SAFETY: The reads have ended.
            unsafe { self.note_end() };
        }
        ended
    }

    /// Starts at most [`Self::MAX`] reads; none may be under way. They keep their files open. Reads
    /// that would have to wait for a lock end with [`EAGAIN`].
    ///
    /// # Safety
    ///
    /// The files of the requests must be valid and open. Their memory must be of the kernel's
    /// allocators, not overlap, and be used by nobody else until [`Self::wait`] or [`Self::finish`]
    /// reports that the reads have ended.
    pub(super) unsafe fn start(&mut self, requests: &[Request]) {
        let reads = self.reads.as_ptr();
        let requests = requests.get(..Self::MAX).unwrap_or(requests);
        // INVARIANT: The reads are started here, each with a reference to its file.
        self.in_flight.store(1, Relaxed);
        // SAFETY: By the type invariants `reads` is valid, and nothing is under way: only this task
        // uses it until the first read is submitted. From then on its completion changes `left`,
        // `done` and the result. The plug does not move, and is finished before it goes.
        unsafe {
            (*reads).count = requests.len();
            bindings::init_completion(&mut (*reads).done);
            // One is ours, until all have been submitted.
            bindings::atomic_set(&mut (*reads).left, requests.len() as c_int + 1);
            unplug();
            let mut plug = MaybeUninit::uninit();
            bindings::blk_start_plug(plug.as_mut_ptr());
            let slots = ptr::addr_of_mut!((*reads).slots).cast::<Slot>();
            for (index, request) in requests.iter().enumerate() {
                submit(reads, slots.add(index), request);
            }
            bindings::blk_finish_plug(plug.as_mut_ptr());
            ended(reads);
        }
    }

    /// Waits until the reads have ended; returns false if they have not, because the task is being
    /// killed.
    pub(super) fn wait(&self) -> bool {
        self.wait_in_state(bindings::TASK_KILLABLE)
    }

    /// Waits until the reads have ended.
    pub(super) fn finish(&self) {
        // The kernel reports tasks that cannot be killed for a long time, but no killable waits of
        // workers. A worker is never killed, and waits as long.
        if !self.wait() {
            self.wait_in_state(bindings::TASK_UNINTERRUPTIBLE);
        }
    }

    /// Waits in a state of the task; returns false if the task is being killed.
    fn wait_in_state(&self, state: c_uint) -> bool {
        if !self.is_in_flight() {
            return true;
        }
        let reads = self.reads.as_ptr();
        // The wait counts as one for I/O: there is no killable `wait_for_completion_io`.
        // SAFETY: By the type invariants `reads` is valid, and reads were started with it.
        let err = unsafe {
            let outer = bindings::vfs_rs_set_in_iowait(true);
            let err = bindings::wait_for_completion_state(&mut (*reads).done, state);
            bindings::vfs_rs_set_in_iowait(outer);
            err
        };
        if err != 0 {
            return false;
        }
        // SAFETY: The reads have ended.
        unsafe { self.note_end() };
        true
    }

    /// Makes the memory of reads that have ended readable, and gives their files back, which the
    /// first caller does.
    ///
    /// # Safety
    ///
    /// The completion of reads must have been seen.
    unsafe fn note_end(&self) {
        let reads = self.reads.as_ptr();
        // SAFETY: All reads have ended, and none is started while `self` is shared: nobody changes
        // `reads`. The memory is valid by the requirements of `start`.
        let slots = unsafe {
            let slots = ptr::addr_of_mut!((*reads).slots).cast::<Slot>();
            (0..(*reads).count).map(move |index| slots.add(index))
        };
        for slot in slots.clone() {
            // Before others see that the reads have ended.
            // SAFETY: As above.
            unsafe { was_read((*slot).memory, (*slot).len) };
        }
        // INVARIANT: The reads have ended, and their files are given back here by one caller.
        if self.in_flight.xchg(0, Full) != 0 {
            for slot in slots {
                // SAFETY: `start` took a reference to the file, which is given back once.
                unsafe { bindings::fput((*slot).request.ki_filp) };
            }
        }
    }

    /// Returns how many bytes one of the reads has read, or its error, once all have ended.
    ///
    /// # Errors
    ///
    /// [`EINTR`] if they have not, because the task that waited was being killed.
    pub(super) fn result(&self, index: usize) -> Result<usize> {
        if self.is_in_flight() {
            return Err(EINTR);
        }
        // SAFETY: By the type invariants `reads` is valid; nothing is under way, so that nobody
        // changes it.
        let reads = unsafe { self.reads.as_ref() };
        if index >= reads.count {
            return Ok(0);
        }
        let result = reads.slots.get(index).map_or(0, |slot| slot.result);
        to_result(result.min(0) as c_int)?;
        Ok(result as usize)
    }
}

impl Drop for DirectReads {
    fn drop(&mut self) {
        self.finish();
        // SAFETY: By the type invariants the memory is ours and from a `KBox`; no read uses it any
        // more.
        drop(unsafe { KBox::from_raw(self.reads.as_ptr()) });
    }
}

/// The memory of reads that are under way.
#[repr(C)]
struct Reads {
    /// Completed, for all that wait, when `left` is 0.
    done: bindings::completion,
    /// The number of reads that have not ended, and 1 for the task that submits them.
    left: bindings::atomic_t,
    count: usize,
    slots: [Slot; DirectReads::MAX],
}

/// The memory of one read.
#[repr(C)]
struct Slot {
    request: bindings::kiocb,
    reads: *mut Reads,
    memory: *mut u8,
    len: usize,
    result: isize,
}

/// Submits a read.
///
/// # Safety
///
/// `slot` must be an unused one of `reads`, and counted by `left`. The requirements of
/// [`DirectReads::start`] hold for `request`.
unsafe fn submit(reads: *mut Reads, slot: *mut Slot, request: &Request) {
    let vector = bindings::kvec {
        iov_base: request.memory.cast(),
        iov_len: request.len,
    };
    let mut iter = MaybeUninit::uninit();
    // SAFETY: By the safety requirements only this task uses the slot until the read is submitted.
    // `get_file` takes a reference for the time of the read. The vector is only used during the
    // submission, because direct reads take the pages of the memory.
    unsafe {
        (*slot).reads = reads;
        (*slot).memory = request.memory;
        (*slot).len = request.len;
        let file = bindings::get_file(request.file);
        let iocb = ptr::addr_of_mut!((*slot).request);
        bindings::vfs_rs_init_sync_kiocb(iocb, file);
        (*iocb).ki_pos = request.offset;
        (*iocb).ki_flags |= (bindings::VFS_RS_IOCB_DIRECT | bindings::VFS_RS_IOCB_NOWAIT) as c_int;
        (*iocb).ki_complete = Some(complete_read);
        bindings::iov_iter_kvec(
            iter.as_mut_ptr(),
            bindings::ITER_DEST,
            &vector,
            1,
            request.len,
        );
        let result = bindings::vfs_iocb_iter_read(file, iocb, iter.as_mut_ptr());
        if result != -(bindings::EIOCBQUEUED as isize) {
            complete_read(iocb, result);
        }
    }
}

/// Notes the result of a read: `kiocb.ki_complete`.
///
/// # Safety
///
/// To be called once for each request that [`submit`] has made. May run in interrupt context.
unsafe extern "C" fn complete_read(request: *mut bindings::kiocb, result: c_long) {
    // SAFETY: The request is the first field of a slot, whose `reads` is valid until all have
    // ended.
    unsafe {
        let slot = request.cast::<Slot>();
        (*slot).result = result;
        ended((*slot).reads);
    }
}

/// Counts an end of a read, or of the submission.
///
/// # Safety
///
/// `reads` must be valid, and `left` must count the read or the submission. `reads` must not be
/// used afterwards, but by tasks that wait for `done`.
unsafe fn ended(reads: *mut Reads) {
    // SAFETY: By the safety requirements. Tasks that wait do not go on before `complete_all`, which
    // holds the lock of `done` that they need to see it.
    unsafe {
        if bindings::atomic_dec_and_test(ptr::addr_of_mut!((*reads).left)) {
            bindings::complete_all(ptr::addr_of_mut!((*reads).done));
        }
    }
}

/// Submits the requests that the current task's plug holds back, and removes the plug.
///
/// Readahead is called with a plug, which serves tasks that do not wait for the requests that they
/// submit: a request would be held back until this task sleeps, and then be dispatched by another.
fn unplug() {
    // SAFETY: `current` is valid, and only the task itself changes its plug.
    unsafe {
        let plug = (*bindings::get_current()).plug;
        if !plug.is_null() {
            bindings::blk_finish_plug(plug);
        }
    }
}
