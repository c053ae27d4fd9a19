// SPDX-License-Identifier: MIT OR Apache-2.0

//! Verifies a store, or one image of it, and reports every fault.
//!
//! First the structure: what the index leads to, each manifest, each inode. Then every blob is read
//! once and hashed, by SHA-256 for its name and by fs-verity for what the images say of it; those
//! that images read as compressed ones are decompressed.

use crate::error::{Damage, Error, Result, StoreError};
use crate::image::seekable::Decoder;
use crate::model::digest::Digest;
use crate::model::limits::READ_SIZE;
use crate::model::oci;
use crate::model::reference::Selector;
use crate::model::verity;
use crate::ops::chunk_check::check_chunks;
use crate::ops::report::{Fault, Verified};
use crate::ops::structure::{Blobs, Checker, Wanted};
use crate::store::chunks::check::check_index;
use crate::store::chunks::index::ChunkIndex;
use crate::store::graph;
use crate::store::oci_layout::Store;
use crate::sys::parallel::{self, into_inner, lock};
use crate::sys::progress::Progress;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read};
use std::sync::Mutex;

/// Verifies one image: its manifest, its metadata and its blobs.
pub fn verify_image(
    store: &Store,
    selector: &Selector,
    jobs: usize,
    progress: &Progress,
) -> Result<Verified> {
    let mut verified = Verified::default();
    let mut blobs = Blobs::new();
    let mut checker = Checker::new(store, &mut verified, &mut blobs);
    checker.image(&selector.to_string(), selector);
    let chunks = checker.chunks;
    if let Ok(image) = store.any_image(selector) {
        verified.unlisted_packs = unlisted_packs(store, image.manifest.packs())?;
    }
    check_chunks(store, &chunks, jobs, progress, &mut verified)?;
    check_blobs(store, &blobs, jobs, progress, &mut verified)?;
    Ok(verified)
}

/// Verifies a store: its images, of whatever kind, and every blob, also those that none needs.
pub fn verify_store(store: &Store, jobs: usize, progress: &Progress) -> Result<Verified> {
    let mut verified = Verified::default();
    let mut blobs = Blobs::new();
    let (present, others) = store.list_blobs()?;
    own_files(store, !present.is_empty(), &mut verified.faults);
    // With an index that cannot be read there is no image to look at, but there are the blobs.
    let index = store.index().unwrap_or_default();
    let (roots, errors) = graph::roots(store, index);
    let mut fault = |image: Option<String>, what: String| {
        verified.faults.push(Fault { image, what });
    };
    errors
        .into_iter()
        .for_each(|error| fault(None, error.to_string()));
    for name in others {
        let path = store.path().join("blobs/sha256").join(name);
        fault(None, format!("{}: not a blob's name", path.display()));
    }
    for root in &roots {
        for error in &root.errors {
            fault(Some(root.name()), error.to_string());
        }
        let sizes = root.blobs.iter().map(|(&digest, &size)| (digest, size));
        for (digest, size) in sizes.chain(root.other_sizes.iter().copied()) {
            // The chunks of a missing pack can lie elsewhere.
            if root.packs.contains_key(&digest) && store.blob_size(&digest)?.is_none() {
                continue;
            }
            let wanted = blobs.entry(digest).or_default();
            if wanted.sizes.iter().all(|(known, _)| *known != size) {
                wanted.sizes.push((size, root.name()));
            }
        }
    }
    for digest in present {
        blobs.entry(digest).or_default();
    }
    let mut checker = Checker::new(store, &mut verified, &mut blobs);
    for root in &roots {
        for image in root.images.iter().chain(&root.packed) {
            checker.image(&root.name(), &Selector::Manifest(*image));
        }
    }
    let chunks = checker.chunks;
    verified.faults.extend(index_faults(store)?);
    let packs = roots.iter().flat_map(|root| root.packs.keys());
    verified.unlisted_packs = unlisted_packs(store, packs.copied())?;
    check_chunks(store, &chunks, jobs, progress, &mut verified)?;
    check_blobs(store, &blobs, jobs, progress, &mut verified)?;
    Ok(verified)
}

/// Checks the chunk index.
fn index_faults(store: &Store) -> Result<Vec<Fault>> {
    let faults = check_index(store)?.into_iter().map(|fault| Fault {
        image: None,
        what: fault.to_string(),
    });
    Ok(faults.collect())
}

