// SPDX-License-Identifier: GPL-2.0

//! Decompressed frames: the few that were wanted in part, for whoever wants another part.
//!
//! Frames end where they like, pages and requests do not: where one reader stops in the midst of a
//! frame, the next goes on, perhaps at the same time. Small files share frames.

use crate::{
    base::fault::Fault,
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
use puzzlefs_schema::MAX_FRAME_SIZE;

/// What has room for any frame that `puzzlefs build` makes unless it is told otherwise, in bytes.
const SMALL: usize = 256 << 10;

/// How many slots of that size there are for each reader: one stops in the midst of a frame of the
/// file that it reads, and small files that others read are in other frames.
const SMALL_PER_READER: usize = 4;

/// What tells a frame from all others.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameName {
    /// The [`Blob`](crate::store::blob::Blob)'s number.
    pub(crate) blob: u64,
    /// Whether the blob's digest was checked before the frame was decompressed.
    pub(crate) verified: bool,
    pub(crate) index: usize,
}

/// The slot that the shrinker leaves alone, so that each frame can be decompressed somewhere even
/// if there is no memory.
const RESERVE: usize = 0;

/// A frame's data.
struct Slot {
    /// The frame whose data `content` is.
    frame: Option<FrameName>,
    /// Has the place's room for its capacity, or none.
    content: KVVec<u8>,
}

/// Which slot a frame is in, or will be.
struct Place {
    /// The capacity of the slot while it has memory, in bytes.
    room: usize,
    has_memory: bool,
    frame: Option<FrameName>,
    /// When the frame was last asked for, by the cache's clock.
    used: u64,
}

impl Place {
    fn pages(&self) -> usize {
        self.room / PAGE_SIZE
    }
}

struct Places {
    clock: u64,
    places: KVec<Place>,
}

impl Places {
    /// Advances the clock and returns the time.
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// Returns the slot of a frame, if it has one.
    fn find(&mut self, frame: FrameName) -> Option<usize> {
        let now = self.tick();
        let mut places = self.places.iter_mut().enumerate();
        let (index, place) = places.find(|(_, place)| place.frame == Some(frame))?;
        place.used = now;
        Some(index)
    }

    /// Returns the slot of a frame of that size. If it has none, it gets the least recently used
    /// one of the smallest that have room for it.
    fn find_or_take(&mut self, frame: FrameName, size: usize) -> Option<usize> {
        if let Some(index) = self.find(frame) {
            return Some(index);
        }
        let places = self.places.iter().enumerate();
        let (index, _) = places
            .filter(|(_, place)| place.room >= size)
            .min_by_key(|(_, place)| (place.room, place.used))?;
        self.assign(index, frame);
        Some(index)
    }

    /// Gives a slot to a frame.
    fn assign(&mut self, index: usize, frame: FrameName) {
        let now = self.tick();
        if let Some(place) = self.places.get_mut(index) {
            place.frame = Some(frame);
            place.used = now;
        }
    }

    /// Returns how much memory a slot needs before it can hold a frame: 0 if it has its memory.
    fn missing(&self, index: usize) -> usize {
        match self.places.get(index) {
            Some(place) if !place.has_memory => place.room,
            _ => 0,
        }
    }

    /// Notes whether a slot has memory. Without memory it holds no frame.
    fn set_memory(&mut self, index: usize, has_memory: bool) {
        if let Some(place) = self.places.get_mut(index) {
            place.has_memory = has_memory;
            if !has_memory {
                place.frame = None;
            }
        }
    }

    /// Returns the least recently used slot with memory that can be taken from it, of those that
    /// were used at a time or later; with that slot's time and pages.
    fn oldest_since(&self, time: u64) -> Option<(usize, u64, usize)> {
        let places = self.places.iter().enumerate();
        places
            .filter(|(index, place)| *index != RESERVE && place.has_memory && place.used >= time)
            .min_by_key(|(_, place)| place.used)
            .map(|(index, place)| (index, place.used, place.pages()))
    }
}

/// A cache of decompressed frames, of a bounded size.
///
/// A slot gets its memory when it first holds a frame, and loses it under memory pressure.
///
/// What `places` says is a hint: what is in a slot, the slot itself says, whose lock is held while
/// a frame is decompressed into it. So whoever wants the same frame waits until it is there. No
/// memory is allocated under that lock: the shrinker takes it, if it is free.
pub(crate) struct FrameCache {
    places: Pin<KBox<SpinLock<Places>>>,
    slots: KVec<Pin<KBox<Mutex<Slot>>>>,
}

