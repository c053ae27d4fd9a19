// SPDX-License-Identifier: MIT OR Apache-2.0

//! From a container image to a PuzzleFS image of its root filesystem.
//!
//! Reads OCI image layouts, as directories and as archives, and archives of `docker save`. The layers
//! become one tree. If layers are kept, each becomes a layer with its changes to the tree of those
//! before it. Every blob is compared with its digest. The configuration is kept.

use crate::build::build_options::BuildOptions;
use crate::build::builder::{Config, Input, Stack, Summary};
use crate::build::packed;
use crate::build::source::{Source, SourceData};
use crate::error::{ContainerFault, Error, Result, TreeFault};
use crate::image::config;
use crate::ingest::archive::{self, archive_error, Spool, Stream};
use crate::ingest::assembly::{self, Assembly};
use crate::ingest::container::{Container, Witness};
use crate::ingest::tar::{Member, MemberKind, Reader};
use crate::model::digest::Digest;
use crate::model::json;
use crate::model::media::{self, Document};
use crate::model::oci::{self, Descriptor, Index, Manifest};
use crate::model::platform::Platform;
use crate::model::tree::LeftOut;
use crate::model::version::Format;
use crate::store::oci_layout::Store;
use crate::store::staging::Staging;
use crate::sys::progress::Progress;
use serde::de::DeserializeOwned;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// The largest index, manifest or configuration.
const JSON_MAX: u64 = 16 << 20;
/// The largest depth of nested indexes.
const INDEX_DEPTH: usize = 4;

/// Which container image to import.
#[derive(Clone, Debug)]
pub struct ImportSource {
    /// A directory or an archive; `-` is one on the standard input.
    pub path: PathBuf,
    /// Its tag or name there, needed where there are several.
    pub tag: Option<String>,
    /// For which platform, if not for this one.
    pub platform: Option<Platform>,
}

impl ImportSource {
    /// Reads `<path>` or `<path>:<name>`. The path ends at the last colon before which a file exists.
    pub fn parse(text: &OsStr, platform: Option<Platform>) -> Self {
        let bytes = text.as_bytes();
        let mut source = ImportSource {
            path: PathBuf::from(text),
            tag: None,
            platform,
        };
        let colons = (0..bytes.len()).rev().filter(|&at| bytes[at] == b':');
        for colon in colons.take_while(|_| !source.path.exists()) {
            let path = PathBuf::from(OsStr::from_bytes(&bytes[..colon]));
            if path.exists() || path.as_os_str() == "-" {
                let tag = String::from_utf8_lossy(&bytes[colon + 1..]);
                source.tag = Some(tag.into_owned());
                source.path = path;
                break;
            }
        }
        source
    }
}

/// A chosen container image.
struct Chosen {
    config: Config,
    layers: Vec<Layer>,
    /// The annotations of its manifest.
    annotations: BTreeMap<String, String>,
    /// The annotations of the descriptors and indexes that led to the manifest.
    index_annotations: BTreeMap<String, String>,
}

/// The file of a layer, and its digests.
struct Layer {
    file: String,
    /// The digest and size of the file, where they are known.
    blob: Option<(Digest, u64)>,
    /// The digest of its uncompressed contents.
    content: Digest,
}

/// The parts of the configuration of a container image that an import needs.
#[derive(Deserialize)]
struct ImageConfig {
    #[serde(flatten)]
    platform: Platform,
    rootfs: Option<RootFs>,
}

#[derive(Deserialize)]
struct RootFs {
    #[serde(default, deserialize_with = "oci::or_null")]
    diff_ids: Vec<String>,
}

/// An image in the `manifest.json` of `docker save`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SavedImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(deserialize_with = "oci::or_null")]
    layers: Vec<String>,
}

/// Imports a container image into `store`.
pub fn import(
    source: &ImportSource,
    store: &Store,
    options: &BuildOptions,
    progress: &Progress,
) -> Result<Summary> {
    packed::check_options(options)?;
    let staging = Staging::new(store)?.checking(options.check);
    let container = Container::open(&source.path, &staging, progress)?;
    let importer = Importer {
        container: &container,
        source,
    };
    let chosen = importer.choose()?;
    let mut spool = Spool::new(&staging)?;
    let mut assembly = Assembly::new();
    let mut stack = Stack::new(store, &staging, options, progress)?;
    let mut layers = chosen.layers.iter().peekable();
    let mut remarks = container.remarks.clone();
    while let Some(layer) = layers.next() {
        remarks.extend(importer.layer(layer, &mut spool, &mut assembly, progress)?);
        if options.keep_layers && layers.peek().is_some() {
            let source = importer.contents_of(spool.contents()?);
            stack.push(&source, assembly.clone().finish(&options.rules))?;
        }
    }
    let input = Input {
        source: importer.contents_of(spool.finish()),
        tree: assembly.finish(&options.rules),
        left_out: LeftOut::default(),
        remarks,
        config: Some(chosen.config),
        annotations: chosen.annotations,
        index_annotations: kept(chosen.index_annotations),
    };
    match options.format {
        Format::V3 => stack.finish(input),
        Format::V4 => packed::store(input, store, &staging, options, progress),
    }
}

