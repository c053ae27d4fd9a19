// SPDX-License-Identifier: MIT OR Apache-2.0

//! The metadata that prepared images lack: chunks beyond the limit of [`metadata`](super::metadata), and
//! chunks that were not there.

use super::arrived::Arrived;
use super::cutter::ChunkCutter;
use super::lazy::{ChunkPlace, LazyImage};
use super::pack_index::length;
use super::plan::{ranges, PackRange};
use super::source::{BlobSource, RemoteBlob};
use crate::error::{Error, FetchError, Result, StoreError};
use crate::image::chunk_walk::ChunkWalk;
use crate::model::digest::Digest;
use crate::store::chunks::reader::ChunkReader;
use crate::store::oci_layout::Store;
use crate::store::staging::Staging;
use crate::sys::progress::Progress;
use std::collections::BTreeSet;

/// The most levels of metadata chunks below the root. An image of a builder has four at most.
const LEVELS_MAX: usize = 32;

/// Brings all metadata of a prepared image into its store. Programs can then read its tree without the
/// kernel module, and `gc` knows the chunks that it needs.
///
/// # Errors
///
/// If the source does not have the metadata as the packs' indexes say, or it is malformed.
pub fn fetch_metadata(
    source: &dyn BlobSource,
    image: &LazyImage,
    to: &Store,
    progress: &Progress,
) -> Result<()> {
    let mut first = None;
    for _ in 0..LEVELS_MAX {
        let missing = missing_metadata(to, &image.root)?;
        first = missing.first().copied();
        if missing.is_empty() {
            return Ok(());
        }
        fetch_chunks(source, image, &missing, to, progress)?;
    }
    let chunk = first.unwrap_or(image.root);
    Err(FetchError::NotWhole { chunk }.into())
}

/// Returns the metadata chunks that a store lacks and that the metadata in the store names.
fn missing_metadata(store: &Store, root: &Digest) -> Result<BTreeSet<Digest>> {
    let reader = ChunkReader::of_index(store)?;
    let (mut missing, mut fault) = (BTreeSet::new(), Ok(()));
    let fail = |error| match error {
        Error::Store(StoreError::ChunkMissing { digest, .. }) => {
            missing.insert(digest);
        }
        error if fault.is_ok() => fault = Err(error),
        _ => {}
    };
    ChunkWalk::new(&reader).image_with_faults(root, |_, _| {}, fail);
    fault.map(|()| missing)
}

/// Fetches chunks, in order of position.
fn fetch_chunks(
    source: &dyn BlobSource,
    image: &LazyImage,
    chunks: &BTreeSet<Digest>,
    to: &Store,
    progress: &Progress,
) -> Result<()> {
    let place = |chunk: &Digest| {
        let place = image.place(chunk);
        place.ok_or(FetchError::NotWhole { chunk: *chunk })
    };
    let places: Result<Vec<ChunkPlace>, FetchError> = chunks.iter().map(place).collect();
    let mut places = places?;
    places.sort_unstable();
    let staging = Staging::new(to)?;
    let arrived = Arrived::new(to, &staging);
    let fetched = places
        .chunk_by(|one, two| one.pack == two.pack)
        .try_for_each(|places| {
            let found: Vec<_> = places.iter().filter_map(|place| image.at(*place)).collect();
            let Some((pack, _)) = found.first() else {
                return Ok(());
            };
            let chunks: Vec<_> = found.iter().map(|(_, chunk)| *chunk).collect();
            let mut ranges = ranges(&chunks).into_iter();
            ranges.try_for_each(|range| fetch_range(source, pack, &range, &arrived, progress))
        });
    // Also after an error: what has arrived stays.
    let kept = arrived.finish();
    fetched?;
    kept.map(|_| ())
}

fn fetch_range(
    source: &dyn BlobSource,
    pack: &RemoteBlob,
    range: &PackRange,
    arrived: &Arrived<'_>,
    progress: &Progress,
) -> Result<()> {
    let mut cutter = ChunkCutter::new(pack.digest, range.bytes.start, &range.chunks);
    let has_ranges = source.read(pack, range.bytes.clone(), &mut |piece| {
        progress.check()?;
        cutter.push(piece, |digest, stored| arrived.chunk(digest, stored))
    })?;
    if !has_ranges {
        return Err(FetchError::Unranged { pack: pack.digest }.into());
    }
    if !cutter.is_done() {
        return Err(length(pack, range.bytes.end, cutter.position()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::lazy::{prepare, LazyOptions};
    use super::super::tests::{size, stores, Source, Stores};
    use super::*;
    use crate::model::reference::Selector;
    use crate::mount::needs_escape;
    use crate::ops::gc::{collect, GcOptions};
    use crate::ops::test_images::{names, write_image, TestImage};
    use crate::store::fetches::Completion;

    fn prepared(source: &Source<'_>, image: &TestImage, to: &Store) -> LazyImage {
        let (_, manifest) = source.store.manifest(&image.manifest).unwrap();
        let options = LazyOptions {
            jobs: 1,
            completion: Completion::Idle,
            limit_rate: None,
        };
        prepare(source, &manifest, to, "t", options, &Progress::default()).unwrap()
    }

    /// A byte of the metadata chunk behind the root, at a multiple of 8. While it is wrong, an image is
    /// prepared without this chunk.
    fn behind_the_root(image: &TestImage) -> (Digest, u64) {
        let root = image.chunks[&image.root].len() as u64;
        (image.pack, root.next_multiple_of(8))
    }

    #[test]
    fn the_tree_can_be_read_and_no_data_has_arrived() {
        let Stores { from, to, .. } = &stores();
        let image = write_image(from, "t", &names("a", 300));
        let mut source = Source::new(from);
        source.changed = Some(behind_the_root(&image));
        let lazy = prepared(&source, &image, to);
        source.changed = None;
        let tagged = to.any_image(&Selector::Tag("t".to_owned())).unwrap();
        needs_escape(to.path(), &tagged.root).unwrap_err();
        let collected = |to| collect(to, GcOptions::default(), || false);
        collected(to).unwrap_err();
        fetch_metadata(&source, &lazy, to, &Progress::default()).unwrap();
        assert!(!needs_escape(to.path(), &tagged.root).unwrap());
        collected(to).unwrap();
        let reader = ChunkReader::new(to).unwrap();
        let has = |digest: &Digest| reader.find(digest).unwrap().is_some();
        assert!(image.metadata.iter().all(has));
        assert!(!image.data.iter().any(has));
        let pack = size(&from.blob_path(&image.pack));
        let bytes = source.bytes();
        assert!(bytes * 2 < pack, "{bytes} of {pack}");
        // Nothing is left to fetch.
        fetch_metadata(&source, &lazy, to, &Progress::default()).unwrap();
        assert_eq!(source.bytes(), 0);
    }

    #[test]
    fn wrong_and_missing_metadata_is_an_error() {
        let Stores { from, to, .. } = &stores();
        let image = write_image(from, "t", &names("a", 300));
        let mut source = Source::new(from);
        source.changed = Some(behind_the_root(&image));
        let lazy = prepared(&source, &image, to);
        let error = fetch_metadata(&source, &lazy, to, &Progress::default()).unwrap_err();
        assert!(
            matches!(error, Error::Fetch(FetchError::Chunk { .. })),
            "{error}"
        );
        source.changed = None;
        source.has_ranges = false;
        let error = fetch_metadata(&source, &lazy, to, &Progress::default()).unwrap_err();
        assert!(
            matches!(error, Error::Fetch(FetchError::Unranged { .. })),
            "{error}"
        );
    }
}
