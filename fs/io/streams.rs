// SPDX-License-Identifier: GPL-2.0

//! The readers of the packs of a store, and the bytes worth prefetching for them.
//!
//! | a reader | prefetched from there on |
//! | --- | --- |
//! | begins at the start or at the end of a file | [`PREFETCH_FIRST`] bytes, if useful lately |
//! | begins inside a file | nothing, until it has continued twice |
//! | has used half of them | twice as many, up to [`PREFETCH_MAX`] |
//! | leaves out more than [`PREFETCH_GAP`] bytes, inside a file [`MAX_GAP`] | as at the beginning |

use crate::{
    base::{
        blob_id::BlobId,
        limits::{
            MAX_GAP, PREFETCH_FIRST, PREFETCH_GAP, PREFETCH_KEPT, PREFETCH_MAX, PREFETCH_READ,
            PREFETCH_STREAMS,
        },
        range::ByteRange,
    },
    vfs::prelude::*,
};

/// A reader that moves forward through a pack.
#[derive(Clone, Copy)]
struct Stream {
    blob: BlobId,
    /// The start of the bytes that the reader has used.
    start: u64,
    /// The end of these bytes.
    position: u64,
    /// The end of the bytes that were prefetched for it.
    prefetched: u64,
    /// The number of bytes to prefetch next.
    window: u64,
    /// Set until the reader uses a second range.
    is_new: bool,
    /// Set if the reader uses the prefetched bytes in any order. It has no position then.
    is_random: bool,
    /// The time of the last use.
    used: u64,
}

impl Stream {
    /// Returns true if a range continues where the reader is. Inside a file it leaves out nothing.
    fn continues_at(&self, blob: BlobId, range: ByteRange, is_edge: bool) -> bool {
        if self.is_random {
            return self.blob == blob && (self.start..self.prefetched).contains(&range.offset);
        }
        // Several tasks can read what follows, one a little behind the other, and one can use a
        // part of a chunk after another.
        let from = self.position.saturating_sub(PREFETCH_READ);
        let ahead = if is_edge {
            PREFETCH_GAP.max(self.window / 2)
        } else {
            MAX_GAP
        };
        let to = self.position.saturating_add(ahead);
        self.blob == blob && range.end() >= from && range.offset <= to
    }
}

/// The frequency with which readers needed the first bytes that were prefetched for them, lately.
///
/// While they seldom are, only every [`Self::PROBES`]th reader gets some.
struct Success {
    score: u32,
    skipped: u32,
}

impl Success {
    const MAX: u32 = 16;
    const PROBES: u32 = 16;

    fn note(&mut self, was_needed: bool) {
        self.score = if was_needed {
            (self.score + 1).min(Self::MAX)
        } else {
            self.score.saturating_sub(1)
        };
    }

    /// Returns true if it is worth to prefetch for a reader that has just begun.
    fn is_likely(&mut self) -> bool {
        self.skipped = (self.skipped + 1) % Self::PROBES;
        self.score > Self::MAX / 4 || self.skipped == 0
    }
}

/// The readers of the packs of a store.
///
/// # Invariants
///
/// `streams` has capacity for [`PREFETCH_STREAMS`] elements, and never has more.
pub(super) struct Streams {
    clock: u64,
    success: Success,
    streams: KVec<Stream>,
}

impl Streams {
    /// Makes the state of a store that nobody has read yet.
    pub(super) fn new() -> Result<Self> {
        // INVARIANT: There are no streams.
        Ok(Self {
            clock: 0,
            success: Success {
                score: Success::MAX / 2,
                skipped: 0,
            },
            streams: KVec::with_capacity(PREFETCH_STREAMS, GFP_KERNEL)?,
        })
    }

    /// The number of ranges that readers use until one of them counts as gone.
    const PRESENT: u64 = 512;

