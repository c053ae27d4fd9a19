// SPDX-License-Identifier: GPL-2.0

//! Buffers that blobs are read into, past the page cache of the lower filesystem.

use super::prefetch::{Prefetch, PrefetchedRead};
use crate::{
    base::{
        blob_id::BlobId,
        fault::Fault,
        limits::{MAX_GAP, MAX_JOINED, MAX_STORED},
        range::ByteRange,
        statistics::Statistics,
        trace::{self, Origin, Start},
    },
    vfs::{
        lower::{BackingFile, FileRead, ReadBuffer, Version},
        prelude::*,
    },
};
use core::ops::Range;
use kernel::sync::Arc;
use puzzlefs_schema::Digest;

/// The largest number of parts of blobs that a buffer keeps.
const MAX_PARTS: usize = 16;

/// An open blob, as buffers know it.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) id: BlobId,
    pub(crate) file: &'a BackingFile,
    /// The bytes that were prefetched from the store.
    pub(crate) prefetch: &'a Prefetch,
}

/// The place of bytes that were read.
pub(crate) enum Place {
    /// A place in a buffer.
    Buffer(Range<usize>),
    /// A range of the file that was prefetched, which is inside that read.
    Prefetched(Arc<PrefetchedRead>, ByteRange),
}

/// A buffer, and the parts of blobs that were read into it last, as they are stored.
///
/// # Invariants
///
/// - Each of `parts` was read completely into its place, and the places do not overlap.
/// - No part reaches beyond `free`.
pub(crate) struct BlobBuffer {
    /// The size of the largest read, in bytes.
    room: usize,
    memory: ReadBuffer,
    /// Never grows beyond its capacity, [`MAX_PARTS`].
    parts: KVec<BufferedPart>,
    free: usize,
    /// The source of the bytes that [`Self::read_place`] has returned last.
    origin: Origin,
}

/// A part of a blob in a buffer.
///
/// It is used only while the file is unchanged, unless it was verified.
struct BufferedPart {
    blob: BlobId,
    version: Version,
    range: ByteRange,
    /// The offset in the buffer.
    at: usize,
    /// The digest of the blob or chunk, if the part is all of it and was verified.
    verified: Option<Digest>,
}

impl BufferedPart {
    /// Returns the place in the buffer.
    fn place(&self) -> Range<usize> {
        self.at..self.at.saturating_add(self.range.len as usize)
    }
}

/// A part of a blob, one of several that are read at once.
#[derive(Clone, Copy)]
struct PlannedRead<'a> {
    source: Source<'a>,
    version: Version,
    range: ByteRange,
}

impl<'a> PlannedRead<'a> {
    /// Has the read cover a range of a blob, if it does already or the range follows it.
    fn cover(&mut self, blob: BlobId, range: ByteRange) -> bool {
        if self.source.id != blob {
            return false;
        }
        if self.range.place_of(range).is_some() {
            return true;
        }
        let joined = self.range.joined(range, MAX_GAP);
        let joined = joined.filter(|joined| joined.len <= MAX_JOINED);
        self.range = joined.unwrap_or(self.range);
        joined.is_some()
    }

    fn to_read(self) -> FileRead<'a> {
        let ByteRange { offset, len } = self.range;
        FileRead::new(self.source.file, offset, len as usize)
    }
}

type PlannedReads<'a> = [Option<PlannedRead<'a>>; FileRead::MAX];

/// Notes that planned reads were done together, since a start.
#[inline(always)]
fn trace_reads(start: Start, planned: &PlannedReads<'_>) {
    trace::read(start, planned.iter().flatten().map(|read| read.range.len));
}

impl BlobBuffer {
    /// Makes an empty buffer for reads of up to `room` bytes.
    pub(crate) fn new(room: usize) -> Result<Self> {
        // INVARIANT: There are no parts.
        Ok(Self {
            room,
            memory: ReadBuffer::new(room)?,
            parts: KVec::with_capacity(MAX_PARTS, GFP_KERNEL)?,
            free: 0,
            origin: Origin::Buffer,
        })
    }

    /// Returns the size of the largest read, in bytes.
    pub(crate) fn room(&self) -> usize {
        self.room
    }

    /// Returns true if the buffer holds a part of a blob, or the wanted one if that is given.
    pub(super) fn holds(&self, blob: BlobId, wanted: Option<ByteRange>) -> bool {
        let has = |range: ByteRange| wanted.is_none_or(|wanted| range.place_of(wanted).is_some());
        self.parts
            .iter()
            .any(|part| part.blob == blob && has(part.range))
    }

