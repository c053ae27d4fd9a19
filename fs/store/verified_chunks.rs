// SPDX-License-Identifier: GPL-2.0

//! The chunks of an open file whose digests were checked, if the lower filesystem then guarantees
//! that the file does not change.
//!
//! The set is a table of bounded size, in which a chunk replaces another one. A chunk that was
//! replaced is checked again.
//!
//! # Locking
//!
//! The spinlock `table` protects the table. It is innermost.

use crate::{base::range::ByteRange, vfs::prelude::*};
use kernel::{new_spinlock, sync::SpinLock};
use puzzlefs_schema::Digest;

/// The number of bytes of a file for each place of its table: smaller than most chunks.
const BYTES_PER_PLACE: u64 = 16 << 10;

/// The largest number of places.
const MAX_PLACES: u64 = 8 << 10;

type VerifiedChunk = (Digest, ByteRange);

/// A set of chunks whose digests were checked.
pub(super) struct VerifiedChunks {
    places: usize,
    table: Pin<KBox<SpinLock<KVVec<Option<VerifiedChunk>>>>>,
}

impl VerifiedChunks {
    /// Makes an empty set for a file of a size.
    pub(super) fn new(size: u64) -> Result<Self> {
        let places = (size / BYTES_PER_PLACE).clamp(1, MAX_PLACES) as usize;
        let mut table = KVVec::new();
        table.resize(places, None, GFP_KERNEL | __GFP_NOWARN)?;
        Ok(Self {
            places,
            table: KBox::pin_init(new_spinlock!(table, "puzzlefs_verified"), GFP_KERNEL)?,
        })
    }

    fn place(&self, digest: &Digest) -> usize {
        let [a, b, c, d, ..] = *digest.as_bytes();
        let number = u32::from_le_bytes([a, b, c, d]) as usize;
        // There is at least one place.
        number.checked_rem(self.places).unwrap_or(0)
    }

    /// Returns true if the bytes of a range are known to have a digest.
    pub(super) fn has(&self, digest: &Digest, stored: ByteRange) -> bool {
        let table = self.table.lock();
        matches!(table.get(self.place(digest)), Some(Some(chunk)) if *chunk == (*digest, stored))
    }

    /// Notes that the bytes of a range have a digest.
    pub(super) fn add(&self, digest: &Digest, stored: ByteRange) {
        let mut table = self.table.lock();
        if let Some(place) = table.get_mut(self.place(digest)) {
            *place = Some((*digest, stored));
        }
    }

    /// Returns the memory that the set takes, in bytes.
    pub(super) fn memory(&self) -> usize {
        self.places * size_of::<Option<VerifiedChunk>>()
    }
}
