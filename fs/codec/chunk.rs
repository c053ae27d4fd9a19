// SPDX-License-Identifier: GPL-2.0

//! Chunks of version 4: verifies and decodes them, and fills folios with parts of their content.
//!
//! | chunk | bytes that are read for a part of its content |
//! | --- | --- |
//! | verified, or compressed | all |
//! | raw, not verified, small, with other files | all, if the lower filesystem does not cache it |
//! | raw and not verified | the part |
//!
//! If chunks are read in their order in a pack, more of the pack is read at once.
//!
//! A verified chunk of which only a part is needed is kept for the reader of another part: files
//! share chunks, and chunks do not end where requests do. It is then hashed once.
//!
//! The bytes that are used are those that were hashed, in the same buffer. A file that changes in
//! between therefore gives nothing that was not checked.

use super::{
    context::ReadContext,
    digest::has_digest,
    frame::FramePart,
    frame_cache::{FrameCache, FrameName},
    raw,
};
use crate::{
    base::{
        fault::Fault,
        limits::MAX_READ_WHOLE,
        range::ByteRange,
        statistics::Statistics,
        trace::{Origin, Start, TracedChunk},
        verify::Verify,
    },
    io::{
        buffer::{BlobBuffer, Place},
        pool::{Purpose, Workspace},
    },
    ports::zstd_safe::find_frame_compressed_size,
    store::chunks::OpenChunk,
    vfs::{prelude::*, FolioRun},
};
use puzzlefs_schema::{
    v4::{ChunkError, ChunkRef, Encoding},
    Digest,
};

/// The verification of a chunk that is read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verification {
    /// There is none.
    None,
    /// The digest has to be checked.
    Needed,
    /// The digest was checked, and the lower filesystem guarantees that the file does not change.
    Done,
}

impl Verification {
    /// Returns the verification that a chunk needs in a mode.
    pub(crate) fn of(chunk: &ChunkRef, open: &OpenChunk, verify: Verify) -> Self {
        let is_done = || open.blob.has_verified(chunk.digest(), open.stored);
        match verify {
            Verify::None => Self::None,
            Verify::FsVerity if is_done() => Self::Done,
            Verify::Digest | Verify::FsVerity => Self::Needed,
        }
    }
}

/// A part of the content of a chunk, which a reader needs.
#[derive(Clone, Copy)]
pub(crate) struct ChunkPart<'a> {
    /// The chunk, whose stored length is that of the reference.
    pub(crate) open: &'a OpenChunk,
    pub(crate) chunk: &'a ChunkRef,
    pub(crate) verification: Verification,
    /// The range in the content of the chunk.
    pub(crate) range: ByteRange,
    /// Set if the chunk holds other content than that of the file.
    pub(crate) is_shared: bool,
}

impl ChunkPart<'_> {
    fn is_raw(&self) -> bool {
        self.chunk.encoding() == Encoding::Raw
    }

    /// Returns true if the whole chunk is read.
    pub(crate) fn reads_all(&self) -> bool {
        !self.is_raw() || self.verification == Verification::Needed
    }

    /// Returns the range of the file that is decoded.
    fn wanted(&self) -> ByteRange {
        let stored = self.open.stored;
        if self.reads_all() {
            return stored;
        }
        ByteRange {
            offset: stored.offset.saturating_add(self.range.offset),
            ..self.range
        }
    }

    /// Returns the range of the file that is read at once for a part of it.
    fn around(&self, wanted: ByteRange) -> ByteRange {
        let stored = self.open.stored;
        // The other files in it are likely to be read next.
        if self.is_shared && stored.len <= MAX_READ_WHOLE && self.is_read_past_cache() {
            stored
        } else {
            wanted
        }
    }

    /// Returns true if a read leaves nothing in the page cache of the lower filesystem.
    fn is_read_past_cache(&self) -> bool {
        let ByteRange { offset, len } = self.wanted();
        let file = self.open.blob.file();
        file.is_range_read_past_cache(offset, len)
    }

    /// Returns the range of the file to read into a buffer before the part is decoded, if the lower
    /// filesystem does not cache it and its content is not kept already.
    pub(crate) fn buffer_range(&self, cache: &FrameCache) -> Option<ByteRange> {
        let is_needed = || !self.reads_all() || !cache.has(self.frame_name());
        (self.is_read_past_cache() && is_needed()).then(|| self.around(self.wanted()))
    }

    /// Notes that the part is about to be read, for what follows it in the pack to be prefetched.
    /// `is_edge` is set if the reader is at the start or at the end of a file.
    pub(crate) fn advance(&self, statistics: &Statistics, is_edge: bool) {
        self.open.blob.advance(statistics, self.wanted(), is_edge);
    }

    /// Starts reading the part into the page cache of the lower filesystem, if that caches it.
    pub(crate) fn will_need(&self) {
        if !self.is_read_past_cache() {
            let ByteRange { offset, len } = self.wanted();
            self.open.blob.file().will_need(offset, len);
        }
    }

    /// Returns the purpose of the workspace that the part is read with.
    pub(crate) fn purpose(&self) -> Purpose {
        Purpose {
            blob: self.open.blob.id(),
            chunk: Some(self.around(self.wanted())),
            whole: self.reads_all(),
        }
    }

    /// Returns the chunk as events name it, with the stored bytes that are used.
    fn traced(&self) -> TracedChunk<'_> {
        let encoding = Some(self.chunk.encoding());
        TracedChunk {
            stored: self.wanted(),
            ..traced(self.open, self.chunk.digest(), encoding)
        }
    }

    fn frame_name(&self) -> FrameName {
        if self.verification != Verification::None {
            return FrameName::VerifiedChunk(*self.chunk);
        }
        FrameName::Chunk {
            blob: self.open.blob.id(),
            chunk: *self.chunk,
        }
    }
}

