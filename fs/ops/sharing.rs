// SPDX-License-Identifier: GPL-2.0

//! Files that share their pages.
//!
//! Two files of a store with equal extents have equal contents. They therefore have one page cache,
//! in one mount or in several, if their data is verified alike. The key of the page cache is the
//! SHA-256 of everything that the contents depend on. Two different files would share pages only
//! after a collision, which would also give two blobs or two chunks one name.

use super::{
    fs_type::PuzzleFs,
    node::{image, reader},
};
use crate::{
    base::{fault::Fault, verify::Verify},
    fill::{extent_map::ExtentMap, reader::FileReader},
    ports::sha256::{Digest as _, Sha256},
    vfs::{prelude::*, INode, SharingKey},
};
use core::ops::ControlFlow;
use puzzlefs_schema::{Chunk, Extents, Metadata};

/// Makes a regular file share its pages with files of equal contents, if the mount allows it.
pub(super) fn share(inode: &INode<PuzzleFs>) -> Result {
    let Some(reader) = reader(inode) else {
        return Ok(());
    };
    let image = image(inode);
    let report = |fault: Fault| reader.site.report(fault);
    let frames = image.store().frames();
    if !frames.has_reserve() && may_be_compressed(&reader).map_err(report)? {
        // Later, a page fault may come when there is no memory.
        frames.reserve()?;
    }
    if !image.settings().share || reader.content.size() == 0 {
        return Ok(());
    }
    let key = key(&reader).map_err(report)?;
    let pages = inode.share_pages(&key)?;
    if pages > 0 {
        image.statistics().files_shared.add(1);
        image.statistics().pages_shared.add(pages as u64);
    }
    Ok(())
}

/// Returns the digest of everything that the contents of a file depend on.
fn key(reader: &FileReader<'_>) -> Result<SharingKey, Fault> {
    let mut hash = Sha256::new();
    match reader.map {
        ExtentMap::Version3 {
            metadata, extents, ..
        } => {
            hash.update(reader.verify.name());
            let metadata = (reader.verify == Verify::FsVerity).then_some(metadata);
            add_chunks(&mut hash, metadata, extents)?
        }
        ExtentMap::Version4(source) => {
            // No mode of verification begins like this: keys of the versions differ.
            hash.update("version 4");
            hash.update(reader.verify.name());
            hash.update(reader.content.size().to_le_bytes());
            source.identify(&mut |bytes| hash.update(bytes))?;
        }
    }
    Ok(hash.finalize().into())
}

/// Returns true if some of a file may be stored compressed.
fn may_be_compressed(reader: &FileReader<'_>) -> Result<bool, Fault> {
    let ExtentMap::Version3 { extents, .. } = reader.map else {
        // The chunks of a long file are not known yet.
        return Ok(true);
    };
    let found = extents.for_each_from(0, |chunk| {
        if chunk.compressed {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    Ok(found.is_break())
}

/// Adds everything that the contents of the chunks of a file of version 3 depend on. With
/// `metadata`, fs-verity verifies them.
fn add_chunks(
    hash: &mut Sha256,
    metadata: Option<Metadata<'_>>,
    extents: Extents<'_>,
) -> Result<(), Fault> {
    let added = extents.for_each_from(0, |chunk| match add(hash, metadata, &chunk) {
        Ok(()) => ControlFlow::Continue(()),
        Err(e) => ControlFlow::Break(e),
    })?;
    match added {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(e) => Err(e.into()),
    }
}

/// Adds everything that the contents of one chunk of version 3 depend on.
fn add(
    hash: &mut Sha256,
    metadata: Option<Metadata<'_>>,
    chunk: &Chunk,
) -> Result<(), puzzlefs_schema::Error> {
    hash.update(chunk.blob.as_bytes());
    hash.update(chunk.blob_offset.to_le_bytes());
    hash.update(chunk.len.to_le_bytes());
    hash.update([u8::from(chunk.compressed)]);
    if let Some(metadata) = metadata {
        // Another image may require another fs-verity digest of the blob.
        let verity = metadata.verity(&chunk.blob)?;
        hash.update([u8::from(verity.is_some())]);
        hash.update(verity.as_ref().map_or(&[][..], |verity| verity.as_bytes()));
    }
    Ok(())
}
