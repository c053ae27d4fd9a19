// SPDX-License-Identifier: MIT OR Apache-2.0

//! Pushes images to layouts in object stores: the blobs that the layout lacks, then the manifest, and at last
//! the entry of the index.

use super::connection::{alive, blob_name, Attempts, Connection, Stop};
use super::error::ObjectFault;
use super::failure::Failure;
use super::layout::DOCUMENT_MAX;
use super::name::{Backend, ObjectImage};
use crate::client::RegistryOptions;
use crate::push::{push_blobs, Placed, Pushed};
use crate::upload::{Content, COMMIT_TIME};
use bytes::Bytes;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{MultipartId, MultipartUpload, ObjectStoreExt, PutMode, PutPayload};
use puzzlefs_lib::error::SystemError;
use puzzlefs_lib::oci::{Descriptor, MANIFEST};
use puzzlefs_lib::tree::AnyImage;
use puzzlefs_lib::{Digest, Progress, Result, Store};
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

/// The size of a part of an upload, in bytes. A blob that is not larger is uploaded by one request.
const PART: u64 = 8 << 20;
/// The most parts of an object in S3.
const PARTS_MAX: u64 = 10_000;
/// The size of a piece of a part, in bytes. Each that leaves is a sign of life.
const PIECE: usize = 64 << 10;
/// The time for the removal of an upload that has failed.
const ABORT_TIME: Duration = Duration::from_secs(10);
/// The verb for messages.
const ACTION: &str = "push to";

/// Pushes an image of a store to a layout in an object store. The index names it when the layout has all
/// blobs.
///
/// # Errors
///
/// If the image is not complete, the store refuses, or the connection breaks more often than
/// [`RegistryOptions::retries`]. Blobs that were uploaded stay.
pub fn push(
    store: &Store,
    image: &AnyImage,
    to: &ObjectImage,
    options: &RegistryOptions,
    progress: &Progress,
) -> Result<Pushed> {
    let tag = to.target()?;
    let layout = Target::open(to, ACTION, options, progress)?;
    let digest = *image.root.manifest_digest();
    let mut pushed = layout.push_image(store, image)?;
    let size = store.blob_size(&digest)?.unwrap_or_default();
    // Annotations of the entry apply here, too.
    let name = digest.to_oci();
    let index = store.index()?;
    let known = index
        .manifests
        .iter()
        .rev()
        .find(|known| known.digest == name);
    let entry = known
        .cloned()
        .unwrap_or_else(|| Descriptor::new(MANIFEST, digest, size));
    layout.finish(|index| index.set_tag(tag, entry.clone()))?;
    pushed.traffic = layout.connection.traffic();
    Ok(pushed)
}

/// A layout that is written.
pub(crate) struct Target<'p> {
    pub(super) connection: Connection<'p>,
    /// One permit for each part that is in memory.
    permits: Arc<Semaphore>,
}

impl<'p> Target<'p> {
    /// Prepares a layout, which need not exist.
    pub fn open(
        to: &ObjectImage,
        action: &'static str,
        options: &RegistryOptions,
        progress: &'p Progress,
    ) -> Result<Self> {
        if to.backend() == Backend::File {
            make_directory(to)?;
        }
        let connection = Connection::new(to, action, options, progress)?;
        if !to.backend().is_writable() {
            return Err(connection.fail("", ObjectFault::ReadOnly));
        }
        connection.check_layout()?;
        Ok(Target {
            connection,
            permits: Arc::new(Semaphore::new(options.jobs.max(1))),
        })
    }

    /// Uploads the blobs of an image that the layout lacks, and its manifest. The index does not change.
    pub fn push_image(&self, store: &Store, image: &AnyImage) -> Result<Pushed> {
        let connection = &self.connection;
        let digest = image.root.manifest_digest();
        let (manifest, bytes) = store.manifest(digest)?;
        let mut pushed = push_blobs(
            store,
            (digest, &manifest),
            connection.options.jobs,
            connection.progress,
            |packs| connection.fail("", ObjectFault::Incomplete { packs }),
            |digest, size, content| self.push_blob(digest, size, content),
        )?;
        pushed.add(self.push_document(digest, &bytes)?, bytes.len() as u64);
        Ok(pushed)
    }

    /// Uploads a manifest or an index.
    pub fn push_document(&self, digest: &Digest, bytes: &[u8]) -> Result<Placed> {
        let connection = &self.connection;
        let object = blob_name(digest);
        if bytes.len() as u64 > DOCUMENT_MAX {
            return Err(connection.fail(&object, ObjectFault::TooLarge { max: DOCUMENT_MAX }));
        }
        let put = || {
            if connection.size(&object)? == Some(bytes.len() as u64) {
                return Ok(Placed::Shared);
            }
            let payload = PutPayload::from(bytes.to_vec());
            connection.put(&object, &payload, &PutMode::Overwrite)?;
            Ok(Placed::New)
        };
        put().map_err(|stop| connection.stopped(&object, stop))
    }