/// Counts those of these packs that exist and that the chunk index does not list. Another tool has put them
/// into the store, or a collection was interrupted before it removed them.
fn unlisted_packs(store: &Store, packs: impl IntoIterator<Item = Digest>) -> Result<u64> {
    let listed: HashSet<Digest> = ChunkIndex::open(store)?.packs().collect();
    let packs: BTreeSet<Digest> = packs.into_iter().collect();
    let mut count = 0;
    for pack in packs.difference(&listed.into_iter().collect()) {
        count += u64::from(store.blob_size(pack)?.is_some());
    }
    Ok(count)
}

/// Checks the files of the store's own directory.
fn own_files(store: &Store, has_blobs: bool, faults: &mut Vec<Fault>) {
    let mut fault = |what: String| faults.push(Fault { image: None, what });
    let wrong = |name: &str, what: String| {
        let path = store.path().join(name);
        format!("{}: {what}", path.display())
    };
    match store.layout() {
        Ok(Some(layout)) if layout.image_layout_version == oci::LAYOUT_VERSION => {}
        Ok(Some(layout)) => {
            let version = layout.image_layout_version;
            let what = format!("version '{version}' instead of {}", oci::LAYOUT_VERSION);
            fault(wrong("oci-layout", what));
        }
        Ok(None) => fault(wrong("oci-layout", "missing".to_owned())),
        Err(error) => fault(error.to_string()),
    }
    let index = match store.written_index() {
        Ok(Some(index)) => index,
        Ok(None) => {
            if has_blobs {
                let what = "missing: nothing says which images there are";
                fault(wrong("index.json", what.to_owned()));
            }
            return;
        }
        Err(error) => return fault(error.to_string()),
    };
    if let Some(cause) = index.unknown() {
        fault(wrong("index.json", cause.to_string()));
    }
    let mut tagged: HashMap<&str, &str> = HashMap::new();
    for manifest in &index.manifests {
        let Some(tag) = manifest.tag() else { continue };
        let first = tagged.entry(tag).or_insert(&manifest.digest);
        // One image of each platform may be.
        if *first != manifest.digest && !manifest.other.contains_key("platform") {
            let what = format!("several images are tagged '{tag}'; the last one counts");
            fault(wrong("index.json", what));
        }
    }
}

