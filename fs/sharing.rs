// SPDX-License-Identifier: GPL-2.0

//! Files that share their pages.
//!
//! Two files of a store whose extents are equal have equal contents: so they have one page cache,
//! be they in one mount or in several, if their blobs are verified alike. What tells them from
//! others is the SHA-256 of all that their contents depend on; to have two files share what they
//! should not, one would have to find a collision, as for two blobs of one name.

use crate::{
    image::Image,
    inode::Body,
    options::Verify,
    ports::sha256::{Digest as _, Sha256},
    vfs::{relax, INode, SharingKey},
    PuzzleFs,
};
use kernel::prelude::*;
use puzzlefs_schema::Extents;

/// After how many chunks a reader is asked whether it still wants to know.
const CHUNKS_AT_A_TIME: usize = 4096;

/// Has a regular file share its pages with those of equal contents, if the mount allows it.
pub(crate) fn share(inode: &INode<PuzzleFs>) -> Result {
    let image = inode.superblock().data();
    let node = inode.data();
    let Body::File(content) = &node.body else {
        return Ok(());
    };
    if !image.shares_pages() || content.size() == 0 {
        return Ok(());
    }
    let malformed = |e| image.report(Some(inode.ino()), e);
    let extents = image
        .metadata()
        .inode_at(node.at)
        .and_then(|inode| inode.extents())
        .map_err(malformed)?;
    let mut hash = Sha256::new();
    hash.update(image.verify().name());
    for index in 0..extents.len() {
        if index % CHUNKS_AT_A_TIME == CHUNKS_AT_A_TIME - 1 {
            relax()?;
        }
        add(&mut hash, image, &extents, index).map_err(malformed)?;
    }
    let key: SharingKey = hash.finalize().into();
    let pages = image.store().mappings().share(inode, &key)?;
    if pages > 0 {
        image.statistics().files_shared.add(1);
        image.statistics().pages_shared.add(pages as u64);
    }
    Ok(())
}

/// Adds all that the contents of one chunk depend on.
fn add(
    hash: &mut Sha256,
    image: &Image,
    extents: &Extents<'_>,
    index: usize,
) -> Result<(), puzzlefs_schema::Error> {
    let chunk = extents.get(index)?;
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
