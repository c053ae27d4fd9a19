// SPDX-License-Identifier: MIT OR Apache-2.0

//! Makes PuzzleFS images available that containerd pulls.
//!
//! An image is available if the snapshotter's own store has all its chunks, or if a [`Fetcher`] brings those
//! that containers read. The snapshot of its last layer is then the image, and hides the snapshots of the
//! other layers, which are empty.
//!
//! | call of containerd | answer |
//! | --- | --- |
//! | prepare the snapshot of a layer ([`Provider::prepare`]) | the layer exists, so containerd does not download it, if the image is available or its data is in containerd's content store or in its registry |
//! | unpack a layer that containerd has downloaded ([`Provider::apply`]) | the last layer makes the image available |
//! | prepare the snapshot of a container | if the layer below is empty, and a whole image of containerd consists of the layers up to it, this image is made available first |
//!
//! Images can begin with the same layers. The last line of the table is for an image whose layers are the
//! first ones of another image that was pulled before: containerd then has snapshots of all its layers, and
//! does not ask for them.

use crate::api::{Kind, Labels, Mount, PrepareRequest, UsageResponse, REFERENCE};
use crate::content::{Chains, Content, Found};
use crate::lazy::{Fetcher, Place, Settings, Stage, Surroundings};
use crate::metrics::{Metrics, Origin};
use crate::registries::Registries;
use crate::snapshots::{exists, AvailableImage, LayerName, Mounter, NewLayer, Refusal, Snapshots};
use crate::state::{Image, Sources, TAG};
use anyhow::{anyhow, Context, Result};
use puzzlefs_lib::fetch::{fetch, FetchOptions, Fetched};
use puzzlefs_lib::gc::{collect, GcOptions};
use puzzlefs_lib::mount::{ChunkRequests, FetchDevice, DEVICE};
use puzzlefs_lib::threads::lock;
use puzzlefs_lib::{Digest, Progress, Selector, Store};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// The media types of the layers of a PuzzleFS image begin with it.
const LAYERS: &str = "application/vnd.oci.image.layer.puzzlefs.";
/// The number of blobs and ranges that are copied at once.
const JOBS: usize = 2;
/// The origin of images whose chunks are fetched while containers use them.
const LAZY: &str = "lazy";
/// A part of the keys of snapshots in which containerd unpacks layers.
const EXTRACTION: &str = "/extract-";
/// The longest time between containerd's calls for two layers of an image.
const PULL_PAUSE: Duration = Duration::from_secs(900);

/// Makes images available in a store.
pub struct Provider<M> {
    /// The socket of containerd.
    containerd: PathBuf,
    store: PathBuf,
    snapshots: Arc<Snapshots<M>>,
    registries: Registries,
    fetcher: Arc<Fetcher>,
    metrics: Arc<Metrics>,
    chains: Chains,
    /// Images that are available, of which containerd has not prepared the last layer.
    expected: Mutex<HashMap<String, Expected>>,
    /// Images that could not be made available. containerd downloads them, so its further calls for their
    /// layers do not try again.
    failed: Mutex<HashMap<String, Instant>>,
    /// Held by a collection.
    collection: Mutex<()>,
    /// A collection was not possible, or a killed snapshotter may have left data.
    is_uncollected: AtomicBool,
}

/// An image that is available, of which containerd has not prepared the last layer.
struct Expected {
    /// The time of the last call for it.
    at: Instant,
    /// The space that it has added, or will have added, to the store.
    usage: UsageResponse,
    /// Its chunks are fetched while containers use it.
    is_lazy: bool,
}

/// The surroundings of the fetcher.
struct Host<M> {
    registries: Registries,
    snapshots: Arc<Snapshots<M>>,
}

impl<M: Mounter> Surroundings for Host<M> {
    fn attach(&self, store: &Store) -> Result<Arc<dyn ChunkRequests>> {
        let device = FetchDevice::open(Path::new(DEVICE))?;
        device.attach(store)?;
        Ok(Arc::new(device))
    }

    fn places(&self, manifest: &Digest, sources: &Sources) -> Result<Vec<Place>> {
        self.registries.places(manifest, sources)
    }

    fn incomplete(&self) -> Vec<(Digest, Sources)> {
        self.snapshots.incomplete()
    }

    fn complete(&self, manifest: &Digest) {
        if let Err(refusal) = self.snapshots.complete_image(manifest) {
            crate::say(&refusal.message);
        }
    }
}

