// SPDX-License-Identifier: MIT OR Apache-2.0

//! Chooses a container image, and reads its manifest and configuration.

use super::files::{blob_name, Files, Layer};
use super::source::ImportSource;
use crate::build::build_options::{BuildOptions, OrderChoice, ParentChoice};
use crate::build::builder::Config;
use crate::error::{ContainerFault, Error, Result};
use crate::image::config;
use crate::ingest::archive::archive_error;
use crate::model::digest::Digest;
use crate::model::json;
use crate::model::media::{self, Document, NotImportable};
use crate::model::oci::{self, Descriptor, Index, Manifest};
use crate::model::platform::Platform;
use crate::model::version::Format;
use serde::de::DeserializeOwned;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// The largest depth of nested indexes.
const INDEX_DEPTH: usize = 4;

/// The image that was chosen from a source.
pub(super) enum Selected {
    /// A container image.
    Container(Box<Chosen>),
    /// A PuzzleFS image, by its manifest.
    Puzzlefs(Vec<u8>),
}

/// A chosen container image.
pub(super) struct Chosen {
    pub config: Config,
    pub layers: Vec<Layer>,
    /// The annotations of its manifest.
    pub annotations: BTreeMap<String, String>,
    /// The annotations of the descriptors and indexes that led to the manifest.
    pub index_annotations: BTreeMap<String, String>,
}

impl Chosen {
    /// Returns a digest of everything that a PuzzleFS image of it depends on. `None` if the store is a part
    /// of that, or the options ask for another build.
    pub fn key(&self, options: &BuildOptions) -> Option<Digest> {
        let of_store = options.base.is_some() || options.order == OrderChoice::Parent;
        let is_repeated = options.fresh || options.check;
        if of_store || is_repeated || options.keep_layers || options.format != Format::V4 {
            return None;
        }
        // The parent and the threads make no other image.
        let options = BuildOptions {
            tag: String::new(),
            parent: ParentChoice::None,
            jobs: 0,
            ..options.clone()
        };
        let layers: Vec<_> = self.layers.iter().map(|layer| layer.content).collect();
        let version = env!("CARGO_PKG_VERSION");
        let (config, own, above) = (
            Digest::of(&self.config.bytes),
            &self.annotations,
            &self.index_annotations,
        );
        let text = format!("{version} {layers:?} {config:?} {own:?} {above:?} {options:?}");
        Some(Digest::of(text.as_bytes()))
    }
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

/// The container images of a document.
#[derive(Debug)]
pub struct Listing {
    /// The index, if the document is one.
    pub index: Option<Index>,
    /// The images with their platforms.
    pub images: Vec<(Descriptor, Platform)>,
}

/// Chooses an image.
pub(super) struct Chooser<'a> {
    files: Files<'a>,
    /// The platform that was asked for.
    platform: Option<&'a Platform>,
}

impl<'a> Chooser<'a> {
    /// `platform` is the one that the user asks for.
    pub fn new(files: Files<'a>, platform: Option<&'a Platform>) -> Self {
        Chooser { files, platform }
    }

    fn error(&self, fault: ContainerFault) -> Error {
        archive_error(self.files.path(), fault)
    }

    /// Chooses an image of a source by its manifest, or by an index of images for several platforms.
    pub fn remote(&self, document: &Descriptor) -> Result<Selected> {
        self.resolve(document.clone())
    }

    /// Lists the container images of a document, without the PuzzleFS images and attestations of an index.
    pub fn list(&self, document: &Descriptor) -> Result<Listing> {
        let bytes = self.files.manifest(document)?;
        let name = &document.digest;
        let (index, candidates) = match Document::of_bytes(&bytes) {
            Document::Index => {
                let index: Index = self.parse(name, "an OCI image index", &bytes)?;
                let candidates = index.manifests.clone();
                (Some(index), candidates)
            }
            Document::Manifest => {
                let manifest: Manifest = self.parse(name, "an OCI image manifest", &bytes)?;
                let media_type = manifest.media_type.as_deref().unwrap_or(oci::MANIFEST);
                let image = Descriptor {
                    media_type: media_type.to_owned(),
                    ..document.clone()
                };
                (None, vec![image])
            }
            Document::Schema1 => return Err(self.error(ContainerFault::Schema1)),
            Document::Artifact | Document::Unknown => {
                return Err(self.error(ContainerFault::Artifact(String::new())))
            }
        };
        let images = candidates.into_iter().filter_map(|one| {
            if is_attached(&one) || one.annotations.contains_key(oci::ROOT) {
                return None;
            }
            let platform = Platform::of(&one).or_else(|| self.configured_platform(&one))?;
            platform.is_known().then_some((one, platform))
        });
        Ok(Listing {
            images: images.collect(),
            index,
        })
    }

