// SPDX-License-Identifier: GPL-2.0

//! Widens short requests to whole frames or chunks.

use super::{extent_map::ExtentPlace, reader::FileReader};
use crate::{
    base::{
        limits::{MAX_WIDENED, MAX_WIDENED_TO},
        range::ByteRange,
    },
    codec::{plan::BlobPart, zstd},
    store::opening::Opening,
};
use core::ops::Range;
use kernel::page::PAGE_SIZE;
use puzzlefs_schema::v4::Encoding;

/// Returns the range to read instead of a short one: all pages that the frames of the range have
/// completely, or its chunks if they are verified. `None` if that is not more.
///
/// A page at the end of a frame is also in the next one, and would cost all of that.
pub(crate) fn widen(reader: &FileReader<'_>, range: &Range<u64>) -> Option<Range<u64>> {
    let size = reader.content.size();
    let whole = range.start == 0 && range.end >= size;
    if whole || range.end - range.start >= MAX_WIDENED {
        return None;
    }
    // Beyond the end of the file nothing is read.
    let last = range.end.min(size).checked_sub(1)?;
    let start = unit(reader, range.start)?.start;
    let end = unit(reader, last)?.end;
    let start = start.checked_next_multiple_of(PAGE_SIZE as u64)?;
    let end = if end < size {
        end - end % PAGE_SIZE as u64
    } else {
        end
    };
    // The image chooses the length of a chunk.
    let wider = start.min(range.start)..end.max(range.end);
    (wider.end.checked_sub(wider.start)? <= MAX_WIDENED_TO).then_some(wider)
}

/// Returns the part of a file that is decoded at once for a position.
fn unit(reader: &FileReader<'_>, position: u64) -> Option<Range<u64>> {
    let extent = reader.map.find(position, Opening::Now).ok()??;
    let start = extent.start;
    let all = start..start.checked_add(extent.len)?;
    let chunk = match extent.data {
        ExtentPlace::Blob(_) if reader.verifies_blobs() => return Some(all),
        ExtentPlace::Blob(chunk) if chunk.compressed => chunk,
        ExtentPlace::Chunk { chunk, .. }
            if reader.verifies_chunks() || chunk.encoding() == Encoding::Zstd =>
        {
            return Some(all)
        }
        ExtentPlace::Hole | ExtentPlace::Blob(_) | ExtentPlace::Chunk { .. } => {
            return Some(position..position + 1)
        }
    };
    let blob = reader.open_blob(&chunk.blob, Opening::Now).ok()?;
    let within = chunk
        .blob_offset
        .checked_add(position.checked_sub(start)?)?;
    let part = BlobPart {
        blob: &blob,
        chunk: &chunk,
        verified: false,
        range: ByteRange {
            offset: within,
            len: 1,
        },
    };
    let frame = zstd::frame_at(reader.context, part)?;
    let from = frame.offset.saturating_sub(chunk.blob_offset);
    let to = frame.end().saturating_sub(chunk.blob_offset);
    Some(start.checked_add(from)?..start.checked_add(to)?.min(all.end))
}
