// SPDX-License-Identifier: MIT OR Apache-2.0

//! Opening and creating stores, and reading their index, manifests and blobs.

use crate::error::{Damage, Error, Result, StoreError};
use crate::model::digest::Digest;
use crate::model::json::{self, ParseError};
use crate::model::limits::{INDEX_MAX, MANIFEST_MAX};
use crate::model::media::{Document, NotPuzzlefs};
use crate::model::oci::{self, Descriptor, Index, Layout, Manifest, Root, Rootfs};
use crate::model::reference::{ImageRef, Selector};
use crate::model::verity;
use crate::store::locks::{open_own, LockedStore};
use crate::store::replace::WriteLock;
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Read;
use std::ops::Deref;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The largest `oci-layout` read, in bytes.
const LAYOUT_MAX: u64 = 64 << 10;

/// A directory that holds an OCI image layout.
#[derive(Debug)]
pub struct Store {
    pub(crate) path: PathBuf,
    pub(crate) root: OwnedFd,
    pub(crate) blobs: OwnedFd,
}

/// The location of the metadata of an image, which is enough to read or mount the image.
#[derive(Clone, Debug)]
pub struct ImageRoot {
    /// The digest of the manifest.
    pub manifest_digest: Digest,
    /// The bytes that all this was read from.
    manifest_bytes: Vec<u8>,
    /// The digest of the metadata blob: what the kernel takes as `rootfs=`.
    pub rootfs: Digest,
    /// The size of the metadata blob in bytes.
    pub rootfs_size: u64,
    /// The fs-verity digest of the metadata blob, where the manifest has it.
    pub rootfs_verity: Option<Digest>,
}

impl ImageRoot {
    /// The manifest's fs-verity digest.
    pub fn manifest_verity(&self) -> Digest {
        verity::digest(&self.manifest_bytes)
    }
}

/// The root of an image of format 4, which is enough to mount the image.
#[derive(Clone, Debug)]
pub struct ChunkRoot {
    /// The digest of the manifest.
    pub manifest_digest: Digest,
    /// The bytes that all this was read from.
    manifest_bytes: Vec<u8>,
    /// The digest of the root, which the kernel takes as `rootfs=`.
    pub root: Digest,
}

/// The root of an image of any format.
#[derive(Clone, Debug)]
pub enum AnyRoot {
    /// Of format 3: a metadata blob.
    V3(ImageRoot),
    /// Of format 4: a chunk.
    V4(ChunkRoot),
}

impl AnyRoot {
    /// The digest that the kernel takes as `rootfs=`.
    pub fn digest(&self) -> &Digest {
        match self {
            AnyRoot::V3(root) => &root.rootfs,
            AnyRoot::V4(root) => &root.root,
        }
    }

    /// The digest of the manifest.
    pub fn manifest_digest(&self) -> &Digest {
        match self {
            AnyRoot::V3(root) => &root.manifest_digest,
            AnyRoot::V4(root) => &root.manifest_digest,
        }
    }

    /// The manifest's fs-verity digest.
    pub fn manifest_verity(&self) -> Digest {
        match self {
            AnyRoot::V3(root) => root.manifest_verity(),
            AnyRoot::V4(root) => verity::digest(&root.manifest_bytes),
        }
    }
}

/// An image of any format, found in a store.
#[derive(Clone, Debug)]
pub struct AnyImage {
    /// The root of its metadata.
    pub root: AnyRoot,
    /// The manifest.
    pub manifest: Manifest,
    /// The annotations in the index, including the tag. Empty if the image was found by its digest.
    pub annotations: BTreeMap<String, String>,
}

/// An image of format 3, found in a store.
#[derive(Clone, Debug)]
pub struct Image {
    /// The location of its metadata.
    root: ImageRoot,
    /// The manifest.
    pub manifest: Manifest,
    /// The annotations in the index, including the tag. Empty if the image was found by its digest.
    pub annotations: BTreeMap<String, String>,
}

