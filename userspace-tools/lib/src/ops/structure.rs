// SPDX-License-Identifier: MIT OR Apache-2.0

//! Checks the manifest and the metadata of an image: each inode of each layer, its parts, and the
//! sizes of the blobs that extents refer to.
//!
//! Of the contents of blobs, only the seek tables of compressed ones are read here.

use crate::error::Result;
use crate::image::seekable::Decoder;
use crate::image::v3::reader::ImageReader;
use crate::model::digest::Digest;
use crate::model::oci::Descriptor;
use crate::model::reference::Selector;
use crate::ops::chunk_check::{self, Chunks};
use crate::ops::report::{Fault, Verified};
use crate::store::oci_layout::{AnyImage, AnyRoot, Image, Store};
use puzzlefs_schema::{
    Chunk, DirLayer, ErrorKind, FileType, Inode, Locator, Metadata, Order, ROOT_INO,
};
use std::collections::{BTreeMap, HashMap, HashSet};

/// The most bytes of paths kept to name inodes by: beyond, faults have their numbers alone. In a
/// tree that is deep enough, the paths of all inodes are far longer than the metadata.
const PATHS_MAX: usize = 16 << 20;

/// The checks that a blob needs.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    /// The sizes that it is said to have.
    pub sizes: Vec<(u64, String)>,
    /// The fs-verity digests that it is said to have, and by which image.
    pub verities: Vec<(Digest, String)>,
    /// It is read as a compressed blob.
    pub compressed: bool,
}

/// The blobs to look at.
pub(crate) type Blobs = BTreeMap<Digest, Wanted>;

/// The lengths of the raw and of the decompressed contents of a blob. None if it is not known because
/// of a fault, which is reported elsewhere.
#[derive(Clone, Copy)]
struct Lengths {
    raw: Option<u64>,
    /// None until it was wanted.
    content: Option<Option<u64>>,
}

/// Checks one image after the other.
pub(crate) struct Checker<'a> {
    pub store: &'a Store,
    pub verified: &'a mut Verified,
    pub blobs: &'a mut Blobs,
    /// The chunks of images of format 4.
    pub chunks: Chunks,
    lengths: HashMap<Digest, Lengths>,
}

impl<'a> Checker<'a> {
    pub fn new(store: &'a Store, verified: &'a mut Verified, blobs: &'a mut Blobs) -> Self {
        Checker {
            store,
            verified,
            blobs,
            chunks: Chunks::new(),
            lengths: HashMap::new(),
        }
    }

    /// Checks the image that a selector finds, which messages call `name`.
    pub fn image(&mut self, name: &str, selector: &Selector) {
        self.verified.images += 1;
        match self.store.any_image(selector) {
            Ok(image) if matches!(image.root, AnyRoot::V4(_)) => return self.packed(name, &image),
            _ => {}
        }
        let image = match self.store.image(selector) {
            Ok(image) => image,
            Err(error) => return self.fault(name, error.to_string()),
        };
        let listed = self.manifest(name, &image);
        match ImageReader::new(self.store, &image) {
            Ok(reader) => Walk {
                name,
                reader: &reader,
                listed,
                told: HashSet::new(),
                faults: Vec::new(),
                left: reader.entries_max(),
                checker: self,
            }
            .run(),
            Err(error) => self.fault(name, error.to_string()),
        }
    }

    /// Checks an image of format 4. Its packs need not exist.
    fn packed(&mut self, name: &str, image: &AnyImage) {
        self.blobs.entry(*image.root.manifest_digest()).or_default();
        let layers = image.manifest.layers.iter();
        for blob in layers.chain([&image.manifest.config]) {
            let digest = Digest::from_oci(&blob.digest);
            let is_missing = digest.is_some_and(|d| matches!(self.store.blob_size(&d), Ok(None)));
            if !blob.is_pack() || !is_missing {
                self.descriptor(name, blob);
            }
        }
        let (verified, chunks) = (&mut *self.verified, &mut self.chunks);
        let checked = chunk_check::check_image(self.store, name, image, verified, chunks);
        if let Err(error) = checked {
            self.fault(name, error.to_string());
        }
    }

