// SPDX-License-Identifier: GPL-2.0

//! Memory that files of the lower filesystem are read to, past its page cache if possible.
//!
//! No lock protects a buffer: its user borrows it mutably. Reads that are under way use its memory,
//! too; the invariants of [`ReadBuffer`] keep everybody else from it.

use super::{
    cached,
    credentials::CredentialGuard,
    direct::{DirectReads, Request},
    file::{BackingFile, PastCache, MAX_ALIGNMENT},
};
use crate::vfs::{compat::prelude::*, gfp::gfp_optional};
use core::ops::{Deref, DerefMut, Range};

/// Memory that files are read to. It is of the kernel's allocators, so that direct reads can use
/// its pages.
///
/// A task that is killed while it waits for direct reads leaves them behind, and with them the
/// buffer: until [`Self::settle`], no part of it can be got or read to.
///
/// # Invariants
///
/// While `direct` has reads in flight, nobody uses `memory`.
pub(crate) struct ReadBuffer {
    /// Dropped first: it waits for the reads in flight.
    direct: DirectReads,
    memory: Memory,
}

/// The memory of a buffer.
enum Memory {
    /// Contiguous if possible. The kernel rounds its size up to a power of two.
    Contiguous(KVVec<u8>),
    /// Of as many pages as its size needs.
    Pages(VVec<u8>),
}

impl Deref for Memory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Contiguous(memory) => memory,
            Self::Pages(memory) => memory,
        }
    }
}

impl DerefMut for Memory {
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Contiguous(memory) => memory,
            Self::Pages(memory) => memory,
        }
    }
}

impl ReadBuffer {
    /// The memory of a buffer beyond that of its reads, in bytes: aligned reads cover a little more
    /// than the bytes that are wanted.
    pub(crate) const MARGIN: usize = 2 * MAX_ALIGNMENT;

    /// Makes a buffer for reads of up to `len` bytes.
    pub(crate) fn new(len: usize) -> Result<Self> {
        Ok(Self {
            direct: DirectReads::new()?,
            memory: Memory::Pages(VVec::zeroed(len + Self::MARGIN, GFP_KERNEL | __GFP_NOWARN)?),
        })
    }

    /// Makes a buffer for reads of up to `len` bytes, whose memory is contiguous if possible, with
    /// [`gfp_optional`].
    pub(crate) fn try_new(len: usize) -> Result<Self> {
        Ok(Self {
            direct: DirectReads::new()?,
            memory: Memory::Contiguous(KVVec::zeroed(len + Self::MARGIN, gfp_optional())?),
        })
    }

    /// Returns true if reads are under way that a killed task left behind.
    pub(crate) fn is_in_flight(&self) -> bool {
        self.direct.is_in_flight()
    }

    /// Waits until no read is under way.
    pub(crate) fn settle(&mut self) {
        self.direct.finish();
    }

    /// Returns a part of the memory, unless there are reads under way or no such part.
    fn part(&mut self, place: Range<usize>) -> Option<&mut [u8]> {
        if self.direct.is_in_flight() {
            return None;
        }
        self.memory.get_mut(place)
    }

    /// Returns the room that a read of `len` bytes takes, in bytes.
    fn room_for(len: usize) -> usize {
        (len + MAX_ALIGNMENT).next_multiple_of(MAX_ALIGNMENT)
    }

    /// Returns true if there is room for a read of `len` bytes from a place on.
    pub(crate) fn has_room(&self, at: usize, len: usize) -> bool {
        at.saturating_add(Self::room_for(len)) <= self.memory.len()
    }

    /// Returns the place of the next read, behind one that ends at a place.
    pub(crate) fn next_place(end: usize) -> usize {
        end.next_multiple_of(MAX_ALIGNMENT)
    }

