// SPDX-License-Identifier: GPL-2.0

//! Open blobs.

use super::{frame_table::FrameTable, verified_chunks::VerifiedChunks};
use crate::{
    base::{
        blob_id::BlobId,
        limits::{MAX_GAP, MAX_READ_AHEAD},
        range::ByteRange,
        statistics::Statistics,
    },
    io::{
        buffer::Source,
        prefetch::{OpenPack, Prefetch},
    },
    vfs::lower::BackingFile,
};
use kernel::{
    page::PAGE_SIZE,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc, SetOnce,
    },
};
use puzzlefs_schema::Digest;

/// An open blob.
pub(crate) struct Blob {
    file: BackingFile,
    id: BlobId,
    /// The name of the file.
    digest: Digest,
    /// The fs-verity digest, as it was when the blob was opened, if the lower filesystem checks
    /// reads against it.
    verity: Option<Digest>,
    /// The frames of a compressed blob, from their first use on.
    frame_table: SetOnce<Arc<FrameTable>>,
    /// The end of the chunk that was read last, to notice reads in order.
    read_end: Atomic<u64>,
    /// The chunks whose digests were checked, if the lower filesystem checks reads.
    verified_chunks: SetOnce<VerifiedChunks>,
    /// The bytes that were prefetched from the store.
    prefetch: Arc<Prefetch>,
}

impl Blob {
    /// Makes a blob of its open file, whose name is a digest.
    pub(crate) fn new(file: BackingFile, digest: &Digest, prefetch: Arc<Prefetch>) -> Self {
        Self {
            id: BlobId::new(),
            digest: *digest,
            verity: file.verity_digest().map(Digest::new),
            file,
            frame_table: SetOnce::new(),
            read_end: Atomic::new(u64::MAX),
            verified_chunks: SetOnce::new(),
            prefetch,
        }
    }

    /// Returns the identity of the blob.
    pub(crate) fn id(&self) -> BlobId {
        self.id
    }

    /// Returns the digest that is the name of the blob.
    pub(crate) fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Returns the size of the blob as it is stored, in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.file.size()
    }

    /// Returns the range of the whole blob, as it is stored.
    pub(crate) fn all(&self) -> ByteRange {
        ByteRange::first(self.size())
    }

    /// Returns the file of the blob.
    pub(crate) fn file(&self) -> &BackingFile {
        &self.file
    }

    /// Returns the blob as buffers know it.
    pub(crate) fn source(&self) -> Source<'_> {
        Source {
            id: self.id,
            file: &self.file,
            prefetch: &self.prefetch,
        }
    }

    /// Notes that a range of the pack is about to be used, and prefetches what follows if that is
    /// likely to be needed. `is_edge` is set if the reader is at the start or at the end of a file.
    pub(crate) fn advance(&self, statistics: &Statistics, range: ByteRange, is_edge: bool) {
        self.prefetch
            .advance(self.open_pack(), statistics, range, is_edge);
    }

    /// Prefetches a range of the pack that a reader is going to use, in whatever order.
    pub(crate) fn prefetch(&self, statistics: &Statistics, range: ByteRange) {
        self.prefetch.will_need(self.open_pack(), statistics, range);
    }

    fn open_pack(&self) -> OpenPack<'_> {
        OpenPack {
            id: self.id,
            digest: &self.digest,
            file: &self.file,
        }
    }

    /// Returns the fs-verity digest that the lower filesystem checks each page against.
    pub(crate) fn verity(&self) -> Option<&Digest> {
        self.verity.as_ref()
    }

    /// Returns the frames, if they were needed before.
    pub(crate) fn frame_table(&self) -> Option<&Arc<FrameTable>> {
        self.frame_table.as_ref()
    }

    /// Keeps the frames. If another thread was first, its table is equal.
    pub(crate) fn set_frame_table(&self, table: &Arc<FrameTable>) {
        self.frame_table.populate(table.clone());
    }

    /// Returns the range to read at once for a chunk that is read now.
    ///
    /// It is longer than the chunk if chunks are read in order through the page cache of the lower
    /// filesystem, and nothing stays there. What follows in other files is prefetched.
    pub(crate) fn around(&self, stored: ByteRange) -> ByteRange {
        let before = self.read_end.load(Relaxed);
        self.read_end.store(stored.end(), Relaxed);
        let is_next = stored.offset >= before && stored.offset - before <= MAX_GAP;
        let rest = self.size().saturating_sub(stored.offset);
        let around = ByteRange {
            len: rest.min(MAX_READ_AHEAD).max(stored.len),
            ..stored
        };
        if is_next && self.file.is_range_dropped_behind(around.offset, around.len) {
            around
        } else {
            stored
        }
    }

    /// Returns true if the bytes of a range are known to have a digest, and cannot change.
    pub(crate) fn has_verified(&self, digest: &Digest, stored: ByteRange) -> bool {
        let chunks = self.verified_chunks.as_ref();
        chunks.is_some_and(|chunks| chunks.has(digest, stored))
    }

    /// Notes that the bytes of a range have a digest. Does nothing if the lower filesystem does not
    /// guarantee that they keep it, or there is no memory.
    pub(crate) fn set_verified(&self, digest: &Digest, stored: ByteRange) {
        if self.verity.is_none() {
            return;
        }
        if self.verified_chunks.as_ref().is_none() {
            if let Ok(chunks) = VerifiedChunks::new(self.size()) {
                // Another thread may be first.
                self.verified_chunks.populate(chunks);
            }
        }
        if let Some(chunks) = self.verified_chunks.as_ref() {
            chunks.add(digest, stored);
        }
    }

    /// Returns the memory that the open blob takes, in pages.
    pub(super) fn pages(&self) -> usize {
        let table = self.frame_table.as_ref().map_or(0, |table| table.memory());
        let verified = self.verified_chunks.as_ref();
        1 + (table + verified.map_or(0, VerifiedChunks::memory)) / PAGE_SIZE
    }
}
