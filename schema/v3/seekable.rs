// SPDX-License-Identifier: MIT OR Apache-2.0

//! The seek table of a compressed blob.
//!
//! A compressed blob is in the zstd *seekable* format: independent frames, and behind them a
//! skippable frame that holds a table of their sizes:
//!
//! | bytes | what |
//! | --- | --- |
//! | 4 | magic number of the skippable frame, `0x184D2A5E` |
//! | 4 | the length of what follows |
//! | 8 or 12 each | a frame: its compressed size, its decompressed size, and its checksum if there are checksums |
//! | 4 | the number of frames |
//! | 1 | descriptor: the top bit says that there are checksums, bits 2 to 6 are zero |
//! | 4 | magic number of the table, `0x8F92EAB1` |
//!
//! All numbers are little-endian. A checksum is the lower half of the XXH64 of the decompressed
//! data.
//!
//! Reference: `contrib/seekable_format/zstd_seekable_compression_format.md` of zstd.

use core::fmt;

/// The magic number of the skippable frame that the table is in.
const SKIPPABLE_MAGIC: u32 = 0x184D_2A5E;

/// The magic number at the end of the table.
const TABLE_MAGIC: u32 = 0x8F92_EAB1;

/// The length of the skippable frame's header, in bytes.
const HEADER_LEN: u64 = 8;

/// The length of the table's footer, in bytes: the last of the blob.
pub const SEEK_TABLE_FOOTER_LEN: usize = 9;

/// The largest size of a frame, compressed or not, in bytes.
///
/// The format has no limit of its own. A reader needs as much memory, and has to decompress as
/// much to get at one byte.
pub const MAX_FRAME_SIZE: u32 = 1 << 20;

/// The largest number of frames of a blob: those of 512 MiB in frames of 4 KiB.
pub const MAX_FRAMES: u32 = 1 << 17;

/// An error in a seek table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SeekTableError {
    /// The blob is too short, or is not in the seekable format.
    NotSeekable,
    /// The descriptor has bits that are reserved.
    Descriptor,
    /// There are more frames than [`MAX_FRAMES`].
    TooManyFrames,
    /// The table does not fit into the blob, or its length does not match its number of frames.
    TableLength,
    /// A frame is larger than [`MAX_FRAME_SIZE`].
    FrameTooLarge,
    /// The frames do not fill the blob up to the table.
    Sizes,
}

impl fmt::Display for SeekTableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotSeekable => "the compressed blob is not in the zstd seekable format",
            Self::Descriptor => "the seek table's descriptor has reserved bits set",
            Self::TooManyFrames => "the seek table has too many frames",
            Self::TableLength => "the seek table has a wrong length",
            Self::FrameTooLarge => "the seek table has a frame larger than 1 MiB",
            Self::Sizes => "the seek table's frames do not fill the blob",
        })
    }
}

impl core::error::Error for SeekTableError {}

/// A frame of a compressed blob.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// The offset of the frame's end in the blob, which is the start of the next frame.
    pub end: u64,
    /// The offset of the end of the frame's data in the blob's decompressed content.
    pub content_end: u64,
    /// The checksum of the frame's data, if there are checksums.
    pub checksum: Option<u32>,
}

/// The length of a seek table and of its entries, from its footer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeekTable {
    blob_len: u64,
    frames: u32,
    checksums: bool,
}

impl SeekTable {
    /// Reads the footer, the last [`SEEK_TABLE_FOOTER_LEN`] bytes of a blob of `blob_len` bytes.
    ///
    /// # Errors
    ///
    /// All but [`SeekTableError::FrameTooLarge`] and [`SeekTableError::Sizes`].
    pub fn parse_footer(footer: &[u8], blob_len: u64) -> Result<Self, SeekTableError> {
        let Some(&[frames @ .., descriptor, m0, m1, m2, m3]) =
            footer.first_chunk::<SEEK_TABLE_FOOTER_LEN>()
        else {
            return Err(SeekTableError::NotSeekable);
        };
        if u32::from_le_bytes([m0, m1, m2, m3]) != TABLE_MAGIC {
            return Err(SeekTableError::NotSeekable);
        }
        if descriptor & 0b0111_1100 != 0 {
            return Err(SeekTableError::Descriptor);
        }
        let frames = u32::from_le_bytes(frames);
        if frames > MAX_FRAMES {
            return Err(SeekTableError::TooManyFrames);
        }
        let table = Self {
            blob_len,
            frames,
            checksums: descriptor & 0b1000_0000 != 0,
        };
        if table.byte_len() > blob_len {
            return Err(SeekTableError::TableLength);
        }
        Ok(table)
    }

    /// Returns the number of frames.
    pub fn frames(&self) -> usize {
        self.frames as usize
    }

    /// Returns the length of the table at the blob's end, in bytes, with its header and footer.
    pub fn byte_len(&self) -> u64 {
        u64::from(self.frames)
            .saturating_mul(self.entry_len() as u64)
            .saturating_add(HEADER_LEN)
            .saturating_add(SEEK_TABLE_FOOTER_LEN as u64)
    }

    fn entry_len(&self) -> usize {
        match self.checksums {
            true => 12,
            false => 8,
        }
    }