/// A layer that containerd wants to be unpacked.
pub struct Layer {
    /// The digest.
    pub digest: String,
    /// The mounts of its snapshot.
    pub mounts: Vec<Mount>,
}

impl<M: Mounter> Provider<M> {
    /// `store` is created by the first image. Images that are not complete are continued.
    pub fn new(
        containerd: PathBuf,
        store: PathBuf,
        snapshots: Arc<Snapshots<M>>,
        registries: Registries,
        settings: Settings,
        metrics: Arc<Metrics>,
    ) -> Self {
        let host = Host {
            registries: registries.clone(),
            snapshots: Arc::clone(&snapshots),
        };
        let (own, counted) = (store.clone(), Arc::clone(&metrics));
        let fetcher = Arc::new(Fetcher::new(own, settings, Box::new(host), counted));
        fetcher.go_on();
        Provider {
            fetcher,
            containerd,
            store,
            snapshots,
            registries,
            metrics,
            chains: Chains::default(),
            expected: Mutex::default(),
            failed: Mutex::default(),
            collection: Mutex::default(),
            is_uncollected: AtomicBool::new(true),
        }
    }

    /// Returns true for the media type of a layer of a PuzzleFS image, a pack or a start-up order. The layer
    /// of an import is a JSON document, and never unpacked.
    pub fn takes(media_type: &str) -> bool {
        media_type.starts_with(LAYERS) && !media_type.ends_with("+json")
    }

    /// Makes an active snapshot or a view, and returns its mounts. Waits on `runtime`, so it must run in
    /// another thread.
    pub fn prepare(
        &self,
        kind: Kind,
        request: PrepareRequest,
        runtime: Handle,
    ) -> Result<Vec<Mount>, Refusal> {
        let PrepareRequest {
            key,
            parent,
            labels,
            ..
        } = request;
        if let Some(chain) = labels.get(REFERENCE) {
            if self.snapshots.is_registered(chain, &parent) {
                return self.snapshots.prepare(kind, &key, &parent, labels);
            }
            match self.provide(&key, chain, &parent, &labels, &runtime) {
                Ok(true) => return Err(exists(chain)),
                Ok(false) => {}
                Err(error) => crate::say(format_args!(
                    "containerd downloads the layers of {chain}: {error:#}"
                )),
            }
        } else if !key.contains(EXTRACTION) {
            if let Some(chain) = self.snapshots.part(&parent) {
                self.complete(&key, &parent, &chain, &runtime)?;
            }
        }
        self.snapshots.prepare(kind, &key, &parent, labels)
    }

    /// Makes the image of a layer available, and commits a snapshot of the layer. Returns false if the layer
    /// is not one of a PuzzleFS image.
    fn provide(
        &self,
        key: &str,
        chain: &str,
        parent: &str,
        labels: &Labels,
        runtime: &Handle,
    ) -> Result<bool> {
        let Some((namespace, _)) = key.split_once('/') else {
            return Ok(false);
        };
        let content = Content::connect(&self.containerd, namespace, runtime.clone())?;
        let Some(found) = content.find(chain, labels, &self.chains)? else {
            return Ok(false);
        };
        let hex = found.digest.to_hex();
        let failed_before = {
            let mut failed = lock(&self.failed);
            failed.retain(|_, at| at.elapsed() < PULL_PAUSE);
            failed.contains_key(&hex)
        };
        // The first layer is that of another pull, which tries again.
        if failed_before && found.layers > 1 {
            return Ok(false);
        }
        let lock_of_image = self
            .snapshots
            .lock_image(&hex)
            .map_err(|r| anyhow!(r.message))?;
        let obtained = self.obtain(&content, &found, runtime);
        let added = obtained.and_then(|image| {
            let layer = if found.is_whole {
                NewLayer::Image(image)
            } else {
                NewLayer::Part
            };
            let added = self.snapshots.add_layer(chain, parent, labels, &layer);
            added.map_err(|refusal| anyhow!(refusal.message))
        });
        self.note_completion(&found.digest);
        if found.is_whole || added.is_err() {
            lock(&self.expected).remove(&hex);
        }
        self.snapshots.release(lock_of_image);
        match added {
            Ok(()) => {
                lock(&self.failed).remove(&hex);
                if found.is_whole {
                    report(&found, content.release_layers(&found));
                }
                Ok(true)
            }
            Err(error) => {
                lock(&self.failed).insert(hex, Instant::now());
                self.metrics.pull_failures.inc();
                report(&found, content.keep_layers(&found));
                Err(error)
            }
        }
    }

