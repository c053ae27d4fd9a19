// SPDX-License-Identifier: MIT OR Apache-2.0

//! Reads images of object stores. `puzzlefs_lib::import::obtain` decides which blobs and ranges are
//! requested.

use super::connection::{blob_name, Attempts, Connection, Stop};
use super::error::ObjectFault;
use super::failure::Failure;
use super::layout::DOCUMENT_MAX;
use super::name::ObjectImage;
use crate::client::RegistryOptions;
use crate::failure::Remedy;
use crate::pull::{Position, SUCCESS};
use puzzlefs_lib::fetch::{BlobSource, ImageSource, RemoteBlob};
use puzzlefs_lib::oci::{Descriptor, Index};
use puzzlefs_lib::{Digest, Progress, Result};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// The manifests and blobs of a layout.
pub(crate) struct ObjectSource<'p> {
    pub(super) connection: Connection<'p>,
    /// The document that the name stands for.
    first: (Digest, Vec<u8>),
    /// Set when the server has answered a request for a range with the whole object.
    is_unranged: AtomicBool,
}

impl<'p> ObjectSource<'p> {
    /// Finds the document that a name stands for. Returns it with its descriptor, and with the index if that
    /// was read.
    pub fn open(
        image: &ObjectImage,
        action: &'static str,
        options: &RegistryOptions,
        progress: &'p Progress,
    ) -> Result<(Self, Descriptor, Option<Index>)> {
        let connection = Connection::new(image, action, options, progress)?;
        let (document, index) = match image.digest() {
            Some(digest) => (Descriptor::new("", digest, 0), None),
            None => {
                let (document, index) = connection.tagged(image.tag().unwrap_or("latest"))?;
                (document, Some(index))
            }
        };
        let digest = connection.digest(&document.digest)?;
        let bytes = connection.document(&digest)?;
        let document = Descriptor {
            size: bytes.len() as u64,
            ..document
        };
        let source = ObjectSource {
            connection,
            first: (digest, bytes),
            is_unranged: AtomicBool::new(false),
        };
        Ok((source, document, index))
    }

    /// The digest of the document that the name stands for.
    pub fn digest(&self) -> Digest {
        self.first.0
    }
}

impl Connection<'_> {
    /// Reads a manifest or an index, and compares it with its digest.
    pub(super) fn document(&self, digest: &Digest) -> Result<Vec<u8>> {
        let object = blob_name(digest);
        let found = self.read_small(&object, DOCUMENT_MAX);
        let found = found.map_err(|stop| self.stopped(&object, stop))?;
        let small = found.ok_or_else(|| self.fail(&object, ObjectFault::NotFound))?;
        let found = Digest::of(&small.bytes);
        if found != *digest {
            return Err(self.fail(&object, ObjectFault::Digest { found }));
        }
        Ok(small.bytes)
    }
}

impl ImageSource for ObjectSource<'_> {
    fn name(&self) -> String {
        self.connection.image.to_string()
    }

    fn manifest(&self, digest: &Digest) -> Result<Vec<u8>> {
        if *digest == self.first.0 {
            return Ok(self.first.1.clone());
        }
        self.connection.document(digest)
    }
}

impl BlobSource for ObjectSource<'_> {
    fn read(
        &self,
        blob: &RemoteBlob,
        range: Range<u64>,
        give: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<bool> {
        let connection = &self.connection;
        let object = blob_name(&blob.digest);
        let mut attempts = Attempts::new(connection.options.retries);
        let mut position = Position {
            at: range.start,
            range,
        };
        while position.at < position.range.end {
            let before = position.at;
            let failure = match self.read_on(&object, blob, &mut position, give)? {
                Ok(()) => continue,
                Err(failure) => failure,
            };
            if matches!(failure.fault, ObjectFault::Unranged) {
                let was_known = self.is_unranged.swap(true, Relaxed);
                if position.at == position.range.start {
                    return Ok(false);
                }
                if !was_known {
                    continue;
                }
            }
            if position.at - before >= SUCCESS {
                attempts = Attempts::new(connection.options.retries);
            }
            let prepared = connection.prepare(&mut attempts, failure);
            prepared.map_err(|stop| connection.stopped(&object, stop))?;
        }
        Ok(true)
    }
}

impl ObjectSource<'_> {
    /// Requests the rest of a range, and gives its bytes.
    fn read_on(
        &self,
        object: &str,
        blob: &RemoteBlob,
        position: &mut Position,
        give: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<Result<(), Failure>> {
        let connection = &self.connection;
        let is_whole = position.range == (0..blob.size);
        let is_unranged = self.is_unranged.load(Relaxed);
        if is_unranged && !is_whole && position.at == position.range.start {
            return Ok(Err(Failure::new(Remedy::Stop, ObjectFault::Unranged)));
        }
        // A whole object is requested without a range, which any server can answer.
        let without = is_whole && position.at == 0 || is_unranged;
        let range = (!without).then(|| position.at..position.range.end);
        let mut skip = if without { position.at } else { 0 };
        let mut reading = match connection.open(object, range)? {
            Ok(reading) => reading,
            Err(failure) => return Ok(Err(failure)),
        };
        let (found, wanted) = (reading.meta.size, blob.size);
        if found != wanted {
            return Ok(Err(Failure::new(
                Remedy::Stop,
                ObjectFault::Size { found, wanted },
            )));
        }
        while position.at < position.range.end {
            let piece = match connection.next(&mut reading)? {
                Ok(Some(piece)) => piece,
                Ok(None) => return Ok(Err(Failure::connection("it ended early"))),
                Err(failure) => return Ok(Err(failure)),
            };
            let skipped = skip.min(piece.len() as u64);
            skip -= skipped;
            let piece = piece.get(skipped as usize..).unwrap_or_default();
            let missing = position.range.end - position.at;
            let piece = piece.get(..missing as usize).unwrap_or(piece);
            give(piece)?;
            position.at += piece.len() as u64;
        }
        Ok(Ok(()))
    }
}

impl Connection<'_> {
    /// Parses a digest of a document of the layout.
    pub(super) fn digest(&self, text: &str) -> Result<Digest> {
        Digest::from_oci(text).ok_or_else(|| {
            let message = crate::error::Message::new(format!("'{text}' is not a sha256 digest"));
            self.stopped("index.json", Stop::Fault(ObjectFault::Protocol(message)))
        })
    }
}