/// Calls a function with the rest of a file's contents, and counts them as done. The
/// inner error is that of the file, the outer one an interruption.
pub(crate) fn read_pieces(
    file: &mut File,
    buffer: &mut [u8],
    progress: &Progress,
    mut give: impl FnMut(&[u8]),
) -> Result<io::Result<()>> {
    loop {
        progress.check()?;
        match file.read(buffer) {
            Ok(0) => return Ok(Ok(())),
            Ok(read) => {
                give(buffer.get(..read).unwrap_or_default());
                progress.done_bytes(read as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Ok(Err(error)),
        }
    }
}

/// Checks blobs, several at once.
fn check_blobs(
    store: &Store,
    blobs: &Blobs,
    jobs: usize,
    progress: &Progress,
    verified: &mut Verified,
) -> Result<()> {
    for digest in blobs.keys() {
        progress.found_bytes(store.blob_size(digest)?.unwrap_or_default());
        progress.found_entry();
    }
    progress.start_reading();
    let blobs: Vec<_> = blobs.iter().collect();
    let found = Mutex::new((Vec::new(), 0));
    parallel::for_each(
        jobs,
        &blobs,
        || vec![0; READ_SIZE],
        |buffer, (digest, wanted)| {
            let mut faults = Vec::new();
            let mut blob = BlobCheck {
                store,
                digest,
                wanted,
                progress,
                faults: &mut faults,
            };
            let bytes = blob.run(buffer)?;
            let mut found = lock(&found);
            let faults = faults.into_iter().map(|fault| (**digest, fault));
            found.0.extend(faults);
            found.1 += bytes;
            Ok(())
        },
    )?;
    let (mut faults, bytes) = into_inner(found);
    // The order of faults does not depend on the order in which threads end.
    faults.sort_by_key(|(digest, _)| *digest);
    verified
        .faults
        .extend(faults.into_iter().map(|(_, fault)| fault));
    // A fault that kept an image from being read is reported for the image already.
    let mut told = HashSet::new();
    let faults = &mut verified.faults;
    faults.retain(|fault| told.insert(fault.what.clone()));
    verified.blobs += blobs.len() as u64;
    verified.bytes += bytes;
    Ok(())
}

/// The check of one blob.
struct BlobCheck<'a> {
    store: &'a Store,
    digest: &'a Digest,
    wanted: &'a Wanted,
    progress: &'a Progress,
    faults: &'a mut Vec<Fault>,
}

impl BlobCheck<'_> {
    fn fault(&mut self, image: Option<&String>, what: impl std::fmt::Display) {
        let path = self.store.blob_path(self.digest);
        self.faults.push(Fault {
            image: image.cloned(),
            what: format!("{}: {what}", path.display()),
        });
    }

    /// Adds an error as a fault.
    fn error(&mut self, image: Option<&String>, error: Error) {
        self.faults.push(Fault {
            image: image.cloned(),
            what: error.to_string(),
        });
    }

    /// Adds a fault in the words of the error of a reader of the blob, so that equal faults are
    /// reported once.
    fn damage(&mut self, image: Option<&String>, damage: Damage) {
        self.error(image, self.store.damaged(self.digest, damage));
    }

    /// Checks everything, and returns the number of bytes read. The error is an interruption.
    fn run(&mut self, buffer: &mut [u8]) -> Result<u64> {
        let mut file = match self.store.open_blob(self.digest) {
            Ok(file) => file,
            Err(error) => {
                let cause = error.system_cause().map(io::Error::kind);
                let error = if cause == Some(io::ErrorKind::NotFound) {
                    let path = self.store.blob_path(self.digest);
                    StoreError::Missing { path }.into()
                } else {
                    error
                };
                let image = self.wanted.sizes.first().map(|(_, name)| name);
                self.error(image, error);
                return Ok(0);
            }
        };
        // A blob that is too large is not read. It may be a sparse file of any size.
        let length = file.metadata().map_or(0, |metadata| metadata.len());
        let sizes = self.wanted.sizes.iter().map(|(size, _)| *size);
        let (size, read) = match sizes.max() {
            Some(largest) if length > largest => (length, 0),
            _ => {
                let read = self.hash(&mut file, buffer)?;
                (read, read)
            }
        };
        for (wanted, name) in &self.wanted.sizes {
            if *wanted != size {
                self.damage(
                    Some(name),
                    Damage::Size {
                        found: size,
                        wanted: *wanted,
                    },
                );
            }
        }
        if self.wanted.compressed {
            let checked = Decoder::new(&file).and_then(|mut decoder| decoder.check(&file));
            if let Err(error) = checked {
                self.fault(None, format_args!("cannot be decompressed: {error}"));
            }
        }
        Ok(read)
    }

    /// Reads the blob and compares its digests; returns its size.
    fn hash(&mut self, file: &mut File, buffer: &mut [u8]) -> Result<u64> {
        let mut sha256 = Sha256::new();
        let mut verity = (!self.wanted.verities.is_empty()).then(verity::Hasher::new);
        let mut size = 0;
        let read = read_pieces(file, buffer, self.progress, |piece| {
            sha256.update(piece);
            if let Some(verity) = &mut verity {
                verity.update(piece);
            }
            size += piece.len() as u64;
        })?;
        if let Err(error) = read {
            self.fault(None, format_args!("cannot read it: {error}"));
            return Ok(size);
        }
        let found = Digest(sha256.finalize().into());
        if found != *self.digest {
            self.damage(None, Damage::Contents(found));
        }
        if let Some(found) = verity.map(verity::Hasher::finish) {
            for (wanted, name) in &self.wanted.verities {
                if *wanted != found {
                    let what = format!(
                        "its fs-verity digest is {found}, and not {wanted} as the image says"
                    );
                    self.fault(Some(name), what);
                }
            }
        }
        Ok(size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::test_images::{names, write_image, TestImage};
    use crate::store::chunks::update::replace_packs;
    use std::fs;

    fn faults(store: &Store) -> Vec<String> {
        let verified = verify_store(store, 2, &Progress::default()).unwrap();
        let faults = verified.faults.into_iter();
        faults.map(|fault| fault.what).collect()
    }

    fn image(store: &Store) -> TestImage {
        write_image(store, "t", &names("a", 30))
    }

    fn verified(store: &Store) -> Verified {
        let tag = Selector::Tag("t".to_owned());
        verify_image(store, &tag, 2, &Progress::default()).unwrap()
    }

    #[test]
    fn images_of_format_4_are_verified() {
        let scratch = tempfile::tempdir().unwrap();
        let store = Store::create(&scratch.path().join("store")).unwrap();
        let image = image(&store);
        let report = verified(&store);
        assert_eq!(report.faults, []);
        assert_eq!((report.images, report.inodes), (1, 31));
        assert_eq!(report.extents, 29 + 6000);
        assert_eq!(report.chunks, image.chunks.len() as u64);
        let packed = &report.packed[0];
        assert!(packed.is_whole && packed.is_complete());
        assert_eq!(faults(&store), Vec::<String>::new());
    }

    #[test]
    fn whole_and_complete_are_two_things() {
        let scratch = tempfile::tempdir().unwrap();
        let store = Store::create(&scratch.path().join("store")).unwrap();
        let image = image(&store);
        for (digest, bytes) in &image.chunks {
            fs::write(store.blob_path(digest), bytes).unwrap();
        }
        replace_packs(&store, |_| false, &[]).unwrap();
        fs::remove_file(store.blob_path(&image.pack)).unwrap();
        let report = verified(&store);
        let packed = &report.packed[0];
        assert!(report.faults.is_empty() && packed.is_whole && !packed.is_complete());
        assert_eq!(faults(&store), Vec::<String>::new());
        fs::remove_file(store.blob_path(&image.data[3])).unwrap();
        let report = verified(&store);
        assert!(!report.packed[0].is_whole);
        assert!(report.faults[0].what.contains("cannot find the chunk"));
        assert_eq!(report.faults.len(), 1);
    }

    #[test]
    fn each_fault_is_named() {
        let scratch = tempfile::tempdir().unwrap();
        let store = Store::create(&scratch.path().join("store")).unwrap();
        let image = image(&store);
        let pack = store.blob_path(&image.pack);
        let good = fs::read(&pack).unwrap();
        let said = |wanted: &[&str]| {
            let faults = faults(&store);
            for wanted in wanted {
                let found = faults.iter().any(|fault| fault.contains(wanted));
                assert!(found, "{wanted}: {faults:?}");
            }
        };
        // A chunk: the first one is the root, the last one data.
        let mut bad = good.clone();
        let last = good.len() - 16 - 36 * image.chunks.len() - 1;
        bad[last] ^= 1;
        fs::write(&pack, &bad).unwrap();
        said(&["cannot use the chunk", "the blob is damaged"]);
        bad[0] ^= 1;
        fs::write(&pack, &bad).unwrap();
        let root = image.root.to_hex();
        said(&[&format!("cannot use the chunk {root}")]);
        // The pack.
        let mut bad = good.clone();
        let footer = good.len() - 16;
        bad[footer] = 0;
        fs::write(&pack, &bad).unwrap();
        said(&["malformed pack: the file does not end with the footer"]);
        fs::remove_file(&pack).unwrap();
        said(&[
            "the chunk index lists the pack, and it is missing",
            "cannot find the chunk",
        ]);
        fs::write(&pack, &good).unwrap();
        // The index.
        let chunks = store.path().join(".puzzlefs/chunks");
        let table = chunks.join("0000000000000001");
        let records = fs::read(&table).unwrap();
        let mut bad = records.clone();
        bad[20] ^= 1;
        fs::write(&table, &bad).unwrap();
        said(&["page 0: the checksum is wrong"]);
        fs::write(&table, &records).unwrap();
        let catalogue = chunks.join("catalogue");
        let text = fs::read(&catalogue).unwrap();
        fs::write(&catalogue, &text[1..]).unwrap();
        said(&["the file does not begin with the header of a catalogue"]);
        fs::write(&catalogue, &text).unwrap();
        assert_eq!(verified(&store).unlisted_packs, 0);
    }

    #[test]
    fn packs_that_the_index_does_not_list_are_no_fault() {
        let scratch = tempfile::tempdir().unwrap();
        let store = Store::create(&scratch.path().join("store")).unwrap();
        let image = image(&store);
        fs::remove_file(store.path().join(".puzzlefs/chunks/catalogue")).unwrap();
        let of_store = verify_store(&store, 2, &Progress::default()).unwrap();
        for report in [verified(&store), of_store] {
            assert_eq!((&report.faults[..], report.unlisted_packs), (&[][..], 1));
            assert!(report.packed[0].is_whole && report.packed[0].is_complete());
        }
        fs::remove_file(store.blob_path(&image.pack)).unwrap();
        assert_eq!(verified(&store).unlisted_packs, 0);
        assert!(!verified(&store).packed[0].is_whole);
    }
}
