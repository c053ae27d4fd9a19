// SPDX-License-Identifier: MIT OR Apache-2.0

//! Adds up the space that the images of a store take, alone and shared.
//!
//! An image of format 3 takes its blobs. One of format 4 takes its chunks, in packs or loose, instead of
//! the packs that its manifest lists: these can have chunks of other images too.

use crate::error::{Error, Result};
use crate::image::chunk_walk::ChunkWalk;
use crate::model::count::Count;
use crate::model::digest::Digest;
use crate::model::reference::Selector;
use crate::store::chunks::pack::PackFile;
use crate::store::chunks::reader::ChunkReader;
use crate::store::graph::{self, Root};
use crate::store::oci_layout::Store;
use std::collections::{HashMap, HashSet};

/// The space that one image takes. Several tags of one manifest are one image.
#[derive(Clone, Debug)]
pub struct ImageUsage {
    /// Its tags.
    pub tags: Vec<String>,
    /// The digest of its manifest.
    pub manifest: Digest,
    /// It is a PuzzleFS image, or an index with one.
    pub is_puzzlefs: bool,
    /// All its blobs and chunks: the space that it takes in a store of its own.
    pub alone: Count,
    /// Those that no other image has: the space that its removal frees.
    pub unique: Count,
    /// Those that other images have too.
    pub shared: Count,
}

/// The space that a store takes.
#[derive(Debug, Default)]
pub struct Usage {
    /// Its images.
    pub images: Vec<ImageUsage>,
    /// All its blobs.
    pub total: Count,
    /// The blobs that no image has, and packs without a chunk of an image: the space that `gc` frees.
    pub unreferenced: Count,
    /// The chunks that no image has, in the other packs. `gc` frees them if they are many.
    pub dead_chunks: Count,
    /// The errors of images that cannot be read. Their blobs count as unreferenced, which may be wrong.
    pub errors: Vec<Error>,
}

/// Adds up the space that the images of a store take, by the sizes of the existing blobs and chunks.
pub fn usage(store: &Store) -> Result<Usage> {
    let (roots, errors) = graph::roots(store, store.index()?);
    let mut usage = Usage {
        errors,
        ..Usage::default()
    };
    let mut sizes = HashMap::new();
    for blob in store.list_blobs()?.0 {
        sizes.insert(blob, store.blob_size(&blob)?.unwrap_or_default());
    }
    let reader = ChunkReader::new(store)?;
    let mut parts = Vec::new();
    let mut references: HashMap<Digest, u64> = HashMap::new();
    for root in &roots {
        let found = parts_of(root, &sizes, &reader, &mut usage.errors);
        for part in found.keys() {
            *references.entry(*part).or_default() += 1;
        }
        parts.push(found);
    }
    usage.add_blobs(&roots, &sizes, &references, &reader);
    for (root, parts) in roots.into_iter().zip(parts) {
        let mut image = ImageUsage {
            tags: root.tags,
            manifest: root.digest,
            is_puzzlefs: !(root.images.is_empty() && root.packed.is_empty()),
            alone: Count::default(),
            unique: Count::default(),
            shared: Count::default(),
        };
        for (part, size) in parts {
            image.alone.add(size);
            match references.get(&part) {
                Some(1) => image.unique.add(size),
                _ => image.shared.add(size),
            }
        }
        usage.images.push(image);
        usage.errors.extend(root.errors);
    }
    usage.images.sort_by(|a, b| a.tags.cmp(&b.tags));
    Ok(usage)
}

/// Returns the sizes of the blobs and the chunks that an image has and the store too.
fn parts_of(
    root: &Root,
    sizes: &HashMap<Digest, u64>,
    reader: &ChunkReader<'_>,
    errors: &mut Vec<Error>,
) -> HashMap<Digest, u64> {
    let blobs = root
        .blobs
        .keys()
        .filter(|blob| !root.packs.contains_key(blob));
    let sized = blobs.filter_map(|blob| Some((*blob, *sizes.get(blob)?)));
    let mut parts: HashMap<Digest, u64> = sized.collect();
    for manifest in &root.packed {
        errors.extend(add_chunks(manifest, reader, &mut parts).err());
    }
    parts
}

/// Adds the chunks of an image of format 4.
fn add_chunks(
    manifest: &Digest,
    reader: &ChunkReader<'_>,
    parts: &mut HashMap<Digest, u64>,
) -> Result<()> {
    let root = reader.store().any_root(&Selector::Manifest(*manifest))?;
    let mut chunks = HashMap::new();
    ChunkWalk::new(reader).image(root.digest(), |chunk, _| {
        chunks.insert(Digest::from(*chunk.digest()), u64::from(chunk.stored_len()));
    })?;
    for (digest, size) in chunks {
        if reader.find(&digest)?.is_some() {
            parts.insert(digest, size);
        }
    }
    Ok(())
}

impl Usage {
    /// Adds all blobs of the store, and the part of them that no image has.
    fn add_blobs(
        &mut self,
        roots: &[Root],
        sizes: &HashMap<Digest, u64>,
        references: &HashMap<Digest, u64>,
        reader: &ChunkReader<'_>,
    ) {
        let packs = roots.iter().flat_map(|root| root.packs.keys().copied());
        let packs: HashSet<Digest> = packs.chain(reader.listed_packs()).collect();
        for (blob, size) in sizes {
            self.total.add(*size);
            if references.contains_key(blob) {
                continue;
            }
            let pack = packs
                .contains(blob)
                .then(|| PackFile::open(reader.store(), blob));
            match pack {
                None => self.unreferenced.add(*size),
                Some(Ok(pack)) => self.add_pack(&pack, references),
                Some(Err(error)) => self.errors.push(error),
            }
        }
    }

    /// Adds the part of a pack that no image has.
    fn add_pack(&mut self, pack: &PackFile, references: &HashMap<Digest, u64>) {
        let mut dead = Count::default();
        let mut is_needed = false;
        for chunk in pack.chunks() {
            if references.contains_key(&Digest::from(chunk.digest)) {
                is_needed = true;
            } else {
                dead.add(chunk.stored_len.into());
            }
        }
        if is_needed {
            self.dead_chunks.blobs += dead.blobs;
            self.dead_chunks.bytes += dead.bytes;
        } else {
            self.unreferenced.add(pack.len());
        }
    }
}
