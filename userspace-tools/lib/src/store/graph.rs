// SPDX-License-Identifier: MIT OR Apache-2.0

//! Follows the index of a store to manifests of any type, and to the blobs that they name.
//!
//! A store may hold images of other formats. The module follows the OCI image specification 1.1 and
//! Docker's types of the same shape.

use crate::error::{Error, Result, StoreError};
use crate::model::digest::Digest;
use crate::model::json;
use crate::model::limits::MANIFEST_MAX;
use crate::model::oci::{self, Descriptor};
use crate::store::oci_layout::{not_a_digest, Store};
use serde::Deserialize;
use std::collections::{BTreeMap, HashSet};

const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// One manifest, or index of manifests, that `index.json` lists, and all that belongs to it.
#[derive(Debug)]
pub(crate) struct Root {
    /// The tags that it has; none if it is listed without.
    pub tags: Vec<String>,
    /// The digest of the manifest or index.
    pub digest: Digest,
    /// All blobs, including the manifest, with the sizes in their descriptors.
    pub blobs: BTreeMap<Digest, u64>,
    /// The packs of images of format 4, with the sizes in their descriptors. They are among the blobs,
    /// and need not exist: their chunks can lie elsewhere.
    pub packs: BTreeMap<Digest, u64>,
    /// Further sizes of the same blobs in other descriptors, of which all but one are wrong.
    pub other_sizes: Vec<(Digest, u64)>,
    /// The PuzzleFS images of format 3, by their manifests.
    pub images: Vec<Digest>,
    /// The PuzzleFS images of format 4, by their manifests.
    pub packed: Vec<Digest>,
    /// The documents that cannot be read. If there are any, the list of blobs is not complete.
    pub errors: Vec<Error>,
}

impl Root {
    /// Returns the name for messages: the tags, or the digest.
    pub fn name(&self) -> String {
        match &self.tags[..] {
            [] => self.digest.to_oci(),
            tags => tags.join(", "),
        }
    }

    /// Notes a blob that belongs to it.
    fn add_blob(&mut self, digest: Digest, size: u64) {
        if let Some(other) = self
            .blobs
            .insert(digest, size)
            .filter(|other| *other != size)
        {
            self.other_sizes.push((digest, other));
        }
    }
}

/// The parts of a manifest that lead to blobs.
#[derive(Deserialize)]
struct Manifest {
    config: Descriptor,
    #[serde(deserialize_with = "oci::or_null")]
    layers: Vec<Descriptor>,
    subject: Option<Descriptor>,
    #[serde(default, deserialize_with = "oci::or_null")]
    annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// Returns true if it is the manifest of an image of format 4.
    fn is_packed(&self) -> bool {
        let mut layers = self.layers.iter();
        self.annotations.contains_key(oci::ROOT) || layers.any(|l| l.is_pack())
    }
}

/// The parts of an index that lead to manifests. Not all of these have to exist, unlike those in
/// `index.json`: a copy of an image for many platforms may have one of them.
#[derive(Deserialize)]
struct Index {
    #[serde(deserialize_with = "oci::or_null")]
    manifests: Vec<Descriptor>,
    subject: Option<Descriptor>,
}

/// Follows the index of a store. A manifest that is listed several times is read once.
///
/// The second of the pair has an error for each entry whose digest is none.
pub(crate) fn roots(store: &Store, index: oci::Index) -> (Vec<Root>, Vec<Error>) {
    let mut roots: BTreeMap<Digest, Root> = BTreeMap::new();
    let mut errors = Vec::new();
    for descriptor in index.manifests {
        let Some(digest) = Digest::from_oci(&descriptor.digest) else {
            errors.push(not_a_digest(&descriptor, &store.path().join("index.json")));
            continue;
        };
        let root = roots
            .entry(digest)
            .or_insert_with(|| follow(store, digest, &descriptor));
        root.add_blob(digest, descriptor.size);
        root.tags.extend(descriptor.tag().map(str::to_owned));
    }
    (roots.into_values().collect(), errors)
}

/// Follows everything from one descriptor of `index.json`.
fn follow(store: &Store, digest: Digest, descriptor: &Descriptor) -> Root {
    let mut root = Root {
        tags: Vec::new(),
        digest,
        blobs: BTreeMap::from([(digest, descriptor.size)]),
        packs: BTreeMap::new(),
        other_sizes: Vec::new(),
        images: Vec::new(),
        packed: Vec::new(),
        errors: Vec::new(),
    };
    let mut seen = HashSet::from([digest]);
    let mut pending = vec![(digest, descriptor.media_type.clone())];
    while let Some((digest, media_type)) = pending.pop() {
        let is_root = digest == root.digest;
        match read(store, digest, &media_type, is_root, &mut root) {
            Ok(manifests) => {
                for manifest in manifests {
                    match Digest::from_oci(&manifest.digest) {
                        Some(digest) => {
                            root.add_blob(digest, manifest.size);
                            if seen.insert(digest) {
                                pending.push((digest, manifest.media_type));
                            }
                        }
                        None => {
                            let found_in = store.blob_path(&digest);
                            root.errors.push(not_a_digest(&manifest, &found_in));
                        }
                    }
                }
            }
            Err(error) => root.errors.push(error),
        }
    }
    root
}

/// Reads a manifest or an index, notes the blobs that it names, and returns further manifests.
fn read(
    store: &Store,
    digest: Digest,
    media_type: &str,
    is_root: bool,
    root: &mut Root,
) -> Result<Vec<Descriptor>> {
    if !is_root && store.blob_size(&digest)?.is_none() {
        root.blobs.remove(&digest);
        return Ok(Vec::new());
    }
    let path = store.blob_path(&digest);
    let what = format!("a '{media_type}'");
    let malformed = |cause| StoreError::Malformed {
        path: path.clone(),
        cause,
    };
    match media_type {
        oci::MANIFEST | DOCKER_MANIFEST => {
            let bytes = store.read_blob(&digest, MANIFEST_MAX)?;
            let manifest: Manifest = json::parse(&bytes, &what).map_err(malformed)?;
            if manifest.layers.iter().any(|l| l.media_type == oci::ROOTFS) {
                root.images.push(digest);
            } else if manifest.is_packed() {
                root.packed.push(digest);
            }
            for blob in manifest.layers.iter().chain([&manifest.config]) {
                // Blobs of another algorithm are in another directory.
                if let Some(digest) = Digest::from_oci(&blob.digest) {
                    root.add_blob(digest, blob.size);
                    if blob.is_pack() {
                        root.packs.insert(digest, blob.size);
                    }
                }
            }
            Ok(manifest.subject.into_iter().collect())
        }
        oci::INDEX | DOCKER_INDEX => {
            let bytes = store.read_blob(&digest, MANIFEST_MAX)?;
            let mut index: Index = json::parse(&bytes, &what).map_err(malformed)?;
            index.manifests.extend(index.subject);
            Ok(index.manifests)
        }
        _ => Err(StoreError::UnknownType {
            path,
            media_type: media_type.to_owned(),
        }
        .into()),
    }
}
