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
        limits::{
            MAX_CHUNKS_PINNED, MAX_CHUNKS_PREPARED, MAX_EXTENTS_PINNED, MAX_GAP, MAX_PREPARATIONS,
            PREFETCH_MAPPED,
        },
        range::ByteRange,
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

/// Starts to read the stored bytes of a file, up to the first hole or chunk in another place.
///
/// Does nothing if its extents or packs are not at hand.
pub(crate) fn prefetch(reader: &FileReader<'_>) {
    let mut run: Option<(Arc<Blob>, ByteRange)> = None;
    // Faults show when the file is read.
    let _ = reader.map.walk(0).for_each(Opening::Now, |extent| {
        let ExtentPlace::Chunk { chunk, .. } = &extent.data else {
            return ControlFlow::Break(());
        };
        let Ok(open) = reader.open_chunk(chunk, Opening::Now) else {
            return ControlFlow::Break(());
        };
        match &mut run {
            None => run = Some((open.blob, open.stored)),
            Some((blob, range)) if blob.id() == open.blob.id() => {
                // A chunk can be in several extents.
                if range.place_of(open.stored).is_some() {
                    return ControlFlow::Continue(());
                }
                match range.joined(open.stored, MAX_GAP) {
                    Some(joined) if joined.len <= PREFETCH_MAPPED => *range = joined,
                    _ => return ControlFlow::Break(()),
                }
            }
            Some(_) => return ControlFlow::Break(()),
        }
        ControlFlow::Continue(())
    });
    if let Some((blob, range)) = run {
        blob.prefetch(reader.context.statistics, range);
    }
}

/// Closes the blobs that were opened with a file, if no other open file of the inode is left.
pub(crate) fn release(content: &Content) {
    if let Some(pins) = content.pins() {
        pins.release();
    }
}

/// Waits until the blobs of a range of a file are open, all at once.
///
/// The cache of open blobs has little room for blobs whose digests begin alike, and other readers
/// use it, too: a blob may be closed again before the read finds it open. The read of a range
/// whose blobs do not stay open fails, because it would be postponed again and again.
///
/// # Errors
///
/// [`EINTR`] if the task is being killed; [`EDEADLK`] if that takes too long or a blob does not
/// stay open, which are logged, or the range has more than [`MAX_CHUNKS_PREPARED`] chunks; the
/// error of a blob that cannot be opened, if it is the cause; [`EUCLEAN`] if the metadata is
/// malformed.
pub(crate) fn prepare(reader: &FileReader<'_>, range: &Range<u64>) -> Result {
    fetch(reader, range)?;
    let mut unopened = None;
    for _ in 0..MAX_PREPARATIONS {
        each_extent(reader, range, Opening::Waiting, |extent| {
            match open_extent(reader, &extent, Opening::Waiting) {
                Err(fault) if fault.is_interruption() => return Err(EINTR),
                Err(fault) if fault.is_timeout() => {
                    return Err(refuse(reader, range, &extent, fault))
                }
                // It shows when the range is read again, if the read finds it.
                Err(fault) => unopened = Some((extent, fault)),
                Ok(()) => {}
            }
            Ok(())
        })?;
        let mut closed = None;
        let has_extents = each_extent(reader, range, Opening::Now, |extent| {
            if let Err(Fault::NotOpen) = open_extent(reader, &extent, Opening::Now) {
                closed = Some((extent, Fault::Errno(EDEADLK)));
            }
            Ok(())
        })?;
        if has_extents && closed.is_none() {
            return Ok(());
        }
        unopened = unopened.or(closed);
    }
    Err(match unopened {
        Some((extent, fault)) => refuse(reader, range, &extent, fault),
        None => EDEADLK,
    })
}

