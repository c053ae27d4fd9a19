// SPDX-License-Identifier: MIT OR Apache-2.0

//! Failures to read an image.

use crate::model::digest::Digest;
use crate::model::json::ParseError;
use crate::model::start_order::OrderFault;
use std::fmt;
use std::path::PathBuf;

/// A failure to read an image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The metadata blob is not well-formed.
    #[error("cannot read {}: malformed metadata: {cause}", .path.display())]
    Malformed {
        /// The path of the metadata blob.
        path: PathBuf,
        /// The cause.
        cause: puzzlefs_schema::Error,
    },
    /// A start-up order is not well-formed.
    #[error("cannot use the start-up order {}: {}{fault}", .path.display(), Line(*.line))]
    Order {
        /// The path of the order.
        path: PathBuf,
        /// The number of the line; 0 if the fault is not in a line.
        line: usize,
        /// The fault.
        fault: OrderFault,
    },
    /// The parts of the metadata contradict each other.
    #[error("cannot read {}: malformed metadata: {what}", .path.display())]
    Inconsistent {
        /// The path of the metadata blob.
        path: PathBuf,
        /// The contradiction.
        what: String,
    },
    /// A metadata chunk of an image of format 4 is not well-formed.
    #[error(
        "cannot read chunk {chunk} of {}: malformed metadata: {cause}; build or copy the image again",
        .store.display())]
    MalformedChunk {
        /// The path of the store.
        store: PathBuf,
        /// The digest of the chunk.
        chunk: Digest,
        /// The cause.
        cause: puzzlefs_schema::v4::MetadataError,
    },
    /// A path leads to nothing in the image.
    #[error("cannot find {}: {fault} in the image", .path.display())]
    Path {
        /// The path in the image.
        path: PathBuf,
        /// The cause.
        fault: PathFault,
    },
    /// fs-verity is not enabled on a blob that it has to verify.
    #[error(
        "cannot verify {}: fs-verity is not enabled on it; 'puzzlefs enable-verity' does that",
        .path.display())]
    NoVerity {
        /// The path of the blob.
        path: PathBuf,
    },
    /// fs-verity verifies a blob against another digest than the image's.
    #[error("cannot verify {}: its fs-verity digest is not the image's", .path.display())]
    OtherVerity {
        /// The path of the blob.
        path: PathBuf,
    },
    /// The configuration of a container cannot be parsed.
    #[error("cannot read {}: {cause}", .path.display())]
    Configuration {
        /// The path of the configuration.
        path: PathBuf,
        /// The cause.
        cause: ParseError,
    },
    /// The configuration of a container is larger than the limit.
    #[error(
        "cannot read {}: not the configuration of a container image: it has more than {max} bytes",
        .path.display())]
    ConfigurationTooLarge {
        /// The path of the configuration.
        path: PathBuf,
        /// The limit in bytes.
        max: u64,
    },
}

/// The reason that a path leads to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathFault {
    /// A name does not exist.
    NotFound,
    /// A name before the last one is not a directory.
    NotADirectory,
    /// The path follows too many symbolic links.
    TooManyLinks,
}

impl fmt::Display for PathFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PathFault::NotFound => "no such file or directory",
            PathFault::NotADirectory => "something in the path is not a directory",
            PathFault::TooManyLinks => "too many symbolic links on the way",
        })
    }
}

/// The number of a line in a message; nothing if it is 0.
struct Line(usize);

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            line => write!(f, "line {line}: "),
        }
    }
}