    /// Does several reads at once, to places one behind the other from `at` on; `None` stands for
    /// no read.
    ///
    /// A read gets no place if there is no room for it, if it cannot be done past the page cache of
    /// the lower filesystem with one request, or if it fails.
    pub(crate) fn read_together(
        &mut self,
        at: usize,
        reads: &mut [Option<FileRead<'_>>; FileRead::MAX],
    ) {
        self.start(at, reads);
        // If the task is being killed, there are no results.
        self.direct.wait();
        for read in reads.iter_mut().flatten() {
            read.take_result(&self.direct);
        }
    }

    /// Starts several reads.
    fn start(&mut self, mut at: usize, reads: &mut [Option<FileRead<'_>>; FileRead::MAX]) {
        let mut requests = [Request::NONE; FileRead::MAX];
        let mut count = 0;
        let mut guard = None;
        for read in reads.iter_mut().flatten() {
            let Some((head, offset, memory)) = read.prepare(self, at) else {
                continue;
            };
            let Some(request) = requests.get_mut(count) else {
                break;
            };
            let file = read.file;
            *request = Request {
                file: file.as_ptr(),
                memory: memory.as_mut_ptr(),
                len: memory.len(),
                offset,
            };
            let place = at + head..at + head + read.len;
            at += memory.len().next_multiple_of(MAX_ALIGNMENT);
            read.state = ReadState::Requested {
                request: count,
                head,
                place,
            };
            guard.get_or_insert_with(|| CredentialGuard::new(file.credentials()));
            count += 1;
        }
        let requests = requests.get(..count).unwrap_or(&[]);
        if !requests.is_empty() {
            // SAFETY: The requests are of valid open files, and of parts of the buffer's memory
            // that do not overlap, and are of the kernel's allocators. By the type invariants
            // nobody uses the memory until the reads have ended.
            unsafe { self.direct.start(requests) };
        }
    }

    /// Copies bytes to a place in the memory. Returns false if there are reads under way or no such
    /// place.
    pub(crate) fn put(&mut self, at: usize, bytes: &[u8]) -> bool {
        let end = at.saturating_add(bytes.len());
        let Some(memory) = self.part(at..end) else {
            return false;
        };
        memory.copy_from_slice(bytes);
        true
    }

    /// Starts a direct read of a range of a file to the beginning of the buffer. Returns the place
    /// of the range, or `None` if the file is not read directly there, or there is no room.
    pub(super) fn start_one(
        &mut self,
        file: &BackingFile,
        offset: u64,
        len: usize,
    ) -> Option<Range<usize>> {
        let (head, offset, memory) = FileRead::new(file, offset, len).prepare(self, 0)?;
        let request = Request {
            file: file.as_ptr(),
            memory: memory.as_mut_ptr(),
            len: memory.len(),
            offset,
        };
        let _guard = CredentialGuard::new(file.credentials());
        // SAFETY: By the invariants of `BackingFile` the file is open for reading. The buffer's
        // memory is of the kernel's allocators, and by its invariants nobody uses it until the read
        // has ended.
        unsafe { self.direct.start(&[request]) };
        Some(head..head + len)
    }

    /// Waits for the read that [`Self::start_one`] has started; returns how much it has read, with
    /// the bytes before the range.
    ///
    /// # Errors
    ///
    /// That of the read; [`EINTR`] if this task is being killed.
    pub(super) fn wait(&self) -> Result<usize> {
        self.direct.wait();
        self.direct.result(0)
    }

    /// Returns true if no read is under way. Does not wait.
    pub(super) fn has_ended(&self) -> bool {
        self.direct.have_ended()
    }

    /// Returns a part of the memory, unless there are reads under way or no such part.
    pub(crate) fn get(&self, place: Range<usize>) -> Option<&[u8]> {
        if self.direct.is_in_flight() {
            return None;
        }
        self.memory.get(place)
    }
}

impl BackingFile {
    /// Reads `len` bytes from the file's byte `offset` on to a buffer, at `at` or a little behind
    /// it, past the page cache of the lower filesystem if possible. Returns the place, which is
    /// shorter at the file's end.
    ///
    /// # Errors
    ///
    /// Those of reading the file; [`EINTR`] if this task, or the previous user of the buffer, is
    /// being killed and leaves reads behind.
    pub(crate) fn read_to(
        &self,
        buffer: &mut ReadBuffer,
        at: usize,
        offset: u64,
        len: usize,
    ) -> Result<Range<usize>> {
        if !buffer.has_room(at, len) {
            return Err(EINVAL);
        }
        if buffer.is_in_flight() {
            return Err(EINTR);
        }
        let first = self.past_cache_now(offset, len as u64);
        let second = (first.is_some() && self.drops_behind()).then_some(PastCache::DropBehind);
        for how in [first, second].into_iter().flatten() {
            match self.read_past_cache(buffer, at, offset, len, how) {
                // The read would have to wait for a lock, or the lower filesystem reports only now
                // that it does not support this.
                Err(e) if e == EAGAIN || e == EINVAL || e == EOPNOTSUPP => {}
                result => return result,
            }
        }
        let mut done = 0;
        while done < len {
            let from = i64::try_from(offset.saturating_add(done as u64)).map_err(|_| EFBIG)?;
            match self.read(buffer, at + done..at + len, from, None)? {
                0 => break,
                read => done += read,
            }
        }
        Ok(at..at + done)
    }

    /// Reads the aligned bytes that cover a range; returns the place of the range in the buffer.
    fn read_past_cache(
        &self,
        buffer: &mut ReadBuffer,
        at: usize,
        offset: u64,
        len: usize,
        how: PastCache,
    ) -> Result<Range<usize>> {
        let alignment = match how {
            PastCache::Direct { alignment } => alignment,
            PastCache::DropBehind => 1,
        };
        let (head, start, size) = aligned(offset, len, alignment).ok_or(EFBIG)?;
        let wanted = head + len;
        let end = at.checked_add(size).ok_or(EINVAL)?;
        let memory = buffer.part(at..end).ok_or(EINVAL)?;
        if !is_aligned(memory.as_ptr().addr(), alignment) {
            return Err(EINVAL);
        }
        let mut done = 0;
        while done < size {
            let read = self.read(buffer, at + done..end, start + done as i64, Some(how))?;
            done += read;
            // The end of the file.
            if read == 0 || !is_aligned(done, alignment) {
                break;
            }
        }
        Ok(at + head.min(done)..at + wanted.min(done))
    }

    /// Reads into a part of a buffer, beginning at the file's byte `offset`. Returns how much was
    /// read, which is less than the part at the file's end or after an error.
    fn read(
        &self,
        buffer: &mut ReadBuffer,
        place: Range<usize>,
        offset: i64,
        past_cache: Option<PastCache>,
    ) -> Result<usize> {
        let memory = buffer.part(place).ok_or(EINVAL)?;
        let (address, len) = (memory.as_mut_ptr(), memory.len());
        let guard = CredentialGuard::new(self.credentials());
        let drop_behind = match past_cache {
            Some(PastCache::Direct { .. }) => {
                let request = Request {
                    file: self.as_ptr(),
                    memory: address,
                    len,
                    offset,
                };
                // SAFETY: By the invariants of `BackingFile` the file is open for reading. The
                // buffer's memory is of the kernel's allocators, and by its invariants nobody uses
                // it until the read has ended.
                unsafe { buffer.direct.start(&[request]) };
                drop(guard);
                buffer.direct.wait();
                return buffer.direct.result(0);
            }
            Some(PastCache::DropBehind) => true,
            None => false,
        };
        // SAFETY: By the invariants of `BackingFile` the file is open for reading. The memory is
        // borrowed from the buffer, and is of the kernel's allocators.
        unsafe { cached::read_buffer(self.as_ptr(), address, len, offset, drop_behind) }
    }
}

/// A read of a part of a file, one of several that are done at once.
pub(crate) struct FileRead<'a> {
    file: &'a BackingFile,
    offset: u64,
    len: usize,
    state: ReadState,
}

/// The state of a [`FileRead`].
enum ReadState {
    /// The read was not started, or has failed.
    NotDone,
    /// The read was started.
    Requested {
        /// The index of the direct read.
        request: usize,
        /// The number of bytes that are read before the wanted ones.
        head: usize,
        /// The place of the wanted bytes in the buffer.
        place: Range<usize>,
    },
    /// The read was done, to this place in the buffer.
    Done(Range<usize>),
}

impl<'a> FileRead<'a> {
    /// The maximum number of reads that are done at once.
    pub(crate) const MAX: usize = DirectReads::MAX;

