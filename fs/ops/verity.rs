// SPDX-License-Identifier: GPL-2.0

//! The fs-verity digests of files.
//!
//! The metadata has fs-verity digests of blobs. If a blob is raw and holds one file and nothing
//! else, its digest is the file's, too. Under `verify=fsverity`, the lower filesystem checks each
//! page of the blob against it; in other modes nothing does, and a file has no digest.

use crate::{
    base::message::Show, fill::file::Content, ops::image::Image, ops::inode::Body,
    ops::options::Verify, store::blob_store::Opening, vfs::prelude::*, vfs::INode, PuzzleFs,
};
use puzzlefs_schema::{Chunk, Digest};

/// Returns the digest that reads of a regular file are checked against, if it has one.
///
/// # Errors
///
/// Those of opening the file's blob, and [`EUCLEAN`] if the metadata is malformed.
pub(crate) fn digest(inode: &INode<PuzzleFs>) -> Result<Option<[u8; 32]>> {
    let image = inode.superblock().data();
    let candidate = candidate(image, inode).map_err(|e| image.report(Some(inode.ino()), e))?;
    let Some((content, chunk, digest)) = candidate else {
        return Ok(None);
    };
    let blob = image
        .open_blob(&chunk.blob, Opening::Waiting)
        .map_err(|fault| {
            if fault.passing().is_none() {
                image.log(inode.ino(), fmt!("blob {}: {fault}", Show(chunk.blob)));
            }
            fault.error()
        })?;
    let is_whole = blob.size() == chunk.len;
    content.set_whole_blob(is_whole);
    Ok(is_whole.then_some(*digest.as_bytes()))
}

/// Finds out if a file has a digest whose blobs are open.
pub(crate) fn note(inode: &INode<PuzzleFs>) {
    let image = inode.superblock().data();
    if let Ok(Some((content, chunk, _))) = candidate(image, inode) {
        if content.is_whole_blob().is_none() {
            if let Ok(blob) = image.open_blob(&chunk.blob, Opening::Now) {
                content.set_whole_blob(blob.size() == chunk.len);
            }
        }
    }
}

/// Returns true if the file is known to have a digest.
pub(crate) fn is_known(inode: &INode<PuzzleFs>) -> bool {
    match candidate(inode.superblock().data(), inode) {
        Ok(Some((content, _, _))) => content.is_whole_blob() == Some(true),
        _ => false,
    }
}

/// Returns the only chunk of a regular file, if it is the beginning of a raw blob that has an
/// fs-verity digest, with that digest.
fn candidate<'a>(
    image: &Image,
    inode: &'a INode<PuzzleFs>,
) -> Result<Option<(&'a Content, Chunk, Digest)>, puzzlefs_schema::Error> {
    let Body::File(content) = &inode.data().body else {
        return Ok(None);
    };
    let metadata = image.metadata();
    let extents = content.extents(&metadata);
    if image.verify() != Verify::FsVerity || extents.len() != 1 {
        return Ok(None);
    }
    let chunk = extents.get(0)?;
    if chunk.compressed || chunk.blob_offset != 0 {
        return Ok(None);
    }
    let digest = metadata.verity(&chunk.blob)?;
    Ok(digest.map(|digest| (content, chunk, digest)))
}
