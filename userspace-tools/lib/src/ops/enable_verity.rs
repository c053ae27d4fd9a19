// SPDX-License-Identifier: MIT OR Apache-2.0

//! Enables fs-verity on the blobs of images, so that the kernel verifies them from then on. Mounts with
//! `verify=fsverity` and `digest=` need this.
//!
//! fs-verity cannot be disabled, and its files cannot be written. So each blob is read and compared
//! with the digest in the image first.

use crate::error::{CommandError, Error, Result, StoreError};
use crate::image::chunk_walk::ChunkWalk;
use crate::image::v3::reader::ImageReader;
use crate::model::count::Count;
use crate::model::digest::Digest;
use crate::model::limits::READ_SIZE;
use crate::model::reference::Selector;
use crate::model::verity::Hasher;
use crate::ops::report::Fault;
use crate::ops::verify::read_pieces;
use crate::store::chunks::index::Location;
use crate::store::chunks::reader::ChunkReader;
use crate::store::graph;
use crate::store::locks::UseLock;
use crate::store::oci_layout::{AnyImage, AnyRoot, Image, Store};
use crate::sys::parallel::{self, into_inner, lock};
use crate::sys::progress::Progress;
use crate::sys::verity;
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

/// The result of enabling fs-verity.
#[derive(Debug, Default)]
pub struct Enabled {
    /// The images that were looked at.
    pub images: Vec<EnabledImage>,
    /// The blobs on which fs-verity was enabled.
    pub new: Count,
    /// Those on which it was before.
    pub already: Count,
    /// The blobs on which it is not, and why.
    pub faults: Vec<Fault>,
}

/// An image, and what to mount it by.
#[derive(Debug)]
pub struct EnabledImage {
    /// Its tags, or its digest.
    pub name: String,
    /// The fs-verity digest of its manifest, the mount option `digest=`.
    pub manifest_verity: Digest,
}

/// The digest that a blob is compared with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expected {
    /// The fs-verity digest that an image states.
    Verity(Digest),
    /// The SHA-256 of its name, because images of format 4 state no fs-verity digests.
    Name,
}

/// The digest that a blob has to have, and the image that says so.
type Wanted = BTreeMap<Digest, (Expected, String)>;

/// Enables fs-verity on all that a mount of an image reads, or of each of a store's images:
/// manifest, metadata blob and data blobs.
///
/// # Errors
///
/// If the filesystem has no fs-verity, or if the caller may not write to the blobs. A fault of one blob
/// is reported in [`Enabled::faults`], and the others are still done.
pub fn enable(
    store: &Store,
    image: Option<&Selector>,
    jobs: usize,
    progress: &Progress,
) -> Result<Enabled> {
    let _lock = UseLock::shared(store.locked())?;
    let mut enabled = Enabled::default();
    let mut wanted = Wanted::new();
    for (name, selector) in images(store, image, &mut enabled.faults)? {
        progress.check()?;
        let found = store.any_image(&selector).and_then(|any| match &any.root {
            AnyRoot::V4(root) => want_chunks(store, &any, &root.root, &name, &mut wanted),
            AnyRoot::V3(_) => {
                let image = store.image(&selector)?;
                want(store, &image, &name, &mut wanted, &mut enabled.faults)
            }
        });
        match found {
            Ok(manifest_verity) => enabled.images.push(EnabledImage {
                name,
                manifest_verity,
            }),
            Err(error) => enabled.faults.push(Fault {
                what: error.to_string(),
                image: Some(name),
            }),
        }
    }
    enable_all(store, wanted, jobs, progress, enabled)
}

