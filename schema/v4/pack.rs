// SPDX-License-Identifier: MIT OR Apache-2.0

//! Packs: the footer and the index at their end.
//!
//! A reader fetches the last [`FOOTER_LEN`] bytes, or more, and parses the [`PackFooter`]. It says
//! how many bytes before it are the index. A [`PackLayout`] then takes the index's records one by
//! one, in pieces of any length, and gives the position of each chunk. A writer uses the same
//! [`PackLayout`] to place chunks.

use super::{
    limits::{MAX_CHUNK_CONTENT, MAX_PACK_ALIGNMENT, MAX_PACK_CHUNKS},
    words::{split_digest, u16_at, u32_at},
};
use crate::{digest::Digest, steps::step};
use core::{fmt, ops::Range};

/// The magic number of a pack.
const MAGIC: [u8; 8] = *b"PZFSPACK";

/// The version of the pack format.
const PACK_VERSION: u16 = 1;

/// The length of a pack's footer, in bytes.
pub const FOOTER_LEN: usize = 16;

/// The length of a record of a pack's index, in bytes.
pub const INDEX_RECORD_LEN: usize = 36;

/// A violated rule of packs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PackError {
    /// The file is too short, or does not end with the magic number and the rest of a footer.
    NotAPack,
    /// The pack has another version of the format.
    Version(u16),
    /// The alignment is larger than 2^[`MAX_PACK_ALIGNMENT`].
    Alignment,
    /// A byte of the footer that is reserved is not 0.
    Reserved,
    /// The pack has no chunk, or more than [`MAX_PACK_CHUNKS`].
    ChunkCount,
    /// The pack is shorter than its index.
    Truncated,
    /// The index has another length than the footer states.
    IndexLength,
    /// The stored length of a chunk is 0 or larger than [`MAX_CHUNK_CONTENT`].
    StoredLength,
    /// The chunks do not fill the pack up to the index.
    Length,
}

impl fmt::Display for PackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAPack => "the file does not end with the footer of a pack",
            Self::Version(version) => {
                return write!(f, "the pack has version {version}, expected {PACK_VERSION}")
            }
            Self::Alignment => "the alignment of the pack is larger than 4096",
            Self::Reserved => "a reserved byte of the pack's footer is not 0",
            Self::ChunkCount => "the number of chunks in the pack is not 1 to 1048576",
            Self::Truncated => "the pack is shorter than its index",
            Self::IndexLength => "the index of the pack has another length than its footer states",
            Self::StoredLength => "the stored length of a chunk in the pack is not 1 to 1048576",
            Self::Length => "the chunks do not fill the pack up to its index",
        })
    }
}

impl core::error::Error for PackError {}

/// The footer of a pack.
///
/// # Invariants
///
/// `alignment` and `chunks` are within their limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackFooter {
    alignment: u8,
    chunks: u32,
}

impl PackFooter {
    /// Makes a footer. `alignment` is the exponent of a power of two.
    ///
    /// # Errors
    ///
    /// [`PackError::Alignment`], [`PackError::ChunkCount`].
    pub fn new(alignment: u8, chunks: u32) -> Result<Self, PackError> {
        if alignment > MAX_PACK_ALIGNMENT {
            return Err(PackError::Alignment);
        }
        if !(1..=MAX_PACK_CHUNKS).contains(&chunks) {
            return Err(PackError::ChunkCount);
        }
        // INVARIANT: Both were just checked.
        Ok(Self { alignment, chunks })
    }

