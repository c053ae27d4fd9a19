// SPDX-License-Identifier: GPL-2.0

//! The blobs of a store that are open.
//!
//! The cache is bounded by its size, and gives memory back under pressure. It is cut into shards
//! with a lock each, so that readers seldom meet. A shard is so small that a search through all of
//! it costs less than any cleverer structure would.

use crate::vfs::prelude::*;
use crate::{store::blob::Blob, vfs::Shrink};
use kernel::{
    new_spinlock,
    sync::{Arc, SpinLock},
};
use puzzlefs_schema::Digest;

/// How many shards a store's cache has.
const SHARDS: usize = 128;

/// How many open blobs a shard holds at the most.
const SLOTS: usize = 8;

/// A place for an open blob.
struct Slot {
    digest: Digest,
    /// When the blob was last asked for, by the shard's clock.
    used: u64,
    blob: Arc<Blob>,
}

/// A part of the cache: the blobs whose digests begin alike.
struct Shard {
    clock: u64,
    /// Never grows beyond its capacity, which is [`SLOTS`].
    slots: KVec<Slot>,
}

/// The open blobs of a store.
pub(crate) struct OpenBlobs {
    shards: KVec<Pin<KBox<SpinLock<Shard>>>>,
}

impl OpenBlobs {
    pub(crate) fn new() -> Result<Self> {
        let mut shards = KVec::with_capacity(SHARDS, GFP_KERNEL)?;
        for _ in 0..SHARDS {
            let shard = Shard {
                clock: 0,
                slots: KVec::with_capacity(SLOTS, GFP_KERNEL)?,
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

    /// The blob, if it is open.
    pub(crate) fn get(&self, digest: &Digest) -> Option<Arc<Blob>> {
        let mut shard = self.shard(digest)?.lock();
        shard.clock += 1;
        let now = shard.clock;
        let slot = shard.slots.iter_mut().find(|slot| slot.digest == *digest)?;
        slot.used = now;
        Some(slot.blob.clone())
    }

    /// Keeps an open blob, in the place of the one whose last use is the longest ago, if
    /// there is no other.
    pub(crate) fn insert(&self, digest: &Digest, blob: &Arc<Blob>) {
        let Some(shard) = self.shard(digest) else {
            return;
        };
        // Dropped behind the lock: the last reference to a file is given back.
        let evicted;
        {
            let mut shard = shard.lock();
            if shard.slots.iter().any(|slot| slot.digest == *digest) {
                return;
            }
            shard.clock += 1;
            let slot = Slot {
                digest: *digest,
                used: shard.clock,
                blob: blob.clone(),
            };
            // Room is only reserved capacity: nothing is allocated under the lock.
            if shard.slots.len() < SLOTS {
                let _ = shard.slots.push_within_capacity(slot);
                return;
            }
            let Some(oldest) = shard.slots.iter_mut().min_by_key(|slot| slot.used) else {
                return;
            };
            evicted = core::mem::replace(oldest, slot);
        }
        drop(evicted);
    }
}

impl OpenBlobs {
    /// Closes a blob, if it is open.
    pub(crate) fn remove(&self, digest: &Digest) {
        let Some(shard) = self.shard(digest) else {
            return;
        };
        // Dropped behind the lock, as above.
        let _removed = {
            let mut shard = shard.lock();
            let position = shard.slots.iter().position(|slot| slot.digest == *digest);
            position.and_then(|index| shard.slots.remove(index).ok())
        };
    }
}

/// The memory of open blobs can be had, counted in pages.
impl Shrink for OpenBlobs {
    fn count(&self) -> usize {
        let pages = |shard: &Pin<KBox<SpinLock<Shard>>>| -> usize {
            let shard = shard.lock();
            shard.slots.iter().map(|slot| slot.blob.pages()).sum()
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
                        .slots
                        .iter()
                        .enumerate()
                        .min_by_key(|(_, slot)| slot.used)
                        .map(|(index, _)| index);
                    // Removal keeps the capacity.
                    oldest.and_then(|index| shard.slots.remove(index).ok())
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
