// SPDX-License-Identifier: GPL-2.0

//! The cache of metadata chunks.
//!
//! All mounts of all stores share it. A chunk is verified, decoded and checked once, when it is
//! loaded. The task that loads it pays for its memory. Inodes keep the chunks that they lie in, so
//! that these live as long as the inodes are cached. Of the others, the cache keeps a bounded
//! number, because reclaim in a memory control group frees inodes but does not reach this cache.
//!
//! The cache is cut into shards with a lock each, so that readers seldom meet.
//!
//! # Locking
//!
//! - The spinlock of a shard protects its slots. Memory reclaim takes it, so that nothing is
//!   allocated under it. Nothing sleeps or takes another lock under it; chunks are dropped without
//!   it.
//! - The spinlock of a [`Load`] protects its result. It is taken alone.
//! - No lock is held while a chunk is loaded. The tasks that need it wait in the [`Load`], until
//!   they are killed.

use crate::{
    base::{fault::Fault, limits::MAX_UNUSED_METADATA},
    store::opening::Opening,
    vfs::{prelude::*, Shrink, ShrinkerRegistration, WaitQueue},
};
use core::mem;
use kernel::{
    new_spinlock,
    page::PAGE_SIZE,
    static_lock_class,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc, SpinLock,
    },
};
use puzzlefs_schema::v4::{ChunkRef, LoadedChunk, MetadataChunk, Start};

/// The number of shards: one for each first byte of a digest.
const SHARDS: usize = 256;

/// The capacity that a shard gets with its first chunk.
const FIRST_SLOTS: usize = 4;

/// A checked metadata chunk.
pub(super) type CheckedChunk = LoadedChunk<KVVec<u8>, KVVec<Start>>;

/// A metadata chunk in memory.
struct CachedChunk {
    chunk: CheckedChunk,
    /// The number of [`ChunkHandle`]s.
    users: Atomic<usize>,
}

impl CachedChunk {
    /// Returns the memory of the chunk, in pages.
    fn pages(&self) -> usize {
        (self.chunk.chunk().content_len() as usize).div_ceil(PAGE_SIZE)
    }
}

/// A use of a metadata chunk, which stays in the cache for as long.
///
/// # Invariants
///
/// `chunk.users` counts this handle.
pub(crate) struct ChunkHandle {
    chunk: Arc<CachedChunk>,
    cache: Arc<ChunkCache>,
}

impl Clone for ChunkHandle {
    fn clone(&self) -> Self {
        self.chunk.users.fetch_add(1, Relaxed);
        // INVARIANT: The handle was just counted. It is not the first.
        Self {
            chunk: self.chunk.clone(),
            cache: self.cache.clone(),
        }
    }
}

impl core::ops::Deref for ChunkHandle {
    type Target = CheckedChunk;

    #[inline]
    fn deref(&self) -> &CheckedChunk {
        &self.chunk.chunk
    }
}

impl Drop for ChunkHandle {
    fn drop(&mut self) {
        // INVARIANT: This handle is no longer counted.
        if self.chunk.users.fetch_sub(1, Relaxed) == 1 {
            self.cache.end_use(self.chunk.pages());
        }
    }
}

/// A load of a chunk that is under way.
#[pin_data]
struct Load {
    /// The result, once the load has ended. The chunk is in its slot then.
    #[pin]
    result: SpinLock<Option<Result<(), Fault>>>,
    #[pin]
    ended: WaitQueue,
}

impl Load {
    fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                result <- new_spinlock!(None, "puzzlefs_chunk_load"),
                ended <- WaitQueue::new(c"puzzlefs_chunk_load", static_lock_class!()),
            }),
            GFP_KERNEL,
        )
    }

    /// Waits for the end of the load.
    ///
    /// # Errors
    ///
    /// Those of malformed metadata; [`EINTR`] if this task is being killed. Any other error may be
    /// one of the other task or of its store.
    fn wait(&self) -> Result<(), Fault> {
        loop {
            let result = self.result.lock();
            match *result {
                Some(Err(fault @ Fault::MetadataChunk(_))) => return Err(fault),
                Some(_) => return Ok(()),
                None => self.ended.wait_killable(|| drop(result))?,
            }
        }
    }

    fn end(&self, result: Result<(), Fault>) {
        *self.result.lock() = Some(result);
        self.ended.wake_all();
    }
}

/// The content of a slot.
enum Slot {
    Loading(Arc<Load>),
    Loaded(Arc<CachedChunk>),
}

/// A slot of a shard.
struct CachedSlot {
    /// The whole reference: a malformed image can give a chunk other lengths.
    key: ChunkRef,
    slot: Slot,
    /// True if the chunk was used since memory reclaim has looked at it.
    was_used: bool,
}

