// SPDX-License-Identifier: MIT OR Apache-2.0

//! Ranges and chunks under way, and the requests that wait for them.
//!
//! A chunk is under way from the time at which its range is queued until it is in the store, or has failed.
//! It is under way once, regardless of the number of requests for it, and of the images that have it.
//!
//! Each range belongs to one image, whose threads transfer it from the source of that image.

use super::super::commit::ArrivedChunk;
use super::super::cutter::ChunkCutter;
use super::super::plan::{end_of, sparse_ranges, PackRange};
use super::super::source::RemoteBlob;
use crate::error::{Error, Result};
use crate::model::digest::Digest;
use crate::sys::parallel::lock;
use puzzlefs_schema::v4::PackedChunk;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::mem;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The length of a range in bytes after which another one begins, so that several transfers share the work.
const RANGE_BYTES: u64 = 1 << 20;
/// Background chunks of this many bytes are stored together.
const BACKGROUND_BYTES: usize = 16 << 20;
/// Transfers wait if chunks of this many bytes have arrived and are not stored.
const ARRIVED_MAX: usize = 48 << 20;
/// If the rest is fetched while readers pause, this is the shortest pause: after the last request, and after
/// the image has come. A program that starts computes for some hundred milliseconds between its reads, and
/// needs the link and the CPU for its next one.
pub(super) const QUIET: Duration = Duration::from_secs(1);
/// The longest wait of a thread before it looks for the end.
const PATIENCE: Duration = Duration::from_millis(100);

/// The number of an image that is served.
pub(super) type ImageNumber = u64;

/// The order of ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Priority {
    /// A reader waits.
    Awaited,
    /// The kernel reads ahead.
    Requested,
    /// The start-up order of the image leads to the range.
    Recorded,
    /// Nothing says that it will be read soon.
    Background,
}

/// A range that is transferred by one thread.
#[derive(Debug)]
pub(super) struct Job {
    /// The image whose source has the range.
    pub image: ImageNumber,
    /// The images whose sources have failed to give the chunks.
    pub tried: Vec<ImageNumber>,
    pub priority: Priority,
    pub pack: RemoteBlob,
    pub range: PackRange,
    /// The number of chunks at the end that no reader has requested.
    pub extension: usize,
}

/// A range of requested chunks, and the chunks behind it that are fetched with it.
pub(super) struct ExtendedRange {
    pub range: PackRange,
    pub extension: Vec<PackedChunk>,
}

impl Job {
    /// Returns a cutter for the bytes of the range.
    pub fn cutter(&self) -> ChunkCutter<'_> {
        let PackRange { chunks, bytes } = &self.range;
        ChunkCutter::new(self.pack.digest, bytes.start, chunks)
    }
}

/// Chunks that are queued together.
pub(super) struct Needed {
    /// The image whose source has them.
    pub image: ImageNumber,
    /// The images whose sources have failed to give them.
    pub tried: Vec<ImageNumber>,
    pub pack: RemoteBlob,
    /// The chunks, in order of position.
    pub chunks: Vec<PackedChunk>,
}

/// A request for a chunk under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub id: u64,
    pub priority: Priority,
    pub since: Instant,
}

impl Priority {
    /// Returns true if no reader has requested the range.
    pub fn is_unrequested(self) -> bool {
        self > Priority::Requested
    }
}

/// An image that is served.
#[derive(Default)]
struct ImageState {
    /// The number of its threads, which transfer ranges.
    jobs: usize,
    /// The number of its ranges that have failed.
    failures: u64,
    outcome: Option<Result<()>>,
    has_ended: bool,
}

/// The counts that a user sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct QueueCounts {
    /// The number of requests without an answer.
    pub requests: u64,
    /// The time for which the first of them has waited.
    pub longest_wait: Duration,
    /// The number of ranges in transfer.
    pub transfers: u64,
}