impl Deref for Image {
    type Target = ImageRoot;

    fn deref(&self) -> &ImageRoot {
        &self.root
    }
}

impl Image {
    /// The descriptors of the data blobs.
    pub fn data_blobs(&self) -> impl Iterator<Item = &Descriptor> + Clone {
        let layers = self.manifest.layers.iter();
        layers.filter(|layer| layer.media_type.starts_with(oci::FILEDATA))
    }
}

impl Store {
    /// The directory, to lock it.
    pub(crate) fn locked(&self) -> LockedStore<'_> {
        LockedStore {
            path: &self.path,
            root: &self.root,
        }
    }

    /// Opens a store that exists.
    pub fn open(path: &Path) -> Result<Self> {
        let root = open_directory(path).map_err(|errno| match errno {
            Errno::NOTDIR => StoreError::NotADirectory { path: path.into() }.into(),
            errno => Error::io(path, "open the store")(errno),
        })?;
        match rustix::fs::accessat(
            &root,
            "oci-layout",
            rustix::fs::Access::EXISTS,
            rustix::fs::AtFlags::empty(),
        ) {
            Ok(()) => {}
            Err(Errno::NOENT) => {
                return Err(StoreError::NotALayout { path: path.into() }.into());
            }
            Err(errno) => return Err(Error::io(path, "look for oci-layout in")(errno)),
        }
        let blobs = open_blobs(path, &root)?;
        Ok(Store {
            path: path.to_path_buf(),
            root,
            blobs,
        })
    }

    /// Opens a store, and creates it if it does not exist. Fails for a directory with other files.
    pub fn create(path: &Path) -> Result<Self> {
        let layout = path.join("oci-layout");
        match fs::symlink_metadata(&layout) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Self::initialise(path)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {
                return Err(StoreError::BeneathAFile { path: path.into() }.into());
            }
            Err(error) => return Err(Error::io(layout, "examine")(error)),
        }
        Self::open(path)
    }

    fn initialise(path: &Path) -> Result<()> {
        fs::create_dir_all(path).map_err(Error::io(path, "create the store's directory"))?;
        let entries = fs::read_dir(path).map_err(Error::io(path, "list"))?;
        for entry in entries {
            let entry = entry.map_err(Error::io(path, "list"))?;
            // An interrupted or concurrent initialisation leaves these names, and filesystems the last.
            let known = [
                ".puzzlefs",
                "blobs",
                "index.json",
                "oci-layout",
                "lost+found",
            ];
            if !known.iter().any(|known| entry.file_name() == *known) {
                return Err(StoreError::NotEmpty { path: path.into() }.into());
            }
        }
        let root = open_directory(path).map_err(Error::io(path, "open the store"))?;
        let mut at = root
            .try_clone()
            .map_err(Error::io(path, "open the store"))?;
        let mut name = path.to_path_buf();
        for part in BLOBS {
            name.push(part);
            match rustix::fs::mkdirat(&at, part, Mode::from_raw_mode(0o777)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(Error::io(name, "create")(errno)),
            }
            at = open_own(&at, &name, part)?;
        }
        WriteLock::take(path, &root)?.replace_file("oci-layout", oci::LAYOUT.as_bytes())
    }

    /// The store's directory as it was given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a blob.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.path.join("blobs/sha256").join(digest.to_hex())
    }

    /// The device and inode number of the store's directory.
    pub(crate) fn identity(&self) -> Result<(u64, u64)> {
        let stat = rustix::fs::fstat(&self.root).map_err(Error::io(&self.path, "examine"))?;
        Ok((stat.st_dev, stat.st_ino))
    }

    /// Returns true if another store is the same directory.
    pub fn is_same(&self, other: &Store) -> Result<bool> {
        Ok(self.identity()? == other.identity()?)
    }

    /// Returns the size of a blob, or `None` if it does not exist.
    pub fn blob_size(&self, digest: &Digest) -> Result<Option<u64>> {
        match rustix::fs::statat(
            &self.blobs,
            digest.to_hex(),
            rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
        ) {
            Ok(stat) => Ok(Some(stat.st_size as u64)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(Error::io(self.blob_path(digest), "examine")(errno)),
        }
    }

    /// Lists the directory of blobs: the digests, and the other names.
    pub(crate) fn list_blobs(&self) -> Result<(Vec<Digest>, Vec<OsString>)> {
        let path = self.path.join("blobs/sha256");
        let (mut blobs, mut others) = (Vec::new(), Vec::new());
        let fail = || Error::io(&path, "list");
        for entry in rustix::fs::Dir::read_from(&self.blobs).map_err(fail())? {
            let entry = entry.map_err(fail())?;
            let name = entry.file_name().to_bytes();
            match Digest::from_hex(name) {
                Some(digest) => blobs.push(digest),
                None if name == b"." || name == b".." => {}
                None => others.push(OsStr::from_bytes(name).to_owned()),
            }
        }
        blobs.sort_unstable();
        others.sort_unstable();
        Ok((blobs, others))
    }

    /// Opens a blob for reading. It must be a regular file; a symbolic link is not followed.
    pub fn open_blob(&self, digest: &Digest) -> Result<File> {
        let path = || self.blob_path(digest);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let fd = rustix::fs::openat(&self.blobs, digest.to_hex(), flags, Mode::empty())
            .map_err(|errno| Error::io(path(), "open the blob")(errno))?;
        let file = File::from(fd);
        let metadata = file.metadata().map_err(Error::io(path(), "examine"))?;
        if !metadata.is_file() {
            return Err(StoreError::NotARegularFile { path: path() }.into());
        }
        Ok(file)
    }

    /// Reads a blob of any size, and returns the digest of its contents.
    pub(crate) fn digest_of_blob(&self, digest: &Digest, buffer: &mut [u8]) -> Result<Digest> {
        let mut file = self.open_blob(digest)?;
        let mut sha256 = Sha256::new();
        loop {
            match file.read(buffer) {
                Ok(0) => return Ok(Digest(sha256.finalize().into())),
                Ok(read) => sha256.update(&buffer[..read]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io(self.blob_path(digest), "read")(error)),
            }
        }
    }

    /// Removes a blob, if it exists.
    pub(crate) fn remove_blob(&self, digest: &Digest) -> Result<()> {
        match rustix::fs::unlinkat(&self.blobs, digest.to_hex(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(Error::io(self.blob_path(digest), "remove")(errno)),
        }
    }

    /// Reads a blob of at most `max` bytes, and compares it with its digest.
    pub fn read_blob(&self, digest: &Digest, max: u64) -> Result<Vec<u8>> {
        let path = self.blob_path(digest);
        let bytes = read_bounded(self.open_blob(digest)?, &path, max)?;
        let found = Digest::of(&bytes);
        if found != *digest {
            return Err(self.damaged(digest, Damage::Contents(found)));
        }
        Ok(bytes)
    }

    /// Reads `index.json`. A store without one has no images.
    pub fn index(&self) -> Result<Index> {
        Ok(self.written_index()?.unwrap_or_default())
    }

    /// Reads `index.json` in order to change the store. Fails if the version or type of the index is
    /// not known.
    pub(crate) fn known_index(&self) -> Result<Index> {
        self.known_index_of(self.index_text()?.as_deref())
    }

    /// Parses the text of `index.json`, or of none, as [`Store::known_index`] does.
    pub(crate) fn known_index_of(&self, text: Option<&[u8]>) -> Result<Index> {
        let index = self.parsed_index(text)?.unwrap_or_default();
        match index.unknown() {
            None => Ok(index),
            Some(cause) => {
                let path = self.path.join("index.json");
                Err(StoreError::UnknownIndex { path, cause }.into())
            }
        }
    }

    /// Reads `index.json`, if it exists.
    pub(crate) fn written_index(&self) -> Result<Option<Index>> {
        self.parsed_index(self.index_text()?.as_deref())
    }

    /// Reads the text of `index.json`, if it exists.
    pub(crate) fn index_text(&self) -> Result<Option<Vec<u8>>> {
        self.text("index.json", INDEX_MAX)
    }

    fn parsed_index(&self, text: Option<&[u8]>) -> Result<Option<Index>> {
        self.json("index.json", "an OCI image index", text)
    }

    /// Reads `oci-layout`, if it exists.
    pub(crate) fn layout(&self) -> Result<Option<Layout>> {
        let text = self.text("oci-layout", LAYOUT_MAX)?;
        let what = "the version of an OCI image layout";
        self.json("oci-layout", what, text.as_deref())
    }

    /// Reads a file of the store's own directory, if it exists.
    fn text(&self, name: &str, max: u64) -> Result<Option<Vec<u8>>> {
        let path = self.path.join(name);
        // What is no regular file must not block.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = match rustix::fs::openat(&self.root, name, flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(Error::io(path, "open")(errno)),
        };
        let metadata = file.metadata().map_err(Error::io(&path, "examine"))?;
        if !metadata.is_file() {
            return Err(StoreError::NotARegularFile { path }.into());
        }
        read_bounded(file, &path, max).map(Some)
    }

    /// Parses the text of a file of the store's own directory, which has to be `what`,
    /// "an OCI image index".
    fn json<T: DeserializeOwned>(
        &self,
        name: &str,
        what: &str,
        text: Option<&[u8]>,
    ) -> Result<Option<T>> {
        let value = text.map(|text| json::parse(text, what)).transpose();
        value.map_err(|cause| {
            let path = self.path.join(name);
            StoreError::Malformed { path, cause }.into()
        })
    }

    /// Finds an image, and reads all of its manifest.
    pub fn image(&self, selector: &Selector) -> Result<Image> {
        let (digest, annotations) = self.find(selector)?;
        let bytes = self.read_blob(&digest, MANIFEST_MAX)?;
        let manifest: Manifest = self.parsed(&digest, &bytes, selector)?;
        Ok(Image {
            root: self.root_of(digest, bytes, manifest.rootfs(), selector)?,
            manifest,
            annotations,
        })
    }

    /// Finds an image's metadata.
    pub fn image_root(&self, selector: &Selector) -> Result<ImageRoot> {
        let (digest, _) = self.find(selector)?;
        let bytes = self.read_blob(&digest, MANIFEST_MAX)?;
        let Rootfs { descriptor } = self.parsed(&digest, &bytes, selector)?;
        self.root_of(digest, bytes, descriptor.as_ref(), selector)
    }

    /// Finds an image of any format, and reads all of its manifest.
    pub fn any_image(&self, selector: &Selector) -> Result<AnyImage> {
        let (digest, annotations) = self.find(selector)?;
        let bytes = self.read_blob(&digest, MANIFEST_MAX)?;
        let manifest: Manifest = self.parsed(&digest, &bytes, selector)?;
        let hex = manifest.annotations.get(oci::ROOT).cloned();
        Ok(AnyImage {
            root: self.any_root_of(digest, bytes, manifest.rootfs(), hex, selector)?,
            manifest,
            annotations,
        })
    }

    /// Finds the root of an image of any format.
    pub fn any_root(&self, selector: &Selector) -> Result<AnyRoot> {
        let (digest, _) = self.find(selector)?;
        let bytes = self.read_blob(&digest, MANIFEST_MAX)?;
        let Rootfs { descriptor } = self.parsed(&digest, &bytes, selector)?;
        let hex = match descriptor {
            Some(_) => None,
            None => {
                let Root { hex } = self.parsed(&digest, &bytes, selector)?;
                hex
            }
        };
        self.any_root_of(digest, bytes, descriptor.as_ref(), hex, selector)
    }

    /// Returns the root of the metadata that a manifest describes. `hex` is the annotation with the root
    /// of an image of format 4.
    fn any_root_of(
        &self,
        manifest_digest: Digest,
        manifest_bytes: Vec<u8>,
        rootfs: Option<&Descriptor>,
        hex: Option<String>,
        selector: &Selector,
    ) -> Result<AnyRoot> {
        let Some(hex) = hex.filter(|_| rootfs.is_none()) else {
            let root = self.root_of(manifest_digest, manifest_bytes, rootfs, selector)?;
            return Ok(AnyRoot::V3(root));
        };
        let Some(root) = Digest::from_hex(hex.as_bytes()) else {
            let manifest = self.blob_path(&manifest_digest);
            return Err(StoreError::RootAnnotation { manifest }.into());
        };
        Ok(AnyRoot::V4(ChunkRoot {
            manifest_digest,
            manifest_bytes,
            root,
        }))
    }

    /// Finds the manifest of an image, and its annotations in the index.
    fn find(&self, selector: &Selector) -> Result<(Digest, BTreeMap<String, String>)> {
        match selector {
            Selector::Manifest(digest) => Ok((*digest, BTreeMap::new())),
            Selector::Tag(tag) => {
                let index = self.index()?;
                let Some(descriptor) = index.find(tag) else {
                    return Err(self.no_such_tag(&index, tag));
                };
                let digest = self.digest(descriptor, &self.path.join("index.json"))?;
                self.check_size(&digest, descriptor)?;
                Ok((digest, descriptor.annotations.clone()))
            }
        }
    }

    /// Returns the location of the metadata that a manifest describes.
    fn root_of(
        &self,
        manifest_digest: Digest,
        manifest_bytes: Vec<u8>,
        rootfs: Option<&Descriptor>,
        selector: &Selector,
    ) -> Result<ImageRoot> {
        let Some(rootfs) = rootfs else {
            return Err(self.not_puzzlefs(&manifest_bytes, selector));
        };
        let path = self.blob_path(&manifest_digest);
        Ok(ImageRoot {
            manifest_digest,
            manifest_bytes,
            rootfs: self.digest(rootfs, &path)?,
            rootfs_size: rootfs.size,
            rootfs_verity: rootfs
                .annotations
                .get(oci::VERITY_ROOT_HASH)
                .and_then(|hex| Digest::from_hex(hex.as_bytes())),
        })
    }

    /// Reads an image manifest, of a PuzzleFS image or not; gives its bytes, too.
    pub fn manifest(&self, digest: &Digest) -> Result<(Manifest, Vec<u8>)> {
        let bytes = self.read_blob(digest, MANIFEST_MAX)?;
        let manifest = json::parse(&bytes, "an OCI image manifest")
            .map_err(|cause| self.malformed_blob(digest, cause))?;
        Ok((manifest, bytes))
    }

    /// Parses the manifest of an image, or a part of it.
    fn parsed<T: DeserializeOwned>(
        &self,
        digest: &Digest,
        bytes: &[u8],
        selector: &Selector,
    ) -> Result<T> {
        json::parse(bytes, "an OCI image manifest").map_err(|cause| {
            match Document::of_bytes(bytes) {
                Document::Unknown | Document::Manifest => self.malformed_blob(digest, cause),
                _ => self.not_puzzlefs(bytes, selector),
            }
        })
    }

    /// Returns the error for a damaged blob.
    pub(crate) fn damaged(&self, digest: &Digest, damage: Damage) -> Error {
        let path = self.blob_path(digest);
        StoreError::Damaged { path, damage }.into()
    }

    /// Returns the error for a tag that the index does not list.
    pub(crate) fn no_such_tag(&self, index: &Index, tag: &str) -> Error {
        StoreError::NoSuchTag {
            store: self.path.clone(),
            tag: tag.to_owned(),
            tags: index.tags(),
        }
        .into()
    }

    fn malformed_blob(&self, digest: &Digest, cause: ParseError) -> Error {
        let path = self.blob_path(digest);
        StoreError::Malformed { path, cause }.into()
    }

    /// Returns the error for an image of another format.
    fn not_puzzlefs(&self, manifest: &[u8], selector: &Selector) -> Error {
        let name = match selector {
            Selector::Tag(tag) => Some(format!("{}:{tag}", self.path.display())),
            Selector::Manifest(_) => None,
        };
        StoreError::NotPuzzlefs {
            store: self.path.clone(),
            selector: selector.clone(),
            cause: NotPuzzlefs::of_bytes(manifest, name),
        }
        .into()
    }

    /// Returns the digest of a descriptor, which was found in a document.
    pub(crate) fn digest(&self, descriptor: &Descriptor, found_in: &Path) -> Result<Digest> {
        let digest = Digest::from_oci(&descriptor.digest);
        digest.ok_or_else(|| not_a_digest(descriptor, found_in))
    }

    /// Fails if a blob is missing or does not have the size in its descriptor.
    pub(crate) fn check_size(&self, digest: &Digest, descriptor: &Descriptor) -> Result<()> {
        let wanted = descriptor.size;
        match self.blob_size(digest)? {
            Some(found) if found == wanted => Ok(()),
            Some(found) => Err(self.damaged(digest, Damage::Size { found, wanted })),
            None => {
                let path = self.blob_path(digest);
                Err(StoreError::Missing { path }.into())
            }
        }
    }
}

