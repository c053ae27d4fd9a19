// SPDX-License-Identifier: MIT OR Apache-2.0

//! Images that can be mounted before their chunks have arrived.
//!
//! An image is prepared in this order: configuration and other blobs that are not packs, the index of each
//! pack, the root and the metadata below it, the manifest, the tag. The tag keeps all chunks of the image
//! that arrive later from `puzzlefs gc`. As long as metadata is missing, `gc` cannot know which chunks the
//! image needs, and removes nothing from the store.

use super::arrived::Arrived;
use super::commit::stage;
use super::manifest::RemoteManifest;
use super::metadata::{self, MetadataTransfer};
use super::pack_index::{check_count, PackIndex};
use super::packs::Transfer;
use super::source::{BlobSource, FetchOptions, RemoteBlob};
use super::whole::check_whole;
use crate::error::{FetchError, Result};
use crate::model::digest::Digest;
use crate::model::oci::{self, Descriptor};
use crate::store::chunks::recipes::keep_recipe;
use crate::store::chunks::update::{add_packs, adopt_packs};
use crate::store::fetches::Completion;
use crate::store::locks::FetchLock;
use crate::store::oci_layout::Store;
use crate::store::staging::{Content, Staging};
use crate::sys::parallel::{self, lock};
use crate::sys::progress::Progress;
use puzzlefs_schema::v4::PackedChunk;
use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::Mutex;

/// Options of an image whose chunks are fetched on demand.
#[derive(Clone, Copy, Debug)]
pub struct LazyOptions {
    /// The number of blobs and ranges that are fetched at once.
    pub jobs: usize,
    /// The time at which the rest is fetched.
    pub completion: Completion,
    /// The rate of the rest, in bytes per second.
    pub limit_rate: Option<NonZeroU64>,
}

/// The place of a chunk: the number of the pack, and the number of the chunk in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ChunkPlace {
    pub pack: u32,
    pub chunk: u32,
}

impl ChunkPlace {
    /// Returns the next place in the pack.
    pub fn next(self) -> Option<Self> {
        let chunk = self.chunk.checked_add(1)?;
        Some(ChunkPlace { chunk, ..self })
    }
}

/// An image that is prepared.
#[derive(Debug)]
pub struct LazyImage {
    pub(super) manifest: Digest,
    pub(super) root: Digest,
    packs: Vec<(RemoteBlob, Vec<PackedChunk>)>,
    places: HashMap<Digest, ChunkPlace>,
    is_whole: bool,
}

impl LazyImage {
    /// Returns the digest of the manifest.
    pub fn manifest(&self) -> &Digest {
        &self.manifest
    }

    /// Returns true if the store had all chunks when the image was prepared.
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Returns the place of a chunk. Each chunk has one place.
    pub(super) fn place(&self, digest: &Digest) -> Option<ChunkPlace> {
        self.places.get(digest).copied()
    }

    /// Returns the pack and the chunk at a place.
    pub(super) fn at(&self, place: ChunkPlace) -> Option<(RemoteBlob, PackedChunk)> {
        let (pack, chunks) = self.packs.get(place.pack as usize)?;
        Some((*pack, *chunks.get(place.chunk as usize)?))
    }

    /// Returns the packs with their chunks, in order of position.
    pub(super) fn packs(&self) -> &[(RemoteBlob, Vec<PackedChunk>)] {
        &self.packs
    }

    /// Notes the chunks of packs.
    fn add(&mut self, packs: Vec<(RemoteBlob, Vec<PackedChunk>)>) {
        for (pack, (_, chunks)) in (0..).zip(&packs) {
            for (chunk, packed) in (0..).zip(chunks) {
                let place = ChunkPlace { pack, chunk };
                self.places.entry(packed.digest.into()).or_insert(place);
            }
        }
        self.packs = packs;
    }
}