    /// Makes the image available whose layers are those of the empty snapshot `name`.
    fn complete(
        &self,
        key: &str,
        name: &str,
        chain: &str,
        runtime: &Handle,
    ) -> Result<(), Refusal> {
        let find = || -> Result<Option<(Content, Found)>> {
            let (namespace, _) = key.split_once('/').unwrap_or_default();
            let content = Content::connect(&self.containerd, namespace, runtime.clone())?;
            let found = content.find_whole(chain, &self.chains)?;
            Ok(found.map(|found| (content, found)))
        };
        let Some((content, found)) = find()? else {
            return Ok(());
        };
        let lock_of_image = self.snapshots.lock_image(&found.digest.to_hex())?;
        let obtained = self.obtain(&content, &found, runtime);
        let completed = obtained
            .with_context(|| format!("cannot get image {}", found.digest.to_oci()))
            .map_err(Refusal::from)
            .and_then(|image| self.snapshots.complete_part(name, &image));
        self.note_completion(&found.digest);
        lock(&self.expected).remove(&found.digest.to_hex());
        self.snapshots.release(lock_of_image);
        if completed.is_err() {
            self.metrics.pull_failures.inc();
        }
        completed
    }

    /// Unpacks a layer. Waits on `runtime`, so it must run in another thread.
    pub fn apply(&self, layer: &Layer, runtime: &Handle) -> Result<()> {
        let refused = |refusal: Refusal| anyhow!(refusal.message);
        let name = self.snapshots.layer_of(&layer.mounts).map_err(refused)?;
        let LayerName {
            namespace,
            chain,
            labels,
        } = name;
        let content = Content::connect(&self.containerd, &namespace, runtime.clone())?;
        let found = content.find(&chain, &labels, &self.chains)?;
        let found = found.ok_or_else(|| {
            anyhow!(
                "containerd has no manifest of a PuzzleFS image with the layer {} at this place",
                layer.digest
            )
        })?;
        if !found.is_whole {
            let marked = self.snapshots.apply_part(&layer.mounts, &chain);
            return marked.map_err(refused);
        }
        let lock_of_image = self.snapshots.lock_image(&found.digest.to_hex());
        let lock_of_image = lock_of_image.map_err(refused)?;
        let applied = self.obtain(&content, &found, runtime).and_then(|image| {
            let applied = self.snapshots.apply(&layer.mounts, image);
            applied.map_err(refused)
        });
        self.note_completion(&found.digest);
        lock(&self.expected).remove(&found.digest.to_hex());
        self.snapshots.release(lock_of_image);
        if applied.is_err() {
            self.metrics.pull_failures.inc();
        } else {
            report(&found, content.release_layers(&found));
        }
        applied
    }

    /// Makes an image available in the store, and sets its tag. The image's lock is held.
    fn obtain(&self, content: &Content, found: &Found, runtime: &Handle) -> Result<AvailableImage> {
        let hex = found.digest.to_hex();
        let available = |usage: UsageResponse, is_lazy: bool| {
            let is_complete = self.fetcher.stage(&found.digest) == Some(Stage::Complete);
            let sources = if is_lazy && !is_complete {
                found.sources.clone()
            } else {
                Sources::new()
            };
            AvailableImage {
                hex: found.digest.to_hex(),
                image: Image {
                    store: self.store.clone(),
                    options: String::new(),
                    sources,
                },
                usage,
            }
        };
        if let Some(expected) = lock(&self.expected).get_mut(&hex) {
            // Another layer of the image.
            expected.at = Instant::now();
            return Ok(available(expected.usage, expected.is_lazy));
        }
        let began = Instant::now();
        let store = Store::create(&self.store)?;
        let tag = format!("{TAG}{hex}");
        let options = FetchOptions { jobs: JOBS };
        let progress = Progress::default();
        let local = fetch(content, &found.manifest, &store, &tag, options, &progress);
        let (usage, origin) = match local {
            Ok(fetched) if fetched.new.bytes > found.size / 2 => (usage(&fetched), "containerd"),
            Ok(fetched) => {
                self.metrics.saved.inc_by(found.size);
                (usage(&fetched), "store")
            }
            Err(lacking) => self
                .prepare_or_pull(found, &store, &tag, runtime)
                .with_context(|| {
                    format!("the data is neither in the store nor in containerd ({lacking})")
                })?,
        };
        self.metrics.pulls.get_or_create(&Origin { origin }).inc();
        let seconds = began.elapsed().as_secs_f64();
        self.metrics.pull_seconds.observe(seconds);
        let is_lazy = origin == LAZY;
        // Until the last layer has its snapshot, this alone keeps the tag.
        let expected = Expected {
            at: Instant::now(),
            usage,
            is_lazy,
        };
        lock(&self.expected).insert(hex, expected);
        Ok(available(usage, is_lazy))
    }

