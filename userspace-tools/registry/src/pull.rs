// SPDX-License-Identifier: MIT OR Apache-2.0

//! Pulls images. `puzzlefs_lib::import::obtain` decides which blobs and ranges are requested.

use crate::client::{Answer, Attempts, Registry, RegistryOptions, Stop, Traffic};
use crate::error::{Message, RegistryFault};
use crate::failure::{Failure, Remedy};
use crate::places::{Attempt, Sought};
use crate::reference::ImageName;
use futures_util::StreamExt;
use oci_client::client::{BlobResponse, LayerDescriptor, SizedStream};
use oci_client::RegistryOperation;
use puzzlefs_lib::builder::BuildOptions;
use puzzlefs_lib::fetch::{BlobSource, FetchOptions, ImageSource, RemoteBlob};
use puzzlefs_lib::import::{obtain, Obtained};
use puzzlefs_lib::oci::{Descriptor, INDEX, MANIFEST};
use puzzlefs_lib::platform::Platform;
use puzzlefs_lib::{Digest, Progress, Result, Store};
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

/// The largest manifest that is accepted, in bytes. Registries and other tools have the same limit.
pub(crate) const MANIFEST_MAX: usize = 4 << 20;
/// The media types of manifests that requests name.
const DOCKER: &str = "application/vnd.docker.distribution.manifest.v2+json, \
                      application/vnd.docker.distribution.manifest.list.v2+json";
/// A connection that breaks after this number of bytes has not failed: further attempts count anew.
pub(crate) const SUCCESS: u64 = 1 << 20;
/// The verb for messages.
const ACTION: &str = "pull from";

/// Options of a pull.
#[derive(Clone, Debug)]
pub struct PullOptions {
    /// The connection.
    pub connection: RegistryOptions,
    /// For which platform, if not for this one.
    pub platform: Option<Platform>,
    /// The tag, and the encoding of an image that is made of a container image.
    pub build: BuildOptions,
}

/// The result of a pull.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// The image in the store.
    pub obtained: Obtained,
    /// The name of the image at the place that it comes from.
    pub image: String,
    /// The digest of the manifest or the index that the registry has under the name.
    pub source: Digest,
    /// Requests and bytes.
    pub traffic: Traffic,
}

impl PullOptions {
    /// Gets the image of a document from a source.
    pub(crate) fn obtain(
        &self,
        source: &impl ImageSource,
        document: &Descriptor,
        to: &Store,
        progress: &Progress,
    ) -> Result<Obtained> {
        let fetching = FetchOptions {
            jobs: self.connection.jobs,
        };
        let platform = self.platform.as_ref();
        obtain(
            source,
            document,
            platform,
            to,
            &self.build,
            fetching,
            progress,
        )
    }
}

/// Pulls an image from a registry into a store, and sets the tag. A container image is imported.
///
/// The mirrors of the registry are tried first. If one fails on the way, the next place gives the rest.
///
/// # Errors
///
/// If the registry does not have the image, or something else than its manifest says, or the connection
/// breaks more often than [`RegistryOptions::retries`]. The tag then stays as it was. Data of a PuzzleFS
/// image that has arrived stays in the store, and another pull fetches the rest.
pub fn pull(
    name: &ImageName,
    to: &Store,
    options: &PullOptions,
    progress: &Progress,
) -> Result<Pulled> {
    let sought = Sought {
        name,
        options: &options.connection,
        target: None,
        action: ACTION,
    };
    sought.first(|attempt| {
        let opened = Opened::at(attempt, &sought, progress)?;
        let (source, document) = opened.source();
        let obtained = options.obtain(&source, &document, to, progress)?;
        Ok(Pulled {
            obtained,
            image: opened.registry.image.to_string(),
            source: source.first.0,
            traffic: opened.registry.traffic(),
        })
    })
}

/// Gets a manifest or an index by its tag or its digest, and compares it with the digest and with the one
/// that the registry states.
pub(crate) fn manifest(registry: &Registry<'_>, name: &str) -> Result<Vec<u8>, Stop> {
    let accept = format!("{MANIFEST}, {INDEX}, {DOCKER}");
    let path = format!("manifests/{name}");
    let Answer { body, digest } = registry.read_manifest(&path, &accept, MANIFEST_MAX)?;
    let found = Digest::of(&body);
    for wanted in [Some(name.to_owned()), digest].into_iter().flatten() {
        if wanted.starts_with("sha256:") && wanted != found.to_oci() {
            let wanted = Message::new(wanted);
            let fault = RegistryFault::ManifestDigest { found, wanted };
            return Err(Failure::new(Remedy::Stop, fault).into());
        }
    }
    Ok(body)
}

/// The manifests and blobs of a repository.
pub(crate) struct Source<'r> {
    pub registry: &'r Registry<'r>,
    /// The document that the name stands for.
    pub first: (Digest, Vec<u8>),
}

/// An image that a place has.
pub(crate) struct Opened<'p> {
    pub registry: Registry<'p>,
    /// The document that the name stands for.
    first: (Digest, Vec<u8>),
}

