// SPDX-License-Identifier: MIT OR Apache-2.0

//! Fetches the metadata of an image that is being prepared, in few requests.
//!
//! A level of the metadata is the chunks that the level above refers to; the root is the first level. All
//! missing chunks of a level are planned together. Builders put the metadata at the beginning of the packs,
//! so a level usually takes one request, and an image has three or four levels. A kernel that requests
//! metadata when it needs it takes a round trip for each chunk.
//!
//! This happens before the mount and not beside it: the mount itself needs some of the metadata, programs
//! need more of it before any data, and a start-up order leads to chunks only by metadata that is there.
//!
//! Only the root is necessary. If something else is missing, damaged or too large, readers request it.

use super::commit::ArrivedChunk;
use super::cutter::ChunkCutter;
use super::pack_index::length;
use super::plan::{sparse_ranges, PackRange};
use super::source::{BlobSource, RemoteBlob};
use crate::error::{Error, FetchError, Result};
use crate::image::chunk_walk::References;
use crate::model::chunk;
use crate::model::digest::Digest;
use crate::store::chunks::reader::ChunkReader;
use crate::store::oci_layout::Store;
use crate::sys::parallel::{self, lock};
use crate::sys::progress::Progress;
use puzzlefs_schema::v4::{root_ref, ChunkRef, PackedChunk};
use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

/// The most bytes of packs that are fetched below the root: this part of all packs, within these limits.
const BYTES_PART: u64 = 256;
const BYTES_MIN: u64 = 1 << 20;
const BYTES_MAX: u64 = 4 << 20;
/// The most bytes of content that are read. The limit bounds the time that a hostile image takes.
const CONTENT_MAX: u64 = 64 << 20;

/// Finds the pack and the place of a chunk of the image.
type FindChunk<'m> = dyn Fn(&Digest) -> Option<(RemoteBlob, PackedChunk)> + Sync + 'm;

/// Returns the most bytes that are fetched below the root of an image with packs of this size.
pub(super) fn limit(packs: u64) -> u64 {
    (packs / BYTES_PART).clamp(BYTES_MIN, BYTES_MAX)
}

/// The transfer of the metadata of an image.
pub(super) struct MetadataTransfer<'m> {
    pub source: &'m dyn BlobSource,
    pub find: &'m FindChunk<'m>,
    pub to: &'m Store,
    pub jobs: usize,
    pub progress: &'m Progress,
}

/// Chunks that were fetched.
#[derive(Default)]
struct Fetched {
    /// The digests, in order of the levels.
    order: Vec<Digest>,
    /// The stored bytes, which were compared with the digests.
    chunks: HashMap<Digest, Vec<u8>>,
}

