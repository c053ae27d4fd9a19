// SPDX-License-Identifier: GPL-2.0

//! Fills folios from compressed blobs, frame by frame.

use super::{context::ReadContext, frame::FramePart, plan::BlobPart};
use crate::{
    base::{
        fault::Fault, limits::MAX_STORED, range::ByteRange, statistics::Statistics, trace::Start,
    },
    io::{buffer::BlobBuffer, pool::Workspace},
    store::frame_table::FrameTable,
    vfs::{prelude::*, FolioRun},
};
use core::ops::Range;
use kernel::sync::Arc;
use puzzlefs_schema::{SeekTable, SEEK_TABLE_FOOTER_LEN};

/// Returns the frames of a compressed blob, which are read on their first use.
fn frame_table(
    statistics: &Statistics,
    buffer: &mut BlobBuffer,
    part: BlobPart<'_>,
) -> Result<Arc<FrameTable>, Fault> {
    let blob = part.blob;
    if let Some(table) = blob.frame_table() {
        return Ok(table.clone());
    }
    let size = blob.size();
    let at_end = |len: u64| ByteRange {
        offset: size.saturating_sub(len),
        len: len.min(size),
    };
    let footer = at_end(SEEK_TABLE_FOOTER_LEN as u64);
    let place = buffer.read_place(blob.source(), statistics, footer, part.around(footer))?;
    let footer = buffer
        .get(&place)?
        .first_chunk::<SEEK_TABLE_FOOTER_LEN>()
        .ok_or(Fault::TooShort)?;
    let seek_table = SeekTable::parse_footer(footer, size)?;
    let stored = at_end(seek_table.byte_len());
    // A table of more frames than most blobs have, with checksums.
    let mut larger;
    let buffer = if stored.len <= buffer.room() as u64 {
        buffer
    } else {
        larger = BlobBuffer::new(stored.len as usize)?;
        &mut larger
    };
    let place = buffer.read_place(blob.source(), statistics, stored, part.around(stored))?;
    let bytes = buffer.get(&place)?;
    let table = Arc::new(FrameTable::read(&seek_table, bytes)?, GFP_KERNEL)?;
    blob.set_frame_table(&table);
    Ok(table)
}

/// Returns the range of the content of a frame: the one that a part begins in.
///
/// Waits for a workspace if the frames are not known yet.
pub(crate) fn frame_at(context: ReadContext<'_>, part: BlobPart<'_>) -> Option<ByteRange> {
    let find = |table: &FrameTable| {
        let index = table.covering(part.range).start;
        table.has(index).then(|| table.content(index))
    };
    if let Some(table) = part.blob.frame_table() {
        return find(table);
    }
    let read = |workspace: Option<&mut Workspace>| {
        let table = frame_table(context.statistics, &mut workspace?.buffer, part);
        find(&*table.ok()?)
    };
    context
        .workspaces
        .with(context.returns, part.purpose(), false, read)
        .ok()?
}

/// Fills a run with a part of a compressed blob.
pub(crate) fn fill(
    context: ReadContext<'_>,
    workspace: &mut Workspace,
    part: BlobPart<'_>,
    run: &mut FolioRun<'_>,
) -> Result<(), Fault> {
    let table = frame_table(context.statistics, &mut workspace.buffer, part)?;
    let mut frames = table.covering(part.range);
    while !frames.is_empty() {
        let first = FramePart::new(
            &table,
            frames.start,
            part.frame_name(frames.start),
            part.range,
        );
        if first.fill_from(context.frames, run) {
            // It need not even be read.
            frames.start += 1;
            continue;
        }
        let group = group(context, &table, part, &frames);
        fill_group(context, workspace, &table, part, group.clone(), run)?;
        frames.start = group.end;
    }
    table.check_end(part.range)
}

/// Returns the first of some frames that are read at once: as many as fit into a buffer, up to one
/// that is decompressed already.
fn group(
    context: ReadContext<'_>,
    table: &FrameTable,
    part: BlobPart<'_>,
    frames: &Range<usize>,
) -> Range<usize> {
    let mut group = frames.start..frames.start + 1;
    while group.end < frames.end
        && !context.frames.has(part.frame_name(group.end))
        && table.stored(group.start..group.end + 1).len <= MAX_STORED as u64
    {
        group.end += 1;
    }
    group
}

/// Reads a group of frames at once, and fills a run with those bytes of a part that they hold.
fn fill_group(
    context: ReadContext<'_>,
    workspace: &mut Workspace,
    table: &FrameTable,
    part: BlobPart<'_>,
    group: Range<usize>,
    run: &mut FolioRun<'_>,
) -> Result<(), Fault> {
    let Workspace { decoder, buffer } = workspace;
    let range = table.stored(group.clone());
    let around = part.around(range);
    let start = Start::of_chunk();
    let place = buffer.read_place(part.blob.source(), context.statistics, range, around)?;
    part.traced(range).came_from(buffer.origin(), start);
    let stored = buffer.get(&place)?;
    for index in group {
        let frame = table.stored(index..index + 1);
        let from = (frame.offset - range.offset) as usize;
        let frame = stored
            .get(from..from + frame.len as usize)
            .ok_or(Fault::Errno(EIO))?;
        FramePart::new(table, index, part.frame_name(index), part.range)
            .fill(context, frame, decoder, run)?;
    }
    Ok(())
}
