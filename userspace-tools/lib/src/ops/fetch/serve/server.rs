// SPDX-License-Identifier: MIT OR Apache-2.0

//! The threads of a service: they plan, transfer and store.

use super::super::commit::commit;
use super::super::lazy::{ChunkPlace, LazyImage};
use super::super::pack_index::length;
use super::super::plan::{end_of, PackRange};
use super::super::source::BlobSource;
use super::inbox::Inbox;
use super::queue::{
    requested_ranges, ExtendedRange, ImageNumber, Job, Needed, Priority, Queue, Waiting,
};
use super::readahead::Readahead;
use crate::error::{is_full, Error, FetchError, Result};
use crate::model::digest::Digest;
use crate::mount::{ChunkAnswer, ChunkRequest, ChunkRequests};
use crate::store::chunks::index::Location;
use crate::store::chunks::reader::ChunkReader;
use crate::store::oci_layout::Store;
use crate::sys::parallel::lock;
use crate::sys::progress::Progress;
use puzzlefs_schema::v4::PackedChunk;
use rustix::io::Errno;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The time for which a message is not repeated.
const SILENCE: Duration = Duration::from_secs(10);
/// The most requests that wait for images that are being prepared.
const PARKED_MAX: usize = 1024;

/// The service of a store.
pub(super) struct Server<'s> {
    pub store: &'s Store,
    pub queue: Queue,
    /// Held while ranges are queued, so that none is queued for an image that has left. It is taken before
    /// the lock of the queue.
    images: Mutex<Images>,
    reader: ChunkReader<'s>,
    pub requests: Arc<dyn ChunkRequests>,
    pub inbox: Arc<Inbox>,
    warn: &'s (dyn Fn(&Error) + Sync),
    /// The last message, and its time.
    last_warning: Mutex<Option<(String, Instant)>>,
    /// The last failure, and its time.
    pub last_error: Mutex<Option<(String, Instant)>>,
    /// The bytes that sources have given.
    pub fetched: AtomicU64,
}

/// The images of a service.
#[derive(Default)]
struct Images {
    served: BTreeMap<ImageNumber, ServedImage>,
    last_number: ImageNumber,
    /// The number of images that are being prepared.
    expected: usize,
    /// The requests for chunks that none of the images has, while others are being prepared.
    parked: VecDeque<ChunkRequest>,
}

/// An image that is served.
struct ServedImage {
    image: Arc<LazyImage>,
    readahead: Readahead,
}

impl Images {
    /// Finds a chunk in an image, except those whose sources have failed.
    fn find(&self, digest: &Digest, tried: &[ImageNumber]) -> Option<(ImageNumber, ChunkPlace)> {
        let mut served = self.served.iter();
        served.find_map(|(number, served)| {
            let place = served.image.place(digest)?;
            (!tried.contains(number)).then_some((*number, place))
        })
    }

    /// Groups chunks by images and packs. Returns the chunks with the numbers of the packs.
    fn needed(&self, mut found: Vec<(ImageNumber, ChunkPlace)>) -> Vec<(u32, Needed)> {
        found.sort_unstable();
        found.dedup();
        let mut all: Vec<(u32, Needed)> = Vec::new();
        for (number, place) in found {
            let of = self.served.get(&number);
            let Some((pack, chunk)) = of.and_then(|served| served.image.at(place)) else {
                continue;
            };
            match all.last_mut() {
                Some((of, needed)) if (needed.image, *of) == (number, place.pack) => {
                    needed.chunks.push(chunk);
                }
                _ => {
                    let needed = Needed {
                        image: number,
                        tried: Vec::new(),
                        pack,
                        chunks: vec![chunk],
                    };
                    all.push((place.pack, needed));
                }
            }
        }
        all
    }

    /// Lets a request wait for the images that are being prepared. Returns a request that is answered now
    /// because no image has its chunk.
    fn park(&mut self, request: ChunkRequest) -> Option<ChunkRequest> {
        if self.expected == 0 {
            return Some(request);
        }
        self.parked.push_back(request);
        // The oldest one has waited longest, and its reader may be gone.
        if self.parked.len() > PARKED_MAX {
            return self.parked.pop_front();
        }
        None
    }
}

impl<'s> Server<'s> {
    pub fn new(
        store: &'s Store,
        requests: Arc<dyn ChunkRequests>,
        warn: &'s (dyn Fn(&Error) + Sync),
    ) -> Result<Self> {
        Ok(Server {
            store,
            queue: Queue::default(),
            images: Mutex::default(),
            reader: ChunkReader::of_index(store)?,
            requests,
            inbox: Arc::default(),
            warn,
            last_warning: Mutex::default(),
            last_error: Mutex::default(),
            fetched: AtomicU64::new(0),
        })
    }

