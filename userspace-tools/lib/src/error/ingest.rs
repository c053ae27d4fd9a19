// SPDX-License-Identifier: MIT OR Apache-2.0

//! Failures to read an archive or a container image.

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
        /// The fault that the reader of its format found, with its place.
        fault: String,
    },
}

/// The remedy for an archive that is whole although its end is not marked.
const IGNORE_ZEROS: &str = "; if it is whole, give --ignore-zeros";
