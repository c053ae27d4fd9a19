// SPDX-License-Identifier: GPL-2.0

//! Metadata blobs: the inodes and directories of an image, in memory as they lie in the store.

use crate::vfs::prelude::*;
use crate::{
    base::message::{ErrorName, Show},
    ports::sha256::{Digest as _, Sha256},
    store::blob::Blob,
    vfs::{backing::ReadBuffer, relax},
    MountContext,
};
use kernel::sync::Arc;
use puzzlefs_schema::{Digest, Framing, Metadata};

/// The largest metadata blob that is mounted, in bytes. An image of a million files has some 140 MB
/// of metadata; it is held in memory while it is mounted.
const MAX_SIZE: u64 = 1 << 30;

/// How much of the metadata is read and hashed at a time, in bytes.
const READ_SIZE: usize = 1 << 20;

/// A metadata blob, in memory; mounts of one image share it.
pub(crate) struct MetadataBlob {
    digest: Digest,
    bytes: KVVec<u8>,
    framing: Framing,
}

impl MetadataBlob {
    /// Reads a blob, and checks it against the digest that is its name.
    pub(crate) fn read(blob: &Blob, digest: &Digest, context: &MountContext) -> Result<Arc<Self>> {
        let bytes = read(blob, digest).map_err(|(what, e)| explain(context, digest, what, e))?;
        let malformed = |e| {
            context.error(fmt!("metadata blob {}: {}", Show(digest), Show(e)));
            EUCLEAN
        };
        let framing = Framing::parse(&bytes).map_err(malformed)?;
        Metadata::new(&framing, &bytes).check().map_err(malformed)?;
        let this = Self {
            digest: *digest,
            bytes,
            framing,
        };
        Ok(Arc::new(this, GFP_KERNEL)?)
    }

    /// The digest that is its name.
    pub(crate) fn digest(&self) -> &Digest {
        &self.digest
    }

    /// What it says.
    pub(crate) fn metadata(&self) -> Metadata<'_> {
        Metadata::new(&self.framing, &self.bytes)
    }
}

/// Tells whoever mounts what is wrong with a metadata blob; nothing is if the task is being killed.
pub(crate) fn explain(context: &MountContext, digest: &Digest, what: &str, e: Error) -> Error {
    if e == EINTR || e == ERESTARTSYS {
        return e;
    }
    context.error(fmt!(
        "metadata blob {}: {what}: {}",
        Show(digest),
        ErrorName(e)
    ));
    e
}

/// Reads a blob and checks its digest.
///
/// Memory is taken for the size that the file has, which is bounded.
fn read(blob: &Blob, digest: &Digest) -> Result<KVVec<u8>, (&'static str, Error)> {
    let file = blob.file();
    let size = file.size();
    if size > MAX_SIZE {
        return Err(("larger than 1 GiB", EFBIG));
    }
    let size = usize::try_from(size).map_err(|_| ("too large", EFBIG))?;
    let no_memory = |_| ("no memory", ENOMEM);
    let mut bytes = KVVec::with_capacity(size, GFP_KERNEL | __GFP_NOWARN).map_err(no_memory)?;

    let mut buffer = ReadBuffer::new(READ_SIZE.min(size)).map_err(|e| ("no memory", e))?;
    let mut hash = Sha256::new();
    while bytes.len() < size {
        relax().map_err(|e| ("interrupted", e))?;
        let len = READ_SIZE.min(size - bytes.len());
        let place = file
            .read_to(&mut buffer, 0, bytes.len() as u64, len)
            .map_err(|e| ("cannot be read", e))?;
        let read = buffer.get(place).unwrap_or_default();
        if read.is_empty() {
            return Err(("shrank while it was read", EIO));
        }
        // There is room.
        bytes
            .extend_from_slice(read, GFP_KERNEL)
            .map_err(no_memory)?;
        hash.update(read);
    }
    if hash.finalize()[..] != digest.as_bytes()[..] {
        return Err(("its contents have another digest", EBADMSG));
    }
    if bytes.is_empty() {
        return Err(("it is empty", EUCLEAN));
    }
    Ok(bytes)
}
