// SPDX-License-Identifier: GPL-2.0

//! Fills folios from blobs that are verified as a whole.
//!
//! The bytes that are used are those that were hashed, in the same buffer. A blob that changes in
//! between therefore gives nothing that was not checked.

use super::{context::ReadContext, frame::FramePart, plan::BlobPart};
use crate::{
    base::{
        fault::Fault,
        statistics::Statistics,
        trace::{self, Start},
    },
    io::{buffer::BlobBuffer, pool::Workspace},
    ports::sha256::{Digest as _, Sha256},
    store::frame_table::FrameTable,
    vfs::FolioRun,
};
use puzzlefs_schema::{Digest, SeekTable, SEEK_TABLE_FOOTER_LEN};

/// Hashes stored bytes. Returns true if they have a digest.
// Not inlined, so that chunks are read without its variables on the stack.
#[inline(never)]
pub(super) fn has_digest(stored: &[u8], digest: &Digest) -> bool {
    let start = Start::of_decode();
    let mut hash = Sha256::new();
    hash.update(stored);
    let is_right = hash.finalize()[..] == digest.as_bytes()[..];
    trace::hashed(start, stored.len());
    is_right
}

/// Reads all of a blob, unless it is in the buffer, and checks its digest.
fn verify(
    statistics: &Statistics,
    buffer: &mut BlobBuffer,
    part: BlobPart<'_>,
) -> Result<(), Fault> {
    let (blob, digest) = (part.blob, &part.chunk.blob);
    let all = blob.all();
    let start = Start::of_chunk();
    let place = buffer.read_place(blob.source(), statistics, all, all)?;
    part.traced(all).came_from(buffer.origin(), start);
    let is_right = has_digest(buffer.get(&place)?, digest);
    statistics.bytes_hashed.add(all.len);
    if !is_right {
        // Otherwise the next reader would not read it again.
        buffer.clear();
        return Err(Fault::Digest);
    }
    buffer.set_verified(&place, digest);
    Ok(())
}

/// Fills a run with a part of a blob, all of which is read and hashed first.
pub(crate) fn fill(
    context: ReadContext<'_>,
    workspace: &mut Workspace,
    part: BlobPart<'_>,
    run: &mut FolioRun<'_>,
) -> Result<(), Fault> {
    let digest = &part.chunk.blob;
    if workspace.buffer.verified(digest).is_none() {
        verify(context.statistics, &mut workspace.buffer, part)?;
    }
    if part.chunk.compressed {
        return fill_frames(context, workspace, part, run);
    }
    let stored = workspace.buffer.verified(digest).ok_or(Fault::TooShort)?;
    let wanted = usize::try_from(part.range.offset)
        .ok()
        .zip(usize::try_from(part.range.end()).ok())
        .and_then(|(offset, end)| stored.get(offset..end))
        .ok_or(Fault::TooShort)?;
    run.fill_bytes(wanted);
    Ok(())
}

/// Fills a run with a part of a compressed blob that the buffer holds verified.
fn fill_frames(
    context: ReadContext<'_>,
    workspace: &mut Workspace,
    part: BlobPart<'_>,
    run: &mut FolioRun<'_>,
) -> Result<(), Fault> {
    let Workspace { decoder, buffer } = workspace;
    let stored = buffer.verified(&part.chunk.blob).ok_or(Fault::TooShort)?;
    let size = stored.len();
    let footer = stored
        .last_chunk::<SEEK_TABLE_FOOTER_LEN>()
        .ok_or(Fault::TooShort)?;
    let seek_table = SeekTable::parse_footer(footer, size as u64)?;
    let bytes = stored
        .get(size.saturating_sub(seek_table.byte_len() as usize)..)
        .ok_or(Fault::TooShort)?;
    // Not the blob's own table, which was not verified.
    let table = FrameTable::read(&seek_table, bytes)?;
    for index in table.covering(part.range) {
        let frame = table.stored(index..index + 1);
        let frame = stored
            .get(frame.offset as usize..frame.end() as usize)
            .ok_or(Fault::TooShort)?;
        FramePart::new(&table, index, part.frame_name(index), part.range)
            .fill(context, frame, decoder, run)?;
    }
    table.check_end(part.range)
}
