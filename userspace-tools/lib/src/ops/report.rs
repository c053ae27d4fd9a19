// SPDX-License-Identifier: MIT OR Apache-2.0

//! The result of a verification.

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The image that it is wrong with, where it is not the store.
    pub image: Option<String>,
    /// What is wrong, and where.
    pub what: String,
}

/// What was looked at, and what was found.
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
    /// All that is wrong. None: it is whole.
    pub faults: Vec<Fault>,
}