/// Waits until the chunks of a range of a file that the store lacks have been fetched, if the mount
/// waits for that. They are requested together.
///
/// # Errors
///
/// [`EINTR`] if the task is being killed; [`EIO`] if a chunk was not fetched, which is logged;
/// those of [`each_extent`].
fn fetch(reader: &FileReader<'_>, range: &Range<u64>) -> Result {
    if reader.fetch.is_none() {
        return Ok(());
    }
    let mut is_missing = false;
    each_extent(reader, range, Opening::Waiting, |extent| {
        // This requests the chunk.
        let opened = open_extent(reader, &extent, Opening::Now);
        is_missing |= matches!(opened, Err(Fault::NotOpen));
        Ok(())
    })?;
    if !is_missing {
        return Ok(());
    }
    each_extent(reader, range, Opening::Waiting, |extent| {
        let ExtentPlace::Chunk { chunk, .. } = &extent.data else {
            return Ok(());
        };
        let fetched = match reader.open_chunk(chunk, Opening::Waiting) {
            Err(Fault::NoChunk) => reader.fetch(chunk),
            // Other faults show when it is opened for the read.
            _ => Ok(()),
        };
        match fetched {
            Err(fault) if fault.is_interruption() => Err(EINTR),
            Err(fault) => Err(refuse(reader, range, &extent, fault)),
            Ok(()) => Ok(()),
        }
    })
    .map(drop)
}

/// Returns true if all chunks of a range of a file are in the store. Requests those that are not.
///
/// Also returns true if the extents are not at hand: the read finds out.
pub(crate) fn is_local(reader: &FileReader<'_>, range: &Range<u64>) -> bool {
    if reader.fetch.is_none() {
        return true;
    }
    let mut is_local = true;
    let walked = each_extent(reader, range, Opening::Now, |extent| {
        if let ExtentPlace::Chunk { chunk, .. } = &extent.data {
            let opened = reader.open_chunk(chunk, Opening::Now);
            is_local &= !matches!(opened, Err(Fault::NotOpen));
        }
        Ok(())
    });
    is_local || walked.is_err()
}

/// Opens the blob of an extent, or finds it open.
fn open_extent(reader: &FileReader<'_>, extent: &Extent, how: Opening) -> Result<(), Fault> {
    match &extent.data {
        ExtentPlace::Hole => Ok(()),
        ExtentPlace::Blob(chunk) => reader.open_blob(&chunk.blob, how).map(drop),
        ExtentPlace::Chunk { chunk, .. } => reader.open_chunk(chunk, how).map(drop),
    }
}

/// Logs that the blob of an extent is not open for the read of a range, and returns the error.
fn refuse(reader: &FileReader<'_>, range: &Range<u64>, extent: &Extent, fault: Fault) -> Error {
    let offset = extent.start.max(range.start);
    match &extent.data {
        ExtentPlace::Hole => {}
        ExtentPlace::Blob(chunk) => reader.complain(&chunk.blob, offset, fault),
        ExtentPlace::Chunk { chunk, .. } => {
            reader.complain_chunk(chunk.digest(), None, offset, fault)
        }
    }
    fault.errno()
}

/// Does something with each extent of a range of a file. Returns false if the extents must be read
/// first, and the caller does not wait for that.
///
/// # Errors
///
/// That of `act`; [`EDEADLK`] if the range has more than [`MAX_CHUNKS_PREPARED`] chunks; those of
/// reading the extents, which are logged.
fn each_extent(
    reader: &FileReader<'_>,
    range: &Range<u64>,
    how: Opening,
    mut act: impl FnMut(Extent) -> Result,
) -> Result<bool> {
    let mut seen = 0;
    let mut result = Ok(());
    let walked = reader.map.walk(range.start).for_each(how, |extent| {
        if extent.start >= range.end {
            return ControlFlow::Break(());
        }
        seen += 1;
        result = if seen > MAX_CHUNKS_PREPARED {
            Err(EDEADLK)
        } else {
            act(extent)
        };
        match result {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    });
    match walked {
        Err(Fault::NotOpen) => Ok(false),
        Err(fault) => Err(reader.site.report(fault)),
        Ok(_) => result.map(|()| true),
    }
}
