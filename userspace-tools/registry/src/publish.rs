// SPDX-License-Identifier: MIT OR Apache-2.0

//! Publishes a PuzzleFS image next to the container image that it is made of, under one tag.

use crate::client::{Registry, RegistryOptions, Stop, Traffic};
use crate::credentials::UserPassword;
use crate::error::{Message, RegistryFault};
use crate::places::{self, Sought};
use crate::pull::{manifest, Opened, Source, MANIFEST_MAX};
use crate::push::{push_blob, push_image, push_manifest, Pushed};
use crate::reference::{ImageName, RemoteImage};
use crate::upload::Content;
use oci_client::RegistryOperation;
use puzzlefs_lib::builder::BuildOptions;
use puzzlefs_lib::error::SystemError;
use puzzlefs_lib::fetch::{BlobSource, FetchOptions, ImageSource, RemoteBlob};
use puzzlefs_lib::import::{list, obtain, Listing, Obtained};
use puzzlefs_lib::oci::{Descriptor, Index, INDEX, MANIFEST, ROOT};
use puzzlefs_lib::platform::Platform;
use puzzlefs_lib::threads::{for_each, lock};
use puzzlefs_lib::{json, Digest, Error, Progress, Result, Selector, Store};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{ErrorKind, Seek as _, Write as _};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Mutex;

/// The verbs for messages.
const READ: &str = "read from";
const WRITE: &str = "publish to";
/// The feature of the operating system that a PuzzleFS image needs, in an index.
const FEATURE: &str = "puzzlefs";
/// The largest depth of indexes in indexes.
const INDEX_DEPTH: usize = 4;
/// The largest number of manifests and indexes that are copied.
const MANIFESTS_MAX: usize = 4096;
/// The size of a piece that is read of a kept blob, in bytes.
const PIECE: usize = 256 << 10;
/// The suffixes of the tags under which signatures and other artifacts of a manifest are, where the registry
/// has no list of them. The first one is that of the OCI distribution specification, the others are cosign's.
const ARTIFACT_TAGS: [&str; 4] = ["", ".sig", ".att", ".sbom"];

/// Options of a publication.
#[derive(Clone, Debug)]
pub struct PublishOptions {
    /// The connections. The credentials are those of the target's registry.
    pub connection: RegistryOptions,
    /// The user name and password for another registry of the source.
    pub source_creds: Option<UserPassword>,
    /// The platforms whose images are converted; all of Linux if there are none.
    pub platforms: Vec<Platform>,
    /// The encoding of the PuzzleFS images. The tag is the prefix of their tags in the store.
    pub build: BuildOptions,
}

/// A PuzzleFS image that was published.
#[derive(Clone, Debug)]
pub struct Variant {
    /// The platform.
    pub platform: Platform,
    /// The digest of the manifest.
    pub manifest: Digest,
    /// The digest of the root.
    pub root: Digest,
}

/// The result of a publication.
#[derive(Clone, Debug)]
pub struct Published {
    /// The digest of the index under the tag.
    pub index: Digest,
    /// The PuzzleFS images.
    pub variants: Vec<Variant>,
    /// The blobs of PuzzleFS images, and those of container images that were copied.
    pub pushed: Pushed,
    /// The number of signatures and other artifacts that were copied.
    pub artifacts: u64,
}