    /// Chooses an image of a directory or an archive.
    pub fn local(&self, source: &ImportSource) -> Result<Chosen> {
        if let Some(bytes) = self.files.document("index.json")? {
            let index = self.parse("index.json", "an OCI image index", &bytes)?;
            return self.oci_image(&index, source);
        }
        if let Some(bytes) = self.files.document("manifest.json")? {
            if matches!(
                Document::of_bytes(&bytes),
                Document::Manifest | Document::Index
            ) {
                let path = self.files.path().to_path_buf();
                return Err(self.error(ContainerFault::SkopeoDirectory { path }));
            }
            let what = "the manifest of 'docker save'";
            let images: Vec<SavedImage> = self.parse("manifest.json", what, &bytes)?;
            return self.saved_image(&images, source);
        }
        let has_repositories = self.files.document("repositories")?.is_some();
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
    fn oci_image<'i>(&self, index: &'i Index, source: &ImportSource) -> Result<Chosen> {
        let mut candidates: Vec<&'i Descriptor> = index.manifests.iter().collect();
        if let Some(tag) = &source.tag {
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
            return Err(self.choice(found.len(), all.collect(), source));
        }
        match self.resolve(self.for_platform(&candidates)?.clone())? {
            Selected::Container(chosen) => Ok(*chosen),
            Selected::Puzzlefs(_) => {
                let fault = ContainerFault::NotImportable(NotImportable::Puzzlefs);
                Err(self.error(fault))
            }
        }
    }

    /// Follows indexes to a manifest.
    fn resolve(&self, mut descriptor: Descriptor) -> Result<Selected> {
        let mut annotations = BTreeMap::new();
        for _ in 0..INDEX_DEPTH {
            annotations.extend(descriptor.annotations.clone());
            let document = match Document::of_type(&descriptor.media_type) {
                Document::Unknown => Document::of_bytes(&self.files.manifest(&descriptor)?),
                document => document,
            };
            match document {
                Document::Index => {}
                Document::Manifest => {
                    let bytes = self.files.manifest(&descriptor)?;
                    let Some(chosen) = self.manifest(&descriptor.digest, &bytes)? else {
                        return Ok(Selected::Puzzlefs(bytes));
                    };
                    return Ok(Selected::Container(Box::new(Chosen {
                        index_annotations: annotations,
                        ..chosen
                    })));
                }
                Document::Schema1 => return Err(self.error(ContainerFault::Schema1)),
                Document::Artifact | Document::Unknown => {
                    let media_type = descriptor.media_type;
                    return Err(self.error(ContainerFault::Artifact(media_type)));
                }
            }
            let bytes = self.files.manifest(&descriptor)?;
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
        if let ([only], None) = (candidates, self.platform) {
            return Ok(only);
        }
        let wanted = self.platform.cloned().unwrap_or_else(Platform::host);
        // An index can have a PuzzleFS image next to the container image that it was made of.
        let (packed, others): (Vec<&Descriptor>, Vec<&Descriptor>) = candidates
            .iter()
            .partition(|one| one.annotations.contains_key(oci::ROOT));
        let lists = match self.files {
            Files::Local(_) => [others, packed],
            Files::Remote(..) => [packed, others],
        };
        let found = lists.iter().find_map(|list| self.fitting(list, &wanted));
        found.ok_or_else(|| {
            let there = candidates.iter().filter_map(|one| Platform::of(one));
            self.error(ContainerFault::NoPlatform {
                found: there.filter(Platform::is_known).collect(),
                wanted: wanted.clone(),
            })
        })
    }

    /// The image that fits a platform best.
    fn fitting<'d>(
        &self,
        candidates: &[&'d Descriptor],
        wanted: &Platform,
    ) -> Option<&'d Descriptor> {
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
        found.or_else(|| best(&configured))
    }