#[derive(Default)]
struct State {
    images: BTreeMap<ImageNumber, ImageState>,
    queued: BTreeMap<(ImageNumber, Priority, u64), Job>,
    next_number: u64,
    /// The ranges in transfer.
    running: Vec<(ImageNumber, Priority)>,
    /// The chunks under way, with the images and the numbers of their ranges.
    under_way: HashMap<Digest, (ImageNumber, u64)>,
    /// The requests for chunks under way.
    waiting: HashMap<Digest, Vec<Waiting>>,
    /// Chunks that have arrived and are not stored: those that are stored at once, and those of the
    /// background.
    arrived: Vec<ArrivedChunk>,
    arrived_background: Vec<ArrivedChunk>,
    arrived_bytes: usize,
    background_bytes: usize,
    /// Store background chunks without waiting for more.
    flush: bool,
    last_request: Option<Instant>,
    outcome: Option<Result<()>>,
    has_ended: bool,
}

impl State {
    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    fn enqueue(&mut self, job: Job) {
        let number = self.number();
        for chunk in &job.range.chunks {
            let range = (job.image, number);
            self.under_way.insert(chunk.digest.into(), range);
        }
        self.queued.insert((job.image, job.priority, number), job);
    }

    /// Gives a queued range a higher priority.
    fn promote(&mut self, (image, number): (ImageNumber, u64), priority: Priority) {
        use Priority::{Awaited, Background, Recorded, Requested};
        for former in [Awaited, Requested, Recorded, Background] {
            if former > priority {
                if let Some(mut job) = self.queued.remove(&(image, former, number)) {
                    job.priority = priority;
                    self.queued.insert((image, priority, number), job);
                }
            }
        }
    }

    /// Gives the range of a chunk under way a higher priority. Returns false if the chunk is not under way.
    fn is_promoted(&mut self, chunk: &PackedChunk, priority: Priority) -> bool {
        let range = self.under_way.get(&chunk.digest.into()).copied();
        if let Some(range) = range {
            self.promote(range, priority);
        }
        range.is_some()
    }

    /// Gives up the extension of a range if more ranges are awaited than threads of the image are free.
    fn trim(&mut self, job: &mut Job) {
        let queued = self.queued.range((job.image, Priority::Awaited, 0)..);
        let awaited = queued
            .take_while(|((of, priority, _), _)| (*of, *priority) == (job.image, Priority::Awaited))
            .count();
        let busy = self
            .running
            .iter()
            .filter(|(of, _)| *of == job.image)
            .count();
        let jobs = self.images.get(&job.image).map_or(0, |image| image.jobs);
        // The thread that has taken this range is not counted as busy yet.
        if awaited <= jobs.saturating_sub(busy + 1) {
            return;
        }
        while job.extension > 0 {
            let last = job
                .range
                .chunks
                .last()
                .map(|chunk| Digest::from(chunk.digest));
            let Some(last) = last.filter(|last| !self.waiting.contains_key(last)) else {
                break;
            };
            self.under_way.remove(&last);
            job.range.chunks.pop();
            job.extension -= 1;
        }
        if let Some(last) = job.range.chunks.last() {
            job.range.bytes.end = end_of(last);
        }
    }

    fn has_requests(&self) -> bool {
        let queued = self.queued.keys().map(|(_, priority, _)| priority);
        let running = self.running.iter().map(|(_, priority)| priority);
        let mut all = queued.chain(running);
        all.any(|priority| *priority != Priority::Background)
    }

    /// The number of ranges that are queued or in transfer and that nobody has requested.
    fn background(&self) -> usize {
        let queued = self.queued.keys().map(|(_, priority, _)| priority);
        let running = self.running.iter().map(|(_, priority)| priority);
        let all = queued.chain(running);
        all.filter(|priority| **priority == Priority::Background)
            .count()
    }

    /// Returns true if a range of an image is queued or in transfer.
    fn has_ranges(&self, image: ImageNumber) -> bool {
        let mut queued = self.queued.range((image, Priority::Awaited, 0)..);
        queued.next().is_some_and(|((of, ..), _)| *of == image)
            || self.running.iter().any(|(of, _)| *of == image)
    }

