// SPDX-License-Identifier: MIT OR Apache-2.0

//! The documents and blobs of a container image.

use crate::error::{ContainerFault, FetchError, Result};
use crate::ingest::archive::archive_error;
use crate::ingest::container::{Container, Witness};
use crate::model::digest::Digest;
use crate::model::oci::Descriptor;
use crate::ops::fetch::{ImageSource, RemoteBlob};
use crate::sys::pipe::piped;
use std::io::Read;
use std::path::Path;

/// The largest index, manifest or configuration.
const JSON_MAX: u64 = 16 << 20;

/// The file of a layer, and its digests.
pub(super) struct Layer {
    /// Its path. In a registry, only messages show it.
    pub file: String,
    /// The digest and size of the file, where they are known.
    pub blob: Option<(Digest, u64)>,
    /// The digest of its uncompressed contents.
    pub content: Digest,
}

/// The documents and blobs of a container image.
#[derive(Clone, Copy)]
pub(super) enum Files<'a> {
    /// In a directory or an archive.
    Local(&'a Container),
    /// At a source of this name.
    Remote(&'a dyn ImageSource, &'a Path),
}

impl Files<'_> {
    /// Returns the path or the name for messages.
    pub fn path(&self) -> &Path {
        match self {
            Files::Local(container) => &container.path,
            Files::Remote(_, name) => name,
        }
    }

    /// Reads a document by its path; `None` if it does not exist.
    pub fn document(&self, name: &str) -> Result<Option<Vec<u8>>> {
        match self {
            Files::Local(container) => container.read(name, JSON_MAX),
            Files::Remote(..) => Ok(None),
        }
    }

    /// Reads a manifest or an index, and compares it with its descriptor.
    pub fn manifest(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        match self {
            Files::Local(_) => self.blob(descriptor),
            Files::Remote(source, _) => {
                let digest = self.digest(&descriptor.digest)?;
                self.compared(&digest, descriptor.size, source.manifest(&digest)?)
            }
        }
    }

    /// Reads a small blob, and compares it with its descriptor.
    pub fn blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let digest = self.digest(&descriptor.digest)?;
        let size = descriptor.size;
        let name = blob_name(&digest);
        let bytes = match self {
            Files::Local(container) => container.read(&name, JSON_MAX)?,
            Files::Remote(..) if size > JSON_MAX => {
                let max = JSON_MAX;
                let fault = ContainerFault::TooLarge { name, size, max };
                return Err(archive_error(self.path(), fault));
            }
            Files::Remote(source, _) => {
                let mut bytes = Vec::new();
                source.read(&RemoteBlob { digest, size }, 0..size, &mut |piece| {
                    bytes.extend_from_slice(piece);
                    Ok(())
                })?;
                Some(bytes)
            }
        };
        let fault = ContainerFault::Missing(name);
        let bytes = bytes.ok_or_else(|| archive_error(self.path(), fault))?;
        self.compared(&digest, size, bytes)
    }

    fn compared(&self, digest: &Digest, size: u64, bytes: Vec<u8>) -> Result<Vec<u8>> {
        if Digest::of(&bytes) == *digest && bytes.len() as u64 == size {
            Ok(bytes)
        } else {
            let fault = ContainerFault::Damaged(blob_name(digest));
            Err(archive_error(self.path(), fault))
        }
    }

    /// Returns true if a blob may be there.
    pub fn may_have(&self, digest: &Digest) -> Result<bool> {
        match self {
            Files::Local(container) => Ok(container.file(&blob_name(digest))?.is_some()),
            Files::Remote(..) => Ok(true),
        }
    }

    /// Runs `read` with the bytes of a layer, which `stored` observes. The caller compares a local layer with
    /// its digest. `check` fails if nothing of the layer is needed any more.
    pub fn with_layer<T>(
        &self,
        layer: &Layer,
        stored: &Witness,
        check: &(dyn Fn() -> Result<()> + Sync),
        read: impl FnOnce(Box<dyn Read + Send>) -> Result<T>,
    ) -> Result<T> {
        let fail = |fault| Err(archive_error(self.path(), fault));
        match (self, layer.blob) {
            (Files::Local(container), blob) => match container.file(&layer.file)? {
                None => fail(ContainerFault::Missing(layer.file.clone())),
                Some((_, found)) if blob.is_some_and(|(_, size)| size != found) => {
                    fail(ContainerFault::Damaged(layer.file.clone()))
                }
                Some((file, size)) => read(Box::new(stored.watch(file.take(size)))),
            },
            (Files::Remote(source, _), Some((digest, size))) => piped(
                |give| fetch(*source, &RemoteBlob { digest, size }, stored, check, give),
                |reader| read(Box::new(reader)),
            ),
            (Files::Remote(..), None) => fail(ContainerFault::Missing(layer.file.clone())),
        }
    }

    /// Parses a digest.
    pub fn digest(&self, text: &str) -> Result<Digest> {
        let wrong = || archive_error(self.path(), ContainerFault::Digest(text.to_owned()));
        Digest::from_oci(text).ok_or_else(wrong)
    }
}

/// Fetches a blob, and compares it with its digest.
///
/// Goes on if the reader has failed, because the reader of a damaged blob does not know the cause.
fn fetch(
    source: &dyn ImageSource,
    blob: &RemoteBlob,
    stored: &Witness,
    check: &(dyn Fn() -> Result<()> + Sync),
    give: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let mut is_read = true;
    source.read(blob, 0..blob.size, &mut |piece| {
        check()?;
        stored.add(piece);
        is_read = is_read && give(piece).is_ok();
        Ok(())
    })?;
    let (wanted, found) = (blob.digest, stored.seen().0);
    if found == wanted {
        Ok(())
    } else {
        Err(FetchError::Blob { wanted, found }.into())
    }
}

/// Returns the path of a blob in a layout.
pub(super) fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{digest}")
}
