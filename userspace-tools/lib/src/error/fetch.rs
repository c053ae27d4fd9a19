// SPDX-License-Identifier: MIT OR Apache-2.0

//! Failures to fetch an image from a source that is not trusted.

use crate::model::digest::Digest;
use crate::model::json::ParseError;
use crate::model::media::NotPuzzlefs;
use puzzlefs_schema::v4::PackError;

/// A failure to fetch an image, because its source does not have it as the manifest says.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The manifest cannot be parsed.
    #[error("cannot fetch the image: its manifest is {cause}")]
    Manifest {
        /// The cause.
        cause: ParseError,
    },
    /// The manifest is that of another kind of image.
    #[error("cannot fetch the image: {cause}")]
    NotPuzzlefs {
        /// The cause.
        cause: NotPuzzlefs,
    },
    /// A digest in the manifest is malformed.
    #[error(
        "cannot fetch the image: its manifest has a digest that is not sha256: '{}'",
        .digest.escape_default())]
    NotADigest {
        /// The text in place of a digest.
        digest: String,
    },
    /// The blob that arrived is not the one that the manifest lists.
    #[error(
        "cannot fetch blob {wanted}: the bytes that arrived have sha256 {found}; the source or the \
         connection changed them: fetch it again, or push the image again")]
    Blob {
        /// The digest in the manifest.
        wanted: Digest,
        /// The digest of the bytes that arrived.
        found: Digest,
    },
    /// The blob that arrived has another length.
    #[error(
        "cannot fetch blob {blob}: {found} bytes arrived instead of {wanted}; push the image again"
    )]
    Length {
        /// The digest of the blob.
        blob: Digest,
        /// The length in the manifest.
        wanted: u64,
        /// The number of bytes that arrived.
        found: u64,
    },
    /// A pack of the manifest is malformed.
    #[error("cannot fetch pack {pack}: {cause}; push the image again")]
    Pack {
        /// The digest of the pack.
        pack: Digest,
        /// The violated rule.
        cause: PackError,
    },
    /// A chunk that arrived is not the one that the index of the pack lists.
    #[error(
        "cannot fetch chunk {wanted} of pack {pack}: the bytes that arrived have sha256 {found}; the \
         source or the connection changed them: fetch it again, or push the image again")]
    Chunk {
        /// The digest of the pack.
        pack: Digest,
        /// The digest in the index of the pack.
        wanted: Digest,
        /// The digest of the bytes that arrived.
        found: Digest,
    },
    /// No pack of the manifest has a chunk of the image.
    #[error("cannot use the image: its packs lack chunk {chunk}; push the image again")]
    NotWhole {
        /// The digest of the chunk.
        chunk: Digest,
    },
    /// The packs have more chunks than an image can have.
    #[error("cannot fetch the image: its packs have more than {max} chunks")]
    TooManyChunks {
        /// The limit.
        max: usize,
    },
}
