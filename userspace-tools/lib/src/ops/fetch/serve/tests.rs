// SPDX-License-Identifier: MIT OR Apache-2.0

//! Services of a store that stands for a registry, with faults, to a test that stands for the kernel.

use super::super::lazy::prepare;
use super::super::source::RemoteBlob;
use super::super::tests::{assert_whole, fetch_tag, has_tag, size, stores, Source, Stores};
use super::queue::Priority;
use super::*;
use crate::error::{CommandError, FetchError};
use crate::model::digest::Digest;
use crate::model::oci::{self, Descriptor};
use crate::model::reference::{ImageRef, Selector};
use crate::mount::{self, ChunkAnswer, ChunkRequest};
use crate::ops::gc::{collect, GcOptions};
use crate::ops::test_images::{names, write_image, write_manifest, TestImage};
use crate::ops::verify::verify_store;
use crate::store::chunks::reader::ChunkReader;
use crate::store::chunks::tests::write_pack;
use crate::sys::parallel::lock;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroU64;
use std::ops::Range;
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

/// The most seconds that a test waits. Only a failing test waits for so long.
const DEADLINE: Duration = Duration::from_secs(60);

/// The kernel's end of the device.
struct Kernel {
    sender: Mutex<Option<Sender<Vec<ChunkRequest>>>>,
    receiver: Mutex<Receiver<Vec<ChunkRequest>>>,
    answers: Mutex<BTreeMap<u64, Option<Errno>>>,
    answered: Condvar,
}

impl ChunkRequests for Kernel {
    fn take(&self) -> Result<Vec<ChunkRequest>> {
        Ok(lock(&self.receiver).recv().unwrap_or_default())
    }

    fn answer(&self, answers: &[ChunkAnswer]) -> Result<()> {
        let mut all = lock(&self.answers);
        for ChunkAnswer { id, errno } in answers {
            assert_eq!(all.insert(*id, *errno), None, "{id} has two answers");
        }
        self.answered.notify_all();
        Ok(())
    }
}

impl Kernel {
    fn new() -> Arc<Self> {
        let (sender, receiver) = channel();
        Arc::new(Kernel {
            sender: Mutex::new(Some(sender)),
            receiver: Mutex::new(receiver),
            answers: Mutex::default(),
            answered: Condvar::new(),
        })
    }

    fn send(&self, requests: &[(u64, Digest)]) {
        let request = |(id, digest): &(u64, Digest)| ChunkRequest {
            id: *id,
            digest: *digest,
            stored_len: 0,
            is_awaited: id % 2 == 0,
        };
        let requests = requests.iter().map(request).collect();
        lock(&self.sender).as_ref().unwrap().send(requests).unwrap();
    }

    /// Waits for the answer to a request.
    fn wait(&self, id: u64) -> Option<Errno> {
        let answers = lock(&self.answers);
        let is_missing = |answers: &mut BTreeMap<u64, _>| !answers.contains_key(&id);
        let waited = self
            .answered
            .wait_timeout_while(answers, DEADLINE, is_missing);
        *waited.unwrap().0.get(&id).expect("no answer")
    }

    /// Requests chunks together, with numbers from `first` on, and returns the answers.
    fn request(&self, first: u64, digests: &[Digest]) -> Vec<Option<Errno>> {
        let ids = first..first + digests.len() as u64;
        let requests: Vec<_> = ids.clone().zip(digests.iter().copied()).collect();
        self.send(&requests);
        ids.map(|id| self.wait(id)).collect()
    }

    fn close(&self) {
        lock(&self.sender).take();
    }
}

fn options(completion: Completion) -> LazyOptions {
    LazyOptions {
        jobs: 3,
        completion,
        limit_rate: None,
    }
}

fn prepare_tag(
    source: &Source<'_>,
    to: &Store,
    tag: &str,
    options: LazyOptions,
) -> Result<Arc<LazyImage>> {
    let image = source.store.any_image(&Selector::Tag(tag.to_owned()))?;
    let (_, manifest) = source.store.manifest(image.root.manifest_digest())?;
    prepare(source, &manifest, to, tag, options, &Progress::default()).map(Arc::new)
}

/// Serves one image with a service of its own.
fn serve(
    source: &dyn BlobSource,
    image: &Arc<LazyImage>,
    to: &Store,
    requests: Arc<dyn ChunkRequests>,
    options: LazyOptions,
    progress: &Progress,
    warn: &(dyn Fn(&Error) + Sync),
) -> Result<Served> {
    let service = Service::new(to, requests, warn)?;
    service.run(|| service.serve(source, image, options, progress, None))?
}

/// Serves an image while a function plays the kernel. Returns the outcome and the warnings.
fn while_serving(
    source: &Source<'_>,
    to: &Store,
    options: LazyOptions,
    test: impl FnOnce(&Kernel),
) -> (Result<Served>, Vec<String>) {
    let image = prepare_tag(source, to, "t", options).unwrap();
    while_serving_image(source, to, &image, options, test)
}

