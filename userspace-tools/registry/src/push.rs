// SPDX-License-Identifier: MIT OR Apache-2.0

//! Pushes images: the blobs that the registry lacks, then the manifest by its tag.

use crate::client::{Registry, RegistryOptions, Stop, Traffic};
use crate::error::{Message, RegistryFault};
use crate::failure::{Failure, Remedy};
use crate::places;
use crate::reference::RemoteImage;
use crate::upload::{upload, Content};
use bytes::Bytes;
use oci_client::{Reference, RegistryOperation};
use puzzlefs_lib::builder::Count;
use puzzlefs_lib::oci::{Descriptor, Manifest, MANIFEST};
use puzzlefs_lib::threads::{for_each, lock};
use puzzlefs_lib::tree::AnyImage;
use puzzlefs_lib::{Digest, Error, Progress, Result, Store};
use reqwest::header::HeaderValue;
use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::Mutex;

/// The verb for messages.
const ACTION: &str = "push to";

/// The result of a push.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pushed {
    /// Blobs that were uploaded, and the manifest.
    pub new: Count,
    /// Blobs that the repository had.
    pub shared: Count,
    /// Blobs that the registry took from the other repository.
    pub mounted: Count,
    /// Requests and bytes.
    pub traffic: Traffic,
}

/// The fate of a blob.
pub(crate) enum Placed {
    New,
    Shared,
    Mounted,
}

/// Pushes an image of a store to a registry. The tag is set when the registry has all blobs.
///
/// `mount_from` is a repository of the same registry that may have some of the blobs.
///
/// # Errors
///
/// If the image is not complete, the settings block the registry, the registry refuses, or the connection
/// breaks more often than [`RegistryOptions::retries`]. Blobs that were uploaded stay in the registry.
pub fn push(
    store: &Store,
    image: &AnyImage,
    to: &RemoteImage,
    mount_from: Option<&RemoteImage>,
    options: &RegistryOptions,
    progress: &Progress,
) -> Result<Pushed> {
    let operation = RegistryOperation::Push;
    let options = places::itself(to, ACTION, options)?;
    let registry = Registry::connect(to, operation, ACTION, &options, progress)?;
    if let Some(source) = mount_from {
        registry.read_also(source.reference())?;
    }
    let mut pushed = push_image(&registry, store, image, to, mount_from)?;
    pushed.traffic = registry.traffic();
    Ok(pushed)
}

/// Pushes an image under a name in the registry's repository. The result has no traffic.
pub(crate) fn push_image(
    registry: &Registry<'_>,
    store: &Store,
    image: &AnyImage,
    name: &RemoteImage,
    mount_from: Option<&RemoteImage>,
) -> Result<Pushed> {
    let digest = image.root.manifest_digest();
    let (manifest, bytes) = store.manifest(digest)?;
    let source = mount_from.map(RemoteImage::reference);
    let mut pushed = push_blobs(
        store,
        (digest, &manifest),
        registry.options.jobs,
        registry.progress,
        |packs| registry.fail(RegistryFault::Incomplete { packs }),
        |digest, size, content| {
            let placed = push_blob(registry, digest, size, content, source);
            placed.map_err(|stop| stop.into_error(registry))
        },
    )?;
    push_manifest(registry, name, digest, &bytes, MANIFEST)
        .map_err(|stop| stop.into_error(registry))?;
    pushed.new.add(bytes.len() as u64);
    Ok(pushed)
}

/// Pushes the blobs of a manifest by `push`, several at once. The result has neither manifest nor traffic.
///
/// # Errors
///
/// That of `incomplete` if the store lacks so many of the blobs; those of `push`.
pub(crate) fn push_blobs(
    store: &Store,
    (digest, manifest): (&Digest, &Manifest),
    jobs: usize,
    progress: &Progress,
    incomplete: impl FnOnce(usize) -> Error,
    push: impl Fn(&Digest, u64, &dyn Content) -> Result<Placed> + Sync,
) -> Result<Pushed> {
    let blobs = blobs(
        store,
        digest,
        manifest.layers.iter().chain([&manifest.config]),
    )?;
    let missing = missing(store, &blobs)?;
    if missing > 0 {
        return Err(incomplete(missing));
    }
    for (_, size) in &blobs {
        progress.found_entry();
        progress.found_bytes(*size);
    }
    progress.start_reading();
    let pushed = Mutex::new(Pushed::default());
    for_each(
        jobs,
        &blobs,
        || (),
        |(), (digest, size)| {
            let placed = push(digest, *size, &StoredBlob { store, digest })?;
            lock(&pushed).add(placed, *size);
            Ok(())
        },
    )?;
    progress.check()?;
    let pushed = *lock(&pushed);
    Ok(pushed)
}

