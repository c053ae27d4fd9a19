// SPDX-License-Identifier: MIT OR Apache-2.0

//! The index at the end of a pack of a source.

use super::source::{BlobSource, RemoteBlob};
use crate::error::{Error, FetchError, Result};
use puzzlefs_schema::v4::{PackFooter, PackedChunk, FOOTER_LEN};

/// The first request for the index of a pack is for this part of the pack, within these limits in bytes.
/// A chunk of 64 KiB takes 36 bytes of the index.
const TAIL_PART: u64 = 64;
const TAIL_MIN: u64 = 4 << 10;
const TAIL_MAX: u64 = 64 << 10;
/// The most chunks in all packs of an image that are fetched: 512 GiB of content in chunks of 128 KiB. The
/// limit bounds the memory that a hostile source makes a fetch use.
const CHUNKS_MAX: usize = 4 << 20;

/// The index of a pack. It is well-formed, but nothing has verified it.
pub(super) struct PackIndex {
    /// The index and the footer.
    pub recipe: Vec<u8>,
    /// The exponent of a power of two.
    pub alignment: u8,
    /// The chunks, in order of position.
    pub chunks: Vec<PackedChunk>,
}

impl PackIndex {
    /// Reads the index of a pack. Returns `None` if the source reads whole blobs only.
    ///
    /// A recipe that the store keeps is not used: it came from another source, and nothing has verified it.
    pub fn read(source: &dyn BlobSource, pack: &RemoteBlob) -> Result<Option<Self>> {
        let Some(recipe) = recipe(source, pack)? else {
            return Ok(None);
        };
        let fail = |cause| FetchError::Pack {
            pack: pack.digest,
            cause,
        };
        let footer = PackFooter::parse(&recipe).map_err(fail)?;
        let index = recipe.get(..recipe.len().saturating_sub(FOOTER_LEN));
        let index = footer.index(index.unwrap_or_default()).map_err(fail)?;
        index.check(pack.size).map_err(fail)?;
        // The check has found no error.
        let chunks = index.iter().map_while(|chunk| chunk.ok()).collect();
        let alignment = footer.alignment().trailing_zeros() as u8;
        Ok(Some(PackIndex {
            recipe,
            alignment,
            chunks,
        }))
    }
}

/// Fails if the packs of an image have more chunks than an image can have.
pub(super) fn check_count(chunks: usize) -> Result<()> {
    if chunks > CHUNKS_MAX {
        return Err(FetchError::TooManyChunks { max: CHUNKS_MAX }.into());
    }
    Ok(())
}

/// Reads the index and the footer of a pack. Returns `None` if the source reads whole blobs only.
fn recipe(source: &dyn BlobSource, pack: &RemoteBlob) -> Result<Option<Vec<u8>>> {
    let tail = (pack.size / TAIL_PART).clamp(TAIL_MIN, TAIL_MAX);
    let start = pack.size.saturating_sub(tail);
    let Some(mut tail) = read_tail(source, pack, start, pack.size)? else {
        return Ok(None);
    };
    let fail = |cause| FetchError::Pack {
        pack: pack.digest,
        cause,
    };
    let footer = PackFooter::parse(&tail).map_err(fail)?;
    let start = footer.index_range(pack.size).map_err(fail)?.start;
    let have = pack.size - tail.len() as u64;
    if start < have {
        let Some(mut first) = read_tail(source, pack, start, have)? else {
            return Ok(None);
        };
        first.append(&mut tail);
        return Ok(Some(first));
    }
    Ok(Some(tail.split_off((start - have) as usize)))
}

/// Reads a part of the end of a pack, which is at most an index and a footer long.
fn read_tail(
    source: &dyn BlobSource,
    pack: &RemoteBlob,
    start: u64,
    end: u64,
) -> Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let has_ranges = source.read(pack, start..end, &mut |piece| {
        bytes.extend_from_slice(piece);
        Ok(())
    })?;
    if !has_ranges {
        return Ok(None);
    }
    let found = bytes.len() as u64;
    if found != end - start {
        return Err(length(pack, end - start, found));
    }
    Ok(Some(bytes))
}

/// Returns the error for a blob, or a part of one, that has another length.
pub(super) fn length(blob: &RemoteBlob, wanted: u64, found: u64) -> Error {
    let blob = blob.digest;
    FetchError::Length {
        blob,
        wanted,
        found,
    }
    .into()
}