/// Does the same for an image that is prepared.
fn while_serving_image(
    source: &Source<'_>,
    to: &Store,
    image: &Arc<LazyImage>,
    options: LazyOptions,
    test: impl FnOnce(&Kernel),
) -> (Result<Served>, Vec<String>) {
    let kernel = Kernel::new();
    let warnings = Mutex::new(Vec::new());
    let warn = |error: &Error| lock(&warnings).push(error.to_string());
    let stop = Arc::new(AtomicBool::new(false));
    let progress = Progress::new(stop.clone());
    let served = thread::scope(|scope| {
        let requests = kernel.clone();
        let service = scope.spawn(|| serve(source, image, to, requests, options, &progress, &warn));
        // A test that fails must end, too.
        let tested = catch_unwind(AssertUnwindSafe(|| test(&kernel)));
        if options.completion == Completion::Never || tested.is_err() {
            stop.store(true, Relaxed);
        }
        tested.unwrap_or_else(|panic| resume_unwind(panic));
        service.join().unwrap()
    });
    kernel.close();
    (served, warnings.into_inner().unwrap())
}

/// Does the same without background, and without warnings.
fn while_serving_well(source: &Source<'_>, to: &Store, test: impl FnOnce(&Kernel)) {
    let (served, warnings) = while_serving(source, to, options(Completion::Never), test);
    assert_eq!(served.unwrap(), Served::Stopped);
    assert_eq!(warnings, [""; 0]);
}

fn has(store: &Store, digest: &Digest) -> bool {
    let reader = ChunkReader::of_index(store).unwrap();
    let found = reader.find(digest).unwrap().is_some();
    if found {
        reader.read_stored(digest, &mut Vec::new()).unwrap();
    }
    found
}

fn chunks(image: &TestImage) -> Vec<Digest> {
    image.chunks.keys().copied().collect()
}

#[test]
fn a_prepared_image_has_a_tag_and_its_metadata() {
    let Stores { from, to, .. } = &stores();
    let image = write_image(from, "t", &names("a", 300));
    let source = Source::new(from);
    let prepared = prepare_tag(&source, to, "t", options(Completion::Idle)).unwrap();
    assert!(!prepared.is_whole());
    assert_eq!(*prepared.manifest(), image.manifest);
    assert!(has_tag(to, "t"));
    assert!(image.metadata.iter().all(|digest| has(to, digest)));
    assert!(!image.data.iter().any(|digest| has(to, digest)));
    // The configuration, the index of the pack, which takes two, and the levels of the metadata.
    let requests = source.requests.load(Relaxed);
    assert!(requests <= 7, "{requests}");
    let pack = size(&from.blob_path(&image.pack));
    let bytes = source.bytes();
    assert!(bytes * 10 < pack, "{bytes} of {pack}");
    assert_mountable(to);
    // A verification reports the chunks that are missing, and a fetch brings them.
    let verified = verify_store(to, 1, &Progress::default()).unwrap();
    assert!(!verified.faults.is_empty());
    fetch_tag(&source, to, "t").unwrap();
    assert_whole(to, &image);
    assert!(prepare_tag(&source, to, "t", options(Completion::Idle))
        .unwrap()
        .is_whole());
}

/// Asserts that a mount finds the root.
fn assert_mountable(store: &Store) {
    mount::find(&ImageRef {
        store: store.path().to_path_buf(),
        selector: Selector::Tag("t".to_owned()),
    })
    .unwrap();
}

#[test]
fn damaged_metadata_is_left_to_readers() {
    let Stores { from, to, .. } = &stores();
    let image = write_image(from, "t", &names("a", 300));
    let mut source = Source::new(from);
    // The first byte of the chunk behind the root, at a multiple of 8.
    let root = image.chunks[&image.root].len() as u64;
    source.changed = Some((image.pack, root.next_multiple_of(8)));
    let prepared = prepare_tag(&source, to, "t", options(Completion::Idle)).unwrap();
    assert!(!prepared.is_whole());
    assert!(has_tag(to, "t") && has(to, &image.root));
    assert!(!has(to, &image.metadata[1]) && !has(to, &image.data[0]));
    assert_mountable(to);
    // As long as metadata is missing, nothing is removed.
    let before = to.list_blobs().unwrap();
    let error = collect(to, GcOptions::default(), || false).unwrap_err();
    assert!(matches!(
        error,
        Error::Command(CommandError::NeedsUnknown { .. })
    ));
    assert_eq!(to.list_blobs().unwrap(), before);
    // Its reader gets the error, and the chunk as soon as the source has it.
    let never = options(Completion::Never);
    let (served, _) = while_serving(&source, to, never, |kernel| {
        let wanted = [image.metadata[1]];
        assert_eq!(kernel.request(0, &wanted), [Some(Errno::IO)]);
    });
    served.unwrap();
    source.changed = None;
    while_serving_well(&source, to, |kernel| {
        assert_eq!(kernel.request(0, &image.metadata[1..2]), [None]);
    });
}