/// The annotations of an index that the image keeps: all but its names in the index that it is from.
fn kept(mut annotations: BTreeMap<String, String>) -> BTreeMap<String, String> {
    for name in NAMES {
        annotations.remove(name);
    }
    annotations
}

struct Importer<'a> {
    container: &'a Container,
    source: &'a ImportSource,
}

impl Importer<'_> {
    fn error(&self, fault: ContainerFault) -> Error {
        archive_error(&self.container.path, fault)
    }

    fn choose(&self) -> Result<Chosen> {
        if let Some(bytes) = self.container.read("index.json", JSON_MAX)? {
            return self.oci_image(&self.parse("index.json", "an OCI image index", &bytes)?);
        }
        if let Some(bytes) = self.container.read("manifest.json", JSON_MAX)? {
            if matches!(
                Document::of_bytes(&bytes),
                Document::Manifest | Document::Index
            ) {
                let path = self.container.path.clone();
                return Err(self.error(ContainerFault::SkopeoDirectory { path }));
            }
            let what = "the manifest of 'docker save'";
            let images: Vec<SavedImage> = self.parse("manifest.json", what, &bytes)?;
            return self.saved_image(&images);
        }
        let has_repositories = self.container.read("repositories", JSON_MAX)?.is_some();
        Err(self.error(if has_repositories {
            ContainerFault::OldDocker
        } else {
            ContainerFault::NotAnImage
        }))
    }

    /// Parses a document of this name, which has to be `what`.
    fn parse<T: DeserializeOwned>(&self, name: &str, what: &str, bytes: &[u8]) -> Result<T> {
        json::parse(bytes, what).map_err(|cause| {
            let name = name.to_owned();
            self.error(ContainerFault::Document { name, cause })
        })
    }

    /// An image of an OCI image layout.
    fn oci_image<'i>(&self, index: &'i Index) -> Result<Chosen> {
        let mut candidates: Vec<&'i Descriptor> = index.manifests.iter().collect();
        if let Some(tag) = &self.source.tag {
            let ending = format!("/{tag}");
            let called = |name: &str| name == tag || name.ends_with(&ending);
            candidates.retain(|descriptor| names(descriptor).any(called));
        }
        // Images of several names may have one tag: 'latest', where Docker saved them.
        let full_names = |descriptors: &[&'i Descriptor]| -> BTreeSet<&'i str> {
            let descriptors = descriptors.iter();
            descriptors.filter_map(|one| names(one).last()).collect()
        };
        let found = full_names(&candidates);
        if candidates.is_empty() || found.len() > 1 {
            let all: Vec<&Descriptor> = index.manifests.iter().collect();
            let all = full_names(&all).into_iter().map(str::to_owned);
            return Err(self.choice(found.len(), all.collect()));
        }
        let mut descriptor = self.for_platform(&candidates)?.clone();
        let mut annotations = BTreeMap::new();
        for _ in 0..INDEX_DEPTH {
            annotations.extend(descriptor.annotations.clone());
            let document = match Document::of_type(&descriptor.media_type) {
                Document::Unknown => Document::of_bytes(&self.blob(&descriptor)?),
                document => document,
            };
            match document {
                Document::Index => {}
                Document::Manifest => {
                    let chosen = self.manifest(&descriptor.digest, &self.blob(&descriptor)?)?;
                    return Ok(Chosen {
                        index_annotations: annotations,
                        ..chosen
                    });
                }
                Document::Schema1 => return Err(self.error(ContainerFault::Schema1)),
                Document::Artifact | Document::Unknown => {
                    let media_type = descriptor.media_type;
                    return Err(self.error(ContainerFault::Artifact(media_type)));
                }
            }
            let bytes = self.blob(&descriptor)?;
            let index: Index = self.parse(&descriptor.digest, "an OCI image index", &bytes)?;
            let own = index.other.get("annotations").cloned();
            let own: Option<BTreeMap<String, String>> =
                own.and_then(|own| serde_json::from_value(own).ok());
            annotations.extend(own.unwrap_or_default());
            let candidates: Vec<&Descriptor> = index.manifests.iter().collect();
            descriptor = self.for_platform(&candidates)?.clone();
        }
        Err(self.error(ContainerFault::TooDeep))
    }

    /// The image for the platform asked for; for this one, or the only one, if none was.
    fn for_platform<'d>(&self, candidates: &[&'d Descriptor]) -> Result<&'d Descriptor> {
        let images = candidates.iter().copied().filter(|one| !is_attached(one));
        let images: Vec<&Descriptor> = images.collect();
        // Documents that are attached to images can be chosen by name only, and are refused later.
        let candidates = match &images[..] {
            [] => candidates,
            images => images,
        };
        if let ([only], None) = (candidates, &self.source.platform) {
            return Ok(only);
        }
        let wanted = self.source.platform.clone().unwrap_or_else(Platform::host);
        let said = |one: &Descriptor| Platform::of(one);
        // An index, perhaps, or for whatever its configuration says.
        let any = |one: &Descriptor| candidates.len() == 1 && said(one).is_none();
        let best = |platform: &dyn Fn(&Descriptor) -> Option<Platform>| {
            let fits = candidates.iter().rev().filter_map(|one| {
                let fit = wanted.fit(&platform(one)?)?;
                Some((fit, *one))
            });
            Some(fits.max_by_key(|(fit, _)| *fit)?.1)
        };
        let found = candidates.iter().copied().find(|one| any(one));
        let found = found.or_else(|| best(&said));
        let configured = |one: &Descriptor| self.configured_platform(one);
        found.or_else(|| best(&configured)).ok_or_else(|| {
            let there = candidates.iter().filter_map(|one| said(one));
            self.error(ContainerFault::NoPlatform {
                found: there.filter(Platform::is_known).collect(),
                wanted: wanted.clone(),
            })
        })
    }

    /// The platform of an image of which the index does not say it, if its configuration does.
    fn configured_platform(&self, descriptor: &Descriptor) -> Option<Platform> {
        if Platform::of(descriptor).is_some() || is_index(descriptor) {
            return None;
        }
        let manifest = self.blob(descriptor).ok()?;
        let manifest: Manifest = serde_json::from_slice(&manifest).ok()?;
        let config = self.blob(&manifest.config).ok()?;
        let config: ImageConfig = serde_json::from_slice(&config).ok()?;
        Some(config.platform)
    }

    /// An image by its manifest. All media types are looked at before anything else is read.
    fn manifest(&self, name: &str, bytes: &[u8]) -> Result<Chosen> {
        const WHAT: &str = "an OCI image manifest";
        let kind: media::Kind = self.parse(name, WHAT, bytes)?;
        if let Some(cause) = kind.not_importable() {
            return Err(self.error(ContainerFault::NotImportable(cause)));
        }
        let manifest: Manifest = self.parse(name, WHAT, bytes)?;
        let mut layers = Vec::new();
        for (number, descriptor) in manifest.layers.iter().enumerate() {
            let digest = self.digest(&descriptor.digest)?;
            let file = blob_name(&digest);
            if media::is_foreign(&descriptor.media_type) && self.container.file(&file)?.is_none() {
                return Err(self.foreign(number, descriptor, &file));
            }
            layers.push((file, digest, descriptor.size));
        }
        let config = Config {
            bytes: self.blob(&manifest.config)?,
        };
        let contents = self.contents(&config.bytes, layers.len())?;
        let layers = layers.into_iter().zip(contents);
        let layers = layers.map(|((file, digest, size), content)| Layer {
            file,
            blob: Some((digest, size)),
            content,
        });
        Ok(Chosen {
            layers: layers.collect(),
            config,
            annotations: manifest.annotations,
            index_annotations: BTreeMap::new(),
        })
    }

    /// A layer is not there, because only its vendor may distribute it.
    fn foreign(&self, number: usize, descriptor: &Descriptor, file: &str) -> Error {
        let urls = descriptor.other.get("urls");
        let urls = urls.and_then(|urls| urls.as_array());
        let url = urls.and_then(|urls| urls.first()?.as_str());
        self.error(ContainerFault::Foreign {
            number: number + 1,
            media_type: descriptor.media_type.clone(),
            url: url.map(str::to_owned),
            file: file.to_owned(),
        })
    }

    /// An image of an archive that `docker save` wrote.
    fn saved_image(&self, images: &[SavedImage]) -> Result<Chosen> {
        let names = |image: &SavedImage| image.repo_tags.clone().unwrap_or_default();
        let wanted = |image: &&SavedImage| match &self.source.tag {
            None => true,
            Some(tag) => {
                let is_tag = |name: &String| name == tag || name.ends_with(&format!(":{tag}"));
                names(image).iter().any(is_tag)
            }
        };
        let found: Vec<&SavedImage> = images.iter().filter(wanted).collect();
        let &[image] = &found[..] else {
            let names: Vec<String> = images.iter().flat_map(names).collect();
            return Err(self.choice(found.len(), names));
        };
        let bytes = self.container.read(&image.config, JSON_MAX)?;
        let bytes = bytes.ok_or_else(|| self.missing(&image.config))?;
        // The name is the digest, with a prefix, a suffix or in a directory; or says nothing.
        let stem = image.config.rsplit('/').next().unwrap_or_default();
        let stem = stem.strip_prefix("sha256:").unwrap_or(stem);
        let stem = stem.strip_suffix(".json").unwrap_or(stem);
        let digest = Digest::from_hex(stem.as_bytes());
        if digest.is_some_and(|digest| digest != Digest::of(&bytes)) {
            return Err(self.damaged(&image.config));
        }
        let contents = self.contents(&bytes, image.layers.len())?;
        let layers = image.layers.iter().zip(contents);
        let layers = layers.map(|(file, content)| Layer {
            file: file.clone(),
            blob: None,
            content,
        });
        Ok(Chosen {
            layers: layers.collect(),
            config: Config { bytes },
            annotations: BTreeMap::new(),
            index_annotations: BTreeMap::new(),
        })
    }

    /// The digests of the layers' contents, which the configuration has.
    fn contents(&self, config: &[u8], layers: usize) -> Result<Vec<Digest>> {
        let config: ImageConfig = self.parse("the configuration", config::WHAT, config)?;
        if config.platform.os().eq_ignore_ascii_case("windows") {
            return Err(self.error(ContainerFault::Windows(config.platform)));
        }
        if let Some(wanted) = &self.source.platform {
            if !wanted.takes_configured(&config.platform) {
                return Err(self.error(ContainerFault::OtherPlatform {
                    found: config.platform,
                    wanted: wanted.clone(),
                }));
            }
        }
        let Some(RootFs { diff_ids: ids }) = config.rootfs else {
            let wanted = config::WHAT;
            return Err(self.error(ContainerFault::NoLayers { wanted }));
        };
        if ids.len() != layers {
            return Err(self.error(ContainerFault::LayerCount {
                configuration: ids.len(),
                manifest: layers,
            }));
        }
        ids.iter().map(|id| self.digest(id)).collect()
    }

    /// Reads a small blob and checks it.
    fn blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let digest = self.digest(&descriptor.digest)?;
        let name = blob_name(&digest);
        let bytes = self.container.read(&name, JSON_MAX)?;
        let bytes = bytes.ok_or_else(|| self.missing(&name))?;
        if Digest::of(&bytes) == digest && bytes.len() as u64 == descriptor.size {
            Ok(bytes)
        } else {
            Err(self.damaged(&name))
        }
    }

    /// The contents of the layers, in a file.
    fn contents_of(&self, file: File) -> Source {
        Source {
            path: self.container.path.clone(),
            data: SourceData::Archive(file, None),
        }
    }

    /// Puts a layer over those before it, and returns remarks on it.
    fn layer(
        &self,
        layer: &Layer,
        spool: &mut Spool,
        assembly: &mut Assembly,
        progress: &Progress,
    ) -> Result<Vec<String>> {
        let path = &self.container.path.join(&layer.file);
        let file = self.container.file(&layer.file)?;
        let (file, size) = file.ok_or_else(|| self.missing(&layer.file))?;
        if layer.blob.is_some_and(|(_, wanted)| wanted != size) {
            return Err(self.damaged(&layer.file));
        }
        let (stored, content) = (Witness::default(), Witness::default());
        let stream = Stream::new(stored.watch(file.take(size)), path)?;
        // Its digest says whether it is whole.
        let mut reader = Reader::of_any_end(content.watch(stream));
        let mut members = Vec::new();
        let mut memory = 0;
        while let Some(mut member) = archive::next(&mut reader, path, progress)? {
            if let MemberKind::File(data) = &mut member.kind {
                spool.take(&mut reader, data, path, progress)?;
            }
            memory += member.memory();
            if memory > assembly::METADATA_MAX {
                return Err(archive_error(path, TreeFault::TooMuchMetadata));
            }
            members.push(member);
        }
        let remarks = archive::finish(&mut reader, path, progress)?;
        if content.seen().0 != layer.content {
            return Err(self.damaged(&layer.file));
        }
        if layer.blob.is_some_and(|blob| stored.seen() != blob) {
            return Err(self.damaged(&layer.file));
        }
        // What a layer takes away is of the layers below, wherever it is said.
        for member in &members {
            whiteout(assembly, member)
                .map_err(|fault| archive::member_error(path, member.path.clone(), fault))?;
        }
        let stay = members.into_iter().filter(|member| {
            let (_, name) = parent_and_name(&member.path);
            match first_name(&member.path) {
                AUFS_LINKS => true,
                first => !first.starts_with(AUFS) && !name.starts_with(WHITEOUT),
            }
        });
        for member in stay {
            archive::insert(assembly, member, path)?;
        }
        assembly
            .remove(AUFS_LINKS)
            .map_err(|fault| archive_error(path, fault))?;
        Ok(remarks)
    }

    fn digest(&self, text: &str) -> Result<Digest> {
        let wrong = || self.error(ContainerFault::Digest(text.to_owned()));
        Digest::from_oci(text).ok_or_else(wrong)
    }

    fn missing(&self, name: &str) -> Error {
        self.error(ContainerFault::Missing(name.to_owned()))
    }

    fn damaged(&self, name: &str) -> Error {
        self.error(ContainerFault::Damaged(name.to_owned()))
    }

    /// Returns the error that asks for a choice: `found` images match, of all with these names.
    fn choice(&self, found: usize, names: Vec<String>) -> Error {
        self.error(ContainerFault::Choice {
            found,
            tag: self.source.tag.clone(),
            names,
            source_path: self.source.path.clone(),
        })
    }
}

