// SPDX-License-Identifier: MIT OR Apache-2.0

//! The result of a verification.

/// A fault of a store or an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The image with the fault. None if it is a fault of the store.
    pub image: Option<String>,
    /// The place and the cause.
    pub what: String,
}

/// The amounts that were verified, and the faults.
#[derive(Clone, Debug, Default)]
pub struct Verified {
    /// PuzzleFS images.
    pub images: u64,
    /// Inodes of all their layers.
    pub inodes: u64,
    /// Extents of all files.
    pub extents: u64,
    /// Blobs that were read.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// All faults.
    pub faults: Vec<Fault>,
}
