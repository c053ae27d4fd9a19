// SPDX-License-Identifier: MIT OR Apache-2.0

//! From a container image to a PuzzleFS image of its root filesystem.
//!
//! Reads OCI image layouts, as directories and as archives, archives of `docker save`, and images of
//! registries. The layers become one tree. If layers are kept, each becomes a layer with its changes to the
//! tree of those before it. Every blob is compared with its digest. The configuration is kept.
//!
//! | module | content |
//! | --- | --- |
//! | `layers` | reads the layers, several at once, and puts them over each other |
//! | `choice` | chooses an image, and reads its manifest and configuration |
//! | `files` | the documents and blobs, of a directory, an archive or a registry |
//! | `source` | the name of a container image |

mod choice;
mod files;
mod layers;
mod source;

pub use self::choice::Listing;
use self::choice::{Chooser, Chosen, Selected, NAMES};
use self::files::Files;
use self::layers::Layers;
pub use self::source::ImportSource;
use crate::build::build_options::BuildOptions;
use crate::build::builder::{Input, Stack, Summary};
use crate::build::packed;
use crate::build::source::{Source, SourceData};
use crate::error::{FetchError, Result};
use crate::ingest::archive::Spool;
use crate::ingest::container::Container;
use crate::model::count::Count;
use crate::model::digest::Digest;
use crate::model::oci::{Descriptor, MANIFEST};
use crate::model::platform::Platform;
use crate::model::tree::LeftOut;
use crate::model::version::Format;
use crate::ops::fetch::{fetch, whole_image, FetchOptions, Fetched, ImageSource};
use crate::store::imports::{keep_import, known_import};
use crate::store::locks::FetchLock;
use crate::store::oci_layout::Store;
use crate::store::staging::Staging;
use crate::sys::progress::Progress;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

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
    let files = Files::Local(&container);
    let chooser = Chooser::new(files, source.platform.as_ref());
    let chosen = chooser.local(source)?;
    let remarks = container.remarks.clone();
    let maker = Maker {
        files,
        jobs: options.jobs,
        store,
        staging: &staging,
        options,
        progress,
    };
    maker.make(chosen, remarks)
}

/// Lists the container images of a manifest or an index of an untrusted source.
///
/// # Errors
///
/// If the document is neither, or the source does not have it.
pub fn list(source: &impl ImageSource, document: &Descriptor) -> Result<Listing> {
    let name = source.name();
    let files = Files::Remote(source, Path::new(&name));
    Chooser::new(files, None).list(document)
}

/// Returns the manifest of the PuzzleFS image that a manifest is, or that an index lists for a platform.
///
/// # Errors
///
/// If there is no image for the platform, or only a container image.
pub fn find_puzzlefs(
    source: &impl ImageSource,
    document: &Descriptor,
    platform: Option<&Platform>,
) -> Result<Vec<u8>> {
    let name = source.name();
    let files = Files::Remote(source, Path::new(&name));
    match Chooser::new(files, platform).remote(document)? {
        Selected::Puzzlefs(manifest) => Ok(manifest),
        Selected::Container(_) => {
            let is_container = true;
            Err(FetchError::NoChunks { is_container }.into())
        }
    }
}

/// The result of [`obtain`].
#[derive(Clone, Debug)]
pub enum Obtained {
    /// The source has a PuzzleFS image.
    Fetched(Fetched),
    /// The source has a container image, which was imported.
    Imported(Box<Summary>),
    /// The source has a container image that the store has imported before.
    Known {
        /// The digest of the manifest of the PuzzleFS image.
        manifest: Digest,
        /// The blobs of this image.
        shared: Count,
    },
}