/// Returns the error for a descriptor whose digest is none.
pub(crate) fn not_a_digest(descriptor: &Descriptor, found_in: &Path) -> Error {
    StoreError::NotADigest {
        path: found_in.into(),
        digest: descriptor.digest.clone(),
    }
    .into()
}

/// Opens a store and finds an image of any format in it.
pub fn find_any_image(reference: &ImageRef) -> Result<(Store, AnyImage)> {
    let store = Store::open(&reference.store)?;
    let image = store.any_image(&reference.selector)?;
    Ok((store, image))
}

/// Opens a store and finds an image of format 3 in it.
pub fn find_image(reference: &ImageRef) -> Result<(Store, Image)> {
    let store = Store::open(&reference.store)?;
    let image = store.image(&reference.selector)?;
    Ok((store, image))
}

/// Finds the root of an image of any format in its store.
pub fn find_root(reference: &ImageRef) -> Result<(Store, AnyRoot)> {
    let store = Store::open(&reference.store)?;
    let root = store.any_root(&reference.selector)?;
    Ok((store, root))
}

/// The directories that lead to a store's blobs.
const BLOBS: [&str; 2] = ["blobs", "sha256"];

/// Opens the directory of the blobs. Like the kernel module, it follows no symbolic link, because
/// commands write and remove files in that directory.
fn open_blobs(path: &Path, root: &OwnedFd) -> Result<OwnedFd> {
    let [outer, inner] = BLOBS;
    let name = path.join(outer);
    let blobs = open_own(root, &name, outer)?;
    open_own(&blobs, &name.join(inner), inner)
}

fn open_directory(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}

fn read_bounded(file: File, path: &Path, max: u64) -> Result<Vec<u8>> {
    let size = file.metadata().map_or(0, |metadata| metadata.len());
    let mut bytes = Vec::new();
    // Only to read it at once: if there is not so much memory, the file may not be so long.
    let _ = bytes.try_reserve_exact(size.min(max) as usize + 1);
    file.take(max + 1)
        .read_to_end(&mut bytes)
        .map_err(Error::io(path, "read"))?;
    if bytes.len() as u64 > max {
        let path = path.into();
        return Err(StoreError::TooLarge { path, max }.into());
    }
    Ok(bytes)
}
