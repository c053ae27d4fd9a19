// SPDX-License-Identifier: MIT OR Apache-2.0

//! Failures to read an archive or a container image.
//!
//! | part | content |
//! | --- | --- |
//! | `image` | faults of container images |
//! | `tar` | faults of tar archives, with their places |
//! | `tree` | members that cannot be put into a tree |

mod image;
mod tar;
mod tree;

pub use image::ContainerFault;
pub use tar::{Extension, MalformedTar, SparseFault, TarFault, TarPlace};
pub use tree::TreeFault;

use std::path::PathBuf;

/// A failure to read an archive or a container image.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// An archive ends without the blocks that mark its end.
    #[error("cannot read {}: it is truncated: its end is not marked{}",
            .path.display(), if *.may_ignore_zeros { IGNORE_ZEROS } else { "" })]
    NoEnd {
        /// The path of the archive.
        path: PathBuf,
        /// The command has the option `--ignore-zeros`.
        may_ignore_zeros: bool,
    },
    /// An archive or a container image is malformed, or has a form that is not supported.
    #[error("cannot read {}: {fault}", .path.display())]
    Unreadable {
        /// The path of the archive or the container image.
        path: PathBuf,
        /// The fault, with its place.
        fault: IngestFault,
    },
}

/// The remedy for an archive that is whole although its end is not marked.
const IGNORE_ZEROS: &str = "; if it is whole, give --ignore-zeros";

/// A fault of an archive or a container image.
#[derive(Debug, thiserror::Error)]
pub enum IngestFault {
    /// The file has a format that is known and cannot be read.
    #[error("{0}")]
    Format(#[from] UnsupportedFormat),
    /// A tar archive is malformed.
    #[error("{0}")]
    Tar(#[from] MalformedTar),
    /// A member cannot be put into the tree.
    #[error("{}: {fault}", String::from_utf8_lossy(.member))]
    Member {
        /// The path of the member.
        member: Vec<u8>,
        /// The cause.
        fault: TreeFault,
    },
    /// The tree of all members cannot be made.
    #[error("{0}")]
    Tree(#[from] TreeFault),
    /// A container image cannot be used.
    #[error("{0}")]
    Container(Box<ContainerFault>),
}

impl From<ContainerFault> for IngestFault {
    fn from(fault: ContainerFault) -> Self {
        IngestFault::Container(Box::new(fault))
    }
}

/// A format of files that is known and cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnsupportedFormat {
    /// A compression of this name.
    #[error(
        "it is compressed with {0}; decompress it and give it on the standard input, as '-' \
         (gzip, zstd, xz and bzip2 need no such step)"
    )]
    Compression(&'static str),
    /// A format other than tar, with its article.
    #[error("it is {0}, not a tar archive")]
    NotTar(&'static str),
}
