// SPDX-License-Identifier: MIT OR Apache-2.0

//! Images that containers use before their data has arrived.
//!
//! One thread serves the requests of the kernel for chunks that the snapshotter's store lacks, and another
//! one for each image transfers its chunks from a registry. The snapshotter's state has the images that are
//! not complete and the repositories that have them, so a restart continues them. The open requests of a
//! killed snapshotter remain with the kernel until then.
//!
//! # Places
//!
//! An image can have several places: mirrors, and then the registry. The image is prepared at the first
//! place that has it. Each attempt reads containerd's settings again.
//!
//! | failure | result |
//! | --- | --- |
//! | of a place that another one follows | the next place gives the chunks, and readers wait meanwhile |
//! | of the last place | the readers of the chunk get an error |
//! | of the last place, [`FAILURES_MAX`] times without a success | all places are tried again after a pause, and readers wait meanwhile |

use crate::metrics::Metrics;
use crate::state::{Sources, TAG};
use anyhow::{anyhow, bail, ensure, Result};
use puzzlefs_lib::error::FetchError;
use puzzlefs_lib::fetch::{
    fetch_metadata, BlobSource, Claim, Completion, Expected, RemoteBlob, Served, Service,
};
use puzzlefs_lib::mount::ChunkRequests;
use puzzlefs_lib::threads::lock;
use puzzlefs_lib::{Digest, Error, Progress, Store};
use puzzlefs_registry::{fetch, FetchingOptions, RegistryOptions, RemoteName};
use std::collections::HashMap;
use std::num::NonZeroU64;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::mpsc::{channel, Receiver, RecvTimeoutError, SendError, Sender};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// The most images that are fetched at once. Others are pulled.
const IMAGES_MAX: usize = 64;
/// The longest preparation of an image.
const PREPARATION: Duration = Duration::from_secs(120);
/// The number of failures of the last place after which all places are tried again.
const FAILURES_MAX: u32 = 3;
/// The pause before all places are tried again. Each further pause is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause. Readers wait for longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The longest wait for the threads of an image that is removed.
const STOP: Duration = Duration::from_secs(10);
/// The interval at which a waiting thread looks for the end of the service.
const PATIENCE: Duration = Duration::from_millis(500);

/// The user's choices.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Prepare images of registries instead of pulling them. Images that were prepared earlier are fetched
    /// in any case.
    pub is_lazy: bool,
    /// The time at which chunks are fetched that no container reads.
    pub completion: Completion,
    /// The rate of these chunks, in bytes per second.
    pub limit_rate: Option<NonZeroU64>,
}

/// A place that may have an image.
pub struct Place {
    /// The name of the image at this place.
    pub name: RemoteName,
    /// The connection.
    pub connection: RegistryOptions,
}

/// The surroundings of a fetcher.
pub trait Surroundings: Send + Sync + 'static {
    /// Attaches to a store, whose requests are then taken.
    fn attach(&self, store: &Store) -> Result<Arc<dyn ChunkRequests>>;
    /// Finds the places of an image. There is at least one.
    fn places(&self, manifest: &Digest, sources: &Sources) -> Result<Vec<Place>>;
    /// Returns the images that snapshots need and that are not complete.
    fn incomplete(&self) -> Vec<(Digest, Sources)>;
    /// Notes that the store has all chunks of an image.
    fn complete(&self, manifest: &Digest);
}

/// The state of an image that is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Chunks are missing.
    Fetching,
    /// The store has all chunks.
    Complete,
}

/// Fetches the chunks of images of a store.
pub struct Fetcher {
    shared: Arc<Shared>,
    /// Gives images to the thread that serves the store, if there is one.
    jobs: Mutex<Option<Sender<Vec<Job>>>>,
}

/// The parts of a fetcher that its threads use.
struct Shared {
    store: PathBuf,
    settings: Settings,
    surroundings: Box<dyn Surroundings>,
    metrics: Arc<Metrics>,
    images: Mutex<HashMap<Digest, Image>>,
    /// An image is complete, or has left.
    changed: Condvar,
}

