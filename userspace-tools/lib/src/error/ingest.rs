// SPDX-License-Identifier: MIT OR Apache-2.0

//! Failures to read an archive or a container image.

use std::path::PathBuf;

/// A failure to read an archive or a container image.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// An archive or a container image is malformed, or has a form that is not supported.
    #[error("cannot read {}: {fault}", .path.display())]
    Unreadable {
        /// The path of the archive or the container image.
        path: PathBuf,
        /// The fault that the reader of its format found, with its place.
        fault: String,
    },
}