    /// Changes the index, after all blobs have arrived.
    pub fn finish(&self, change: impl Fn(&mut puzzlefs_lib::oci::Index)) -> Result<()> {
        self.connection.progress.check()?;
        self.connection.write_layout()?;
        self.connection.change_index(change)
    }

    /// Uploads a blob, unless the layout has it in its size.
    pub fn push_blob(&self, digest: &Digest, size: u64, content: &dyn Content) -> Result<Placed> {
        let connection = &self.connection;
        let object = blob_name(digest);
        let upload = Upload {
            target: self,
            content,
            digest,
            size,
            key: connection.key(&object),
        };
        let push = || {
            if connection.size(&object)? == Some(size) {
                connection.progress.done_bytes(size);
                return Ok(Placed::Shared);
            }
            match &connection.stores.parts {
                _ if size <= PART => upload.at_once()?,
                Some(parts) => upload.in_parts(parts)?,
                None => upload.in_order()?,
            }
            Ok(Placed::New)
        };
        push().map_err(|stop| connection.stopped(&object, stop))
    }

    /// Waits for memory for a part.
    fn permit(&self) -> Result<OwnedSemaphorePermit, Stop> {
        let connection = &self.connection;
        // The other parts have deadlines of their own.
        loop {
            let permits = Arc::clone(&self.permits);
            match connection.wait(connection.options.timeout, permits.acquire_owned())? {
                Ok(Ok(permit)) => return Ok(permit),
                Ok(Err(_)) => return Err(Failure::connection("the upload was ended").fault.into()),
                Err(_) => {}
            }
        }
    }
}

/// Creates the directory of a layout on this host.
fn make_directory(to: &ObjectImage) -> Result<()> {
    let path = to.address().strip_prefix("file://").unwrap_or_default();
    std::fs::create_dir_all(path).map_err(|cause| {
        SystemError::Call {
            path: path.into(),
            action: "create the directory",
            cause,
        }
        .into()
    })
}

/// An upload of a blob.
struct Upload<'u, 'p> {
    target: &'u Target<'p>,
    content: &'u dyn Content,
    digest: &'u Digest,
    size: u64,
    key: Path,
}

/// A blob that is being read, and the digest so far.
struct Reader {
    file: File,
    sha256: Sha256,
    left: u64,
}

impl Upload<'_, '_> {
    fn reader(&self) -> Result<Reader> {
        Ok(Reader {
            file: self.content.open()?,
            sha256: Sha256::new(),
            left: self.size,
        })
    }

    /// Reads the next part. The last one is returned only if the blob has its digest, so that the layout
    /// never gets a damaged blob as a whole.
    fn part(&self, reader: &mut Reader, length: u64) -> Result<PutPayload, Stop> {
        let mut wanted = reader.left.min(length) as usize;
        reader.left -= wanted as u64;
        let mut pieces = Vec::new();
        while wanted > 0 {
            let mut piece = vec![0; wanted.min(PIECE)];
            self.content.read(&mut reader.file, &mut piece)?;
            reader.sha256.update(&piece);
            wanted -= piece.len();
            pieces.push(Bytes::from(piece));
        }
        if reader.left == 0 {
            let found = Digest(reader.sha256.clone().finalize().into());
            if found != *self.digest {
                let path = self.content.path();
                return Err(ObjectFault::DamagedBlob { path, found }.into());
            }
        }
        Ok(pieces.into_iter().collect())
    }

    /// Counts bytes that have arrived.
    fn sent(&self, bytes: u64) {
        let connection = &self.target.connection;
        connection.counters.sent.fetch_add(bytes, Relaxed);
        connection.progress.done_bytes(bytes);
    }

    /// Uploads the blob by one request.
    fn at_once(&self) -> Result<(), Stop> {
        let connection = &self.target.connection;
        let _permit = self.target.permit()?;
        let payload = self.part(&mut self.reader()?, self.size)?;
        connection.request(|| connection.stores.objects.put(&self.key, payload.clone()))?;
        self.sent(self.size);
        Ok(())
    }

    /// Uploads the blob in parts, one after the other.
    fn in_order(&self) -> Result<(), Stop> {
        let connection = &self.target.connection;
        let timeout = connection.options.timeout;
        let mut reader = self.reader()?;
        let objects = &connection.stores.objects;
        let mut upload = connection.request(|| objects.put_multipart(&self.key))?;
        let mut run = |upload: &mut Box<dyn MultipartUpload>| {
            while reader.left > 0 {
                let _permit = self.target.permit()?;
                let part = self.part(&mut reader, PART)?;
                let length = part.content_length() as u64;
                let put = connection.once(timeout, upload.put_part(part))?;
                put.map_err(|failure| failure.fault)?;
                self.sent(length);
            }
            let completed = connection.once(timeout.max(COMMIT_TIME), upload.complete())?;
            completed.map_err(|failure| failure.fault)?;
            Ok(())
        };
        let result = run(&mut upload);
        if result.is_err() {
            let _ = connection
                .runtime()
                .block_on(alive(ABORT_TIME, upload.abort()));
        }
        result
    }

