// SPDX-License-Identifier: GPL-2.0

//! Fills runs of folios.
//!
//! 1. Map: find the chunks of the run and their open blobs ([`Walk`]).
//! 2. Submit: read the blobs of several pieces at once, so that their reads are in flight together
//!    ([`fill_pieces`]).
//! 3. Complete: decode each piece into its folios ([`fill_piece`]).

use super::reader::FileReader;
use crate::{
    base::{fault::Fault, range::ByteRange, verify::Verify},
    codec::{digest, plan::BlobPart, raw, zstd},
    io::pool::Workspace,
    store::{blob::Blob, opening::Opening},
    vfs::{prelude::*, relax, FolioRun},
};
use core::ops::ControlFlow;
use kernel::sync::Arc;
use puzzlefs_schema::{Chunk, Extents};

/// The largest number of pieces of a file that are read together.
const PIECES: usize = 8;

/// A part of a file that lies in one chunk.
struct Piece {
    chunk: Chunk,
    /// The range in the content of the blob.
    range: ByteRange,
    blob: Result<Arc<Blob>, Fault>,
}

impl Piece {
    /// Returns the part of the blob, if that is open.
    fn part(&self, reader: &FileReader<'_>) -> Option<BlobPart<'_>> {
        let blob = self.blob.as_ref().ok()?;
        Some(self.part_of(reader, blob))
    }

    fn part_of<'b>(&'b self, reader: &FileReader<'_>, blob: &'b Blob) -> BlobPart<'b> {
        BlobPart {
            blob,
            chunk: &self.chunk,
            verified: reader.verifies_blobs(),
            range: self.range,
        }
    }
}

type Pieces = [Option<Piece>; PIECES];

/// Returns the parts of those blobs that are open.
fn parts<'b>(
    reader: &'b FileReader<'_>,
    pieces: &'b Pieces,
) -> impl Iterator<Item = BlobPart<'b>> + Clone {
    let pieces = pieces.iter().flatten();
    pieces.filter_map(move |piece| piece.part(reader))
}

/// Fills a run of folios of a regular file. Pieces that cannot be read are left out and logged.
pub(crate) fn fill(reader: &FileReader<'_>, run: &mut FolioRun<'_>) {
    if let Err(e) = fill_chunks(reader, run) {
        reader.site.report(e);
    }
}

fn fill_chunks(
    reader: &FileReader<'_>,
    run: &mut FolioRun<'_>,
) -> Result<(), puzzlefs_schema::Error> {
    let extents = reader.extents();
    let end = run.end().min(reader.content.size());
    let (next, start) = reader.content.seek(extents, run.start())?;
    let mut walk = Walk {
        extents,
        next,
        start,
        position: run.start(),
        given_up: None,
    };
    while walk.position < end {
        if let Err(e) = relax() {
            walk.given_up = Some(e.into());
        }
        let mut pieces = [const { None }; PIECES];
        let more = walk.next_pieces(reader, end, &mut pieces);
        fill_pieces(reader, &pieces, run);
        if more?.is_continue() {
            // There is no chunk left though the file goes on, which cannot be: that is the error.
            return extents.get(walk.next).map(drop);
        }
    }
    // The last folio reaches beyond the end of the file.
    run.fill_zeros(run.end() - run.position());
    Ok(())
}

/// A walk through the chunks of a file.
struct Walk<'a> {
    extents: Extents<'a>,
    /// The next chunk, and its offset in the file.
    next: usize,
    start: u64,
    /// The offset in the file up to which there are pieces.
    position: u64,
    /// The fault of a task that gave up: the next blob would not be opened either.
    given_up: Option<Fault>,
}

