// SPDX-License-Identifier: MIT OR Apache-2.0

//! Fetches from a store that stands for a registry, with faults.

use super::*;
use crate::error::Error;
use crate::model::reference::Selector;
use crate::ops::test_images::{names, write_image, write_manifest, TestImage};
use crate::ops::verify::verify_store;
use crate::store::chunks::reader::ChunkReader;
use crate::store::chunks::recipes::Recipe;
use crate::store::chunks::tests::write_pack;
use crate::store::chunks::update::reindex;
use crate::sys::parallel::lock;
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::Mutex;

/// A store whose blobs are fetched.
pub(super) struct Source<'s> {
    pub store: &'s Store,
    pub has_ranges: bool,
    /// The source fails after this number of bytes.
    pub fails_after: Mutex<u64>,
    /// The source then ends early instead.
    pub is_short: bool,
    /// The bit of this position of this blob is changed.
    pub changed: Option<(Digest, u64)>,
    pub requests: AtomicU64,
    bytes: AtomicU64,
}

impl<'s> Source<'s> {
    pub fn new(store: &'s Store) -> Self {
        Source {
            store,
            has_ranges: true,
            fails_after: Mutex::new(u64::MAX),
            is_short: false,
            changed: None,
            requests: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        }
    }

    pub fn bytes(&self) -> u64 {
        self.bytes.swap(0, Relaxed)
    }
}

impl BlobSource for Source<'_> {
    fn read(
        &self,
        blob: &RemoteBlob,
        range: Range<u64>,
        give: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<bool> {
        self.requests.fetch_add(1, Relaxed);
        if !self.has_ranges && range != (0..blob.size) {
            return Ok(false);
        }
        let mut bytes = fs::read(self.store.blob_path(&blob.digest)).unwrap();
        if let Some((_, at)) = self.changed.filter(|(digest, _)| *digest == blob.digest) {
            bytes[at as usize] ^= 1;
        }
        for piece in bytes[range.start as usize..range.end as usize].chunks(1000) {
            {
                let mut left = lock(&self.fails_after);
                if *left < piece.len() as u64 {
                    if self.is_short {
                        return Ok(true);
                    }
                    return Err(Error::Remote("the connection broke".into()));
                }
                *left -= piece.len() as u64;
            }
            self.bytes.fetch_add(piece.len() as u64, Relaxed);
            give(piece)?;
        }
        Ok(true)
    }
}

pub(super) struct Stores {
    _scratch: tempfile::TempDir,
    pub from: Store,
    pub to: Store,
}

pub(super) fn stores() -> Stores {
    let scratch = tempfile::tempdir().unwrap();
    let store = |name| Store::create(&scratch.path().join(name)).unwrap();
    Stores {
        from: store("from"),
        to: store("to"),
        _scratch: scratch,
    }
}

pub(super) fn fetch_tag(source: &Source<'_>, to: &Store, tag: &str) -> Result<Fetched> {
    let image = source.store.any_image(&Selector::Tag(tag.to_owned()))?;
    let (_, manifest) = source.store.manifest(image.root.manifest_digest())?;
    let options = FetchOptions { jobs: 1 };
    fetch(source, &manifest, to, tag, options, &Progress::default())
}

pub(super) fn assert_whole(store: &Store, image: &TestImage) {
    let reader = ChunkReader::new(store).unwrap();
    let mut stored = Vec::new();
    for (digest, bytes) in &image.chunks {
        reader.read_stored(digest, &mut stored).unwrap();
        assert_eq!(stored, *bytes);
    }
}

/// The number of chunks of an image that a store has. Each has to be intact.
fn chunks_there(store: &Store, image: &TestImage) -> usize {
    let reader = ChunkReader::new(store).unwrap();
    let mut stored = Vec::new();
    let there = image.chunks.keys().filter(|digest| -> bool {
        let found = reader.find(digest).unwrap().is_some();
        assert!(!found || reader.read_stored(digest, &mut stored).is_ok());
        found
    });
    there.count()
}

pub(super) fn has_tag(store: &Store, tag: &str) -> bool {
    store.index().unwrap().find(tag).is_some()
}

pub(super) fn size(path: &Path) -> u64 {
    fs::metadata(path).unwrap().len()
}

