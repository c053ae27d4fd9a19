// SPDX-License-Identifier: GPL-2.0

//! The chunks of an open file whose digests were checked, if the lower filesystem then guarantees
//! that the file does not change.
//!
//! The set has a bounded size, and forgets chunks. A chunk that it forgot is checked again.

use super::digest_cache::DigestCache;
use crate::{base::range::ByteRange, vfs::prelude::*};
use puzzlefs_schema::Digest;

/// The number of bytes of a file for each place of its set: smaller than most chunks.
const BYTES_PER_PLACE: u64 = 16 << 10;

/// The largest number of places.
const MAX_PLACES: u64 = 8 << 10;

/// A set of chunks whose digests were checked.
pub(super) struct VerifiedChunks(DigestCache<ByteRange>);

impl VerifiedChunks {
    /// Makes an empty set for a file of a size.
    pub(super) fn new(size: u64) -> Result<Self> {
        let places = (size / BYTES_PER_PLACE).clamp(1, MAX_PLACES);
        Ok(Self(DigestCache::new(places as usize)?))
    }

    /// Returns true if the bytes of a range are known to have a digest.
    pub(super) fn has(&self, digest: &Digest, stored: ByteRange) -> bool {
        self.0.get(digest) == Some(stored)
    }

    /// Notes that the bytes of a range have a digest.
    pub(super) fn add(&self, digest: &Digest, stored: ByteRange) {
        self.0.insert(digest, stored);
    }

    /// Returns the memory that the set takes, in bytes.
    pub(super) fn memory(&self) -> usize {
        self.0.memory()
    }
}
