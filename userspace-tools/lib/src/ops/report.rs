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
    /// The chunks of images of format 4.
    pub chunks: u64,
    /// Their stored bytes.
    pub chunk_bytes: u64,
    /// The images of format 4.
    pub packed: Vec<PackedImage>,
    /// The packs of these images that exist and that the chunk index does not list. Only the kernel needs
    /// the index.
    pub unlisted_packs: u64,
    /// All faults.
    pub faults: Vec<Fault>,
}

/// An image of format 4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedImage {
    /// Its tags, or its digest.
    pub name: String,
    /// The packs of its manifest.
    pub packs: u64,
    /// Those that do not exist.
    pub missing_packs: u64,
    /// All its chunks exist, so that it can be mounted.
    pub is_whole: bool,
}

impl PackedImage {
    /// Returns true if all packs of its manifest exist, so that any tool can copy it.
    pub fn is_complete(&self) -> bool {
        self.missing_packs == 0
    }
}
