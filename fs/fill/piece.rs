// SPDX-License-Identifier: GPL-2.0

//! Pieces: parts of a file that lie in one extent, and the open files that hold them.

use super::reader::FileReader;
use crate::{
    base::{fault::Fault, range::ByteRange, verify::Verify},
    codec::{
        chunk::{self, ChunkPart, Verification},
        context::ReadContext,
        digest,
        frame_cache::FrameCache,
        plan::BlobPart,
        raw, zstd,
    },
    io::{
        buffer::Source,
        pool::{Purpose, Workspace},
    },
    store::{blob::Blob, chunks::OpenChunk},
    vfs::{prelude::*, FolioRun},
};
use kernel::sync::Arc;
use puzzlefs_schema::{v4::ChunkRef, Chunk};

/// A part of a file that lies in one extent.
pub(super) struct Piece {
    /// The number of bytes.
    pub(super) len: u64,
    place: PiecePlace,
}

/// The place of a piece.
enum PiecePlace {
    Hole,
    Blob {
        chunk: Chunk,
        /// The range in the content of the blob.
        range: ByteRange,
        blob: Result<Arc<Blob>, Fault>,
    },
    Chunk {
        chunk: ChunkRef,
        /// The range in the content of the chunk.
        range: ByteRange,
        /// Set if the chunk holds other content than that of the extent.
        is_shared: bool,
        /// The open chunk, and the verification that it needs: the latter does not change while
        /// the piece is read.
        open: Result<(OpenChunk, Verification), Fault>,
    },
}

impl Piece {
    /// Makes a piece of zeros.
    pub(super) fn hole(len: u64) -> Self {
        Self {
            len,
            place: PiecePlace::Hole,
        }
    }

    /// Makes a piece of a chunk of version 3, from an offset in the chunk on.
    pub(super) fn of_blob(
        chunk: Chunk,
        within: u64,
        len: u64,
        blob: Result<Arc<Blob>, Fault>,
    ) -> Self {
        let range = ByteRange {
            offset: chunk.blob_offset.saturating_add(within),
            len,
        };
        Self {
            len,
            place: PiecePlace::Blob { chunk, range, blob },
        }
    }

    /// Makes a piece of a chunk of version 4: a range of its content, which lies in an extent of
    /// `extent_len` bytes.
    pub(super) fn of_chunk(
        reader: &FileReader<'_>,
        chunk: ChunkRef,
        range: ByteRange,
        extent_len: u64,
        open: Result<OpenChunk, Fault>,
    ) -> Self {
        let open = open.map(|open| {
            let verification = Verification::of(&chunk, &open, reader.verify);
            (open, verification)
        });
        Self {
            len: range.len,
            place: PiecePlace::Chunk {
                chunk,
                range,
                is_shared: extent_len < u64::from(chunk.content_len()),
                open,
            },
        }
    }

    /// Returns the fault of opening the file, if that failed.
    pub(super) fn fault(&self) -> Option<Fault> {
        match &self.place {
            PiecePlace::Hole => None,
            PiecePlace::Blob { blob, .. } => blob.as_ref().err().copied(),
            PiecePlace::Chunk { open, .. } => open.as_ref().err().copied(),
        }
    }