impl MetadataTransfer<'_> {
    /// Fetches the root if the store lacks it, and then at most `limit` bytes of packs for the metadata
    /// below.
    ///
    /// # Errors
    ///
    /// If the root cannot be fetched, or after a request to stop.
    pub fn run(&self, root: &Digest, limit: u64) -> Result<Vec<ArrivedChunk>> {
        let reader = ChunkReader::of_index(self.to)?;
        let mut fetched = Fetched::default();
        if reader.find(root)?.is_none() {
            let place = (self.find)(root).ok_or(FetchError::NotWhole { chunk: *root })?;
            let mut unlimited = u64::MAX;
            self.fetch(vec![place], &mut unlimited, &mut fetched)?;
        }
        match self.below(root, limit, &reader, &mut fetched) {
            Err(Error::Interrupted) => return Err(Error::Interrupted),
            // Readers request the rest, and get the error.
            Err(_) | Ok(()) => {}
        }
        let Fetched { order, mut chunks } = fetched;
        let taken = order.into_iter().filter_map(|digest| {
            let stored = chunks.remove(&digest)?;
            Some((digest, stored))
        });
        Ok(taken.collect())
    }

    /// Fetches the levels below the root. Stops at the first failure of the source.
    fn below(
        &self,
        root: &Digest,
        limit: u64,
        reader: &ChunkReader<'_>,
        fetched: &mut Fetched,
    ) -> Result<()> {
        let (mut left, mut content_left) = (limit, CONTENT_MAX);
        let mut seen = HashSet::from([(*root).into()]);
        let mut content = Vec::new();
        let root = match fetched.chunks.get(root) {
            Some(stored) => {
                // A chunk has at most 1 MiB.
                let root = root_ref((*root).into(), stored.len() as u32, stored);
                root.ok()
            }
            None => Some(reader.root(root)?.0),
        };
        let mut level: Vec<ChunkRef> = root.into_iter().collect();
        while !level.is_empty() {
            let missing = self.missing(&level, reader, fetched)?;
            self.fetch(missing, &mut left, fetched)?;
            let mut level_below = Vec::new();
            let mut below = References::default();
            for chunk in level {
                self.progress.check()?;
                let Some(rest) = content_left.checked_sub(chunk.content_len().into()) else {
                    return Ok(());
                };
                content_left = rest;
                let is_read = match fetched.chunks.get(&Digest::from(*chunk.digest())) {
                    Some(stored) => chunk::decode(&chunk, stored, &mut content).is_ok(),
                    None => reader.read(&chunk, &mut content).is_ok(),
                };
                if is_read {
                    // The reader of a chunk that is not well-formed gets the error.
                    let _ = below.add(&mut content);
                    below.data.clear();
                    below.metadata.retain(|chunk| seen.insert(*chunk.digest()));
                }
                level_below.append(&mut below.metadata);
            }
            level = level_below;
        }
        Ok(())
    }

    /// Returns the chunks of a level that the packs have and the store lacks.
    fn missing(
        &self,
        level: &[ChunkRef],
        reader: &ChunkReader<'_>,
        fetched: &Fetched,
    ) -> Result<Vec<(RemoteBlob, PackedChunk)>> {
        let mut missing = Vec::new();
        for chunk in level {
            self.progress.check()?;
            let digest = Digest::from(*chunk.digest());
            if !fetched.chunks.contains_key(&digest) && reader.find(&digest)?.is_none() {
                missing.extend((self.find)(&digest));
            }
        }
        Ok(missing)
    }

    /// Fetches the ranges of chunks, as long as `left` permits more bytes. Chunks that arrive before a
    /// failure are kept.
    fn fetch(
        &self,
        mut missing: Vec<(RemoteBlob, PackedChunk)>,
        left: &mut u64,
        fetched: &mut Fetched,
    ) -> Result<()> {
        missing.sort_unstable_by_key(|(pack, chunk)| (pack.digest, chunk.offset));
        let mut planned = Vec::new();
        for of_pack in missing.chunk_by(|one, two| one.0.digest == two.0.digest) {
            let chunks: Vec<PackedChunk> = of_pack.iter().map(|(_, chunk)| *chunk).collect();
            let pack = of_pack.first().map(|(pack, _)| *pack);
            for range in sparse_ranges(&chunks) {
                let rest = left.checked_sub(range.bytes.end - range.bytes.start);
                if let (Some(pack), Some(rest)) = (pack, rest) {
                    *left = rest;
                    planned.push((pack, range));
                }
            }
        }
        for (_, range) in &planned {
            let digests = range.chunks.iter().map(|chunk| Digest::from(chunk.digest));
            fetched.order.extend(digests);
        }
        let arrived = Mutex::new(&mut fetched.chunks);
        let fetch = |(): &mut (), (pack, range): &(RemoteBlob, PackRange)| {
            self.fetch_range(pack, range, &arrived)
        };
        parallel::for_each(self.jobs, &planned, || (), fetch)
    }

    fn fetch_range(
        &self,
        pack: &RemoteBlob,
        range: &PackRange,
        arrived: &Mutex<&mut HashMap<Digest, Vec<u8>>>,
    ) -> Result<()> {
        let mut cutter = ChunkCutter::new(pack.digest, range.bytes.start, &range.chunks);
        let has_ranges = self.source.read(pack, range.bytes.clone(), &mut |piece| {
            self.progress.check()?;
            cutter.push(piece, |digest, stored| {
                lock(arrived).insert(*digest, stored.to_vec());
                Ok(())
            })
        })?;
        if !has_ranges {
            return Err(FetchError::Unranged { pack: pack.digest }.into());
        }
        if !cutter.is_done() {
            return Err(length(pack, range.bytes.end, cutter.position()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::pack_index::PackIndex;
    use super::super::tests::{size, stores, Source, Stores};
    use super::*;
    use crate::ops::test_images::{names, write_image, TestImage};
    use std::sync::atomic::Ordering::Relaxed;

    /// Fetches metadata of an image below its root into a store without chunks.
    fn run(source: &Source<'_>, image: &TestImage, to: &Store, limit: u64) -> Vec<ArrivedChunk> {
        let pack = RemoteBlob {
            digest: image.pack,
            size: size(&source.store.blob_path(&image.pack)),
        };
        let index = PackIndex::read(&Source::new(source.store), &pack);
        let chunks = index.unwrap().unwrap().chunks;
        let find = |digest: &Digest| {
            let mut chunks = chunks.iter();
            let found = chunks.find(|chunk| Digest::from(chunk.digest) == *digest);
            found.map(|chunk| (pack, *chunk))
        };
        let transfer = MetadataTransfer {
            source,
            find: &find,
            to,
            jobs: 2,
            progress: &Progress::default(),
        };
        transfer.run(&image.root, limit).unwrap()
    }

    #[test]
    fn a_level_takes_one_request() {
        let Stores { from, to, .. } = &stores();
        let image = write_image(from, "t", &names("a", 300));
        let source = Source::new(from);
        let found = run(&source, &image, to, BYTES_MAX);
        let digests: HashSet<Digest> = found.iter().map(|(digest, _)| *digest).collect();
        assert_eq!(digests, image.metadata.iter().copied().collect());
        assert_eq!(found.len(), image.metadata.len());
        for (digest, stored) in &found {
            assert_eq!(*stored, image.chunks[digest]);
        }
        let requests = source.requests.load(Relaxed);
        assert!(image.metadata.len() > 7, "{}", image.metadata.len());
        assert!(requests <= 4, "{requests}");
    }

    #[test]
    fn the_limit_bounds_the_bytes() {
        let Stores { from, to, .. } = &stores();
        let image = write_image(from, "t", &names("a", 300));
        let source = Source::new(from);
        let root = image.chunks[&image.root].len() as u64;
        let metadata = image.metadata.iter();
        let all: u64 = metadata
            .map(|digest| image.chunks[digest].len() as u64)
            .sum();
        for limit in [0, 100, (all - root) / 2, all - root - 1] {
            let found = run(&source, &image, to, limit);
            assert_eq!(found[0].0, image.root);
            assert!(found.len() < image.metadata.len());
            assert!(source.bytes() <= root + limit, "{limit}");
        }
    }

    #[test]
    fn a_failure_leaves_the_rest_to_readers() {
        let Stores { from, to, .. } = &stores();
        let image = write_image(from, "t", &names("a", 300));
        let mut source = Source::new(from);
        // The root comes first, and arrives.
        *lock(&source.fails_after) = image.chunks[&image.root].len() as u64 + 10;
        let found = run(&source, &image, to, BYTES_MAX);
        assert_eq!(found.len(), 1);
        // A changed chunk does not arrive.
        *lock(&source.fails_after) = u64::MAX;
        source.changed = Some((image.pack, image.chunks[&image.root].len() as u64 + 20));
        let found = run(&source, &image, to, BYTES_MAX);
        assert!(found.len() < image.metadata.len());
        for (digest, stored) in &found {
            assert_eq!(Digest::of(stored), *digest);
        }
        // A root that is no root has no references.
        source.changed = None;
        let garbage = TestImage {
            root: image.data[0],
            ..image
        };
        let found = run(&source, &garbage, to, BYTES_MAX);
        assert_eq!(found.len(), 1);
    }

    #[test]
    fn the_limit_follows_the_size_of_the_packs() {
        assert_eq!(limit(0), 1 << 20);
        assert_eq!(limit(512 << 20), 2 << 20);
        assert_eq!(limit(u64::MAX), 4 << 20);
    }
}
