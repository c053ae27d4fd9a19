// SPDX-License-Identifier: GPL-2.0

//! Reads the bytes that follow in a pack before a reader needs them.
//!
//! The builder lays chunks out in the order in which they are likely to be read, so that a reader
//! of many files moves forward through a pack. [`Prefetch`] notices that, across files and mounts,
//! and keeps reads under way in front of each such reader. A range that was prefetched is used as
//! the stored bytes of a chunk, which are verified and decoded like those that a reader reads
//! itself. An error of a prefetch shows nowhere: the reader reads the range again.
//!
//! | event | prefetched from there on |
//! | --- | --- |
//! | a reader begins somewhere | [`PREFETCH_FIRST`] bytes, if most such bytes were needed before |
//! | it has used half of them | twice as many, up to [`PREFETCH_MAX`] |
//! | it leaves out more than [`PREFETCH_GAP`] bytes | as for a reader that begins |
//!
//! # Locking
//!
//! The spinlock `state` protects the readers' positions and the list of reads. Nothing is
//! allocated, read, waited for or dropped under it.

use crate::{
    base::{
        blob_id::BlobId,
        limits::{
            PREFETCHED_READS, PREFETCH_FIRST, PREFETCH_GAP, PREFETCH_KEPT, PREFETCH_MAX,
            PREFETCH_READ, PREFETCH_STREAMS,
        },
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

/// A reader that moves forward through a pack.
#[derive(Clone, Copy)]
struct Stream {
    blob: BlobId,
    /// The start of the bytes that the reader has used.
    start: u64,
    /// The end of these bytes.
    position: u64,
    /// The end of the bytes that were prefetched for it.
    prefetched: u64,
    /// The number of bytes to prefetch next.
    window: u64,
    /// Set until the reader uses a second range.
    is_new: bool,
    /// The time of the last use.
    used: u64,
}

impl Stream {
    /// Returns true if a range continues where the reader is.
    fn continues_at(&self, blob: BlobId, range: ByteRange) -> bool {
        // Several tasks can read what follows, one a little behind the other, and one can use a
        // part of a chunk after another.
        let from = self.position.saturating_sub(PREFETCH_READ);
        let ahead = PREFETCH_GAP.max(self.window / 2);
        let to = self.position.saturating_add(ahead);
        self.blob == blob && range.end() >= from && range.offset <= to
    }
}

/// The frequency with which readers needed the first bytes that were prefetched for them, lately.
///
/// While they seldom are, only every [`Self::PROBES`]th reader gets some.
struct Success {
    score: u32,
    skipped: u32,
}

impl Success {
    const MAX: u32 = 16;
    const PROBES: u32 = 16;

    fn note(&mut self, was_needed: bool) {
        self.score = if was_needed {
            (self.score + 1).min(Self::MAX)
        } else {
            self.score.saturating_sub(1)
        };
    }

    /// Returns true if it is worth to prefetch for a reader that has just begun.
    fn is_likely(&mut self) -> bool {
        self.skipped = (self.skipped + 1) % Self::PROBES;
        self.score > Self::MAX / 4 || self.skipped == 0
    }
}

/// The readers' positions, and the reads.
///
/// # Invariants
///
/// - `streams` has capacity for [`PREFETCH_STREAMS`] elements, and never has more.
/// - `reads` has capacity for [`PREFETCHED_READS`] elements, and never has more together with
///   `starting`.
struct State {
    clock: u64,
    success: Success,
    streams: KVec<Stream>,
    /// The oldest first.
    reads: KVec<Arc<PrefetchedRead>>,
    /// The number of places in `reads` that are reserved.
    starting: usize,
}

impl State {
    /// The number of ranges that readers use until one of them counts as gone.
    const PRESENT: u64 = 512;

    /// Notes that a reader uses a range. Returns the range to prefetch for it, if there is one.
    fn advance(&mut self, blob: BlobId, range: ByteRange) -> Option<ByteRange> {
        self.clock += 1;
        let mut streams = self.streams.iter_mut().enumerate();
        let continued = streams.find(|(_, stream)| stream.continues_at(blob, range));
        let Some((index, stream)) = continued else {
            return self.begin(blob, range);
        };
        stream.used = self.clock;
        if range.end() <= stream.position {
            return None;
        }
        if core::mem::take(&mut stream.is_new) {
            self.success.note(true);
        }
        stream.position = range.end();
        let from = stream.prefetched.max(stream.position);
        if from - stream.position > stream.window / 2 {
            return None;
        }
        // Not more than the reader has used.
        let used_bytes = stream.position - stream.start;
        let most = used_bytes.clamp(PREFETCH_FIRST, PREFETCH_MAX);
        stream.window = (2 * stream.window).clamp(PREFETCH_FIRST, most);
        let to = stream.position.saturating_add(stream.window);
        let next = self.unread(blob, from, to)?;
        if let Some(stream) = self.streams.get_mut(index) {
            stream.prefetched = next.end();
        }
        Some(next)
    }

    /// Returns the bytes from one offset to another, up to those where a reader has begun: the next
    /// directory, if directories are read in another order than that of their names.
    fn unread(&self, blob: BlobId, from: u64, to: u64) -> Option<ByteRange> {
        let others = self.streams.iter().filter(|other| other.blob == blob);
        let starts = others
            .map(|other| other.start)
            .filter(|start| *start >= from);
        let to = starts.fold(to, u64::min);
        let len = to.checked_sub(from).filter(|len| *len > 0)?;
        Some(ByteRange { offset: from, len })
    }

    /// Notes that no more was prefetched than up to an offset, in place of `end`.
    fn cut(&mut self, blob: BlobId, end: u64, offset: u64) {
        let mut streams = self.streams.iter_mut();
        if let Some(stream) = streams.find(|stream| stream.blob == blob && stream.prefetched == end)
        {
            stream.prefetched = offset.max(stream.position);
        }
    }

    /// Notes a reader that begins with a range, in place of the one that was quiet for longest.
    fn begin(&mut self, blob: BlobId, range: ByteRange) -> Option<ByteRange> {
        let window = if self.success.is_likely() {
            PREFETCH_FIRST
        } else {
            0
        };
        let next = self.unread(blob, range.end(), range.end().saturating_add(window));
        let stream = Stream {
            blob,
            start: range.offset,
            position: range.end(),
            prefetched: next.map_or(range.end(), ByteRange::end),
            window,
            is_new: true,
            used: self.clock,
        };
        if self.streams.len() < PREFETCH_STREAMS {
            // INVARIANT: There is room.
            let _ = self.streams.push_within_capacity(stream);
        } else if let Some(oldest) = self.streams.iter_mut().min_by_key(|stream| stream.used) {
            let replaced = core::mem::replace(oldest, stream);
            if replaced.is_new {
                self.success.note(false);
            }
        }
        next
    }

    fn find(&self, blob: BlobId, version: Version, offset: u64) -> Option<&Arc<PrefetchedRead>> {
        let mut reads = self.reads.iter().rev();
        reads.find(|read| read.has(blob, version, offset))
    }

    /// Takes out a read that has ended and that no reader is likely to need: one that a reader has
    /// left far behind, or if the list is full, one that lies in front of no present reader.
    fn take_unneeded(&mut self) -> Option<Arc<PrefetchedRead>> {
        let streams = || self.streams.iter();
        let is_far_behind = |read: &PrefetchedRead| {
            streams().any(|stream| {
                let distance = stream.position.checked_sub(read.range.end());
                stream.blob == read.blob
                    && distance.is_some_and(|by| (PREFETCH_KEPT..2 * PREFETCH_MAX).contains(&by))
            })
        };
        let is_in_front = |read: &PrefetchedRead| {
            streams().any(|stream| {
                stream.blob == read.blob
                    && stream.used + Self::PRESENT > self.clock
                    && (stream.position..stream.prefetched).contains(&read.range.offset)
            })
        };
        let far_behind = self.position_of_ended(is_far_behind);
        let index = if self.is_full() {
            far_behind.or_else(|| self.position_of_ended(|read| !is_in_front(read)))
        } else {
            far_behind
        };
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
            clock: 0,
            success: Success {
                score: Success::MAX / 2,
                skipped: 0,
            },
            streams: KVec::with_capacity(PREFETCH_STREAMS, GFP_KERNEL)?,
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
    /// is likely to be needed.
    pub(crate) fn advance(&self, open: OpenPack<'_>, statistics: &Statistics, range: ByteRange) {
        let size = open.file.size();
        let Some(next) = self.state.lock().advance(open.id, range) else {
            return;
        };
        let version = open.file.version();
        let mut from = next.offset;
        let end = next.end().min(size);
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
                self.state.lock().cut(open.id, next.end(), from);
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