    /// Returns the part of the open file; `None` for a hole.
    ///
    /// # Errors
    ///
    /// The fault of opening the file.
    pub(super) fn part(&self, reader: &FileReader<'_>) -> Result<Option<StoredPart<'_>>, Fault> {
        if let Some(fault) = self.fault() {
            return Err(fault);
        }
        Ok(match &self.place {
            PiecePlace::Hole | PiecePlace::Blob { blob: Err(_), .. } => None,
            PiecePlace::Chunk { open: Err(_), .. } => None,
            PiecePlace::Blob {
                chunk,
                range,
                blob: Ok(blob),
            } => Some(StoredPart::Blob(BlobPart {
                blob,
                chunk,
                verified: reader.verifies_blobs(),
                range: *range,
            })),
            PiecePlace::Chunk {
                chunk,
                range,
                is_shared,
                open: Ok((open, verification)),
            } => Some(StoredPart::Chunk(ChunkPart {
                open,
                chunk,
                verification: *verification,
                range: *range,
                is_shared: *is_shared,
            })),
        })
    }

    /// Drops the pages of the piece's file that the lower filesystem has cached and nobody uses.
    pub(super) fn forget_cached(&self) {
        match &self.place {
            PiecePlace::Blob { blob: Ok(blob), .. } => blob.file().forget_cached(),
            PiecePlace::Chunk {
                open: Ok((open, _)),
                ..
            } => open.blob.file().forget_cached(),
            _ => {}
        }
    }

    /// Counts and logs that the piece cannot be read, unless the task only gave up, and closes its
    /// file.
    pub(super) fn complain(&self, reader: &FileReader<'_>, offset: u64, fault: Fault) {
        match &self.place {
            PiecePlace::Hole => {}
            PiecePlace::Blob { chunk, .. } => reader.complain(&chunk.blob, offset, fault),
            PiecePlace::Chunk { chunk, open, .. } => {
                let file = open.as_ref().ok().map(|(open, _)| open.blob.digest());
                reader.complain_chunk(chunk.digest(), file, offset, fault)
            }
        }
    }
}

/// The part of an open file that a piece needs.
#[derive(Clone, Copy)]
pub(super) enum StoredPart<'a> {
    Blob(BlobPart<'a>),
    Chunk(ChunkPart<'a>),
}

impl<'a> StoredPart<'a> {
    /// Returns the file as buffers know it.
    pub(super) fn source(&self) -> Source<'a> {
        match self {
            Self::Blob(part) => part.blob.source(),
            Self::Chunk(part) => part.open.blob.source(),
        }
    }

    /// Returns the range to read into a buffer before the part is decoded, if there is one.
    pub(super) fn buffer_range(&self, cache: &FrameCache) -> Option<ByteRange> {
        match self {
            Self::Blob(part) => part.buffer_range(cache),
            Self::Chunk(part) => part.buffer_range(cache),
        }
    }

    /// Notes that the part is about to be read, for what follows it in a pack to be prefetched.
    /// `is_edge` is set if the reader is at the start or at the end of a file.
    pub(super) fn advance(&self, context: ReadContext<'_>, is_edge: bool) {
        match self {
            // Other files are in other blobs.
            Self::Blob(_) => {}
            Self::Chunk(part) => part.advance(context.statistics, is_edge),
        }
    }

    /// Starts reading the part into the page cache of the lower filesystem, if that caches it.
    pub(super) fn will_need(&self) {
        match self {
            Self::Blob(part) => part.will_need(),
            Self::Chunk(part) => part.will_need(),
        }
    }

    /// Returns the purpose of the workspace that the part is read with.
    pub(super) fn purpose(&self) -> Purpose {
        match self {
            Self::Blob(part) => part.purpose(),
            Self::Chunk(part) => part.purpose(),
        }
    }

    /// Returns true if the part cannot be read without a workspace.
    pub(super) fn needs_workspace(&self) -> bool {
        match self {
            Self::Blob(part) => part.verified || part.chunk.compressed,
            Self::Chunk(part) => part.reads_all(),
        }
    }

    /// Fills a run with the part.
    pub(super) fn fill(
        self,
        reader: &FileReader<'_>,
        workspace: Option<&mut Workspace>,
        run: &mut FolioRun<'_>,
    ) -> Result<(), Fault> {
        let context = reader.context;
        let part = match self {
            Self::Chunk(part) => return chunk::fill(context, workspace, part, run),
            Self::Blob(part) => part,
        };
        match (reader.verify, part.chunk.compressed, workspace) {
            (Verify::Digest, _, Some(workspace)) => digest::fill(context, workspace, part, run),
            (Verify::None | Verify::FsVerity, true, Some(workspace)) => {
                zstd::fill(context, workspace, part, run)
            }
            (Verify::None | Verify::FsVerity, false, workspace) => {
                raw::fill(context.statistics, workspace, part, run)
            }
            // The caller has waited for a workspace if a piece needs one.
            (_, _, None) => Err(Fault::Errno(EIO)),
        }
    }
}