/// Brings everything of an image into a store that a mount needs, except data, and sets the tag.
///
/// The metadata is complete unless it is large or damaged. Nothing but the root is necessary.
///
/// # Errors
///
/// If the manifest is not that of a PuzzleFS image of format 4, or the source does not have the image as
/// the manifest says, or cannot read parts of blobs. The tag then stays as it was.
pub fn prepare(
    source: &dyn BlobSource,
    manifest: &[u8],
    to: &Store,
    tag: &str,
    options: LazyOptions,
    progress: &Progress,
) -> Result<LazyImage> {
    let RemoteManifest {
        digest,
        root,
        packs,
        blobs,
    } = RemoteManifest::parse(manifest)?;
    let is_container = false;
    let root = root.ok_or(FetchError::NoChunks { is_container })?;
    let staging = Staging::new(to)?;
    let _alone = FetchLock::take(to.locked(), &digest, progress)?;
    // Without an index, `gc` could not remove the remains of a failed fetch.
    if to.written_index()?.is_none() {
        to.change_index(|_| Ok(()))?;
    }
    let without_packs = RemoteManifest {
        digest,
        root: Some(root),
        packs: Vec::new(),
        blobs,
    };
    let fetching = FetchOptions { jobs: options.jobs };
    let arrived = Arrived::new(to, &staging);
    let transferred =
        Transfer::new(source, &arrived, fetching, progress)?.run(&without_packs, false);
    // Also after an error: what has arrived stays.
    let kept = arrived.finish();
    transferred?;
    kept?;
    // Another tool may have put packs into the store.
    adopt_packs(
        to,
        &packs.iter().map(|pack| pack.digest).collect::<Vec<_>>(),
    )?;
    let mut image = LazyImage {
        manifest: digest,
        root,
        packs: Vec::new(),
        places: HashMap::new(),
        is_whole: check_whole(to, &root).is_ok(),
    };
    if !image.is_whole || options.completion == Completion::Never {
        image.add(read_indexes(source, &packs, to, options.jobs, progress)?);
    }
    let chunks = if image.is_whole {
        Vec::new()
    } else {
        let transfer = MetadataTransfer {
            source,
            find: &|digest| image.place(digest).and_then(|place| image.at(place)),
            to,
            jobs: options.jobs,
            progress,
        };
        let sizes = packs.iter().map(|pack| pack.size);
        transfer.run(&root, metadata::limit(sizes.fold(0, u64::saturating_add)))?
    };
    progress.check()?;
    let new_packs = stage(&staging, &chunks)?;
    staging.put(&digest, Content::Bytes(&[manifest]))?;
    staging.commit()?;
    add_packs(to, &new_packs)?;
    let size = manifest.len() as u64;
    to.set_tag(tag, Descriptor::new(oci::MANIFEST, digest, size))?;
    Ok(image)
}

/// Reads the index of each pack, and keeps it if the store lacks the pack.
fn read_indexes(
    source: &dyn BlobSource,
    packs: &[RemoteBlob],
    to: &Store,
    jobs: usize,
    progress: &Progress,
) -> Result<Vec<(RemoteBlob, Vec<PackedChunk>)>> {
    let count = Mutex::new(0);
    let read = Mutex::new(HashMap::new());
    let read_one = |(): &mut (), pack: &RemoteBlob| {
        progress.check()?;
        let Some(index) = PackIndex::read(source, pack)? else {
            return Err(FetchError::Unranged { pack: pack.digest }.into());
        };
        {
            let mut count = lock(&count);
            *count += index.chunks.len();
            check_count(*count)?;
        }
        if to.blob_size(&pack.digest)?.is_none() {
            keep_recipe(to, &pack.digest, &index.recipe)?;
        }
        lock(&read).insert(pack.digest, index.chunks);
        Ok(())
    };
    parallel::for_each(jobs, packs, || (), read_one)?;
    let mut read = parallel::into_inner(read);
    let with_chunks = |pack: &RemoteBlob| (*pack, read.remove(&pack.digest).unwrap_or_default());
    Ok(packs.iter().map(with_chunks).collect())
}
