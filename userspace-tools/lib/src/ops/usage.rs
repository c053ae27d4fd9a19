// SPDX-License-Identifier: MIT OR Apache-2.0

//! Adds up the space that the images of a store take, alone and shared.

use crate::error::{Error, Result};
use crate::model::count::Count;
use crate::model::digest::Digest;
use crate::store::graph;
use crate::store::oci_layout::Store;
use std::collections::HashMap;

/// The space that one image takes. Several tags of one manifest are one image.
#[derive(Clone, Debug)]
pub struct ImageUsage {
    /// Its tags.
    pub tags: Vec<String>,
    /// The digest of its manifest.
    pub manifest: Digest,
    /// It is a PuzzleFS image, or an index with one.
    pub is_puzzlefs: bool,
    /// All its blobs: the space that it takes in a store of its own.
    pub alone: Count,
    /// The blobs that no other image has: the space that its removal frees.
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
    /// The blobs that no image has: the space that `gc` frees.
    pub unreferenced: Count,
    /// The errors of images that cannot be read. Their blobs count as unreferenced, which may be wrong.
    pub errors: Vec<Error>,
}

/// Adds up the space that the images of a store take, by the sizes of the existing blobs.
pub fn usage(store: &Store) -> Result<Usage> {
    let (roots, errors) = graph::roots(store, store.index()?);
    let mut usage = Usage {
        errors,
        ..Usage::default()
    };
    let mut references: HashMap<Digest, u64> = HashMap::new();
    for root in &roots {
        for blob in root.blobs.keys() {
            *references.entry(*blob).or_default() += 1;
        }
    }
    let mut sizes = HashMap::new();
    for blob in store.list_blobs()?.0 {
        let size = store.blob_size(&blob)?.unwrap_or_default();
        sizes.insert(blob, size);
        usage.total.add(size);
        if !references.contains_key(&blob) {
            usage.unreferenced.add(size);
        }
    }
    for root in roots {
        let mut image = ImageUsage {
            tags: root.tags,
            manifest: root.digest,
            is_puzzlefs: !(root.images.is_empty() && root.packed.is_empty()),
            alone: Count::default(),
            unique: Count::default(),
            shared: Count::default(),
        };
        for blob in root.blobs.keys() {
            let Some(&size) = sizes.get(blob) else {
                continue;
            };
            image.alone.add(size);
            match references.get(blob) {
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
