// SPDX-License-Identifier: GPL-2.0

//! Regular files: the VFS's requests, passed on to [`crate::fill`].

use super::{
    fs_type::PuzzleFs,
    node::{content, reader},
};
use crate::{
    base::limits::PREFETCH_UNCACHED,
    fill::{folios, open, widen::widen},
    vfs::{prelude::*, FolioRun, INode},
};
use core::ops::Range;

/// Opens the first blobs of a file that has been opened, and keeps them open.
///
/// Returns true if [`release`] must undo that: nothing is opened for a file that is in memory.
///
/// # Errors
///
/// [`EINTR`] if the task is being killed, [`ENOMEM`].
pub(super) fn open(inode: &INode<PuzzleFs>) -> Result<bool> {
    match reader(inode) {
        // An empty file is in memory, too.
        Some(reader) if !inode.is_cached() => open::open(&reader).map(|()| true),
        _ => Ok(false),
    }
}

/// Starts to read what a file stores, unless part of it is in memory.
pub(super) fn prefetch(inode: &INode<PuzzleFs>) {
    let (cached, all) = inode.cached_pages();
    // Whoever maps a program has read its header before.
    if cached >= all.div_ceil(PREFETCH_UNCACHED) {
        return;
    }
    if let Some(reader) = reader(inode) {
        open::prefetch(&reader);
    }
}

/// Closes the blobs that were opened with a file, if no other open file of the inode is left.
pub(super) fn release(inode: &INode<PuzzleFs>) {
    if let Some(content) = content(inode) {
        open::release(content);
    }
}

/// Waits until the blobs of a range are open.
///
/// # Errors
///
/// Those of [`open::prepare`].
pub(super) fn prepare(inode: &INode<PuzzleFs>, range: &Range<u64>) -> Result {
    match reader(inode) {
        Some(reader) => open::prepare(&reader, range),
        None => Ok(()),
    }
}

/// Returns false if a range must be fetched before it is read, and requests it then.
pub(super) fn is_local(inode: &INode<PuzzleFs>, range: &Range<u64>) -> bool {
    match reader(inode) {
        Some(reader) => open::is_local(&reader, range),
        None => true,
    }
}

/// Fills a run of folios. Pieces that cannot be read are left out and logged.
pub(super) fn read(inode: &INode<PuzzleFs>, run: &mut FolioRun<'_>) {
    if let Some(reader) = reader(inode) {
        folios::fill(&reader, run);
    }
}

/// Returns the range to read instead of another one, which it contains.
pub(super) fn extent(inode: &INode<PuzzleFs>, range: &Range<u64>) -> Range<u64> {
    reader(inode)
        .and_then(|reader| widen(&reader, range))
        .unwrap_or_else(|| range.clone())
}
