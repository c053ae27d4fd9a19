// SPDX-License-Identifier: MIT OR Apache-2.0

//! Compressed blobs: the zstd seekable format.
//!
//! Independent zstd frames, then the seek table in a skippable frame. It has no checksums, because digests
//! reveal damage.
//!
//! Follows `contrib/seekable_format/zstd_seekable_compression_format.md` of zstd, version 0.1.1.

use puzzlefs_schema::{Frame, SeekTable, MAX_FRAME_SIZE, SEEK_TABLE_FOOTER_LEN};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use xxhash_rust::xxh64::xxh64;
use zstd::bulk::{Compressor, Decompressor};

/// The magic number of the skippable frame that the seek table is in.
const SKIPPABLE: u32 = 0x184d_2a5e;
/// The magic number at the end of a seek table.
const SEEKABLE: u32 = 0x8f92_eab1;
/// The part of a blob that compression must save, as a divisor. Otherwise the blob is stored raw,
/// which is faster to read.
const SAVING: usize = 32;

/// The compression of blobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compression {
    /// The level of zstd.
    pub level: i32,
    /// The minimum content of a frame, the unit of decompression, in bytes; at most
    /// [`FRAME_SIZE_MAX`]. Frames are smaller than twice this. A smaller blob is one frame.
    pub frame_size: usize,
}

/// The largest [`Compression::frame_size`]. Frames can be twice as large, and incompressible ones a
/// little larger still, which the limit of readers allows.
pub const FRAME_SIZE_MAX: usize = MAX_FRAME_SIZE as usize / 4;

impl Default for Compression {
    fn default() -> Self {
        Compression {
            level: 3,
            frame_size: 128 << 10,
        }
    }
}

/// Compresses blobs.
pub(crate) struct Encoder {
    compressor: Compressor<'static>,
    frame_size: usize,
}

impl Encoder {
    pub fn new(compression: &Compression) -> io::Result<Self> {
        Ok(Encoder {
            compressor: Compressor::new(compression.level)?,
            frame_size: compression.frame_size.clamp(1, FRAME_SIZE_MAX),
        })
    }

    /// Returns the bytes of a blob with this content, unless compression saves too little.
    pub fn encode(&mut self, content: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let most = content.len() - content.len() / SAVING;
        let mut blob = Vec::new();
        let mut table = Vec::new();
        // Frames of equal size, so that the last one is not small.
        let frames = (content.len() / self.frame_size).max(1);
        for piece in content.chunks(content.len().div_ceil(frames).max(1)) {
            let frame = self.compressor.compress(piece)?;
            blob.extend_from_slice(&frame);
            table.extend_from_slice(&(frame.len() as u32).to_le_bytes());
            table.extend_from_slice(&(piece.len() as u32).to_le_bytes());
            if blob.len() > most {
                return Ok(None);
            }
        }
        let frames = (table.len() / 8) as u32;
        blob.extend_from_slice(&SKIPPABLE.to_le_bytes());
        blob.extend_from_slice(&((table.len() + SEEK_TABLE_FOOTER_LEN) as u32).to_le_bytes());
        blob.extend_from_slice(&table);
        blob.extend_from_slice(&frames.to_le_bytes());
        blob.push(0);
        blob.extend_from_slice(&SEEKABLE.to_le_bytes());
        Ok((blob.len() <= most).then_some(blob))
    }
}

/// Reads the content of a compressed blob.
pub(crate) struct Decoder {
    frames: Vec<Frame>,
    decompressor: Decompressor<'static>,
    stored: Vec<u8>,
    content: Vec<u8>,
    /// The number of the frame in `content`.
    held: Option<usize>,
}

impl Decoder {
    /// Reads the seek table of a blob.
    pub fn new(blob: &File) -> io::Result<Self> {
        let malformed = |error: puzzlefs_schema::SeekTableError| {
            io::Error::new(io::ErrorKind::InvalidData, error.to_string())
        };
        let size = blob.metadata()?.len();
        let mut footer = [0; SEEK_TABLE_FOOTER_LEN];
        let start = size.saturating_sub(SEEK_TABLE_FOOTER_LEN as u64);
        blob.read_exact_at(&mut footer, start)?;
        let table = SeekTable::parse_footer(&footer, size).map_err(malformed)?;
        let mut bytes = vec![0; table.byte_len() as usize];
        blob.read_exact_at(&mut bytes, size - table.byte_len())?;
        let mut frames = vec![Frame::default(); table.frames()];
        table.read(&bytes, &mut frames).map_err(malformed)?;
        Ok(Decoder {
            frames,
            decompressor: Decompressor::new()?,
            stored: Vec::new(),
            content: Vec::new(),
            held: None,
        })
    }

