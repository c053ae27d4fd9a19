// SPDX-License-Identifier: GPL-2.0

//! Reads the bytes that follow in a pack before a reader needs them.
//!
//! The builder lays chunks out in the order in which they are likely to be read, so that a reader
//! of many files moves forward through a pack. [`Prefetch`] notices that, across files and mounts,
//! and keeps reads under way in front of each such reader. A range that was prefetched is used as
//! the stored bytes of a chunk, which are verified and decoded like those that a reader reads
//! itself. An error of a prefetch shows nowhere: the reader reads the range again.
//!
//! [`Streams`] chooses the bytes to prefetch for a reader that moves forward.
//! [`Prefetch::will_need`] reads all of a program or a library that is mapped.
//!
//! # Locking
//!
//! The spinlock `state` protects the readers' positions and the list of reads. Nothing is
//! allocated, read, waited for or dropped under it.

use super::streams::Streams;
use crate::{
    base::{
        blob_id::BlobId,
        limits::{PREFETCHED_READS, PREFETCH_READ},
        range::ByteRange,
        statistics::Statistics,
        trace,
    },
    vfs::{
        gfp_optional,
        lower::{BackingFile, ReadBuffer, StartedRead, Version},
        prelude::*,
        Shrink,
    },
};
use kernel::{
    new_spinlock,
    page::PAGE_SIZE,
    sync::{Arc, SpinLock, UniqueArc},
};
use puzzlefs_schema::Digest;

/// An open pack.
#[derive(Clone, Copy)]
pub(crate) struct OpenPack<'a> {
    pub(crate) id: BlobId,
    /// The name of the pack.
    pub(crate) digest: &'a Digest,
    pub(crate) file: &'a BackingFile,
}

/// A range of a pack that is being read, or was.
pub(crate) struct PrefetchedRead {
    blob: BlobId,
    version: Version,
    range: ByteRange,
    read: StartedRead,
}

impl PrefetchedRead {
    /// Makes a read that is not started yet. Fails before memory gets scarce.
    fn new(blob: BlobId, version: Version) -> Result<Pin<UniqueArc<Self>>> {
        let buffer = ReadBuffer::try_new(PREFETCH_READ as usize)?;
        let this = Self {
            blob,
            version,
            range: ByteRange::first(0),
            read: StartedRead::new(buffer),
        };
        Ok(UniqueArc::new(this, gfp_optional())?.into())
    }

    /// Starts to read a range, in place of the one before. Returns false if that is not possible.
    fn start(&mut self, open: OpenPack<'_>, version: Version, range: ByteRange) -> bool {
        self.blob = open.id;
        self.version = version;
        self.range = range;
        self.read.start(open.file, range.offset, range.len as usize)
    }

    fn has(&self, blob: BlobId, version: Version, offset: u64) -> bool {
        let range = self.range;
        self.blob == blob
            && self.version == version
            && (range.offset..range.end()).contains(&offset)
    }

    /// Returns true if this read has all of a range.
    pub(super) fn has_all(&self, wanted: ByteRange) -> bool {
        self.range.place_of(wanted).is_some()
    }

    /// Waits for the bytes of a range, or of its beginning if this read ends inside it.
    ///
    /// # Errors
    ///
    /// Those of [`StartedRead::wait`]; [`EIO`] if the range does not begin in this one.
    pub(super) fn get(&self, wanted: ByteRange) -> Result<&[u8]> {
        let bytes = self.read.wait()?;
        let start = wanted.offset.checked_sub(self.range.offset).ok_or(EIO)?;
        let end = start.saturating_add(wanted.len).min(self.range.len);
        bytes.get(start as usize..end as usize).ok_or(EIO)
    }
}

/// The readers' positions, and the reads.
///
/// # Invariants
///
/// `reads` has capacity for [`PREFETCHED_READS`] elements, and never has more together with
/// `starting`.
struct State {
    streams: Streams,
    /// The oldest first.
    reads: KVec<Arc<PrefetchedRead>>,
    /// The number of places in `reads` that are reserved.
    starting: usize,
}

impl State {
    /// Returns what no read has of a range, from there to its end.
    fn missing(&self, blob: BlobId, version: Version, range: ByteRange) -> ByteRange {
        let mut left = range;
        while left.len > 0 {
            let Some(read) = self.find(blob, version, left.offset) else {
                break;
            };
            // The read ends behind the offset: the loop ends.
            left = left.after(read.range.end() - left.offset);
        }
        left
    }