    /// Plans a read of `len` bytes from the file's byte `offset` on.
    pub(crate) fn new(file: &'a BackingFile, offset: u64, len: usize) -> Self {
        Self {
            file,
            offset,
            len,
            state: ReadState::NotDone,
        }
    }

    /// Returns the room that the read takes in a buffer, in bytes.
    pub(crate) fn room(&self) -> usize {
        ReadBuffer::room_for(self.len)
    }

    /// Returns the place in the buffer of the bytes that were read, if all of them were.
    pub(crate) fn place(&self) -> Option<Range<usize>> {
        match &self.state {
            ReadState::Done(place) => Some(place.clone()),
            _ => None,
        }
    }

    /// Notes the result of a direct read.
    fn take_result(&mut self, direct: &DirectReads) {
        let ReadState::Requested {
            request,
            head,
            place,
        } = &self.state
        else {
            return;
        };
        let result = direct.result(*request);
        self.state = if result.is_ok_and(|result| result >= head + self.len) {
            ReadState::Done(place.clone())
        } else {
            ReadState::NotDone
        };
    }

    /// Returns the aligned read that covers this one: the number of bytes before the wanted ones,
    /// the offset in the file, and the memory from a place in a buffer on. Returns `None` if the
    /// file is not read directly, or there is no room.
    fn prepare<'b>(
        &self,
        buffer: &'b mut ReadBuffer,
        at: usize,
    ) -> Option<(usize, i64, &'b mut [u8])> {
        let PastCache::Direct { alignment } =
            self.file.past_cache_now(self.offset, self.len as u64)?
        else {
            return None;
        };
        let (head, start, size) = aligned(self.offset, self.len, alignment)?;
        let memory = buffer.part(at..at.checked_add(size)?)?;
        is_aligned(memory.as_ptr().addr(), alignment).then_some((head, start, memory))
    }
}

/// Returns the aligned read that covers a range of a file: the number of bytes before the range,
/// the offset in the file, and the number of bytes.
fn aligned(offset: u64, len: usize, alignment: usize) -> Option<(usize, i64, usize)> {
    let head = offset as usize & alignment.wrapping_sub(1);
    let start = i64::try_from(offset - head as u64).ok()?;
    let size = head.checked_add(len)?.checked_next_multiple_of(alignment)?;
    Some((head, start, size))
}

/// Returns true if a number is a multiple of an alignment, which is a power of two.
fn is_aligned(number: usize, alignment: usize) -> bool {
    number & alignment.wrapping_sub(1) == 0
}
