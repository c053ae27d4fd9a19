// SPDX-License-Identifier: MIT OR Apache-2.0

//! Compresses contents and writes them as blobs, each once.

use crate::build::flusher::Flusher;
use crate::build::layout::Layout;
use crate::error::{Error, Result};
use crate::image::seekable::{Compression, Encoder};
use crate::model::digest::Digest;
use crate::model::verity;
use crate::store::staging::{Content, Placed, Staging};
use crate::sys::parallel::{into_inner, lock};
use std::collections::hash_map::{Entry, HashMap};
use std::collections::HashSet;
use std::sync::Mutex;

/// A data blob of an image.
#[derive(Clone, Copy, Debug)]
pub struct Blob {
    /// Its size in bytes.
    pub size: u64,
    /// Its fs-verity digest.
    pub verity: Digest,
    /// True if this build brought it to the store.
    pub new: bool,
}

/// The blob that a content is in.
#[derive(Clone, Copy)]
pub(crate) struct StoredBlob {
    pub digest: Digest,
    pub blob: Blob,
    pub compressed: bool,
}

/// Writes blobs for several threads.
pub(crate) struct Writer<'a> {
    compression: Option<&'a Compression>,
    staging: &'a Staging<'a>,
    flusher: &'a Flusher,
    /// The digest and the size of the shared blob of zeros, before compression.
    zeros: (Digest, usize),
    /// The blob of each content, by the content's digest; none while a thread writes it.
    contents: Mutex<HashMap<Digest, Option<StoredBlob>>>,
    /// The digests of blobs that were written, or are being written.
    written: Mutex<HashSet<Digest>>,
}

impl<'a> Writer<'a> {
    /// A writer into a staging directory. `flusher` hears of each write.
    pub fn new(
        layout: &Layout,
        compression: Option<&'a Compression>,
        staging: &'a Staging<'a>,
        flusher: &'a Flusher,
    ) -> Self {
        let zeros = Digest::of(&vec![0; layout.zero_blob]);
        Writer {
            compression,
            staging,
            flusher,
            zeros: (zeros, layout.zero_blob),
            contents: Mutex::default(),
            written: Mutex::default(),
        }
    }

    /// Stores the shared blob of zeros, and returns the digest of its content.
    pub fn store_zeros(&self, encoder: &mut Option<Encoder>) -> Result<Digest> {
        let (digest, size) = self.zeros;
        if !lock(&self.contents).contains_key(&digest) {
            self.store(digest, &vec![0; size], encoder)?;
        }
        Ok(digest)
    }

    /// Stores the content of this digest, if it is the first of its kind. It is compressed if the
    /// options say so and it becomes smaller.
    pub fn store(
        &self,
        content: Digest,
        bytes: &[u8],
        encoder: &mut Option<Encoder>,
    ) -> Result<()> {
        match lock(&self.contents).entry(content) {
            Entry::Occupied(_) => return Ok(()),
            // Claims it, so that no other thread writes the same. The record is completed below.
            Entry::Vacant(entry) => entry.insert(None),
        };
        let stored = match self.compress(bytes, encoder)? {
            Some(compressed) => self.write(Digest::of(&compressed), &compressed, true)?,
            None => self.write(content, bytes, false)?,
        };
        lock(&self.contents).insert(content, Some(stored));
        Ok(())
    }

    /// Returns the blob of each content that was stored, by the content's digest.
    pub fn into_stored(self) -> HashMap<Digest, StoredBlob> {
        into_inner(self.contents)
            .into_iter()
            .filter_map(|(content, blob)| Some((content, blob?)))
            .collect()
    }

    /// Compresses a content, if it becomes smaller.
    fn compress(&self, bytes: &[u8], encoder: &mut Option<Encoder>) -> Result<Option<Vec<u8>>> {
        let Some(compression) = self.compression else {
            return Ok(None);
        };
        let fail = |error| Error::io(&self.staging.path, "compress a blob in")(error);
        let encoder = match encoder {
            Some(encoder) => encoder,
            None => encoder.insert(Encoder::new(compression).map_err(fail)?),
        };
        encoder.encode(bytes).map_err(fail)
    }

    fn write(&self, digest: Digest, bytes: &[u8], compressed: bool) -> Result<StoredBlob> {
        // The compressed form of one content can equal another content that is stored as it is.
        let first = lock(&self.written).insert(digest);
        let pieces = [bytes];
        let content = if digest == self.zeros.0 {
            Content::Zeros(bytes.len() as u64)
        } else {
            Content::Bytes(&pieces)
        };
        let new = first && self.staging.put(&digest, content)? == Placed::New;
        if new {
            self.flusher.written(bytes.len() as u64);
        }
        Ok(StoredBlob {
            digest,
            blob: Blob {
                size: bytes.len() as u64,
                verity: verity::digest(bytes),
                new,
            },
            compressed,
        })
    }
}
