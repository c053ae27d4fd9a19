// SPDX-License-Identifier: GPL-2.0

//! Fills folios from raw blobs.

use super::plan::BlobPart;
use crate::{
    base::{fault::Fault, limits::MAX_STORED, range::ByteRange, statistics::Statistics},
    io::pool::Workspace,
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
    let file = part.blob.file();
    let Some(workspace) = workspace.filter(|_| file.is_read_past_cache()) else {
        run.fill_from(file, part.range.offset, part.range.len)?;
        statistics.bytes_read.add(part.range.len);
        return Ok(());
    };
    let mut left = part.range;
    while left.len > 0 {
        let next = ByteRange {
            len: left.len.min(MAX_STORED as u64),
            ..left
        };
        let (source, around) = (part.blob.source(), part.around(next));
        run.fill_bytes(workspace.buffer.read(source, statistics, next, around)?);
        left = left.after(next.len);
    }
    Ok(())
}