/// Gives the image `t` a start-up order.
fn give_order(store: &Store, image: &TestImage, text: &str) {
    let put = |bytes: &[u8]| {
        let digest = Digest::of(bytes);
        fs::write(store.blob_path(&digest), bytes).unwrap();
        (digest, bytes.len() as u64)
    };
    let (order, size) = put(text.as_bytes());
    let (mut manifest, _) = store.manifest(&image.manifest).unwrap();
    manifest
        .layers
        .push(Descriptor::new(oci::ORDER, order, size));
    let (manifest, size) = put(&manifest.to_json());
    let manifest = Descriptor::new(oci::MANIFEST, manifest, size);
    store.set_tag("t", manifest).unwrap();
}

/// The lines of an order for files of `names("a", 300)` by their places in the image.
fn lines(places: Range<usize>) -> String {
    let mut names = names("a", 300);
    names.sort();
    let lines = names[places].iter().rev().map(|name| format!("/{name}\n"));
    lines.collect()
}

#[test]
fn the_chunks_of_a_recorded_order_come_without_requests() {
    let Stores { from, to, .. } = &stores();
    let image = write_image(from, "t", &names("a", 300));
    give_order(from, &image, &lines(200..250));
    let source = Source::new(from);
    let ordered = &image.data[200..250];
    while_serving_well(&source, to, |_| {
        wait_until("the order", || ordered.iter().all(|digest| has(to, digest)));
    });
    assert!(!has(to, &image.data[199]) && !has(to, &image.data[250]));
    // As many as for the preparation, one for the order itself, and one range.
    let requests = source.requests.load(Relaxed);
    assert!(requests <= 9, "{requests}");
}

#[test]
fn a_recorded_order_brings_the_metadata_on_its_way() {
    let Stores { from, to, .. } = &stores();
    let image = write_image(from, "t", &names("a", 300));
    give_order(from, &image, &lines(200..250));
    let mut source = Source::new(from);
    let root = image.chunks[&image.root].len() as u64;
    source.changed = Some((image.pack, root.next_multiple_of(8)));
    let never = options(Completion::Never);
    let prepared = prepare_tag(&source, to, "t", never).unwrap();
    assert!(!has(to, &image.metadata[1]));
    source.changed = None;
    let ordered = &image.data[200..250];
    let (served, warnings) = while_serving_image(&source, to, &prepared, never, |_| {
        wait_until("the order", || ordered.iter().all(|digest| has(to, digest)));
    });
    assert_eq!((served.unwrap(), warnings.len()), (Served::Stopped, 0));
}

#[test]
fn an_order_that_cannot_be_used_is_reported() {
    let Stores { from, to, .. } = &stores();
    let image = write_image(from, "t", &names("a", 300));
    give_order(from, &image, "nonsense\n");
    let source = Source::new(from);
    let never = options(Completion::Never);
    let (served, warnings) = while_serving(&source, to, never, |kernel| {
        assert_eq!(kernel.request(0, &image.data[5..6]), [None]);
        wait_until("the chunk", || has(to, &image.data[5]));
    });
    assert_eq!(served.unwrap(), Served::Stopped);
    let [warning] = &warnings[..] else {
        panic!("{warnings:?}");
    };
    assert!(warning.contains("order"), "{warning}");
}

#[test]
fn gc_keeps_chunks_that_have_arrived() {
    let Stores { from, to, .. } = &stores();
    let image = write_image(from, "t", &names("a", 100));
    let source = Source::new(from);
    while_serving_well(&source, to, |kernel| {
        kernel.request(0, &image.metadata);
        kernel.request(1000, &image.data[..30]);
        // The service holds no lock.
        collect(to, GcOptions { max_dead: 0 }, || false)
            .unwrap()
            .unwrap();
        // Nothing follows the last one.
        kernel.request(2000, &image.data[99..]);
    });
    let data = image.data[..30].iter().chain(&image.data[99..]);
    for digest in image.metadata.iter().chain(data) {
        assert!(has(to, digest));
    }
    assert!(!image.data[30..99].iter().any(|digest| has(to, digest)));
}

#[test]
fn requests_bring_chunks_in_few_ranges() {
    let Stores { from, to, .. } = &stores();
    let image = write_image(from, "t", &names("a", 300));
    let source = Source::new(from);
    while_serving_well(&source, to, |kernel| {
        source.requests.store(0, Relaxed);
        source.bytes();
        let answers = kernel.request(0, &image.data[100..200]);
        assert_eq!(answers, [None; 100]);
        assert_eq!(source.requests.load(Relaxed), 1);
        let len = |digest: &Digest| image.chunks[digest].len() as u64;
        // Small gaps align the chunks.
        let chunks: u64 = image.data[100..200].iter().map(len).sum();
        let bytes = source.bytes();
        assert!((chunks..chunks + 800).contains(&bytes), "{bytes}");
        for digest in &image.data[100..200] {
            assert!(has(to, digest));
        }
        // The last one alone, as a file of its own.
        assert_eq!(kernel.request(200, &image.data[299..]), [None]);
        let size = to.blob_size(&image.data[299]).unwrap();
        assert_eq!(size, Some(len(&image.data[299])));
        assert!(!has(to, &image.data[99]));
        assert!(!image.data[200..299].iter().any(|digest| has(to, digest)));
    });
    let verified = verify_store(to, 1, &Progress::default()).unwrap();
    assert!(verified.faults.len() < 300);
}

