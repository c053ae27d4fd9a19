// SPDX-License-Identifier: MIT OR Apache-2.0

//! Ranges and chunks under way, and the requests that wait for them.
//!
//! A chunk is under way from the time at which its range is queued until it is in the store, or has failed.
//! It is under way once, regardless of the number of requests for it.

use super::super::cutter::ChunkCutter;
use super::super::plan::{ranges, PackRange};
use super::super::source::RemoteBlob;
use crate::error::{Error, Result};
use crate::model::digest::Digest;
use crate::sys::parallel::lock;
use puzzlefs_schema::v4::PackedChunk;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The length of a range in bytes after which another one begins, so that several transfers share the work.
const RANGE_BYTES: u64 = 1 << 20;
/// Background chunks of this many bytes are stored together.
const BACKGROUND_BYTES: usize = 16 << 20;
/// Transfers wait if chunks of this many bytes have arrived and are not stored.
const ARRIVED_MAX: usize = 48 << 20;
/// The background waits for this time after the last request.
const QUIET: Duration = Duration::from_millis(100);
/// The longest wait of a thread before it looks for the end.
const PATIENCE: Duration = Duration::from_millis(100);

/// A chunk that has arrived, with its stored bytes, which were compared with the digest.
pub(super) type ArrivedChunk = (Digest, Vec<u8>);

/// The order of ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Priority {
    /// A reader waits.
    Awaited,
    /// The kernel reads ahead.
    Requested,
    /// Nobody has requested the range.
    Background,
}

/// A range that is transferred by one thread.
#[derive(Debug)]
pub(super) struct Job {
    pub priority: Priority,
    pub pack: RemoteBlob,
    pub range: PackRange,
}

impl Job {
    /// Returns a cutter for the bytes of the range.
    pub fn cutter(&self) -> ChunkCutter<'_> {
        let PackRange { chunks, bytes } = &self.range;
        ChunkCutter::new(self.pack.digest, bytes.start, chunks)
    }
}

/// The number of ranges in transfer, of those with requests and of those without.
#[derive(Default)]
struct Running {
    requested: usize,
    background: usize,
}

