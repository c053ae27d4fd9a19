// SPDX-License-Identifier: GPL-2.0

//! Files that share their pages.
//!
//! Two files of a store whose extents are equal have equal contents: so they have one page cache,
//! be they in one mount or in several, if their blobs are verified alike. What tells them from
//! others is the SHA-256 of all that their contents depend on; to have two files share what they
//! should not, one would have to find a collision, as for two blobs of one name.

use crate::vfs::prelude::*;
use crate::{
    fill::file::Content,
    ops::image::Image,
    ops::inode::Body,
    ops::options::Verify,
    ports::sha256::{Digest as _, Sha256},
    vfs::{INode, SharingKey},
    PuzzleFs,
};
use core::ops::ControlFlow;
use puzzlefs_schema::Chunk;

/// Has a regular file share its pages with those of equal contents, if the mount allows it.
pub(crate) fn share(inode: &INode<PuzzleFs>) -> Result {
    let image = inode.superblock().data();
    let node = inode.data();
    let Body::File(content) = &node.body else {
        return Ok(());
    };
    let malformed = |e| image.report(Some(inode.ino()), e);
    let frames = image.store().workspaces().frames();
    if !frames.has_reserve() && is_compressed(image, content).map_err(malformed)? {
        // Later, a page fault may come when there is no memory.
        frames.reserve()?;
    }
    if !image.shares_pages() || content.size() == 0 {
        return Ok(());
    }
    let mut hash = Sha256::new();
    hash.update(image.verify().name());
    let added = content
        .extents(&image.metadata())
        .for_each_from(0, |chunk| match add(&mut hash, image, &chunk) {
            Ok(()) => ControlFlow::Continue(()),
            Err(e) => ControlFlow::Break(e),
        })
        .map_err(malformed)?;
    if let ControlFlow::Break(e) = added {
        return Err(malformed(e));
    }
    let key: SharingKey = hash.finalize().into();
    let pages = inode.share_pages(&key)?;
    if pages > 0 {
        image.statistics().files_shared.add(1);
        image.statistics().pages_shared.add(pages as u64);
    }
    Ok(())
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

/// Adds all that the contents of one chunk depend on.
fn add(hash: &mut Sha256, image: &Image, chunk: &Chunk) -> Result<(), puzzlefs_schema::Error> {
    hash.update(chunk.blob.as_bytes());
    hash.update(chunk.blob_offset.to_le_bytes());
    hash.update(chunk.len.to_le_bytes());
    hash.update([u8::from(chunk.compressed)]);
    if image.verify() == Verify::FsVerity {
        // What one image wants of a blob is not what another may want of it.
        let verity = image.metadata().verity(&chunk.blob)?;
        hash.update([u8::from(verity.is_some())]);
        hash.update(verity.as_ref().map_or(&[][..], |verity| verity.as_bytes()));
    }
    Ok(())
}
