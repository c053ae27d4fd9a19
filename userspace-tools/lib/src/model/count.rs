// SPDX-License-Identifier: MIT OR Apache-2.0

//! Numbers of blobs.

/// A number of blobs and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// The number of blobs.
    pub blobs: u64,
    /// The sum of their sizes.
    pub bytes: u64,
}

impl Count {
    /// Adds another count.
    pub fn add_all(&mut self, other: Count) {
        self.blobs += other.blobs;
        self.bytes = self.bytes.saturating_add(other.bytes);
    }

    /// Adds a blob of this size.
    pub fn add(&mut self, bytes: u64) {
        self.blobs += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }
}
