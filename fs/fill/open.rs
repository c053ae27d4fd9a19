// SPDX-License-Identifier: GPL-2.0

//! Opens the blobs of files before they are read.

use super::{content::Content, reader::FileReader};
use crate::{
    base::limits::{MAX_CHUNKS_PINNED, MAX_CHUNKS_PREPARED},
    store::{opening::Opening, pins::Pins},
    vfs::prelude::*,
};
use core::ops::{ControlFlow, Range};
use puzzlefs_schema::{Chunk, ErrorKind};

/// Opens the first blobs of a file that has been opened, and keeps them open until [`release`].
///
/// A blob that cannot be opened is an error of the reads that need it.
///
/// # Errors
///
/// [`EINTR`] if the task is being killed, [`ENOMEM`].
pub(crate) fn open(reader: &FileReader<'_>) -> Result {
    let pins = reader.content.pins_or_new()?;
    if !pins.open() {
        return Ok(());
    }
    let mut seen = 0;
    let opened = reader.extents().for_each_from(0, |chunk| {
        seen += 1;
        match pin(reader, pins, &chunk) {
            ControlFlow::Continue(()) if seen < MAX_CHUNKS_PINNED => ControlFlow::Continue(()),
            ControlFlow::Continue(()) => ControlFlow::Break(Ok(())),
            stop => stop,
        }
    });
    let result = match opened {
        Ok(ControlFlow::Break(result)) => result,
        Err(e) if e.kind() == ErrorKind::Interrupted => Err(EINTR),
        // Malformed extents are reported when they are read.
        Ok(ControlFlow::Continue(())) | Err(_) => Ok(()),
    };
    if result.is_err() {
        pins.release();
    }
    result
}

/// Opens the blob of a chunk and keeps it open. Returns `Break` if enough blobs are open.
fn pin(reader: &FileReader<'_>, pins: &Pins, chunk: &Chunk) -> ControlFlow<Result> {
    if pins.find(&chunk.blob).is_some() {
        return ControlFlow::Continue(());
    }
    match reader.open_in_store(&chunk.blob, Opening::Waiting) {
        Ok(blob) if pins.add(&chunk.blob, &blob) => ControlFlow::Continue(()),
        Ok(_) => ControlFlow::Break(Ok(())),
        Err(fault) if fault.is_interruption() => ControlFlow::Break(Err(EINTR)),
        Err(fault) if fault.is_timeout() => ControlFlow::Break(Ok(())),
        Err(_) => ControlFlow::Continue(()),
    }
}

/// Closes the blobs that were opened with a file, if no other open file of the inode is left.
pub(crate) fn release(content: &Content) {
    if let Some(pins) = content.pins() {
        pins.release();
    }
}

/// Waits until the blobs of a range of a file are open.
///
/// # Errors
///
/// [`EINTR`] if the task is being killed; [`EDEADLK`] if that takes too long, which is logged, or
/// the range has more than [`MAX_CHUNKS_PREPARED`] chunks; [`EUCLEAN`] if the metadata is
/// malformed.
pub(crate) fn prepare(reader: &FileReader<'_>, range: &Range<u64>) -> Result {
    let malformed = |e: puzzlefs_schema::Error| reader.site.report(e);
    let extents = reader.extents();
    let (first, mut start) = reader
        .content
        .seek(extents, range.start)
        .map_err(malformed)?;
    let mut seen = 0;
    let prepared = extents
        .for_each_from(first, |chunk| {
            let position = start;
            start = start.saturating_add(chunk.len);
            if position >= range.end {
                return ControlFlow::Break(Ok(()));
            }
            seen += 1;
            if seen > MAX_CHUNKS_PREPARED {
                return ControlFlow::Break(Err(EDEADLK));
            }
            match reader.open_blob(&chunk.blob, Opening::Waiting) {
                Err(fault) if fault.is_interruption() => ControlFlow::Break(Err(EINTR)),
                Err(fault) if fault.is_timeout() => {
                    reader.complain(&chunk.blob, position.max(range.start), fault);
                    ControlFlow::Break(Err(EDEADLK))
                }
                // Another error shows when the range is read again.
                _ => ControlFlow::Continue(()),
            }
        })
        .map_err(malformed)?;
    match prepared {
        ControlFlow::Break(result) => result,
        ControlFlow::Continue(()) => Ok(()),
    }
}