    /// Notes that an image is being prepared. Requests for unknown chunks wait for it.
    pub fn expect(&self) {
        lock(&self.images).expected += 1;
    }

    /// Notes that an image is no longer being prepared.
    pub fn expect_no_more(&self) {
        let mut images = lock(&self.images);
        images.expected = images.expected.saturating_sub(1);
        self.give_parked(&mut images);
    }

    /// Adds an image. Returns its number.
    pub fn enter(&self, image: Arc<LazyImage>, jobs: usize) -> ImageNumber {
        let mut images = lock(&self.images);
        images.last_number += 1;
        let number = images.last_number;
        let served = ServedImage {
            image,
            readahead: Readahead::default(),
        };
        images.served.insert(number, served);
        self.queue.enter(number, jobs);
        self.give_parked(&mut images);
        number
    }

    /// Removes an image whose threads have ended. Other images may have the chunks of its ranges.
    pub fn leave(&self, number: ImageNumber) {
        let left = {
            let mut images = lock(&self.images);
            images.served.remove(&number);
            self.queue.leave(number)
        };
        // After the end of the service, the next fetcher takes the requests.
        if self.queue.is_over() {
            return;
        }
        let request = |(digest, waiting): (Digest, Waiting)| ChunkRequest {
            id: waiting.id,
            digest,
            stored_len: 0,
            is_awaited: waiting.priority == Priority::Awaited,
        };
        self.inbox
            .give_again(left.into_iter().map(request).collect());
    }

    /// The number of images that are served.
    pub fn images(&self) -> usize {
        lock(&self.images).served.len()
    }

    /// The number of requests that wait for images that are being prepared.
    #[cfg(test)]
    pub fn parked(&self) -> usize {
        lock(&self.images).parked.len()
    }

    fn give_parked(&self, images: &mut Images) {
        let parked = std::mem::take(&mut images.parked);
        self.inbox.give_again(parked.into());
    }

    /// Waits for the end of the work for an image, or a request to stop.
    pub fn wait(&self, number: ImageNumber, progress: &Progress) -> Result<()> {
        while !self.queue.has_image_ended(number) {
            if let Err(error) = progress.check() {
                self.queue.end_image(number, Err(error));
            }
        }
        self.queue.image_outcome(number)
    }

    /// Returns true if the store has a chunk.
    pub fn has(&self, digest: &Digest) -> Result<bool> {
        match self.reader.find(digest)? {
            Some(Location::Pack { pack, .. }) => Ok(self.store.blob_size(&pack)?.is_some()),
            Some(Location::Loose { .. }) => Ok(true),
            None => Ok(false),
        }
    }

    /// Plans requests until the end.
    pub fn plan_all(&self) {
        loop {
            let planned = match self.inbox.next() {
                Ok(Some(requests)) => self.plan(&requests),
                Ok(None) => Err(Error::Interrupted),
                Err(error) => Err(error),
            };
            if let Err(error) = planned {
                self.queue.end(Err(error));
            }
            if self.queue.is_over() {
                return;
            }
        }
    }

    /// Answers requests at once, or queues the ranges that they need.
    fn plan(&self, requests: &[ChunkRequest]) -> Result<()> {
        let mut answers = Vec::new();
        let mut missing = Vec::new();
        for request in requests {
            match self.has(&request.digest) {
                Ok(true) => answers.push((request.id, None)),
                Ok(false) => missing.push(*request),
                Err(error) => {
                    answers.push((request.id, Some(errno(&error))));
                    self.warn(&error);
                }
            }
        }
        let mut images = lock(&self.images);
        let mut found = Vec::new();
        let mut awaited = HashSet::new();
        for request in missing {
            let Some(place) = images.find(&request.digest, &[]) else {
                let refused = images.park(request);
                answers.extend(refused.map(|request| (request.id, Some(Errno::NOENT))));
                continue;
            };
            let priority = if request.is_awaited {
                awaited.insert(request.digest);
                Priority::Awaited
            } else {
                Priority::Requested
            };
            if !self.queue.request(request.id, &request.digest, priority) {
                found.push(place);
            }
        }
        self.submit_requested(&mut images, found, &awaited);
        drop(images);
        self.answer(answers)
    }

    /// Queues the ranges of requested chunks, with their extensions.
    fn submit_requested(
        &self,
        images: &mut Images,
        found: Vec<(ImageNumber, ChunkPlace)>,
        awaited: &HashSet<Digest>,
    ) {
        let needed = images.needed(found);
        let chunks = needed.iter().flat_map(|(_, needed)| &needed.chunks);
        let requested: HashSet<Digest> = chunks.map(|chunk| Digest::from(chunk.digest)).collect();
        for (pack, needed) in needed {
            let Some(served) = images.served.get_mut(&needed.image) else {
                continue;
            };
            let ServedImage { image, readahead } = served;
            let mut extended = Vec::new();
            for range in requested_ranges(&needed.chunks) {
                let following = |most| self.following(image, &range, most, &requested);
                let extension = readahead.extend(pack, &range, following);
                extended.push(ExtendedRange { range, extension });
            }
            self.queue.submit_extended(needed, extended, awaited);
        }
    }