    /// Returns true if the buffer holds nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Returns the offset in the buffer of a range of a blob, if it is there.
    fn find(&self, blob: BlobId, version: Version, wanted: ByteRange) -> Option<usize> {
        self.parts
            .iter()
            .filter(|part| part.blob == blob && part.version == version)
            .find_map(|part| Some(part.at + part.range.place_of(wanted)?))
    }

    /// Returns all of the blob or chunk of a digest, if it is there and was verified.
    pub(crate) fn verified(&self, wanted: &Digest) -> Option<&[u8]> {
        self.memory.get(self.verified_part(wanted)?.place())
    }

    /// Returns the place of all of the blob or chunk of a digest, if it is there and was verified.
    pub(crate) fn verified_place(&self, wanted: &Digest) -> Option<Place> {
        Some(Place::Buffer(self.verified_part(wanted)?.place()))
    }

    fn verified_part(&self, wanted: &Digest) -> Option<&BufferedPart> {
        let mut parts = self.parts.iter();
        parts.find(|part| part.verified.as_ref() == Some(wanted))
    }

    /// Notes that the bytes at a place are all of the blob or chunk of a digest. Does nothing if
    /// they were prefetched.
    pub(crate) fn set_verified(&mut self, place: &Place, digest: &Digest) {
        let Place::Buffer(place) = place else {
            return;
        };
        let mut parts = self.parts.iter_mut();
        if let Some(part) = parts.find(|part| part.place() == *place) {
            part.verified = Some(*digest);
        }
    }

    /// Returns the bytes at a place that [`Self::read_place`] has returned last.
    pub(crate) fn get<'a>(&'a self, place: &'a Place) -> Result<&'a [u8], Fault> {
        match place {
            Place::Buffer(place) => self.memory.get(place.clone()).ok_or(Fault::TooShort),
            Place::Prefetched(read, range) => Ok(read.get(*range)?),
        }
    }

    /// Returns the source of the bytes that [`Self::read_place`] has returned last.
    pub(crate) fn origin(&self) -> Origin {
        self.origin
    }

    /// Checks that no task left reads behind.
    ///
    /// # Errors
    ///
    /// [`EINTR`] if one did, because it is being killed.
    pub(super) fn check_settled(&self) -> Result {
        if self.memory.is_in_flight() {
            Err(EINTR)
        } else {
            Ok(())
        }
    }

    /// Waits until reads that a task left behind have ended. Empties the buffer.
    pub(super) fn settle(&mut self) {
        self.memory.settle();
        self.clear();
    }

    /// Empties the buffer.
    pub(crate) fn clear(&mut self) {
        // INVARIANT: There are no parts.
        self.parts.clear();
        self.free = 0;
    }

    /// Returns the place of the next read of `len` bytes. Empties the buffer if it has no room.
    fn make_room(&mut self, len: usize) -> usize {
        if self.parts.len() >= MAX_PARTS || !self.memory.has_room(self.free, len) {
            self.clear();
        }
        self.free
    }

    /// Keeps a part that was read completely.
    fn keep(&mut self, blob: BlobId, version: Version, range: ByteRange, at: usize) {
        let part = BufferedPart {
            blob,
            version,
            range,
            at,
            verified: None,
        };
        // INVARIANT: The caller has read the part. Reads go to `free`, behind all other parts.
        self.free = ReadBuffer::next_place(part.place().end);
        if self.parts.push_within_capacity(part).is_err() {
            self.clear();
        }
    }

    /// Returns the place of a range of a blob, which is read if it is neither in the buffer nor
    /// prefetched.
    ///
    /// Reads all of `around`, which contains it, unless that fails.
    pub(crate) fn read_place(
        &mut self,
        source: Source<'_>,
        statistics: &Statistics,
        wanted: ByteRange,
        around: ByteRange,
    ) -> Result<Place, Fault> {
        self.check_settled()?;
        let version = source.file.version();
        if let Some(at) = self.find(source.id, version, wanted) {
            self.origin = Origin::Buffer;
            return Ok(Place::Buffer(at..at.saturating_add(wanted.len as usize)));
        }
        if let Some(place) = self.prefetched(source, version, wanted)? {
            statistics.bytes_read.add(wanted.len);
            self.origin = Origin::Prefetched;
            return Ok(place);
        }
        let place = around.place_of(wanted).ok_or(Fault::TooShort)?;
        let at = match self.read_range(source, statistics, version, around) {
            // The unreadable bytes may be outside the range that the caller needs.
            Err(fault @ Fault::Errno(_))
                if around.len > wanted.len && fault.passing().is_none() =>
            {
                self.read_range(source, statistics, version, wanted)?.start
            }
            read => read?.start + place,
        };
        self.origin = Origin::Read;
        Ok(Place::Buffer(at..at.saturating_add(wanted.len as usize)))
    }

