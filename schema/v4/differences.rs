// SPDX-License-Identifier: MIT OR Apache-2.0

//! Fields that are stored as differences.
//!
//! Most elements of a list continue the element before. Some of their fields are therefore stored as
//! the difference to a prediction, which compresses well. A reader replaces these differences by
//! values once, in place, before it checks the message.
//!
//! | field | prediction |
//! | --- | --- |
//! | `Inode.first` | the end of the range before in the same list |
//! | `Entry.nameOffset` | the end of the name before |
//! | `Entry.slot`, `Entry.distance` | those of the entry before |
//! | `Extent.offset` | of the first extent of a file or a list block: 0; of others: the end of the extent before, if that ends with its chunk |
//! | `Extent.chunk` | that of the extent before |
//! | `Extent.chunkOffset` | the end of the extent before, if that has the same chunk; otherwise 0 |
//!
//! The arithmetic wraps around. Predictions depend on values alone, so that one piece of code does both
//! directions.

use super::{
    chunks::StoredRef,
    directory::StoredEntry,
    error::Result,
    extents::StoredExtent,
    inode::StoredInode,
    inode_type::InodeType,
    message::{Element, List, Message, MessageKind},
    words::u32_at,
};
use crate::steps::step;

/// Replaces the differences in the stored content of a metadata chunk by values.
///
/// Content that is not a message stays as it is. Of a malformed message, some fields may change. In both
/// cases, a check afterwards returns an error.
///
/// Cost: proportional to the number of inodes, entries and extents, each of which is read once.
pub fn restore_values(content: &mut [u8]) {
    convert(content, Direction::Restore);
}

/// Replaces the values in a checked metadata chunk by the differences that are stored.
///
/// Cost: as [`restore_values`].
#[cfg(feature = "write")]
pub fn store_differences(content: &mut [u8]) {
    convert(content, Direction::Store);
}

#[derive(Clone, Copy)]
enum Direction {
    /// From differences to values.
    Restore,
    /// From values to differences.
    #[cfg(feature = "write")]
    Store,
}

impl Direction {
    /// Converts a field of `N` bytes, and returns its value.
    #[inline]
    fn convert<const N: usize>(
        self,
        content: &mut [u8],
        at: usize,
        prediction: u64,
    ) -> Option<u64> {
        let field: &mut [u8; N] = content.get_mut(at..)?.first_chunk_mut()?;
        let found = integer(*field);
        let converted = match self {
            Self::Restore => found.wrapping_add(prediction),
            #[cfg(feature = "write")]
            Self::Store => found.wrapping_sub(prediction),
        };
        for (to, from) in field.iter_mut().zip(converted.to_le_bytes()) {
            *to = from;
        }
        Some(match self {
            Self::Restore => integer(*field),
            #[cfg(feature = "write")]
            Self::Store => found,
        })
    }

    /// Converts a field of four bytes.
    #[inline]
    fn convert_u32(self, content: &mut [u8], at: usize, prediction: u32) -> Option<u32> {
        let value = self.convert::<4>(content, at, prediction.into())?;
        Some(value as u32)
    }
}

/// Reads a little-endian integer of up to eight bytes.
#[inline]
fn integer<const N: usize>(bytes: [u8; N]) -> u64 {
    let mut word = [0; 8];
    for (to, from) in word.iter_mut().zip(bytes) {
        *to = from;
    }
    u64::from_le_bytes(word)
}

/// Converts the lists of a message.
fn convert(content: &mut [u8], direction: Direction) {
    if let Ok(lists) = ConvertedLists::find(content) {
        // Lists that were found lie in the message.
        let _ = lists.convert(content, direction);
    }
}

/// The lists with differences, and those that predictions depend on.
#[derive(Default)]
struct ConvertedLists {
    /// Empty in a list block.
    inodes: List,
    entries: List,
    extents: List,
    chunks: List,
}

impl ConvertedLists {
    /// Finds the lists of a message of any kind.
    fn find(content: &[u8]) -> Result<Self> {
        let kind = Message::kind_of(content)?;
        let first = match kind {
            MessageKind::Root | MessageKind::BlockList => return Ok(Self::default()),
            MessageKind::Block => 1,
            MessageKind::ListBlock => 0,
        };
        let message = Message::parse(content, kind, 1)?;
        Ok(Self {
            inodes: match kind {
                MessageKind::Block => message.list::<StoredInode>(0)?,
                _ => List::default(),
            },
            entries: message.list::<StoredEntry>(first)?,
            extents: message.list::<StoredExtent>(first.saturating_add(1))?,
            chunks: message.list::<StoredRef>(first.saturating_add(2))?,
        })
    }

