// SPDX-License-Identifier: MIT OR Apache-2.0

//! Failures to build an image.

use crate::model::chunk::EncodeError;
use crate::model::tree::Difference;
use puzzlefs_schema::v4::{MetadataError, PackError};
use std::fmt;
use std::path::PathBuf;

/// A failure to build an image.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The tree changed while it was read.
    #[error(
        "cannot build from {}: changed while it was being read ({change}); nothing was tagged. \
         Build again when the tree is quiet, or from a snapshot of it", .path.display())]
    Changed {
        /// The path of the file or directory.
        path: PathBuf,
        /// The difference.
        change: Change,
    },
    /// The tree to build from is the store that the image is for.
    #[error(
        "cannot build from {}: it is the store that the image is for; \
         give the directory whose tree goes into the image", .path.display())]
    SourceIsStore {
        /// The path of the tree.
        path: PathBuf,
    },
    /// The metadata would be larger than what a reader accepts.
    #[error("cannot build an image in {}: the image's metadata would be too large: {what}",
            .store.display())]
    MetadataTooLarge {
        /// The path of the store.
        store: PathBuf,
        /// The part that is too large.
        what: &'static str,
    },
    /// The metadata of a file breaks a rule of format 4.
    #[error(
        "cannot encode the metadata of {}: {cause}; change the file, or leave it out with --exclude",
        .path.display())]
    Metadata {
        /// The path in the image.
        path: PathBuf,
        /// The rule.
        cause: MetadataError,
    },
    /// The base has as many layers as an image can have.
    #[error(
        "cannot build an image in {}: {layers} layers are as many as an image can have; \
         build without a base, import without keeping the layers", .store.display())]
    TooManyLayers {
        /// The path of the store.
        store: PathBuf,
        /// The limit.
        layers: u32,
    },
    /// A chunk cannot be added to a pack.
    #[error("cannot build an image in {}: cannot write a pack: {cause}", .store.display())]
    Pack {
        /// The path of the store.
        store: PathBuf,
        /// The violated rule.
        cause: PackError,
    },
    /// A chunk cannot be encoded.
    #[error(transparent)]
    Chunk(#[from] EncodeError),
}

/// A difference between two looks at a file of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It no longer exists.
    Vanished,
    /// It is outside of the tree.
    Moved,
    /// It has another type.
    OtherType,
    /// It ended before its size.
    EndedAfter(u64),
    /// Its attributes changed.
    Attributes(Difference),
}

impl From<Difference> for Change {
    fn from(difference: Difference) -> Self {
        Change::Attributes(difference)
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Vanished => f.write_str("it vanished"),
            Change::Moved => f.write_str("it was moved out of the tree"),
            Change::OtherType => f.write_str("its type is another"),
            Change::EndedAfter(bytes) => write!(f, "it ended after {bytes} bytes"),
            Change::Attributes(difference) => difference.fmt(f),
        }
    }
}
