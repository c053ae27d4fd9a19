// SPDX-License-Identifier: GPL-2.0

//! Opens the blobs of files before they are read.

use super::{
    content::Content,
    extent_map::{Extent, ExtentPlace},
    reader::FileReader,
};
use crate::{
    base::{
        fault::Fault,
        limits::{MAX_CHUNKS_PINNED, MAX_CHUNKS_PREPARED, MAX_EXTENTS_PINNED},
    },
    store::{blob::Blob, opening::Opening, pins::Pins},
    vfs::prelude::*,
};
use core::ops::{ControlFlow, Range};
use kernel::sync::Arc;

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
    let mut result = Ok(());
    let walked = reader.map.walk(0).for_each(Opening::Waiting, |extent| {
        seen += 1;
        match pin(reader, pins, &extent) {
            ControlFlow::Continue(()) if seen < max_pinned(&extent) => ControlFlow::Continue(()),
            ControlFlow::Continue(()) => ControlFlow::Break(()),
            ControlFlow::Break(stop) => {
                result = stop;
                ControlFlow::Break(())
            }
        }
    });
    // Malformed extents are reported when they are read.
    if walked.is_err_and(|fault| fault.is_interruption()) {
        result = Err(EINTR);
    }
    if result.is_err() {
        pins.release();
    }
    result
}

/// Returns the largest number of extents that are searched for blobs to open with a file.
fn max_pinned(extent: &Extent) -> usize {
    match extent.data {
        ExtentPlace::Blob(_) => MAX_CHUNKS_PINNED,
        ExtentPlace::Hole | ExtentPlace::Chunk { .. } => MAX_EXTENTS_PINNED,
    }
}

/// Opens the blob of an extent and keeps it open. Returns `Break` if enough blobs are open.
fn pin(reader: &FileReader<'_>, pins: &Pins, extent: &Extent) -> ControlFlow<Result> {
    let opened = match &extent.data {
        ExtentPlace::Hole => return ControlFlow::Continue(()),
        ExtentPlace::Blob(chunk) if pins.find(&chunk.blob).is_some() => {
            return ControlFlow::Continue(())
        }
        ExtentPlace::Blob(chunk) => {
            let opened = reader.open_in_store(&chunk.blob, Opening::Waiting);
            opened.map(|blob| pins.add(&chunk.blob, &blob))
        }
        ExtentPlace::Chunk { chunk, .. } => reader
            .open_chunk(chunk, Opening::Waiting)
            .map(|open| pin_blob(pins, &open.blob)),
    };
    match opened {
        Ok(true) => ControlFlow::Continue(()),
        Ok(false) => ControlFlow::Break(Ok(())),
        Err(fault) if fault.is_interruption() => ControlFlow::Break(Err(EINTR)),
        Err(fault) if fault.is_timeout() => ControlFlow::Break(Ok(())),
        Err(_) => ControlFlow::Continue(()),
    }
}

/// Keeps a blob open. Returns true if there is room for more.
fn pin_blob(pins: &Pins, blob: &Arc<Blob>) -> bool {
    pins.find(blob.digest()).is_some() || pins.add(blob.digest(), blob)
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
    let mut seen = 0;
    let mut result = Ok(());
    let mut walk = reader.map.walk(range.start);
    let walked = walk.for_each(Opening::Waiting, |extent| {
        if extent.start >= range.end {
            return ControlFlow::Break(());
        }
        seen += 1;
        result = if seen > MAX_CHUNKS_PREPARED {
            Err(EDEADLK)
        } else {
            prepare_extent(reader, &extent, range.start)
        };
        match result {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    });
    if let Err(fault) = walked {
        return Err(reader.site.report(fault));
    }
    result
}

/// Waits until the blob of an extent is open; `start` is the offset in the file that is wanted.
fn prepare_extent(reader: &FileReader<'_>, extent: &Extent, start: u64) -> Result {
    let offset = extent.start.max(start);
    let complain = |fault: Fault| match &extent.data {
        ExtentPlace::Hole => {}
        ExtentPlace::Blob(chunk) => reader.complain(&chunk.blob, offset, fault),
        ExtentPlace::Chunk { chunk, .. } => {
            reader.complain_chunk(chunk.digest(), None, offset, fault)
        }
    };
    let opened = match &extent.data {
        ExtentPlace::Hole => return Ok(()),
        ExtentPlace::Blob(chunk) => reader.open_blob(&chunk.blob, Opening::Waiting).map(drop),
        ExtentPlace::Chunk { chunk, .. } => reader.open_chunk(chunk, Opening::Waiting).map(drop),
    };
    match opened {
        Err(fault) if fault.is_interruption() => Err(EINTR),
        Err(fault) if fault.is_timeout() => {
            complain(fault);
            Err(EDEADLK)
        }
        // Another error shows when the range is read again.
        _ => Ok(()),
    }
}
