// SPDX-License-Identifier: MIT OR Apache-2.0

//! Mounting images by the kernel module, and unmounting them.
//!
//! The kernel reads no JSON and resolves no tag. It gets the store's directory and the digest of the
//! metadata blob, or of the root of an image of format 4, which [`resolve`] finds.

mod call;
mod fetcher;
mod markers;
mod options;
mod prefetch;
pub mod sandbox;
mod unmount;
mod writable;

pub use crate::sys::mounts::{Mount, MountId};
pub use call::remount;
pub use fetcher::{ChunkAnswer, ChunkRequest, ChunkRequests, FetchDevice, DEVICE};
pub use markers::{needs_escape, ESCAPE_OVERLAY};
pub use options::Options;
pub use prefetch::{is_prefetch, Prefetch};
pub use unmount::{unmount, Unmounted};
pub use writable::{copy_root, Upper, Writable};

use crate::error::{Error, MountError, Result, StoreError};
use crate::model::digest::Digest;
use crate::model::oci::Manifest;
use crate::model::reference::ImageRef;
use crate::store::chunks::index::Location;
use crate::store::chunks::reader::ChunkReader;
use crate::store::chunks::rebuild::find_packs;
use crate::store::chunks::update;
use crate::store::locks::UseLock;
use crate::store::oci_layout::{AnyRoot, ImageRoot, Store};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The file system type of the kernel module.
pub const TYPE: &str = "puzzlefs";

/// The file system type of a mount over FUSE, in the table of mounts.
pub const FUSE_TYPE: &str = "fuse.puzzlefs";

/// Returns the source for the kernel: the store's absolute path. Adds the option `rootfs=`, and those
/// that `digest=` stands for.
pub fn resolve(source: &OsStr, options: &mut Options) -> Result<OsString> {
    let digest = options.take_digest()?;
    if options.name_image() {
        if digest.is_some() {
            return Err(MountError::DigestAndRootfs.into());
        }
        // With oci_root_dir= the source is only a name, as for the older prototype.
        let path = Path::new(source);
        return Ok(match path.canonicalize() {
            Ok(absolute) if absolute.is_dir() => absolute.into_os_string(),
            _ if ImageRef::parse(source).is_ok_and(|image| image.store.is_dir()) => {
                return Err(MountError::TwoImages.into());
            }
            _ => source.to_owned(),
        });
    }
    let image = ImageRef::parse(source)?;
    let (store, root) = find_for(Reader::Kernel, &image)?;
    options.manifest = Some(*root.manifest_digest());
    let hex = OsString::from(root.digest().to_hex());
    options.parameters.insert(0, ("rootfs".into(), Some(hex)));
    if let Some(wanted) = digest {
        match check_digest(&root, wanted)? {
            Some(rootfs_verity) => options.verify_from(rootfs_verity.to_hex()),
            // Everything else follows from the root.
            None => options.verify_data(),
        }
    }
    Ok(store.into_os_string())
}

/// Checks the manifest of an image against its fs-verity digest. Returns the digest that it has for the
/// metadata blob, against which the rest is verified; `None` for an image of format 4, whose root has a
/// digest of its own.
pub fn check_digest(image: &AnyRoot, wanted: Digest) -> Result<Option<Digest>> {
    let found = image.manifest_verity();
    if found != wanted {
        return Err(MountError::OtherManifest { found, wanted }.into());
    }
    match image {
        AnyRoot::V3(image) => Ok(Some(image.rootfs_verity.ok_or(MountError::NoRootVerity)?)),
        AnyRoot::V4(_) => Ok(None),
    }
}

/// The reader of an image that is mounted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reader {
    /// It finds the chunks that the chunk index lists.
    Kernel,
    /// It also finds chunks of other packs.
    Library,
}

/// Finds an image, and its store's absolute path. Fails if its metadata blob, or its root in format 4, is
/// missing.
///
/// If another tool copied the image, its packs are not in the chunk index. This function adds them, if the
/// store can be changed. Otherwise the kernel cannot mount the image, and [`resolve`] fails.
pub fn find(image: &ImageRef) -> Result<(PathBuf, AnyRoot)> {
    find_for(Reader::Library, image)
}