/// Converts a container image, and publishes an index of it and of the PuzzleFS image.
///
/// All images of an index are kept. If `to` is in another repository, they are copied, with artifacts that
/// refer to them; only then, the image can come from a mirror. The PuzzleFS images are also in `store`, where
/// an earlier version saves work.
///
/// # Errors
///
/// As for a pull and a push. The tag then stays as it was.
pub fn publish(
    from: &ImageName,
    to: &RemoteImage,
    store: &Store,
    options: &PublishOptions,
    progress: &Progress,
) -> Result<Published> {
    let mut reading = options.connection.clone();
    // Credentials of one registry never go to another.
    let is_same = from
        .only()
        .is_some_and(|from| from.registry() == to.registry());
    if options.source_creds.is_some() || !is_same {
        reading.creds.clone_from(&options.source_creds);
    }
    let writing = places::itself(to, WRITE, &options.connection)?;
    let sought = Sought {
        name: from,
        options: &reading,
        target: Some(to),
        action: READ,
    };
    let opened = sought.first(|attempt| Opened::at(attempt, &sought, progress))?;
    let registry = &opened.registry;
    let (source, document) = opened.source();
    let Listing { index, images } = list(&source, &document)?;
    let chosen = chosen(registry, &images, &options.platforms)?;
    let target = Registry::connect(to, RegistryOperation::Push, WRITE, &writing, progress)?;
    let mut publisher = Publisher {
        source: &source,
        target: &target,
        store,
        options,
        pushed: Pushed::default(),
        copied: BTreeSet::new(),
        kept: Kept::default(),
        converted: BTreeMap::new(),
        artifacts: 0,
    };
    let mut index = index.unwrap_or_else(|| Index {
        manifests: images
            .iter()
            .map(|(image, platform)| with_platform(image, platform))
            .collect(),
        ..Index::default()
    });
    index.media_type = Some(INDEX.to_owned());
    index
        .manifests
        .retain(|one| !one.annotations.contains_key(ROOT));
    if !to.has_repository_of(&registry.image) {
        if registry.image.registry() == to.registry() {
            target.read_also(registry.reference())?;
        }
        publisher.copy_all(&index, &document, &chosen)?;
    }
    let mut variants = Vec::new();
    for (image, platform) in chosen {
        let (descriptor, variant) = publisher.convert(image, platform)?;
        // Behind all container images, because clients take the first one for a platform.
        index.manifests.push(of_variant(&descriptor, platform));
        variants.push(variant);
    }
    let bytes = serde_json::to_vec(&index).map_err(|error| target.fail_protocol(error))?;
    let digest = Digest::of(&bytes);
    progress.check()?;
    push_manifest(&target, to, &digest, &bytes, INDEX).map_err(|stop| stop.into_error(&target))?;
    let mut pushed = publisher.pushed;
    pushed.new.add(bytes.len() as u64);
    let (read, written) = (registry.traffic(), target.traffic());
    pushed.traffic = Traffic {
        requests: read.requests + written.requests,
        received: read.received + written.received,
        sent: read.sent + written.sent,
    };
    Ok(Published {
        index: digest,
        variants,
        pushed,
        artifacts: publisher.artifacts,
    })
}

/// Chooses the images that are converted.
fn chosen<'i>(
    registry: &Registry<'_>,
    images: &'i [(Descriptor, Platform)],
    wanted: &[Platform],
) -> Result<Vec<&'i (Descriptor, Platform)>> {
    let fits = |platform: &Platform| {
        platform.os() == "linux"
            && (wanted.is_empty() || wanted.iter().any(|wanted| wanted.fit(platform).is_some()))
    };
    let chosen: Vec<_> = images
        .iter()
        .filter(|(_, platform)| fits(platform))
        .collect();
    if chosen.is_empty() {
        let found = images.iter().map(|(_, platform)| platform.to_string());
        let found = found.collect::<Vec<_>>().join(", ");
        let message = Message::new(found);
        return Err(registry.fail(RegistryFault::NoPlatform { found: message }));
    }
    Ok(chosen)
}

/// Returns a descriptor with its platform.
fn with_platform(descriptor: &Descriptor, platform: &Platform) -> Descriptor {
    let mut descriptor = descriptor.clone();
    if let Ok(platform) = serde_json::to_value(platform) {
        descriptor.other.entry("platform").or_insert(platform);
    }
    descriptor
}

/// Returns the descriptor of a PuzzleFS image with its platform. Clients that know `os.features` leave it
/// out.
fn of_variant(descriptor: &Descriptor, platform: &Platform) -> Descriptor {
    let mut descriptor = with_platform(descriptor, platform);
    let platform = descriptor.other.get_mut("platform");
    if let Some(platform) = platform.and_then(|platform| platform.as_object_mut()) {
        platform.insert("os.features".to_owned(), vec![FEATURE].into());
    }
    descriptor
}

/// A publication.
struct Publisher<'p, 'r> {
    source: &'p Source<'r>,
    target: &'p Registry<'r>,
    store: &'p Store,
    options: &'p PublishOptions,
    pushed: Pushed,
    /// The manifests that were copied.
    copied: BTreeSet<Digest>,
    /// The blobs of images that are converted next.
    kept: Kept,
    /// The images that were converted.
    converted: BTreeMap<Digest, (Descriptor, Variant)>,
    artifacts: u64,
}

