// SPDX-License-Identifier: MIT OR Apache-2.0

//! References to chunks, and the frames of compressed ones.

use super::{
    limits::{MAX_CHUNK_CONTENT, MAX_METADATA_CONTENT, MIN_METADATA_CONTENT},
    words::{u16_at, u32_at, u64_at},
};
use crate::digest::Digest;
use core::fmt;

/// The encoding of a chunk's stored bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// The stored bytes are the content.
    Raw,
    /// The stored bytes are one zstd frame.
    Zstd,
}

/// A violated rule of chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ChunkError {
    /// The stored length is 0, or larger than the content length.
    StoredLength,
    /// The content is not 1 byte to [`MAX_CHUNK_CONTENT`].
    DataLength,
    /// The content is not [`MIN_METADATA_CONTENT`] to [`MAX_METADATA_CONTENT`] bytes, or not a
    /// multiple of 8.
    MetadataLength,
    /// The stored bytes are not a zstd frame.
    NotAFrame,
    /// The header of the zstd frame is incomplete.
    TruncatedFrame,
    /// The zstd frame uses a reserved bit.
    ReservedBit,
    /// The zstd frame needs a dictionary.
    Dictionary,
    /// The zstd frame has a checksum.
    Checksum,
    /// The zstd frame does not state its content size.
    NoContentSize,
    /// The zstd frame states another content size than the reference.
    ContentSize,
    /// A root is neither a raw message nor a zstd frame.
    NotARoot,
}

impl fmt::Display for ChunkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::StoredLength => "the stored length is 0 or larger than the content length",
            Self::DataLength => "the content length of a data chunk is not 1 to 1048576",
            Self::MetadataLength => {
                "the content length of a metadata chunk is not a multiple of 8 from 8 to 262144"
            }
            Self::NotAFrame => "the chunk is not a zstd frame",
            Self::TruncatedFrame => "the header of the zstd frame is incomplete",
            Self::ReservedBit => "the zstd frame has a reserved bit set",
            Self::Dictionary => "the zstd frame needs a dictionary",
            Self::Checksum => "the zstd frame has a checksum",
            Self::NoContentSize => "the zstd frame does not state its content size",
            Self::ContentSize => "the zstd frame states another content size than the metadata",
            Self::NotARoot => "the root is neither a raw message nor a zstd frame",
        })
    }
}

impl core::error::Error for ChunkError {}

/// A reference to a chunk.
///
/// # Invariants
///
/// `stored_len` is 1 to `content_len`, which is at most [`MAX_CHUNK_CONTENT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChunkRef {
    digest: Digest,
    stored_len: u32,
    content_len: u32,
}

impl ChunkRef {
    /// The length of a reference in a metadata message, in bytes: digest, stored length, content
    /// length.
    pub const LEN: usize = 40;

    /// Makes a reference to a chunk.
    ///
    /// # Errors
    ///
    /// [`ChunkError::DataLength`], [`ChunkError::StoredLength`].
    pub fn new(digest: Digest, stored_len: u32, content_len: u32) -> Result<Self, ChunkError> {
        if !(1..=MAX_CHUNK_CONTENT).contains(&content_len) {
            return Err(ChunkError::DataLength);
        }
        if !(1..=content_len).contains(&stored_len) {
            return Err(ChunkError::StoredLength);
        }
        // INVARIANT: Both were just checked.
        Ok(Self {
            digest,
            stored_len,
            content_len,
        })
    }

    /// Makes a reference to a metadata chunk.
    ///
    /// # Errors
    ///
    /// [`ChunkError::MetadataLength`], [`ChunkError::StoredLength`].
    pub fn new_metadata(
        digest: Digest,
        stored_len: u32,
        content_len: u32,
    ) -> Result<Self, ChunkError> {
        check_metadata_len(content_len)?;
        Self::new(digest, stored_len, content_len)
    }

    /// Checks that the chunk can be a metadata chunk.
    ///
    /// # Errors
    ///
    /// [`ChunkError::MetadataLength`].
    pub fn check_metadata(&self) -> Result<(), ChunkError> {
        check_metadata_len(self.content_len)
    }

    /// The SHA-256 of the stored bytes.
    pub const fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The number of stored bytes.
    pub const fn stored_len(&self) -> u32 {
        self.stored_len
    }

    /// The number of bytes of content.
    pub const fn content_len(&self) -> u32 {
        self.content_len
    }

