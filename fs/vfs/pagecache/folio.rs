// SPDX-License-Identifier: GPL-2.0

//! Runs of locked folios to fill.
//!
//! Lock: the folio lock of each folio of a run is held by the run, and released when the run is
//! dropped. It protects the folio's content until then, and keeps the folio in its mapping. A
//! caller that holds folio locks must not wait for a lock whose holder can wait for a folio, to
//! copy from or to user memory: inode locks of the lower filesystem, `mmap_lock`.
//!
//! C header: [`include/linux/pagemap.h`](srctree/include/linux/pagemap.h)

use crate::vfs::{bindings, compat::prelude::*, lower::BackingFile};
use core::{marker::PhantomData, mem::MaybeUninit, ptr::NonNull};

/// A run of locked folios of one file, without gaps, to be filled from beginning to end.
///
/// The methods that fill move a cursor on. Bytes that the cursor has not passed when the run is
/// dropped count as unreadable: no folio is given to readers before each byte of it has been
/// written.
///
/// # Invariants
///
/// The first `count` elements of `folios` are initialised: folios of the page cache, locked by this
/// run, not up to date, in the order of their positions and without gaps from `start` to `end`.
/// `cursor` is not beyond `end`, and in or at the beginning of the folio that `current` names. Of
/// the folios that `cursor` has passed, those whose bit in `failed` is clear have been written as
/// far as it has passed them.
pub(crate) struct FolioRun<'a> {
    folios: [MaybeUninit<NonNull<bindings::folio>>; MAX_FOLIOS],
    count: usize,
    start: u64,
    end: u64,
    cursor: u64,
    /// The index of the folio at the cursor, and the position of its first byte.
    current: (usize, u64),
    failed: u64,
    /// The error of bytes that another read may get.
    given_up: Option<Error>,
    /// Set if bytes can only be read after [`ReadFolios::prepare`](super::ReadFolios::prepare).
    postponed: bool,
    /// Set if the folios are of a readahead request.
    is_readahead: bool,
    _locked: PhantomData<&'a mut bindings::folio>,
}