    fn find(&self, blob: BlobId, version: Version, offset: u64) -> Option<&Arc<PrefetchedRead>> {
        let mut reads = self.reads.iter().rev();
        reads.find(|read| read.has(blob, version, offset))
    }

    /// Takes out a read that has ended and that no reader is likely to need: one that a reader has
    /// left far behind, or if the list is full, one that lies in front of no present reader.
    fn take_unneeded(&mut self) -> Option<Arc<PrefetchedRead>> {
        let is_wanted = |read: &PrefetchedRead| self.streams.want(read.blob, read.range);
        let is_left = |read: &PrefetchedRead| self.streams.have_left(read.blob, read.range);
        let is_full = self.is_full();
        let left = self.position_of_ended(|read| is_left(read) && !is_wanted(read));
        let index = left.or_else(|| self.position_of_ended(|read| is_full && !is_wanted(read)));
        self.reads.remove(index?).ok()
    }

    /// Returns the index of the oldest read that has ended and fulfils a condition.
    fn position_of_ended(&self, is_wanted: impl Fn(&PrefetchedRead) -> bool) -> Option<usize> {
        let mut reads = self.reads.iter();
        reads.position(|read| is_wanted(read) && read.read.has_ended())
    }

    fn is_full(&self) -> bool {
        self.reads.len() + self.starting >= PREFETCHED_READS
    }

    /// Reserves a place in the list for a read that is about to start. Returns a read whose memory
    /// it can use, if there is one.
    ///
    /// # Errors
    ///
    /// [`EBUSY`] if all reads are under way.
    fn reserve(&mut self) -> Result<Option<Arc<PrefetchedRead>>> {
        let unneeded = self.take_unneeded();
        if self.is_full() {
            return Err(EBUSY);
        }
        // INVARIANT: There is room for one more.
        self.starting += 1;
        Ok(unneeded)
    }

    /// Uses a reserved place, or gives it back.
    fn settle(&mut self, started: Option<Arc<PrefetchedRead>>) {
        // INVARIANT: The place was counted, so that there is room.
        self.starting = self.starting.saturating_sub(1);
        if let Some(read) = started {
            let _ = self.reads.push_within_capacity(read);
        }
    }
}

/// The bytes that are prefetched from the packs of a store.
#[pin_data]
pub(crate) struct Prefetch {
    #[pin]
    state: SpinLock<State>,
}

impl Prefetch {
    /// Makes a store's state before anything is read.
    pub(crate) fn new() -> Result<Arc<Self>> {
        let state = State {
            streams: Streams::new()?,
            reads: KVec::with_capacity(PREFETCHED_READS, GFP_KERNEL)?,
            starting: 0,
        };
        Arc::pin_init(
            pin_init!(Self {
                state <- new_spinlock!(state, "puzzlefs_prefetch"),
            }),
            GFP_KERNEL,
        )
    }

    /// Notes that a reader is about to use a range of a pack, and starts to read what follows if it
    /// is likely to be needed. `is_edge` is set if the reader is at the start or at the end of a
    /// file.
    pub(crate) fn advance(
        &self,
        open: OpenPack<'_>,
        statistics: &Statistics,
        range: ByteRange,
        is_edge: bool,
    ) {
        let next = self.state.lock().streams.advance(open.id, range, is_edge);
        if let Some(next) = next {
            self.read(open, statistics, next);
        }
    }

    /// Starts to read a range of a pack that a reader is going to use, in whatever order.
    pub(crate) fn will_need(&self, open: OpenPack<'_>, statistics: &Statistics, range: ByteRange) {
        self.state.lock().streams.will_need(open.id, range);
        self.read(open, statistics, range);
    }

    /// Starts to read a range of a pack behind the bytes that are there already, as far as there is
    /// memory.
    fn read(&self, open: OpenPack<'_>, statistics: &Statistics, range: ByteRange) {
        let version = open.file.version();
        let next = self.state.lock().missing(open.id, version, range);
        let mut from = next.offset;
        let end = next.end().min(open.file.size());
        while from < end {
            // Reads that follow each other do not overlap if they end where pages do.
            let limit = from.saturating_add(PREFETCH_READ);
            let to = if limit < end {
                limit - limit % PAGE_SIZE as u64
            } else {
                end
            };
            let range = ByteRange {
                offset: from,
                len: to - from,
            };
            if !self.start(open, version, range) {
                // The reader reads the rest itself, or it is prefetched later.
                self.state.lock().streams.cut(open.id, next.end(), from);
                return;
            }
            statistics.bytes_prefetched.add(range.len);
            trace::prefetch(open.digest, range);
            from = to;
        }
    }

