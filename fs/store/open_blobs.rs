// SPDX-License-Identifier: GPL-2.0

//! The cache of open blobs of a store.
//!
//! The cache is bounded by its size, and gives memory back under pressure. It is cut into shards
//! with a lock each, so that readers seldom meet. A shard is so small that a search through all of
//! it costs less than a tree or a hash table would.
//!
//! # Locking
//!
//! The spinlock of a shard protects its clock and its list. Nothing sleeps or takes another lock
//! under it; blobs are dropped without it, because that gives files back.

use super::blob::Blob;
use crate::vfs::{prelude::*, Shrink};
use kernel::{
    new_spinlock,
    sync::{Arc, SpinLock},
};
use puzzlefs_schema::Digest;

/// The number of shards.
const SHARDS: usize = 128;

/// The largest number of open blobs of a shard.
const SHARD_BLOBS: usize = 8;

/// An open blob in a shard.
struct CachedBlob {
    digest: Digest,
    /// The time of the last use, by the shard's clock.
    used: u64,
    blob: Arc<Blob>,
}

/// A part of the cache: the blobs whose digests begin alike.
///
/// # Invariants
///
/// No two of `blobs` have one digest.
struct Shard {
    clock: u64,
    blobs: [Option<CachedBlob>; SHARD_BLOBS],
}

impl Shard {
    fn new() -> Self {
        Self {
            clock: 0,
            blobs: [const { None }; SHARD_BLOBS],
        }
    }

    /// Returns the place of the least recently used blob, if there is one.
    fn oldest(&mut self) -> Option<&mut Option<CachedBlob>> {
        let used = self.blobs.iter_mut().filter(|place| place.is_some());
        used.min_by_key(|place| place.as_ref().map(|cached| cached.used))
    }
}

/// The open blobs of a store.
pub(crate) struct OpenBlobs {
    /// Allocated one by one, because together they would need more contiguous memory than there may
    /// be.
    shards: KVec<Pin<KBox<SpinLock<Shard>>>>,
}

impl OpenBlobs {
    /// Makes an empty cache.
    pub(crate) fn new() -> Result<Self> {
        let mut shards = KVec::with_capacity(SHARDS, GFP_KERNEL)?;
        for _ in 0..SHARDS {
            let shard = new_spinlock!(Shard::new(), "puzzlefs_open_blobs");
            shards.push(KBox::pin_init(shard, GFP_KERNEL)?, GFP_KERNEL)?;
        }
        Ok(Self { shards })
    }

    fn shard(&self, digest: &Digest) -> Option<&SpinLock<Shard>> {
        let [first, ..] = digest.as_bytes();
        let shard = self.shards.get(usize::from(*first) % SHARDS);
        shard.map(|shard| &**shard)
    }

    /// Returns a blob, if it is open.
    pub(crate) fn get(&self, digest: &Digest) -> Option<Arc<Blob>> {
        let mut shard = self.shard(digest)?.lock();
        shard.clock += 1;
        let now = shard.clock;
        let mut blobs = shard.blobs.iter_mut().flatten();
        let cached = blobs.find(|cached| cached.digest == *digest)?;
        cached.used = now;
        Some(cached.blob.clone())
    }

    /// Keeps an open blob. If the shard is full, the blob replaces the least recently used one.
    pub(crate) fn insert(&self, digest: &Digest, blob: &Arc<Blob>) {
        let Some(shard) = self.shard(digest) else {
            return;
        };
        // Dropped after the lock is released, because the last reference to a file is given back.
        let _evicted = {
            let mut shard = shard.lock();
            let mut blobs = shard.blobs.iter().flatten();
            if blobs.any(|cached| cached.digest == *digest) {
                return;
            }
            shard.clock += 1;
            let cached = CachedBlob {
                digest: *digest,
                used: shard.clock,
                blob: blob.clone(),
            };
            let place = match shard.blobs.iter().position(Option::is_none) {
                Some(free) => shard.blobs.get_mut(free),
                None => shard.oldest(),
            };
            // INVARIANT: The digest is new.
            place.and_then(|place| place.replace(cached))
        };
    }

    /// Closes a blob, if it is open.
    pub(crate) fn remove(&self, digest: &Digest) {
        let Some(shard) = self.shard(digest) else {
            return;
        };
        // Dropped after the lock is released.
        let _removed = {
            let mut shard = shard.lock();
            let mut blobs = shard.blobs.iter_mut();
            let place = blobs.find(|place| {
                let cached = place.as_ref();
                cached.is_some_and(|cached| cached.digest == *digest)
            });
            place.and_then(Option::take)
        };
    }
}

/// Counts and frees the memory of open blobs, in pages.
impl Shrink for OpenBlobs {
    fn count(&self) -> usize {
        let pages = |shard: &Pin<KBox<SpinLock<Shard>>>| -> usize {
            let shard = shard.lock();
            let blobs = shard.blobs.iter().flatten();
            blobs.map(|cached| cached.blob.pages()).sum()
        };
        self.shards.iter().map(pages).sum()
    }

    fn shrink(&self, pages: usize) -> usize {
        let mut freed = 0;
        for shard in &self.shards {
            while freed < pages {
                let oldest = shard.lock().oldest().and_then(Option::take);
                let Some(oldest) = oldest else {
                    break;
                };
                freed += oldest.blob.pages();
            }
        }
        freed
    }
}