    /// Notes the blobs that a manifest names.
    fn manifest(&mut self, name: &str, image: &Image) -> HashSet<Digest> {
        let mut listed = HashSet::new();
        self.blobs.entry(image.manifest_digest).or_default();
        let layers = image.manifest.layers.iter();
        for blob in layers.chain([&image.manifest.config]) {
            if let Some(digest) = self.descriptor(name, blob) {
                listed.insert(digest);
            }
        }
        match image.rootfs_verity {
            Some(verity) => {
                let wanted = self.blobs.entry(image.rootfs).or_default();
                wanted.verities.push((verity, name.to_owned()));
            }
            None => {
                let what = "the manifest has no fs-verity digest for the metadata blob";
                self.fault(name, what.to_owned());
            }
        }
        listed
    }

    fn descriptor(&mut self, name: &str, blob: &Descriptor) -> Option<Digest> {
        let Some(digest) = Digest::from_oci(&blob.digest) else {
            let digest = blob.digest.escape_default();
            self.fault(
                name,
                format!("the manifest names '{digest}', not a sha256 digest"),
            );
            return None;
        };
        let wanted = self.blobs.entry(digest).or_default();
        if wanted.sizes.iter().all(|(size, _)| *size != blob.size) {
            wanted.sizes.push((blob.size, name.to_owned()));
        }
        Some(digest)
    }

    fn fault(&mut self, name: &str, what: String) {
        self.verified.faults.push(Fault {
            image: Some(name.to_owned()),
            what,
        });
    }

    /// Returns the lengths of a blob.
    fn lengths(&mut self, digest: Digest, compressed: bool) -> Lengths {
        let store = self.store;
        let lengths = self.lengths.entry(digest).or_insert_with(|| Lengths {
            raw: store.blob_size(&digest).ok().flatten(),
            content: None,
        });
        if compressed && lengths.content.is_none() {
            let blob = store.open_blob(&digest).ok();
            let decoder = blob.and_then(|blob| Decoder::new(&blob).ok());
            lengths.content = Some(decoder.map(|decoder| decoder.content_len()));
        }
        *lengths
    }
}

/// The check of one image's metadata.
struct Walk<'w, 'a, 'r> {
    name: &'w str,
    reader: &'r ImageReader<'r>,
    /// The blobs that the manifest lists.
    listed: HashSet<Digest>,
    /// The blobs that have a fault which is reported once.
    told: HashSet<Digest>,
    /// The faults, and the inodes that have them.
    faults: Vec<(Option<u64>, String)>,
    /// The number of further elements of lists that the metadata has room for. Lists may be shared, and
    /// this bounds the time that a hostile image takes.
    left: usize,
    checker: &'w mut Checker<'a>,
}

impl<'r> Walk<'_, '_, 'r> {
    fn run(mut self) {
        let metadata = self.reader.metadata();
        if let Err(error) = self.verities(metadata).and_then(|()| self.inodes(metadata)) {
            self.schema(error);
        }
        // If directories have faults, going through the tree would find them again.
        let faulty: HashSet<u64> = self.faults.iter().filter_map(|(ino, _)| *ino).collect();
        let paths = match self.tree(&faulty) {
            Ok(paths) => paths,
            Err(error) => {
                if faulty.is_empty() {
                    self.faults.push((None, error.to_string()));
                }
                HashMap::new()
            }
        };
        for (ino, what) in self.faults {
            let path = ino.and_then(|ino| paths.get(&ino));
            let what = match path {
                Some(path) => format!("{what} ({})", path.escape_ascii()),
                None => what,
            };
            self.checker.fault(self.name, what);
        }
    }

    fn schema(&mut self, error: puzzlefs_schema::Error) {
        self.faults
            .push((error.ino(), format!("malformed metadata: {error}")));
    }

    fn inode_fault(&mut self, ino: u64, what: String) {
        self.faults
            .push((Some(ino), format!("inode {ino}: {what}")));
    }

