// SPDX-License-Identifier: GPL-2.0

//! The cache of decompressed frames, and of verified chunks that are stored raw.
//!
//! Frames do not end where pages and requests end, and small files share frames. A frame of which
//! one reader needs a part is therefore kept for the reader of another part, which may run at the
//! same time.
//!
//! # Locking
//!
//! - The mutex of a slot protects its content. A frame is decompressed under it, so that a second
//!   reader of the frame waits until it is there.
//! - The spinlock `hints` protects the hints. It is taken inside the mutex of a slot, never around
//!   it.
//! - No memory is allocated under the mutex of a slot, because the shrinker takes it, if it is
//!   free. No two slots are locked at once.

use crate::{
    base::{blob_id::BlobId, fault::Fault},
    vfs::{prelude::*, Shrink, ShrinkerRegistration},
};
use kernel::{
    new_mutex, new_spinlock,
    page::PAGE_SIZE,
    sync::{
        lock::{mutex::MutexBackend, Guard},
        Arc, Mutex, SpinLock,
    },
};
use puzzlefs_schema::{v4::ChunkRef, MAX_FRAME_SIZE};

/// The capacity of a small slot, in bytes: a frame that `puzzlefs build` makes by default fits.
const SMALL: usize = 256 << 10;

/// The number of small slots per reader: one stops inside a frame of the file that it reads, and
/// small files that others read are in other frames.
const SMALL_PER_READER: usize = 4;

/// The identity of a frame.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameName {
    /// A frame of a compressed blob.
    Frame {
        blob: BlobId,
        /// Set if the blob's digest was checked before the frame was decompressed.
        verified: bool,
        index: usize,
    },
    /// A chunk whose digest was checked before its content was kept, wherever it lies.
    VerifiedChunk(ChunkRef),
    /// A chunk that was not verified, in a file.
    Chunk { blob: BlobId, chunk: ChunkRef },
}

/// The slot that the shrinker leaves alone, so that each frame can be decompressed somewhere even
/// if there is no memory.
const RESERVE: usize = 0;

/// The memory of a slot, and the frame in it.
///
/// # Invariants
///
/// - If `frame` is set, `content` is the content of that frame.
/// - `content` has the capacity of the slot's hint, or none.
struct FrameSlot {
    frame: Option<FrameName>,
    content: KVVec<u8>,
}

/// A hint: the frame that a slot has, or is about to get. The slot itself is the authority.
struct SlotHint {
    /// The capacity of the slot while it has memory, in bytes.
    room: usize,
    has_memory: bool,
    frame: Option<FrameName>,
    /// The time of the last use, by the cache's clock.
    used: u64,
}

impl SlotHint {
    fn pages(&self) -> usize {
        self.room / PAGE_SIZE
    }
}

/// The hints of all slots.
struct SlotHints {
    clock: u64,
    hints: KVec<SlotHint>,
}

impl SlotHints {
    /// Advances the clock and returns the time.
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// Returns the slot of a frame, if it has one.
    fn find(&mut self, frame: FrameName) -> Option<usize> {
        let now = self.tick();
        let mut hints = self.hints.iter_mut().enumerate();
        let (index, hint) = hints.find(|(_, hint)| hint.frame == Some(frame))?;
        hint.used = now;
        Some(index)
    }

    /// Returns the slot of a frame of that size. If it has none, it gets the least recently used
    /// one of the smallest that have room for it.
    fn find_or_take(&mut self, frame: FrameName, size: usize) -> Option<usize> {
        if let Some(index) = self.find(frame) {
            return Some(index);
        }
        let hints = self.hints.iter().enumerate();
        let (index, _) = hints
            .filter(|(_, hint)| hint.room >= size)
            .min_by_key(|(_, hint)| (hint.room, hint.used))?;
        self.assign(index, frame);
        Some(index)
    }

    /// Gives a slot to a frame.
    fn assign(&mut self, index: usize, frame: FrameName) {
        let now = self.tick();
        if let Some(hint) = self.hints.get_mut(index) {
            hint.frame = Some(frame);
            hint.used = now;
        }
    }

    /// Returns how much memory a slot needs before it can hold a frame: 0 if it has its memory.
    fn missing(&self, index: usize) -> usize {
        match self.hints.get(index) {
            Some(hint) if !hint.has_memory => hint.room,
            _ => 0,
        }
    }

    /// Notes whether a slot has memory. Without memory it holds no frame.
    fn set_memory(&mut self, index: usize, has_memory: bool) {
        if let Some(hint) = self.hints.get_mut(index) {
            hint.has_memory = has_memory;
            if !has_memory {
                hint.frame = None;
            }
        }
    }

    /// Returns the least recently used slot with memory that can be taken from it, of those that
    /// were used at a time or later; with that slot's time and pages.
    fn oldest_since(&self, time: u64) -> Option<(usize, u64, usize)> {
        let hints = self.hints.iter().enumerate();
        hints
            .filter(|(index, hint)| *index != RESERVE && hint.has_memory && hint.used >= time)
            .min_by_key(|(_, hint)| hint.used)
            .map(|(index, hint)| (index, hint.used, hint.pages()))
    }
}

/// A cache of decompressed frames, of a bounded size.
///
/// A slot gets its memory when it first holds a frame, and loses it under memory pressure.
pub(crate) struct FrameCache {
    hints: Pin<KBox<SpinLock<SlotHints>>>,
    slots: KVec<Pin<KBox<Mutex<FrameSlot>>>>,
}