    /// The platform of an image of which the index does not say it, if its configuration does.
    fn configured_platform(&self, descriptor: &Descriptor) -> Option<Platform> {
        if Platform::of(descriptor).is_some() || is_index(descriptor) {
            return None;
        }
        let manifest = self.files.manifest(descriptor).ok()?;
        let manifest: Manifest = serde_json::from_slice(&manifest).ok()?;
        let config = self.files.blob(&manifest.config).ok()?;
        let config: ImageConfig = serde_json::from_slice(&config).ok()?;
        Some(config.platform)
    }

    /// An image by its manifest; `None` for a PuzzleFS image. All media types are looked at before
    /// anything else is read.
    fn manifest(&self, name: &str, bytes: &[u8]) -> Result<Option<Chosen>> {
        const WHAT: &str = "an OCI image manifest";
        let kind: media::Kind = self.parse(name, WHAT, bytes)?;
        let cause = kind.not_importable();
        if cause == Some(NotImportable::Puzzlefs) {
            return Ok(None);
        }
        if let Some(cause) = cause {
            return Err(self.error(ContainerFault::NotImportable(cause)));
        }
        let manifest: Manifest = self.parse(name, WHAT, bytes)?;
        let mut layers = Vec::new();
        for (number, descriptor) in manifest.layers.iter().enumerate() {
            let digest = self.files.digest(&descriptor.digest)?;
            let file = blob_name(&digest);
            if media::is_foreign(&descriptor.media_type) && !self.files.may_have(&digest)? {
                return Err(self.foreign(number, descriptor, &file));
            }
            layers.push((file, digest, descriptor.size));
        }
        let config = Config {
            bytes: self.files.blob(&manifest.config)?,
        };
        let contents = self.contents(&config.bytes, layers.len())?;
        let layers = layers.into_iter().zip(contents);
        let layers = layers.map(|((file, digest, size), content)| Layer {
            file,
            blob: Some((digest, size)),
            content,
        });
        Ok(Some(Chosen {
            layers: layers.collect(),
            config,
            annotations: manifest.annotations,
            index_annotations: BTreeMap::new(),
        }))
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
    fn saved_image(&self, images: &[SavedImage], source: &ImportSource) -> Result<Chosen> {
        let names = |image: &SavedImage| image.repo_tags.clone().unwrap_or_default();
        let wanted = |image: &&SavedImage| match &source.tag {
            None => true,
            Some(tag) => {
                let is_tag = |name: &String| name == tag || name.ends_with(&format!(":{tag}"));
                names(image).iter().any(is_tag)
            }
        };
        let found: Vec<&SavedImage> = images.iter().filter(wanted).collect();
        let &[image] = &found[..] else {
            let names: Vec<String> = images.iter().flat_map(names).collect();
            return Err(self.choice(found.len(), names, source));
        };
        let bytes = self.files.document(&image.config)?;
        let missing = || self.error(ContainerFault::Missing(image.config.clone()));
        let bytes = bytes.ok_or_else(missing)?;
        // The name is the digest, with a prefix, a suffix or in a directory; or says nothing.
        let stem = image.config.rsplit('/').next().unwrap_or_default();
        let stem = stem.strip_prefix("sha256:").unwrap_or(stem);
        let stem = stem.strip_suffix(".json").unwrap_or(stem);
        let digest = Digest::from_hex(stem.as_bytes());
        if digest.is_some_and(|digest| digest != Digest::of(&bytes)) {
            return Err(self.error(ContainerFault::Damaged(image.config.clone())));
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
        if let Some(wanted) = self.platform {
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
        ids.iter().map(|id| self.files.digest(id)).collect()
    }

    /// Returns the error that asks for a choice: `found` images match, of all with these names.
    fn choice(&self, found: usize, names: Vec<String>, source: &ImportSource) -> Error {
        self.error(ContainerFault::Choice {
            found,
            tag: source.tag.clone(),
            names,
            source_path: source.path.clone(),
        })
    }
}

/// The annotations that name an image in an index: its tag and, last, what containerd calls it in full.
pub(super) const NAMES: [&str; 2] = [oci::REF_NAME, "io.containerd.image.name"];

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