    /// Starts to read a range. Returns false if that is not possible.
    fn start(&self, open: OpenPack<'_>, version: Version, range: ByteRange) -> bool {
        if !open.file.is_range_read_directly(range.offset, range.len) {
            return false;
        }
        let Ok(unneeded) = self.state.lock().reserve() else {
            return false;
        };
        // Another task may still use it.
        let unneeded = unneeded.and_then(Arc::into_unique_or_drop);
        let read = match unneeded {
            Some(read) => Ok(read),
            None => PrefetchedRead::new(open.id, version),
        };
        let started = read.ok().and_then(|mut read| {
            let is_started = read.as_mut().get_mut().start(open, version, range);
            is_started.then(|| Arc::from(read))
        });
        let is_started = started.is_some();
        self.state.lock().settle(started);
        is_started
    }

    /// Returns the read that has the byte at an offset of a pack.
    pub(super) fn find(
        &self,
        blob: BlobId,
        version: Version,
        offset: u64,
    ) -> Option<Arc<PrefetchedRead>> {
        self.state.lock().find(blob, version, offset).cloned()
    }

    /// Returns true if all of a range of a pack was prefetched.
    pub(super) fn has(&self, blob: BlobId, version: Version, range: ByteRange) -> bool {
        let state = self.state.lock();
        let mut at = range.offset;
        while at < range.end() {
            // Each read ends behind the offset that it has: the loop ends.
            let Some(read) = state.find(blob, version, at) else {
                return false;
            };
            at = read.range.end();
        }
        true
    }

    /// Waits for the bytes of a range, or of its beginning if the read ends inside it. `None` if
    /// the read has failed, which is then forgotten.
    ///
    /// # Errors
    ///
    /// [`EINTR`] if the task is being killed.
    pub(super) fn wait_for<'a>(
        &self,
        read: &'a Arc<PrefetchedRead>,
        wanted: ByteRange,
    ) -> Result<Option<&'a [u8]>> {
        match read.get(wanted) {
            Ok(bytes) if !bytes.is_empty() => Ok(Some(bytes)),
            Err(EINTR) => Err(EINTR),
            _ => {
                self.remove(read);
                Ok(None)
            }
        }
    }

    /// Waits for the bytes of a range as far as they were prefetched, and gives them in order.
    /// Returns the rest of the range.
    ///
    /// # Errors
    ///
    /// [`EINTR`] if the task is being killed.
    pub(crate) fn give(
        &self,
        blob: BlobId,
        version: Version,
        range: ByteRange,
        mut take: impl FnMut(&[u8]),
    ) -> Result<ByteRange> {
        let mut left = range;
        while left.len > 0 {
            let Some(read) = self.find(blob, version, left.offset) else {
                break;
            };
            let Some(bytes) = self.wait_for(&read, left)? else {
                break;
            };
            take(bytes);
            // The bytes are not empty: the loop ends.
            left = left.after(bytes.len() as u64);
        }
        Ok(left)
    }

    fn remove(&self, failed: &Arc<PrefetchedRead>) {
        let _removed = {
            let mut state = self.state.lock();
            let mut reads = state.reads.iter();
            let index = reads.position(|read| Arc::ptr_eq(read, failed));
            // INVARIANT: Removal keeps the capacity.
            index.and_then(|index| state.reads.remove(index).ok())
        };
    }
}

/// Counts and frees the memory of reads that have ended, in pages.
impl Shrink for Prefetch {
    fn count(&self) -> usize {
        let state = self.state.lock();
        let ended = state.reads.iter().filter(|read| read.read.has_ended());
        ended.count().saturating_mul(PAGES)
    }

    fn shrink(&self, pages: usize) -> usize {
        let mut freed = 0;
        while freed < pages {
            let ended = {
                let mut state = self.state.lock();
                let index = state.position_of_ended(|_| true);
                // INVARIANT: Removal keeps the capacity.
                index.and_then(|index| state.reads.remove(index).ok())
            };
            if ended.is_none() {
                break;
            }
            freed += PAGES;
        }
        freed
    }
}

/// The memory of a read, in pages.
const PAGES: usize = PREFETCH_READ as usize / PAGE_SIZE;
