// SPDX-License-Identifier: MIT OR Apache-2.0

//! Publishes a PuzzleFS image next to the container image that it is made of, under one tag.
//!
//! [`Origin`] and [`Destination`] are the places; registries and object stores implement them.

use crate::client::{RegistryOptions, Traffic};
use crate::credentials::UserPassword;
use crate::error::{Message, PublishFault};
use crate::push::{Placed, Pushed};
use crate::upload::Content;
use puzzlefs_lib::builder::BuildOptions;
use puzzlefs_lib::error::SystemError;
use puzzlefs_lib::fetch::{BlobSource, FetchOptions, ImageSource, RemoteBlob};
use puzzlefs_lib::import::{list, obtain, Listing, Obtained};
use puzzlefs_lib::oci::{Descriptor, Index, INDEX, MANIFEST, ROOT};
use puzzlefs_lib::platform::Platform;
use puzzlefs_lib::threads::{for_each, lock};
use puzzlefs_lib::tree::AnyImage;
use puzzlefs_lib::{json, Digest, Error, Progress, Result, Selector, Store};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::fs::File;
use std::io::{ErrorKind, Seek as _, Write as _};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Mutex;

/// The feature of the operating system that a PuzzleFS image needs, in an index.
const FEATURE: &str = "puzzlefs";
/// The largest depth of indexes in indexes.
const INDEX_DEPTH: usize = 4;
/// The largest number of manifests and indexes that are copied.
pub(crate) const MANIFESTS_MAX: usize = 4096;
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

/// A place that a publication reads from.
pub(crate) trait Origin: ImageSource {
    /// Returns the artifacts that the place lists for a manifest.
    fn referrers(&self, subject: &str) -> Result<Vec<Descriptor>>;

    /// Returns the manifest or the index under a tag, if there is one.
    fn tagged(&self, tag: &str) -> Result<Option<Vec<u8>>>;

    /// Returns the error that something of the place does not keep to its specification.
    fn malformed(&self, cause: &dyn Display) -> Error;

    /// Returns the error for a fault.
    fn fail(&self, fault: PublishFault) -> Error;

    /// The bytes and requests so far.
    fn traffic(&self) -> Traffic;
}

/// The name of a manifest or an index at a place.
#[derive(Clone, Copy)]
pub(crate) enum Name<'n> {
    /// Its digest alone.
    Digest,
    /// A tag.
    Tag(&'n str),
}

/// A place that a publication writes to.
pub(crate) trait Destination: Sync {
    /// Uploads a blob, unless the place has it.
    fn push_blob(&self, blob: &RemoteBlob, content: &dyn Content) -> Result<Placed>;

    /// Uploads an image of a store without a tag. The result has no traffic.
    fn push_image(&self, store: &Store, image: &AnyImage) -> Result<Pushed>;