    /// Returns the missing chunks directly behind a range of a pack, of at most so many bytes with the gaps
    /// before them.
    fn following(
        &self,
        image: &LazyImage,
        range: &PackRange,
        most: u64,
        requested: &HashSet<Digest>,
    ) -> Vec<PackedChunk> {
        let last = range.chunks.last().map(|chunk| Digest::from(chunk.digest));
        let mut place = last.and_then(|last| image.place(&last));
        let limit = range.bytes.end.saturating_add(most);
        let mut chunks = Vec::new();
        while let Some(last) = place {
            place = last.next();
            let Some((_, chunk)) = place.and_then(|place| image.at(place)) else {
                break;
            };
            let digest = Digest::from(chunk.digest);
            // An error of the store looks like a chunk that is there: nobody waits for an extension.
            let is_missing = end_of(&chunk) <= limit
                && !requested.contains(&digest)
                && !self.queue.is_under_way(&digest)
                && self.has(&digest).is_ok_and(|has| !has);
            if !is_missing {
                break;
            }
            chunks.push(chunk);
        }
        chunks
    }

    /// Queues the ranges of chunks of an image for which no request waits.
    pub fn submit_unrequested(
        &self,
        number: ImageNumber,
        places: Vec<ChunkPlace>,
        priority: Priority,
    ) {
        let images = lock(&self.images);
        let found = places.into_iter().map(|place| (number, place)).collect();
        self.submit(&images, found, &[], priority, &HashSet::new());
    }

    /// Queues the ranges of chunks.
    fn submit(
        &self,
        images: &Images,
        found: Vec<(ImageNumber, ChunkPlace)>,
        tried: &[ImageNumber],
        priority: Priority,
        awaited: &HashSet<Digest>,
    ) {
        for (_, needed) in images.needed(found) {
            let needed = Needed {
                tried: tried.to_vec(),
                ..needed
            };
            self.queue.submit(needed, priority, awaited);
        }
    }

    /// Transfers ranges of an image from its source until the end.
    pub fn transfer_all(&self, number: ImageNumber, source: &dyn BlobSource, progress: &Progress) {
        while let Some(job) = self.queue.next(number) {
            if !self.shorten(&job) {
                self.transfer(&job, source, progress);
            }
            self.queue.left(&job);
        }
    }

    /// Queues a range that nobody has requested anew without the chunks that the store has. Returns false if
    /// it has none.
    ///
    /// Another image can have brought them after the plan was made, and before the range was queued. Nobody
    /// else brings chunks under way.
    fn shorten(&self, job: &Job) -> bool {
        if !job.priority.is_unrequested() {
            return false;
        }
        let is_there = |chunk: &PackedChunk| self.has(&chunk.digest.into()).is_ok_and(|has| has);
        let chunks = job.range.chunks.iter().copied();
        let (there, missing): (Vec<_>, Vec<_>) = chunks.partition(is_there);
        if there.is_empty() {
            return false;
        }
        let digest = |chunk: &PackedChunk| Digest::from(chunk.digest);
        let answers = self.queue.done(there.iter().map(digest)).into_iter();
        if let Err(error) = self.answer(answers.map(|id| (id, None)).collect()) {
            self.queue.end(Err(error));
        }
        let digests: Vec<Digest> = missing.iter().map(digest).collect();
        let awaited = digests.iter().copied();
        let awaited = awaited.filter(|digest| self.queue.is_requested(digest));
        let awaited = awaited.collect();
        self.queue.withdrawn(&digests);
        let rest = Needed {
            image: job.image,
            tried: job.tried.clone(),
            pack: job.pack,
            chunks: missing,
        };
        self.queue.submit(rest, job.priority, &awaited);
        true
    }