#[test]
fn a_reader_of_neighbours_waits_a_few_times() {
    let Stores { from, to, .. } = &stores();
    let image = write_image(from, "t", &names("a", 300));
    let source = Source::new(from);
    while_serving_well(&source, to, |kernel| {
        source.requests.store(0, Relaxed);
        source.bytes();
        for (id, digest) in (0..).zip(&image.data) {
            if !has(to, digest) {
                assert_eq!(kernel.request(id, &[*digest]), [None]);
            }
        }
        // One waits for chunks that arrive, without a request to the source.
        let requests = source.requests.load(Relaxed);
        assert!(requests < 10, "{requests}");
        let chunks = image.data.iter();
        let bytes: u64 = chunks.map(|digest| image.chunks[digest].len() as u64).sum();
        // Small gaps align the chunks.
        assert!(source.bytes() <= bytes + 300 * 8);
    });
    assert_whole(to, &image);
}

#[test]
fn scattered_requests_waste_little() {
    let Stores { from, to, .. } = &stores();
    let image = write_image(from, "t", &names("a", 300));
    let source = Source::new(from);
    let mut requested = 0;
    while_serving_well(&source, to, |kernel| {
        source.bytes();
        for (id, digest) in (0..).zip(image.data.iter().step_by(50)) {
            assert_eq!(kernel.request(id, &[*digest]), [None]);
            requested += image.chunks[digest].len() as u64;
        }
        // The first requests bring their neighbours, up to 64 KiB.
        for place in [20, 70, 120, 170] {
            wait_until("a neighbour", || has(to, &image.data[place]));
        }
    });
    let wasted = source.bytes() - requested;
    assert!(wasted > 200 << 10, "{wasted}");
    assert!(wasted <= (256 << 10) + requested / 8, "{wasted}");
}

#[test]
fn chunks_that_are_there_unknown_ones_and_duplicates() {
    let Stores { from, to, .. } = &stores();
    let image = write_image(from, "t", &names("a", 50));
    let source = Source::new(from);
    while_serving_well(&source, to, |kernel| {
        source.bytes();
        let unknown = Digest::of(b"unknown");
        let there = image.root;
        let wanted = [None, Some(Errno::NOENT), None];
        assert_eq!(kernel.request(0, &[there, unknown, there]), wanted);
        assert_eq!(source.bytes(), 0);
        // Nothing follows it.
        let one = image.data[49];
        assert_eq!(
            kernel.request(10, &[one, one, one, unknown])[..3],
            [None; 3]
        );
        assert_eq!(source.bytes(), image.chunks[&one].len() as u64);
        assert_eq!(kernel.request(20, &[one]), [None]);
        assert_eq!(source.bytes(), 0);
    });
}

#[test]
fn a_wrong_chunk_does_not_harm_its_neighbours() {
    let Stores { from, to, .. } = &stores();
    let image = write_image(from, "t", &names("a", 50));
    let mut source = Source::new(from);
    let prepared = prepare_tag(&source, to, "t", options(Completion::Never)).unwrap();
    let (_, bad) = prepared
        .at(prepared.place(&image.data[20]).unwrap())
        .unwrap();
    source.changed = Some((image.pack, bad.offset + 5));
    let bad = Digest::from(bad.digest);
    let (served, warnings) = while_serving(&source, to, options(Completion::Never), |kernel| {
        let answers = kernel.request(0, &image.data);
        for (digest, answer) in image.data.iter().zip(answers) {
            let wanted = (*digest == bad).then_some(Errno::IO);
            assert_eq!(answer, wanted);
            assert_eq!(has(to, digest), *digest != bad);
        }
        assert_eq!(kernel.request(100, &[bad]), [Some(Errno::IO)]);
    });
    served.unwrap();
    // The second one is the same.
    let [warning] = &warnings[..] else {
        panic!("{warnings:?}");
    };
    assert!(warning.contains("have sha256"), "{warning}");
    assert_eq!(to.blob_size(&bad).unwrap(), None);
    source.changed = None;
    while_serving_well(&source, to, |kernel| {
        assert_eq!(kernel.request(0, &[bad]), [None]);
    });
}

#[test]
fn a_source_that_fails_or_ends_early_is_asked_again() {
    for is_short in [false, true] {
        let Stores { from, to, .. } = &stores();
        let image = write_image(from, "t", &names("a", 100));
        let mut source = Source::new(from);
        source.is_short = is_short;
        let (served, warnings) = while_serving(&source, to, options(Completion::Never), |kernel| {
            *lock(&source.fails_after) = 10_000;
            let answers = kernel.request(0, &image.data[..50]);
            let mut there = image.data[..50].iter().map(|digest| has(to, digest));
            assert!(there.any(|has| has));
            assert_eq!(answers.iter().filter(|answer| answer.is_none()).count(), 3);
            assert!(answers.iter().flatten().all(|errno| *errno == Errno::IO));
            *lock(&source.fails_after) = u64::MAX;
            assert_eq!(kernel.request(100, &image.data), [None; 100]);
        });
        assert_eq!(served.unwrap(), Served::Stopped);
        let wanted = if is_short {
            "bytes arrived"
        } else {
            "the connection broke"
        };
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains(wanted), "{warnings:?}");
    }
}