/// An image that is fetched or complete.
struct Image {
    stage: Stage,
    control: Arc<Control>,
}

/// An image for the thread that serves the store.
struct Job {
    manifest: Digest,
    tag: String,
    sources: Sources,
    control: Arc<Control>,
    entry: Entry,
    /// Gets the result of the preparation, once.
    prepared: Mutex<Option<Sender<Result<Stage>>>>,
}

/// An entry of [`Shared::images`]. Dropping it removes the entry, unless the image is complete.
struct Entry {
    shared: Arc<Shared>,
    manifest: Digest,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut images = lock(&self.shared.images);
        let stage = images.get(&self.manifest).map(|image| image.stage);
        if stage == Some(Stage::Fetching) {
            images.remove(&self.manifest);
        }
        self.shared.count(&images);
        self.shared.changed.notify_all();
    }
}

/// Stops the work for an image.
#[derive(Default)]
struct Control {
    state: Mutex<ControlState>,
    stopped: Condvar,
}

#[derive(Default)]
struct ControlState {
    is_stopped: bool,
    /// Ends the attempt at a place.
    attempt: Arc<AtomicBool>,
}

impl Control {
    /// Begins an attempt, which ends soon after the flag is set. Returns `None` after the stop.
    fn begin(&self) -> Option<Arc<AtomicBool>> {
        let mut state = lock(&self.state);
        if state.is_stopped {
            return None;
        }
        state.attempt = Arc::default();
        Some(state.attempt.clone())
    }

    fn stop(&self) {
        let mut state = lock(&self.state);
        state.is_stopped = true;
        state.attempt.store(true, Relaxed);
        self.stopped.notify_all();
    }

    fn is_stopped(&self) -> bool {
        lock(&self.state).is_stopped
    }

