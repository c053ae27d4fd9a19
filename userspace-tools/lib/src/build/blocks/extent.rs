// SPDX-License-Identifier: MIT OR Apache-2.0

//! Extents of files, as the metadata states them.

use puzzlefs_schema::v4::ChunkRef;

/// An extent of a file. It ends where the next one begins, or with the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileExtent {
    /// Its offset in the file.
    pub offset: u64,
    pub data: ExtentData,
}

/// The data of an extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExtentData {
    /// Zeros without stored data.
    Hole,
    /// A range of a chunk's content, from `offset` on.
    Chunk { chunk: ChunkRef, offset: u32 },
}

impl FileExtent {
    /// Returns the chunk of the extent; `None` for a hole.
    pub fn chunk(&self) -> Option<&ChunkRef> {
        match &self.data {
            ExtentData::Hole => None,
            ExtentData::Chunk { chunk, .. } => Some(chunk),
        }
    }
}
