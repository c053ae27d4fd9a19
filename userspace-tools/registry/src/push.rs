// SPDX-License-Identifier: MIT OR Apache-2.0

//! Pushes images: the blobs that the registry lacks, then the manifest by its tag.

use crate::client::{Attempts, Registry, RegistryOptions, Stop, Traffic};
use crate::error::{Message, RegistryFault};
use crate::failure::{Failure, Remedy};
use crate::places;
use crate::reference::RemoteImage;
use bytes::Bytes;
use futures_util::stream;
use oci_client::errors::Result as ClientResult;
use oci_client::{Reference, RegistryOperation};
use puzzlefs_lib::builder::Count;
use puzzlefs_lib::oci::{Descriptor, MANIFEST};
use puzzlefs_lib::threads::{for_each, lock};
use puzzlefs_lib::tree::AnyImage;
use puzzlefs_lib::{Digest, Error, Progress, Result, Store};
use reqwest::header::HeaderValue;
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::Mutex;
use std::time::Duration;
use tokio::sync::mpsc;

/// The size of a piece of a blob that is uploaded by one request, in bytes.
const PIECE: usize = 256 << 10;
/// The size of each part of a blob that is uploaded in parts, in bytes.
const PART: usize = 4 << 20;
/// The time that a registry may take to store a blob whose bytes it has. Some copy it to another place.
const COMMIT_TIME: Duration = Duration::from_secs(300);
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
    let progress = registry.progress;
    let digest = image.root.manifest_digest();
    let (manifest, bytes) = store.manifest(digest)?;
    let blobs = blobs(
        store,
        digest,
        manifest.layers.iter().chain([&manifest.config]),
    )?;
    let missing = missing(store, &blobs)?;
    if missing > 0 {
        return Err(registry.fail(RegistryFault::Incomplete { packs: missing }));
    }
    let source = mount_from.map(RemoteImage::reference);
    for (_, size) in &blobs {
        progress.found_entry();
        progress.found_bytes(*size);
    }
    progress.start_reading();
    let pushed = Mutex::new(Pushed::default());
    for_each(
        registry.options.jobs,
        &blobs,
        || (),
        |(), (digest, size)| {
            let content = StoredBlob { store, digest };
            let placed = push_blob(registry, digest, *size, &content, source);
            let placed = placed.map_err(|stop| stop.into_error(registry))?;
            lock(&pushed).add(placed, *size);
            Ok(())
        },
    )?;
    progress.check()?;
    push_manifest(registry, name, digest, &bytes, MANIFEST)
        .map_err(|stop| stop.into_error(registry))?;
    let mut pushed = *lock(&pushed);
    pushed.new.add(bytes.len() as u64);
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

/// The content of a blob that is uploaded. An upload can open it several times.
pub(crate) trait Content: Sync {
    /// Opens it, at its beginning.
    fn open(&self) -> Result<File>;

    /// The path for messages.
    fn path(&self) -> PathBuf;
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
    let mut attempts = Attempts::new(registry.options.retries);
    let mut upload = Upload {
        registry,
        content,
        digest,
        size,
        in_parts: false,
        sent: 0,
    };
    loop {
        match upload.run() {
            Ok(()) => return Ok(Placed::New),
            Err(Stop::Failure(failure)) if !upload.in_parts && wants_parts(&failure) => {
                upload.in_parts = true;
            }
            Err(Stop::Failure(failure)) => attempts.prepare(registry, failure)?,
            Err(stop) => return Err(stop),
        }
        registry.progress.undone_bytes(upload.sent);
    }
}

/// Returns true if the registry may take the blob in parts: it refuses a large body, or the method.
fn wants_parts(failure: &Failure) -> bool {
    matches!(failure.status, Some(405 | 411 | 413 | 415 | 501))
        || matches!(failure.fault, RegistryFault::Protocol(_))
}

/// An upload of a blob, which can be repeated.
struct Upload<'u, 'r> {
    registry: &'u Registry<'r>,
    content: &'u dyn Content,
    digest: &'u Digest,
    /// The size of the blob, in bytes.
    size: u64,
    /// Set if each part is sent by a request of its own.
    in_parts: bool,
    /// The bytes that the last attempt has sent.
    sent: u64,
}

impl Upload<'_, '_> {
    /// Makes an attempt.
    fn run(&mut self) -> Result<(), Stop> {
        let registry = self.registry;
        self.sent = 0;
        registry.count_request();
        let file = self.content.open()?;
        let (sender, receiver) = mpsc::channel::<Bytes>(1);
        let body = stream::unfold(receiver, |mut receiver| async {
            let piece = receiver.recv().await?;
            Some((ClientResult::Ok(piece), receiver))
        });
        let client = if self.in_parts {
            registry.parts_client().clone()
        } else {
            registry.client().clone()
        };
        let (image, name) = (registry.reference().clone(), self.digest.to_oci());
        let (auth, size) = (registry.auth().clone(), self.size);
        let uploading = registry.runtime().spawn(async move {
            client
                .store_auth_if_needed(image.resolve_registry(), &auth)
                .await;
            client
                .push_blob_stream(&image, body, &name, Some(size))
                .await
        });
        let abort = uploading.abort_handle();
        let sending = self.send(file, &sender);
        drop(sender);
        let result = match sending {
            // The registry has answered before the end.
            Ok(false) => registry.wait(uploading),
            Ok(true) => registry.wait_for(registry.options.timeout.max(COMMIT_TIME), uploading),
            Err(stop) => Err(stop),
        };
        abort.abort();
        match result? {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(Failure::of(error, "such repository").into()),
            Err(join) => Err(Failure::connection(join.to_string()).into()),
        }
    }

    /// Sends the bytes of the blob. Returns false if the upload has ended early.
    fn send(&mut self, mut file: File, sender: &mpsc::Sender<Bytes>) -> Result<bool, Stop> {
        let registry = self.registry;
        let length = if self.in_parts { PART } else { PIECE };
        let content = self.content;
        let path = || content.path();
        let mut sha256 = Sha256::new();
        while self.sent < self.size {
            let wanted = (self.size - self.sent).min(length as u64) as usize;
            let mut piece = vec![0; wanted];
            file.read_exact(&mut piece).map_err(|cause| {
                Error::from(puzzlefs_lib::error::SystemError::Call {
                    path: path(),
                    action: "read the blob",
                    cause,
                })
            })?;
            sha256.update(&piece);
            let is_last = self.sent + wanted as u64 == self.size;
            if is_last {
                let found = Digest(sha256.clone().finalize().into());
                // Before the last piece: the registry does not get a damaged blob as a whole.
                if found != *self.digest {
                    let fault = RegistryFault::DamagedBlob {
                        path: path(),
                        found,
                    };
                    return Err(Failure::new(Remedy::Stop, fault).into());
                }
            }
            if registry.wait(sender.send(piece.into()))?.is_err() {
                return Ok(false);
            }
            self.sent += wanted as u64;
            registry.counters.sent.fetch_add(wanted as u64, Relaxed);
            registry.progress.done_bytes(wanted as u64);
        }
        Ok(true)
    }
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
