// SPDX-License-Identifier: GPL-2.0

//! Decompressed frames: the few that were wanted in part, for whoever wants another part.
//!
//! Frames end where they like, pages and requests do not: where one reader stops in the midst of a
//! frame, the next goes on, perhaps at the same time. Small files share frames.

use crate::fault::Fault;
use crate::vfs::prelude::*;
use kernel::{
    new_mutex, new_spinlock,
    sync::{Mutex, SpinLock},
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
    /// The [`Blob`](crate::blob::Blob)'s number.
    pub(crate) blob: u64,
    /// Whether the blob's digest was checked before the frame was decompressed.
    pub(crate) verified: bool,
    pub(crate) index: usize,
}

/// A frame's data, and room for that of others.
struct Slot {
    /// The frame whose data `content` is.
    frame: Option<FrameName>,
    /// Never grows beyond its capacity.
    content: KVVec<u8>,
}

/// Which slot a frame is in, or will be.
struct Place {
    /// The slot's capacity, in bytes.
    room: usize,
    frame: Option<FrameName>,
    /// When the frame was last asked for, by the cache's clock.
    used: u64,
}

struct Places {
    clock: u64,
    places: KVec<Place>,
}

impl Places {
    /// The slot of a frame, if it has one.
    fn find(&mut self, frame: FrameName) -> Option<usize> {
        self.clock += 1;
        let now = self.clock;
        let mut places = self.places.iter_mut().enumerate();
        let (index, place) = places.find(|(_, place)| place.frame == Some(frame))?;
        place.used = now;
        Some(index)
    }

    /// The slot of a frame of that size, or else, of the smallest that have room for it, the one
    /// whose last use is the longest ago, which is its from now on.
    fn find_or_take(&mut self, frame: FrameName, size: usize) -> Option<usize> {
        if let Some(index) = self.find(frame) {
            return Some(index);
        }
        let places = self.places.iter_mut().enumerate();
        let (index, place) = places
            .filter(|(_, place)| place.room >= size)
            .min_by_key(|(_, place)| (place.room, place.used))?;
        place.frame = Some(frame);
        place.used = self.clock;
        Some(index)
    }
}

/// A cache of decompressed frames, of a fixed size.
///
/// What `places` says is a hint: what is in a slot, the slot itself says, whose lock is held while
/// a frame is decompressed into it. So whoever wants the same frame waits until it is there.
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
            let room = if index < large {
                MAX_FRAME_SIZE as usize
            } else {
                SMALL
            };
            let slot = Slot {
                frame: None,
                content: KVVec::with_capacity(room, GFP_KERNEL)?,
            };
            let slot = KBox::pin_init(new_mutex!(slot, "puzzlefs_frame"), GFP_KERNEL)?;
            slots.push(slot, GFP_KERNEL)?;
            let place = Place {
                room,
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

    /// Whether a frame is there, or about to be.
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
    /// Those of either function.
    pub(crate) fn with_or_make<R>(
        &self,
        frame: FrameName,
        size: usize,
        make: impl FnOnce(&mut KVVec<u8>) -> Result<(), Fault>,
        take: impl FnOnce(&[u8]) -> Result<R, Fault>,
    ) -> Result<R, Fault> {
        let index = self.places.lock().find_or_take(frame, size);
        let slot = index.and_then(|index| self.slots.get(index));
        let mut slot = slot.ok_or(Fault::Error(ENOMEM))?.lock();
        if slot.frame != Some(frame) {
            slot.frame = None;
            make(&mut slot.content)?;
            slot.frame = Some(frame);
        }
        take(&slot.content)
    }
}