    /// The encoding of the stored bytes.
    pub const fn encoding(&self) -> Encoding {
        if self.stored_len == self.content_len {
            Encoding::Raw
        } else {
            Encoding::Zstd
        }
    }

    /// Checks the header of the stored bytes, if they are a zstd frame.
    ///
    /// Whether the frame is the whole chunk, and has as much content as it states, its decompression
    /// shows.
    ///
    /// # Errors
    ///
    /// Those of [`frame_content_len`], and [`ChunkError::ContentSize`].
    pub fn check_frame(&self, stored: &[u8]) -> Result<(), ChunkError> {
        match self.encoding() {
            Encoding::Raw => Ok(()),
            Encoding::Zstd if frame_content_len(stored)? == u64::from(self.content_len) => Ok(()),
            Encoding::Zstd => Err(ChunkError::ContentSize),
        }
    }
}

/// Checks the content length of a metadata chunk.
fn check_metadata_len(len: u32) -> Result<(), ChunkError> {
    if (MIN_METADATA_CONTENT..=MAX_METADATA_CONTENT).contains(&len) && len % 8 == 0 {
        Ok(())
    } else {
        Err(ChunkError::MetadataLength)
    }
}

/// The magic number of a zstd frame.
const FRAME_MAGIC: u32 = 0xFD2F_B528;

/// The number of bytes at the beginning of a zstd frame that state its content size, at most: magic
/// number, descriptor, window, and content size.
pub const FRAME_HEADER_LEN: usize = 14;

/// Returns the content size that a zstd frame states. The first [`FRAME_HEADER_LEN`] bytes suffice.
///
/// Reference: RFC 8878, section 3.1.1.1.
///
/// # Errors
///
/// [`ChunkError::NotAFrame`], [`ChunkError::TruncatedFrame`], [`ChunkError::ReservedBit`],
/// [`ChunkError::Dictionary`], [`ChunkError::Checksum`], [`ChunkError::NoContentSize`].
pub fn frame_content_len(stored: &[u8]) -> Result<u64, ChunkError> {
    const DESCRIPTOR: usize = 4;
    if u32_at(stored, 0) != Some(FRAME_MAGIC) {
        return Err(ChunkError::NotAFrame);
    }
    let descriptor = *stored.get(DESCRIPTOR).ok_or(ChunkError::TruncatedFrame)?;
    if descriptor & 0b1000 != 0 {
        return Err(ChunkError::ReservedBit);
    }
    if descriptor & 0b11 != 0 {
        return Err(ChunkError::Dictionary);
    }
    if descriptor & 0b100 != 0 {
        return Err(ChunkError::Checksum);
    }
    let is_single_segment = descriptor & 0b10_0000 != 0;
    // A frame of several segments has a byte for its window size.
    let at = if is_single_segment { 5 } else { 6 };
    let size = match descriptor >> 6 {
        0 if !is_single_segment => return Err(ChunkError::NoContentSize),
        0 => stored.get(at).copied().map(u64::from),
        1 => u16_at(stored, at).map(|size| u64::from(size).saturating_add(256)),
        2 => u32_at(stored, at).map(u64::from),
        _ => u64_at(stored, at),
    };
    size.ok_or(ChunkError::TruncatedFrame)
}