    /// Reads the footer at the end of `tail`, which is the end of a pack.
    ///
    /// # Errors
    ///
    /// [`PackError::NotAPack`], [`PackError::Version`], [`PackError::Alignment`],
    /// [`PackError::Reserved`], [`PackError::ChunkCount`].
    pub fn parse(tail: &[u8]) -> Result<Self, PackError> {
        let footer = tail
            .last_chunk::<FOOTER_LEN>()
            .ok_or(PackError::NotAPack)?
            .as_slice();
        if !footer.starts_with(&MAGIC) {
            return Err(PackError::NotAPack);
        }
        let (Some(version), Some(&[alignment, reserved, ..]), Some(chunks)) =
            (u16_at(footer, 8), footer.get(10..), u32_at(footer, 12))
        else {
            return Err(PackError::NotAPack);
        };
        if version != PACK_VERSION {
            return Err(PackError::Version(version));
        }
        if reserved != 0 {
            return Err(PackError::Reserved);
        }
        Self::new(alignment, chunks)
    }

    /// The footer's bytes.
    pub fn to_bytes(&self) -> [u8; FOOTER_LEN] {
        let [m0, m1, m2, m3, m4, m5, m6, m7] = MAGIC;
        let [v0, v1] = PACK_VERSION.to_le_bytes();
        let [c0, c1, c2, c3] = self.chunks.to_le_bytes();
        let alignment = self.alignment;
        [
            m0, m1, m2, m3, m4, m5, m6, m7, v0, v1, alignment, 0, c0, c1, c2, c3,
        ]
    }

    /// The number of chunks.
    pub const fn chunks(&self) -> u32 {
        self.chunks
    }

    /// The number of bytes that each chunk's offset is a multiple of.
    pub const fn alignment(&self) -> u32 {
        // At most 12 bits: nothing is lost.
        1u32.wrapping_shl(self.alignment as u32)
    }

    /// The length of the index, in bytes.
    pub const fn index_len(&self) -> u64 {
        (self.chunks as u64).saturating_mul(INDEX_RECORD_LEN as u64)
    }

    /// The length of the index and the footer, a pack's recipe, in bytes.
    pub const fn recipe_len(&self) -> u64 {
        self.index_len().saturating_add(FOOTER_LEN as u64)
    }

    /// The bytes of the index in a pack of `pack_len` bytes.
    ///
    /// # Errors
    ///
    /// [`PackError::Truncated`].
    pub fn index_range(&self, pack_len: u64) -> Result<Range<u64>, PackError> {
        let start = pack_len.checked_sub(self.recipe_len());
        let end = pack_len.checked_sub(FOOTER_LEN as u64);
        match (start, end) {
            (Some(start), Some(end)) => Ok(start..end),
            _ => Err(PackError::Truncated),
        }
    }

    /// Starts to place the chunks.
    pub fn layout(&self) -> PackLayout {
        PackLayout::new(self.alignment())
    }

    /// Reads an index, which is all of `index`.
    ///
    /// # Errors
    ///
    /// [`PackError::IndexLength`].
    pub fn index<'a>(&self, index: &'a [u8]) -> Result<PackIndex<'a>, PackError> {
        if index.len() as u64 != self.index_len() {
            return Err(PackError::IndexLength);
        }
        Ok(PackIndex {
            footer: *self,
            records: index,
        })
    }
}

/// A chunk in a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackedChunk {
    /// The SHA-256 of the stored bytes.
    pub digest: Digest,
    /// The start of the stored bytes in the pack.
    pub offset: u64,
    /// The number of stored bytes: 1 to [`MAX_CHUNK_CONTENT`].
    pub stored_len: u32,
}

impl PackedChunk {
    /// The chunk's record in the index.
    pub fn to_record(&self) -> [u8; INDEX_RECORD_LEN] {
        let mut record = [0; INDEX_RECORD_LEN];
        let bytes = self.digest.as_bytes().iter();
        let bytes = bytes.copied().chain(self.stored_len.to_le_bytes());
        for (to, from) in record.iter_mut().zip(bytes) {
            *to = from;
        }
        record
    }
}

/// Places chunks in a pack, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackLayout {
    alignment: u32,
    end: u64,
}

impl PackLayout {
    /// Starts an empty pack. `alignment` is in bytes.
    pub const fn new(alignment: u32) -> Self {
        Self { alignment, end: 0 }
    }

