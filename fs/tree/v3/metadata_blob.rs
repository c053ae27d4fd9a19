// SPDX-License-Identifier: GPL-2.0

//! Metadata blobs: the inodes and directories of an image, in memory as they are stored.

use crate::{
    base::{
        fault::{Fault, Unusable},
        limits::MAX_METADATA,
    },
    ports::sha256::{Digest as _, Sha256},
    store::blob::Blob,
    vfs::{lower::ReadBuffer, prelude::*, relax},
};
use kernel::sync::Arc;
use puzzlefs_schema::{Digest, Framing, Metadata};

/// The size of a read of the metadata blob, in bytes.
const READ_SIZE: usize = 1 << 20;

/// A metadata blob in memory, which mounts of one image share.
///
/// # Invariants
///
/// `bytes` have the digest, and `framing` is that of `bytes`.
pub(crate) struct MetadataBlob {
    digest: Digest,
    bytes: KVVec<u8>,
    framing: Framing,
}

impl MetadataBlob {
    /// Reads a blob, and checks it against the digest that is its name.
    ///
    /// # Errors
    ///
    /// [`Fault::MetadataBlob`], [`Fault::Metadata`] and [`ENOMEM`].
    pub(crate) fn read(blob: &Blob, digest: &Digest) -> Result<Arc<Self>, Fault> {
        let bytes = read(blob, digest)?;
        let framing = Framing::parse(&bytes)?;
        Metadata::new(&framing, &bytes).check()?;
        // INVARIANT: The digest was checked, and the framing was parsed just now.
        let this = Self {
            digest: *digest,
            bytes,
            framing,
        };
        Ok(Arc::new(this, GFP_KERNEL)?)
    }

    /// Returns the digest that is the name of the blob.
    pub(crate) fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Returns the metadata.
    ///
    /// Walks through its lists let other tasks run, and end if the task is being killed.
    pub(crate) fn metadata(&self) -> Metadata<'_> {
        Metadata::new(&self.framing, &self.bytes).interruptible(|| relax().is_ok())
    }
}

/// Reads a blob and checks its digest.
///
/// Allocates as much memory as the file has bytes, at most [`MAX_METADATA`].
fn read(blob: &Blob, digest: &Digest) -> Result<KVVec<u8>, Fault> {
    let unusable = |cause| move |e| Fault::MetadataBlob(cause, e);
    let no_memory = |_| Fault::MetadataBlob(Unusable::Memory, ENOMEM);
    let file = blob.file();
    let size = file.size();
    if size > MAX_METADATA {
        return Err(Fault::MetadataBlob(Unusable::TooLarge, EFBIG));
    }
    let size = usize::try_from(size).map_err(|_| Fault::MetadataBlob(Unusable::TooLarge, EFBIG))?;
    let mut bytes = KVVec::with_capacity(size, GFP_KERNEL | __GFP_NOWARN).map_err(no_memory)?;

    let mut buffer = ReadBuffer::new(READ_SIZE.min(size)).map_err(unusable(Unusable::Memory))?;
    let mut hash = Sha256::new();
    while bytes.len() < size {
        relax().map_err(unusable(Unusable::Interrupted))?;
        let len = READ_SIZE.min(size - bytes.len());
        let place = file
            .read_to(&mut buffer, 0, bytes.len() as u64, len)
            .map_err(unusable(Unusable::Read))?;
        let read = buffer.get(place).unwrap_or_default();
        if read.is_empty() {
            return Err(Fault::MetadataBlob(Unusable::Shrank, EIO));
        }
        // There is room.
        bytes
            .extend_from_slice(read, GFP_KERNEL)
            .map_err(no_memory)?;
        hash.update(read);
    }
    if hash.finalize()[..] != digest.as_bytes()[..] {
        return Err(Fault::MetadataBlob(Unusable::Digest, EBADMSG));
    }
    if bytes.is_empty() {
        return Err(Fault::MetadataBlob(Unusable::Empty, EUCLEAN));
    }
    Ok(bytes)
}
