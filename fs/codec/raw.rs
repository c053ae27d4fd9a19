// SPDX-License-Identifier: GPL-2.0

//! Fills folios from raw blobs.

use super::plan::BlobPart;
use crate::{
    base::{
        fault::Fault,
        limits::MAX_STORED,
        range::ByteRange,
        statistics::Statistics,
        trace::{Origin, Start},
    },
    io::{buffer::Source, pool::Workspace},
    store::blob::Blob,
    vfs::FolioRun,
};

/// Fills a run with a part of a raw blob.
///
/// Leaves nothing in the page cache of the lower filesystem if that is possible and there is a
/// workspace.
pub(crate) fn fill(
    statistics: &Statistics,
    workspace: Option<&mut Workspace>,
    part: BlobPart<'_>,
    run: &mut FolioRun<'_>,
) -> Result<(), Fault> {
    let around = |range| part.around(range);
    let start = Start::of_chunk();
    let origin = fill_range(statistics, workspace, part.blob, part.range, around, run)?;
    part.traced(part.range).came_from(origin, start);
    Ok(())
}

/// Fills a run with a range of a file, as it is stored. `around` returns the range to read at once
/// for a part of it. Returns the source of the last bytes.
///
/// Bytes that were prefetched need no workspace.
pub(super) fn fill_range(
    statistics: &Statistics,
    workspace: Option<&mut Workspace>,
    blob: &Blob,
    range: ByteRange,
    around: impl Fn(ByteRange) -> ByteRange,
    run: &mut FolioRun<'_>,
) -> Result<Origin, Fault> {
    let file = blob.file();
    let Source { id, prefetch, .. } = blob.source();
    let range = prefetch.give(id, file.version(), range, |bytes| {
        statistics.bytes_read.add(bytes.len() as u64);
        run.fill_bytes(bytes);
    })?;
    if range.len == 0 {
        return Ok(Origin::Prefetched);
    }
    let Some(workspace) =
        workspace.filter(|_| file.is_range_read_past_cache(range.offset, range.len))
    else {
        run.fill_from(file, range.offset, range.len)?;
        statistics.bytes_read.add(range.len);
        return Ok(Origin::Lower);
    };
    let mut left = range;
    while left.len > 0 {
        let next = ByteRange {
            len: left.len.min(MAX_STORED as u64),
            ..left
        };
        let (source, around) = (blob.source(), around(next));
        let buffer = &mut workspace.buffer;
        let place = buffer.read_place(source, statistics, next, around)?;
        run.fill_bytes(buffer.get(&place)?);
        left = left.after(next.len);
    }
    Ok(workspace.buffer.origin())
}