#[derive(Default)]
struct State {
    queued: BTreeMap<(Priority, u64), Job>,
    next_number: u64,
    running: Running,
    /// The chunks under way, and the numbers of their ranges.
    under_way: HashMap<Digest, u64>,
    /// The requests for chunks under way.
    waiting: HashMap<Digest, Vec<u64>>,
    /// Chunks that have arrived and are not stored: those with requests, and those without.
    arrived: Vec<ArrivedChunk>,
    arrived_background: Vec<ArrivedChunk>,
    arrived_bytes: usize,
    background_bytes: usize,
    /// Store background chunks without waiting for more.
    flush: bool,
    last_request: Option<Instant>,
    /// The number of ranges and commits that have failed.
    failures: u64,
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
            self.under_way.insert(chunk.digest.into(), number);
        }
        self.queued.insert((job.priority, number), job);
    }

    /// Gives a queued range a higher priority.
    fn promote(&mut self, number: u64, priority: Priority) {
        use Priority::{Awaited, Background, Requested};
        for former in [Awaited, Requested, Background] {
            if former > priority {
                if let Some(mut job) = self.queued.remove(&(former, number)) {
                    job.priority = priority;
                    self.queued.insert((priority, number), job);
                }
            }
        }
    }

    fn has_requests(&self) -> bool {
        let first = self.queued.keys().next();
        let is_queued = first.is_some_and(|(priority, _)| *priority != Priority::Background);
        is_queued || self.running.requested > 0
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

    /// Lets a request wait for a chunk. Returns true if the chunk is under way already.
    pub fn request(&self, id: u64, digest: &Digest, priority: Priority) -> bool {
        let mut state = lock(&self.state);
        state.last_request = Some(Instant::now());
        state.waiting.entry(*digest).or_default().push(id);
        let Some(number) = state.under_way.get(digest).copied() else {
            return false;
        };
        state.promote(number, priority);
        let mut arrived = state.arrived_background.iter();
        if arrived.any(|(chunk, _)| chunk == digest) {
            state.flush = true;
        }
        self.changed.notify_all();
        true
    }

    /// Queues the ranges of chunks of a pack, which are in order of position. Leaves out chunks under way. A
    /// range with an awaited chunk comes before others.
    pub fn submit(
        &self,
        pack: &RemoteBlob,
        mut chunks: Vec<PackedChunk>,
        priority: Priority,
        awaited: &HashSet<Digest>,
    ) {
        let mut state = lock(&self.state);
        chunks.retain(|chunk| {
            let number = state.under_way.get(&chunk.digest.into()).copied();
            if let Some(number) = number {
                state.promote(number, priority);
            }
            number.is_none()
        });
        for range in ranges(&chunks).into_iter().flat_map(split) {
            let mut digests = range.chunks.iter().map(|chunk| Digest::from(chunk.digest));
            let priority = if digests.any(|digest| awaited.contains(&digest)) {
                Priority::Awaited
            } else {
                priority
            };
            let pack = *pack;
            state.enqueue(Job {
                priority,
                pack,
                range,
            });
        }
        self.changed.notify_all();
    }

    /// Queues the rest of a range anew.
    pub fn resume(&self, job: &Job, rest: &[PackedChunk]) {
        let (Some(first), Some(last)) = (rest.first(), rest.last()) else {
            return;
        };
        let bytes = first.offset..last.offset + u64::from(last.stored_len);
        let mut state = lock(&self.state);
        state.enqueue(Job {
            priority: job.priority,
            pack: job.pack,
            range: PackRange {
                chunks: rest.to_vec(),
                bytes,
            },
        });
        self.changed.notify_all();
    }

    /// Waits for the next range. Returns `None` at the end.
    pub fn next(&self) -> Option<Job> {
        let mut state = lock(&self.state);
        loop {
            if state.has_ended {
                return None;
            }
            if let Some((_, job)) = state.queued.pop_first() {
                match job.priority {
                    Priority::Background => state.running.background += 1,
                    _ => state.running.requested += 1,
                }
                return Some(job);
            }
            state = self.wait(state);
        }
    }

    /// Notes that a range is no longer in transfer.
    pub fn left(&self, job: &Job) {
        let mut state = lock(&self.state);
        let running = match job.priority {
            Priority::Background => &mut state.running.background,
            _ => &mut state.running.requested,
        };
        *running = running.saturating_sub(1);
        self.changed.notify_all();
    }

    /// Notes that a chunk has arrived. Waits if too much has arrived that is not stored.
    pub fn arrive(&self, digest: &Digest, stored: &[u8]) -> Result<()> {
        let mut state = lock(&self.state);
        while state.arrived_bytes >= ARRIVED_MAX && !state.has_ended {
            state = self.wait(state);
        }
        if state.has_ended {
            return Err(Error::Interrupted);
        }
        state.arrived_bytes += stored.len();
        let chunk = (*digest, stored.to_vec());
        if state.waiting.contains_key(digest) {
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
            let mut taken = std::mem::take(&mut state.arrived);
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
            ids.extend(state.waiting.remove(&digest).unwrap_or_default());
        }
        self.changed.notify_all();
        ids
    }

    /// Counts a failure.
    pub fn failed(&self) {
        lock(&self.state).failures += 1;
    }

    /// The number of failures so far.
    pub fn failures(&self) -> u64 {
        lock(&self.state).failures
    }

    /// Waits until the background may queue another range: if fewer than `limit` are under way, and with
    /// `when_idle` only if there are no requests.
    pub fn wait_for_background(&self, limit: usize, when_idle: bool) -> Result<()> {
        self.wait_while(|state| {
            let queued = state.queued.keys();
            let queued = queued.filter(|(priority, _)| *priority == Priority::Background);
            let is_recent = |last: Instant| last.elapsed() < QUIET;
            queued.count() + state.running.background >= limit
                || when_idle && (state.has_requests() || state.last_request.is_some_and(is_recent))
        })
    }

    /// Waits until nothing is under way. Chunks that have arrived are stored at once.
    pub fn drain(&self) -> Result<()> {
        self.wait_while(|state| {
            let is_running =
                !state.queued.is_empty() || state.running.background + state.running.requested > 0;
            state.flush |= !is_running && !state.arrived_background.is_empty();
            if state.flush {
                self.changed.notify_all();
            }
            !state.under_way.is_empty()
        })
    }

    /// Waits for a time.
    pub fn pause(&self, time: Duration) -> Result<()> {
        let start = Instant::now();
        self.wait_while(|_| start.elapsed() < time)
    }

    /// Waits while a condition is true. Fails at the end.
    fn wait_while(&self, mut is_true: impl FnMut(&mut State) -> bool) -> Result<()> {
        let mut state = lock(&self.state);
        loop {
            if state.has_ended {
                return Err(Error::Interrupted);
            }
            if !is_true(&mut state) {
                return Ok(());
            }
            state = self.wait(state);
        }
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

    /// Waits for the end, for a short time. Returns true at the end.
    pub fn has_ended(&self) -> bool {
        let state = lock(&self.state);
        state.has_ended || self.wait(state).has_ended
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
}

/// Splits a long range between chunks.
fn split(range: PackRange) -> Vec<PackRange> {
    let mut pieces: Vec<PackRange> = Vec::new();
    for chunk in range.chunks {
        let end = chunk.offset + u64::from(chunk.stored_len);
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
        let [range] = &ranges(&chunks)[..] else {
            panic!("not one range");
        };
        let pieces = split(range.clone());
        assert_eq!(pieces.len(), 5);
        assert_eq!(pieces[1].bytes, 1_200_000..2_400_000);
        let joined: Vec<_> = pieces.into_iter().flat_map(|piece| piece.chunks).collect();
        assert_eq!(joined, chunks);
    }

    #[test]
    fn awaited_ranges_come_first_and_promoted_ones_too() {
        let queue = Queue::default();
        let awaited = |number: u64| HashSet::from([chunk(number, 1).digest.into()]);
        let far = |number: u64| chunk(number * 1_000_000, 1);
        let digest = |number| Digest::from(far(number).digest);
        for number in 0..4 {
            let is_awaited = awaited(number * 1_000_000);
            let (priority, awaited) = match number {
                0 | 1 => (Priority::Background, HashSet::new()),
                2 => (Priority::Requested, HashSet::new()),
                _ => (Priority::Requested, is_awaited),
            };
            queue.submit(&pack(), vec![far(number)], priority, &awaited);
        }
        // Under way already: it is queued once, and before others.
        queue.submit(&pack(), vec![far(1)], Priority::Requested, &HashSet::new());
        assert!(queue.request(9, &digest(1), Priority::Awaited));
        assert!(!queue.request(8, &digest(7), Priority::Awaited));
        let next: Vec<Digest> = (0..4)
            .map(|_| queue.next().unwrap().range.chunks[0].digest.into())
            .collect();
        assert_eq!(next, [digest(1), digest(3), digest(2), digest(0)]);
        assert_eq!(queue.done([digest(1), digest(7)]), [9, 8]);
        queue.end(Ok(()));
        assert!(queue.next().is_none());
    }
}