#[test]
fn more_requests_than_are_taken_at_once() {
    let Stores { from, to, .. } = &stores();
    let image = write_image(from, "t", &names("a", 300));
    let source = Source::new(from);
    let digests = chunks(&image);
    while_serving_well(&source, to, |kernel| {
        let ids: Vec<u64> = (0..20_000).collect();
        for ids in ids.chunks(256) {
            let digest = |id: &u64| digests[*id as usize % digests.len()];
            let requests: Vec<_> = ids.iter().map(|id| (*id, digest(id))).collect();
            kernel.send(&requests);
        }
        for id in ids {
            assert_eq!(kernel.wait(id), None);
        }
    });
    assert_whole(to, &image);
}

#[test]
fn the_rest_arrives_in_the_background() {
    for completion in [Completion::Now, Completion::Idle] {
        let Stores { from, to, .. } = &stores();
        let image = write_image(from, "t", &names("a", 300));
        let source = Source::new(from);
        let options = options(completion);
        let (served, warnings) = while_serving(&source, to, options, |kernel| {
            assert_eq!(kernel.request(0, &image.data[290..]), [None; 10]);
        });
        assert_eq!((served.unwrap(), warnings.len()), (Served::Complete, 0));
        assert_whole(to, &image);
        // Each byte was fetched about once.
        let pack = size(&from.blob_path(&image.pack));
        let bytes = source.bytes();
        assert!(bytes * 10 < pack * 12, "{bytes} of {pack}");
        fetch_tag(&source, to, "t").unwrap();
        assert_eq!(source.bytes(), 0);
        collect(to, GcOptions { max_dead: 0 }, || false)
            .unwrap()
            .unwrap();
        let verified = verify_store(to, 1, &Progress::default()).unwrap();
        assert!(verified.faults.is_empty(), "{:?}", verified.faults);
        assert_whole(to, &image);
    }
}

#[test]
fn a_limit_slows_the_background_and_no_request() {
    let Stores { from, to, .. } = &stores();
    let image = write_image(from, "t", &names("a", 300));
    let pack = size(&from.blob_path(&image.pack));
    let source = Source::new(from);
    for completion in [Completion::Now, Completion::Idle] {
        // The rest would take years.
        let slow = LazyOptions {
            limit_rate: NonZeroU64::new(1),
            ..options(completion)
        };
        let prepared = prepare_tag(&source, to, "t", slow).unwrap();
        let kernel = Kernel::new();
        let service = Service::new(to, kernel.clone(), &|_| {}).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let progress = Progress::new(stop.clone());
        source.bytes();
        service
            .run(|| {
                thread::scope(|scope| {
                    let _end = End(&service);
                    let served =
                        scope.spawn(|| service.serve(&source, &prepared, slow, &progress, None));
                    let wanted = &image.data[image.data.len() - 20..];
                    assert_eq!(kernel.request(0, wanted), [None; 20]);
                    stop.store(true, Relaxed);
                    assert!(matches!(served.join().unwrap(), Err(Error::Interrupted)));
                })
            })
            .unwrap();
        kernel.close();
        let bytes = source.bytes();
        assert!(bytes * 2 < pack, "{bytes} of {pack}");
    }
    // The limit is a rate. The first window does not wait, and the time after the last one does not count.
    let rate = pack / 4;
    let limited = LazyOptions {
        limit_rate: NonZeroU64::new(rate),
        ..options(Completion::Now)
    };
    let start = Instant::now();
    source.bytes();
    let (served, _) = while_serving(&source, to, limited, |_| {});
    assert_eq!(served.unwrap(), Served::Complete);
    let wanted = source.bytes().saturating_sub(2 * complete::window(limited)) as f64 / rate as f64;
    let took = start.elapsed().as_secs_f64();
    assert!(wanted > 0.5, "{wanted} s");
    assert!(took >= wanted, "{took} s instead of {wanted} s");
    assert_whole(to, &image);
}

/// A source that notes the time, the start and the length of each read.
struct Noting<'s> {
    source: Source<'s>,
    reads: Mutex<Vec<(Instant, u64, u64)>>,
}

impl BlobSource for Noting<'_> {
    fn read(
        &self,
        blob: &RemoteBlob,
        range: Range<u64>,
        give: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<bool> {
        let read = (Instant::now(), range.start, range.end - range.start);
        lock(&self.reads).push(read);
        self.source.read(blob, range, give)
    }
}