/// The annotations that name an image in an index: its tag and, last, what containerd calls it in full.
const NAMES: [&str; 2] = [oci::REF_NAME, "io.containerd.image.name"];

/// The names of an image in an index.
fn names(descriptor: &Descriptor) -> impl Iterator<Item = &str> {
    let names = NAMES.into_iter();
    names.filter_map(|key| descriptor.annotations.get(key).map(String::as_str))
}

fn is_index(descriptor: &Descriptor) -> bool {
    Document::of_type(&descriptor.media_type) == Document::Index
}

/// Returns true for what indexes list beside images: attestations, signatures and other artifacts.
fn is_attached(descriptor: &Descriptor) -> bool {
    const REFERENCE_TYPE: &str = "vnd.docker.reference.type";
    descriptor.annotations.contains_key(REFERENCE_TYPE)
        || descriptor.other.contains_key("artifactType")
        || Platform::of(descriptor).is_some_and(|platform| platform.os() == "unknown")
        || Document::of_type(&descriptor.media_type) == Document::Artifact
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{digest}")
}

/// The prefix of the names of whiteouts.
const WHITEOUT: &[u8] = b".wh.";

/// The prefix of names in the root that the AUFS driver of old Docker versions kept for itself.
const AUFS: &[u8] = b".wh..wh.";