impl Pushed {
    /// Adds the counts of another push.
    pub(crate) fn add_all(&mut self, other: &Pushed) {
        self.new.add_all(other.new);
        self.shared.add_all(other.shared);
        self.mounted.add_all(other.mounted);
    }

    /// Counts a blob.
    pub(crate) fn add(&mut self, placed: Placed, size: u64) {
        match placed {
            Placed::New => self.new.add(size),
            Placed::Shared => self.shared.add(size),
            Placed::Mounted => self.mounted.add(size),
        }
    }
}

/// A blob of a store.
struct StoredBlob<'s> {
    store: &'s Store,
    digest: &'s Digest,
}

impl Content for StoredBlob<'_> {
    fn open(&self) -> Result<File> {
        self.store.open_blob(self.digest)
    }

    fn path(&self) -> PathBuf {
        self.store.blob_path(self.digest)
    }
}

/// Returns the blobs of a manifest, each once, the largest first.
fn blobs<'d>(
    store: &Store,
    manifest: &Digest,
    descriptors: impl Iterator<Item = &'d Descriptor>,
) -> Result<Vec<(Digest, u64)>> {
    let mut blobs = Vec::new();
    for descriptor in descriptors {
        let digest = Digest::from_oci(&descriptor.digest).ok_or_else(|| {
            let path = store.blob_path(manifest);
            Error::from(puzzlefs_lib::error::StoreError::NotADigest {
                path,
                digest: descriptor.digest.clone(),
            })
        })?;
        blobs.push((digest, descriptor.size));
    }
    blobs.sort_unstable_by_key(|(digest, size)| (std::cmp::Reverse(*size), *digest));
    blobs.dedup_by_key(|(digest, _)| *digest);
    Ok(blobs)
}

/// Returns the number of blobs that the store lacks or has in another size.
fn missing(store: &Store, blobs: &[(Digest, u64)]) -> Result<usize> {
    let mut missing = 0;
    for (digest, size) in blobs {
        missing += usize::from(store.blob_size(digest)? != Some(*size));
    }
    Ok(missing)
}

/// Brings a blob into the repository.
pub(crate) fn push_blob(
    registry: &Registry<'_>,
    digest: &Digest,
    size: u64,
    content: &dyn Content,
    source: Option<&Reference>,
) -> Result<Placed, Stop> {
    let name = digest.to_oci();
    let (client, image) = (registry.client(), registry.reference());
    if registry.request("blob", || client.blob_exists(image, &name))? {
        registry.progress.done_bytes(size);
        return Ok(Placed::Shared);
    }
    if let Some(source) = source {
        registry.count_request();
        match registry.wait(client.mount_blob(image, source, &name)) {
            Ok(Ok(())) => {
                registry.progress.done_bytes(size);
                return Ok(Placed::Mounted);
            }
            Err(Stop::Error(error)) => return Err(error.into()),
            // Any refusal means that the blob is uploaded.
            Ok(Err(_)) | Err(Stop::Failure(_)) => {}
        }
    }
    upload(registry, digest, size, content)?;
    Ok(Placed::New)
}

/// Uploads a manifest or an index under a name, and checks that the registry has kept its bytes.
pub(crate) fn push_manifest(
    registry: &Registry<'_>,
    name: &RemoteImage,
    digest: &Digest,
    bytes: &[u8],
    media_type: &str,
) -> Result<(), Stop> {
    let (client, image) = (registry.client(), name.reference());
    let body = Bytes::copy_from_slice(bytes);
    let unsendable = |_| {
        let message = Message::new(media_type);
        Failure::new(Remedy::Stop, RegistryFault::Protocol(message))
    };
    let media_type = HeaderValue::from_str(media_type).map_err(unsendable)?;
    registry.request("such repository", || {
        let media_type = media_type.clone();
        client.push_manifest_raw(image, body.clone(), media_type)
    })?;
    registry
        .counters
        .sent
        .fetch_add(bytes.len() as u64, Relaxed);
    let auth = registry.auth();
    let found = registry.request("such image", || client.fetch_manifest_digest(image, auth))?;
    if found != digest.to_oci() {
        let fault = RegistryFault::ManifestChanged {
            found: Message::new(found),
            wanted: *digest,
        };
        return Err(Failure::new(Remedy::Stop, fault).into());
    }
    Ok(())
}
