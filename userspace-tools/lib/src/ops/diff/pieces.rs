// SPDX-License-Identifier: MIT OR Apache-2.0

//! The chunks of files, of images of any format.

use crate::error::Result;
use crate::image::image_tree::{ImageTree, TreeInode};
use puzzlefs_schema::image::{ImageMetadata, Versions};
use puzzlefs_schema::v4::{ChunkRef, Extent, ExtentData};
use puzzlefs_schema::{Chunk, Digest};
use std::ops::ControlFlow;

/// A chunk as a unit of sharing: a range of a blob in format 3, all of a chunk in format 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ChunkId {
    digest: Digest,
    offset: u64,
    /// The number of bytes of content.
    pub len: u64,
}

impl From<&ChunkRef> for ChunkId {
    fn from(chunk: &ChunkRef) -> Self {
        ChunkId {
            digest: *chunk.digest(),
            offset: 0,
            len: chunk.content_len().into(),
        }
    }
}

impl From<&Chunk> for ChunkId {
    fn from(chunk: &Chunk) -> Self {
        ChunkId {
            digest: chunk.blob,
            offset: chunk.blob_offset,
            len: chunk.len,
        }
    }
}

/// A range of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    start: u64,
    pub len: u64,
    /// The chunk, and the offset in its content; none for a hole.
    pub data: Option<(ChunkId, u32)>,
}

impl From<Extent> for Piece {
    fn from(extent: Extent) -> Self {
        Piece {
            start: extent.start,
            len: extent.end - extent.start,
            data: match &extent.data {
                ExtentData::Hole => None,
                ExtentData::Chunk { chunk, offset } => Some((chunk.into(), *offset)),
            },
        }
    }
}

/// Returns the pieces of a regular file.
pub(super) fn pieces(tree: &ImageTree<'_>, file: &TreeInode) -> Result<Vec<Piece>> {
    let mut pieces = Vec::new();
    match (tree.metadata(), file) {
        (Versions::V3(tree), Versions::V3(file)) => {
            let reader = tree.reader();
            let inode = reader.checked(reader.metadata().inode_at(file.place()))?;
            for extent in reader.checked(inode.extents())?.iter_from(0, 0) {
                let (start, chunk) = reader.checked(extent)?;
                pieces.push(Piece {
                    start,
                    len: chunk.len,
                    data: Some(((&chunk).into(), 0)),
                });
            }
        }
        (Versions::V4(tree), Versions::V4(file)) => {
            let _ = tree.for_each_extent(file, 0, |extent| {
                pieces.push(extent.into());
                ControlFlow::<()>::Continue(())
            })?;
        }
        (metadata, _) => return Err(metadata.other_image()),
    }
    Ok(pieces)
}
