// SPDX-License-Identifier: GPL-2.0

//! The policy how much of a blob is read.
//!
//! | blob | bytes that are read for a part of its content |
//! | --- | --- |
//! | verified as a whole | all |
//! | small, holds other files, and the lower filesystem does not cache it | all |
//! | raw | the part |
//! | compressed | the frames that the part is in |
//!
//! A blob is small if it has at most [`MAX_READ_WHOLE`] bytes. The other files in a small blob are
//! likely to be read next, and only the reader's buffer keeps the bytes that were read.

use super::frame_cache::{FrameCache, FrameName};
use crate::{
    base::{limits::MAX_READ_WHOLE, range::ByteRange, trace::TracedChunk},
    io::pool::Purpose,
    store::blob::Blob,
};
use puzzlefs_schema::{v4::Encoding, Chunk};

/// A part of the content of a blob, which a reader needs.
#[derive(Clone, Copy)]
pub(crate) struct BlobPart<'a> {
    pub(crate) blob: &'a Blob,
    /// The chunk that the part is in.
    pub(crate) chunk: &'a Chunk,
    /// Set if the blob is verified as a whole.
    pub(crate) verified: bool,
    /// The range in the content of the blob.
    pub(crate) range: ByteRange,
}

impl BlobPart<'_> {
    fn is_small(&self) -> bool {
        self.blob.size() <= MAX_READ_WHOLE
    }

    /// Returns true if the blob can hold other files than that of the chunk.
    fn is_shared(&self) -> bool {
        self.chunk.compressed || self.chunk.len < self.blob.size()
    }

    /// Returns true if a read leaves nothing in the page cache of the lower filesystem.
    fn is_read_past_cache(&self) -> bool {
        self.blob.file().is_read_past_cache()
    }

    /// Returns true if the whole blob is read.
    fn reads_all(&self) -> bool {
        self.verified || (self.is_shared() && self.is_small() && self.is_read_past_cache())
    }

    /// Returns the range of the blob that is read, as it is stored; `None` if that is unknown until
    /// its frames are read. Frames at both ends that `cached` has are left out.
    fn stored(&self, cached: impl Fn(usize) -> bool) -> Option<ByteRange> {
        if self.reads_all() {
            return Some(self.blob.all());
        }
        if !self.chunk.compressed {
            return Some(self.range);
        }
        let Some(table) = self.blob.frame_table() else {
            // A small blob is read with its frames.
            return self.is_small().then(|| self.blob.all());
        };
        let mut frames = table.covering(self.range);
        while !frames.is_empty() && cached(frames.start) {
            frames.start += 1;
        }
        while !frames.is_empty() && cached(frames.end - 1) {
            frames.end -= 1;
        }
        let stored = table.stored(frames);
        (stored.len > 0).then_some(stored)
    }

    /// Returns the range to read at once for a range of the blob, which contains that.
    pub(crate) fn around(&self, stored: ByteRange) -> ByteRange {
        if self.reads_all() {
            self.blob.all()
        } else {
            stored
        }
    }

    /// Returns the range of the blob to read into a buffer before the part is decoded, if it is
    /// known and the lower filesystem does not cache it.
    pub(crate) fn buffer_range(&self, cache: &FrameCache) -> Option<ByteRange> {
        if !self.is_read_past_cache() {
            return None;
        }
        self.stored(|index| cache.has(self.frame_name(index)))
    }

    /// Starts reading the part into the page cache of the lower filesystem, if that caches it.
    pub(crate) fn will_need(&self) {
        if self.is_read_past_cache() {
            return;
        }
        if let Some(stored) = self.stored(|_| false) {
            self.blob.file().will_need(stored.offset, stored.len);
        }
    }

    /// Returns the purpose of the workspace that the part is read with.
    pub(crate) fn purpose(&self) -> Purpose {
        Purpose {
            blob: self.blob.id(),
            chunk: None,
            whole: self.reads_all(),
        }
    }

    /// Returns the blob as events name it, with a range of it that is used.
    pub(super) fn traced(&self, stored: ByteRange) -> TracedChunk<'_> {
        let encoding = if self.chunk.compressed {
            Encoding::Zstd
        } else {
            Encoding::Raw
        };
        TracedChunk {
            digest: &self.chunk.blob,
            file: self.blob.digest(),
            stored,
            encoding: Some(encoding),
        }
    }

    /// Returns the name of a frame of the blob.
    pub(crate) fn frame_name(&self, index: usize) -> FrameName {
        FrameName::Frame {
            blob: self.blob.id(),
            verified: self.verified,
            index,
        }
    }
}