impl<'p> Opened<'p> {
    /// Gets the document that the name of the image at a place stands for.
    pub fn at(attempt: Attempt, sought: &Sought<'_>, progress: &'p Progress) -> Result<Self> {
        let Attempt { image, options } = attempt;
        let (operation, action) = (RegistryOperation::Pull, sought.action);
        let mut registry = Registry::connect(&image, operation, action, &options, progress)?;
        let wanted = image.digest().map(Digest::to_oci);
        let name = wanted
            .as_deref()
            .or_else(|| image.tag())
            .unwrap_or("latest");
        let first = manifest(&registry, name).map_err(|stop| stop.into_error(&registry))?;
        // The place answers: from now on, another attempt can help.
        registry.options.retries = sought.options.retries;
        let first = (Digest::of(&first), first);
        Ok(Opened { registry, first })
    }

    /// Returns the source, and the descriptor of its document.
    pub fn source(&self) -> (Source<'_>, Descriptor) {
        let (digest, bytes) = &self.first;
        let document = Descriptor::new("", *digest, bytes.len() as u64);
        let source = Source {
            registry: &self.registry,
            first: self.first.clone(),
        };
        (source, document)
    }
}

impl ImageSource for Source<'_> {
    fn name(&self) -> String {
        self.registry.image.to_string()
    }

    fn manifest(&self, digest: &Digest) -> Result<Vec<u8>> {
        if *digest == self.first.0 {
            return Ok(self.first.1.clone());
        }
        let found = manifest(self.registry, &digest.to_oci());
        found.map_err(|stop| stop.into_error(self.registry))
    }
}

/// The position in a range of a blob.
pub(crate) struct Position {
    pub at: u64,
    pub range: Range<u64>,
}

/// The end of an answer.
enum End {
    /// The range is complete.
    Done,
    /// The registry sends whole blobs only.
    Unranged,
}

impl BlobSource for Source<'_> {
    fn read(
        &self,
        blob: &RemoteBlob,
        range: Range<u64>,
        give: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<bool> {
        let mut attempts = Attempts::new(self.registry.options.retries);
        let mut position = Position {
            at: range.start,
            range,
        };
        while position.at < position.range.end {
            let before = position.at;
            match self.read_on(blob, &mut position, give) {
                Ok(End::Done) => {}
                Ok(End::Unranged) => return Ok(false),
                Err(Stop::Failure(failure)) => {
                    if position.at - before >= SUCCESS {
                        attempts = Attempts::new(self.registry.options.retries);
                    }
                    let prepared = attempts.prepare(self.registry, failure);
                    prepared.map_err(|stop| stop.into_error(self.registry))?;
                }
                Err(Stop::Error(error)) => return Err(error),
            }
        }
        Ok(true)
    }
}

impl Source<'_> {
    /// Requests the rest of a range, and gives its bytes.
    fn read_on(
        &self,
        blob: &RemoteBlob,
        position: &mut Position,
        give: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<End, Stop> {
        let registry = self.registry;
        registry.count_request();
        let name = blob.digest.to_oci();
        let layer = LayerDescriptor {
            digest: &name,
            urls: &None,
        };
        let rest = position.range.end - position.at;
        let answer = registry.wait(registry.client().pull_blob_stream_partial(
            registry.reference(),
            &layer,
            position.at,
            Some(rest),
        ))?;
        let answer = answer.map_err(|error| Failure::of(error, "such blob"))?;
        let (stream, skip) = match answer {
            BlobResponse::Partial(stream) => (stream, 0),
            // The whole blob: another attempt takes what is missing of it.
            BlobResponse::Full(stream)
                if position.range == (0..blob.size) || position.at > position.range.start =>
            {
                (stream, position.at)
            }
            BlobResponse::Full(_) => return Ok(End::Unranged),
        };
        self.give(blob, position, stream, skip, give)
    }

    /// Gives the bytes of an answer, except the first `skip` ones.
    fn give(
        &self,
        blob: &RemoteBlob,
        position: &mut Position,
        mut stream: SizedStream,
        mut skip: u64,
        give: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<End, Stop> {
        let registry = self.registry;
        // Such an answer is longer than the range, unless that is the whole blob.
        let is_full = skip > 0 && position.range.end < blob.size;
        while let Some(piece) = registry.wait(stream.next())? {
            let piece = piece.map_err(|error| Failure::of_stream(&error))?;
            registry
                .counters
                .received
                .fetch_add(piece.len() as u64, Relaxed);
            let skipped = skip.min(piece.len() as u64);
            skip -= skipped;
            let piece = piece.get(skipped as usize..).unwrap_or_default();
            let missing = position.range.end - position.at;
            let piece = match piece.get(..missing as usize) {
                // The rest of a whole blob.
                Some(rest) if is_full => rest,
                Some(rest) if rest.len() < piece.len() => {
                    let digest = blob.digest;
                    let fault = RegistryFault::BlobTooLong { digest };
                    return Err(Failure::new(Remedy::Stop, fault).into());
                }
                _ => piece,
            };
            give(piece)?;
            position.at += piece.len() as u64;
            if is_full && position.at == position.range.end {
                return Ok(End::Done);
            }
        }
        if position.at < position.range.end {
            return Err(Failure::connection("it ended early").into());
        }
        Ok(End::Done)
    }
}