    /// Reads the table, the last [`byte_len`](Self::byte_len) bytes of the blob, into a slice of
    /// [`frames`](Self::frames) elements. Frames without data are among them.
    ///
    /// Cost: the number of frames.
    ///
    /// # Errors
    ///
    /// [`SeekTableError::TableLength`] if the table or the slice has another length,
    /// [`SeekTableError::NotSeekable`], [`SeekTableError::FrameTooLarge`],
    /// [`SeekTableError::Sizes`].
    pub fn read(&self, table: &[u8], frames: &mut [Frame]) -> Result<(), SeekTableError> {
        let content_len = self.byte_len().saturating_sub(HEADER_LEN);
        if table.len() as u64 != self.byte_len() || frames.len() != self.frames() {
            return Err(SeekTableError::TableLength);
        }
        let Some((header, entries)) = table.split_at_checked(HEADER_LEN as usize) else {
            return Err(SeekTableError::TableLength);
        };
        if number(header, 0) != Some(SKIPPABLE_MAGIC) {
            return Err(SeekTableError::NotSeekable);
        }
        if number(header, 4).map(u64::from) != Some(content_len) {
            return Err(SeekTableError::TableLength);
        }

        let (mut end, mut content_end) = (0u64, 0u64);
        for (entry, frame) in entries
            .chunks_exact(self.entry_len())
            .zip(frames.iter_mut())
        {
            let (Some(size), Some(content_size)) = (number(entry, 0), number(entry, 4)) else {
                return Err(SeekTableError::TableLength);
            };
            if size > MAX_FRAME_SIZE || content_size > MAX_FRAME_SIZE {
                return Err(SeekTableError::FrameTooLarge);
            }
            // The number of frames and their sizes are limited, so that the sums cannot overflow.
            end = end.saturating_add(size.into());
            content_end = content_end.saturating_add(content_size.into());
            *frame = Frame {
                end,
                content_end,
                checksum: number(entry, 8),
            };
        }
        if end.saturating_add(self.byte_len()) != self.blob_len {
            return Err(SeekTableError::Sizes);
        }
        Ok(())
    }
}

/// Reads a little-endian number.
fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|number| u32::from_le_bytes(*number))
}

#[cfg(test)]
#[allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::unwrap_used
)]
mod tests {
    extern crate std;

    use super::*;
    use std::{vec, vec::Vec};

    /// Returns a blob of frames of these sizes, whose bytes are zero, with its seek table.
    fn blob(sizes: &[(u32, u32)], checksums: bool) -> Vec<u8> {
        let mut blob = vec![0; sizes.iter().map(|s| s.0 as usize).sum()];
        let entry = if checksums { 12 } else { 8 };
        blob.extend(SKIPPABLE_MAGIC.to_le_bytes());
        blob.extend(((sizes.len() * entry + 9) as u32).to_le_bytes());
        for (i, (size, content)) in sizes.iter().enumerate() {
            blob.extend(size.to_le_bytes());
            blob.extend(content.to_le_bytes());
            if checksums {
                blob.extend((i as u32).to_le_bytes());
            }
        }
        blob.extend((sizes.len() as u32).to_le_bytes());
        blob.push(if checksums { 0x80 } else { 0 });
        blob.extend(TABLE_MAGIC.to_le_bytes());
        blob
    }

    fn read(blob: &[u8]) -> Result<Vec<Frame>, SeekTableError> {
        let footer = &blob[blob.len().saturating_sub(SEEK_TABLE_FOOTER_LEN)..];
        let table = SeekTable::parse_footer(footer, blob.len() as u64)?;
        let mut frames = vec![Frame::default(); table.frames()];
        table.read(&blob[blob.len() - table.byte_len() as usize..], &mut frames)?;
        Ok(frames)
    }

    #[test]
    fn sums_are_right() {
        for checksums in [false, true] {
            let frames = read(&blob(&[(10, 4096), (0, 0), (20, 1)], checksums)).unwrap();
            let sums: Vec<_> = frames.iter().map(|f| (f.end, f.content_end)).collect();
            assert_eq!(sums, [(10, 4096), (10, 4096), (30, 4097)]);
            assert_eq!(frames[2].checksum, checksums.then_some(2));
        }
        assert_eq!(read(&blob(&[], false)), Ok(vec![]));
    }

    #[test]
    fn each_fault_is_told() {
        let good = blob(&[(10, 4096), (20, 4096)], true);
        let len = good.len();
        let with = |at: usize, byte: u8| {
            let mut bad = good.clone();
            bad[at] = byte;
            read(&bad)
        };
        assert_eq!(with(len - 1, 0), Err(SeekTableError::NotSeekable));
        assert_eq!(with(len - 5, 0x84), Err(SeekTableError::Descriptor));
        assert_eq!(with(len - 7, 0xff), Err(SeekTableError::TooManyFrames));
        assert_eq!(with(len - 9, 200), Err(SeekTableError::TableLength));
        assert_eq!(with(30, 0), Err(SeekTableError::NotSeekable));
        assert_eq!(with(34, 0), Err(SeekTableError::TableLength));
        assert_eq!(with(38, 11), Err(SeekTableError::Sizes));
        assert_eq!(with(41, 1), Err(SeekTableError::FrameTooLarge));
        assert_eq!(with(45, 1), Err(SeekTableError::FrameTooLarge));
        for cut in 0..len {
            assert!(read(&good[..cut]).is_err());
        }
        let mut longer = vec![0];
        longer.extend(&good);
        assert_eq!(read(&longer), Err(SeekTableError::Sizes));
    }
}
