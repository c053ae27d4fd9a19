// SPDX-License-Identifier: GPL-2.0

//! The blob store: the directory `blobs/sha256` of an OCI image layout, and the blobs open in it.
//!
//! All mounts of one store share one [`BlobStore`], so that a blob is opened once. Open blobs are
//! kept in a cache that is bounded by its size and given back under memory pressure. The cache is
//! cut into shards with a lock each, so that readers seldom meet; a shard is so small that a search
//! through all of it costs less than what any cleverer structure would.

use crate::vfs::prelude::*;
use crate::{
    blob::Blob,
    frame_cache::FrameCache,
    message::{ErrorName, Text},
    metadata_blob::MetadataBlob,
    registry::{InUse, Registry},
    statistics::Statistics,
    superblock::READAHEAD,
    vfs::{backing::Directory, SharedMappings, Shrink, ShrinkerRegistration, WorkQueue},
    workspace::{readers, Workspaces},
    MountContext, PuzzleFs,
};
use kernel::{
    new_spinlock,
    str::CStr,
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
struct OpenBlobs {
    shards: KVec<Pin<KBox<SpinLock<Shard>>>>,
}

impl OpenBlobs {
    fn new() -> Result<Self> {
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
    fn get(&self, digest: &Digest) -> Option<Arc<Blob>> {
        let mut shard = self.shard(digest)?.lock();
        shard.clock += 1;
        let now = shard.clock;
        let slot = shard.slots.iter_mut().find(|slot| slot.digest == *digest)?;
        slot.used = now;
        Some(slot.blob.clone())
    }

    /// Keeps an open blob, in the place of the one whose last use is the longest ago, if
    /// there is no other.
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
    fn remove(&self, digest: &Digest) {
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

/// A blob store.
pub(crate) struct BlobStore {
    directory: Arc<Directory>,
    open: Arc<OpenBlobs>,
    workspaces: Arc<Workspaces>,
    mappings: Arc<SharedMappings<PuzzleFs>>,
    metadata: Arc<Registry<MetadataBlob>>,
    /// The store's own: should its disk not answer, others are not kept waiting.
    readahead: WorkQueue,
    _open_shrinker: ShrinkerRegistration<OpenBlobs>,
    _workspaces_shrinker: ShrinkerRegistration<Workspaces>,
}

impl BlobStore {
    fn new(
        directory: Arc<Directory>,
        workspaces: Arc<Workspaces>,
        mappings: Arc<SharedMappings<PuzzleFs>>,
    ) -> Result<Self> {
        let open = Arc::new(OpenBlobs::new()?, GFP_KERNEL)?;
        Ok(Self {
            directory,
            mappings,
            metadata: Registry::new()?,
            readahead: WorkQueue::new(c"puzzlefs")?,
            _open_shrinker: ShrinkerRegistration::new(c"puzzlefs-open-blobs", open.clone())?,
            _workspaces_shrinker: ShrinkerRegistration::new(
                c"puzzlefs-workspaces",
                workspaces.clone(),
            )?,
            open,
            workspaces,
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

    /// Opens a blob that may be open as it was before: it may have been put right since, by another
    /// file in its place, or have got its fs-verity digest.
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub(crate) fn reopen(&self, digest: &Digest, statistics: &Statistics) -> Result<Arc<Blob>> {
        self.forget(digest);
        self.open(digest, statistics)
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

    /// The page caches that files of equal contents share, in whatever image of the store.
    pub(crate) fn mappings(&self) -> &Arc<SharedMappings<PuzzleFs>> {
        &self.mappings
    }

    /// Where is read ahead of those who do not wait for it yet.
    pub(crate) fn readahead(&self) -> &WorkQueue {
        &self.readahead
    }

    /// The metadata of the store's images that are mounted.
    pub(crate) fn metadata(&self) -> &Arc<Registry<MetadataBlob>> {
        &self.metadata
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

/// All the stores in use, and what they have in common.
pub(crate) struct Stores {
    stores: Arc<Registry<BlobStore>>,
    /// All stores share one cache of frames, which exists while there are any.
    frames: Arc<Registry<FrameCache>>,
}

impl Stores {
    pub(crate) fn new() -> Result<Arc<Self>> {
        let this = Self {
            stores: Registry::new()?,
            frames: Registry::new()?,
        };
        Ok(Arc::new(this, GFP_KERNEL)?)
    }

    /// Opens the store in a directory, or finds it in use by another mount.
    pub(crate) fn open(&self, path: &CStr, context: &MountContext) -> Result<InUse<BlobStore>> {
        let explain = |below: &str, e: Error| {
            let what = match e {
                ENOENT | ENOTDIR if !below.is_empty() => "not an OCI image layout: ",
                _ => "",
            };
            context.error(fmt!("{}{below}: {what}{}", Text(path), ErrorName(e)));
            e
        };
        let directory = Directory::open(path, context.credentials())
            .map_err(|e| explain("", e))?
            .open_directory(c"blobs")
            .map_err(|e| explain("/blobs", e))?
            .open_directory(c"sha256")
            .map_err(|e| explain("/blobs/sha256", e))?;
        let directory = Arc::new(directory, GFP_KERNEL)?;
        self.stores.get_or_make(
            |store| store.directory.is_same(&directory),
            || {
                let frames = self.frames.get_or_make(
                    |_| true,
                    || Ok(Arc::new(FrameCache::new(readers())?, GFP_KERNEL)?),
                )?;
                let workspaces = Workspaces::new(frames)?;
                let mappings = Arc::new(SharedMappings::new(context, READAHEAD)?, GFP_KERNEL)?;
                let store = BlobStore::new(directory.clone(), workspaces, mappings)?;
                Ok(Arc::new(store, GFP_KERNEL)?)
            },
        )
    }
}