    /// Takes the first range of an image.
    fn pop(&mut self, image: ImageNumber) -> Option<Job> {
        let mut queued = self.queued.range((image, Priority::Awaited, 0)..);
        let key = queued.next().map(|(key, _)| *key);
        self.queued.remove(&key.filter(|(of, ..)| *of == image)?)
    }

    /// Takes the first range of an image that a thread may transfer now. If there are several threads, one of
    /// them stays free for requests.
    fn pop_allowed(&mut self, image: ImageNumber) -> Option<Job> {
        let mut queued = self.queued.range((image, Priority::Awaited, 0)..);
        let is_unrequested = queued
            .next()
            .is_some_and(|((_, priority, _), _)| priority.is_unrequested());
        let running = self.running.iter();
        let unrequested = running
            .filter(|(of, priority)| *of == image && priority.is_unrequested())
            .count();
        let jobs = self.images.get(&image).map_or(0, |image| image.jobs);
        if is_unrequested && unrequested >= jobs.max(2) - 1 {
            return None;
        }
        self.pop(image)
    }

    /// Returns true if an image is served no longer.
    fn has_left(&self, image: ImageNumber) -> bool {
        let image = self.images.get(&image);
        self.has_ended || image.is_none_or(|image| image.has_ended)
    }
}

/// The queue.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

