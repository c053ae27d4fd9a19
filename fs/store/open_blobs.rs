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
/// `blobs` has at most [`SHARD_BLOBS`] elements and capacity for as many, no two of one digest.
struct Shard {
    clock: u64,
    blobs: KVec<CachedBlob>,
}

/// The open blobs of a store.
pub(crate) struct OpenBlobs {
    shards: KVec<Pin<KBox<SpinLock<Shard>>>>,
}

impl OpenBlobs {
    /// Makes an empty cache.
    pub(crate) fn new() -> Result<Self> {
        let mut shards = KVec::with_capacity(SHARDS, GFP_KERNEL)?;
        for _ in 0..SHARDS {
            let shard = Shard {
                clock: 0,
                blobs: KVec::with_capacity(SHARD_BLOBS, GFP_KERNEL)?,
            };
            shards.push(
                KBox::pin_init(new_spinlock!(shard, "puzzlefs_open_blobs"), GFP_KERNEL)?,
                GFP_KERNEL,
            )?;
        }
        Ok(Self { shards })
    }

    fn shard(&self, digest: &Digest) -> Option<&SpinLock<Shard>> {
        let [first, ..] = digest.as_bytes();
        self.shards
            .get(usize::from(*first) % SHARDS)
            .map(|shard| &**shard)
    }

    /// Returns a blob, if it is open.
    pub(crate) fn get(&self, digest: &Digest) -> Option<Arc<Blob>> {
        let mut shard = self.shard(digest)?.lock();
        shard.clock += 1;
        let now = shard.clock;
        let cached = shard
            .blobs
            .iter_mut()
            .find(|cached| cached.digest == *digest)?;
        cached.used = now;
        Some(cached.blob.clone())
    }

    /// Keeps an open blob. If the shard is full, the blob replaces the least recently used one.
    pub(crate) fn insert(&self, digest: &Digest, blob: &Arc<Blob>) {
        let Some(shard) = self.shard(digest) else {
            return;
        };
        // Dropped after the lock is released, because the last reference to a file is given back.
        let evicted;
        {
            let mut shard = shard.lock();
            if shard.blobs.iter().any(|cached| cached.digest == *digest) {
                return;
            }
            shard.clock += 1;
            let cached = CachedBlob {
                digest: *digest,
                used: shard.clock,
                blob: blob.clone(),
            };
            // INVARIANT: The digest is new, and there is room. Nothing is allocated under the lock.
            if shard.blobs.len() < SHARD_BLOBS {
                let _ = shard.blobs.push_within_capacity(cached);
                return;
            }
            let Some(oldest) = shard.blobs.iter_mut().min_by_key(|cached| cached.used) else {
                return;
            };
            evicted = core::mem::replace(oldest, cached);
        }
        drop(evicted);
    }

    /// Closes a blob, if it is open.
    pub(crate) fn remove(&self, digest: &Digest) {
        let Some(shard) = self.shard(digest) else {
            return;
        };
        // Dropped after the lock is released.
        let _removed = {
            let mut shard = shard.lock();
            let position = shard
                .blobs
                .iter()
                .position(|cached| cached.digest == *digest);
            position.and_then(|index| shard.blobs.remove(index).ok())
        };
    }
}

/// Counts and frees the memory of open blobs, in pages.
impl Shrink for OpenBlobs {
    fn count(&self) -> usize {
        let pages = |shard: &Pin<KBox<SpinLock<Shard>>>| -> usize {
            let shard = shard.lock();
            shard.blobs.iter().map(|cached| cached.blob.pages()).sum()
        };
        self.shards.iter().map(pages).sum()
    }

    fn shrink(&self, pages: usize) -> usize {
        let mut freed = 0;
        for shard in &self.shards {
            while freed < pages {
                let oldest = {
                    let mut shard = shard.lock();
                    let oldest = shard
                        .blobs
                        .iter()
                        .enumerate()
                        .min_by_key(|(_, cached)| cached.used)
                        .map(|(index, _)| index);
                    // INVARIANT: Removal keeps the capacity.
                    oldest.and_then(|index| shard.blobs.remove(index).ok())
                };
                let Some(oldest) = oldest else {
                    break;
                };
                freed += oldest.blob.pages();
            }
        }
        freed
    }
}