impl Publisher<'_, '_> {
    /// Makes a PuzzleFS image of a container image, and pushes it without a tag. Returns its descriptor.
    fn convert(
        &mut self,
        image: &Descriptor,
        platform: &Platform,
    ) -> Result<(Descriptor, Variant)> {
        let container = self.digest(&image.digest)?;
        if let Some(done) = self.converted.get(&container) {
            return Ok(done.clone());
        }
        let mut build = self.options.build.clone();
        build.tag = format!("{}-{}", build.tag, platform.to_string().replace('/', "-"));
        let jobs = self.options.connection.jobs;
        let fetching = FetchOptions { jobs };
        let source = KeptSource {
            source: self.source,
            kept: &self.kept,
        };
        let made = obtain(
            &source,
            image,
            None,
            self.store,
            &build,
            fetching,
            self.target.progress,
        )?;
        if let Obtained::Fetched(_) = made {
            return Err(self.source.registry.fail(RegistryFault::AlreadyConverted));
        }
        let made = self.store.any_image(&Selector::Tag(build.tag))?;
        let digest = *made.root.manifest_digest();
        let name = self.target.image.at(digest);
        let pushed = push_image(self.target, self.store, &made, &name, None)?;
        self.pushed.add_all(&pushed);
        let size = self.store.blob_size(&digest)?.unwrap_or_default();
        let root = *made.root.digest();
        let variant = Variant {
            platform: platform.clone(),
            manifest: digest,
            root,
        };
        let descriptor = Descriptor::new(MANIFEST, digest, size).annotated(ROOT, root.to_hex());
        let done = (descriptor, variant);
        self.converted.insert(container, done.clone());
        Ok(done)
    }

    /// Copies all images of an index, and the artifacts that refer to them and to the document that it was
    /// read from. Converts the `chosen` images meanwhile, whose layers are then fetched once.
    fn copy_all(
        &mut self,
        index: &Index,
        document: &Descriptor,
        chosen: &[&(Descriptor, Platform)],
    ) -> Result<()> {
        for (image, _) in chosen {
            self.kept.images.insert(self.digest(&image.digest)?);
        }
        for image in &index.manifests {
            self.copy(image, 0)?;
            for (image, platform) in chosen {
                if self.copied.contains(&self.digest(&image.digest)?) {
                    self.convert(image, platform)?;
                }
            }
            lock(&self.kept.files).clear();
        }
        let subjects = index.manifests.iter().chain([document]);
        let subjects: BTreeSet<&str> = subjects.map(|subject| &*subject.digest).collect();
        for subject in subjects {
            self.copy_artifacts(subject)?;
        }
        Ok(())
    }

    /// Copies a manifest or an index with all that it lists.
    fn copy(&mut self, descriptor: &Descriptor, depth: usize) -> Result<()> {
        let source = self.source.registry;
        let digest = self.digest(&descriptor.digest)?;
        if !self.copied.insert(digest) {
            return Ok(());
        }
        if self.copied.len() > MANIFESTS_MAX {
            let max = MANIFESTS_MAX;
            return Err(source.fail(RegistryFault::TooManyManifests { max }));
        }
        self.target.progress.check()?;
        let bytes = self.source.manifest(&digest)?;
        self.copy_bytes(&bytes, &self.target.image.at(digest), depth)
    }

    /// Copies all that a manifest or an index lists, and then itself, under a name.
    fn copy_bytes(&mut self, bytes: &[u8], name: &RemoteImage, depth: usize) -> Result<()> {
        let target = self.target;
        let source = self.source.registry;
        let parsed: Listed = json::parse(bytes, "a manifest or an index")
            .map_err(|cause| source.fail_protocol(cause))?;
        if depth >= INDEX_DEPTH {
            return Err(source.fail_protocol("an index in an index in an index"));
        }
        for manifest in &parsed.manifests {
            self.copy(manifest, depth + 1)?;
        }
        let mut blobs = Vec::new();
        for blob in parsed.config.iter().chain(&parsed.layers) {
            blobs.push(RemoteBlob {
                digest: self.digest(&blob.digest)?,
                size: blob.size,
            });
        }
        let keep = self.kept.images.contains(&Digest::of(bytes));
        self.copy_blobs(&blobs, keep)?;
        let media_type = match (&parsed.media_type, parsed.config.is_some()) {
            (Some(media_type), _) => media_type,
            (None, true) => MANIFEST,
            (None, false) => INDEX,
        };
        push_manifest(target, name, &Digest::of(bytes), bytes, media_type)
            .map_err(|stop| stop.into_error(target))?;
        self.pushed.new.add(bytes.len() as u64);
        Ok(())
    }