/// Makes the reference to a root from its stored bytes, whose content length nothing else states.
/// The first [`FRAME_HEADER_LEN`] bytes of the root suffice as `stored`.
///
/// # Errors
///
/// [`ChunkError::NotARoot`], those of [`frame_content_len`], and those of
/// [`ChunkRef::new_metadata`].
pub fn root_ref(digest: Digest, stored_len: u32, stored: &[u8]) -> Result<ChunkRef, ChunkError> {
    let content_len = match u32_at(stored, 0) {
        // The stream framing: one segment.
        Some(0) => stored_len,
        Some(FRAME_MAGIC) => {
            let len = frame_content_len(stored)?;
            let len = u32::try_from(len).map_err(|_| ChunkError::MetadataLength)?;
            // Equal lengths would say that the frame is the content.
            if len <= stored_len {
                return Err(ChunkError::StoredLength);
            }
            len
        }
        _ => return Err(ChunkError::NotARoot),
    };
    ChunkRef::new_metadata(digest, stored_len, content_len)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: Digest = Digest::new([7; 32]);

    #[test]
    fn lengths_decide_the_encoding() {
        let raw = ChunkRef::new(DIGEST, 1 << 20, 1 << 20).map(|chunk| chunk.encoding());
        assert_eq!(raw, Ok(Encoding::Raw));
        let zstd = ChunkRef::new(DIGEST, 1, 2).map(|chunk| chunk.encoding());
        assert_eq!(zstd, Ok(Encoding::Zstd));
    }

    #[test]
    fn lengths_have_limits() {
        let data = |stored, content| ChunkRef::new(DIGEST, stored, content).err();
        assert_eq!(data(0, 0), Some(ChunkError::DataLength));
        assert_eq!(data(1, (1 << 20) + 1), Some(ChunkError::DataLength));
        assert_eq!(data(0, 1), Some(ChunkError::StoredLength));
        assert_eq!(data(2, 1), Some(ChunkError::StoredLength));
        let metadata = |content| ChunkRef::new_metadata(DIGEST, 1, content).err();
        assert_eq!(metadata(8), None);
        assert_eq!(metadata(256 << 10), None);
        for len in [0, 7, 9, (256 << 10) + 8, 1 << 20] {
            assert_eq!(metadata(len), Some(ChunkError::MetadataLength), "{len}");
        }
    }

    #[test]
    fn frames_state_their_content() {
        let header = |descriptor: u8, rest: &[u8]| {
            let mut stored = FRAME_MAGIC.to_le_bytes().to_vec();
            stored.push(descriptor);
            stored.extend(rest);
            frame_content_len(&stored)
        };
        assert_eq!(header(0x20, &[9]), Ok(9));
        assert_eq!(header(0x60, &[1, 0]), Ok(257));
        assert_eq!(header(0x40, &[0x50, 1, 0]), Ok(257));
        assert_eq!(header(0xa0, &[0, 0, 1, 0]), Ok(1 << 16));
        assert_eq!(header(0xe0, &[255; 8]), Ok(u64::MAX));
        assert_eq!(header(0xc0, &[0, 2, 0, 0, 0, 0, 0, 0, 0]), Ok(2));
        assert_eq!(header(0x00, &[0x50; 9]), Err(ChunkError::NoContentSize));
        assert_eq!(header(0x24, &[9]), Err(ChunkError::Checksum));
        assert_eq!(header(0x21, &[9]), Err(ChunkError::Dictionary));
        assert_eq!(header(0x28, &[9]), Err(ChunkError::ReservedBit));
        assert_eq!(header(0xe0, &[255; 7]), Err(ChunkError::TruncatedFrame));
        assert_eq!(header(0x20, &[]), Err(ChunkError::TruncatedFrame));
        assert_eq!(
            frame_content_len(&[0x28, 0xb5, 0x2f, 0xfd]),
            Err(ChunkError::TruncatedFrame)
        );
        assert_eq!(frame_content_len(&[0; 20]), Err(ChunkError::NotAFrame));
    }

    #[test]
    fn frames_agree_with_the_reference() {
        let stored = [0x28, 0xb5, 0x2f, 0xfd, 0x20, 16, 0, 0];
        let check = |stored_len, content_len| {
            ChunkRef::new(DIGEST, stored_len, content_len)?.check_frame(&stored)
        };
        assert_eq!(check(8, 16), Ok(()));
        assert_eq!(check(8, 17), Err(ChunkError::ContentSize));
        // Raw content may look like a frame.
        assert_eq!(check(8, 8), Ok(()));
    }

    #[test]
    fn a_root_says_its_length() {
        let root = |stored_len, stored: &[u8]| {
            root_ref(DIGEST, stored_len, stored).map(|chunk| chunk.content_len())
        };
        assert_eq!(root(800, &[0, 0, 0, 0, 99, 0, 0, 0]), Ok(800));
        let frame = |size| [0x28, 0xb5, 0x2f, 0xfd, 0x20, size];
        assert_eq!(root(15, &frame(16)), Ok(16));
        assert_eq!(root(16, &frame(16)), Err(ChunkError::StoredLength));
        assert_eq!(root(1, &frame(7)), Err(ChunkError::MetadataLength));
        assert_eq!(root(801, &[0; 8]), Err(ChunkError::MetadataLength));
        assert_eq!(root(8, b"{\"schema"), Err(ChunkError::NotARoot));
        let mut huge = [0xff; 13];
        huge[..5].copy_from_slice(&[0x28, 0xb5, 0x2f, 0xfd, 0xe0]);
        assert_eq!(root(16, &huge), Err(ChunkError::MetadataLength));
    }
}