impl Queue {
    fn wait<'g>(&self, state: MutexGuard<'g, State>) -> MutexGuard<'g, State> {
        let waited = self.changed.wait_timeout(state, PATIENCE);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Adds an image whose ranges `jobs` threads transfer.
    pub fn enter(&self, image: ImageNumber, jobs: usize) {
        let state = ImageState {
            jobs,
            ..ImageState::default()
        };
        let mut all = lock(&self.state);
        all.images.insert(image, state);
        // The mount and its first readers are about to come.
        all.last_request = Some(Instant::now());
    }

    /// Removes an image that has ended. Its threads have ended, too. Returns the requests for chunks of its
    /// ranges, which need another source.
    pub fn leave(&self, image: ImageNumber) -> Vec<(Digest, Waiting)> {
        let mut state = lock(&self.state);
        state.images.remove(&image);
        let mut left = Vec::new();
        while let Some(job) = state.pop(image) {
            for chunk in job.range.chunks {
                let digest = chunk.digest.into();
                state.under_way.remove(&digest);
                let waiting = state.waiting.remove(&digest).unwrap_or_default();
                left.extend(waiting.into_iter().map(|waiting| (digest, waiting)));
            }
        }
        self.changed.notify_all();
        left
    }

    /// Lets a request wait for a chunk. Returns true if the chunk is under way already.
    pub fn request(&self, id: u64, digest: &Digest, priority: Priority) -> bool {
        let mut state = lock(&self.state);
        let since = Instant::now();
        state.last_request = Some(since);
        let waiting = Waiting {
            id,
            priority,
            since,
        };
        state.waiting.entry(*digest).or_default().push(waiting);
        let Some(range) = state.under_way.get(digest).copied() else {
            return false;
        };
        state.promote(range, priority);
        let mut arrived = state.arrived_background.iter();
        if arrived.any(|(chunk, _)| chunk == digest) {
            state.flush = true;
        }
        self.changed.notify_all();
        true
    }

    /// Returns true if a chunk is under way.
    pub fn is_under_way(&self, digest: &Digest) -> bool {
        lock(&self.state).under_way.contains_key(digest)
    }

    /// Returns true if requests wait for a chunk.
    pub fn is_requested(&self, digest: &Digest) -> bool {
        lock(&self.state).waiting.contains_key(digest)
    }

    /// Queues the ranges of chunks. Leaves out chunks under way. A range with an awaited chunk comes before
    /// others. Returns true if any chunk is queued.
    pub fn submit(&self, needed: Needed, priority: Priority, awaited: &HashSet<Digest>) -> bool {
        let mut state = lock(&self.state);
        let Needed {
            image,
            tried,
            pack,
            mut chunks,
        } = needed;
        chunks.retain(|chunk| !state.is_promoted(chunk, priority));
        for range in requested_ranges(&chunks) {
            let mut digests = range.chunks.iter().map(|chunk| Digest::from(chunk.digest));
            let priority = if digests.any(|digest| awaited.contains(&digest)) {
                Priority::Awaited
            } else {
                priority
            };
            state.enqueue(Job {
                image,
                tried: tried.clone(),
                priority,
                pack,
                range,
                extension: 0,
            });
        }
        self.changed.notify_all();
        !chunks.is_empty()
    }

    /// Queues ranges of requested chunks, and chunks that are fetched with them. Leaves out chunks under way.
    pub fn submit_extended(
        &self,
        needed: Needed,
        ranges: Vec<ExtendedRange>,
        awaited: &HashSet<Digest>,
    ) {
        let mut state = lock(&self.state);
        for ExtendedRange { range, extension } in ranges {
            let mut chunks = range.chunks;
            let mut digests = chunks.iter().map(|chunk| Digest::from(chunk.digest));
            let priority = if digests.any(|digest| awaited.contains(&digest)) {
                Priority::Awaited
            } else {
                Priority::Requested
            };
            // The background may have queued some meanwhile.
            chunks.retain(|chunk| !state.is_promoted(chunk, priority));
            let requested = chunks.len();
            if requested > 0 {
                let extension = extension.into_iter();
                let is_free =
                    |chunk: &PackedChunk| !state.under_way.contains_key(&chunk.digest.into());
                chunks.extend(extension.take_while(is_free));
            }
            let (Some(first), Some(last)) = (chunks.first(), chunks.last()) else {
                continue;
            };
            let bytes = first.offset..end_of(last);
            state.enqueue(Job {
                image: needed.image,
                tried: needed.tried.clone(),
                priority,
                pack: needed.pack,
                extension: chunks.len() - requested,
                range: PackRange { chunks, bytes },
            });
        }
        self.changed.notify_all();
    }

    /// Queues the rest of a range anew.
    pub fn resume(&self, job: &Job, rest: &[PackedChunk]) {
        let (Some(first), Some(last)) = (rest.first(), rest.last()) else {
            return;
        };
        let bytes = first.offset..end_of(last);
        let mut state = lock(&self.state);
        state.enqueue(Job {
            image: job.image,
            tried: job.tried.clone(),
            priority: job.priority,
            pack: job.pack,
            range: PackRange {
                chunks: rest.to_vec(),
                bytes,
            },
            // A range has a chunk that it does not give up.
            extension: job.extension.min(rest.len() - 1),
        });
        self.changed.notify_all();
    }

    /// Waits for the next range of an image. Returns `None` when the image has ended.
    pub fn next(&self, image: ImageNumber) -> Option<Job> {
        let mut state = lock(&self.state);
        loop {
            if state.has_left(image) {
                return None;
            }
            if let Some(mut job) = state.pop_allowed(image) {
                state.trim(&mut job);
                state.running.push((image, job.priority));
                return Some(job);
            }
            state = self.wait(state);
        }
    }

    /// Notes that a range is no longer in transfer.
    pub fn left(&self, job: &Job) {
        let mut state = lock(&self.state);
        let mut running = state.running.iter();
        let at = running.position(|running| *running == (job.image, job.priority));
        if let Some(at) = at {
            state.running.swap_remove(at);
        }
        self.changed.notify_all();
    }

    /// Notes that a chunk has arrived. Waits if too much has arrived that is not stored.
    ///
    /// Only chunks of the background wait in memory for others. Those that were fetched ahead are about to be
    /// read, and a reader does not wait for a chunk that is stored.
    pub fn arrive(&self, digest: &Digest, stored: &[u8], priority: Priority) -> Result<()> {
        let mut state = lock(&self.state);
        while state.arrived_bytes >= ARRIVED_MAX && !state.has_ended {
            state = self.wait(state);
        }
        if state.has_ended {
            return Err(Error::Interrupted);
        }
        state.arrived_bytes += stored.len();
        let chunk = (*digest, stored.to_vec());
        if priority != Priority::Background || state.waiting.contains_key(digest) {
            state.arrived.push(chunk);
        } else {
            state.background_bytes += stored.len();
            state.arrived_background.push(chunk);
        }
        self.changed.notify_all();
        Ok(())
    }

    /// Waits for chunks to store. Those with requests come first. Returns `None` after the end.
    pub fn arrived(&self) -> Option<Vec<ArrivedChunk>> {
        let mut state = lock(&self.state);
        loop {
            let is_enough = state.flush
                || state.has_ended
                || state.background_bytes >= BACKGROUND_BYTES
                || state.arrived_bytes >= ARRIVED_MAX;
            let mut taken = mem::take(&mut state.arrived);
            if is_enough && (state.flush || taken.is_empty()) {
                taken.append(&mut state.arrived_background);
                (state.background_bytes, state.flush) = (0, false);
            }
            if !taken.is_empty() {
                return Some(taken);
            }
            if state.has_ended {
                return None;
            }
            state = self.wait(state);
        }
    }

    /// Notes that chunks are no longer in memory.
    pub fn released(&self, chunks: &[ArrivedChunk]) {
        let mut state = lock(&self.state);
        let bytes: usize = chunks.iter().map(|(_, stored)| stored.len()).sum();
        state.arrived_bytes = state.arrived_bytes.saturating_sub(bytes);
        self.changed.notify_all();
    }

    /// Notes that chunks are no longer under way. Returns the requests that waited for them.
    pub fn done(&self, chunks: impl IntoIterator<Item = Digest>) -> Vec<u64> {
        let mut state = lock(&self.state);
        let mut ids = Vec::new();
        for digest in chunks {
            state.under_way.remove(&digest);
            let waiting = state.waiting.remove(&digest).unwrap_or_default();
            ids.extend(waiting.iter().map(|waiting| waiting.id));
        }
        self.changed.notify_all();
        ids
    }

    /// Notes that chunks are no longer under way, and that their requests wait for another source.
    pub fn withdrawn(&self, chunks: &[Digest]) {
        let mut state = lock(&self.state);
        for digest in chunks {
            state.under_way.remove(digest);
        }
    }

    /// Counts a failure of a range of an image.
    pub fn failed(&self, image: ImageNumber) {
        if let Some(image) = lock(&self.state).images.get_mut(&image) {
            image.failures += 1;
        }
    }

    /// Counts a failure that concerns all images.
    pub fn all_failed(&self) {
        for image in lock(&self.state).images.values_mut() {
            image.failures += 1;
        }
    }

    /// The number of failures of an image so far.
    pub fn failures(&self, image: ImageNumber) -> u64 {
        let state = lock(&self.state);
        state.images.get(&image).map_or(0, |image| image.failures)
    }

    /// Waits until the background may queue another range of an image: if fewer than `limit` are under way,
    /// those of other images included, and with `when_idle` only if there are no requests.
    pub fn wait_for_background(
        &self,
        image: ImageNumber,
        limit: usize,
        when_idle: bool,
    ) -> Result<()> {
        self.wait_while(image, |state| {
            let is_recent = |last: Instant| last.elapsed() < QUIET;
            state.background() >= limit
                || when_idle && (state.has_requests() || state.last_request.is_some_and(is_recent))
        })
    }

    /// Waits until no chunk of the ranges of an image is under way. Chunks that have arrived are stored at
    /// once.
    pub fn drain(&self, image: ImageNumber) -> Result<()> {
        self.wait_while(image, |state| {
            state.flush |= !state.has_ranges(image) && !state.arrived_background.is_empty();
            if state.flush {
                self.changed.notify_all();
            }
            state.under_way.values().any(|(of, _)| *of == image)
        })
    }

    /// Waits until none of these chunks is under way.
    pub fn wait_for(&self, image: ImageNumber, chunks: &[Digest]) -> Result<()> {
        self.wait_while(image, |state| {
            let mut chunks = chunks.iter();
            chunks.any(|digest| state.under_way.contains_key(digest))
        })
    }

    /// Fails when the image has ended.
    pub fn check(&self, image: ImageNumber) -> Result<()> {
        self.wait_while(image, |_| false)
    }

    /// Waits for a time.
    pub fn pause(&self, image: ImageNumber, time: Duration) -> Result<()> {
        let start = Instant::now();
        self.wait_while(image, |_| start.elapsed() < time)
    }

    /// Waits while a condition is true. Fails when the image has ended.
    fn wait_while(
        &self,
        image: ImageNumber,
        mut is_true: impl FnMut(&mut State) -> bool,
    ) -> Result<()> {
        let mut state = lock(&self.state);
        loop {
            if state.has_left(image) {
                return Err(Error::Interrupted);
            }
            if !is_true(&mut state) {
                return Ok(());
            }
            state = self.wait(state);
        }
    }

    /// Ends the work for an image. The first outcome counts.
    pub fn end_image(&self, image: ImageNumber, outcome: Result<()>) {
        if let Some(image) = lock(&self.state).images.get_mut(&image) {
            if !image.has_ended {
                image.has_ended = true;
                image.outcome = Some(outcome);
            }
        }
        self.changed.notify_all();
    }

    /// Waits for the end of the work for an image, for a short time. Returns true at the end.
    pub fn has_image_ended(&self, image: ImageNumber) -> bool {
        let state = lock(&self.state);
        state.has_left(image) || self.wait(state).has_left(image)
    }

    /// Takes the outcome of the work for an image.
    pub fn image_outcome(&self, image: ImageNumber) -> Result<()> {
        let mut state = lock(&self.state);
        let image = state.images.get_mut(&image);
        let outcome = image.and_then(|image| image.outcome.take());
        outcome.unwrap_or(Err(Error::Interrupted))
    }

    /// Ends all work. The first outcome counts.
    pub fn end(&self, outcome: Result<()>) {
        let mut state = lock(&self.state);
        if !state.has_ended {
            state.has_ended = true;
            state.outcome = Some(outcome);
        }
        self.changed.notify_all();
    }

    /// Returns true after the end.
    pub fn is_over(&self) -> bool {
        lock(&self.state).has_ended
    }

    /// Takes the outcome.
    pub fn outcome(&self) -> Result<()> {
        let outcome = lock(&self.state).outcome.take();
        outcome.unwrap_or(Err(Error::Interrupted))
    }

    /// Returns the counts that a user sees.
    pub fn counts(&self) -> QueueCounts {
        let state = lock(&self.state);
        let waiting = state.waiting.values().flatten();
        let longest = waiting.clone().map(|waiting| waiting.since.elapsed()).max();
        QueueCounts {
            requests: waiting.count() as u64,
            longest_wait: longest.unwrap_or_default(),
            transfers: state.running.len() as u64,
        }
    }
}

