// SPDX-License-Identifier: MIT OR Apache-2.0

//! The data of files, of images of any format.

use crate::error::Result;
use crate::image::recent::Recent;
use crate::image::store_chunks::{MetadataBlock, StoreChunks};
use crate::image::v3::reader::Blobs;
use crate::image::v3::tree::{V3Inode, V3Tree};
use crate::model::extent::Extent;
use puzzlefs_schema::v4::{
    ChunkRef, ChunkSource, ExtentData, LoadedInode, MetadataErrorKind, Tree,
};
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

/// The most bytes of content of chunks that are kept: small files share them.
const CACHE_BYTES: usize = 16 << 20;

/// A piece of a file's contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'p> {
    /// Bytes.
    Data(&'p [u8]),
    /// So many zeros that are not stored.
    Hole(u64),
}

/// Data that is kept between reads of files: open blobs of format 3, and chunks of format 4.
///
/// Chunks of format 4 are always compared with their digests.
pub struct FileData {
    blobs: Blobs,
    chunks: Recent<Arc<Vec<u8>>>,
    /// The last extent of format 3 that had zeros only.
    zeros: Option<Extent>,
}

impl Default for FileData {
    fn default() -> Self {
        Self::of(Blobs::default())
    }
}

impl FileData {
    fn of(blobs: Blobs) -> Self {
        FileData {
            blobs,
            chunks: Recent::new(CACHE_BYTES),
            zeros: None,
        }
    }

    /// Data whose blobs are compared with their digests before anything of them is read.
    pub fn checked() -> Self {
        Self::of(Blobs::checked())
    }

    /// Data whose blobs must have fs-verity enabled, with the digests that the image has for them.
    pub fn verified() -> Self {
        Self::of(Blobs::verified())
    }

    pub(crate) fn blobs(&self) -> &Blobs {
        &self.blobs
    }

    /// Passes a range of a file of format 3 to a function, in order and in pieces.
    pub(crate) fn read_v3(
        &mut self,
        tree: &V3Tree<'_>,
        file: &V3Inode,
        range: Range<u64>,
        mut give: impl FnMut(Piece<'_>) -> Result<()>,
    ) -> Result<()> {
        let table = tree.table(file)?;
        let FileData { blobs, zeros, .. } = self;
        tree.reader()
            .for_each_extent(file.place(), &table, range, |extent| {
                // A hole is many references to one chunk of zeros, which is read once.
                if *zeros == Some(extent) {
                    return give(Piece::Hole(extent.length));
                }
                let mut is_zero = true;
                tree.reader().read_extent(&extent, blobs, |bytes| {
                    is_zero = is_zero && bytes.iter().all(|&byte| byte == 0);
                    give(Piece::Data(bytes))
                })?;
                if is_zero {
                    *zeros = Some(extent);
                }
                Ok(())
            })
    }

    /// Passes a range of a file of format 4 to a function, in order and in pieces.
    pub(crate) fn read_v4(
        &mut self,
        tree: &Tree<StoreChunks<'_>>,
        file: &LoadedInode<MetadataBlock>,
        range: Range<u64>,
        mut give: impl FnMut(Piece<'_>) -> Result<()>,
    ) -> Result<()> {
        let walked = tree.for_each_extent(file, range.start, |extent| {
            if extent.start >= range.end {
                return ControlFlow::Break(Ok(()));
            }
            let part = range.start.max(extent.start)..range.end.min(extent.end);
            let given = match extent.data {
                ExtentData::Hole => give(Piece::Hole(part.end - part.start)),
                ExtentData::Chunk { chunk, offset } => {
                    self.chunk(tree.source(), &chunk).and_then(|content| {
                        // The extent was checked to lie in the chunk, which has at most 1 MiB.
                        let at =
                            |position: u64| offset as usize + (position - extent.start) as usize;
                        let bytes = content
                            .get(at(part.start)..at(part.end))
                            .ok_or_else(|| tree.broken(file, MetadataErrorKind::Misuse))?;
                        give(Piece::Data(bytes))
                    })
                }
            };
            match given {
                Ok(()) => ControlFlow::Continue(()),
                Err(e) => ControlFlow::Break(Err(e)),
            }
        })?;
        match walked {
            ControlFlow::Break(result) => result,
            ControlFlow::Continue(()) => Ok(()),
        }
    }

    /// Returns the content of a chunk.
    fn chunk(&mut self, source: &StoreChunks<'_>, chunk: &ChunkRef) -> Result<Arc<Vec<u8>>> {
        if let Some(content) = self.chunks.get(chunk) {
            return Ok(content);
        }
        let content = Arc::new(source.content(chunk)?);
        self.chunks.insert(chunk, Arc::clone(&content));
        Ok(content)
    }
}
