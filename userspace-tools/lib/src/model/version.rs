// SPDX-License-Identifier: MIT OR Apache-2.0

//! Versions of the image format.

/// The version of the image format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Version 3: a blob for each chunk, and one with the metadata.
    V3,
    /// Version 4: chunks in packs, and metadata in small chunks.
    #[default]
    V4,
}

impl Format {
    /// The number of the version.
    pub const fn number(self) -> u8 {
        match self {
            Format::V3 => 3,
            Format::V4 => 4,
        }
    }
}
