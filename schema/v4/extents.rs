// SPDX-License-Identifier: MIT OR Apache-2.0

//! Extents of files.

use super::{
    chunk::ChunkRef,
    chunks::Chunks,
    error::{ListName, MetadataError, MetadataErrorKind as Kind, Result},
    limits::HOLE,
    message::{Element, Elements},
    words::{halves, words},
};

/// An extent, as it stands in a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct StoredExtent {
    offset: u64,
    chunk: u32,
    chunk_offset: u32,
}

impl Element for StoredExtent {
    const LIST: ListName = ListName::Extents;
    const WORDS: u32 = 2;

    #[inline]
    fn read(bytes: &[u8]) -> Option<Self> {
        let [offset, chunk] = words(bytes)?;
        let (chunk, chunk_offset) = halves(chunk);
        Some(Self {
            offset,
            chunk,
            chunk_offset,
        })
    }
}

/// The data of an extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtentData {
    /// Zeros that are not stored.
    Hole,
    /// A part of a chunk's content.
    Chunk {
        /// The chunk.
        chunk: ChunkRef,
        /// The start of the extent in the chunk's content, which also contains its end.
        offset: u32,
    },
}

/// A part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The start of the extent in the file.
    pub start: u64,
    /// The end of the extent, after `start`.
    pub end: u64,
    /// Its data.
    pub data: ExtentData,
}

/// The extents of a file, or of a part of one, without gaps.
#[derive(Clone, Copy, Debug)]
pub struct Extents<'a> {
    extents: Elements<'a, StoredExtent>,
    chunks: Chunks<'a>,
    end: u64,
}

impl<'a> Extents<'a> {
    /// Extents that end at `end`.
    pub(super) fn new(extents: Elements<'a, StoredExtent>, chunks: Chunks<'a>, end: u64) -> Self {
        Self {
            extents,
            chunks,
            end,
        }
    }

    /// The number of extents.
    pub fn len(&self) -> u32 {
        self.extents.len()
    }

    /// Returns true if there are no extents: the file is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The extent at a position; `None` if there are not so many.
    ///
    /// Cost: constant.
    ///
    /// # Errors
    ///
    /// [`MetadataErrorKind::Misuse`](super::MetadataErrorKind::Misuse).
    pub fn get(&self, position: u32) -> Result<Option<Extent>> {
        if position >= self.len() {
            return Ok(None);
        }
        let extent = self.extents.known(position)?;
        let data = if extent.chunk == HOLE {
            ExtentData::Hole
        } else {
            let chunk = self.chunks.get(extent.chunk).map_err(|_| Kind::Misuse)?;
            ExtentData::Chunk {
                chunk,
                offset: extent.chunk_offset,
            }
        };
        Ok(Some(Extent {
            start: extent.offset,
            end: self.end_of(position),
            data,
        }))
    }

    /// Finds the extent that contains an offset in the file, and its position; `None` if it is
    /// beyond the last extent, or before the first of a part of a file.
    ///
    /// Cost: at most 4 + log2 of the number of extents.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn find(&self, offset: u64) -> Result<Option<(u32, Extent)>> {
        let after = self
            .extents
            .partition_point(|extent| Ok(extent.offset <= offset))?;
        let Some(position) = after.checked_sub(1) else {
            return Ok(None);
        };
        let found = self.get(position)?.filter(|extent| offset < extent.end);
        Ok(found.map(|extent| (position, extent)))
    }

    /// The end of an extent: where the next one begins, or the end of all.
    #[inline]
    fn end_of(&self, position: u32) -> u64 {
        position
            .checked_add(1)
            .and_then(|next| self.extents.get(next))
            .map_or(self.end, |next| next.offset)
    }

    /// Checks all extents, but the end of the last one only against its chunk's length: the list
    /// block that it lies in does not say where it ends.
    pub(super) fn check(&self) -> Result<()> {
        let mut before: Option<StoredExtent> = None;
        for (index, extent) in (0..).zip(self.extents.iter()) {
            let check = || {
                self.check_start(&extent)?;
                match before {
                    Some(before) if extent.offset <= before.offset => Err(Kind::ExtentOrder.into()),
                    _ => Ok(()),
                }
            };
            check().map_err(|e| self.at(index, e))?;
            if let Some((before, last)) = before.zip(index.checked_sub(1)) {
                self.check_len(&before, extent.offset)
                    .map_err(|e| self.at(last, e))?;
            }
            before = Some(extent);
        }
        Ok(())
    }

    /// Checks where the extents begin, and where the last one ends.
    ///
    /// Cost: constant.
    pub(super) fn check_bounds(&self, start: u64) -> core::result::Result<(), BoundsError> {
        let first = self.extents.get(0).map(|first| first.offset);
        if first != Some(start) {
            return Err(BoundsError::Start);
        }
        let last = self.len().checked_sub(1);
        let Some((index, last)) = last.and_then(|at| Some((at, self.extents.get(at)?))) else {
            return Err(BoundsError::Start);
        };
        if last.offset >= self.end {
            return Err(BoundsError::End(index));
        }
        self.check_len(&last, self.end)
            .map_err(|e| BoundsError::Content(self.at(index, e)))
    }

    fn at(&self, index: u32, e: MetadataError) -> MetadataError {
        e.at(ListName::Extents, self.extents.place(index))
    }

    /// Checks that an extent begins in the content of its chunk.
    fn check_start(&self, extent: &StoredExtent) -> Result<()> {
        if extent.chunk == HOLE {
            return match extent.chunk_offset {
                0 => Ok(()),
                _ => Err(Kind::HoleOffset.into()),
            };
        }
        if extent.chunk_offset >= self.chunks.content_len(extent.chunk)? {
            return Err(Kind::ExtentContent.into());
        }
        Ok(())
    }

    /// Checks that an extent ends in the content of its chunk.
    fn check_len(&self, extent: &StoredExtent, end: u64) -> Result<()> {
        if extent.chunk == HOLE {
            return Ok(());
        }
        let content_len = self.chunks.content_len(extent.chunk)?;
        let room = u64::from(content_len.saturating_sub(extent.chunk_offset));
        if end.saturating_sub(extent.offset) > room {
            return Err(Kind::ExtentContent.into());
        }
        Ok(())
    }

    /// The position in the list of extents of the message, for errors.
    pub(super) fn place(&self, index: u32) -> u32 {
        self.extents.place(index)
    }
}

/// A contradiction between extents and where they should begin and end.
pub(super) enum BoundsError {
    /// The first extent begins elsewhere, or there is none.
    Start,
    /// The last extent, of this index, begins after the end.
    End(u32),
    /// The last extent exceeds its chunk.
    Content(MetadataError),
}