    fn convert(&self, content: &mut [u8], direction: Direction) -> Option<()> {
        let mut extents = ExtentConverter {
            extents: self.extents,
            chunks: self.chunks,
            direction,
            next: 0,
            chunk: 0,
            chunk_end: 0,
        };
        if self.inodes.len() == 0 {
            extents.convert(content, u32::MAX, 0)?;
        } else {
            self.convert_inodes(content, &mut extents)?;
        }
        self.convert_entries(content, direction)
    }

    /// Converts the ranges of inodes, and the extents of the files among them.
    fn convert_inodes(&self, content: &mut [u8], extents: &mut ExtentConverter) -> Option<()> {
        const FIRST: usize = 40;
        let (mut entries_end, mut extents_end, mut parts_end, mut targets_end) = (0, 0, 0, 0);
        for index in 0..self.inodes.len() {
            step();
            let at = self.inodes.place(index)?;
            let inode = StoredInode::read(content.get(at..)?)?;
            let inode_type = inode.inode_type();
            let end = match inode_type {
                Some(InodeType::Directory | InodeType::File) if inode.long => &mut parts_end,
                Some(InodeType::Directory) => &mut entries_end,
                Some(InodeType::File) => &mut extents_end,
                Some(InodeType::Symlink) => &mut targets_end,
                _ => continue,
            };
            let direction = extents.direction;
            let first = direction.convert_u32(content, at.checked_add(FIRST)?, *end)?;
            *end = first.wrapping_add(inode.count);
            if inode_type == Some(InodeType::File) && !inode.long {
                extents.convert(content, inode.count, inode.size)?;
            }
        }
        Some(())
    }

    /// Converts the entries.
    fn convert_entries(&self, content: &mut [u8], direction: Direction) -> Option<()> {
        const LENGTH: usize = 4;
        const SLOT: usize = 6;
        const DISTANCE: usize = 8;
        let (mut name_end, mut slot, mut distance) = (0, 0, 0);
        for index in 0..self.entries.len() {
            step();
            let at = self.entries.place(index)?;
            let len = *content.get(at.checked_add(LENGTH)?)?;
            let name = direction.convert_u32(content, at, name_end)?;
            name_end = name.wrapping_add(len.into());
            slot = direction.convert::<2>(content, at.checked_add(SLOT)?, slot)?;
            distance = direction.convert_u32(content, at.checked_add(DISTANCE)?, distance)?;
        }
        Some(())
    }
}

/// Converts the extents of a message, file by file.
struct ExtentConverter {
    extents: List,
    chunks: List,
    direction: Direction,
    /// The number of the next extent.
    next: u32,
    /// The chunk of the extent before.
    chunk: u32,
    /// The end of the extent before in the content of its chunk.
    chunk_end: u32,
}

impl ExtentConverter {
    /// Converts the extents of the next file, or of a list block. There are `count` of them, unless the
    /// list ends before. The last one ends at `size`.
    fn convert(&mut self, content: &mut [u8], count: u32, size: u64) -> Option<()> {
        const CHUNK: usize = 8;
        const CHUNK_OFFSET: usize = 12;
        let direction = self.direction;
        let end = self.next.saturating_add(count).min(self.extents.len());
        // The place in the file at which the chunk of the extent before begins and ends.
        let mut chunk_range: Option<(u64, u64)> = None;
        for index in self.next..end {
            step();
            let at = self.extents.place(index)?;
            let prediction = chunk_range.map_or(0, |(_, end)| end);
            let offset = direction.convert::<8>(content, at, prediction)?;
            if let Some((start, _)) = chunk_range {
                self.chunk_end = offset.wrapping_sub(start) as u32;
            }
            let chunk = direction.convert_u32(content, at.checked_add(CHUNK)?, self.chunk)?;
            let prediction = if chunk == self.chunk {
                self.chunk_end
            } else {
                0
            };
            let at = at.checked_add(CHUNK_OFFSET)?;
            let chunk_offset = direction.convert_u32(content, at, prediction)?;
            let start = offset.wrapping_sub(chunk_offset.into());
            chunk_range = Some((start, start.wrapping_add(self.content_len(content, chunk))));
            self.chunk = chunk;
        }
        self.next = end;
        if let Some((start, _)) = chunk_range {
            self.chunk_end = size.wrapping_sub(start) as u32;
        }
        Some(())
    }

    /// Returns the content length of a chunk; 0 for a hole.
    fn content_len(&self, content: &[u8], chunk: u32) -> u64 {
        const CONTENT_LEN: usize = 36;
        let at = self.chunks.place(chunk);
        at.and_then(|at| u32_at(content, at.checked_add(CONTENT_LEN)?))
            .map_or(0, u64::from)
    }
}