/// The directory of it that has the first names of files, which members may be links to.
const AUFS_LINKS: &[u8] = b".wh..wh.plnk";

/// Takes away what a member says: `.wh.NAME` the name, `.wh..wh..opq` all that is in the directory.
fn whiteout(assembly: &mut Assembly, member: &Member) -> Result<(), TreeFault> {
    let (parent, name) = parent_and_name(&member.path);
    let Some(name) = name.strip_prefix(WHITEOUT) else {
        return Ok(());
    };
    match name {
        b".wh..opq" => assembly.clear(parent),
        // AUFS's.
        name if name.starts_with(WHITEOUT) => Ok(()),
        b"" | b"." | b".." => Err(TreeFault::Whiteout),
        name => assembly.remove(&[parent, name].join(&b'/')),
    }
}

/// Splits a path into the parent and the name. A directory may have a slash behind it.
fn parent_and_name(path: &[u8]) -> (&[u8], &[u8]) {
    let end = path.iter().rposition(|&byte| byte != b'/');
    let path = &path[..end.map_or(0, |end| end + 1)];
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

/// The name in the root that a path begins with.
fn first_name(path: &[u8]) -> &[u8] {
    let mut names = path.split(|&byte| byte == b'/');
    let name = names.find(|name| !name.is_empty() && *name != b".");
    name.unwrap_or_default()
}