    /// Uploads the blob in parts, several at once.
    fn in_parts(&self, store: &Arc<dyn MultipartStore>) -> Result<(), Stop> {
        let connection = &self.target.connection;
        let id = connection.request(|| store.create_multipart(&self.key))?;
        let result = self.all_parts(store, &id);
        if result.is_err() {
            // Otherwise the parts would be kept, and paid for. The error counts.
            let abort = store.abort_multipart(&self.key, &id);
            let _ = connection.runtime().block_on(alive(ABORT_TIME, abort));
        }
        result
    }

    fn all_parts(&self, store: &Arc<dyn MultipartStore>, id: &MultipartId) -> Result<(), Stop> {
        let connection = &self.target.connection;
        let length = PART.max(self.size.div_ceil(PARTS_MAX).next_multiple_of(1 << 20));
        let mut reader = self.reader()?;
        // Dropping it ends the tasks.
        let mut tasks = JoinSet::new();
        let mut parts: Vec<Option<PartId>> = Vec::new();
        while reader.left > 0 {
            while let Some(ended) = tasks.try_join_next() {
                self.arrived(&mut parts, ended)?;
            }
            let permit = self.target.permit()?;
            let payload = self.part(&mut reader, length)?;
            let part = Part {
                store: Arc::clone(store),
                key: self.key.clone(),
                id: id.clone(),
                number: parts.len(),
                payload,
                timeout: connection.options.timeout,
                retries: connection.options.retries,
                backend: connection.image.backend(),
                counters: Arc::clone(&connection.counters),
            };
            parts.push(None);
            tasks.spawn_on(part.send(permit), connection.runtime().handle());
        }
        while !tasks.is_empty() {
            // Each task has its own deadline.
            if let Ok(Some(ended)) = connection.wait(COMMIT_TIME, tasks.join_next())? {
                self.arrived(&mut parts, ended)?;
            }
        }
        let parts: Option<Vec<PartId>> = parts.into_iter().collect();
        let parts = parts.ok_or_else(|| Failure::connection("a part is missing").fault)?;
        let mut attempts = Attempts::new(connection.options.retries);
        loop {
            let time = connection.options.timeout.max(COMMIT_TIME);
            let complete = store.complete_multipart(&self.key, id, parts.clone());
            match connection.once(time, complete)? {
                Ok(_) => return Ok(()),
                Err(failure) => connection.prepare(&mut attempts, failure)?,
            }
            // The answer may have been lost after the completion, which cannot be repeated then.
            let meta = connection.once(
                connection.options.timeout,
                connection.stores.objects.head(&self.key),
            )?;
            if meta.is_ok_and(|meta| meta.size == self.size) {
                return Ok(());
            }
        }
    }

    /// Notes a part that has arrived.
    fn arrived(
        &self,
        parts: &mut [Option<PartId>],
        ended: Result<Result<Sent, ObjectFault>, tokio::task::JoinError>,
    ) -> Result<(), Stop> {
        let sent = match ended {
            Ok(sent) => sent?,
            Err(join) => return Err(Failure::connection(join.to_string()).fault.into()),
        };
        if let Some(part) = parts.get_mut(sent.number) {
            *part = Some(sent.id);
        }
        self.sent(sent.bytes);
        Ok(())
    }
}

/// A part that is uploaded.
struct Part {
    store: Arc<dyn MultipartStore>,
    key: Path,
    id: MultipartId,
    number: usize,
    payload: PutPayload,
    timeout: Duration,
    retries: u32,
    backend: Backend,
    counters: Arc<crate::client::Counters>,
}

/// A part that has arrived.
struct Sent {
    number: usize,
    id: PartId,
    bytes: u64,
}

impl Part {
    /// Uploads it, again and again if that can help. The permit is held until its memory is free.
    async fn send(self, _permit: OwnedSemaphorePermit) -> Result<Sent, ObjectFault> {
        let mut attempts = Attempts::new(self.retries);
        loop {
            self.counters.requests.fetch_add(1, Relaxed);
            let put = self
                .store
                .put_part(&self.key, &self.id, self.number, self.payload.clone());
            let failure = match alive(self.timeout, put).await {
                Ok(Ok(id)) => {
                    return Ok(Sent {
                        number: self.number,
                        id,
                        bytes: self.payload.content_length() as u64,
                    })
                }
                Ok(Err(error)) => Failure::of(&error, self.backend),
                Err(failure) => failure,
            };
            tokio::time::sleep(attempts.after(failure)?).await;
        }
    }
}