/// Enables fs-verity on blobs, several at once.
fn enable_all(
    store: &Store,
    wanted: Wanted,
    jobs: usize,
    progress: &Progress,
    enabled: Enabled,
) -> Result<Enabled> {
    for digest in wanted.keys() {
        progress.found_entry();
        progress.found_bytes(store.blob_size(digest)?.unwrap_or_default());
    }
    progress.start_reading();
    let wanted: Vec<_> = wanted.into_iter().collect();
    let shared = Mutex::new(enabled);
    parallel::for_each(
        jobs,
        &wanted,
        || vec![0; READ_SIZE],
        |buffer, (digest, (verity, image))| {
            let outcome = one(store, digest, verity, buffer, progress)?;
            let mut enabled = lock(&shared);
            match outcome {
                Outcome::New(size) => enabled.new.add(size),
                Outcome::Already(size) => enabled.already.add(size),
                Outcome::Refused(what) => enabled.faults.push(Fault {
                    image: Some(image.clone()),
                    what,
                }),
            }
            Ok(())
        },
    )?;
    let mut enabled = into_inner(shared);
    // The order of faults does not depend on the order in which threads end.
    enabled.faults.sort_by(|a, b| a.what.cmp(&b.what));
    Ok(enabled)
}

/// Returns the images, and their names for messages.
fn images(
    store: &Store,
    image: Option<&Selector>,
    faults: &mut Vec<Fault>,
) -> Result<Vec<(String, Selector)>> {
    if let Some(selector) = image {
        return Ok(vec![(selector.to_string(), selector.clone())]);
    }
    let (roots, errors) = graph::roots(store, store.index()?);
    faults.extend(errors.into_iter().map(|error| Fault {
        image: None,
        what: error.to_string(),
    }));
    let mut images = Vec::new();
    for root in roots {
        let name = root.name();
        for manifest in root.images.into_iter().chain(root.packed) {
            images.push((name.clone(), Selector::Manifest(manifest)));
        }
    }
    images.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(images)
}

/// Notes the digests that the blobs of an image must have, and returns that of its manifest.
fn want(
    store: &Store,
    image: &Image,
    name: &str,
    wanted: &mut Wanted,
    faults: &mut Vec<Fault>,
) -> Result<Digest> {
    let reader = ImageReader::new(store, image)?;
    let Some(rootfs_verity) = image.rootfs_verity else {
        let path = store.blob_path(&image.manifest_digest);
        return Err(CommandError::NoRootVerity { path }.into());
    };
    let mut want = |blob: Digest, verity: Digest| {
        let (known, by) = wanted
            .entry(blob)
            .or_insert_with(|| (Expected::Verity(verity), name.to_owned()));
        // An image of format 4 can have the blob, too, and states no digest.
        if *known == Expected::Name {
            *known = Expected::Verity(verity);
        }
        if let Some(known) = known.verity().filter(|known| *known != verity) {
            let path = store.blob_path(&blob);
            faults.push(Fault {
                image: Some(name.to_owned()),
                what: format!(
                    "{}: its fs-verity digest must be {verity}, but '{by}' says {known}",
                    path.display()
                ),
            });
        }
    };
    let manifest_verity = image.manifest_verity();
    want(image.manifest_digest, manifest_verity);
    want(image.rootfs, rootfs_verity);
    let metadata = reader.metadata();
    for index in 0..reader.checked(metadata.verity_len())? {
        let (blob, verity) = reader.checked(metadata.verity_at(index))?;
        want(Digest(*blob.as_bytes()), Digest(*verity.as_bytes()));
    }
    Ok(manifest_verity)
}

impl Expected {
    fn verity(&self) -> Option<Digest> {
        match self {
            Expected::Verity(verity) => Some(*verity),
            Expected::Name => None,
        }
    }
}