fn find_for(reader: Reader, image: &ImageRef) -> Result<(PathBuf, AnyRoot)> {
    let store = Store::open(&image.store)?;
    let root = store.any_root(&image.selector)?;
    match &root {
        AnyRoot::V3(root) => check_blob(&store, root)?,
        AnyRoot::V4(root) => find_chunk_root(&store, image, &root.root, reader)?,
    }
    Ok((absolute(&store)?, root))
}

/// Returns the absolute path of a store.
fn absolute(store: &Store) -> Result<PathBuf> {
    let absolute = store.path().canonicalize();
    Ok(absolute.map_err(|cause| MountError::Unresolved {
        path: store.path().to_path_buf(),
        cause,
    })?)
}

/// Checks that the metadata blob of an image is there.
fn check_blob(store: &Store, root: &ImageRoot) -> Result<()> {
    let path = store.blob_path(&root.rootfs);
    let wanted = root.rootfs_size;
    match store.blob_size(&root.rootfs)? {
        Some(found) if found == wanted => Ok(()),
        Some(found) => Err(MountError::RootDamaged {
            path,
            found,
            wanted,
        }
        .into()),
        None => Err(MountError::RootMissing { path }.into()),
    }
}

/// Checks that the root of an image of format 4 is there, and adds the image's packs to the chunk index if
/// the index does not find it.
fn find_chunk_root(store: &Store, image: &ImageRef, root: &Digest, reader: Reader) -> Result<()> {
    let Err(missing) = check_root(store, root) else {
        return Ok(());
    };
    let manifest = store.any_image(&image.selector)?.manifest;
    // The store is read-only, or belongs to someone else.
    let Err(cause) = adopt(store, &manifest, root) else {
        return check_root(store, root);
    };
    match ChunkReader::new(store)?.find(root)? {
        None => Err(missing),
        Some(_) if reader == Reader::Library => Ok(()),
        Some(_) => Err(StoreError::NotIndexed {
            store: store.path().to_path_buf(),
            cause: Box::new(cause),
        }
        .into()),
    }
}

/// Adds the packs of an image to the chunk index, or all packs if those do not have the root.
fn adopt(store: &Store, manifest: &Manifest, root: &Digest) -> Result<()> {
    // A `gc` must not remove packs that are found here.
    let _in_use = UseLock::shared(store.locked())?;
    update::adopt_packs_of(store, manifest)?;
    match check_root(store, root) {
        Ok(()) => Ok(()),
        Err(_) => update::adopt_packs(store, &find_packs(store)?),
    }
}

/// Checks that the index finds the root of an image of format 4. The kernel reads a damaged index as far as
/// it can.
fn check_root(store: &Store, root: &Digest) -> Result<()> {
    let Ok(reader) = ChunkReader::of_index(store) else {
        return Ok(());
    };
    match reader.find(root) {
        Ok(None) => Err(StoreError::ChunkMissing {
            store: store.path().to_path_buf(),
            digest: *root,
        }
        .into()),
        Ok(Some(Location::Pack { pack, .. })) if store.blob_size(&pack)?.is_none() => {
            let path = store.blob_path(&pack);
            Err(StoreError::IndexedPackMissing { path }.into())
        }
        _ => Ok(()),
    }
}

/// Fails if a mount point is not a directory.
pub fn check_mount_point(directory: &Path) -> Result<()> {
    match std::fs::metadata(directory) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(MountError::NotADirectory.into()),
        Err(cause) => Err(MountError::MountPoint(cause).into()),
    }
}

