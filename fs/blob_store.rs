// SPDX-License-Identifier: GPL-2.0

//! The blob store: the directory `blobs/sha256` of an OCI image layout, and the blobs open in it.
//!
//! All mounts of one store share one [`BlobStore`], so that a blob is opened once. Open blobs are
//! kept in a cache that is bounded by its size and given back under memory pressure. The cache is
//! cut into shards with a lock each, so that readers seldom meet; a shard is small enough that a
//! search through all of it costs less than what any cleverer structure would.

use crate::{
    blob::{Blob, Workspaces},
    message::{ErrorName, Text},
    statistics::Statistics,
    vfs::{backing::Directory, MountContext, Shrink, ShrinkerRegistration},
};
use kernel::{
    new_mutex, new_spinlock,
    prelude::*,
    str::CStr,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc, Mutex, SpinLock,
    },
};
use puzzlefs_schema::Digest;

/// How many shards a store's cache has.
const SHARDS: usize = 16;

/// How many open blobs a shard holds at the most.
const SLOTS: usize = 64;

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
    slots: KVVec<Slot>,
}

/// The open blobs of a store.
struct OpenBlobs {
    shards: KVec<Pin<KBox<SpinLock<Shard>>>>,
    count: Atomic<usize>,
}

impl OpenBlobs {
    fn new() -> Result<Self> {
        let mut shards = KVec::with_capacity(SHARDS, GFP_KERNEL)?;
        for _ in 0..SHARDS {
            let shard = Shard {
                clock: 0,
                slots: KVVec::with_capacity(SLOTS, GFP_KERNEL)?,
            };
            shards.push(
                KBox::pin_init(new_spinlock!(shard, "puzzlefs_open_blobs"), GFP_KERNEL)?,
                GFP_KERNEL,
            )?;
        }
        Ok(Self {
            shards,
            count: Atomic::new(0),
        })
    }

    fn shard(&self, digest: &Digest) -> Option<&SpinLock<Shard>> {
        let [first, ..] = digest.as_bytes();
        self.shards
            .get(usize::from(*first) % SHARDS)
            .map(|shard| &**shard)
    }

    /// The blob, if it is open.
    fn get(&self, digest: &Digest) -> Option<Arc<Blob>> {
        let mut shard = self.shard(digest)?.lock();
        shard.clock += 1;
        let now = shard.clock;
        let slot = shard.slots.iter_mut().find(|slot| slot.digest == *digest)?;
        slot.used = now;
        Some(slot.blob.clone())
    }

    /// Keeps an open blob, in the place of the one that has not been asked for for the longest time
    /// if there is no other.
    fn insert(&self, digest: &Digest, blob: &Arc<Blob>) {
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
                if shard.slots.push_within_capacity(slot).is_ok() {
                    self.count.fetch_add(1, Relaxed);
                }
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
    fn remove(&self, digest: &Digest) {
        let Some(shard) = self.shard(digest) else {
            return;
        };
        // Dropped behind the lock, as above.
        let removed = {
            let mut shard = shard.lock();
            let position = shard.slots.iter().position(|slot| slot.digest == *digest);
            position.and_then(|index| shard.slots.remove(index).ok())
        };
        if removed.is_some() {
            self.count.fetch_sub(1, Relaxed);
        }
    }
}

impl Shrink for OpenBlobs {
    fn count(&self) -> usize {
        self.count.load(Relaxed)
    }

    fn shrink(&self, entries: usize) -> usize {
        let mut dropped = 0;
        for shard in &self.shards {
            while dropped < entries {
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
                if oldest.is_none() {
                    break;
                }
                self.count.fetch_sub(1, Relaxed);
                dropped += 1;
            }
        }
        dropped
    }
}

/// A blob store.
pub(crate) struct BlobStore {
    directory: Directory,
    open: Arc<OpenBlobs>,
    workspaces: Arc<Workspaces>,
    _shrinker: ShrinkerRegistration<OpenBlobs>,
}

impl BlobStore {
    fn new(directory: Directory, workspaces: Arc<Workspaces>) -> Result<Self> {
        let open = Arc::new(OpenBlobs::new()?, GFP_KERNEL)?;
        Ok(Self {
            directory,
            workspaces,
            _shrinker: ShrinkerRegistration::new(c"puzzlefs-open-blobs", open.clone())?,
            open,
        })
    }