    /// The end of the last chunk: the length of the pack without index and footer.
    pub const fn end(&self) -> u64 {
        self.end
    }

    /// Places a chunk, and returns where it begins. The bytes from the [`end`](Self::end) of the
    /// chunk before are zero.
    ///
    /// # Errors
    ///
    /// [`PackError::StoredLength`]; [`PackError::Length`] if the offset cannot be expressed.
    pub fn place(&mut self, stored_len: u32) -> Result<u64, PackError> {
        step();
        if !(1..=MAX_CHUNK_CONTENT).contains(&stored_len) {
            return Err(PackError::StoredLength);
        }
        let offset = self.end.checked_next_multiple_of(self.alignment.into());
        let offset = offset.ok_or(PackError::Length)?;
        self.end = offset
            .checked_add(stored_len.into())
            .ok_or(PackError::Length)?;
        Ok(offset)
    }

    /// Places the chunk of a record of an index.
    ///
    /// # Errors
    ///
    /// Those of [`place`](Self::place).
    pub fn place_record(
        &mut self,
        record: &[u8; INDEX_RECORD_LEN],
    ) -> Result<PackedChunk, PackError> {
        let (digest, len) = split_digest(record).ok_or(PackError::IndexLength)?;
        let stored_len = u32_at(len, 0).ok_or(PackError::IndexLength)?;
        Ok(PackedChunk {
            digest,
            offset: self.place(stored_len)?,
            stored_len,
        })
    }

    /// Checks that the chunks fill a pack of `pack_len` bytes up to its index.
    ///
    /// # Errors
    ///
    /// [`PackError::Length`].
    pub fn finish(&self, footer: &PackFooter, pack_len: u64) -> Result<(), PackError> {
        if self.end.checked_add(footer.recipe_len()) == Some(pack_len) {
            Ok(())
        } else {
            Err(PackError::Length)
        }
    }
}

/// The index of a pack, in memory as a whole.
#[derive(Clone, Copy, Debug)]
pub struct PackIndex<'a> {
    footer: PackFooter,
    records: &'a [u8],
}

impl<'a> PackIndex<'a> {
    /// Checks the index of a pack of `pack_len` bytes.
    ///
    /// Cost: the number of chunks.
    ///
    /// # Errors
    ///
    /// [`PackError::StoredLength`], [`PackError::Length`].
    pub fn check(&self, pack_len: u64) -> Result<(), PackError> {
        let mut chunks = self.iter();
        for chunk in chunks.by_ref() {
            chunk?;
        }
        chunks.layout.finish(&self.footer, pack_len)
    }

    /// The chunks, in order of position.
    ///
    /// Cost of each step: constant. After an error there are no more.
    pub fn iter(&self) -> PackIter<'a> {
        PackIter {
            layout: self.footer.layout(),
            records: self.records,
        }
    }
}

impl<'a> IntoIterator for PackIndex<'a> {
    type Item = Result<PackedChunk, PackError>;
    type IntoIter = PackIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// The chunks of a pack; see [`PackIndex::iter`].
#[derive(Clone, Debug)]
pub struct PackIter<'a> {
    layout: PackLayout,
    records: &'a [u8],
}

impl Iterator for PackIter<'_> {
    type Item = Result<PackedChunk, PackError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (record, rest) = self.records.split_first_chunk()?;
        let chunk = self.layout.place_record(record);
        self.records = if chunk.is_ok() { rest } else { &[] };
        Some(chunk)
    }
}

#[cfg(test)]
#[allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::unwrap_used
)]
mod tests {
    use super::*;

