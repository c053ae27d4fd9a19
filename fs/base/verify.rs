// SPDX-License-Identifier: GPL-2.0

//! Modes of verification.

/// The verification of data blobs that a mount has chosen.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Verify {
    /// None.
    #[default]
    None,
    /// Each blob must have the fs-verity digest that the metadata has for it. The lower filesystem
    /// checks each page against it.
    FsVerity,
    /// Each blob is read as a whole and hashed before any part of it enters the page cache.
    Digest,
}

impl Verify {
    /// Returns the value of the mount option `verify`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::FsVerity => "fsverity",
            Self::Digest => "digest",
        }
    }

    /// Returns the mode of a value of the mount option `verify`.
    pub(crate) fn from_name(name: &[u8]) -> Option<Self> {
        [Self::None, Self::FsVerity, Self::Digest]
            .into_iter()
            .find(|verify| verify.name().as_bytes() == name)
    }
}
