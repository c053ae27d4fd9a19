// SPDX-License-Identifier: MIT OR Apache-2.0

//! Fetchers of images in directories that stand for registries, with a test that stands for the kernel.

use super::*;
use anyhow::Context;
use puzzlefs_lib::builder::{build, BuildOptions, Format};
use puzzlefs_lib::fetch::fetch_status;
use puzzlefs_lib::mount::{needs_escape, ChunkAnswer, ChunkRequest};
use puzzlefs_lib::verify::verify_store;
use puzzlefs_lib::Selector;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicUsize;
use std::time::Instant;

/// The longest wait for something that happens soon unless the code is broken.
const DEADLINE: Duration = Duration::from_secs(60);
/// The bytes of the file of the image, which are not compressible.
const FILE: usize = 3 << 20;

/// The kernel's end of the device.
struct Kernel {
    sender: Mutex<Sender<Vec<ChunkRequest>>>,
    receiver: Mutex<Receiver<Vec<ChunkRequest>>>,
    answers: Mutex<BTreeMap<u64, bool>>,
    answered: Condvar,
}

impl Kernel {
    fn new() -> Arc<Self> {
        let (sender, receiver) = channel();
        Arc::new(Kernel {
            sender: Mutex::new(sender),
            receiver: Mutex::new(receiver),
            answers: Mutex::default(),
            answered: Condvar::new(),
        })
    }

    fn request(&self, id: u64, digest: Digest) {
        let request = ChunkRequest {
            id,
            digest,
            stored_len: 0,
            is_awaited: true,
        };
        lock(&self.sender).send(vec![request]).unwrap();
    }

    /// Waits for an answer. Returns true if the chunk is there.
    fn wait(&self, id: u64) -> bool {
        let answers = lock(&self.answers);
        let is_open = |answers: &mut BTreeMap<u64, bool>| !answers.contains_key(&id);
        let waited = self.answered.wait_timeout_while(answers, DEADLINE, is_open);
        waited.unwrap().0[&id]
    }

    fn has_answered(&self, id: u64) -> bool {
        lock(&self.answers).contains_key(&id)
    }
}

impl ChunkRequests for Kernel {
    fn take(&self) -> puzzlefs_lib::Result<Vec<ChunkRequest>> {
        Ok(lock(&self.receiver).recv().unwrap_or_default())
    }

    fn answer(&self, answers: &[ChunkAnswer]) -> puzzlefs_lib::Result<()> {
        let mut all = lock(&self.answers);
        all.extend(answers.iter().map(|one| (one.id, one.errno.is_none())));
        self.answered.notify_all();
        Ok(())
    }
}

/// The parts of the world that a test changes.
#[derive(Default)]
struct Outside {
    /// The directories of the places, in their order.
    places: Mutex<Vec<PathBuf>>,
    searches: AtomicUsize,
    attachments: AtomicUsize,
    /// The number of attempts to continue images.
    attempts: AtomicUsize,
    kernel: Mutex<Option<Arc<Kernel>>>,
    incomplete: Mutex<Vec<(Digest, Sources)>>,
    complete: Mutex<Vec<Digest>>,
}

impl Surroundings for Arc<Outside> {
    fn attach(&self, _: &Store) -> Result<Arc<dyn ChunkRequests>> {
        self.attachments.fetch_add(1, Relaxed);
        let kernel = lock(&self.kernel).clone();
        kernel.map(|kernel| kernel as _).context("no device")
    }

    fn places(&self, manifest: &Digest, _: &Sources) -> Result<Vec<Place>> {
        self.searches.fetch_add(1, Relaxed);
        let place = |directory: &PathBuf| {
            let name = format!("file://{}@{}", directory.display(), manifest.to_oci());
            Ok(Place {
                name: RemoteName::parse(&OsString::from(name), &[])?,
                connection: RegistryOptions {
                    retries: 0,
                    ..RegistryOptions::default()
                },
            })
        };
        lock(&self.places).iter().map(place).collect()
    }

    fn incomplete(&self) -> Vec<(Digest, Sources)> {
        self.attempts.fetch_add(1, Relaxed);
        lock(&self.incomplete).clone()
    }

    fn complete(&self, manifest: &Digest) {
        lock(&self.complete).push(*manifest);
    }
}

/// A directory with an image, and a store for it.
struct World {
    scratch: tempfile::TempDir,
    outside: Arc<Outside>,
    kernel: Arc<Kernel>,
    manifest: Digest,
}