    /// Returns the offsets of a frame in the blob and in the content.
    fn start(&self, index: usize) -> (u64, u64) {
        index
            .checked_sub(1)
            .and_then(|before| self.frames.get(before))
            .map_or((0, 0), |frame| (frame.end, frame.content_end))
    }

    /// Returns the size of the content.
    pub fn content_len(&self) -> u64 {
        self.frames.last().map_or(0, |frame| frame.content_end)
    }

    /// Decompresses everything, and checks the checksums, if there are any.
    pub fn check(&mut self, blob: &File) -> io::Result<()> {
        let mut offset = 0;
        while offset < self.content_len() {
            offset += self.read(blob, offset)?.len() as u64;
            let frame = self.held.and_then(|index| self.frames.get(index));
            let wanted = frame.and_then(|frame| frame.checksum);
            // The format has the lower half of the hash.
            let found = xxh64(&self.content, 0) as u32;
            if wanted.is_some_and(|wanted| wanted != found) {
                let what = "the checksum of a frame is not that of its content";
                return Err(io::Error::new(io::ErrorKind::InvalidData, what));
            }
        }
        Ok(())
    }

    /// Returns the content from an offset to the end of its frame, which is not empty.
    pub fn read(&mut self, blob: &File, offset: u64) -> io::Result<&[u8]> {
        let damaged = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what);
        let index = self
            .frames
            .partition_point(|frame| frame.content_end <= offset);
        let Some(frame) = self.frames.get(index) else {
            return Err(damaged(
                "its content is shorter than the extents that refer to it",
            ));
        };
        let (start, content_start) = self.start(index);
        let stored: Range<u64> = start..frame.end;
        let size = (frame.content_end - content_start) as usize;
        if self.held != Some(index) {
            self.held = None;
            self.stored.resize((stored.end - stored.start) as usize, 0);
            blob.read_exact_at(&mut self.stored, stored.start)?;
            self.content.resize(size, 0);
            let read = self
                .decompressor
                .decompress_to_buffer(&self.stored, &mut self.content[..])
                .map_err(|error| damaged(&format!("a frame cannot be decompressed: {error}")))?;
            if read != size {
                return Err(damaged("the size of a frame differs from the seek table"));
            }
            self.held = Some(index);
        }
        Ok(&self.content[(offset - content_start) as usize..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn text(size: usize) -> Vec<u8> {
        (0..size as u32)
            .flat_map(|number| (number / 7).to_string().into_bytes())
            .take(size)
            .collect()
    }

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn what_was_encoded_is_decoded() {
        for frame_size in [1000, 4096, 128 << 10] {
            let compression = Compression {
                frame_size,
                ..Compression::default()
            };
            let mut encoder = Encoder::new(&compression).unwrap();
            for size in [500, 4096, 300_001] {
                let content = text(size);
                let blob = encoder.encode(&content).unwrap().unwrap();
                assert!(blob.len() < size);
                let blob = file(&blob);
                let mut decoder = Decoder::new(&blob).unwrap();
                for offset in [0, 1, size / 2, size - 1] {
                    let mut read = Vec::new();
                    while offset + read.len() < size {
                        let piece = decoder.read(&blob, (offset + read.len()) as u64).unwrap();
                        assert!(!piece.is_empty());
                        read.extend_from_slice(piece);
                    }
                    assert_eq!(read, content[offset..]);
                }
                assert!(decoder.read(&blob, size as u64).is_err());
            }
        }
    }

    #[test]
    fn what_does_not_shrink_is_left() {
        let mut encoder = Encoder::new(&Compression::default()).unwrap();
        let mut seed = 1u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1);
            (seed >> 56) as u8
        })
        .take(100_000)
        .collect();
        assert_eq!(encoder.encode(&noise).unwrap(), None);
        assert_eq!(encoder.encode(b"").unwrap(), None);
        assert_eq!(encoder.encode(b"aaaa").unwrap(), None);
    }

    #[test]
    fn damage_is_an_error() {
        let blob = Encoder::new(&Compression::default())
            .unwrap()
            .encode(&text(200_000))
            .unwrap()
            .unwrap();
        for at in [0, 5, blob.len() - 1, blob.len() - 6, blob.len() - 20] {
            let mut damaged = blob.clone();
            damaged[at] ^= 0x55;
            let damaged = file(&damaged);
            let read = Decoder::new(&damaged).and_then(|mut d| d.read(&damaged, 0).map(|_| ()));
            assert!(read.is_err(), "byte {at}");
        }
    }
}