#[test]
fn a_new_image_arrives_with_its_packs() {
    for has_ranges in [true, false] {
        let Stores { from, to, .. } = &stores();
        let image = write_image(from, "t", &names("a", 300));
        let mut source = Source::new(from);
        source.has_ranges = has_ranges;
        let fetched = fetch_tag(&source, to, "t").unwrap();
        // Pack, configuration, manifest.
        assert_eq!((fetched.new.blobs, fetched.partial_packs), (3, 0));
        assert_eq!(fetched.manifest, image.manifest);
        assert_whole(to, &image);
        for digest in [image.pack, image.manifest, image.config] {
            let same = fs::read(from.blob_path(&digest)).unwrap();
            assert_eq!(fs::read(to.blob_path(&digest)).unwrap(), same);
        }
        // The index of the pack, perhaps in two parts, the pack, the configuration.
        let requests = source.requests.load(Relaxed);
        assert!((3..5).contains(&requests), "{requests}");
        source.bytes();
        let again = fetch_tag(&source, to, "t").unwrap();
        assert_eq!(
            (again.new.blobs, again.shared.blobs, source.bytes()),
            (0, 3, 0)
        );
    }
}

#[test]
fn only_missing_chunks_are_fetched() {
    let Stores { from, to, .. } = &stores();
    write_image(from, "one", &names("a", 200));
    let two = write_image(from, "two", &[names("a", 200), names("b", 3)].concat());
    let source = Source::new(from);
    fetch_tag(&source, to, "one").unwrap();
    source.bytes();
    let fetched = fetch_tag(&source, to, "two").unwrap();
    assert_eq!(fetched.partial_packs, 1);
    assert_whole(to, &two);
    // The index, metadata and three files of about 3,000 bytes each.
    let pack = size(&from.blob_path(&two.pack));
    let bytes = source.bytes();
    assert!(bytes * 10 < pack, "{bytes} of {pack}");
    let recipe = Recipe::read(to, &two.pack).unwrap().unwrap();
    assert_eq!(recipe.chunks().count(), two.chunks.len());
    // The store has all chunks now, and needs no index.
    let fetched = fetch_tag(&source, to, "two").unwrap();
    assert_eq!((fetched.partial_packs, source.bytes()), (1, 0));
}

#[test]
fn what_has_arrived_is_not_fetched_again() {
    let Stores { from, to, .. } = &stores();
    let image = write_image(from, "t", &names("a", 300));
    let pack = size(&from.blob_path(&image.pack));
    let source = Source::new(from);
    // More than half of the pack, and then nearly all of the rest.
    for part in [pack / 2, pack / 3] {
        *lock(&source.fails_after) = part + 64_000;
        let before = chunks_there(to, &image);
        let error = fetch_tag(&source, to, "t").unwrap_err();
        assert!(
            error.to_string().contains("the connection broke"),
            "{error}"
        );
        assert!(chunks_there(to, &image) > before + 50);
        assert!(!has_tag(to, "t"));
        let verified = verify_store(to, 1, &Progress::default()).unwrap();
        assert!(verified.faults.is_empty(), "{:?}", verified.faults);
    }
    *lock(&source.fails_after) = u64::MAX;
    source.bytes();
    fetch_tag(&source, to, "t").unwrap();
    assert!(source.bytes() * 3 < pack);
    assert_whole(to, &image);
}

/// The store has the chunks of the image under another manifest.
#[test]
fn an_image_that_other_images_cover_needs_no_pack() {
    let Stores { from, to, .. } = &stores();
    let image = write_image(from, "image", &names("a", 20));
    let source = Source::new(from);
    fetch_tag(&source, to, "image").unwrap();
    let chunks: Vec<Vec<u8>> = image.chunks.values().rev().cloned().collect();
    let other = write_pack(to, &chunks);
    assert_ne!(other.digest, image.pack);
    for blob in [&image.manifest, &image.pack] {
        to.remove_blob(blob).unwrap();
    }
    reindex(to, 1, &Progress::default()).unwrap();
    source.requests.store(0, Relaxed);
    let fetched = fetch_tag(&source, to, "image").unwrap();
    assert_eq!(
        (source.requests.load(Relaxed), fetched.partial_packs),
        (0, 1)
    );
    assert_whole(to, &image);
}

#[test]
fn an_interrupted_fetch_keeps_what_has_arrived() {
    let Stores { from, to, .. } = &stores();
    let image = write_image(from, "t", &names("a", 300));
    let (_, manifest) = from.manifest(&image.manifest).unwrap();
    struct Stopping<'s>(Source<'s>, std::sync::Arc<std::sync::atomic::AtomicBool>);
    impl BlobSource for Stopping<'_> {
        fn read(
            &self,
            blob: &RemoteBlob,
            range: Range<u64>,
            give: &mut dyn FnMut(&[u8]) -> Result<()>,
        ) -> Result<bool> {
            self.0.read(blob, range, &mut |piece| {
                if self.0.bytes.load(Relaxed) > 600_000 {
                    self.1.store(true, Relaxed);
                }
                give(piece)
            })
        }
    }
    let stop = std::sync::Arc::default();
    let progress = Progress::new(std::sync::Arc::clone(&stop));
    let source = Stopping(Source::new(from), stop);
    let options = FetchOptions { jobs: 2 };
    let error = fetch(&source, &manifest, to, "t", options, &progress).unwrap_err();
    assert!(matches!(error, Error::Interrupted), "{error}");
    assert!(chunks_there(to, &image) > 50);
    assert!(!has_tag(to, "t"));
}

