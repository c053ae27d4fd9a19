// SPDX-License-Identifier: GPL-2.0

//! Fills runs of folios.
//!
//! 1. Map: find the extents of the run and their open files ([`Walk`]).
//! 2. Submit: read the files of several pieces at once, so that their reads are in flight together
//!    ([`fill_pieces`]).
//! 3. Complete: decode each piece into its folios ([`fill_piece`]).

use super::{
    extent_map::{Extent, ExtentPlace, ExtentWalk},
    piece::{Piece, StoredPart},
    reader::FileReader,
};
use crate::{
    base::{fault::Fault, range::ByteRange},
    io::pool::Workspace,
    store::opening::Opening,
    vfs::{prelude::*, relax, FolioRun},
};
use core::ops::ControlFlow;

/// The largest number of pieces of a file that are read together.
const PIECES: usize = 8;

type Pieces = [Option<Piece>; PIECES];

/// Returns the parts of those files that are open.
fn parts<'b>(
    reader: &'b FileReader<'_>,
    pieces: &'b Pieces,
) -> impl Iterator<Item = StoredPart<'b>> + Clone {
    let pieces = pieces.iter().flatten();
    pieces.filter_map(move |piece| piece.part(reader).ok()?)
}

/// Fills a run of folios of a regular file. Pieces that cannot be read are left out and logged.
pub(crate) fn fill(reader: &FileReader<'_>, run: &mut FolioRun<'_>) {
    let request = reader.traced(run);
    let start = request.begin(run.folios(), run.is_readahead());
    if let Err(fault) = fill_extents(reader, run) {
        fail(reader, fault, run);
    }
    request.end(start, || run.failed());
}

/// Leaves the rest of a run unread, because of a fault.
fn fail(reader: &FileReader<'_>, fault: Fault, run: &mut FolioRun<'_>) {
    let left = run.end().saturating_sub(run.position());
    match fault {
        Fault::NotOpen => run.postpone(left),
        fault => {
            reader.site.report(fault);
            match fault.passing() {
                Some(e) => run.give_up(left, e),
                None => run.fail(left),
            }
        }
    }
}

fn fill_extents(reader: &FileReader<'_>, run: &mut FolioRun<'_>) -> Result<(), Fault> {
    let end = run.end().min(reader.content.size());
    let mut walk = Walk {
        extents: reader.map.walk(run.start()),
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
        if more?.is_continue() && walk.position < end {
            return Err(Fault::NoExtent);
        }
    }
    // The last folio reaches beyond the end of the file.
    run.fill_zeros(run.end() - run.position());
    Ok(())
}

/// A walk through the extents of a file.
struct Walk<'a> {
    extents: ExtentWalk<'a>,
    /// The offset in the file up to which there are pieces.
    position: u64,
    /// The fault of a task that gave up: the next file would not be opened either.
    given_up: Option<Fault>,
}

impl Walk<'_> {
    /// Finds the next pieces up to an offset in the file, and opens their files.
    ///
    /// Returns `Continue` if the extents end before that.
    // Not inlined, so that pieces are decoded without its variables on the stack.
    #[inline(never)]
    fn next_pieces(
        &mut self,
        reader: &FileReader<'_>,
        end: u64,
        pieces: &mut Pieces,
    ) -> Result<ControlFlow<()>, Fault> {
        let mut free = pieces.iter_mut().peekable();
        let (position, given_up) = (&mut self.position, &mut self.given_up);
        self.extents.for_each(Opening::Now, |extent| {
            let Some(place) = free.next() else {
                return ControlFlow::Break(());
            };
            let piece = next_piece(reader, &extent, *position, end, *given_up);
            *position += piece.len;
            *given_up = piece.fault().filter(Fault::is_interruption);
            *place = Some(piece);
            if *position < end && free.peek().is_some() {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })
    }
}

/// Returns the piece of an extent from a position in the file on.
fn next_piece(
    reader: &FileReader<'_>,
    extent: &Extent,
    position: u64,
    end: u64,
    given_up: Option<Fault>,
) -> Piece {
    // The metadata was checked: nothing here can overflow or fall below zero. If it did, the piece
    // would be empty, and the folios remain unread.
    let within = position.saturating_sub(extent.start);
    let len = extent
        .len
        .saturating_sub(within)
        .min(end.saturating_sub(position));
    match extent.data {
        ExtentPlace::Hole => Piece::hole(len),
        ExtentPlace::Blob(chunk) => {
            let blob = match given_up {
                Some(fault) => Err(fault),
                None => reader.open_blob(&chunk.blob, Opening::Now),
            };
            Piece::of_blob(chunk, within, len, blob)
        }
        ExtentPlace::Chunk { chunk, offset } => {
            let open = match given_up {
                Some(fault) => Err(fault),
                None => reader.open_chunk(&chunk, Opening::Now),
            };
            let range = ByteRange {
                offset: u64::from(offset).saturating_add(within),
                len,
            };
            Piece::of_chunk(reader, chunk, range, extent.len, open)
        }
    }
}

/// Fills a run with pieces that follow each other. Those that cannot be read are left out and
/// logged.
// Not inlined, so that extents are found without its variables on the stack.
#[inline(never)]
fn fill_pieces(reader: &FileReader<'_>, pieces: &Pieces, run: &mut FolioRun<'_>) {
    let context = reader.context;
    // A file that is read from its start or to its end is likely to be one of several.
    let is_edge = run.start() == 0 || run.end() >= reader.content.size();
    parts(reader, pieces).for_each(|part| part.advance(context, is_edge));
    // A single part is best read when it is decoded.
    let several = parts(reader, pieces).nth(1).is_some();
    if several {
        // Errors show, and are logged, when the parts are read.
        parts(reader, pieces).for_each(|part| part.will_need());
    }
    let mut fill = |mut workspace: Option<&mut Workspace>| {
        if let Some(workspace) = workspace.as_deref_mut().filter(|_| several) {
            let wanted = parts(reader, pieces)
                .filter_map(|part| Some((part.source(), part.buffer_range(context.frames)?)));
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
    // If all workspaces are lent, the lower filesystem has the memory for raw bytes.
    let now = !parts(reader, pieces).any(|part| part.needs_workspace());
    let filled = context
        .workspaces
        .with(context.returns, first.purpose(), now, fill);
    if let Err(e) = filled {
        let pieces = pieces.iter().flatten();
        run.give_up(pieces.map(|piece| piece.len).sum(), e);
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
    let left = piece.len.saturating_sub(run.position() - from);
    if matches!(fault, Fault::NotOpen) {
        return run.postpone(left);
    }
    if fault.passing().is_none() {
        piece.forget_cached();
    }
    piece.complain(reader, run.position(), fault);
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
    match piece.part(reader)? {
        Some(part) => part.fill(reader, workspace, run),
        None => {
            run.fill_zeros(piece.len);
            Ok(())
        }
    }
}
