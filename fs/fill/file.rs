// SPDX-License-Identifier: GPL-2.0

//! File data: from extents to folios.
//!
//! A file is its chunks in order, each a range of a blob. A run of folios is filled chunk by chunk:
//! see [`crate::store::blob`]. What several of them need of their blobs is read first, so that the
//! disk has all of it to do at once. What comes without more work, the rest of a frame, is made part of
//! the run: see [`extent`].
//!
//! The metadata holds the chunks' lengths but not their offsets in the file. [`Content`] keeps the
//! offsets of some, evenly spaced, in a table of bounded size: a chunk is found by binary search in
//! the table and a short walk from there.

use crate::vfs::prelude::*;
use crate::{
    base::fault::Fault,
    base::message::Show,
    io::workspace::Workspace,
    ops::image::Image,
    ops::inode::{Body, Malformed},
    ops::options::Verify,
    store::blob::{Blob, Means, Range, MAX_STORED},
    store::blob_store::Opening,
    store::pins::{Pins, MAX_PINNED},
    vfs::{relax, FolioRun, INode},
    PuzzleFs,
};
use core::ops::ControlFlow;
use kernel::{
    page::PAGE_SIZE,
    sync::{Arc, SetOnce},
};
use puzzlefs_schema::{Chunk, Digest, ErrorKind, ExtentList, Extents, Inode, Metadata};

/// The largest number of chunk offsets that are kept of one file.
const MAX_CHECKPOINTS: usize = 256;

/// Files of fewer chunks than this are walked from the beginning.
const MIN_CHUNKS_INDEXED: usize = 16;

/// What is asked for is widened to whole frames if it is shorter than this, in bytes: a longer
/// request is one of many in order, and what it leaves of a frame comes next.
const MAX_WIDENED: u64 = 128 << 10;

/// The most that a request is widened to, in bytes: the largest frames, or blobs that are verified
/// as a whole, at both its ends.
const MAX_EXTENT: u64 = 2 * MAX_STORED as u64;

/// How many pieces of a file are read together.
const PIECES: usize = 8;

/// Where a regular file's contents are.
pub(crate) struct Content {
    size: u64,
    list: ExtentList,
    checkpoints: KVec<u64>,
    /// The blobs that are open because the file is, from the first time that it is opened on.
    pins: SetOnce<Arc<Pins>>,
    /// Whether its only chunk is all of a blob, once that is known.
    whole_blob: SetOnce<bool>,
}

impl Content {
    /// Reads an inode's chunk lengths once, for their sum and the table.
    pub(crate) fn new(inode: &Inode<'_>) -> Result<Self, Malformed> {
        let extents = inode.extents()?;
        let mut checkpoints = KVec::new();
        if extents.len() >= MIN_CHUNKS_INDEXED {
            checkpoints = KVec::zeroed(extents.len().min(MAX_CHECKPOINTS), GFP_KERNEL)?;
        }
        let size = extents.index(&mut checkpoints)?;
        Ok(Self {
            size,
            list: extents.list(),
            checkpoints,
            pins: SetOnce::new(),
            whole_blob: SetOnce::new(),
        })
    }

    /// The blobs that are open because the file is.
    fn pins(&self) -> Result<&Pins> {
        if self.pins.as_ref().is_none() {
            // Another thread may be first.
            self.pins.populate(Pins::new()?);
        }
        Ok(self.pins.as_ref().ok_or(ENOMEM)?)
    }

    /// The file's chunks.
    pub(crate) fn extents<'a>(&self, metadata: &Metadata<'a>) -> Extents<'a> {
        metadata.extents(self.list)
    }

    /// The file's size, in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Returns whether the file's only chunk is all of a blob, if that is known.
    pub(crate) fn is_whole_blob(&self) -> Option<bool> {
        self.whole_blob.copy()
    }

    /// Notes whether the file's only chunk is all of a blob.
    pub(crate) fn set_whole_blob(&self, is_whole: bool) {
        // Whoever was first has found the same.
        self.whole_blob.populate(is_whole);
    }
}

/// The largest number of chunks that are searched for blobs to open with a file.
const MAX_CHUNKS_PINNED: usize = 16 * MAX_PINNED;

