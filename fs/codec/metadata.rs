// SPDX-License-Identifier: GPL-2.0

//! Metadata chunks of version 4: found, read, verified and decoded.
//!
//! They are verified in every mode of verification, because everything else follows from them. The
//! caller has no workspace: borrowing a second one could wait for itself.

use super::chunk::{check_frame, read_verified};
use crate::{
    base::{
        fault::Fault,
        statistics::Statistics,
        trace::{self, Start},
    },
    io::pool::{Purpose, Workspace},
    ports::zstd_safe::DCtx,
    store::{
        blob_store::BlobStore,
        chunks::{ChunkQuery, OpenChunk},
        opening::Opening,
    },
    vfs::prelude::*,
};
use puzzlefs_schema::{
    v4::{root_ref, ChunkError, ChunkRef, Encoding, MAX_METADATA_CONTENT},
    Digest,
};

/// Reads the content of a metadata chunk, or of the value of an extended attribute.
///
/// The caller has no folios locked. The content is charged to the memory control group of the task.
///
/// # Errors
///
/// [`Fault::NoChunk`] if the store does not have it; [`Fault::Digest`] if it has another digest;
/// [`Fault::Chunk`], [`Fault::Frame`] and [`Fault::FrameSize`] if it cannot be decoded; those of
/// opening and reading its file, [`ENOMEM`] and [`EINTR`].
pub(crate) fn read(
    store: &BlobStore,
    chunk: &ChunkRef,
    statistics: &Statistics,
) -> Result<KVVec<u8>, Fault> {
    if chunk.content_len() > MAX_METADATA_CONTENT {
        return Err(Fault::Chunk(ChunkError::MetadataLength));
    }
    let query = ChunkQuery::new(chunk, Opening::Waiting, statistics);
    let encoding = Some(chunk.encoding());
    read_with(store, &query, chunk.digest(), encoding, |_| Ok(*chunk)).map(|(_, content)| content)
}

/// Reads the content of the root of an image, of which only the digest is known. Returns the
/// reference to it, too.
///
/// # Errors
///
/// Those of [`read`]; [`Fault::Chunk`] if the chunk cannot be a root.
pub(crate) fn read_root(
    store: &BlobStore,
    digest: &Digest,
    statistics: &Statistics,
) -> Result<(ChunkRef, KVVec<u8>), Fault> {
    let query = ChunkQuery::root(digest, Opening::Waiting, statistics);
    read_with(store, &query, digest, None, |stored| {
        let len = u32::try_from(stored.len()).map_err(|_| Fault::ChunkSize)?;
        Ok(root_ref(*digest, len, stored)?)
    })
}

/// Reads a chunk, whose reference is made from its stored bytes.
fn read_with(
    store: &BlobStore,
    query: &ChunkQuery<'_>,
    digest: &Digest,
    encoding: Option<Encoding>,
    reference: impl FnOnce(&[u8]) -> Result<ChunkRef, Fault>,
) -> Result<(ChunkRef, KVVec<u8>), Fault> {
    let open = store.open_chunk(query)?;
    open.blob.advance(query.statistics, open.stored, true);
    let purpose = Purpose {
        blob: open.blob.id(),
        chunk: Some(open.stored),
        whole: true,
    };
    let read = |workspace: Option<&mut Workspace>| {
        // The caller waits for a workspace.
        let workspace = workspace.ok_or(Fault::Errno(EIO))?;
        read_open(
            query.statistics,
            workspace,
            &open,
            digest,
            encoding,
            reference,
        )
    };
    let (workspaces, returns) = (store.workspaces(), store.workspace_returns());
    let content = workspaces.with(returns, purpose, false, read)?;
    if content
        .as_ref()
        .is_err_and(|fault| fault.passing().is_none())
    {
        // Another file may take its place.
        open.blob.file().forget_cached();
        store.forget(open.blob.digest());
    }
    content
}

/// Reads and verifies the stored bytes of a chunk, and decodes them.
// Not inlined, so that chunks are found without its variables on the stack.
#[inline(never)]
fn read_open(
    statistics: &Statistics,
    workspace: &mut Workspace,
    open: &OpenChunk,
    digest: &Digest,
    encoding: Option<Encoding>,
    reference: impl FnOnce(&[u8]) -> Result<ChunkRef, Fault>,
) -> Result<(ChunkRef, KVVec<u8>), Fault> {
    let Workspace { decoder, buffer } = workspace;
    let place = read_verified(statistics, buffer, open, digest, encoding)?;
    decode(statistics, decoder, buffer.get(&place)?, reference)
}

/// Decodes the stored bytes of a chunk.
fn decode(
    statistics: &Statistics,
    decoder: &mut DCtx,
    stored: &[u8],
    reference: impl FnOnce(&[u8]) -> Result<ChunkRef, Fault>,
) -> Result<(ChunkRef, KVVec<u8>), Fault> {
    let chunk = reference(stored)?;
    let len = chunk.content_len() as usize;
    let mut content = KVVec::with_capacity(len, GFP_KERNEL_ACCOUNT | __GFP_NOWARN)?;
    match chunk.encoding() {
        Encoding::Raw => content.extend_from_slice(stored, GFP_KERNEL_ACCOUNT)?,
        Encoding::Zstd => {
            check_frame(&chunk, stored)?;
            let start = Start::of_decode();
            let decoded = decoder.decompress(&mut content, stored);
            trace::decompressed(start, stored.len(), len);
            statistics.bytes_decompressed.add(len as u64);
            decoded.map_err(|_| Fault::Frame)?;
        }
    }
    if content.len() != len {
        return Err(Fault::FrameSize);
    }
    Ok((chunk, content))
}