/// Returns the ranges of chunks of a pack, which are in order of position.
pub(super) fn requested_ranges(chunks: &[PackedChunk]) -> impl Iterator<Item = PackRange> {
    sparse_ranges(chunks).into_iter().flat_map(split)
}

/// Splits a long range between chunks.
fn split(range: PackRange) -> Vec<PackRange> {
    let mut pieces: Vec<PackRange> = Vec::new();
    for chunk in range.chunks {
        let end = end_of(&chunk);
        match pieces.last_mut() {
            Some(piece) if piece.bytes.end - piece.bytes.start < RANGE_BYTES => {
                piece.bytes.end = end;
                piece.chunks.push(chunk);
            }
            _ => pieces.push(PackRange {
                chunks: vec![chunk],
                bytes: chunk.offset..end,
            }),
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(number: u64, len: u32) -> PackedChunk {
        PackedChunk {
            digest: Digest::of(&number.to_le_bytes()).into(),
            offset: number * u64::from(len),
            stored_len: len,
        }
    }

    fn pack() -> RemoteBlob {
        let digest = Digest::of(b"pack");
        RemoteBlob {
            digest,
            size: 1 << 30,
        }
    }

    #[test]
    fn long_ranges_are_split_between_chunks() {
        let chunks: Vec<_> = (0..20).map(|number| chunk(number, 300_000)).collect();
        let [range] = &sparse_ranges(&chunks)[..] else {
            panic!("not one range");
        };
        let pieces = split(range.clone());
        assert_eq!(pieces.len(), 5);
        assert_eq!(pieces[1].bytes, 1_200_000..2_400_000);
        let joined: Vec<_> = pieces.into_iter().flat_map(|piece| piece.chunks).collect();
        assert_eq!(joined, chunks);
    }

    fn needed(image: ImageNumber, chunk: PackedChunk) -> Needed {
        Needed {
            image,
            tried: Vec::new(),
            pack: pack(),
            chunks: vec![chunk],
        }
    }

    fn far(number: u64) -> PackedChunk {
        chunk(number * 1_000_000, 1)
    }

    #[test]
    fn awaited_ranges_come_first_and_promoted_ones_too() {
        let queue = Queue::default();
        queue.enter(1, 3);
        let none = HashSet::new();
        let digest = |number| Digest::from(far(number).digest);
        for number in [0, 1, 4, 2, 3] {
            let (priority, awaited) = match number {
                0 | 1 => (Priority::Background, HashSet::new()),
                4 => (Priority::Recorded, HashSet::new()),
                2 => (Priority::Requested, HashSet::new()),
                _ => (Priority::Requested, HashSet::from([digest(number)])),
            };
            assert!(queue.submit(needed(1, far(number)), priority, &awaited));
        }
        // Under way already: it is queued once, and before others.
        assert!(!queue.submit(needed(1, far(1)), Priority::Requested, &none));
        assert!(queue.request(9, &digest(1), Priority::Awaited));
        assert!(!queue.request(8, &digest(7), Priority::Awaited));
        let next: Vec<Digest> = (0..5)
            .map(|_| queue.next(1).unwrap().range.chunks[0].digest.into())
            .collect();
        let wanted = [1, 3, 2, 4, 0].map(digest);
        assert_eq!(next, wanted);
        assert_eq!(queue.counts().requests, 2);
        assert_eq!(queue.counts().transfers, 5);
        assert_eq!(queue.done([digest(1), digest(7)]), [9, 8]);
        queue.end(Ok(()));
        assert!(queue.next(1).is_none());
    }

    #[test]
    fn a_thread_stays_free_for_requests() {
        let queue = Queue::default();
        queue.enter(1, 3);
        let none = HashSet::new();
        for number in 0..3 {
            queue.submit(needed(1, far(number)), Priority::Recorded, &none);
        }
        let first = queue.next(1).unwrap();
        queue.next(1).unwrap();
        assert!(lock(&queue.state).pop_allowed(1).is_none());
        queue.submit(needed(1, far(3)), Priority::Requested, &none);
        let requested = queue.next(1).unwrap();
        assert_eq!(requested.range.chunks[0], far(3));
        assert!(lock(&queue.state).pop_allowed(1).is_none());
        queue.left(&first);
        assert_eq!(queue.next(1).unwrap().range.chunks[0], far(2));
        // If there is one thread alone, it takes everything.
        queue.enter(2, 1);
        queue.submit(needed(2, far(4)), Priority::Recorded, &none);
        assert!(queue.next(2).is_some());
    }

    /// A range of the first of these chunks, extended by the others.
    fn extended(chunks: &[PackedChunk]) -> ExtendedRange {
        let mut ranges = requested_ranges(&chunks[..1]);
        ExtendedRange {
            range: ranges.next().unwrap(),
            extension: chunks[1..].to_vec(),
        }
    }

    #[test]
    fn extensions_give_way_to_readers() {
        let chunks: Vec<_> = (0..6).map(|number| chunk(number, 1000)).collect();
        let digest = |number: usize| Digest::from(chunks[number].digest);
        for (readers, is_used, wanted) in [(1, false, 6), (2, false, 1), (2, true, 5)] {
            let queue = Queue::default();
            queue.enter(1, 2);
            let readers_of = [7, 8].map(|number| Digest::from(far(number).digest));
            let awaited: HashSet<Digest> = readers_of.into_iter().chain([digest(0)]).collect();
            let range = vec![extended(&chunks)];
            queue.submit_extended(needed(1, chunks[0]), range, &awaited);
            for number in 0..readers {
                let reader = needed(1, far(7 + number));
                queue.submit(reader, Priority::Awaited, &awaited);
            }
            if is_used {
                assert!(queue.request(5, &digest(4), Priority::Requested));
            }
            let job = queue.next(1).unwrap();
            assert_eq!(job.range.chunks, chunks[..wanted]);
            assert_eq!(job.range.bytes, 0..wanted as u64 * 1000);
            assert_eq!(queue.is_under_way(&digest(4)), wanted > 4);
            assert!(!queue.is_under_way(&digest(5)) || wanted == 6);
        }
    }

    #[test]
    fn extensions_end_at_chunks_under_way() {
        let queue = Queue::default();
        queue.enter(1, 2);
        let chunks: Vec<_> = (0..6).map(|number| chunk(number, 1000)).collect();
        let none = HashSet::new();
        queue.submit(needed(1, chunks[3]), Priority::Background, &none);
        let range = vec![extended(&chunks)];
        queue.submit_extended(needed(1, chunks[0]), range, &none);
        let job = queue.next(1).unwrap();
        assert_eq!((&job.range.chunks[..], job.extension), (&chunks[..3], 2));
        // A requested chunk that is under way comes with its range, which is promoted.
        let range = vec![extended(&chunks[3..])];
        queue.submit_extended(needed(1, chunks[3]), range, &none);
        let job = queue.next(1).unwrap();
        assert_eq!(job.range.chunks, chunks[3..4]);
        assert_eq!(job.priority, Priority::Requested);
        // The rest of a range keeps a chunk.
        let rest = vec![extended(&chunks[4..])];
        queue.submit_extended(needed(1, chunks[4]), rest, &none);
        let job = queue.next(1).unwrap();
        queue.resume(&job, &chunks[5..]);
        let job = queue.next(1).unwrap();
        assert_eq!((&job.range.chunks[..], job.extension), (&chunks[5..], 0));
    }

    #[test]
    fn only_the_background_waits_to_be_stored() {
        let queue = Queue::default();
        queue.enter(1, 3);
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        queue.arrive(&one, b"1", Priority::Background).unwrap();
        queue.arrive(&two, b"2", Priority::Recorded).unwrap();
        // Nothing else arrives.
        queue.end(Ok(()));
        assert_eq!(queue.arrived().unwrap(), [(two, b"2".to_vec())]);
    }

    #[test]
    fn each_image_has_its_ranges_and_its_end() {
        let queue = Queue::default();
        let none = HashSet::new();
        let digest = |number| Digest::from(far(number).digest);
        queue.enter(1, 2);
        queue.enter(2, 2);
        queue.submit(needed(1, far(1)), Priority::Background, &none);
        queue.submit(needed(2, far(2)), Priority::Awaited, &none);
        // A chunk that is under way for another image is not queued again.
        assert!(!queue.submit(needed(2, far(1)), Priority::Background, &none));
        let job = queue.next(1).unwrap();
        assert_eq!(Digest::from(job.range.chunks[0].digest), digest(1));
        assert!(queue.request(5, &digest(2), Priority::Awaited));
        queue.failed(1);
        assert_eq!((queue.failures(1), queue.failures(2)), (1, 0));
        queue.end_image(1, Ok(()));
        queue.end_image(1, Err(Error::Interrupted));
        assert!(queue.has_image_ended(1) && queue.next(1).is_none());
        queue.image_outcome(1).unwrap();
        assert!(queue.leave(1).is_empty());
        // The requests of an image that leaves need another source.
        let left = queue.leave(2);
        let [(chunk, Waiting { id: 5, .. })] = left[..] else {
            panic!("{left:?}");
        };
        assert_eq!(chunk, digest(2));
        assert_eq!(queue.counts().requests, 0);
        assert!(!queue.is_over());
    }
}