    /// Returns the place of a range that was prefetched, once it has been read; `None` if it was
    /// not, or cannot be read. A range that several reads have is copied to the buffer.
    ///
    /// # Errors
    ///
    /// [`EINTR`] if the task is being killed.
    fn prefetched(
        &mut self,
        source: Source<'_>,
        version: Version,
        wanted: ByteRange,
    ) -> Result<Option<Place>, Fault> {
        let Source { id, prefetch, .. } = source;
        let Some(first) = prefetch.find(id, version, wanted.offset) else {
            return Ok(None);
        };
        if first.has_all(wanted) {
            let is_read = prefetch.wait_for(&first, wanted)?.is_some();
            return Ok(is_read.then_some(Place::Prefetched(first, wanted)));
        }
        if wanted.len > self.room as u64 || !prefetch.has(id, version, wanted) {
            return Ok(None);
        }
        let at = self.make_room(wanted.len as usize);
        let mut end = at;
        let mut has_room = true;
        let left = prefetch.give(id, version, wanted, |bytes| {
            has_room &= self.memory.put(end, bytes);
            end += bytes.len();
        })?;
        if left.len > 0 || !has_room {
            return Ok(None);
        }
        self.keep(id, version, wanted, at);
        Ok(Some(Place::Buffer(at..at + wanted.len as usize)))
    }

    /// Reads a range of a blob to a free place in the buffer.
    fn read_range(
        &mut self,
        source: Source<'_>,
        statistics: &Statistics,
        version: Version,
        range: ByteRange,
    ) -> Result<Range<usize>, Fault> {
        let len = usize::try_from(range.len)
            .ok()
            .filter(|len| *len <= self.room)
            .ok_or(Fault::TooLarge)?;
        let at = self.make_room(len);
        let place = source
            .file
            .read_to(&mut self.memory, at, range.offset, len)?;
        if place.len() < len {
            return Err(Fault::TooShort);
        }
        statistics.bytes_read.add(range.len);
        self.keep(source.id, version, range, place.start);
        Ok(place)
    }

    /// Plans the first reads of ranges that are not in the buffer, in place of an earlier plan.
    ///
    /// Ranges that follow each other in a blob become one read: the chunks of a file do in its
    /// pack.
    fn plan<'a>(
        &self,
        wanted: impl Iterator<Item = (Source<'a>, ByteRange)>,
        planned: &mut PlannedReads<'a>,
        reads: &mut [Option<FileRead<'a>>; FileRead::MAX],
    ) {
        planned.fill(None);
        let mut count = 0;
        for (source, range) in wanted.filter(|(_, range)| range.len <= MAX_STORED as u64) {
            let version = source.file.version();
            let mut earlier = planned.iter_mut().flatten();
            let is_covered = self.find(source.id, version, range).is_some()
                || source.prefetch.has(source.id, version, range)
                || earlier.any(|earlier| earlier.cover(source.id, range));
            if let Some(free) = planned.get_mut(count).filter(|_| !is_covered) {
                *free = Some(PlannedRead {
                    source,
                    version,
                    range,
                });
                count += 1;
            }
        }
        for (read, planned) in reads.iter_mut().zip(planned) {
            *read = planned.map(PlannedRead::to_read);
        }
    }

    /// Reads ranges of blobs that are needed next, as many as there is room for and all at once.
    ///
    /// Skips reads that would leave pages in the page cache of the lower filesystem. Skipped and
    /// failed ranges are read again when they are needed, and errors show then.
    // Not inlined, because the decoders would then run on top of its arrays on the stack.
    #[inline(never)]
    pub(crate) fn read_together<'a>(
        &mut self,
        statistics: &Statistics,
        wanted: impl Iterator<Item = (Source<'a>, ByteRange)> + Clone,
    ) {
        let mut planned = [const { None }; FileRead::MAX];
        let mut reads = [const { None }; FileRead::MAX];
        self.plan(wanted.clone(), &mut planned, &mut reads);
        let needed = reads.iter().flatten().map(FileRead::room).sum();
        let added = reads.iter().flatten().count();
        if self.parts.len() + added > MAX_PARTS || !self.memory.has_room(self.free, needed) {
            // What was there has to be read again, too.
            self.clear();
            self.plan(wanted, &mut planned, &mut reads);
        }
        let start = Start::of_read();
        self.memory.read_together(self.free, &mut reads);
        trace_reads(start, &planned);
        for (planned, read) in planned.iter().zip(&reads) {
            let place = read.as_ref().and_then(FileRead::place);
            if let (Some(planned), Some(place)) = (planned, place) {
                statistics.bytes_read.add(planned.range.len);
                self.keep(
                    planned.source.id,
                    planned.version,
                    planned.range,
                    place.start,
                );
            }
        }
    }
}