impl FrameCache {
    /// Makes a cache for so many readers at once: for each, of four frames of the size that
    /// builders make, and for two of them, of one of the largest size.
    pub(crate) fn new(readers: usize) -> Result<Self> {
        let large = readers.div_ceil(2);
        let count = large + readers * SMALL_PER_READER;
        let mut slots = KVec::with_capacity(count, GFP_KERNEL)?;
        let mut places = KVec::with_capacity(count, GFP_KERNEL)?;
        for index in 0..count {
            let slot = Slot {
                frame: None,
                content: KVVec::new(),
            };
            let slot = KBox::pin_init(new_mutex!(slot, "puzzlefs_frame"), GFP_KERNEL)?;
            slots.push(slot, GFP_KERNEL)?;
            let place = Place {
                room: if index < large {
                    MAX_FRAME_SIZE as usize
                } else {
                    SMALL
                },
                has_memory: false,
                frame: None,
                used: 0,
            };
            places.push(place, GFP_KERNEL)?;
        }
        let places = Places { clock: 0, places };
        Ok(Self {
            places: KBox::pin_init(new_spinlock!(places, "puzzlefs_frames"), GFP_KERNEL)?,
            slots,
        })
    }

    /// Returns true if a frame is there, or about to be.
    pub(crate) fn has(&self, frame: FrameName) -> bool {
        self.places.lock().find(frame).is_some()
    }

    /// Gives a frame's data to a function, if they are there.
    pub(crate) fn with<R>(&self, frame: FrameName, take: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let index = self.places.lock().find(frame)?;
        let slot = self.slots.get(index)?.lock();
        (slot.frame == Some(frame)).then(|| take(&slot.content))
    }

    /// Gives the data of a frame of that size to a function, after another has made them if they
    /// are not there.
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
        let found = self.places.lock().find_or_take(frame, size);
        let found = found.ok_or(Fault::Error(ENOMEM))?;
        for index in [found, RESERVE] {
            if index != found {
                self.places.lock().assign(index, frame);
            }
            let Some(mut slot) = self.lock_with_memory(index) else {
                continue;
            };
            if slot.frame != Some(frame) {
                slot.frame = None;
                make(&mut slot.content)?;
                slot.frame = Some(frame);
            }
            return take(&slot.content);
        }
        Err(Fault::Error(ENOMEM))
    }

    /// Locks a slot that has memory, which it gets if it has none and there is some.
    fn lock_with_memory(&self, index: usize) -> Option<Guard<'_, Slot, MutexBackend>> {
        let missing = self.places.lock().missing(index);
        let memory = match missing {
            0 => None,
            room => KVVec::with_capacity(room, GFP_KERNEL | __GFP_NOWARN).ok(),
        };
        let mut slot = self.slots.get(index)?.lock();
        if slot.content.capacity() == 0 {
            match memory {
                Some(memory) => slot.content = memory,
                None => {
                    self.places.lock().set_memory(index, false);
                    return None;
                }
            }
        }
        // Under the slot's lock: so it stays true until the shrinker has that.
        self.places.lock().set_memory(index, true);
        Some(slot)
    }

    /// Has memory for a frame of any size from now on, whatever memory there is later.
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
        self.places.lock().missing(RESERVE) == 0
    }
}

/// The memory of all slots but the reserve can be had, counted in pages.
impl Shrink for FrameCache {
    fn count(&self) -> usize {
        let places = self.places.lock();
        let places = places.places.iter().skip(RESERVE + 1);
        places.filter(|p| p.has_memory).map(Place::pages).sum()
    }

    fn shrink(&self, pages: usize) -> usize {
        let mut freed = 0;
        let mut since = 0;
        while freed < pages {
            let oldest = self.places.lock().oldest_since(since);
            let Some((index, used, its_pages)) = oldest else {
                break;
            };
            since = used + 1;
            // Somebody may be about to use one that is locked, and may wait for memory meanwhile.
            let Some(mut slot) = self.slots.get(index).and_then(|slot| slot.try_lock()) else {
                continue;
            };
            slot.frame = None;
            let content = core::mem::take(&mut slot.content);
            self.places.lock().set_memory(index, false);
            drop(slot);
            drop(content);
            freed += its_pages;
        }
        freed
    }
}

/// A cache of frames that memory reclaim knows of.
pub(crate) struct ShrinkableFrames {
    cache: Arc<FrameCache>,
    _shrinker: ShrinkerRegistration<FrameCache>,
}

impl ShrinkableFrames {
    /// Makes a cache for so many readers at once.
    pub(crate) fn new(readers: usize) -> Result<Arc<Self>> {
        let cache = Arc::new(FrameCache::new(readers)?, GFP_KERNEL)?;
        let this = Self {
            _shrinker: ShrinkerRegistration::new(c"puzzlefs-frames", cache.clone())?,
            cache,
        };
        Ok(Arc::new(this, GFP_KERNEL)?)
    }

    /// The cache.
    pub(crate) fn cache(&self) -> &FrameCache {
        &self.cache
    }
}