    /// Notes that a reader uses a range. Returns the range to prefetch for it, if there is one.
    pub(super) fn advance(
        &mut self,
        blob: BlobId,
        range: ByteRange,
        is_edge: bool,
    ) -> Option<ByteRange> {
        self.clock += 1;
        let mut streams = self.streams.iter_mut().enumerate();
        let continued = streams.find(|(_, stream)| stream.continues_at(blob, range, is_edge));
        let Some((index, stream)) = continued else {
            return self.begin(blob, range, is_edge);
        };
        stream.used = self.clock;
        if stream.is_random || range.end() <= stream.position {
            return None;
        }
        stream.position = range.end();
        if core::mem::take(&mut stream.is_new) {
            if stream.window > 0 {
                self.success.note(true);
            } else if !is_edge {
                // It may be by chance.
                return None;
            }
        }
        let from = stream.prefetched.max(stream.position);
        if from - stream.position > stream.window / 2 {
            return None;
        }
        // Not more than the reader has used.
        let used_bytes = stream.position - stream.start;
        let most = used_bytes.clamp(PREFETCH_FIRST, PREFETCH_MAX);
        stream.window = (2 * stream.window).clamp(PREFETCH_FIRST, most);
        let to = stream.position.saturating_add(stream.window);
        let next = self.unread(blob, from, to)?;
        if let Some(stream) = self.streams.get_mut(index) {
            stream.prefetched = next.end();
        }
        Some(next)
    }

    /// Returns the bytes from one offset to another, up to those where a reader has begun: the next
    /// directory, if directories are read in another order than that of their names.
    fn unread(&self, blob: BlobId, from: u64, to: u64) -> Option<ByteRange> {
        let others = self.streams.iter().filter(|other| other.blob == blob);
        let starts = others
            .map(|other| other.start)
            .filter(|start| *start >= from);
        let to = starts.fold(to, u64::min);
        let len = to.checked_sub(from).filter(|len| *len > 0)?;
        Some(ByteRange { offset: from, len })
    }

    /// Notes that no more was prefetched than up to an offset, in place of `end`.
    pub(super) fn cut(&mut self, blob: BlobId, end: u64, offset: u64) {
        let mut streams = self.streams.iter_mut();
        if let Some(stream) = streams.find(|stream| stream.blob == blob && stream.prefetched == end)
        {
            stream.prefetched = offset.max(stream.position);
        }
    }

    /// Notes a reader that begins with a range.
    fn begin(&mut self, blob: BlobId, range: ByteRange, is_edge: bool) -> Option<ByteRange> {
        let window = if is_edge && self.success.is_likely() {
            PREFETCH_FIRST
        } else {
            0
        };
        let next = self.unread(blob, range.end(), range.end().saturating_add(window));
        let stream = Stream {
            blob,
            start: range.offset,
            position: range.end(),
            prefetched: next.map_or(range.end(), ByteRange::end),
            window,
            is_new: true,
            is_random: false,
            used: self.clock,
        };
        self.add(stream);
        next
    }

    /// Notes a reader that is going to use a range in whatever order.
    pub(super) fn will_need(&mut self, blob: BlobId, range: ByteRange) {
        self.clock += 1;
        let mut streams = self.streams.iter();
        let known = streams.position(|stream| {
            stream.blob == blob && stream.is_random && stream.start == range.offset
        });
        if let Some(known) = known {
            // INVARIANT: Removal keeps the capacity.
            let _ = self.streams.remove(known);
        }
        self.add(Stream {
            blob,
            start: range.offset,
            position: range.offset,
            prefetched: range.end(),
            window: range.len,
            is_new: false,
            is_random: true,
            used: self.clock,
        });
    }

    /// Adds a reader, in place of the one that was quiet for longest.
    fn add(&mut self, stream: Stream) {
        if self.streams.len() < PREFETCH_STREAMS {
            // INVARIANT: There is room.
            let _ = self.streams.push_within_capacity(stream);
        } else if let Some(oldest) = self.streams.iter_mut().min_by_key(|stream| stream.used) {
            let replaced = core::mem::replace(oldest, stream);
            if replaced.is_new && replaced.window > 0 {
                self.success.note(false);
            }
        }
    }

    /// Returns true if a reader has left a range far behind.
    pub(super) fn have_left(&self, blob: BlobId, range: ByteRange) -> bool {
        self.streams.iter().any(|stream| {
            let distance = stream.position.checked_sub(range.end());
            stream.blob == blob
                && !stream.is_random
                && distance.is_some_and(|by| (PREFETCH_KEPT..2 * PREFETCH_MAX).contains(&by))
        })
    }

    /// Returns true if a range was prefetched for a reader that is present.
    pub(super) fn want(&self, blob: BlobId, range: ByteRange) -> bool {
        self.streams.iter().any(|stream| {
            stream.blob == blob
                && stream.used + Self::PRESENT > self.clock
                && (stream.position..stream.prefetched).contains(&range.offset)
        })
    }
}