    /// Prepares an image whose data its registry has, or else pulls it. Returns the space that it takes at
    /// most, and the origin for the metrics.
    fn prepare_or_pull(
        &self,
        found: &Found,
        store: &Store,
        tag: &str,
        runtime: &Handle,
    ) -> Result<(UsageResponse, &'static str)> {
        if self.fetcher.is_lazy() {
            match self.fetcher.prepare(&found.digest, &found.sources) {
                Ok(_) => {
                    let usage = UsageResponse {
                        size: number(found.size),
                        inodes: 0,
                    };
                    return Ok((usage, LAZY));
                }
                Err(error) => crate::say(format_args!(
                    "cannot fetch {} on demand: {error:#}; pulling all of it",
                    found.digest.to_oci()
                )),
            }
        }
        let (fetched, traffic) = self.registries.pull(found, store, tag, runtime)?;
        self.metrics.fetched.inc_by(traffic.received);
        let saved = found.size.saturating_sub(traffic.received);
        self.metrics.saved.inc_by(saved);
        Ok((usage(&fetched), "registry"))
    }

    /// Notes that an image is complete, if it has become so before its snapshot existed.
    fn note_completion(&self, manifest: &Digest) {
        if self.fetcher.stage(manifest) != Some(Stage::Complete) {
            return;
        }
        if let Err(refusal) = self.snapshots.complete_image(manifest) {
            crate::say(&refusal.message);
        }
    }

    /// Removes images from the store that no snapshot has. Does not wait for pulls: the next call collects
    /// what this one left.
    pub fn collect(&self) -> Result<()> {
        let Ok(_alone) = self.collection.try_lock() else {
            self.is_uncollected.store(true, Relaxed);
            return Ok(());
        };
        if !self.store.exists() {
            return Ok(());
        }
        let store = Store::open(&self.store)?;
        let mut is_changed = self.is_uncollected.swap(false, Relaxed);
        for descriptor in store.index()?.manifests {
            let tag = descriptor.tag().unwrap_or_default();
            if let Some(hex) = tag.strip_prefix(TAG) {
                is_changed |= self.remove_unused(&store, tag, hex)?;
            }
        }
        if is_changed && collect(&store, GcOptions::default(), || false)?.is_none() {
            self.is_uncollected.store(true, Relaxed);
        }
        Ok(())
    }

    /// Stops the fetch of an image that nothing needs. Returns false if the next collection has to look
    /// again.
    fn stop_fetching(&self, hex: &str) -> bool {
        let manifest = Digest::from_hex(hex.as_bytes());
        let has_stopped = manifest.is_none_or(|manifest| self.fetcher.stop(&manifest));
        if !has_stopped {
            self.is_uncollected.store(true, Relaxed);
        }
        has_stopped
    }

    /// Removes the tag of an image that no snapshot has. Returns true if it did.
    fn remove_unused(&self, store: &Store, tag: &str, hex: &str) -> Result<bool> {
        let is_used = || self.snapshots.has_image(hex, &self.store);
        if is_used() {
            return Ok(false);
        }
        // A call for the image decides by itself.
        let Some(lock_of_image) = self.snapshots.try_lock_image(hex) else {
            self.is_uncollected.store(true, Relaxed);
            return Ok(false);
        };
        let is_expected = {
            let mut expected = lock(&self.expected);
            expected.retain(|_, expected| expected.at.elapsed() < PULL_PAUSE);
            expected.contains_key(hex)
        };
        let is_unused = !is_expected && !is_used();
        let has_stopped = is_unused && self.stop_fetching(hex);
        let removed = has_stopped.then(|| store.untag(&Selector::Tag(tag.to_owned())));
        self.snapshots.release(lock_of_image);
        removed.transpose()?;
        Ok(has_stopped)
    }
}

/// Returns the space that a fetch has added to the store.
fn usage(fetched: &Fetched) -> UsageResponse {
    UsageResponse {
        size: number(fetched.new.bytes),
        inodes: number(fetched.new.blobs),
    }
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Reports a failure to keep or to release the layers of an image. A pull that is not interrupted works
/// anyway.
fn report(image: &Found, done: Result<()>) {
    if let Err(error) = done {
        crate::say(format_args!(
            "the layers of {}: {error:#}",
            image.digest.to_oci()
        ));
    }
}