/// Notes the blobs of an image of format 4: the manifest, and the packs and loose chunks with its chunks.
fn want_chunks(
    store: &Store,
    image: &AnyImage,
    root: &Digest,
    name: &str,
    wanted: &mut Wanted,
) -> Result<Digest> {
    let reader = ChunkReader::new(store)?;
    let mut blobs = BTreeSet::new();
    let mut chunks = Vec::new();
    ChunkWalk::new(&reader).image(root, |chunk, _| chunks.push(Digest::from(*chunk.digest())))?;
    for chunk in chunks {
        match reader.find(&chunk)? {
            Some(Location::Pack { pack, .. }) => blobs.insert(pack),
            Some(Location::Loose { .. }) => blobs.insert(chunk),
            None => {
                let store = store.path().to_path_buf();
                let digest = chunk;
                return Err(StoreError::ChunkMissing { store, digest }.into());
            }
        };
    }
    for blob in blobs {
        let expected = || (Expected::Name, name.to_owned());
        wanted.entry(blob).or_insert_with(expected);
    }
    let verity = image.root.manifest_verity();
    let manifest = (Expected::Verity(verity), name.to_owned());
    wanted.insert(*image.root.manifest_digest(), manifest);
    Ok(verity)
}

/// The outcome for a blob.
enum Outcome {
    /// fs-verity is enabled now. The blob's size.
    New(u64),
    /// It was before.
    Already(u64),
    /// It is not, for this reason.
    Refused(String),
}

/// Enables fs-verity on one blob.
fn one(
    store: &Store,
    digest: &Digest,
    wanted: &Expected,
    buffer: &mut [u8],
    progress: &Progress,
) -> Result<Outcome> {
    let path = store.blob_path(digest);
    let refuse = |what: String| Ok(Outcome::Refused(format!("{}: {what}", path.display())));
    let mut file = match store.open_blob(digest) {
        Ok(file) => file,
        Err(error) => return Ok(Outcome::Refused(error.to_string())),
    };
    let size = file.metadata().map_err(Error::io(&path, "examine"))?.len();
    if let Some(found) = verity::measure(&file, &path)? {
        progress.done_bytes(size);
        return match wanted.verity().filter(|wanted| *wanted != found) {
            None => Ok(Outcome::Already(size)),
            Some(wanted) => refuse(format!(
                "fs-verity is enabled, and its digest is {found}, not {wanted} as the image says"
            )),
        };
    }
    let (mut hasher, mut sha256) = (Hasher::new(), Sha256::new());
    let read = read_pieces(&mut file, buffer, progress, |piece| {
        hasher.update(piece);
        if *wanted == Expected::Name {
            sha256.update(piece);
        }
    })?;
    if let Err(cause) = read {
        return refuse(format!("cannot read it: {cause}"));
    }
    let computed = hasher.finish();
    match wanted {
        Expected::Verity(wanted) if computed != *wanted => {
            return refuse(format!(
                "its fs-verity digest would be {computed}, not {wanted} as the image says: the blob is \
                 damaged, or its image wrong ('puzzlefs verify' tells), and was left as it is"
            ));
        }
        Expected::Name => {
            let found = Digest(sha256.finalize().into());
            if found != *digest {
                return refuse(format!(
                    "its contents have sha256 {found}: the blob is damaged, and was left as it is"
                ));
            }
        }
        Expected::Verity(_) => {}
    }
    match verity::enable(&file) {
        // Another process was faster: what it made is looked at below.
        Ok(()) | Err(Errno::EXIST) => {}
        Err(Errno::TXTBSY) => return refuse("somebody has it open for writing".to_owned()),
        Err(Errno::BUSY) => return refuse("somebody else is enabling fs-verity on it".to_owned()),
        Err(errno) => return Err(unable(store, digest, errno)),
    }
    // It might have been written to after it was read.
    match verity::measure(&file, &path)? {
        Some(found) if found == computed => Ok(Outcome::New(size)),
        _ => refuse("it was changed while fs-verity was being enabled on it".to_owned()),
    }
}

/// Returns the error if fs-verity cannot be enabled on a blob, nor on any other.
fn unable(store: &Store, digest: &Digest, errno: Errno) -> Error {
    let path = store.path().to_path_buf();
    match errno {
        Errno::OPNOTSUPP => CommandError::VerityDisabled { store: path }.into(),
        Errno::NOTTY => CommandError::VerityUnsupported { store: path }.into(),
        Errno::INVAL => CommandError::VerityBlockSize { store: path }.into(),
        _ => Error::io(store.blob_path(digest), "enable fs-verity on")(errno),
    }
}