    fn copy_blobs(&mut self, blobs: &[RemoteBlob], keep: bool) -> Result<()> {
        let (source, target) = (self.source, self.target);
        let same_registry = source.registry.image.registry() == target.image.registry();
        let mount = same_registry.then(|| source.registry.image.reference());
        let pushed = Mutex::new(&mut self.pushed);
        for_each(
            self.options.connection.jobs,
            blobs,
            || (),
            |(), blob| {
                let content = RemoteContent {
                    source,
                    blob,
                    directory: self.store.path().to_path_buf(),
                    file: Mutex::default(),
                };
                let placed = push_blob(target, &blob.digest, blob.size, &content, mount);
                let placed = placed.map_err(|stop| stop.into_error(target))?;
                lock(&pushed).add(placed, blob.size);
                if let Some(file) = lock(&content.file).take().filter(|_| keep) {
                    lock(&self.kept.files).insert(blob.digest, file);
                }
                Ok(())
            },
        )
    }

    /// Copies the signatures and other artifacts that refer to a manifest.
    fn copy_artifacts(&mut self, subject: &str) -> Result<()> {
        let source = self.source.registry;
        let mut referrers = referrers(source, subject)?.unwrap_or_default();
        for suffix in ARTIFACT_TAGS {
            let tag = format!("{}{suffix}", fallback_tag(subject));
            let Some(bytes) = tagged(source, &tag)? else {
                continue;
            };
            match listed(&bytes).filter(|_| suffix.is_empty()) {
                // The list of a registry without lists of its own.
                Some(listed) => add_new(&mut referrers, listed),
                None => {
                    let name = self.target.image.tagged(&tag)?;
                    self.copy_bytes(&bytes, &name, 0)?;
                    self.artifacts += 1;
                }
            }
        }
        for referrer in &referrers {
            self.copy(referrer, 0)?;
            self.artifacts += 1;
        }
        if referrers.is_empty() {
            return Ok(());
        }
        self.list_referrers(subject, referrers)
    }

    /// Lists artifacts under a tag, if the target has no lists of its own.
    fn list_referrers(&mut self, subject: &str, new: Vec<Descriptor>) -> Result<()> {
        let target = self.target;
        if referrers(target, subject)?.is_some() {
            return Ok(());
        }
        let tag = fallback_tag(subject);
        let before = tagged(target, &tag)?.and_then(|bytes| listed(&bytes));
        let mut index = Index {
            media_type: Some(INDEX.to_owned()),
            manifests: before.unwrap_or_default(),
            ..Index::default()
        };
        add_new(&mut index.manifests, new);
        let bytes = serde_json::to_vec(&index).map_err(|error| target.fail_protocol(error))?;
        let name = target.image.tagged(&tag)?;
        push_manifest(target, &name, &Digest::of(&bytes), &bytes, INDEX)
            .map_err(|stop| stop.into_error(target))?;
        self.pushed.new.add(bytes.len() as u64);
        Ok(())
    }

    fn digest(&self, text: &str) -> Result<Digest> {
        Digest::from_oci(text).ok_or_else(|| {
            let registry = self.source.registry;
            registry.fail_protocol(format_args!("'{text}' is not a sha256 digest"))
        })
    }
}

/// The tag under which a registry without lists of referrers has the list for a manifest.
fn fallback_tag(subject: &str) -> String {
    subject.replace(':', "-")
}

/// Returns the artifacts that a registry lists for a manifest, or `None` if it has no such lists.
fn referrers(registry: &Registry<'_>, subject: &str) -> Result<Option<Vec<Descriptor>>> {
    let path = format!("referrers/{subject}");
    match registry.read_manifest(&path, INDEX, MANIFEST_MAX) {
        Ok(answer) => {
            let index: Index = json::parse(&answer.body, "an OCI image index")
                .map_err(|cause| registry.fail_protocol(cause))?;
            Ok(Some(index.manifests))
        }
        Err(Stop::Failure(failure)) if matches!(failure.status, Some(400..=499)) => Ok(None),
        Err(stop) => Err(stop.into_error(registry)),
    }
}

