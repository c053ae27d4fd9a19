// SPDX-License-Identifier: GPL-2.0

//! Files that share their pages.
//!
//! Two files of a store with equal extents have equal contents. They therefore have one page cache,
//! in one mount or in several, if their blobs are verified alike. The key of the page cache is the
//! SHA-256 of everything that the contents depend on. Two different files would share pages only
//! after a collision, which would also give two blobs one name.

use super::{
    fs_type::PuzzleFs,
    image::Image,
    node::{content, image, site},
};
use crate::{
    base::verify::Verify,
    fill::content::Content,
    ports::sha256::{Digest as _, Sha256},
    vfs::{prelude::*, INode, SharingKey},
};
use core::ops::ControlFlow;
use puzzlefs_schema::Chunk;

/// Makes a regular file share its pages with files of equal contents, if the mount allows it.
pub(super) fn share(inode: &INode<PuzzleFs>) -> Result {
    let Some(content) = content(inode) else {
        return Ok(());
    };
    let image = image(inode);
    let malformed = |e: puzzlefs_schema::Error| site(inode).report(e);
    let frames = image.store().frames();
    if !frames.has_reserve() && is_compressed(image, content).map_err(malformed)? {
        // Later, a page fault may come when there is no memory.
        frames.reserve()?;
    }
    if !image.settings().share || content.size() == 0 {
        return Ok(());
    }
    let key = key(image, content).map_err(malformed)?;
    let pages = inode.share_pages(&key)?;
    if pages > 0 {
        image.statistics().files_shared.add(1);
        image.statistics().pages_shared.add(pages as u64);
    }
    Ok(())
}

/// Returns the digest of everything that the contents of a file depend on.
fn key(image: &Image, content: &Content) -> Result<SharingKey, puzzlefs_schema::Error> {
    let mut hash = Sha256::new();
    hash.update(image.settings().verify.name());
    let added = content
        .extents(&image.metadata())
        .for_each_from(0, |chunk| match add(&mut hash, image, &chunk) {
            Ok(()) => ControlFlow::Continue(()),
            Err(e) => ControlFlow::Break(e),
        })?;
    match added {
        ControlFlow::Continue(()) => Ok(hash.finalize().into()),
        ControlFlow::Break(e) => Err(e),
    }
}

/// Returns true if some of a file is stored compressed.
fn is_compressed(image: &Image, content: &Content) -> Result<bool, puzzlefs_schema::Error> {
    let extents = content.extents(&image.metadata());
    let found = extents.for_each_from(0, |chunk| {
        if chunk.compressed {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    Ok(found.is_break())
}

/// Adds everything that the contents of one chunk depend on.
fn add(hash: &mut Sha256, image: &Image, chunk: &Chunk) -> Result<(), puzzlefs_schema::Error> {
    hash.update(chunk.blob.as_bytes());
    hash.update(chunk.blob_offset.to_le_bytes());
    hash.update(chunk.len.to_le_bytes());
    hash.update([u8::from(chunk.compressed)]);
    if image.settings().verify == Verify::FsVerity {
        // Another image may require another fs-verity digest of the blob.
        let verity = image.metadata().verity(&chunk.blob)?;
        hash.update([u8::from(verity.is_some())]);
        hash.update(verity.as_ref().map_or(&[][..], |verity| verity.as_bytes()));
    }
    Ok(())
}
