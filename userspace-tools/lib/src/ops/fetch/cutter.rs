// SPDX-License-Identifier: MIT OR Apache-2.0

//! Cuts a stream of bytes of a pack into chunks.

use crate::error::{FetchError, Result};
use crate::model::digest::Digest;
use puzzlefs_schema::v4::PackedChunk;

/// Cuts the bytes of a range of a pack into chunks, and compares each with its digest.
pub(super) struct ChunkCutter<'c> {
    pack: Digest,
    /// The chunks that are still to come.
    chunks: std::slice::Iter<'c, PackedChunk>,
    /// The position in the pack of the next byte.
    position: u64,
    /// The bytes of the next chunk so far.
    stored: Vec<u8>,
}

impl<'c> ChunkCutter<'c> {
    /// Starts at a position in a pack. The chunks are in order of position, and the first one is not
    /// before it.
    pub fn new(pack: Digest, position: u64, chunks: &'c [PackedChunk]) -> Self {
        ChunkCutter {
            pack,
            chunks: chunks.iter(),
            position,
            stored: Vec::new(),
        }
    }

    /// Takes the next bytes, and gives each chunk that they complete. Bytes of no chunk are skipped.
    pub fn push(
        &mut self,
        mut bytes: &[u8],
        mut give: impl FnMut(&Digest, &[u8]) -> Result<()>,
    ) -> Result<()> {
        while let Some(chunk) = self.chunks.as_slice().first() {
            let gap = chunk.offset.saturating_sub(self.position);
            let skipped = gap.min(bytes.len() as u64) as usize;
            bytes = bytes.get(skipped..).unwrap_or_default();
            self.position += skipped as u64;
            let missing = (chunk.stored_len as usize).saturating_sub(self.stored.len());
            let taken = missing.min(bytes.len());
            let (mine, rest) = bytes.split_at(taken);
            if (skipped as u64) < gap {
                return Ok(());
            }
            // A stored length is at most 1 MiB.
            self.stored.extend_from_slice(mine);
            self.position += taken as u64;
            bytes = rest;
            if taken < missing {
                return Ok(());
            }
            let wanted = Digest::from(chunk.digest);
            let found = Digest::of(&self.stored);
            if found != wanted {
                let pack = self.pack;
                return Err(FetchError::Chunk {
                    pack,
                    wanted,
                    found,
                }
                .into());
            }
            give(&wanted, &self.stored)?;
            self.stored.clear();
            self.chunks.next();
        }
        Ok(())
    }

    /// The position in the pack of the next byte.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Returns true if all chunks were given.
    pub fn is_done(&self) -> bool {
        self.chunks.as_slice().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pack of these chunks, with this number of zeros before each.
    fn pack(chunks: &[&[u8]], gap: u64) -> (Vec<u8>, Vec<PackedChunk>) {
        let (mut bytes, mut packed) = (Vec::new(), Vec::new());
        for chunk in chunks {
            bytes.resize(bytes.len() + gap as usize, 0);
            packed.push(PackedChunk {
                digest: Digest::of(chunk).into(),
                offset: bytes.len() as u64,
                stored_len: chunk.len() as u32,
            });
            bytes.extend_from_slice(chunk);
        }
        (bytes, packed)
    }

    #[test]
    fn pieces_of_any_length_give_the_same_chunks() {
        let chunks: [&[u8]; 3] = [b"one", b"second", b"3"];
        for gap in [0, 5] {
            let (bytes, packed) = pack(&chunks, gap);
            for length in 1..=bytes.len() {
                let mut found = Vec::new();
                let mut cutter = ChunkCutter::new(Digest([0; 32]), 0, &packed);
                for piece in bytes.chunks(length) {
                    cutter
                        .push(piece, |_, stored| {
                            found.push(stored.to_vec());
                            Ok(())
                        })
                        .unwrap();
                }
                assert!(cutter.is_done());
                assert_eq!(found, chunks);
            }
        }
    }

    #[test]
    fn chunks_that_are_not_needed_are_skipped() {
        let (bytes, packed) = pack(&[b"one", b"second", b"3"], 0);
        let needed = [packed[0], packed[2]];
        let mut found = Vec::new();
        let mut cutter = ChunkCutter::new(Digest([0; 32]), 0, &needed);
        cutter
            .push(&bytes, |_, stored| {
                found.extend_from_slice(stored);
                Ok(())
            })
            .unwrap();
        assert_eq!(found, b"one3");
    }

    #[test]
    fn a_changed_chunk_is_an_error() {
        let (mut bytes, packed) = pack(&[b"one", b"second"], 0);
        bytes[4] ^= 1;
        let mut given = 0;
        let mut cutter = ChunkCutter::new(Digest([0; 32]), 0, &packed);
        let result = cutter.push(&bytes, |_, _| {
            given += 1;
            Ok(())
        });
        assert!(result.unwrap_err().to_string().contains("have sha256"));
        assert_eq!(given, 1);
        assert!(!cutter.is_done());
    }
}