    fn transfer(&self, job: &Job, source: &dyn BlobSource, progress: &Progress) {
        let mut cutter = job.cutter();
        let mut arrived = 0;
        let read = source.read(&job.pack, job.range.bytes.clone(), &mut |piece| {
            progress.check()?;
            self.fetched.fetch_add(piece.len() as u64, Relaxed);
            cutter.push(piece, |digest, stored| {
                self.queue.arrive(digest, stored, job.priority)?;
                arrived += 1;
                Ok(())
            })
        });
        let rest = |arrived: usize| job.range.chunks.get(arrived..).unwrap_or_default();
        let error = match read {
            Ok(true) if cutter.is_done() => return,
            Ok(true) => length(&job.pack, job.range.bytes.end, cutter.position()),
            Ok(false) => {
                let pack = job.pack.digest;
                FetchError::Unranged { pack }.into()
            }
            // Another image, or the next fetcher, takes the requests.
            Err(Error::Interrupted) => return self.queue.resume(job, rest(arrived)),
            Err(error) => error,
        };
        let rest = rest(arrived);
        // One wrong chunk does not keep its neighbours from arriving.
        let is_wrong = matches!(error, Error::Fetch(FetchError::Chunk { .. }));
        let (failed, rest) = rest.split_at(if is_wrong {
            rest.len().min(1)
        } else {
            rest.len()
        });
        self.queue.failed(job.image);
        self.warn(&error);
        self.try_others(job, failed, &error);
        self.queue.resume(job, rest);
    }

    /// Queues requested chunks for other images that have them, after the source of one has failed. Answers
    /// the requests for the others.
    fn try_others(&self, job: &Job, failed: &[PackedChunk], error: &Error) {
        let mut tried = job.tried.clone();
        tried.push(job.image);
        let (mut lost, mut withdrawn, mut found) = (Vec::new(), Vec::new(), Vec::new());
        let images = lock(&self.images);
        for chunk in failed {
            let digest = Digest::from(chunk.digest);
            let is_requested = self.queue.is_requested(&digest);
            match images.find(&digest, &tried).filter(|_| is_requested) {
                Some(place) => {
                    withdrawn.push(digest);
                    found.push(place);
                }
                None => lost.push(digest),
            }
        }
        self.queue.withdrawn(&withdrawn);
        // Their readers have waited already.
        let awaited = withdrawn.into_iter().collect();
        self.submit(&images, found, &tried, Priority::Requested, &awaited);
        drop(images);
        self.answer_failed(lost, error);
    }

    /// Stores chunks that have arrived until the end.
    pub fn store_all(&self) {
        while let Some(chunks) = self.queue.arrived() {
            let stored = commit(self.store, &chunks);
            self.queue.released(&chunks);
            let digests: Vec<Digest> = chunks.iter().map(|(digest, _)| *digest).collect();
            match stored {
                Ok(()) => {
                    let answers = self.queue.done(digests).into_iter().map(|id| (id, None));
                    if let Err(error) = self.answer(answers.collect()) {
                        self.queue.end(Err(error));
                    }
                }
                Err(error) => {
                    self.queue.all_failed();
                    self.warn(&error);
                    self.answer_failed(digests, &error);
                }
            }
        }
    }

    /// Answers the requests for chunks that cannot be had.
    fn answer_failed(&self, chunks: Vec<Digest>, error: &Error) {
        let errno = Some(errno(error));
        let answers = self.queue.done(chunks).into_iter().map(|id| (id, errno));
        if let Err(error) = self.answer(answers.collect()) {
            self.queue.end(Err(error));
        }
    }

    fn answer(&self, answers: Vec<(u64, Option<Errno>)>) -> Result<()> {
        if answers.is_empty() {
            return Ok(());
        }
        let answer = |(id, errno)| ChunkAnswer { id, errno };
        let answers: Vec<ChunkAnswer> = answers.into_iter().map(answer).collect();
        self.inbox.answered(answers.len());
        self.requests.answer(&answers)
    }

    /// Passes a failure on, unless the same one was passed on shortly before.
    pub fn warn(&self, error: &Error) {
        let text = error.to_string();
        *lock(&self.last_error) = Some((text.clone(), Instant::now()));
        let mut last = lock(&self.last_warning);
        if let Some((former, time)) = &*last {
            if *former == text && time.elapsed() < SILENCE {
                return;
            }
        }
        *last = Some((text, Instant::now()));
        drop(last);
        (self.warn)(error);
    }
}

/// Returns the error number of a failure, for the answer to a request.
pub(super) fn errno(error: &Error) -> Errno {
    match error.system_cause() {
        Some(cause) if is_full(cause) => Errno::NOSPC,
        _ => Errno::IO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::ErrorKind;

    #[test]
    fn a_full_disk_has_a_number_of_its_own() {
        let of = |kind: ErrorKind| errno(&Error::io("/s", "write")(std::io::Error::from(kind)));
        assert_eq!(of(ErrorKind::StorageFull), Errno::NOSPC);
        assert_eq!(of(ErrorKind::QuotaExceeded), Errno::NOSPC);
        assert_eq!(of(ErrorKind::NotFound), Errno::IO);
        assert_eq!(errno(&Error::Remote("broken".into())), Errno::IO);
    }
}
