// SPDX-License-Identifier: GPL-2.0

//! Reads of one folio, which a reader waits for.

use super::{folio::FolioRun, read_folios::ReadFolios};
use crate::vfs::{bindings, compat::prelude::*, types::INode};
use core::{ops::Range, ptr::NonNull};
use kernel::{error::to_result, ffi::c_int, page::PAGE_SIZE};

/// Reads one folio: the work of `address_space_operations.read_folio`.
///
/// # Safety
///
/// The folio must be in the page cache of `inode`, locked, not up to date, and ours to unlock.
pub(in crate::vfs) unsafe fn read_folio<T: ReadFolios>(
    inode: &INode<T>,
    folio: *mut bindings::folio,
) -> c_int {
    // SAFETY: By the safety requirements the folio is locked and in the page cache. The VFS does
    // not give null.
    let (mapping, locked) = unsafe {
        (
            bindings::vfs_rs_folio_mapping(folio),
            NonNull::new_unchecked(folio),
        )
    };
    let mut run = FolioRun::empty();
    // SAFETY: By the safety requirements the folio is ours to unlock. The run is empty, so that
    // there is room, and no other folio to follow.
    unsafe { run.push(locked) };
    T::read_folios(inode, &mut run);

    if run.is_filled(0) {
        return 0;
    }
    let range = run.start()..run.end();
    if run.is_postponed() {
        // Unlocks the folio. The caller keeps the mapping, and `inode` with it.
        drop(run);
        return read_again(T::prepare(inode, &range));
    }
    if let Some(e) = run.error() {
        return e.to_errno();
    }
    // SAFETY: The run still holds the folio's lock, hence the folio is valid.
    if !unsafe { bindings::vfs_rs_folio_test_large(folio) } {
        return EIO.to_errno();
    }
    // A part of a large folio cannot be read, but another part may be readable. Replace the folio
    // by small ones; the VFS then reads page by page what it needs.
    // SAFETY: The run still holds the folio's lock: the folio is in the mapping, and may be taken
    // out of the page cache.
    unsafe { bindings::generic_error_remove_folio(mapping, folio) };
    drop(run);
    // SAFETY: The caller reads a file of the mapping, which keeps it valid.
    read_again(unsafe { add_small_folios(mapping, range) })
}

/// Returns the code that has the VFS repeat a read, or the error that prevents that.
fn read_again(result: Result) -> c_int {
    match result {
        Ok(()) => bindings::positive_aop_returns_AOP_TRUNCATED_PAGE as c_int,
        Err(e) => e.to_errno(),
    }
}

/// Adds a folio of one page for each page of a range that has none in the page cache.
///
/// If the VFS found no folio there, it would make a large one again, which fails as the one before.
/// It does so once the small ones have been reclaimed.
///
/// # Errors
///
/// [`ENOMEM`].
///
/// # Safety
///
/// The mapping must stay valid during the call.
unsafe fn add_small_folios(mapping: *mut bindings::address_space, range: Range<u64>) -> Result {
    // SAFETY: The mapping is valid by the safety requirements.
    let size = unsafe { bindings::vfs_rs_inode_size((*mapping).host) } as u64;
    let pages = range.start / PAGE_SIZE as u64..range.end.min(size).div_ceil(PAGE_SIZE as u64);
    for index in pages {
        // SAFETY: The mapping is valid by the safety requirements.
        match unsafe { add_small_folio(mapping, index as usize) } {
            // Another task has added a folio, and reads it.
            Err(e) if e != EEXIST => return Err(e),
            _ => {}
        }
    }
    Ok(())
}

/// Adds an unlocked folio of one page, which is not up to date.
///
/// # Errors
///
/// [`EEXIST`] if there is a folio at the index, [`ENOMEM`].
///
/// # Safety
///
/// The mapping must stay valid during the call.
unsafe fn add_small_folio(mapping: *mut bindings::address_space, index: usize) -> Result {
    // SAFETY: The mapping is valid by the safety requirements. `filemap_add_folio` locks the new
    // folio and gives the page cache its own reference if it succeeds; ours is dropped at the end.
    unsafe {
        let gfp = bindings::vfs_rs_mapping_gfp_constraint(mapping, bindings::GFP_KERNEL);
        let folio = bindings::vfs_rs_filemap_alloc_folio(gfp, 0);
        if folio.is_null() {
            return Err(ENOMEM);
        }
        let added = to_result(bindings::filemap_add_folio(mapping, folio, index, gfp));
        if added.is_ok() {
            bindings::folio_unlock(folio);
        }
        bindings::vfs_rs_folio_put(folio);
        added
    }
}