impl FolioRun<'_> {
    /// Makes a run without folios.
    pub(super) fn empty() -> Self {
        Self {
            folios: [const { MaybeUninit::uninit() }; MAX_FOLIOS],
            count: 0,
            start: 0,
            end: 0,
            cursor: 0,
            current: (0, 0),
            failed: 0,
            given_up: None,
            postponed: false,
            is_readahead: false,
            _locked: PhantomData,
        }
    }

    /// Adds a folio behind the others.
    ///
    /// # Safety
    ///
    /// The folio must be of the page cache, locked, not up to date and given to this run to be
    /// unlocked, and directly behind the folios that the run has; there must be room for it.
    pub(super) unsafe fn push(&mut self, folio: NonNull<bindings::folio>) {
        // SAFETY: The folio is valid by the safety requirements.
        let (start, size) = unsafe {
            (
                bindings::vfs_rs_folio_pos(folio.as_ptr()) as u64,
                bindings::vfs_rs_folio_size(folio.as_ptr()) as u64,
            )
        };
        if self.count == 0 {
            self.start = start;
            self.cursor = start;
            self.current = (0, start);
        }
        if let Some(slot) = self.folios.get_mut(self.count) {
            // INVARIANT: By the safety requirements the folio is locked and follows the others.
            slot.write(folio);
            self.count += 1;
            self.end = start.saturating_add(size);
        }
    }

    /// Takes the next folios of a readahead request.
    ///
    /// # Safety
    ///
    /// `rac` must be a valid request of which this task alone takes folios.
    pub(super) unsafe fn from_readahead(rac: *mut bindings::readahead_control) -> Option<Self> {
        let mut run = Self::empty();
        run.is_readahead = true;
        while run.count < MAX_FOLIOS {
            // SAFETY: The request is valid by the safety requirements. Its folios are locked for
            // this task, and follow one another.
            let Some(folio) = NonNull::new(unsafe { bindings::vfs_rs_readahead_folio(rac) }) else {
                break;
            };
            // SAFETY: The folio is the next one of the request, and the loop's condition leaves
            // room for it.
            unsafe { run.push(folio) };
        }
        (run.count > 0).then_some(run)
    }

    /// Returns the position in the file of the run's first byte.
    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    /// Returns the position in the file behind the run's last byte, which can be beyond its end.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Returns the number of folios.
    pub(crate) fn folios(&self) -> usize {
        self.count
    }

    /// Returns the number of folios of which bytes were passed as unreadable.
    pub(crate) fn failed(&self) -> usize {
        self.failed.count_ones() as usize
    }

    /// Returns true if the folios are of a readahead request.
    pub(crate) fn is_readahead(&self) -> bool {
        self.is_readahead
    }

    /// Returns the position in the file of the next byte to fill.
    pub(crate) fn position(&self) -> u64 {
        self.cursor
    }

    /// Returns the folio at the cursor, the offset of the cursor in it, and the number of bytes
    /// left in it.
    fn at_cursor(&self) -> Option<(NonNull<bindings::folio>, usize, usize)> {
        let (index, start) = self.current;
        if index >= self.count {
            return None;
        }
        // SAFETY: By the type invariants, the first `count` folios are initialised.
        let folio = unsafe { self.folios.get(index)?.assume_init() };
        // SAFETY: By the type invariants the folio is valid.
        let size = unsafe { bindings::vfs_rs_folio_size(folio.as_ptr()) };
        let offset = (self.cursor - start) as usize;
        Some((folio, offset, size - offset))
    }

    /// Moves the cursor on, in the current folio or to the beginning of the next one.
    ///
    /// `bytes` must not be more than [`Self::at_cursor`] says are left in the current folio.
    fn advance(&mut self, bytes: usize, left: usize) {
        // INVARIANT: The cursor stays in the current folio or moves to the beginning of the next.
        self.cursor += bytes as u64;
        if bytes == left {
            self.current = (self.current.0 + 1, self.cursor);
        }
    }

    /// Fills the next `len` bytes, or as many as there are left, with zeros.
    pub(crate) fn fill_zeros(&mut self, mut len: u64) {
        while len > 0 {
            let Some((folio, offset, left)) = self.at_cursor() else {
                return;
            };
            let bytes = left.min(usize::try_from(len).unwrap_or(usize::MAX));
            // SAFETY: By the type invariants the folio is valid and locked by the run; the range is
            // inside it.
            unsafe { bindings::vfs_rs_folio_zero_range(folio.as_ptr(), offset, bytes) };
            self.advance(bytes, left);
            len -= bytes as u64;
        }
    }

    /// Fills the next bytes with `bytes`, as far as there is room.
    pub(crate) fn fill_bytes(&mut self, mut bytes: &[u8]) {
        while let Some((folio, offset, left)) = self.at_cursor() {
            let (now, later) = bytes.split_at(left.min(bytes.len()));
            if now.is_empty() {
                return;
            }
            // SAFETY: By the type invariants the folio is valid and locked by the run; the range is
            // inside it.
            unsafe {
                bindings::vfs_rs_memcpy_to_folio(folio.as_ptr(), offset, now.as_ptr(), now.len())
            };
            self.advance(now.len(), left);
            bytes = later;
        }
    }

    /// Has a function write the next `len` bytes; returns `None` if their memory is not contiguous.
    ///
    /// The function must return the memory that it was given, initialised. If it returns another
    /// slice, the bytes count as unreadable. After an error nothing has been filled.
    pub(crate) fn fill_in_place<E>(
        &mut self,
        len: usize,
        write: impl for<'b> FnOnce(&'b mut [MaybeUninit<u8>]) -> Result<&'b [u8], E>,
    ) -> Option<Result<(), E>> {
        let (folio, offset, left) = self.at_cursor()?;
        if len > left {
            return None;
        }
        // SAFETY: By the type invariants the folio is valid. Memory that is not in the kernel's
        // direct map has no contiguous address.
        let address = NonNull::new(unsafe {
            if bindings::vfs_rs_folio_test_highmem(folio.as_ptr()) {
                return None;
            }
            bindings::vfs_rs_folio_address(folio.as_ptr())
        })?;
        // SAFETY: By the type invariants the folio is locked by the run and not up to date, so that
        // nobody else reads or writes its memory, which is contiguous. The range is inside it.
        let memory = unsafe {
            core::slice::from_raw_parts_mut(
                address.as_ptr().cast::<MaybeUninit<u8>>().add(offset),
                len,
            )
        };
        let start = memory.as_ptr().cast::<u8>();
        match write(memory) {
            Ok(written) if written.as_ptr() == start && written.len() == len => {
                self.advance(len, left);
                Some(Ok(()))
            }
            Ok(_) => {
                self.fail(len as u64);
                Some(Ok(()))
            }
            Err(e) => Some(Err(e)),
        }
    }

    /// Passes the next `len` bytes, or as many as there are left, as unreadable.
    ///
    /// Their folios do not become up to date.
    pub(crate) fn fail(&mut self, mut len: u64) {
        while len > 0 {
            let Some((_, _, left)) = self.at_cursor() else {
                return;
            };
            let bytes = left.min(usize::try_from(len).unwrap_or(usize::MAX));
            // INVARIANT: The bit is set before the cursor passes bytes that were not written.
            self.failed |= 1 << self.current.0;
            self.advance(bytes, left);
            len -= bytes as u64;
        }
    }

    /// Passes the next `len` bytes, or as many as there are left, as unreadable this time. The
    /// error, whose cause is not in the file, is returned to the reader.
    pub(crate) fn give_up(&mut self, len: u64, e: Error) {
        self.given_up = Some(e);
        self.fail(len);
    }

    /// Passes the next `len` bytes, or as many as there are left, as unreadable while folios are
    /// locked. [`ReadFolios::prepare`](super::ReadFolios::prepare) is called without folio locks,
    /// and the read is repeated.
    pub(crate) fn postpone(&mut self, len: u64) {
        self.postponed = true;
        self.fail(len);
    }

    /// Fills the next `len` bytes, or as many as there are left, from a file of the lower
    /// filesystem, beginning at its byte `offset`.
    ///
    /// # Errors
    ///
    /// Those of reading the file, and [`EIO`] if it ends too early. The cursor has passed the bytes
    /// that were filled before.
    pub(crate) fn fill_from(&mut self, file: &BackingFile, mut offset: u64, len: u64) -> Result {
        let end = self.cursor.saturating_add(len).min(self.end);
        while self.cursor < end {
            let mut vectors = [const { MaybeUninit::<bindings::bio_vec>::uninit() }; MAX_VECTORS];
            let (count, wanted) = self.describe(end, &mut vectors);
            let vectors = vectors.as_ptr().cast();
            // SAFETY: The first `count` vectors are initialised and describe `wanted` bytes of
            // folios that are locked by the run and not up to date: nobody else reads or writes
            // them.
            let read = unsafe { file.read_vectors(vectors, count, wanted, offset) }?;
            if read == 0 {
                return Err(EIO);
            }
            offset += read as u64;
            self.pass(read.min(wanted));
        }
        Ok(())
    }

    /// Describes the memory from the cursor to `end`, as far as there are vectors.
    ///
    /// Returns the number of vectors that are initialised, and of the bytes that they describe.
    fn describe(&self, end: u64, vectors: &mut [MaybeUninit<bindings::bio_vec>]) -> (usize, usize) {
        let mut count = 0;
        // The place of the cursor behind the vectors made so far.
        let (mut index, mut start) = self.current;
        let mut cursor = self.cursor;
        for vector in vectors {
            if cursor >= end || index >= self.count {
                break;
            }
            let Some(folio) = self.folios.get(index) else {
                break;
            };
            // SAFETY: By the type invariants, the first `count` folios are initialised and valid.
            let (folio, size) = unsafe {
                let folio = folio.assume_init();
                (folio, bindings::vfs_rs_folio_size(folio.as_ptr()))
            };
            let within = (cursor - start) as usize;
            let left = size - within;
            let bytes = left.min(usize::try_from(end - cursor).unwrap_or(usize::MAX));
            // SAFETY: The range is inside the folio, and the vector is written as a whole.
            unsafe {
                bindings::vfs_rs_bvec_set_folio(vector.as_mut_ptr(), folio.as_ptr(), bytes, within)
            };
            count += 1;
            cursor += bytes as u64;
            if bytes == left {
                index += 1;
                start = cursor;
            }
        }
        (count, (cursor - self.cursor) as usize)
    }

    /// Moves the cursor over bytes that were filled.
    fn pass(&mut self, mut bytes: usize) {
        while bytes > 0 {
            let Some((_, _, left)) = self.at_cursor() else {
                return;
            };
            let now = left.min(bytes);
            self.advance(now, left);
            bytes -= now;
        }
    }

    /// Returns true if bytes can only be read without folio locks.
    pub(super) fn is_postponed(&self) -> bool {
        self.postponed
    }

    /// Returns the error of bytes that another read may get.
    pub(super) fn error(&self) -> Option<Error> {
        self.given_up
    }

    /// Returns true if all of the folio of that index has been written.
    pub(super) fn is_filled(&self, index: usize) -> bool {
        self.current.0 > index && self.failed & (1 << index) == 0
    }

    /// Unlocks the folios. Those that have been filled become up to date.
    fn finish(&mut self) {
        // INVARIANT: The run has no folios from here on; each is unlocked once.
        for index in 0..core::mem::take(&mut self.count) {
            let filled = self.is_filled(index);
            if let Some(folio) = self.folios.get(index) {
                // SAFETY: By the type invariants, which held for `count` until the loop, the folio
                // is initialised and locked by the run. It becomes up to date only if all its bytes
                // have been written.
                unsafe { bindings::folio_end_read(folio.assume_init().as_ptr(), filled) };
            }
        }
    }
}

impl Drop for FolioRun<'_> {
    fn drop(&mut self) {
        self.finish();
    }
}

/// The maximum number of folios of a run.
const MAX_FOLIOS: usize = 32;

/// The maximum number of folios that are given to the lower filesystem in one call.
const MAX_VECTORS: usize = 16;

const _: () = assert!(MAX_FOLIOS <= u64::BITS as usize);