impl Walk<'_> {
    /// Finds the next pieces up to an offset in the file, and opens their blobs.
    ///
    /// Returns `Continue` if the chunks end before that.
    fn next_pieces(
        &mut self,
        reader: &FileReader<'_>,
        end: u64,
        pieces: &mut Pieces,
    ) -> Result<ControlFlow<()>, puzzlefs_schema::Error> {
        let mut free = pieces.iter_mut();
        let extents = self.extents;
        extents.for_each_from(self.next, |chunk| {
            let Some(piece) = free.next() else {
                return ControlFlow::Break(());
            };
            *piece = Some(self.piece(reader, end, chunk));
            if self.position < end {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })
    }

    /// Returns the piece of the next chunk, and steps behind it.
    fn piece(&mut self, reader: &FileReader<'_>, end: u64, chunk: Chunk) -> Piece {
        // `Content::new` has checked these sums: nothing here can overflow or fall below zero. If
        // it did, the piece would be empty, and the folios remain unread.
        let within = self.position.saturating_sub(self.start);
        let len = chunk.len.saturating_sub(within).min(end - self.position);
        self.next += 1;
        self.start = self.start.saturating_add(chunk.len);
        self.position += len;
        let blob = match self.given_up {
            Some(fault) => Err(fault),
            None => reader.open_blob(&chunk.blob, Opening::Now),
        };
        self.given_up = blob.as_ref().err().copied().filter(Fault::is_interruption);
        Piece {
            range: ByteRange {
                offset: chunk.blob_offset.saturating_add(within),
                len,
            },
            blob,
            chunk,
        }
    }
}

/// Fills a run with pieces that follow each other. Those that cannot be read are left out and
/// logged.
fn fill_pieces(reader: &FileReader<'_>, pieces: &Pieces, run: &mut FolioRun<'_>) {
    let context = reader.context;
    // A single part is best read when it is decoded.
    let several = parts(reader, pieces).nth(1).is_some();
    if several {
        // Errors show, and are logged, when the parts are read.
        parts(reader, pieces).for_each(|part| part.will_need());
    }
    let mut fill = |mut workspace: Option<&mut Workspace>| {
        if let Some(workspace) = workspace.as_deref_mut().filter(|_| several) {
            let wanted = parts(reader, pieces)
                .filter_map(|part| Some((part.blob.source(), part.buffer_range(context.frames)?)));
            workspace.buffer.read_together(context.statistics, wanted);
        }
        for piece in pieces.iter().flatten() {
            fill_or_complain(reader, piece, workspace.as_deref_mut(), run);
        }
    };
    let Some(first) = parts(reader, pieces).next() else {
        // Nothing can be read.
        return fill(None);
    };
    // If all workspaces are lent, the lower filesystem has the memory for raw blobs.
    let needs_workspace = |piece: &Piece| reader.verifies_blobs() || piece.chunk.compressed;
    let now = !pieces.iter().flatten().any(needs_workspace);
    let filled = context
        .workspaces
        .with(context.returns, first.purpose(), now, fill);
    if let Err(e) = filled {
        let pieces = pieces.iter().flatten();
        run.give_up(pieces.map(|piece| piece.range.len).sum(), e);
    }
}

/// Fills a run with a piece. If it cannot be read, it is left out and logged.
fn fill_or_complain(
    reader: &FileReader<'_>,
    piece: &Piece,
    workspace: Option<&mut Workspace>,
    run: &mut FolioRun<'_>,
) {
    let from = run.position();
    let Err(fault) = fill_piece(reader, piece, workspace, run) else {
        return;
    };
    let left = piece.range.len.saturating_sub(run.position() - from);
    if matches!(fault, Fault::NotOpen) {
        return run.postpone(left);
    }
    if let Ok(blob) = &piece.blob {
        if fault.passing().is_none() {
            blob.file().forget_cached();
        }
    }
    reader.complain(&piece.chunk.blob, run.position(), fault);
    match fault.passing() {
        Some(e) => run.give_up(left, e),
        None => run.fail(left),
    }
}

/// Fills a run with a piece.
fn fill_piece(
    reader: &FileReader<'_>,
    piece: &Piece,
    workspace: Option<&mut Workspace>,
    run: &mut FolioRun<'_>,
) -> Result<(), Fault> {
    let blob = piece.blob.as_ref().map_err(|fault| *fault)?;
    let part = piece.part_of(reader, blob);
    let context = reader.context;
    match (reader.verify, piece.chunk.compressed, workspace) {
        (Verify::Digest, _, Some(workspace)) => digest::fill(context, workspace, part, run),
        (Verify::None | Verify::FsVerity, true, Some(workspace)) => {
            zstd::fill(context, workspace, part, run)
        }
        (Verify::None | Verify::FsVerity, false, workspace) => {
            raw::fill(context.statistics, workspace, part, run)
        }
        // The caller has waited for a workspace if a piece needs one.
        (_, _, None) => Err(Fault::Errno(EIO)),
    }
}