/// Mounts the source from [`resolve`] on a directory, and returns the kernel's remarks. `sloppy` leaves
/// out options that the filesystem does not know.
///
/// If files cannot be read ahead as the options ask for it, that is a remark.
pub fn mount(
    source: &OsStr,
    options: &Options,
    directory: &Path,
    sloppy: bool,
) -> Result<Vec<String>> {
    let mut remarks = if call::is_long(source) {
        call::mount_classic(TYPE, source, directory, options)?;
        Vec::new()
    } else {
        let prepared = call::prepare(TYPE, source, options, sloppy)?;
        call::attach(&prepared, directory)?;
        prepared.remarks
    };
    if options.prefetch {
        let store = Path::new(source);
        let prefetch = Prefetch::prepare(directory, store, options.manifest.as_ref());
        let started = prefetch.and_then(|prefetch| prefetch.start(directory));
        remarks.extend(started.err().map(prefetch_remark));
    }
    Ok(remarks)
}

/// Returns a remark on files that are not read ahead.
pub fn prefetch_remark(error: Error) -> String {
    format!("prefetch: {error}")
}

/// Returns true if a directory has a mount of this source, with the same options for the image, its
/// verification, sharing and restrictions. `None` if nothing is mounted there.
pub fn is_mounted(source: &OsStr, options: &Options, directory: &Path) -> Option<bool> {
    let mount = Mount::on(directory)?;
    let same = ["rootfs", "rootfs_verity", "verify"].iter().all(|name| {
        let mut parameters = options.parameters.iter().rev();
        let wanted = parameters.find(|(parameter, _)| parameter == name);
        let wanted = wanted.and_then(|(_, value)| value.clone());
        // The table of mounts does not have it.
        mount.option(name) == wanted.filter(|value| value != "none")
    });
    let mut names = options.parameters.iter().rev().map(|(name, _)| name);
    let sharing = names.find(|name| *name == "share" || *name == "noshare");
    let noshare = sharing.is_some_and(|name| name == "noshare");
    let restricted = options::RESTRICTIONS
        .iter()
        .all(|(flag, name)| mount.has_attribute(name) == options.attributes.contains(*flag));
    let escape = options
        .parameters
        .iter()
        .any(|(name, _)| name == ESCAPE_OVERLAY);
    let escaped = mount.has_option(ESCAPE_OVERLAY) == escape;
    let same = same && mount.has_option("noshare") == noshare && escaped && restricted;
    Some(same && mount.fs_type == TYPE && mount.source == source)
}

/// Returns the source of a mount whose options do not name its image: the store and the digest of the
/// manifest. `gc` recognises the image by it.
pub fn source_name(store: &Path, manifest: &Digest) -> OsString {
    let mut name = store.as_os_str().to_owned();
    // fusermount3 would take a comma for the end of it.
    if name.len() > SOURCE_STORE_MAX || name.as_bytes().contains(&b',') {
        name = OsString::from(TYPE);
    }
    name.push("@");
    name.push(manifest.to_oci());
    name
}

/// The longest path of a store in [`source_name`]: with the digest, it is what fsconfig(2) takes.
const SOURCE_STORE_MAX: usize = 255 - "@sha256:".len() - 64;

/// The manifest that a name made by [`source_name`] has.
pub(crate) fn manifest_of(source: &OsStr) -> Option<Digest> {
    const MARK: &[u8] = b"@sha256:";
    let bytes = source.as_bytes();
    let (name, hex) = bytes.split_at_checked(bytes.len().checked_sub(64)?)?;
    name.ends_with(MARK)
        .then(|| Digest::from_hex(hex))
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_mounts() {
        let digest = Digest::of(b"manifest");
        let long = format!("/{}", "x".repeat(SOURCE_STORE_MAX));
        for (store, wanted) in [
            ("/srv/images", "/srv/images"),
            ("/srv/a,b", TYPE),
            (&long, TYPE),
        ] {
            let name = source_name(Path::new(store), &digest);
            assert_eq!(name, *format!("{wanted}@sha256:{digest}"));
            assert!(name.len() <= 255);
            assert_eq!(manifest_of(&name), Some(digest));
        }
        for other in ["overlay", "", "/srv/images:tag", &digest.to_hex()] {
            assert_eq!(manifest_of(OsStr::new(other)), None, "{other}");
        }
    }
}
