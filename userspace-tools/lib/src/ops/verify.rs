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
use crate::ops::report::{Fault, Verified};
use crate::ops::structure::{Blobs, Checker, Wanted};
use crate::store::graph;
use crate::store::oci_layout::Store;
use crate::sys::parallel::{self, into_inner, lock};
use crate::sys::progress::Progress;
use sha2::{Digest as _, Sha256};
use std::collections::{HashMap, HashSet};
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
    Checker::new(store, &mut verified, &mut blobs).image(&selector.to_string(), selector);
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
        for image in &root.images {
            checker.image(&root.name(), &Selector::Manifest(*image));
        }
    }
    check_blobs(store, &blobs, jobs, progress, &mut verified)?;
    Ok(verified)
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