impl FrameCache {
    /// Makes a cache for a number of concurrent readers: four small slots for each, and one slot
    /// for the largest frames for every two.
    pub(crate) fn new(readers: usize) -> Result<Self> {
        let large = readers.div_ceil(2);
        let count = large + readers * SMALL_PER_READER;
        let mut slots = KVec::with_capacity(count, GFP_KERNEL)?;
        let mut hints = KVec::with_capacity(count, GFP_KERNEL)?;
        for index in 0..count {
            let slot = FrameSlot {
                frame: None,
                content: KVVec::new(),
            };
            let slot = KBox::pin_init(new_mutex!(slot, "puzzlefs_frame"), GFP_KERNEL)?;
            slots.push(slot, GFP_KERNEL)?;
            let hint = SlotHint {
                room: if index < large {
                    MAX_FRAME_SIZE as usize
                } else {
                    SMALL
                },
                has_memory: false,
                frame: None,
                used: 0,
            };
            hints.push(hint, GFP_KERNEL)?;
        }
        let hints = SlotHints { clock: 0, hints };
        Ok(Self {
            hints: KBox::pin_init(new_spinlock!(hints, "puzzlefs_frames"), GFP_KERNEL)?,
            slots,
        })
    }

    /// Returns true if a frame is there, or about to be.
    pub(crate) fn has(&self, frame: FrameName) -> bool {
        self.hints.lock().find(frame).is_some()
    }

    /// Calls a function with the content of a frame, if that is there.
    pub(crate) fn with<R>(&self, frame: FrameName, take: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let index = self.hints.lock().find(frame)?;
        let slot = self.slots.get(index)?.lock();
        (slot.frame == Some(frame)).then(|| take(&slot.content))
    }

    /// Calls `take` with the content of a frame, which `make` decompresses if it is not there.
    ///
    /// # Errors
    ///
    /// Those of either function; [`ENOMEM`] if there is no memory and no reserve.
    pub(crate) fn with_or_make<R>(
        &self,
        frame: FrameName,
        size: usize,
        mut make: impl FnMut(&mut KVVec<u8>) -> Result<(), Fault>,
        take: impl FnOnce(&[u8]) -> Result<R, Fault>,
    ) -> Result<R, Fault> {
        let found = self.hints.lock().find_or_take(frame, size);
        let found = found.ok_or(Fault::Errno(ENOMEM))?;
        for index in [found, RESERVE] {
            if index != found {
                self.hints.lock().assign(index, frame);
            }
            let Some(mut slot) = self.lock_with_memory(index) else {
                continue;
            };
            if slot.frame != Some(frame) {
                // INVARIANT: The slot holds no frame until `make` has succeeded.
                slot.frame = None;
                make(&mut slot.content)?;
                slot.frame = Some(frame);
            }
            return take(&slot.content);
        }
        Err(Fault::Errno(ENOMEM))
    }

    /// Locks a slot that has memory, which it gets if it has none and there is some.
    fn lock_with_memory(&self, index: usize) -> Option<Guard<'_, FrameSlot, MutexBackend>> {
        let missing = self.hints.lock().missing(index);
        let memory = match missing {
            0 => None,
            room => KVVec::with_capacity(room, GFP_KERNEL | __GFP_NOWARN).ok(),
        };
        let mut slot = self.slots.get(index)?.lock();
        if slot.content.capacity() == 0 {
            match memory {
                Some(memory) => slot.content = memory,
                None => {
                    self.hints.lock().set_memory(index, false);
                    return None;
                }
            }
        }
        // Under the slot's lock, so that it stays true until the shrinker takes that.
        self.hints.lock().set_memory(index, true);
        Some(slot)
    }

    /// Allocates the reserve, so that a frame of any size can be decompressed whatever memory there
    /// is later.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`] if there is none now.
    pub(crate) fn reserve(&self) -> Result {
        if self.has_reserve() {
            return Ok(());
        }
        self.lock_with_memory(RESERVE).map(drop).ok_or(ENOMEM)
    }

    /// Returns true if [`Self::reserve`] has succeeded.
    pub(crate) fn has_reserve(&self) -> bool {
        self.hints.lock().missing(RESERVE) == 0
    }
}

/// Counts and frees the memory of all slots but the reserve, in pages.
impl Shrink for FrameCache {
    fn count(&self) -> usize {
        let hints = self.hints.lock();
        let hints = hints.hints.iter().skip(RESERVE + 1);
        hints.filter(|p| p.has_memory).map(SlotHint::pages).sum()
    }

    fn shrink(&self, pages: usize) -> usize {
        let mut freed = 0;
        let mut since = 0;
        while freed < pages {
            let oldest = self.hints.lock().oldest_since(since);
            let Some((index, used, its_pages)) = oldest else {
                break;
            };
            since = used + 1;
            // The owner of a locked slot may be waiting for memory.
            let Some(mut slot) = self.slots.get(index).and_then(|slot| slot.try_lock()) else {
                continue;
            };
            // INVARIANT: Neither a frame nor memory is left.
            slot.frame = None;
            let content = core::mem::take(&mut slot.content);
            self.hints.lock().set_memory(index, false);
            drop(slot);
            drop(content);
            freed += its_pages;
        }
        freed
    }
}

/// A cache of frames that memory reclaim can shrink.
pub(crate) struct ShrinkableFrames {
    cache: Arc<FrameCache>,
    _shrinker: ShrinkerRegistration<FrameCache>,
}

impl ShrinkableFrames {
    /// Makes a cache for a number of concurrent readers.
    pub(crate) fn new(readers: usize) -> Result<Arc<Self>> {
        let cache = Arc::new(FrameCache::new(readers)?, GFP_KERNEL)?;
        let this = Self {
            _shrinker: ShrinkerRegistration::new(c"puzzlefs-frames", cache.clone())?,
            cache,
        };
        Ok(Arc::new(this, GFP_KERNEL)?)
    }

    /// Returns the cache.
    pub(crate) fn cache(&self) -> &FrameCache {
        &self.cache
    }
}
