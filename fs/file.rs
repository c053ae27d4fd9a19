// SPDX-License-Identifier: GPL-2.0

//! File data: from extents to folios.
//!
//! A file is its chunks in order, each a range of a blob. A run of folios is filled chunk by chunk:
//! see [`crate::blob`]. Where the filesystem below keeps what is read, all the blobs of a run are
//! told to read ahead first, so that the disk has all of it to do at once. What comes without more
//! work, the rest of a frame, is made part of the run: see [`extent`].
//!
//! The metadata holds the chunks' lengths but not their offsets in the file. [`Content`] keeps the
//! offsets of some, evenly spaced, in a table of bounded size: a chunk is found by binary search in
//! the table and a short walk from there.

use crate::{
    blob::{Fault, Means, Range, MAX_STORED},
    image::Image,
    inode::{Body, Malformed},
    message::Show,
    options::Verify,
    vfs::{FolioRun, INode},
    PuzzleFs,
};
use kernel::prelude::*;
use puzzlefs_schema::{Chunk, Extents, Inode};

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

/// Where a regular file's contents are.
pub(crate) struct Content {
    size: u64,
    checkpoints: KVec<u64>,
}

impl Content {
    /// Reads an inode's chunk lengths once, for their sum and the table.
    pub(crate) fn new(inode: &Inode<'_>) -> Result<Self, Malformed> {
        let extents = inode.extents()?;
        let mut checkpoints = KVec::new();
        if extents.len() >= MIN_CHUNKS_INDEXED {
            checkpoints.resize(extents.len().min(MAX_CHECKPOINTS), 0, GFP_KERNEL)?;
        }
        let size = extents.index(&mut checkpoints)?;
        Ok(Self { size, checkpoints })
    }

    /// The file's size, in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }
}

/// A part of a file that lies in one chunk.
struct Piece {
    chunk: Chunk,
    /// Where the part is in the blob's content.
    range: Range,
}

/// The pieces that a stretch of a file is made of, in order.
struct Pieces<'a> {
    extents: Extents<'a>,
    /// The next chunk, and where in the file it begins.
    next: usize,
    start: u64,
    /// What is left of the stretch.
    position: u64,
    end: u64,
}

impl<'a> Pieces<'a> {
    fn new(
        extents: Extents<'a>,
        content: &Content,
        position: u64,
        end: u64,
    ) -> Result<Self, puzzlefs_schema::Error> {
        let (next, start) = extents.seek(position, &content.checkpoints)?;
        Ok(Self {
            extents,
            next,
            start,
            position,
            end,
        })
    }

    /// The next piece; `None` at the end of the stretch.
    fn next(&mut self) -> Result<Option<Piece>, puzzlefs_schema::Error> {
        if self.position >= self.end {
            return Ok(None);
        }
        let chunk = self.extents.get(self.next)?;
        // The sums are those that `Content::new` has checked: nothing here can overflow or fall
        // below zero. If it did, the piece would be empty, and the stretch remain unread.
        let within = self.position.saturating_sub(self.start);
        let len = chunk
            .len
            .saturating_sub(within)
            .min(self.end - self.position);
        let piece = Piece {
            range: Range {
                offset: chunk.blob_offset.saturating_add(within),
                len,
            },
            chunk,
        };
        self.next += 1;
        self.start = self.start.saturating_add(piece.chunk.len);
        self.position += len;
        Ok(Some(piece))
    }
}

/// Fills a run of folios of a regular file. What cannot be read is left out and logged.
pub(crate) fn read(inode: &INode<PuzzleFs>, run: &mut FolioRun<'_>) {
    let image = inode.superblock().data();
    if let Err(e) = fill(image, inode, run) {
        image.report(Some(inode.ino()), e);
    }
}

/// What had best be read where a range is: if that is short, all of the frames that it is in, or
/// of the chunks if they are verified. `None` if that is no more.
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
    let extents = image.metadata().inode_at(node.at).ok()?.extents().ok()?;
    // Beyond the end of the file nothing is read.
    let last = range.end.min(content.size()).checked_sub(1)?;
    let start = unit(image, extents, content, range.start)?.start;
    let end = unit(image, extents, content, last)?.end;
    // A chunk is as long as the image says it is.
    (end.checked_sub(start)? <= MAX_EXTENT).then_some(start..end)
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
    let blob = image.open_blob(&chunk.blob).ok()?;
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
    let node = inode.data();
    let Body::File(content) = &node.body else {
        return Ok(());
    };
    let metadata = image.metadata();
    let extents = metadata.inode_at(node.at)?.extents()?;
    let (start, end) = (run.start(), run.end().min(content.size()));

    read_ahead(image, Pieces::new(extents, content, start, end)?)?;

    let mut pieces = Pieces::new(extents, content, start, end)?;
    while let Some(piece) = pieces.next()? {
        let from = run.position();
        if let Err(e) = fill_piece(image, &piece, run) {
            if !e.is_interruption() {
                image.statistics().read_errors.add(1);
                if e.is_verification() {
                    image.statistics().verification_failures.add(1);
                }
                image.store().forget(&piece.chunk.blob);
                image.log(
                    inode.ino(),
                    fmt!(
                        "offset {}: blob {}: {}",
                        run.position(),
                        Show(piece.chunk.blob),
                        e
                    ),
                );
            }
            run.fail(piece.range.len.saturating_sub(run.position() - from));
        }
    }
    // The last folio reaches beyond the end of the file.
    run.fill_zeros(run.end() - run.position());
    Ok(())
}

/// Starts reading the pieces of a stretch, if there are several: a single one is best read as it
/// is needed.
fn read_ahead(image: &Image, mut pieces: Pieces<'_>) -> Result<(), puzzlefs_schema::Error> {
    let Some(first) = pieces.next()? else {
        return Ok(());
    };
    if pieces.position >= pieces.end {
        return Ok(());
    }
    let mut piece = Some(first);
    while let Some(current) = piece {
        // An error here will show, and be logged, when the piece is read.
        if let Ok(blob) = image.open_blob(&current.chunk.blob) {
            let whole = image.verify() == Verify::Digest;
            blob.will_need(current.chunk.compressed, whole, current.range);
        }
        piece = pieces.next()?;
    }
    Ok(())
}

fn means(image: &Image) -> Means<'_> {
    Means {
        workspaces: image.store().workspaces(),
        statistics: image.statistics(),
    }
}

fn fill_piece(image: &Image, piece: &Piece, run: &mut FolioRun<'_>) -> Result<(), Fault> {
    let Chunk {
        blob: digest,
        compressed,
        ..
    } = &piece.chunk;
    let blob = image.open_blob(digest)?;
    let means = means(image);
    let range = piece.range;
    match (image.verify(), compressed) {
        (Verify::Digest, _) => blob.fill_verified(means, digest, *compressed, range, run),
        (_, true) => blob.fill_compressed(means, range, run),
        // What a small file's chunk leaves of a blob are other small files.
        (_, false) => blob.fill_raw(means, piece.chunk.len < blob.size(), range, run),
    }
}