/// Returns the manifest or the index under a tag, if there is one.
fn tagged(registry: &Registry<'_>, tag: &str) -> Result<Option<Vec<u8>>> {
    match manifest(registry, tag) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(Stop::Failure(failure)) if failure.status == Some(404) => Ok(None),
        Err(stop) => Err(stop.into_error(registry)),
    }
}

/// Returns the manifests that an index lists, or `None` if it is something else.
fn listed(bytes: &[u8]) -> Option<Vec<Descriptor>> {
    let parsed: Listed = json::parse(bytes, "an index").ok()?;
    parsed.config.is_none().then_some(parsed.manifests)
}

/// Adds descriptors that are not there.
fn add_new(to: &mut Vec<Descriptor>, new: Vec<Descriptor>) {
    for descriptor in new {
        if to.iter().all(|there| there.digest != descriptor.digest) {
            to.push(descriptor);
        }
    }
}

/// Blobs that were fetched for a copy, in temporary files.
#[derive(Default)]
struct Kept {
    /// The manifests of images that are converted.
    images: BTreeSet<Digest>,
    /// Their configurations and layers.
    files: Mutex<BTreeMap<Digest, File>>,
}

/// A source of images that does not fetch kept blobs again.
struct KeptSource<'k, 'r> {
    source: &'k Source<'r>,
    kept: &'k Kept,
}

impl ImageSource for KeptSource<'_, '_> {
    fn name(&self) -> String {
        self.source.name()
    }

    fn manifest(&self, digest: &Digest) -> Result<Vec<u8>> {
        self.source.manifest(digest)
    }
}

impl BlobSource for KeptSource<'_, '_> {
    fn read(
        &self,
        blob: &RemoteBlob,
        range: Range<u64>,
        give: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<bool> {
        let file = match lock(&self.kept.files).get(&blob.digest) {
            Some(file) => file.try_clone(),
            None => return self.source.read(blob, range, give),
        };
        let fail = |cause| SystemError::Call {
            path: PathBuf::from(blob.digest.to_oci()),
            action: "read the copy of",
            cause,
        };
        let file = file.map_err(fail)?;
        let mut piece = vec![0; PIECE];
        let mut at = range.start;
        while at < range.end {
            let wanted = (range.end - at).min(PIECE as u64) as usize;
            let read = file.read_at(&mut piece[..wanted], at).map_err(fail)?;
            if read == 0 {
                return Err(fail(ErrorKind::UnexpectedEof.into()).into());
            }
            give(&piece[..read])?;
            at += read as u64;
        }
        Ok(true)
    }
}

/// The descriptors of a manifest or an index.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    media_type: Option<String>,
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

/// A blob of another repository. It is fetched to a temporary file if an upload needs it.
struct RemoteContent<'c, 'r> {
    source: &'c Source<'r>,
    blob: &'c RemoteBlob,
    directory: PathBuf,
    file: Mutex<Option<File>>,
}

impl Content for RemoteContent<'_, '_> {
    fn open(&self) -> Result<File> {
        let fail = |action| {
            let path = self.directory.clone();
            move |cause| {
                Error::from(SystemError::Call {
                    path,
                    action,
                    cause,
                })
            }
        };
        let mut kept = lock(&self.file);
        let mut file = match kept.take() {
            Some(file) => file,
            None => {
                let create = "create a temporary file in";
                let mut file = tempfile::tempfile_in(&self.directory).map_err(fail(create))?;
                self.source
                    .read(self.blob, 0..self.blob.size, &mut |piece| {
                        file.write_all(piece)
                            .map_err(fail("write a temporary file in"))
                    })?;
                file
            }
        };
        file.rewind().map_err(fail("read a temporary file in"))?;
        let another = file
            .try_clone()
            .map_err(fail("reopen a temporary file in"))?;
        *kept = Some(file);
        Ok(another)
    }

    fn path(&self) -> PathBuf {
        let name = self.source.registry.image.to_string();
        PathBuf::from(name).join(self.blob.digest.to_oci())
    }
}
