// SPDX-License-Identifier: GPL-2.0

//! The fs-verity digests of files.
//!
//! The metadata has fs-verity digests of blobs. If a blob is raw and holds one file and nothing
//! else, its digest is the file's, too. Under `verify=fsverity`, the lower filesystem checks each
//! page of the blob against it; in other modes nothing does, and a file has no digest.

use super::{
    fs_type::PuzzleFs,
    node::{content, reader, site},
};
use crate::{
    base::verify::Verify,
    fill::{extent_map::ExtentMap, reader::FileReader},
    store::opening::Opening,
    tree::Node,
    vfs::{prelude::*, INode},
};
use puzzlefs_schema::{Chunk, Digest};

/// Returns the digest that reads of a regular file are checked against, if it has one.
///
/// # Errors
///
/// Those of opening the file's blob, and [`EUCLEAN`] if the metadata is malformed.
pub(super) fn digest(inode: &INode<PuzzleFs>) -> Result<Option<[u8; 32]>> {
    let candidate = candidate(inode).map_err(|e| site(inode).report(e))?;
    let Some(Candidate {
        reader,
        chunk,
        digest,
    }) = candidate
    else {
        return Ok(None);
    };
    let blob = reader
        .open_in_store(&chunk.blob, Opening::Waiting)
        .map_err(|fault| reader.site.blob(&chunk.blob).report(fault))?;
    let is_whole = blob.size() == chunk.len;
    reader.content.set_whole_blob(is_whole);
    Ok(is_whole.then_some(*digest.as_bytes()))
}

/// Finds out if a file has a digest, if its blob is open.
pub(super) fn note(inode: &INode<PuzzleFs>) {
    let Ok(Some(Candidate { reader, chunk, .. })) = candidate(inode) else {
        return;
    };
    if reader.content.is_whole_blob().is_none() {
        if let Ok(blob) = reader.open_in_store(&chunk.blob, Opening::Now) {
            reader.content.set_whole_blob(blob.size() == chunk.len);
        }
    }
}

/// Returns true if the file is known to have a digest.
///
/// Called for every `stat`: reads no metadata. [`digest`] and [`note`] set the flag for candidates
/// only, which format 4 does not have.
pub(super) fn is_known(inode: &INode<PuzzleFs>) -> bool {
    matches!(inode.data(), Node::V3(_))
        && content(inode).is_some_and(|content| content.is_whole_blob() == Some(true))
}

/// A regular file that has an fs-verity digest if its only chunk is all of the blob.
struct Candidate<'a> {
    reader: FileReader<'a>,
    chunk: Chunk,
    /// The digest of the blob.
    digest: Digest,
}

/// Returns a file whose only chunk is the beginning of a raw blob that has an fs-verity digest.
fn candidate(inode: &INode<PuzzleFs>) -> Result<Option<Candidate<'_>>, puzzlefs_schema::Error> {
    let Some(reader) = reader(inode) else {
        return Ok(None);
    };
    if reader.verify != Verify::FsVerity {
        return Ok(None);
    }
    let ExtentMap::Version3 {
        metadata, extents, ..
    } = reader.map
    else {
        return Ok(None);
    };
    if extents.len() != 1 {
        return Ok(None);
    }
    let chunk = extents.get(0)?;
    if chunk.compressed || chunk.blob_offset != 0 {
        return Ok(None);
    }
    let digest = metadata.verity(&chunk.blob)?;
    Ok(digest.map(|digest| Candidate {
        reader,
        chunk,
        digest,
    }))
}