    /// Waits for a time, or until the stop.
    fn pause(&self, time: Duration) {
        let state = lock(&self.state);
        let goes_on = |state: &mut ControlState| !state.is_stopped;
        let waited = self.stopped.wait_timeout_while(state, time, goes_on);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

impl Fetcher {
    /// Makes the fetcher of a store, which the first image creates.
    pub fn new(
        store: PathBuf,
        settings: Settings,
        surroundings: Box<dyn Surroundings>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let shared = Shared {
            store,
            settings,
            surroundings,
            metrics,
            images: Mutex::default(),
            changed: Condvar::new(),
        };
        Fetcher {
            shared: Arc::new(shared),
            jobs: Mutex::default(),
        }
    }

    /// Returns true if images of registries are prepared instead of pulled.
    pub fn is_lazy(&self) -> bool {
        self.shared.settings.is_lazy
    }

    /// Continues the images that are not complete, in the background. If the device or the store cannot be
    /// used, it tries again until it can.
    pub fn go_on(self: &Arc<Self>) {
        let fetcher = Arc::clone(self);
        thread::spawn(move || {
            let mut pause = FIRST_PAUSE;
            loop {
                let images = fetcher.shared.surroundings.incomplete().into_iter();
                let enter = |(manifest, sources)| fetcher.shared.enter(&manifest, sources, None);
                let jobs: Vec<Job> = images.filter_map(enter).collect();
                if jobs.is_empty() {
                    return;
                }
                match fetcher.send(jobs) {
                    Ok(()) => return,
                    Err(error) => crate::say(format_args!(
                        "cannot fetch the rest of images: {error:#}; trying again"
                    )),
                }
                thread::sleep(pause);
                pause = LONGEST_PAUSE.min(pause * 2);
            }
        });
    }

    /// Prepares an image, sets its tag, and fetches its chunks from then on.
    ///
    /// # Errors
    ///
    /// If no place has the image in a form that can be fetched chunk by chunk, or another process serves the
    /// store, or the device does not exist.
    pub fn prepare(&self, manifest: &Digest, sources: &Sources) -> Result<Stage> {
        let (sender, prepared) = channel();
        {
            let images = lock(&self.shared.images);
            let is_fetched = |image: &&Image| image.stage == Stage::Fetching;
            if images.get(manifest).filter(is_fetched).is_some() {
                return Ok(Stage::Fetching);
            }
            let count = images.values().filter(is_fetched).count();
            ensure!(
                count < IMAGES_MAX,
                "{count} images are not complete already"
            );
        }
        let entered = self.shared.enter(manifest, sources.clone(), Some(sender));
        let Some(job) = entered else {
            return Ok(Stage::Fetching);
        };
        let control = Arc::clone(&job.control);
        self.send(vec![job])?;
        match prepared.recv_timeout(PREPARATION) {
            Ok(prepared) => prepared,
            Err(RecvTimeoutError::Disconnected) => bail!("the fetcher has ended"),
            Err(RecvTimeoutError::Timeout) => {
                control.stop();
                bail!("it takes longer than {} s", PREPARATION.as_secs())
            }
        }
    }

    /// Returns the stage of an image that this fetcher has prepared or continued.
    pub fn stage(&self, manifest: &Digest) -> Option<Stage> {
        lock(&self.shared.images)
            .get(manifest)
            .map(|image| image.stage)
    }

    /// Ends the work for an image. Returns false if its threads do not end in time.
    pub fn stop(&self, manifest: &Digest) -> bool {
        let mut images = lock(&self.shared.images);
        if let Some(image) = images.get(manifest) {
            image.control.stop();
        }
        let is_fetched = |images: &mut HashMap<Digest, Image>| {
            let image = images.get(manifest);
            image.is_some_and(|image| image.stage == Stage::Fetching)
        };
        let changed = &self.shared.changed;
        let waited = changed.wait_timeout_while(images, STOP, is_fetched);
        let (left, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        images = left;
        if timeout.timed_out() {
            return false;
        }
        images.remove(manifest);
        true
    }

    /// Gives images to the thread that serves the store, and starts the thread if there is none.
    fn send(&self, mut jobs: Vec<Job>) -> Result<()> {
        let mut sender = lock(&self.jobs);
        if let Some(open) = &*sender {
            match open.send(jobs) {
                Ok(()) => return Ok(()),
                Err(SendError(unsent)) => jobs = unsent,
            }
        }
        let shared = Arc::clone(&self.shared);
        let store = Store::create(&shared.store)?;
        let claim = Claim::take(&store)?;
        let shown = shared.store.display();
        let claim = claim.ok_or_else(|| anyhow!("another process fetches chunks for {shown}"))?;
        let requests = shared.surroundings.attach(&store)?;
        let (new, receiver) = channel();
        // The receiver exists.
        let _ = new.send(jobs);
        *sender = Some(new);
        thread::spawn(move || {
            let _claim = claim;
            if let Err(error) = serve(&shared, &store, requests, &receiver) {
                crate::say(format_args!(
                    "the fetcher of {} has ended: {error:#}",
                    shared.store.display()
                ));
            }
        });
        Ok(())
    }
}

impl Shared {
    /// Adds an image. Returns `None` if it is there already.
    fn enter(
        self: &Arc<Self>,
        manifest: &Digest,
        sources: Sources,
        prepared: Option<Sender<Result<Stage>>>,
    ) -> Option<Job> {
        let mut images = lock(&self.images);
        let known = images.get(manifest);
        if known.is_some_and(|known| known.stage == Stage::Fetching) {
            return None;
        }
        let control = Arc::<Control>::default();
        let image = Image {
            stage: Stage::Fetching,
            control: Arc::clone(&control),
        };
        images.insert(*manifest, image);
        self.count(&images);
        let entry = Entry {
            shared: Arc::clone(self),
            manifest: *manifest,
        };
        Some(Job {
            manifest: *manifest,
            tag: tag_of(manifest),
            sources,
            control,
            entry,
            prepared: Mutex::new(prepared),
        })
    }

    fn count(&self, images: &HashMap<Digest, Image>) {
        let fetched = images.values().filter(|i| i.stage == Stage::Fetching);
        self.metrics.fetching.set(fetched.count() as i64);
    }
}

/// Returns the tag of an image in the snapshotter's store.
fn tag_of(manifest: &Digest) -> String {
    format!("{TAG}{}", manifest.to_hex())
}

/// Serves the requests of a store until it has no more jobs.
fn serve(
    shared: &Shared,
    store: &Store,
    requests: Arc<dyn ChunkRequests>,
    jobs: &Receiver<Vec<Job>>,
) -> Result<()> {
    let warn = |error: &Error| crate::say(error);
    let service = Service::new(store, requests, &warn)?;
    // Readers that have waited for this process request chunks at once.
    let mut starting = Some(service.expect());
    let served = service.run(|| {
        thread::scope(|scope| {
            let mut all = Vec::new();
            loop {
                match jobs.recv_timeout(PATIENCE) {
                    Ok(jobs) => {
                        for job in jobs {
                            all.push(Arc::downgrade(&job.control));
                            let expected = service.expect();
                            let fetching = Fetching {
                                shared,
                                store,
                                service: &service,
                                job,
                                expected: Mutex::new(Some(expected)),
                            };
                            scope.spawn(move || fetching.run());
                        }
                        starting = None;
                        all.retain(|control| control.strong_count() > 0);
                    }
                    Err(RecvTimeoutError::Timeout) if !service.is_over() => {}
                    Err(_) => break,
                }
            }
            // Requests without an answer remain for the next fetcher.
            service.end();
            let left = all.iter().filter_map(std::sync::Weak::upgrade);
            left.for_each(|control| control.stop());
        });
    });
    drop(starting);
    Ok(served?)
}

/// The work for an image.
struct Fetching<'f, 's> {
    shared: &'f Shared,
    store: &'f Store,
    service: &'f Service<'s>,
    job: Job,
    /// Lets requests for chunks of the image wait while it is not served.
    expected: Mutex<Option<Expected<'f, 's>>>,
}

impl Fetching<'_, '_> {
    /// Makes attempts until the image is complete, or until the stop. If the first attempt does not prepare
    /// the image, there is no other one.
    fn run(self) {
        let (mut pause, mut last) = (FIRST_PAUSE, String::new());
        while !self.is_over() {
            let error = match self.attempt() {
                Ok(Some(Served::Complete)) => return self.complete(),
                Ok(_) => return,
                Err(error) => error,
            };
            if let Some(prepared) = self.prepared() {
                // If the call is gone, the next one tries again.
                let _ = prepared.send(Err(error));
                return;
            }
            let text = format!("{error:#}");
            if text != last {
                let manifest = self.job.manifest.to_oci();
                crate::say(format_args!("cannot fetch the rest of {manifest}: {text}"));
                last = text;
                pause = FIRST_PAUSE;
            }
            self.job.control.pause(pause);
            pause = LONGEST_PAUSE.min(pause * 2);
        }
    }

    fn is_over(&self) -> bool {
        self.job.control.is_stopped() || self.service.is_over()
    }

    fn prepared(&self) -> Option<Sender<Result<Stage>>> {
        lock(&self.job.prepared).take()
    }

    /// Reports that the image can be mounted.
    fn report(&self, stage: Stage) {
        if let Some(prepared) = self.prepared() {
            // If the call is gone, it has stopped the image.
            let _ = prepared.send(Ok(stage));
        }
    }

    fn complete(&self) {
        if let Some(image) = lock(&self.shared.images).get_mut(&self.job.entry.manifest) {
            image.stage = Stage::Complete;
        }
        self.shared.surroundings.complete(&self.job.manifest);
    }

    /// Makes an attempt at each place. Returns `None` after the stop.
    fn attempt(&self) -> Result<Option<Served>> {
        let (shared, job) = (self.shared, &self.job);
        let places = shared.surroundings.places(&job.manifest, &job.sources)?;
        let mut failures = Vec::new();
        let count = places.len();
        for (number, place) in (1..).zip(places) {
            let Some(stop) = job.control.begin() else {
                return Ok(None);
            };
            let failed = Mutex::new(None);
            match self.attempt_at(&place, number == count, stop, &failed) {
                Ok(served) => return Ok(Some(served)),
                Err(_) if self.is_over() => return Ok(None),
                Err(Error::Interrupted) => {}
                Err(error) => failures.push(error.to_string()),
            }
            failures.extend(lock(&failed).take());
        }
        bail!(failures.join("; "))
    }

    /// Prepares and serves the image with one place as the source of its chunks.
    fn attempt_at(
        &self,
        place: &Place,
        is_last: bool,
        stop: Arc<AtomicBool>,
        failed: &Mutex<Option<String>>,
    ) -> Result<Served, Error> {
        let (shared, job) = (self.shared, &self.job);
        let options = FetchingOptions {
            connection: place.connection.clone(),
            platform: None,
            tag: job.tag.clone(),
            completion: shared.settings.completion,
            limit_rate: shared.settings.limit_rate,
        };
        let progress = Progress::new(Arc::clone(&stop));
        fetch(
            &place.name,
            self.store,
            &options,
            &progress,
            |source, image| {
                if image.is_whole() {
                    self.report(Stage::Complete);
                    return Ok(Served::Complete);
                }
                let source = PlaceSource {
                    source,
                    fetching: self,
                    is_last,
                    failures: AtomicU32::new(0),
                    stop: &stop,
                    failed,
                };
                // The snapshotter reads the tree before it mounts the image.
                fetch_metadata(&source, &image, self.store, &progress)?;
                self.report(Stage::Fetching);
                let expected = lock(&self.expected).take();
                let lazy = options.lazy();
                self.service
                    .serve(&source, &image, lazy, &progress, expected)
            },
        )
    }
}

/// A place as the source of an image. It ends the attempt if another place, or a later attempt, can help.
struct PlaceSource<'p, 'f, 's> {
    source: &'p dyn BlobSource,
    fetching: &'p Fetching<'f, 's>,
    /// No other place follows.
    is_last: bool,
    /// The number of failures since the last success.
    failures: AtomicU32,
    /// Ends the attempt.
    stop: &'p AtomicBool,
    /// The failure that has ended the attempt.
    failed: &'p Mutex<Option<String>>,
}

impl PlaceSource<'_, '_, '_> {
    /// Returns true if the attempt ends with a failure.
    fn ends_with(&self, error: &Error) -> bool {
        if !self.is_last {
            return true;
        }
        // The place answers.
        if matches!(error, Error::Fetch(FetchError::Chunk { .. })) {
            return false;
        }
        self.failures.fetch_add(1, Relaxed) + 1 >= FAILURES_MAX
    }
}

impl BlobSource for PlaceSource<'_, '_, '_> {
    fn read(
        &self,
        blob: &RemoteBlob,
        range: Range<u64>,
        give: &mut dyn FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<bool, Error> {
        let fetched = &self.fetching.shared.metrics.fetched;
        let read = self.source.read(blob, range, &mut |piece| {
            fetched.inc_by(piece.len() as u64);
            give(piece)
        });
        match read {
            Err(Error::Interrupted) => Err(Error::Interrupted),
            Err(error) if self.ends_with(&error) => {
                lock(self.failed).get_or_insert_with(|| error.to_string());
                // The requests of the image wait from now on. The next source answers them.
                let expected = self.fetching.service.expect();
                lock(&self.fetching.expected).get_or_insert(expected);
                self.stop.store(true, Relaxed);
                Err(Error::Interrupted)
            }
            Err(error) => Err(error),
            Ok(has_ranges) => {
                self.failures.store(0, Relaxed);
                Ok(has_ranges)
            }
        }
    }
}

#[cfg(test)]
mod tests;