#[test]
fn the_background_waits_until_readers_pause() {
    let Stores { from, to, .. } = &stores();
    let image = write_image(from, "t", &names("a", 300));
    let idle = options(Completion::Idle);
    let noting = Noting {
        source: Source::new(from),
        reads: Mutex::default(),
    };
    let prepared = prepare_tag(&noting.source, to, "t", idle).unwrap();
    let kernel = Kernel::new();
    let progress = Progress::default();
    let last = image.data[299];
    let requested = Instant::now();
    thread::scope(|scope| {
        let requests = kernel.clone();
        let served = scope.spawn(|| {
            let silent = |_: &Error| {};
            serve(&noting, &prepared, to, requests, idle, &progress, &silent)
        });
        assert_eq!(kernel.request(0, &[last]), [None]);
        assert_eq!(served.join().unwrap().unwrap(), Served::Complete);
    });
    kernel.close();
    let (_, chunk) = prepared.at(prepared.place(&last).unwrap()).unwrap();
    let mut reads = noting.reads.into_inner().unwrap();
    reads.retain(|(_, start, _)| *start != chunk.offset);
    assert!(reads.len() > 2, "{reads:?}");
    for (time, _, len) in reads {
        let pause = time.duration_since(requested);
        assert!(pause >= queue::QUIET, "{pause:?}");
        assert!(len <= 260 << 10, "{len}");
    }
    assert_whole(to, &image);
}

#[test]
fn the_background_goes_on_after_failures() {
    let Stores { from, to, .. } = &stores();
    let image = write_image(from, "t", &names("a", 300));
    let source = Source::new(from);
    let (served, warnings) = while_serving(&source, to, options(Completion::Now), |kernel| {
        *lock(&source.fails_after) = 1000;
        assert_eq!(kernel.request(0, &image.data[..1]).len(), 1);
        *lock(&source.fails_after) = u64::MAX;
    });
    assert_eq!(served.unwrap(), Served::Complete);
    assert!(warnings.len() <= 1);
    assert_whole(to, &image);
}

#[test]
fn an_image_that_is_never_whole_is_an_error() {
    let Stores { from, to, .. } = &stores();
    let image = write_image(from, "t", &names("a", 20));
    let missing = image.data[3];
    let rest = image
        .chunks
        .iter()
        .filter(|(digest, _)| **digest != missing);
    let pack = write_pack(
        from,
        &rest.map(|(_, bytes)| bytes.clone()).collect::<Vec<_>>(),
    );
    write_manifest(from, "t", &image.root, &[pack.digest]);
    let source = Source::new(from);
    let (served, _) = while_serving(&source, to, options(Completion::Now), |kernel| {
        assert_eq!(kernel.request(0, &[missing]), [Some(Errno::NOENT)]);
    });
    let message = served.unwrap_err().to_string();
    assert!(
        message.contains(&format!("lack chunk {missing}")),
        "{message}"
    );
}

#[test]
fn a_stop_ends_a_service() {
    let Stores { from, to, .. } = &stores();
    write_image(from, "t", &names("a", 20));
    let source = Source::new(from);
    let image = prepare_tag(&source, to, "t", options(Completion::Now)).unwrap();
    let stopped = Progress::new(Arc::new(AtomicBool::new(true)));
    for completion in [Completion::Now, Completion::Idle, Completion::Never] {
        let options = options(completion);
        // The source is broken, so the background does not end.
        *lock(&source.fails_after) = 0;
        let requests = Kernel::new();
        let served = serve(
            &source,
            &image,
            to,
            requests.clone(),
            options,
            &stopped,
            &|_| {},
        );
        match completion {
            Completion::Never => assert_eq!(served.unwrap(), Served::Stopped),
            _ => assert!(matches!(served, Err(Error::Interrupted))),
        }
        requests.close();
    }
}

#[test]
fn sources_and_images_without_parts_are_refused() {
    let Stores { from, to, .. } = &stores();
    let image = write_image(from, "t", &names("a", 5));
    let mut source = Source::new(from);
    source.has_ranges = false;
    let error = prepare_tag(&source, to, "t", options(Completion::Idle)).unwrap_err();
    assert!(matches!(error, Error::Fetch(FetchError::Unranged { pack }) if pack == image.pack));
    assert!(!has_tag(to, "t"));
    // Without the root in the packs, nothing can be mounted.
    let source = Source::new(from);
    write_manifest(from, "t", &Digest::of(b"root"), &[image.pack]);
    let error = prepare_tag(&source, to, "t", options(Completion::Idle)).unwrap_err();
    assert!(matches!(error, Error::Fetch(FetchError::NotWhole { .. })));
    assert!(!has_tag(to, "t"));
}

#[test]
fn changed_roots_and_indexes_are_refused() {
    let Stores { from, to, .. } = &stores();
    let image = write_image(from, "t", &names("a", 50));
    let size = size(&from.blob_path(&image.pack));
    let index = size - 16 - 36 * image.chunks.len() as u64;
    // The root, a digest of the index, a length, the footer.
    for at in [1, index + 5, index + 33, size - 2, size - 10] {
        let mut source = Source::new(from);
        source.changed = Some((image.pack, at));
        let error = prepare_tag(&source, to, "t", options(Completion::Idle)).unwrap_err();
        assert!(matches!(error, Error::Fetch(_)), "{at}: {error}");
        assert!(!has_tag(to, "t"));
    }
}

#[test]
fn one_process_serves_a_store() {
    let Stores { to, .. } = &stores();
    let claim = Claim::take(to).unwrap();
    assert!(claim.is_some());
    assert!(Claim::take(to).unwrap().is_none());
    drop(claim);
    assert!(Claim::take(to).unwrap().is_some());
}

