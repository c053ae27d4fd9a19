// SPDX-License-Identifier: GPL-2.0

//! A cache of values by digest, of a fixed size.
//!
//! It is a table in which a digest has one place. A digest replaces another one there, so that the
//! cache forgets, and a lookup costs one comparison.
//!
//! # Locking
//!
//! The spinlock `table` protects the table. It is innermost.

use crate::vfs::prelude::*;
use kernel::{new_spinlock, sync::SpinLock};
use puzzlefs_schema::Digest;

/// The places of a cache, each with a digest and its value.
type Places<V> = KVVec<Option<(Digest, V)>>;

/// A cache of values by digest.
pub(super) struct DigestCache<V> {
    places: usize,
    table: Pin<KBox<SpinLock<Places<V>>>>,
}

impl<V: Copy> DigestCache<V> {
    /// Makes an empty cache for so many values.
    pub(super) fn new(places: usize) -> Result<Self> {
        let mut table = KVVec::new();
        table.resize(places, None, GFP_KERNEL | __GFP_NOWARN)?;
        Ok(Self {
            places,
            table: KBox::pin_init(new_spinlock!(table, "puzzlefs_digests"), GFP_KERNEL)?,
        })
    }

    fn place(&self, digest: &Digest) -> usize {
        let [a, b, c, d, ..] = *digest.as_bytes();
        let number = u32::from_le_bytes([a, b, c, d]) as usize;
        // A cache without places has no place 0 either.
        number.checked_rem(self.places).unwrap_or(0)
    }

    /// Returns the value of a digest, if it is there.
    pub(super) fn get(&self, digest: &Digest) -> Option<V> {
        let table = self.table.lock();
        match table.get(self.place(digest)) {
            Some(Some((kept, value))) if kept == digest => Some(*value),
            _ => None,
        }
    }

    /// Keeps the value of a digest, in place of another one.
    pub(super) fn insert(&self, digest: &Digest, value: V) {
        let mut table = self.table.lock();
        if let Some(place) = table.get_mut(self.place(digest)) {
            *place = Some((*digest, value));
        }
    }

    /// Returns the memory that the cache takes, in bytes.
    pub(super) fn memory(&self) -> usize {
        self.places * size_of::<Option<(Digest, V)>>()
    }
}
