// SPDX-License-Identifier: MIT OR Apache-2.0

//! The parts of images that a store has.

use super::manifest::RemoteManifest;
use crate::error::{Error, Result};
use crate::model::count::Count;
use crate::model::digest::Digest;
use crate::store::chunks::index::Location;
use crate::store::chunks::pack::PackFile;
use crate::store::chunks::reader::ChunkReader;
use crate::store::chunks::recipes::Recipe;
use crate::store::fetches::FetchRecord;
use crate::store::oci_layout::Store;
use puzzlefs_schema::v4::PackedChunk;
use std::collections::HashSet;

/// The part of an image of format 4 that a store has.
#[derive(Clone, Debug)]
pub struct ImageStatus {
    /// The tag.
    pub tag: String,
    /// The digest of the manifest.
    pub manifest: Digest,
    /// The chunks that the store has, and their bytes as they are stored.
    pub local: Count,
    /// The chunks that it lacks.
    pub missing: Count,
    /// The packs whose chunks are unknown, because the store has neither the pack nor its index.
    pub unknown_packs: u64,
    /// The record of its fetch, if a fetcher brings it.
    pub record: Option<FetchRecord>,
}

impl ImageStatus {
    /// Returns true if the store has all chunks.
    pub fn is_complete(&self) -> bool {
        self.missing.blobs == 0 && self.unknown_packs == 0
    }
}

/// Counts the chunks of each tagged image of format 4. All chunks of the packs of its manifest count, each
/// once. Returns the errors of images that cannot be read.
///
/// # Errors
///
/// If the index of the store or its records cannot be read.
pub fn fetch_status(store: &Store) -> Result<(Vec<ImageStatus>, Vec<Error>)> {
    let (records, mut errors) = FetchRecord::read_all(store)?;
    let reader = ChunkReader::of_index(store)?;
    let mut images = Vec::new();
    let index = store.index()?;
    let mut tags = index.tags();
    tags.dedup();
    for tag in tags {
        let digest = index
            .find(&tag)
            .map(|found| Digest::from_oci(&found.digest));
        let Some(Some(manifest)) = digest else {
            continue;
        };
        let record = records
            .iter()
            .find(|record| record.tag == tag && record.manifest_digest() == Some(manifest));
        match count(store, &reader, tag, manifest) {
            Ok(Some(status)) => images.push(ImageStatus {
                record: record.cloned(),
                ..status
            }),
            Ok(None) => {}
            Err(error) => errors.push(error),
        }
    }
    Ok((images, errors))
}

/// Counts the chunks of an image. Returns `None` for one of another format.
fn count(
    store: &Store,
    reader: &ChunkReader<'_>,
    tag: String,
    manifest: Digest,
) -> Result<Option<ImageStatus>> {
    let (parsed, bytes) = store.manifest(&manifest)?;
    if !parsed.is_puzzlefs() {
        return Ok(None);
    }
    let image = RemoteManifest::parse(&bytes)?;
    if image.root.is_none() {
        return Ok(None);
    }
    let mut status = ImageStatus {
        tag,
        manifest,
        local: Count::default(),
        missing: Count::default(),
        unknown_packs: 0,
        record: None,
    };
    let mut seen = HashSet::new();
    for pack in image.packs {
        let Some(chunks) = chunks(store, &pack.digest)? else {
            status.unknown_packs += 1;
            continue;
        };
        for chunk in chunks {
            let digest = Digest::from(chunk.digest);
            if !seen.insert(digest) {
                continue;
            }
            let is_local = match reader.find(&digest)? {
                Some(Location::Pack { pack, .. }) => store.blob_size(&pack)?.is_some(),
                Some(Location::Loose { .. }) => true,
                None => false,
            };
            let count = if is_local {
                &mut status.local
            } else {
                &mut status.missing
            };
            count.add(chunk.stored_len.into());
        }
    }
    Ok(Some(status))
}

/// Returns the chunks of a pack, by the pack or by its recipe.
fn chunks(store: &Store, pack: &Digest) -> Result<Option<Vec<PackedChunk>>> {
    if store.blob_size(pack)?.is_some() {
        return Ok(Some(PackFile::open(store, pack)?.chunks().collect()));
    }
    let recipe = Recipe::read(store, pack)?;
    Ok(recipe.map(|recipe| recipe.chunks().collect()))
}

#[cfg(test)]
mod tests {
    use super::super::lazy::{prepare, LazyOptions};
    use super::super::tests::{fetch_tag, stores, Source, Stores};
    use super::*;
    use crate::ops::test_images::{names, write_image};
    use crate::store::fetches::Completion;
    use crate::sys::progress::Progress;

    #[test]
    fn chunks_are_local_or_missing() {
        let Stores { from, to, .. } = &stores();
        let image = write_image(from, "t", &names("a", 50));
        let source = Source::new(from);
        let (_, manifest) = from.manifest(&image.manifest).unwrap();
        let options = LazyOptions {
            jobs: 1,
            completion: Completion::Idle,
            limit_rate: None,
        };
        prepare(&source, &manifest, to, "t", options, &Progress::default()).unwrap();
        let status = |store| {
            let (mut images, errors) = fetch_status(store).unwrap();
            assert!(errors.is_empty(), "{errors:?}");
            assert_eq!(images.len(), 1);
            images.remove(0)
        };
        let all = image.chunks.len() as u64;
        let bytes: u64 = image.chunks.values().map(|bytes| bytes.len() as u64).sum();
        let prepared = status(to);
        assert_eq!((&*prepared.tag, prepared.manifest), ("t", image.manifest));
        let metadata = image.metadata.len() as u64;
        assert_eq!(prepared.local.blobs, metadata);
        assert_eq!(prepared.missing.blobs, all - metadata);
        assert_eq!(prepared.local.bytes + prepared.missing.bytes, bytes);
        assert!(!prepared.is_complete() && prepared.record.is_none());
        fetch_tag(&source, to, "t").unwrap();
        let fetched = status(to);
        assert_eq!((fetched.local.blobs, fetched.missing.blobs), (all, 0));
        assert!(fetched.is_complete());
        // A pack of which the store knows nothing.
        let path = to.blob_path(&image.pack);
        if path.exists() {
            std::fs::remove_file(path).unwrap();
        }
        let _ = std::fs::remove_dir_all(to.path().join(".puzzlefs/recipes"));
        let unknown = status(to);
        assert_eq!(unknown.unknown_packs, 1);
        assert!(!unknown.is_complete());
    }
}