    /// A pack of chunks of these lengths, whose bytes are their numbers.
    fn pack(alignment: u8, lens: &[u32]) -> Vec<u8> {
        let footer = PackFooter::new(alignment, lens.len() as u32).unwrap();
        let mut layout = footer.layout();
        let (mut pack, mut index) = (Vec::new(), Vec::new());
        for (number, &stored_len) in lens.iter().enumerate() {
            let offset = layout.place(stored_len).unwrap();
            pack.resize(offset as usize, 0);
            pack.resize(layout.end() as usize, number as u8 + 1);
            let digest = Digest::new([number as u8 + 1; 32]);
            index.extend(
                PackedChunk {
                    digest,
                    offset,
                    stored_len,
                }
                .to_record(),
            );
        }
        pack.extend(index);
        pack.extend(footer.to_bytes());
        pack
    }

    fn read(pack: &[u8]) -> Result<Vec<(u64, u32)>, PackError> {
        let footer = PackFooter::parse(pack)?;
        let range = footer.index_range(pack.len() as u64)?;
        let index = footer.index(&pack[range.start as usize..range.end as usize])?;
        index.check(pack.len() as u64)?;
        index
            .iter()
            .map(|chunk| chunk.map(|chunk| (chunk.offset, chunk.stored_len)))
            .collect()
    }

    #[test]
    fn positions_follow_from_the_index() {
        assert_eq!(read(&pack(0, &[3, 4])), Ok(vec![(0, 3), (3, 4)]));
        let aligned = read(&pack(12, &[3, 4096, 1]));
        assert_eq!(aligned, Ok(vec![(0, 3), (4096, 4096), (8192, 1)]));
    }

    #[test]
    fn each_rule_has_its_error() {
        let good = pack(3, &[3, 4]);
        let footer = good.len() - FOOTER_LEN;
        let index = footer - 2 * INDEX_RECORD_LEN;
        let with = |at: usize, byte: u8| {
            let mut bad = good.clone();
            bad[at] = byte;
            read(&bad)
        };
        assert_eq!(with(footer, 0), Err(PackError::NotAPack));
        assert_eq!(with(footer + 7, 0), Err(PackError::NotAPack));
        assert_eq!(with(footer + 8, 2), Err(PackError::Version(2)));
        assert_eq!(with(footer + 10, 13), Err(PackError::Alignment));
        assert_eq!(with(footer + 11, 1), Err(PackError::Reserved));
        assert_eq!(with(footer + 12, 0), Err(PackError::ChunkCount));
        assert_eq!(with(footer + 14, 0x11), Err(PackError::ChunkCount));
        assert_eq!(with(footer + 12, 3), Err(PackError::Truncated));
        assert_eq!(with(footer + 12, 1), Err(PackError::Length));
        assert_eq!(with(footer + 10, 4), Err(PackError::Length));
        assert_eq!(with(index + 32, 0), Err(PackError::StoredLength));
        assert_eq!(with(index + 34, 0x11), Err(PackError::StoredLength));
        assert_eq!(with(index + 32, 9), Err(PackError::Length));
        let footer = PackFooter::parse(&good).unwrap();
        let err = footer.index(&good).err();
        assert_eq!(err, Some(PackError::IndexLength));
        for cut in 0..good.len() {
            assert!(read(&good[..cut]).is_err());
            assert!(read(&good[cut + 1..]).is_err());
        }
    }

    #[test]
    fn a_chunk_can_occur_twice() {
        let mut twice = pack(0, &[3, 3]);
        let index = twice.len() - FOOTER_LEN - 2 * INDEX_RECORD_LEN;
        twice[index + INDEX_RECORD_LEN..][..32].fill(1);
        assert!(read(&twice).is_ok());
    }

    #[test]
    fn layouts_do_not_overflow() {
        let mut layout = PackLayout {
            alignment: 4096,
            end: u64::MAX - 4096,
        };
        assert_eq!(layout.place(4096), Err(PackError::Length));
        layout.end = u64::MAX;
        assert_eq!(layout.place(1), Err(PackError::Length));
        // No multiple of 0 follows.
        assert_eq!(PackLayout::new(0).place(1), Err(PackError::Length));
    }
}
