// SPDX-License-Identifier: GPL-2.0

//! Decodes single frames.

use super::{
    context::ReadContext,
    frame_cache::{FrameCache, FrameName},
};
use crate::{
    base::{
        fault::Fault,
        range::ByteRange,
        trace::{self, Start},
    },
    ports::{
        xxhash::xxh64,
        zstd_safe::{DCtx, WriteBuf},
    },
    store::frame_table::FrameTable,
    vfs::{prelude::*, FolioRun},
};
use core::ops::Range;
use puzzlefs_schema::v4::ChunkRef;

/// A part of the content of a frame, which a reader needs.
pub(super) struct FramePart {
    name: FrameName,
    /// The size of the frame's content.
    size: usize,
    /// The part in the frame's content.
    wanted: Range<usize>,
    checksum: Option<u32>,
}

impl FramePart {
    /// Returns the part of a frame that is in a range of the blob's content.
    pub(super) fn new(
        table: &FrameTable,
        index: usize,
        name: FrameName,
        content: ByteRange,
    ) -> Self {
        let frame = table.content(index);
        // A frame is not larger than `MAX_FRAME_SIZE`: the differences fit.
        let offset = |at: u64| (at.clamp(frame.offset, frame.end()) - frame.offset) as usize;
        Self {
            name,
            size: frame.len as usize,
            wanted: offset(content.offset)..offset(content.end()),
            checksum: table.checksum(index),
        }
    }

    /// Returns a part of the content of a chunk, which is one frame.
    pub(super) fn of_chunk(name: FrameName, chunk: &ChunkRef, content: ByteRange) -> Self {
        let size = chunk.content_len() as usize;
        // A chunk is not larger than `MAX_CHUNK_CONTENT`: the offsets fit.
        let offset = |at: u64| at.min(size as u64) as usize;
        Self {
            name,
            size,
            wanted: offset(content.offset)..offset(content.end()),
            checksum: None,
        }
    }

    /// Fills a run with the part, if the frame is in the cache. Returns true if it was.
    pub(super) fn fill_from(&self, cache: &FrameCache, run: &mut FolioRun<'_>) -> bool {
        let fill = |content: &[u8]| {
            run.fill_bytes(content.get(self.wanted.clone())?);
            Some(())
        };
        cache.with(self.name, fill).flatten().is_some()
    }

    /// Fills a run with the part, from the stored frame if it is not in the cache.
    ///
    /// Decodes directly to the folios, if the part is all of the frame and they are contiguous.
    pub(super) fn fill(
        &self,
        context: ReadContext<'_>,
        stored: &[u8],
        decoder: &mut DCtx,
        run: &mut FolioRun<'_>,
    ) -> Result<(), Fault> {
        if self.wanted.is_empty() || self.fill_from(context.frames, run) {
            return Ok(());
        }
        let decompressed = &context.statistics.bytes_decompressed;
        let size = self.size as u64;
        if self.wanted.len() == self.size {
            let filled =
                run.fill_in_place(self.size, |memory| self.decode(stored, decoder, memory));
            if let Some(result) = filled {
                decompressed.add(size);
                return result;
            }
        }
        let make = |content: &mut KVVec<u8>| {
            decompressed.add(size);
            self.decode(stored, decoder, content).map(drop)
        };
        let fill = |content: &[u8]| {
            run.fill_bytes(content.get(self.wanted.clone()).ok_or(Fault::FrameSize)?);
            Ok(())
        };
        context
            .frames
            .with_or_make(self.name, self.size, make, fill)
    }

    /// Fills a run with the part, of a frame that is stored raw. If that is not all of the frame,
    /// keeps the frame for the readers of other parts.
    pub(super) fn fill_raw(
        &self,
        context: ReadContext<'_>,
        content: &[u8],
        run: &mut FolioRun<'_>,
    ) -> Result<(), Fault> {
        let wanted = content.get(self.wanted.clone()).ok_or(Fault::TooShort)?;
        run.fill_bytes(wanted);
        if wanted.len() < content.len() {
            let make = |memory: &mut KVVec<u8>| {
                memory.clear();
                // The memory has room for the frame.
                Ok(memory.extend_from_slice(content, GFP_NOWAIT)?)
            };
            // Without memory, another reader reads it again.
            let _ = context
                .frames
                .with_or_make(self.name, self.size, make, |_| Ok(()));
        }
        Ok(())
    }

    /// Decompresses the frame, and checks its size and its checksum.
    fn decode<'b, W: WriteBuf + ?Sized>(
        &self,
        stored: &[u8],
        decoder: &mut DCtx,
        memory: &'b mut W,
    ) -> Result<&'b [u8], Fault> {
        let start = Start::of_decode();
        let decompressed = decoder.decompress(memory, stored);
        trace::decompressed(start, stored.len(), self.size);
        let content = decompressed.map_err(|_| Fault::Frame)?;
        if content.len() != self.size {
            return Err(Fault::FrameSize);
        }
        if self
            .checksum
            .is_some_and(|checksum| checksum != xxh64(content, 0) as u32)
        {
            return Err(Fault::Checksum);
        }
        Ok(content)
    }
}
