// SPDX-License-Identifier: MIT OR Apache-2.0

//! Contents in format 3: blobs that hold a bundle or a chunk each.

use crate::build::contents::placement::{PieceData, Stored};
use crate::build::contents::reading::{store_contents, Reading};
use crate::build::contents::sink::{ContentSink, Provenance, Turn};
use crate::build::flusher::Flusher;
use crate::build::layout::Layout;
use crate::error::{Error, Result};
use crate::image::seekable::{Compression, Encoder};
use crate::model::digest::Digest;
use crate::model::extent::{Extent, Extents};
use crate::model::tree::{Fresh, NodeId};
use crate::model::verity;
use crate::store::staging::{Content, Placed, Staging};
use crate::sys::parallel::{into_inner, lock};
use std::borrow::Cow;
use std::collections::hash_map::{Entry, HashMap};
use std::collections::{BTreeMap, HashSet};
use std::sync::Mutex;

/// The places of the contents of a tree's files.
#[derive(Debug, Default)]
pub struct Contents {
    /// For each node the extents of its contents, in order; none if it is not a file.
    pub extents: Vec<Extents>,
    /// The blobs that they name.
    pub blobs: BTreeMap<Digest, Blob>,
    /// Files that changed while they were read, in the state in which they were read.
    pub(crate) fresh: Vec<(NodeId, Fresh)>,
}

/// Stores the contents of the regular files of a tree as blobs.
pub(crate) fn store_blobs(reading: &Reading<'_>) -> Result<Contents> {
    let flusher = Flusher::default();
    let Reading { options, .. } = reading;
    let compression = options.compression.as_ref();
    let writer = Writer::new(&options.layout, compression, reading.staging, &flusher);
    let stored = store_contents(reading, &writer, &flusher)?;
    let zeros = writer.zeros;
    let blobs = writer.into_stored();
    let extents = extents(reading.tree.nodes.len(), &stored, &blobs, zeros);
    let mut used = distinct(&blobs);
    if !stored.fresh.is_empty() {
        // An attempt that does not count may have stored blobs of no file.
        retain_referenced(&mut used, &extents);
    }
    Ok(Contents {
        extents,
        blobs: used,
        fresh: stored.fresh,
    })
}

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
struct StoredBlob {
    digest: Digest,
    blob: Blob,
    compressed: bool,
}

/// Writes blobs for several threads.
struct Writer<'a> {
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
    fn new(
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

    /// Stores the content of this digest, if it is the first of its kind. It is compressed if the
    /// options say so and it becomes smaller.
    fn store_once(
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
    fn into_stored(self) -> HashMap<Digest, StoredBlob> {
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

impl ContentSink for Writer<'_> {
    type Local = Option<Encoder>;
    /// The digest of the content.
    type Key = Digest;

    fn store(
        &self,
        _turn: Turn,
        bytes: Cow<'_, [u8]>,
        _from: &Provenance,
        encoder: &mut Self::Local,
    ) -> Result<Digest> {
        let content = Digest::of(&bytes);
        self.store_once(content, &bytes, encoder)?;
        Ok(content)
    }

    /// Stores the shared blob of zeros.
    fn store_zeros(&self, encoder: &mut Self::Local) -> Result<()> {
        let (digest, size) = self.zeros;
        if !lock(&self.contents).contains_key(&digest) {
            self.store_once(digest, &vec![0; size], encoder)?;
        }
        Ok(())
    }

    fn end_unit(&self, _unit: u32, _turns: u32) -> Result<()> {
        Ok(())
    }
}

/// Returns the extents of each of `nodes` nodes. `blobs` has the blob of each content. `zeros` is the
/// content of the blob of zeros, and its size.
fn extents(
    nodes: usize,
    stored: &Stored<Digest>,
    blobs: &HashMap<Digest, StoredBlob>,
    zeros: (Digest, usize),
) -> Vec<Extents> {
    let extent = |content: &Digest, offset: u64, length: u64| {
        // Each content was stored before its digest was noted.
        let stored = blobs[content];
        Extent {
            blob: stored.digest,
            offset,
            length,
            compressed: stored.compressed,
        }
    };
    let mut extents = vec![Extents::default(); nodes];
    for file in &stored.small {
        let only = extent(stored.bundle(file), file.offset.into(), file.size.into());
        extents[file.node as usize] = Extents::One(only);
    }
    for piece in &stored.pieces {
        let extents = &mut extents[piece.position.node as usize];
        let (content, unit) = match &piece.data {
            PieceData::Chunk(content) => (content, piece.length),
            PieceData::Zeros => (&zeros.0, zeros.1 as u64),
        };
        let mut left = piece.length;
        while left > 0 {
            let length = left.min(unit);
            extents.push(extent(content, 0, length));
            left -= length;
        }
    }
    extents
}

/// Returns the blobs of contents, by the digests of the blobs.
fn distinct(contents: &HashMap<Digest, StoredBlob>) -> BTreeMap<Digest, Blob> {
    let mut blobs = BTreeMap::new();
    for StoredBlob { digest, blob, .. } in contents.values() {
        let known: &mut Blob = blobs.entry(*digest).or_insert(*blob);
        known.new |= blob.new;
    }
    blobs
}

/// Removes blobs that no extent refers to.
fn retain_referenced(blobs: &mut BTreeMap<Digest, Blob>, extents: &[Extents]) {
    let referenced = extents.iter().flat_map(|extents| extents.iter());
    let referenced: HashSet<Digest> = referenced.map(|extent| extent.blob).collect();
    blobs.retain(|digest, _| referenced.contains(digest));
}