/// Fills a run with a part of a chunk.
///
/// # Errors
///
/// [`Fault::Digest`] if the chunk is verified and its digest is another one; [`Fault::Chunk`],
/// [`Fault::Frame`] and [`Fault::FrameSize`] if it cannot be decoded; those of reading the file.
pub(crate) fn fill(
    context: ReadContext<'_>,
    workspace: Option<&mut Workspace>,
    part: ChunkPart<'_>,
    run: &mut FolioRun<'_>,
) -> Result<(), Fault> {
    let statistics = context.statistics;
    if !part.reads_all() {
        let around = |range| part.around(range);
        let blob = &part.open.blob;
        let start = Start::of_chunk();
        let origin = raw::fill_range(statistics, workspace, blob, part.wanted(), around, run)?;
        part.traced().came_from(origin, start);
        return Ok(());
    }
    let start = Start::of_chunk();
    let frame = FramePart::of_chunk(part.frame_name(), part.chunk, part.range);
    if frame.fill_from(context.frames, run) {
        part.traced().came_from(Origin::Cache, start);
        return Ok(());
    }
    // The caller has waited for a workspace.
    let Workspace { decoder, buffer } = workspace.ok_or(Fault::Errno(EIO))?;
    let place = if part.verification == Verification::Needed {
        let digest = part.chunk.digest();
        let encoding = Some(part.chunk.encoding());
        let place = read_verified(statistics, buffer, part.open, digest, encoding)?;
        part.open.blob.set_verified(digest, part.open.stored);
        place
    } else {
        read(statistics, buffer, part.open, part.traced())?
    };
    let stored = buffer.get(&place)?;
    if part.is_raw() {
        return frame.fill_raw(context, stored, run);
    }
    check_frame(part.chunk, stored)?;
    frame.fill(context, stored, decoder, run)
}

/// Returns a chunk as events name it.
fn traced<'a>(
    open: &'a OpenChunk,
    digest: &'a Digest,
    encoding: Option<Encoding>,
) -> TracedChunk<'a> {
    TracedChunk {
        digest,
        file: open.blob.digest(),
        stored: open.stored,
        encoding,
    }
}

/// Reads all stored bytes of a chunk, unless they are in the buffer.
// Inlined, so that its arguments are not on the stack twice.
#[inline(always)]
fn read(
    statistics: &Statistics,
    buffer: &mut BlobBuffer,
    open: &OpenChunk,
    traced: TracedChunk<'_>,
) -> Result<Place, Fault> {
    let OpenChunk { blob, stored, .. } = open;
    let around = blob.around(*stored);
    let start = Start::of_chunk();
    let place = buffer.read_place(blob.source(), statistics, *stored, around)?;
    traced.came_from(buffer.origin(), start);
    Ok(place)
}

/// Reads all stored bytes of a chunk, unless they are in the buffer, and checks their digest.
pub(super) fn read_verified(
    statistics: &Statistics,
    buffer: &mut BlobBuffer,
    open: &OpenChunk,
    digest: &Digest,
    encoding: Option<Encoding>,
) -> Result<Place, Fault> {
    let traced = traced(open, digest, encoding);
    let start = Start::of_chunk();
    if let Some(place) = buffer.verified_place(digest) {
        traced.came_from(Origin::Buffer, start);
        return Ok(place);
    }
    let place = read(statistics, buffer, open, traced)?;
    let is_right = has_digest(buffer.get(&place)?, digest);
    statistics.bytes_hashed.add(open.stored.len);
    if !is_right {
        // Otherwise the next reader would not read it again.
        buffer.clear();
        return Err(Fault::Digest);
    }
    buffer.set_verified(&place, digest);
    Ok(place)
}

/// Checks that the stored bytes of a compressed chunk are one frame of the kind that the format
/// allows. Whether it has as much content as it states, its decompression shows.
pub(super) fn check_frame(chunk: &ChunkRef, stored: &[u8]) -> Result<(), Fault> {
    chunk.check_frame(stored)?;
    let size = find_frame_compressed_size(stored).map_err(|_| Fault::Frame)?;
    if size == stored.len() {
        Ok(())
    } else {
        Err(Fault::Chunk(ChunkError::NotAFrame))
    }
}