/// Two images with their sources, and a service without an image.
struct Pair {
    stores: Stores,
    other: Store,
    images: [TestImage; 2],
    _scratch: tempfile::TempDir,
}

impl Pair {
    /// The images have these numbers of files. Files of the same number have the same contents.
    fn new(one: u64, two: u64) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let stores = stores();
        let other = Store::create(&scratch.path().join("other")).unwrap();
        let images = [
            write_image(&stores.from, "t", &names("a", one)),
            write_image(&other, "u", &names("a", two)),
        ];
        Pair {
            stores,
            other,
            images,
            _scratch: scratch,
        }
    }
}

/// Ends a service, also if a test fails while its threads serve images.
struct End<'e, 's>(&'e Service<'s>);

impl Drop for End<'_, '_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Waits until a condition is true. Only a failing test waits until the deadline.
fn wait_until(what: &str, is_true: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_true() {
        assert!(start.elapsed() < DEADLINE, "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn one_service_serves_several_images() {
    for completion in [Completion::Now, Completion::Idle] {
        let pair = Pair::new(300, 320);
        let to = &pair.stores.to;
        let (one, two) = (Source::new(&pair.stores.from), Source::new(&pair.other));
        let options = options(completion);
        let first = prepare_tag(&one, to, "t", options).unwrap();
        let second = prepare_tag(&two, to, "u", options).unwrap();
        let (one_pack, two_pack) = (one.bytes(), two.bytes());
        let kernel = Kernel::new();
        let warn = |error: &Error| panic!("{error}");
        let service = Service::new(to, kernel.clone(), &warn).unwrap();
        let progress = Progress::default();
        service
            .run(|| {
                thread::scope(|scope| {
                    let _end = End(&service);
                    let a = scope.spawn(|| service.serve(&one, &first, options, &progress, None));
                    let b = scope.spawn(|| service.serve(&two, &second, options, &progress, None));
                    let last = pair.images[1].data.len() - 1;
                    let wanted = [pair.images[0].data[250], pair.images[1].data[last]];
                    assert_eq!(kernel.request(0, &wanted), [None; 2]);
                    assert_eq!(a.join().unwrap().unwrap(), Served::Complete);
                    assert_eq!(b.join().unwrap().unwrap(), Served::Complete);
                    // Chunks that are there are known without an image.
                    assert_eq!(kernel.request(10, &wanted), [None; 2]);
                    assert_eq!(service.status().images, 0);
                })
            })
            .unwrap();
        kernel.close();
        for image in &pair.images {
            assert_whole(to, image);
        }
        // Chunks that both have were fetched about once.
        let bytes = one.bytes() + two.bytes();
        let pack = size(&pair.other.blob_path(&pair.images[1].pack));
        assert!(
            bytes * 10 < pack * 13,
            "{bytes} of {pack}; {one_pack} {two_pack}"
        );
    }
}

#[test]
fn chunks_that_others_have_brought_are_not_fetched_again() {
    let Stores { from, to, .. } = &stores();
    let image = write_image(from, "t", &names("a", 100));
    let source = Source::new(from);
    let never = options(Completion::Never);
    let prepared = prepare_tag(&source, to, "t", never).unwrap();
    let kernel = Kernel::new();
    let service = Service::new(to, kernel.clone(), &|_| {}).unwrap();
    let progress = Progress::default();
    service
        .run(|| {
            thread::scope(|scope| {
                let _end = End(&service);
                scope.spawn(|| service.serve(&source, &prepared, never, &progress, None));
                let there = &image.data[30..60];
                assert_eq!(kernel.request(0, there), [None; 30]);
                source.bytes();
                // They were missing when this was planned.
                let planned = image.data[20..70].iter();
                let places = planned.clone().filter_map(|digest| prepared.place(digest));
                let server = &service.server;
                server.submit_unrequested(1, places.collect(), Priority::Recorded);
                wait_until("the others", || {
                    planned.clone().all(|digest| has(to, digest))
                });
                server.queue.wait_for(1, there).unwrap();
            })
        })
        .unwrap();
    kernel.close();
    let missing = image.data[20..30].iter().chain(&image.data[60..70]);
    let bytes: u64 = missing
        .map(|digest| image.chunks[digest].len() as u64)
        .sum();
    let fetched = source.bytes();
    assert!(
        (bytes..bytes + 200).contains(&fetched),
        "{fetched} of {bytes}"
    );
}

#[test]
fn another_image_gives_chunks_if_a_source_fails() {
    let pair = Pair::new(100, 100);
    let to = &pair.stores.to;
    let (one, two) = (Source::new(&pair.stores.from), Source::new(&pair.other));
    let options = options(Completion::Never);
    let first = prepare_tag(&one, to, "t", options).unwrap();
    let second = prepare_tag(&two, to, "u", options).unwrap();
    *lock(&one.fails_after) = 0;
    let kernel = Kernel::new();
    let warnings = Mutex::new(0);
    let warn = |_: &Error| *lock(&warnings) += 1;
    let service = Service::new(to, kernel.clone(), &warn).unwrap();
    let progress = Progress::default();
    service
        .run(|| {
            thread::scope(|scope| {
                let _end = End(&service);
                let a = scope.spawn(|| service.serve(&one, &first, options, &progress, None));
                wait_until("the first image", || service.status().images == 1);
                let b = scope.spawn(|| service.serve(&two, &second, options, &progress, None));
                wait_until("the second image", || service.status().images == 2);
                let data = &pair.images[0].data;
                assert_eq!(kernel.request(0, &data[..50]), [None; 50]);
                assert_eq!(service.status().requests, 0);
                assert!(service.status().last_error.is_some());
                // If both fail, the requests do.
                *lock(&two.fails_after) = 0;
                assert_eq!(kernel.request(100, &data[60..61]), [Some(Errno::IO)]);
                service.end();
                assert_eq!(a.join().unwrap().unwrap(), Served::Stopped);
                assert_eq!(b.join().unwrap().unwrap(), Served::Stopped);
            })
        })
        .unwrap();
    kernel.close();
    assert!(*lock(&warnings) > 0);
}

#[test]
fn requests_wait_for_images_that_are_being_prepared() {
    let pair = Pair::new(20, 20);
    let to = &pair.stores.to;
    let one = Source::new(&pair.stores.from);
    let options = options(Completion::Never);
    let first = prepare_tag(&one, to, "t", options).unwrap();
    let kernel = Kernel::new();
    let service = Service::new(to, kernel.clone(), &|_| {}).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let progress = Progress::new(stop.clone());
    service
        .run(|| {
            thread::scope(|scope| {
                let _end = End(&service);
                let expected = service.expect();
                let data = &pair.images[0].data;
                kernel.send(&[(0, data[3]), (2, Digest::of(b"unknown"))]);
                wait_until("the requests are taken", || {
                    lock(&kernel.answers).is_empty() && service.server.parked() == 2
                });
                let a = scope.spawn(|| service.serve(&one, &first, options, &progress, None));
                assert_eq!(kernel.wait(0), None);
                assert!(!lock(&kernel.answers).contains_key(&2));
                drop(expected);
                assert_eq!(kernel.wait(2), Some(Errno::NOENT));
                // An image that is stopped alone leaves the others.
                stop.store(true, Relaxed);
                assert_eq!(a.join().unwrap().unwrap(), Served::Stopped);
                assert!(!service.is_over());
                // It stands before the one that has arrived, so it was not fetched with it.
                assert_eq!(kernel.request(10, &data[2..3]), [Some(Errno::NOENT)]);
                // The oldest requests are refused if there are too many.
                let _expected = service.expect();
                let many: Vec<(u64, Digest)> = (100..1300)
                    .map(|id: u64| (id, Digest::of(&id.to_le_bytes())))
                    .collect();
                kernel.send(&many);
                assert_eq!(kernel.wait(100), Some(Errno::NOENT));
                assert_eq!(kernel.wait(275), Some(Errno::NOENT));
                assert!(!lock(&kernel.answers).contains_key(&276));
            })
        })
        .unwrap();
    kernel.close();
}

/// A source that waits until it is released.
struct Slow<'s> {
    source: Source<'s>,
    is_reading: AtomicBool,
    is_released: AtomicBool,
}

impl BlobSource for Slow<'_> {
    fn read(
        &self,
        blob: &RemoteBlob,
        range: Range<u64>,
        give: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<bool> {
        self.is_reading.store(true, Relaxed);
        wait_until("the source is released", || self.is_released.load(Relaxed));
        self.source.read(blob, range, give)
    }
}

#[test]
fn requests_of_an_image_that_leaves_go_to_another_one() {
    let pair = Pair::new(50, 50);
    let to = &pair.stores.to;
    let (one, two) = (Source::new(&pair.stores.from), Source::new(&pair.other));
    let options = options(Completion::Never);
    let first = prepare_tag(&one, to, "t", options).unwrap();
    let second = prepare_tag(&two, to, "u", options).unwrap();
    let slow = Slow {
        source: one,
        is_reading: AtomicBool::new(false),
        is_released: AtomicBool::new(false),
    };
    let kernel = Kernel::new();
    let service = Service::new(to, kernel.clone(), &|_| {}).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, progress) = (Progress::new(stop.clone()), Progress::default());
    service
        .run(|| {
            thread::scope(|scope| {
                let _end = End(&service);
                let a = scope.spawn(|| service.serve(&slow, &first, options, &stopped, None));
                wait_until("the first image", || service.status().images == 1);
                scope.spawn(|| service.serve(&two, &second, options, &progress, None));
                wait_until("the second image", || service.status().images == 2);
                kernel.send(&[(0, pair.images[0].data[7])]);
                wait_until("a transfer", || slow.is_reading.load(Relaxed));
                let status = service.status();
                assert_eq!((status.requests, status.transfers), (1, 1));
                stop.store(true, Relaxed);
                slow.is_released.store(true, Relaxed);
                assert_eq!(kernel.wait(0), None);
                assert_eq!(a.join().unwrap().unwrap(), Served::Stopped);
                service.end();
            })
        })
        .unwrap();
    kernel.close();
}