    /// Uploads a manifest or an index.
    fn push_manifest(&self, name: Name<'_>, bytes: &[u8], media_type: &str) -> Result<Placed>;

    /// Lists artifacts that refer to a manifest. Returns the tag and the list if the place has no lists of
    /// its own, and the caller has to upload it.
    fn list_artifacts(
        &self,
        subject: &str,
        artifacts: &[Descriptor],
    ) -> Result<Option<(String, Vec<u8>)>>;

    /// Makes everything visible that is not yet. It is the last call.
    fn finish(&self) -> Result<()>;

    /// The progress of the publication.
    fn progress(&self) -> &Progress;

    /// The bytes and requests so far.
    fn traffic(&self) -> Traffic;
}

/// Converts a container image, and publishes an index of it and of the PuzzleFS image under a tag.
///
/// `connect` connects to the destination, and returns true if that has all that the origin has. Otherwise all
/// images of the index are copied, with artifacts that refer to them.
///
/// # Errors
///
/// Those of both places. The tag then stays as it was.
pub(crate) fn publish<O: Origin, D: Destination>(
    origin: &O,
    document: &Descriptor,
    connect: impl FnOnce() -> Result<(D, bool)>,
    tag: &str,
    store: &Store,
    options: &PublishOptions,
) -> Result<Published> {
    let Listing { index, images } = list(origin, document)?;
    let chosen = chosen(origin, &images, &options.platforms)?;
    let (target, is_same) = connect()?;
    let mut publisher = Publisher {
        source: origin,
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
    if !is_same {
        publisher.copy_all(&index, document, &chosen)?;
    }
    let mut variants = Vec::new();
    for (image, platform) in chosen {
        let (descriptor, variant) = publisher.convert(image, platform)?;
        // Behind all container images, because clients take the first one for a platform.
        index.manifests.push(of_variant(&descriptor, platform));
        variants.push(variant);
    }
    let bytes = serde_json::to_vec(&index).map_err(|error| origin.malformed(&error))?;
    target.progress().check()?;
    publisher.push_manifest(Name::Tag(tag), &bytes, INDEX)?;
    target.finish()?;
    let mut pushed = publisher.pushed;
    let (read, written) = (origin.traffic(), target.traffic());
    pushed.traffic = Traffic {
        requests: read.requests + written.requests,
        received: read.received + written.received,
        sent: read.sent + written.sent,
    };
    Ok(Published {
        index: Digest::of(&bytes),
        variants,
        pushed,
        artifacts: publisher.artifacts,
    })
}

/// Chooses the images that are converted.
fn chosen<'i>(
    origin: &impl Origin,
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
        let found = Message::new(found);
        return Err(origin.fail(PublishFault::NoPlatform { found }));
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
struct Publisher<'p, O, D> {
    source: &'p O,
    target: &'p D,
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

impl<O: Origin, D: Destination> Publisher<'_, O, D> {
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
            self.target.progress(),
        )?;
        if let Obtained::Fetched(_) = made {
            return Err(self.source.fail(PublishFault::AlreadyConverted));
        }
        let made = self.store.any_image(&Selector::Tag(build.tag))?;
        let digest = *made.root.manifest_digest();
        let pushed = self.target.push_image(self.store, &made)?;
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
        let digest = self.digest(&descriptor.digest)?;
        if !self.copied.insert(digest) {
            return Ok(());
        }
        if self.copied.len() > MANIFESTS_MAX {
            let max = MANIFESTS_MAX;
            return Err(self.source.fail(PublishFault::TooManyManifests { max }));
        }
        self.target.progress().check()?;
        let bytes = self.source.manifest(&digest)?;
        self.copy_bytes(&bytes, Name::Digest, depth)
    }

    /// Copies all that a manifest or an index lists, and then itself, under a name.
    fn copy_bytes(&mut self, bytes: &[u8], name: Name<'_>, depth: usize) -> Result<()> {
        let parsed: Listed = json::parse(bytes, "a manifest or an index")
            .map_err(|cause| self.source.malformed(&cause))?;
        if depth >= INDEX_DEPTH {
            let cause = "an index in an index in an index";
            return Err(self.source.malformed(&cause));
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
        self.push_manifest(name, bytes, media_type)
    }

    fn push_manifest(&mut self, name: Name<'_>, bytes: &[u8], media_type: &str) -> Result<()> {
        let placed = self.target.push_manifest(name, bytes, media_type)?;
        self.pushed.add(placed, bytes.len() as u64);
        Ok(())
    }

    fn copy_blobs(&mut self, blobs: &[RemoteBlob], keep: bool) -> Result<()> {
        let (source, target) = (self.source, self.target);
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
                let placed = target.push_blob(blob, &content)?;
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
        let mut referrers = self.source.referrers(subject)?;
        for suffix in ARTIFACT_TAGS {
            let tag = format!("{}{suffix}", fallback_tag(subject));
            let Some(bytes) = self.source.tagged(&tag)? else {
                continue;
            };
            match listed(&bytes).filter(|_| suffix.is_empty()) {
                // The list of a place without lists of its own.
                Some(listed) => add_new(&mut referrers, &listed),
                None => {
                    self.copy_bytes(&bytes, Name::Tag(&tag), 0)?;
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
        match self.target.list_artifacts(subject, &referrers)? {
            Some((tag, list)) => self.push_manifest(Name::Tag(&tag), &list, INDEX),
            None => Ok(()),
        }
    }

    fn digest(&self, text: &str) -> Result<Digest> {
        Digest::from_oci(text).ok_or_else(|| {
            let cause = format!("'{text}' is not a sha256 digest");
            self.source.malformed(&cause)
        })
    }
}

/// The tag under which a place without lists of referrers has the list for a manifest.
pub(crate) fn fallback_tag(subject: &str) -> String {
    subject.replace(':', "-")
}

/// Returns the manifests that an index lists, or `None` if it is something else.
pub(crate) fn listed(bytes: &[u8]) -> Option<Vec<Descriptor>> {
    let parsed: Listed = json::parse(bytes, "an index").ok()?;
    parsed.config.is_none().then_some(parsed.manifests)
}

/// Adds descriptors that are not there.
pub(crate) fn add_new(to: &mut Vec<Descriptor>, new: &[Descriptor]) {
    for descriptor in new {
        if to.iter().all(|there| there.digest != descriptor.digest) {
            to.push(descriptor.clone());
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
struct KeptSource<'k, S> {
    source: &'k S,
    kept: &'k Kept,
}

impl<S: ImageSource> ImageSource for KeptSource<'_, S> {
    fn name(&self) -> String {
        self.source.name()
    }

    fn manifest(&self, digest: &Digest) -> Result<Vec<u8>> {
        self.source.manifest(digest)
    }
}

impl<S: ImageSource> BlobSource for KeptSource<'_, S> {
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

/// A blob of another place. It is fetched to a temporary file if an upload needs it.
struct RemoteContent<'c, S> {
    source: &'c S,
    blob: &'c RemoteBlob,
    directory: PathBuf,
    file: Mutex<Option<File>>,
}

impl<S: ImageSource> Content for RemoteContent<'_, S> {
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
        PathBuf::from(self.source.name()).join(self.blob.digest.to_oci())
    }
}