/// A part of the cache: the chunks whose digests begin alike.
///
/// # Invariants
///
/// No two slots have one key.
#[derive(Default)]
struct Shard {
    slots: KVec<CachedSlot>,
}

/// The result of a search in a shard.
enum Found {
    /// The chunk, one more use of which is counted. The flag is true if it had no other.
    Chunk(Arc<CachedChunk>, bool),
    /// Another task loads the chunk.
    Loading(Arc<Load>),
    /// The chunk is not there.
    Nothing,
    /// The chunk is not there, and there is no room for its slot. The shard needs this capacity.
    NoRoom(usize),
}

impl Shard {
    fn find(&mut self, key: &ChunkRef) -> Option<&mut CachedSlot> {
        self.slots.iter_mut().find(|slot| slot.key == *key)
    }

    /// Searches a chunk, and counts one more use of it. The caller makes the handle.
    fn get(&mut self, key: &ChunkRef) -> Found {
        let Some(found) = self.find(key) else {
            return Found::Nothing;
        };
        found.was_used = true;
        match &found.slot {
            Slot::Loading(load) => Found::Loading(load.clone()),
            Slot::Loaded(chunk) => {
                let is_first = chunk.users.fetch_add(1, Relaxed) == 0;
                Found::Chunk(chunk.clone(), is_first)
            }
        }
    }

    /// Gives a slot to a load, unless the chunk has one.
    fn get_or_claim(&mut self, key: &ChunkRef, load: &Arc<Load>) -> Found {
        match self.get(key) {
            Found::Nothing => {}
            found => return found,
        }
        let slot = CachedSlot {
            key: *key,
            slot: Slot::Loading(load.clone()),
            was_used: true,
        };
        // INVARIANT: The key is new. Nothing is allocated under the lock.
        match self.slots.push_within_capacity(slot) {
            Ok(()) => Found::Nothing,
            Err(_) => Found::NoRoom((2 * self.slots.capacity()).max(FIRST_SLOTS)),
        }
    }

    /// Takes memory for more slots; returns the memory that is no longer needed.
    fn grow(&mut self, mut memory: KVec<CachedSlot>) -> KVec<CachedSlot> {
        if memory.capacity() > self.slots.capacity() {
            mem::swap(&mut self.slots, &mut memory);
            // There is room for all.
            for slot in memory.drain_all() {
                let _ = self.slots.push_within_capacity(slot);
            }
        }
        memory
    }

    /// Ends a load: the chunk takes its slot. Without a chunk the slot is given back.
    fn end(&mut self, key: &ChunkRef, chunk: Option<&Arc<CachedChunk>>) -> Option<CachedSlot> {
        if let Some(chunk) = chunk {
            if let Some(found) = self.find(key) {
                found.slot = Slot::Loaded(chunk.clone());
            }
            return None;
        }
        let index = self.slots.iter().position(|slot| slot.key == *key)?;
        self.slots.remove(index).ok()
    }

    /// Takes a chunk that nobody uses out of the shard. One that was used since the last call stays
    /// until the next.
    fn evict(&mut self) -> Option<Arc<CachedChunk>> {
        let index = self.slots.iter_mut().position(|slot| match &slot.slot {
            Slot::Loaded(chunk) if chunk.users.load(Relaxed) == 0 => !mem::take(&mut slot.was_used),
            _ => false,
        })?;
        match self.slots.remove(index).ok()?.slot {
            Slot::Loaded(chunk) => Some(chunk),
            Slot::Loading(_) => None,
        }
    }
}

/// The cache of metadata chunks.
#[pin_data]
pub(crate) struct ChunkCache {
    #[pin]
    shards: [SpinLock<Shard>; SHARDS],
    /// The memory of chunks that nobody uses, in pages. It is below zero for a moment if a chunk is
    /// evicted while its last user has not counted it yet.
    unused: Atomic<isize>,
    /// The shard at which eviction goes on.
    hand: Atomic<usize>,
}

impl ChunkCache {
    fn new() -> Result<Arc<Self>> {
        let shard = |_| new_spinlock!(Shard::default(), "puzzlefs_chunks");
        Arc::pin_init(
            pin_init!(Self {
                shards <- pin_init::pin_init_array_from_fn(shard),
                unused: Atomic::new(0),
                hand: Atomic::new(0),
            }),
            GFP_KERNEL,
        )
    }

    fn shard(&self, key: &ChunkRef) -> &SpinLock<Shard> {
        let [first, ..] = *key.digest().as_bytes();
        let [only, ..] = &self.shards;
        self.shards.get(usize::from(first)).unwrap_or(only)
    }