    /// Notes a result that is wanted for its error alone.
    fn note<T>(&mut self, result: puzzlefs_schema::Result<T>) -> Option<T> {
        result.map_err(|error| self.schema(error)).ok()
    }

    /// Takes a number of elements of lists from the number that is left.
    fn take(&mut self, elements: usize) -> puzzlefs_schema::Result<()> {
        self.left = self
            .left
            .checked_sub(elements)
            .ok_or(ErrorKind::ListTooLong)?;
        Ok(())
    }

    /// The fs-verity digests of the data blobs.
    fn verities(&mut self, metadata: Metadata<'r>) -> puzzlefs_schema::Result<()> {
        let mut last = None;
        for index in 0..metadata.verity_len()? {
            let Some((blob, verity)) = self.note(metadata.verity_at(index)) else {
                continue;
            };
            if last >= Some(blob) {
                self.schema(ErrorKind::VerityOrder.into());
            }
            last = Some(blob);
            let wanted = self
                .checker
                .blobs
                .entry(Digest(*blob.as_bytes()))
                .or_default();
            let verity = Digest(*verity.as_bytes());
            if wanted.verities.iter().all(|(known, _)| *known != verity) {
                wanted.verities.push((verity, self.name.to_owned()));
            }
        }
        Ok(())
    }

    /// All inodes of all layers.
    fn inodes(&mut self, metadata: Metadata<'r>) -> puzzlefs_schema::Result<()> {
        for layer in 0..metadata.layers()? {
            let mut last: Option<(u64, bool)> = None;
            for index in 0..metadata.layer_len(layer)? {
                self.checker.verified.inodes += 1;
                let at = Locator { layer, index };
                let Some(inode) = self.note(metadata.inode_at(at)) else {
                    continue;
                };
                let ino = inode.ino();
                // The reference builder has a whiteout and the inode itself where one of several
                // links was removed.
                let in_order = match last {
                    Some((last, whiteout)) => last < ino || (last == ino && whiteout),
                    None => true,
                };
                if !in_order {
                    let what = "stands after an inode of no smaller number, and will not be found";
                    self.inode_fault(ino, what.to_owned());
                }
                last = Some((ino, inode.file_type() == FileType::Whiteout));
                self.inode(metadata, &inode)?;
            }
        }
        Ok(())
    }