    /// Opens a blob, or finds it open.
    ///
    /// # Errors
    ///
    /// [`ENOENT`] if the store has no such blob, [`EINVAL`] if there is something else than a
    /// regular file in its place, and those of opening a file.
    pub(crate) fn open(&self, digest: &Digest, statistics: &Statistics) -> Result<Arc<Blob>> {
        if let Some(blob) = self.open.get(digest) {
            statistics.blobs_found_open.add(1);
            return Ok(blob);
        }
        statistics.blobs_opened.add(1);
        let file = self.directory.open_file(&digest.to_hex())?;
        let blob = Arc::new(Blob::new(file), GFP_KERNEL)?;
        self.open.insert(digest, &blob);
        Ok(blob)
    }

    /// Closes a blob that could not be read: should it be put right by another file in its place,
    /// that one is to be found the next time.
    pub(crate) fn forget(&self, digest: &Digest) {
        self.open.remove(digest);
    }

    /// What readers of the store's blobs work with.
    pub(crate) fn workspaces(&self) -> &Workspaces {
        &self.workspaces
    }

    /// How many filesystems are stacked in the one that the store is on.
    pub(crate) fn stack_depth(&self) -> i32 {
        self.directory.stack_depth()
    }

    /// The magic number of the filesystem that the store is on.
    pub(crate) fn filesystem_magic(&self) -> usize {
        self.directory.filesystem_magic()
    }
}

/// A store that is in use, and by how many mounts.
struct InUse {
    store: Arc<BlobStore>,
    mounts: usize,
}

/// All the stores in use.
#[pin_data]
pub(crate) struct Stores {
    #[pin]
    in_use: Mutex<KVec<InUse>>,
}

/// The workspaces of the stores in use: all share one pool, which exists while there are any.
fn workspaces(in_use: &[InUse]) -> Result<Arc<Workspaces>> {
    match in_use.first() {
        Some(entry) => Ok(entry.store.workspaces.clone()),
        None => Workspaces::new(),
    }
}

impl Stores {
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            in_use <- new_mutex!(KVec::new(), "puzzlefs_stores"),
        })
    }
}

/// A mount's share in a store.
pub(crate) struct StoreHandle {
    store: Arc<BlobStore>,
    stores: Arc<Stores>,
}

impl StoreHandle {
    /// Opens the store in a directory, or finds it in use by another mount.
    pub(crate) fn open(stores: &Arc<Stores>, path: &CStr, context: &MountContext) -> Result<Self> {
        let explain = |what: &str, e: Error| {
            context.error(fmt!("{}{what}: {}", Text(path), ErrorName(e)));
            e
        };
        let directory = Directory::open(path, context.credentials())
            .map_err(|e| explain("", e))?
            .open_directory(c"blobs")
            .map_err(|e| explain("/blobs: not an OCI image layout", e))?
            .open_directory(c"sha256")
            .map_err(|e| explain("/blobs/sha256: not an OCI image layout", e))?;

        let mut in_use = stores.in_use.lock();
        if let Some(entry) = in_use
            .iter_mut()
            .find(|entry| entry.store.directory.is_same(&directory))
        {
            entry.mounts += 1;
            return Ok(Self {
                store: entry.store.clone(),
                stores: stores.clone(),
            });
        }
        let store = Arc::new(BlobStore::new(directory, workspaces(&in_use)?)?, GFP_KERNEL)?;
        in_use.push(
            InUse {
                store: store.clone(),
                mounts: 1,
            },
            GFP_KERNEL,
        )?;
        Ok(Self {
            store,
            stores: stores.clone(),
        })
    }
}

impl core::ops::Deref for StoreHandle {
    type Target = BlobStore;

    fn deref(&self) -> &BlobStore {
        &self.store
    }
}

impl Drop for StoreHandle {
    fn drop(&mut self) {
        let mut in_use = self.stores.in_use.lock();
        let position = in_use
            .iter()
            .position(|entry| Arc::ptr_eq(&entry.store, &self.store));
        let Some(index) = position else {
            return;
        };
        let last = in_use.get_mut(index).is_some_and(|entry| {
            entry.mounts -= 1;
            entry.mounts == 0
        });
        let removed = if last {
            in_use.remove(index).ok()
        } else {
            None
        };
        drop(in_use);
        drop(removed);
    }
}