    /// Returns a chunk, which `load` loads if it is not there.
    ///
    /// Of several tasks that need a chunk, one loads it; the others wait for its result.
    ///
    /// # Errors
    ///
    /// Those of the load; [`Fault::NotOpen`] if another task loads the chunk and the caller does
    /// not wait; [`EINTR`] if the task is being killed; [`ENOMEM`].
    pub(super) fn get_or_load(
        self: &Arc<Self>,
        key: &ChunkRef,
        how: Opening,
        load: impl FnOnce() -> Result<CheckedChunk, Fault>,
    ) -> Result<ChunkHandle, Fault> {
        let mut found = self.shard(key).lock().get(key);
        let mut claim: Option<Arc<Load>> = None;
        loop {
            match found {
                Found::Chunk(chunk, is_first) => {
                    if is_first {
                        self.unused.fetch_sub(chunk.pages() as isize, Relaxed);
                    }
                    // INVARIANT: The search has counted the handle.
                    return Ok(ChunkHandle {
                        chunk,
                        cache: self.clone(),
                    });
                }
                // The other task may wait for longer than this one must.
                Found::Loading(_) if how == Opening::Now => return Err(Fault::NotOpen),
                Found::Loading(other) => other.wait()?,
                Found::NoRoom(capacity) => {
                    let memory = KVec::with_capacity(capacity, GFP_KERNEL)?;
                    let unneeded = self.shard(key).lock().grow(memory);
                    drop(unneeded);
                }
                Found::Nothing => {
                    if let Some(ours) = claim {
                        return self.load(key, &ours, load);
                    }
                }
            }
            let ours = match claim.take() {
                Some(ours) => ours,
                None => Load::new()?,
            };
            found = self.shard(key).lock().get_or_claim(key, &ours);
            claim = Some(ours);
        }
    }

    /// Loads a chunk whose slot the task has claimed.
    fn load(
        self: &Arc<Self>,
        key: &ChunkRef,
        ours: &Load,
        load: impl FnOnce() -> Result<CheckedChunk, Fault>,
    ) -> Result<ChunkHandle, Fault> {
        let result = load().and_then(|chunk| {
            let chunk = CachedChunk {
                chunk,
                users: Atomic::new(1),
            };
            Ok(Arc::new(chunk, GFP_KERNEL_ACCOUNT)?)
        });
        let removed = self.shard(key).lock().end(key, result.as_ref().ok());
        drop(removed);
        ours.end(result.as_ref().map(drop).map_err(|fault| *fault));
        // INVARIANT: The chunk was made with one user.
        Ok(ChunkHandle {
            chunk: result?,
            cache: self.clone(),
        })
    }

    /// Notes that a chunk has lost its last user. Evicts others if there are too many.
    fn end_use(&self, pages: usize) {
        let before = self.unused.fetch_add(pages as isize, Relaxed);
        let limit = MAX_UNUSED_METADATA / PAGE_SIZE;
        let unused = usize::try_from(before).unwrap_or(0).saturating_add(pages);
        if unused > limit {
            // More than is necessary, so that the search is not repeated for each chunk.
            self.shrink(unused - limit + limit / 8);
        }
    }
}

/// Counts and frees the memory of chunks, in pages. A chunk in use stays until its users drop it.
impl Shrink for ChunkCache {
    fn count(&self) -> usize {
        usize::try_from(self.unused.load(Relaxed)).unwrap_or(0)
    }

    fn shrink(&self, wanted: usize) -> usize {
        let mut freed = 0;
        // In the first round, all chunks may have been used since the last call.
        for _ in 0..2 * SHARDS {
            let hand = self.hand.fetch_add(1, Relaxed) % SHARDS;
            let Some(shard) = self.shards.get(hand) else {
                break;
            };
            while freed < wanted {
                let evicted = shard.lock().evict();
                let Some(chunk) = evicted else {
                    break;
                };
                self.unused.fetch_sub(chunk.pages() as isize, Relaxed);
                freed += chunk.pages();
            }
            if freed >= wanted {
                break;
            }
        }
        freed
    }
}

/// A cache of metadata chunks that memory reclaim can shrink.
pub(crate) struct ShrinkableChunks {
    cache: Arc<ChunkCache>,
    _shrinker: ShrinkerRegistration<ChunkCache>,
}

impl ShrinkableChunks {
    /// Makes an empty cache.
    pub(crate) fn new() -> Result<Arc<Self>> {
        let cache = ChunkCache::new()?;
        let this = Self {
            _shrinker: ShrinkerRegistration::new(c"puzzlefs-metadata", cache.clone())?,
            cache,
        };
        Ok(Arc::new(this, GFP_KERNEL)?)
    }

    /// Returns the cache.
    pub(super) fn cache(&self) -> &Arc<ChunkCache> {
        &self.cache
    }
}