    /// Checks the parts of one inode. The error ends the check of the image.
    fn inode(&mut self, metadata: Metadata<'r>, inode: &Inode<'r>) -> puzzlefs_schema::Result<()> {
        self.note(inode.mtime());
        if let Some(xattrs) = self.note(inode.xattrs()) {
            self.take(xattrs.len())?;
            for xattr in xattrs.iter() {
                self.note(xattr);
            }
        }
        match inode.file_type() {
            FileType::File => self.file(inode),
            FileType::Dir => match self.note(inode.dir()) {
                Some(dir) => self.dir(metadata, &dir),
                None => Ok(()),
            },
            FileType::Symlink => {
                self.note(inode.symlink_target());
                Ok(())
            }
            FileType::Unknown => {
                self.inode_fault(inode.ino(), "it is of no known type".to_owned());
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn file(&mut self, inode: &Inode<'r>) -> puzzlefs_schema::Result<()> {
        let Some(extents) = self.note(inode.extents()) else {
            return Ok(());
        };
        self.take(extents.len())?;
        self.checker.verified.extents += extents.len() as u64;
        let mut whole = true;
        for index in 0..extents.len() {
            match self.note(extents.get(index)) {
                Some(chunk) => self.extent(inode.ino(), &chunk),
                None => whole = false,
            }
        }
        // Otherwise it would only say again what was said.
        if whole {
            self.note(extents.index(&mut []));
        }
        Ok(())
    }

    /// Checks that an extent lies in its blob.
    fn extent(&mut self, ino: u64, chunk: &Chunk) {
        let digest = Digest(*chunk.blob.as_bytes());
        self.checker.blobs.entry(digest).or_default().compressed |= chunk.compressed;
        if self.told.insert(digest) {
            if !self.listed.contains(&digest) {
                let what = format!("blob {digest}: the manifest does not list it");
                self.inode_fault(ino, what);
            }
            let verity = self.reader.metadata().verity(&chunk.blob);
            if verity.is_ok_and(|verity| verity.is_none()) {
                let what = format!("blob {digest}: the metadata has no fs-verity digest for it");
                self.inode_fault(ino, what);
            }
        }
        let lengths = self.checker.lengths(digest, chunk.compressed);
        let length = if chunk.compressed {
            lengths.content.flatten()
        } else {
            lengths.raw
        };
        // The reader of extents has made sure that this does not overflow.
        let end = chunk.blob_offset.saturating_add(chunk.len);
        if let Some(length) = length.filter(|length| end > *length) {
            let what =
                format!("an extent ends at {end} of blob {digest}, which has {length} bytes");
            self.inode_fault(ino, what);
        }
    }

    /// One layer's part of a directory.
    fn dir(&mut self, metadata: Metadata<'r>, dir: &DirLayer<'r>) -> puzzlefs_schema::Result<()> {
        self.take(dir.len())?;
        let mut whole = true;
        for index in 0..dir.len() {
            let Some(entry) = self.note(dir.entry(index)) else {
                whole = false;
                continue;
            };
            if let Err(error) = metadata.find(entry.ino) {
                if error.kind() == ErrorKind::NotFound {
                    let (name, ino) = (entry.name.escape_ascii(), entry.ino);
                    self.inode_fault(
                        dir.ino(),
                        format!("entry '{name}' is for inode {ino}, which no layer has"),
                    );
                } else if error.kind() != ErrorKind::Whiteout {
                    self.schema(error);
                }
            }
        }
        if whole && self.note(dir.order()) == Some(Order::Unsorted) {
            self.note(dir.sort_index(&mut vec![0; dir.len()]));
        }
        Ok(())
    }

    /// Checks that the directories form a tree, and the link counts. Returns the paths of the wanted
    /// inodes.
    fn tree(&mut self, wanted: &HashSet<u64>) -> Result<HashMap<u64, Vec<u8>>> {
        let reader = self.reader;
        let root = reader.checked(reader.metadata().find(ROOT_INO))?;
        let mut paths = HashMap::from([(ROOT_INO, b"/".to_vec())]);
        // Where each inode is, and the links to it that were seen. A directory has one of its own,
        // and the root one that is in no directory.
        let mut links: HashMap<u64, (Locator, u32)> = HashMap::from([(ROOT_INO, (root, 2))]);
        // The directories on the way down, and the lengths of their paths.
        let mut way = vec![(ROOT_INO, 0)];
        let mut room = PATHS_MAX;
        reader.visit(root, |path, entry| {
            let parent = path.len().saturating_sub(entry.name.len() + 1);
            while way.last().is_some_and(|(_, length)| *length > parent) {
                way.pop();
            }
            let own = links.entry(entry.ino).or_insert((entry.at, 0));
            own.1 = own.1.saturating_add(1);
            if entry.file_type == FileType::Dir {
                own.1 = own.1.saturating_add(1);
                if let Some(parent) = way.last().and_then(|(ino, _)| links.get_mut(ino)) {
                    parent.1 = parent.1.saturating_add(1);
                }
                way.push((entry.ino, path.len()));
            }
            if wanted.contains(&entry.ino) && path.len() <= room {
                room -= path.len();
                paths.entry(entry.ino).or_insert_with(|| path.to_vec());
            }
            Ok(())
        })?;
        let mut links: Vec<_> = links.into_iter().collect();
        links.sort_unstable_by_key(|(ino, _)| *ino);
        for (ino, (at, found)) in links {
            let inode = reader.checked(reader.metadata().inode_at(at))?;
            if let Some(said) = inode.nlink().filter(|said| *said != found) {
                self.inode_fault(
                    ino,
                    format!("it says that it has {said} links, and has {found}"),
                );
            }
        }
        Ok(paths)
    }
}
