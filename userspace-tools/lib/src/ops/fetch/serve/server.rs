// SPDX-License-Identifier: MIT OR Apache-2.0

//! The threads of a service: they plan, transfer and store.

use super::super::lazy::{ChunkPlace, LazyImage};
use super::super::pack_index::length;
use super::super::source::BlobSource;
use super::commit;
use super::inbox::Inbox;
use super::queue::{Job, Priority, Queue};
use crate::error::{Error, FetchError, Result};
use crate::model::digest::Digest;
use crate::mount::{ChunkAnswer, ChunkRequest, ChunkRequests};
use crate::store::chunks::index::Location;
use crate::store::chunks::reader::ChunkReader;
use crate::store::oci_layout::Store;
use crate::sys::parallel::lock;
use crate::sys::progress::Progress;
use puzzlefs_schema::v4::PackedChunk;
use rustix::io::Errno;
use std::collections::{BTreeSet, HashSet};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// The time for which a message is not repeated.
const SILENCE: Duration = Duration::from_secs(10);

/// The service of one image.
pub(super) struct Server<'s> {
    source: &'s dyn BlobSource,
    pub image: &'s LazyImage,
    pub store: &'s Store,
    pub queue: Queue,
    reader: ChunkReader<'s>,
    requests: &'s dyn ChunkRequests,
    inbox: &'s Inbox,
    progress: &'s Progress,
    warn: &'s (dyn Fn(&Error) + Sync),
    /// The last message, and its time.
    last_warning: Mutex<Option<(String, Instant)>>,
}

impl<'s> Server<'s> {
    pub fn new(
        source: &'s dyn BlobSource,
        image: &'s LazyImage,
        store: &'s Store,
        requests: &'s dyn ChunkRequests,
        inbox: &'s Inbox,
        progress: &'s Progress,
        warn: &'s (dyn Fn(&Error) + Sync),
    ) -> Result<Self> {
        Ok(Server {
            source,
            image,
            store,
            queue: Queue::default(),
            reader: ChunkReader::of_index(store)?,
            requests,
            inbox,
            progress,
            warn,
            last_warning: Mutex::default(),
        })
    }

    /// Waits for the end of the service, or a request to stop, and ends all threads.
    pub fn wait(&self) -> Result<()> {
        while !self.queue.has_ended() {
            if let Err(error) = self.progress.check() {
                self.queue.end(Err(error));
            }
        }
        self.inbox.close();
        self.queue.outcome()
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
        let mut needed = BTreeSet::new();
        let mut awaited = HashSet::new();
        for ChunkRequest {
            id,
            digest,
            is_awaited,
            ..
        } in requests
        {
            let Some(place) = self.image.place(digest) else {
                answers.push((*id, Some(Errno::NOENT)));
                continue;
            };
            match self.has(digest) {
                Ok(true) => {
                    answers.push((*id, None));
                    continue;
                }
                Ok(false) => {}
                Err(error) => {
                    answers.push((*id, Some(commit::errno(&error))));
                    self.warn(&error);
                    continue;
                }
            }
            let priority = if *is_awaited {
                awaited.insert(*digest);
                Priority::Awaited
            } else {
                Priority::Requested
            };
            if !self.queue.request(*id, digest, priority) {
                needed.insert(place);
            }
        }
        self.answer(answers)?;
        self.submit(needed, &awaited);
        Ok(())
    }

    /// Queues the ranges of chunks.
    fn submit(&self, needed: BTreeSet<ChunkPlace>, awaited: &HashSet<Digest>) {
        let mut chunks: Vec<PackedChunk> = Vec::new();
        let mut places = needed.into_iter().peekable();
        while let Some(place) = places.next() {
            let Some((pack, chunk)) = self.image.at(place) else {
                continue;
            };
            chunks.push(chunk);
            if places.peek().is_none_or(|next| next.pack != place.pack) {
                let chunks = std::mem::take(&mut chunks);
                self.queue
                    .submit(&pack, chunks, Priority::Requested, awaited);
            }
        }
    }

    /// Transfers ranges until the end.
    pub fn transfer_all(&self) {
        while let Some(job) = self.queue.next() {
            self.transfer(&job);
            self.queue.left(&job);
        }
    }

    fn transfer(&self, job: &Job) {
        let mut cutter = job.cutter();
        let mut arrived = 0;
        let read = self
            .source
            .read(&job.pack, job.range.bytes.clone(), &mut |piece| {
                self.progress.check()?;
                cutter.push(piece, |digest, stored| {
                    self.queue.arrive(digest, stored)?;
                    arrived += 1;
                    Ok(())
                })
            });
        let error = match read {
            Ok(true) if cutter.is_done() => return,
            Ok(true) => length(&job.pack, job.range.bytes.end, cutter.position()),
            Ok(false) => {
                let pack = job.pack.digest;
                FetchError::Unranged { pack }.into()
            }
            // The next fetcher takes the requests.
            Err(Error::Interrupted) => return,
            Err(error) => error,
        };
        let rest = job.range.chunks.get(arrived..).unwrap_or_default();
        // One wrong chunk does not keep its neighbours from arriving.
        let is_wrong = matches!(error, Error::Fetch(FetchError::Chunk { .. }));
        let (failed, rest) = rest.split_at(if is_wrong {
            rest.len().min(1)
        } else {
            rest.len()
        });
        self.fail(
            failed.iter().map(|chunk| chunk.digest.into()).collect(),
            &error,
        );
        self.queue.resume(job, rest);
    }

    /// Stores chunks that have arrived until the end.
    pub fn store_all(&self) {
        while let Some(chunks) = self.queue.arrived() {
            let stored = commit::commit(self.store, &chunks);
            self.queue.released(&chunks);
            let digests: Vec<Digest> = chunks.iter().map(|(digest, _)| *digest).collect();
            match stored {
                Ok(()) => {
                    let answers = self.queue.done(digests).into_iter().map(|id| (id, None));
                    if let Err(error) = self.answer(answers.collect()) {
                        self.queue.end(Err(error));
                    }
                }
                Err(error) => self.fail(digests, &error),
            }
        }
    }

    /// Answers the requests for chunks that cannot be had.
    fn fail(&self, chunks: Vec<Digest>, error: &Error) {
        self.queue.failed();
        self.warn(error);
        let errno = Some(commit::errno(error));
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
