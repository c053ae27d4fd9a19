// SPDX-License-Identifier: MIT OR Apache-2.0

//! The source of blobs.

use crate::error::Result;
use crate::model::digest::Digest;
use std::ops::Range;

/// A blob of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteBlob {
    /// The digest.
    pub digest: Digest,
    /// The size in bytes, as the manifest states it.
    pub size: u64,
}

/// A source of blobs, such as a registry. Nothing that it gives is trusted.
pub trait BlobSource: Sync {
    /// Reads a range of a blob, and calls `give` with its bytes, piece by piece in their order.
    ///
    /// Returns false, without a call of `give`, if the source can read blobs only from their beginning to
    /// their end, and the range is another one.
    ///
    /// # Errors
    ///
    /// If the source cannot give exactly the bytes of the range. An error of `give` is returned.
    fn read(
        &self,
        blob: &RemoteBlob,
        range: Range<u64>,
        give: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<bool>;
}

/// A source of images: blobs, manifests and indexes. Nothing that it gives is trusted.
pub trait ImageSource: BlobSource {
    /// Returns the name of the image for messages.
    fn name(&self) -> String;

    /// Reads a manifest or an index, of a few megabytes at most.
    ///
    /// # Errors
    ///
    /// If the source does not have it. The caller compares the digest.
    fn manifest(&self, digest: &Digest) -> Result<Vec<u8>>;
}

/// Options of a fetch.
#[derive(Clone, Copy, Debug)]
pub struct FetchOptions {
    /// The number of blobs and ranges that are fetched at once.
    pub jobs: usize,
}