impl World {
    fn new(format: Format) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let tree = scratch.path().join("tree");
        fs::create_dir(&tree).unwrap();
        let mut noise = b"noise".to_vec();
        while noise.len() < FILE {
            let next = Digest::of(&noise[noise.len().saturating_sub(64)..]);
            noise.extend(next.as_bytes());
        }
        fs::write(tree.join("file"), noise).unwrap();
        let manifest = build_image(scratch.path(), "from", format);
        let kernel = Kernel::new();
        let outside = Arc::<Outside>::default();
        *lock(&outside.places) = vec![scratch.path().join("from")];
        *lock(&outside.kernel) = Some(Arc::clone(&kernel));
        World {
            scratch,
            outside,
            kernel,
            manifest,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn fetcher(&self, limit_rate: Option<u64>) -> Arc<Fetcher> {
        let settings = Settings {
            is_lazy: true,
            completion: Completion::Now,
            limit_rate: limit_rate.and_then(NonZeroU64::new),
        };
        let surroundings = Box::new(Arc::clone(&self.outside));
        let metrics = Arc::default();
        Arc::new(Fetcher::new(
            self.path("to"),
            settings,
            surroundings,
            metrics,
        ))
    }

    /// Prepares the image with a background that brings next to nothing.
    fn prepared(&self) -> Arc<Fetcher> {
        let fetcher = self.fetcher(Some(1));
        let stage = fetcher.prepare(&self.manifest, &sources()).unwrap();
        assert_eq!(stage, Stage::Fetching);
        fetcher
    }

    /// The digests of the chunks of the image, in order of position: metadata first.
    fn chunks(&self) -> Vec<Digest> {
        let from = Store::open(&self.path("from")).unwrap();
        let (manifest, _) = from.manifest(&self.manifest).unwrap();
        let pack = Digest::from_oci(&manifest.layers[0].digest).unwrap();
        let pack = fs::read(from.blob_path(&pack)).unwrap();
        let (rest, footer) = pack.split_at(pack.len() - 16);
        let count = u32::from_le_bytes(footer[12..].try_into().unwrap()) as usize;
        let index = &rest[rest.len() - 36 * count..];
        let digest = |record: &[u8]| Digest(record[..32].try_into().unwrap());
        index.chunks(36).map(digest).collect()
    }

    /// The bytes of chunks that the store lacks.
    fn missing(&self) -> u64 {
        let (images, errors) = fetch_status(&Store::open(&self.path("to")).unwrap()).unwrap();
        assert!(errors.is_empty(), "{errors:?}");
        assert_eq!(images[0].tag, tag_of(&self.manifest));
        images[0].missing.bytes
    }

    fn wait_for_completion(&self) {
        wait_until("the image is complete", || {
            !lock(&self.outside.complete).is_empty()
        });
        assert_eq!(*lock(&self.outside.complete), [self.manifest]);
        assert_eq!(self.missing(), 0);
        let store = Store::open(&self.path("to")).unwrap();
        let verified = verify_store(&store, 1, &Progress::default()).unwrap();
        assert!(verified.faults.is_empty(), "{:?}", verified.faults);
    }
}

/// Builds the image of the directory `tree` into a store beside it.
fn build_image(scratch: &Path, store: &str, format: Format) -> Digest {
    let store = Store::create(&scratch.join(store)).unwrap();
    let options = BuildOptions {
        format,
        ..BuildOptions::new("t")
    };
    let tree = scratch.join("tree");
    let built = build(&tree, &store, &options, &Progress::default());
    built.unwrap().manifest
}

fn sources() -> Sources {
    vec![("registry.example".to_owned(), "team/app".to_owned())]
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < end, "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn rename(from: &Path, to: &Path) {
    fs::rename(from, to).unwrap();
}

#[test]
fn chunks_arrive_on_request_until_the_stop() {
    let world = World::new(Format::V4);
    let fetcher = world.prepared();
    let store = Store::open(&world.path("to")).unwrap();
    let selector = Selector::Tag(tag_of(&world.manifest));
    let root = store.any_root(&selector).unwrap();
    assert!(!needs_escape(store.path(), &root).unwrap());
    assert!(world.missing() * 2 > FILE as u64, "{}", world.missing());
    assert_eq!(fetcher.shared.metrics.fetching.get(), 1);
    let chunks = world.chunks();
    let before = world.missing();
    world.kernel.request(1, chunks[chunks.len() - 1]);
    assert!(world.kernel.wait(1));
    assert!((1..before).contains(&world.missing()));
    assert!(fetcher.shared.metrics.fetched.get() < FILE as u64);
    // Another namespace has the same image.
    let again = fetcher.prepare(&world.manifest, &sources()).unwrap();
    assert_eq!(again, Stage::Fetching);
    assert!(fetcher.stop(&world.manifest));
    assert_eq!(fetcher.stage(&world.manifest), None);
    assert_eq!(fetcher.shared.metrics.fetching.get(), 0);
    world.kernel.request(2, chunks[chunks.len() - 2]);
    assert!(
        !world.kernel.wait(2),
        "a chunk of an image that was removed"
    );
    assert!(fetcher.stop(&world.manifest), "there is nothing to stop");
    assert!(lock(&world.outside.complete).is_empty());
}

#[test]
fn an_image_becomes_complete() {
    let world = World::new(Format::V4);
    let fetcher = world.fetcher(None);
    fetcher.prepare(&world.manifest, &sources()).unwrap();
    world.wait_for_completion();
    assert_eq!(fetcher.stage(&world.manifest), Some(Stage::Complete));
    // All chunks are there, so nothing is fetched again.
    let stage = fetcher.prepare(&world.manifest, &sources()).unwrap();
    assert_eq!(stage, Stage::Complete);
    assert!(fetcher.stop(&world.manifest));
    assert_eq!(fetcher.stage(&world.manifest), None);
}

#[test]
fn a_restart_continues_images_and_their_requests() {
    let world = World::new(Format::V4);
    let first = world.prepared();
    let chunks = world.chunks();
    // The kernel gives requests that have no answer to the next fetcher.
    let kernel = Kernel::new();
    kernel.request(7, chunks[chunks.len() - 1]);
    *lock(&world.outside.kernel) = None;
    *lock(&world.outside.incomplete) = vec![(world.manifest, sources())];
    let next = world.fetcher(None);
    // The first one still has the store, and then there is no device.
    next.go_on();
    wait_until("another attempt", || {
        world.outside.attempts.load(Relaxed) > 1
    });
    drop(first);
    *lock(&world.outside.kernel) = Some(Arc::clone(&kernel));
    assert!(kernel.wait(7));
    world.wait_for_completion();
}

#[test]
fn an_image_that_is_no_longer_needed_is_not_continued() {
    let world = World::new(Format::V4);
    *lock(&world.outside.kernel) = None;
    *lock(&world.outside.incomplete) = vec![(world.manifest, sources())];
    let fetcher = world.fetcher(None);
    fetcher.go_on();
    // The thread tries again until there is a device.
    wait_until("an attempt", || world.outside.attachments.load(Relaxed) > 0);
    lock(&world.outside.incomplete).clear();
    wait_until("the thread ends", || Arc::strong_count(&fetcher) == 1);
    assert_eq!(fetcher.stage(&world.manifest), None);
}

#[test]
fn readers_wait_for_the_next_place() {
    let world = World::new(Format::V4);
    let mirror = world.path("mirror");
    let same = build_image(world.scratch.path(), "mirror", Format::V4);
    assert_eq!(same, world.manifest);
    *lock(&world.outside.places) = vec![world.path("none"), mirror.clone(), world.path("from")];
    let _fetcher = world.prepared();
    let chunks = world.chunks();
    rename(&mirror, &world.path("gone"));
    world.kernel.request(1, chunks[chunks.len() - 1]);
    assert!(world.kernel.wait(1));
    assert_eq!(world.outside.searches.load(Relaxed), 1);
}

#[test]
fn failures_of_the_last_place_begin_the_search_again() {
    let world = World::new(Format::V4);
    let _fetcher = world.prepared();
    let chunks = world.chunks();
    let (from, gone) = (world.path("from"), world.path("gone"));
    rename(&from, &gone);
    let searches = || world.outside.searches.load(Relaxed);
    let mut last = 0;
    while searches() == 1 {
        last += 1;
        assert!(last <= u64::from(FAILURES_MAX), "no search after failures");
        world.kernel.request(last, chunks[chunks.len() - 1]);
        wait_until("a failure", || {
            world.kernel.has_answered(last) || searches() > 1
        });
    }
    assert!(!world.kernel.wait(1), "an error is the first answer");
    assert!(!world.kernel.has_answered(last));
    rename(&gone, &from);
    assert!(world.kernel.wait(last));
}

#[test]
fn what_cannot_be_prepared_leaves_nothing() {
    let world = World::new(Format::V4);
    let fetcher = world.fetcher(None);
    let refused = || {
        let refused = fetcher.prepare(&world.manifest, &sources());
        wait_until("the image leaves", || {
            fetcher.stage(&world.manifest).is_none()
        });
        format!("{:#}", refused.unwrap_err())
    };
    *lock(&world.outside.kernel) = None;
    assert_eq!(refused(), "no device");
    let claim = Claim::take(&Store::open(&world.path("to")).unwrap()).unwrap();
    assert!(refused().contains("another process"));
    drop(claim);
    *lock(&world.outside.kernel) = Some(Arc::clone(&world.kernel));
    *lock(&world.outside.places) = vec![world.path("none"), world.path("nil")];
    let message = refused();
    assert!(
        message.contains("none") && message.contains("nil"),
        "{message}"
    );
    let old = World::new(Format::V3);
    let refused = old.fetcher(None).prepare(&old.manifest, &sources());
    let message = format!("{:#}", refused.unwrap_err());
    assert!(message.contains("format"), "{message}");
}