/// Gets an image from an untrusted source, under the tag of `options`.
///
/// `document` is a manifest, or an index of images for several platforms. A PuzzleFS image is fetched,
/// and another one imported. An index may list both for a platform; the PuzzleFS image is fetched then.
/// If the store has imported the container image with the same options, this sets the tag alone.
///
/// # Errors
///
/// If there is no image for the platform, or the source does not have it as the manifest says. The tag
/// then stays as it was.
pub fn obtain(
    source: &impl ImageSource,
    document: &Descriptor,
    platform: Option<&Platform>,
    store: &Store,
    options: &BuildOptions,
    fetching: FetchOptions,
    progress: &Progress,
) -> Result<Obtained> {
    packed::check_options(options)?;
    let name = source.name();
    let files = Files::Remote(source, Path::new(&name));
    let chooser = Chooser::new(files, platform);
    match chooser.remote(document)? {
        Selected::Puzzlefs(manifest) => {
            let fetched = fetch(source, &manifest, store, &options.tag, fetching, progress)?;
            Ok(Obtained::Fetched(fetched))
        }
        Selected::Container(chosen) => {
            let staging = Staging::new(store)?.checking(options.check);
            let key = chosen.key(options);
            // Another process may be importing it.
            let _alone = match &key {
                Some(key) => Some(FetchLock::take(store.locked(), key, progress)?),
                None => None,
            };
            if let Some((manifest, shared)) = key.and_then(|key| known(store, &key)) {
                let size = store.blob_size(&manifest)?.unwrap_or_default();
                let image = Descriptor::new(MANIFEST, manifest, size);
                store.set_tag(&options.tag, image)?;
                return Ok(Obtained::Known { manifest, shared });
            }
            let maker = Maker {
                files,
                jobs: options.jobs.max(fetching.jobs),
                store,
                staging: &staging,
                options,
                progress,
            };
            let made = maker.make(*chosen, Vec::new())?;
            if let Some(key) = &key {
                keep_import(store, key, &made.manifest)?;
            }
            Ok(Obtained::Imported(Box::new(made)))
        }
    }
}

/// The image that an import with this key has made, if the store has all of it, and its blobs.
fn known(store: &Store, key: &Digest) -> Option<(Digest, Count)> {
    // Whatever is missing or damaged, another import makes it anew.
    let manifest = known_import(store, key).ok()??;
    let blobs = whole_image(store, &manifest).ok()??;
    Some((manifest, blobs))
}

/// Makes an image of a container image.
struct Maker<'a> {
    files: Files<'a>,
    /// The number of layers that are read at once.
    jobs: usize,
    store: &'a Store,
    staging: &'a Staging<'a>,
    options: &'a BuildOptions,
    progress: &'a Progress,
}

impl Maker<'_> {
    /// `remarks` are those on the archive of the image.
    fn make(&self, chosen: Chosen, mut remarks: Vec<String>) -> Result<Summary> {
        let options = self.options;
        let source_of = |file: File| Source {
            path: self.files.path().to_path_buf(),
            data: SourceData::Archive(file, None),
        };
        let spool = Spool::new(self.staging)?;
        let mut stack = Stack::new(self.store, self.staging, options, self.progress)?;
        let layers = Layers {
            files: self.files,
            spool: &spool,
            progress: self.progress,
        };
        let assembly = layers.read(&chosen.layers, self.jobs, |assembly, layer| {
            remarks.extend(layer.remarks);
            if options.keep_layers && !layer.is_last {
                let source = source_of(spool.contents()?);
                stack.push(&source, assembly.clone().finish(&options.rules))?;
            }
            Ok(())
        })?;
        let input = Input {
            source: source_of(spool.finish()),
            tree: assembly.finish(&options.rules),
            left_out: LeftOut::default(),
            remarks,
            config: Some(chosen.config),
            annotations: chosen.annotations,
            index_annotations: kept(chosen.index_annotations),
        };
        match options.format {
            Format::V3 => stack.finish(input),
            Format::V4 => packed::store(input, self.store, self.staging, options, self.progress),
        }
    }
}

/// The annotations of an index that the image keeps: all but its names in the index that it is from.
fn kept(mut annotations: BTreeMap<String, String>) -> BTreeMap<String, String> {
    for name in NAMES {
        annotations.remove(name);
    }
    annotations
}