#[test]
fn changed_bytes_do_not_enter_the_store() {
    for has_ranges in [true, false] {
        let Stores { from, to, .. } = &stores();
        let image = write_image(from, "t", &names("a", 100));
        let size = size(&from.blob_path(&image.pack));
        let index = size - 16 - 36 * image.chunks.len() as u64;
        // The first chunk, a later one, a digest of the index, a length, the footer.
        for at in [0, index / 2, index + 40, index + 33, size - 2, size - 10] {
            let mut source = Source::new(from);
            source.has_ranges = has_ranges;
            source.changed = Some((image.pack, at));
            let error = fetch_tag(&source, to, "t").unwrap_err();
            assert!(matches!(error, Error::Fetch(_)), "{at}: {error}");
            assert!(!has_tag(to, "t"));
            assert_eq!(to.blob_size(&image.pack).unwrap(), None);
            chunks_there(to, &image);
        }
        let mut source = Source::new(from);
        source.changed = Some((image.config, 5));
        to.remove_blob(&image.config).unwrap();
        let error = fetch_tag(&source, to, "t").unwrap_err();
        assert!(error.to_string().contains("have sha256"), "{error}");
        assert_eq!(to.blob_size(&image.config).unwrap(), None);
        fetch_tag(&Source::new(from), to, "t").unwrap();
        assert_whole(to, &image);
    }
}

#[test]
fn an_image_without_some_chunk_gets_no_tag() {
    let Stores { from, to, .. } = &stores();
    let image = write_image(from, "t", &names("a", 20));
    for missing in [image.metadata[1], image.data[3], image.root] {
        let rest = image
            .chunks
            .iter()
            .filter(|(digest, _)| **digest != missing);
        let rest: Vec<Vec<u8>> = rest.map(|(_, bytes)| bytes.clone()).collect();
        let pack = write_pack(from, &rest);
        write_manifest(from, "bad", &image.root, &[pack.digest]);
        let error = fetch_tag(&Source::new(from), to, "bad").unwrap_err();
        let wanted = format!("its packs lack chunk {missing}");
        assert!(error.to_string().contains(&wanted), "{error}");
        assert!(!has_tag(to, "bad"));
        // Every second round would find the chunk.
        crate::store::chunks::update::replace_packs(to, |_| false, &[]).unwrap();
        fs::remove_file(to.blob_path(&pack.digest)).unwrap();
    }
}

#[test]
fn hostile_manifests_are_refused() {
    let Stores { from, to, .. } = &stores();
    let image = write_image(from, "t", &names("a", 5));
    let (manifest, _) = from.manifest(&image.manifest).unwrap();
    let refused = |text: &[u8]| {
        let options = FetchOptions { jobs: 1 };
        let source = Source::new(from);
        let progress = Progress::default();
        let error = fetch(&source, text, to, "t", options, &progress).unwrap_err();
        assert!(!has_tag(to, "t"));
        error.to_string()
    };
    assert!(refused(b"{").contains("its manifest is not an OCI image manifest"));
    let index = br#"{"schemaVersion":2,"manifests":[]}"#;
    assert!(refused(index).contains("not a PuzzleFS image"));
    let mut changed = manifest.clone();
    changed.annotations.clear();
    assert!(refused(&changed.to_json()).contains("not a PuzzleFS image"));
    let mut changed = manifest.clone();
    changed
        .annotations
        .insert(oci::ROOT.to_owned(), "../x".to_owned());
    assert!(refused(&changed.to_json()).contains("a digest that is not sha256: '../x'"));
    let mut changed = manifest.clone();
    changed.layers[0].digest = "sha256:../../x".to_owned();
    assert!(refused(&changed.to_json()).contains("a digest that is not sha256"));
    let mut changed = manifest.clone();
    changed.layers[0].digest = changed.config.digest.clone();
    assert!(refused(&changed.to_json()).contains("lack chunk"));
    let mut changed = manifest;
    changed.config.media_type = oci::PACK.to_owned();
    assert!(refused(&changed.to_json()).contains("does not end with the footer of a pack"));
}