/// Opens the first blobs of a file that has been opened, and keeps them open.
///
/// Returns whether [`release`] must undo that: nothing is opened for a file that is in memory. A
/// blob that cannot be opened is an error of the reads that need it.
///
/// # Errors
///
/// [`EINTR`] if the task is being killed, [`ENOMEM`].
pub(crate) fn open(inode: &INode<PuzzleFs>) -> Result<bool> {
    let Body::File(content) = &inode.data().body else {
        return Ok(false);
    };
    // An empty file is in memory, too.
    if inode.is_cached() {
        return Ok(false);
    }
    let pins = content.pins()?;
    if !pins.open() {
        return Ok(true);
    }
    let image = inode.superblock().data();
    let mut seen = 0;
    let opened = content
        .extents(&image.metadata())
        .for_each_from(0, |chunk| {
            seen += 1;
            if pins.find(&chunk.blob).is_none() {
                match image.open_blob(&chunk.blob, Opening::Waiting) {
                    Ok(blob) if pins.add(&chunk.blob, &blob) => {}
                    Ok(_) => return ControlFlow::Break(Ok(())),
                    Err(fault) if fault.is_interruption() => return ControlFlow::Break(Err(EINTR)),
                    Err(fault) if fault.is_timeout() => return ControlFlow::Break(Ok(())),
                    Err(_) => {}
                }
            }
            if seen < MAX_CHUNKS_PINNED {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(Ok(()))
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
    result.map(|()| true)
}

/// Closes the blobs that were opened with a file, if no other open file of the inode is left.
pub(crate) fn release(inode: &INode<PuzzleFs>) {
    if let Body::File(content) = &inode.data().body {
        if let Some(pins) = content.pins.as_ref() {
            pins.release();
        }
    }
}

/// The largest number of chunks in a range whose blobs are opened for it.
const MAX_CHUNKS_PREPARED: usize = 256;

/// Waits until the blobs of a range are open.
///
/// # Errors
///
/// [`EINTR`] if the task is being killed; [`EDEADLK`] if that takes too long, which is logged, or
/// the range has more than [`MAX_CHUNKS_PREPARED`] chunks.
pub(crate) fn prepare(inode: &INode<PuzzleFs>, range: &core::ops::Range<u64>) -> Result {
    let image = inode.superblock().data();
    let Body::File(content) = &inode.data().body else {
        return Ok(());
    };
    let malformed = |e| image.report(Some(inode.ino()), e);
    let extents = content.extents(&image.metadata());
    let (first, mut start) = extents
        .seek(range.start, &content.checkpoints)
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
            match open_blob(image, content, &chunk.blob, Opening::Waiting) {
                Err(fault) if fault.is_interruption() => ControlFlow::Break(Err(EINTR)),
                Err(fault) if fault.is_timeout() => {
                    complain(image, inode, &chunk.blob, position.max(range.start), &fault);
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

/// Opens a blob of a file, or finds it open.
fn open_blob(
    image: &Image,
    content: &Content,
    digest: &Digest,
    how: Opening,
) -> Result<Arc<Blob>, Fault> {
    let pins = content.pins.as_ref();
    if let Some(blob) = pins.and_then(|pins| pins.find(digest)) {
        if how == Opening::Now {
            image.statistics().blobs_found_open.add(1);
        }
        return Ok(blob);
    }
    image.open_blob(digest, how)
}

/// A part of a file that lies in one chunk.
struct Piece {
    chunk: Chunk,
    /// Where the part is in the blob's content.
    range: Range,
    blob: Result<Arc<Blob>, Fault>,
}

/// Fills a run of folios of a regular file. What cannot be read is left out and logged.
pub(crate) fn read(inode: &INode<PuzzleFs>, run: &mut FolioRun<'_>) {
    let image = inode.superblock().data();
    if let Err(e) = fill(image, inode, run) {
        image.report(Some(inode.ino()), e);
    }
}

/// What had best be read where a range is: if that is short, all pages of which the frames that it
/// is in have all, or the chunks if they are verified. `None` if that is no more.
///
/// A page at the end of a frame is in the next one, too, and would cost all of that.
pub(crate) fn extent(
    inode: &INode<PuzzleFs>,
    range: &core::ops::Range<u64>,
) -> Option<core::ops::Range<u64>> {
    let image = inode.superblock().data();
    let node = inode.data();
    let Body::File(content) = &node.body else {
        return None;
    };
    let whole = range.start == 0 && range.end >= content.size();
    if whole || range.end - range.start >= MAX_WIDENED {
        return None;
    }
    let extents = content.extents(&image.metadata());
    // Beyond the end of the file nothing is read.
    let last = range.end.min(content.size()).checked_sub(1)?;
    let start = unit(image, extents, content, range.start)?.start;
    let end = unit(image, extents, content, last)?.end;
    let start = start.checked_next_multiple_of(PAGE_SIZE as u64)?;
    let end = if end < content.size() {
        end - end % PAGE_SIZE as u64
    } else {
        end
    };
    // A chunk is as long as the image says it is.
    let wider = start.min(range.start)..end.max(range.end);
    (wider.end.checked_sub(wider.start)? <= MAX_EXTENT).then_some(wider)
}

/// The part of a file that is read as one where a position is.
fn unit(
    image: &Image,
    extents: Extents<'_>,
    content: &Content,
    position: u64,
) -> Option<core::ops::Range<u64>> {
    let (index, start) = extents.seek(position, &content.checkpoints).ok()?;
    let chunk = extents.get(index).ok()?;
    let end = start.checked_add(chunk.len)?;
    if image.verify() == Verify::Digest {
        return Some(start..end);
    }
    if !chunk.compressed {
        return Some(position..position + 1);
    }
    let blob = open_blob(image, content, &chunk.blob, Opening::Now).ok()?;
    let within = chunk
        .blob_offset
        .checked_add(position.checked_sub(start)?)?;
    let frame = blob.frame_at(means(image), within)?;
    let from = frame.offset.saturating_sub(chunk.blob_offset);
    let to = frame.end().saturating_sub(chunk.blob_offset);
    Some(start.checked_add(from)?..start.checked_add(to)?.min(end))
}

fn fill(
    image: &Image,
    inode: &INode<PuzzleFs>,
    run: &mut FolioRun<'_>,
) -> Result<(), puzzlefs_schema::Error> {
    let Body::File(content) = &inode.data().body else {
        return Ok(());
    };
    let extents = content.extents(&image.metadata());
    let end = run.end().min(content.size());
    // The next chunk, and where in the file it begins.
    let (mut next, mut start) = extents.seek(run.start(), &content.checkpoints)?;
    let mut position = run.start();
    // Why nothing more is opened: what made the task give up one blob would the next.
    let mut given_up = None;
    while position < end {
        if let Err(e) = relax() {
            given_up = Some(e.into());
        }
        let mut pieces = [const { None }; PIECES];
        let mut slots = pieces.iter_mut();
        let more = extents.for_each_from(next, |chunk| {
            let Some(slot) = slots.next() else {
                return ControlFlow::Break(());
            };
            // The sums are those that `Content::new` has checked: nothing here can overflow or fall
            // below zero. If it did, the piece would be empty, and the stretch remain unread.
            let within = position.saturating_sub(start);
            let len = chunk.len.saturating_sub(within).min(end - position);
            next += 1;
            start = start.saturating_add(chunk.len);
            position += len;
            let blob = match given_up {
                Some(fault) => Err(fault),
                None => open_blob(image, content, &chunk.blob, Opening::Now),
            };
            given_up = blob.as_ref().err().copied().filter(Fault::is_interruption);
            *slot = Some(Piece {
                range: Range {
                    offset: chunk.blob_offset.saturating_add(within),
                    len,
                },
                blob,
                chunk,
            });
            if position < end {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        });
        fill_pieces(image, inode, &pieces, run);
        if more?.is_continue() {
            // There is no chunk left though the file goes on, which cannot be: that is the error.
            return extents.get(next).map(drop);
        }
    }
    // The last folio reaches beyond the end of the file.
    run.fill_zeros(run.end() - run.position());
    Ok(())
}

/// Fills a run with pieces that follow each other. Those that cannot be read are left out and
/// logged.
fn fill_pieces(
    image: &Image,
    inode: &INode<PuzzleFs>,
    pieces: &[Option<Piece>],
    run: &mut FolioRun<'_>,
) {
    let Means {
        workspaces,
        returns,
        statistics,
    } = means(image);
    let verified = image.verify() == Verify::Digest;
    let needs_workspace = |piece: &Piece| verified || piece.chunk.compressed;
    let found = || {
        let pieces = pieces.iter().flatten();
        pieces.filter_map(|piece| Some((piece, piece.blob.as_ref().ok()?)))
    };
    // A single one is best read as it is needed.
    let several = found().nth(1).is_some();
    if several {
        for (piece, blob) in found() {
            // An error here will show, and be logged, when the piece is read.
            blob.will_need(piece.chunk.compressed, verified, piece.range);
        }
    }
    let mut fill = |mut workspace: Option<&mut Workspace>| {
        if let Some(workspace) = workspace.as_deref_mut().filter(|_| several) {
            let wanted = found().filter_map(|(piece, blob)| {
                let range =
                    blob.to_read(&piece.chunk, verified, piece.range, workspaces.frames())?;
                Some((&**blob, range))
            });
            workspace.read_together(statistics, wanted);
        }
        for piece in pieces.iter().flatten() {
            let from = run.position();
            if let Err(e) = fill_piece(image, piece, workspace.as_deref_mut(), run) {
                let left = piece.range.len.saturating_sub(run.position() - from);
                if matches!(e, Fault::NotOpen) {
                    run.postpone(left);
                    continue;
                }
                if let Ok(blob) = &piece.blob {
                    if e.passing().is_none() {
                        blob.file().forget_cached();
                    }
                }
                complain(image, inode, &piece.chunk.blob, run.position(), &e);
                match e.passing() {
                    Some(e) => run.give_up(left, e),
                    None => run.fail(left),
                }
            }
        }
    };
    let Some((piece, blob)) = found().next() else {
        // Nothing can be read.
        return fill(None);
    };
    let wanted = blob.wanted(&piece.chunk, verified);
    // With everybody at work, the filesystem below has the memory for what is as it is stored.
    let now = !pieces.iter().flatten().any(needs_workspace);
    if let Err(e) = workspaces.with(returns, wanted, now, fill) {
        let pieces = pieces.iter().flatten();
        run.give_up(pieces.map(|piece| piece.range.len).sum(), e);
    }
}

/// Counts and logs that a blob cannot be read, unless the task only gave up, and closes it.
fn complain(image: &Image, inode: &INode<PuzzleFs>, blob: &Digest, position: u64, e: &Fault) {
    if e.is_interruption() {
        return;
    }
    image.statistics().read_errors.add(1);
    if e.is_verification() {
        image.statistics().verification_failures.add(1);
    }
    // Another file may take the blob's place, unless the fault is not the blob's.
    if e.passing().is_none() {
        image.store().forget(blob);
        if let Body::File(content) = &inode.data().body {
            if let Some(pins) = content.pins.as_ref() {
                pins.forget(blob);
            }
        }
    }
    image.log(
        inode.ino(),
        fmt!("offset {position}: blob {}: {e}", Show(blob)),
    );
}

fn means(image: &Image) -> Means<'_> {
    Means {
        workspaces: image.store().workspaces(),
        returns: image.store().workspace_returns(),
        statistics: image.statistics(),
    }
}

fn fill_piece(
    image: &Image,
    piece: &Piece,
    workspace: Option<&mut Workspace>,
    run: &mut FolioRun<'_>,
) -> Result<(), Fault> {
    let blob = piece.blob.as_ref().map_err(|e| *e)?;
    let (statistics, chunk, range) = (image.statistics(), &piece.chunk, piece.range);
    match (image.verify(), chunk.compressed, workspace) {
        (Verify::Digest, compressed, Some(workspace)) => {
            blob.fill_verified(means(image), workspace, &chunk.blob, compressed, range, run)
        }
        (Verify::None | Verify::FsVerity, true, Some(workspace)) => {
            blob.fill_compressed(means(image), workspace, range, run)
        }
        (Verify::None | Verify::FsVerity, false, workspace) => {
            blob.fill_raw(statistics, workspace, chunk, range, run)
        }
        // Whoever fills them has taken one.
        (_, _, None) => Err(Fault::Error(EIO)),
    }
}
