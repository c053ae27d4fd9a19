// SPDX-License-Identifier: MIT OR Apache-2.0

//! Checks an image of format 4: its metadata chunks, the references between them, and which of its chunks
//! and packs exist.
//!
//! An image is *whole* if all its chunks exist, and *complete* if all packs of its manifest exist.

use crate::error::{Error, Result, StoreError};
use crate::image::chunk_walk::{ChunkKind, ChunkWalk};
use crate::image::image_tree::{ImageTree, TreeInode};
use crate::model::digest::Digest;
use crate::ops::report::{Fault, PackedImage, Verified};
use crate::store::chunks::reader::ChunkReader;
use crate::store::oci_layout::{AnyImage, Store};
use crate::sys::parallel::{self, into_inner, lock};
use crate::sys::progress::Progress;
use puzzlefs_schema::image::{ImageMetadata, Versions};
use puzzlefs_schema::v4::ChunkRef;
use puzzlefs_schema::FileType;
use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::sync::Mutex;

/// The chunks to read, each with an image that needs it.
pub(crate) type Chunks = HashMap<ChunkRef, String>;

/// The least bytes of metadata that an inode takes.
const INODE_BYTES: u64 = 64;
/// The least bytes of metadata that an entry or an extent takes.
const ELEMENT_BYTES: u64 = 16;

/// Checks the metadata of an image, which messages call `name`, and adds its chunks to `chunks`.
pub(crate) fn check_image(
    store: &Store,
    name: &str,
    image: &AnyImage,
    verified: &mut Verified,
    chunks: &mut Chunks,
) -> Result<()> {
    let reader = ChunkReader::new(store)?;
    let (mut refs, mut errors) = (Vec::new(), Vec::new());
    let mut metadata_bytes = 0;
    let mut seen = BTreeSet::new();
    ChunkWalk::new(&reader).image_with_faults(
        image.root.digest(),
        |chunk, kind| {
            if seen.insert(*chunk.digest()) {
                refs.push(*chunk);
                if kind == ChunkKind::Metadata {
                    metadata_bytes += u64::from(chunk.content_len());
                }
            }
        },
        |error| errors.push(error),
    );
    // A root that is missing was given to nobody.
    let mut is_whole = !refs.is_empty();
    let mut faults = BTreeSet::new();
    for chunk in refs {
        let digest = Digest::from(*chunk.digest());
        if reader.find(&digest)?.is_none() {
            is_whole = false;
            let store = store.path().to_path_buf();
            faults.insert(StoreError::ChunkMissing { store, digest }.to_string());
        } else {
            chunks.entry(chunk).or_insert_with(|| name.to_owned());
        }
    }
    if errors.is_empty() {
        Walk::new(store, image, metadata_bytes, verified)?.run(&mut faults);
    }
    faults.extend(errors.iter().map(Error::to_string));
    let image_fault = |what| Fault {
        image: Some(name.to_owned()),
        what,
    };
    verified.faults.extend(faults.into_iter().map(image_fault));
    let packs = image.manifest.layers.iter();
    let packs = packs.filter(|layer| layer.is_pack());
    let mut packed = PackedImage {
        name: name.to_owned(),
        packs: 0,
        missing_packs: 0,
        is_whole,
    };
    for pack in packs {
        packed.packs += 1;
        let digest = Digest::from_oci(&pack.digest);
        let size = digest.map(|digest| store.blob_size(&digest)).transpose()?;
        packed.missing_packs += u64::from(size.flatten().is_none());
    }
    verified.packed.push(packed);
    Ok(())
}

/// Reads chunks, several at once, and compares each with its digest and its reference.
pub(crate) fn check_chunks(
    store: &Store,
    chunks: &Chunks,
    jobs: usize,
    progress: &Progress,
    verified: &mut Verified,
) -> Result<()> {
    if chunks.is_empty() {
        return Ok(());
    }
    let reader = ChunkReader::new(store)?;
    let mut sorted: Vec<_> = chunks.iter().collect();
    sorted.sort_by_key(|(chunk, _)| *chunk.digest());
    let found = Mutex::new((Vec::new(), 0));
    parallel::for_each(jobs, &sorted, Vec::new, |content, (chunk, image)| {
        progress.check()?;
        match reader.read(chunk, content) {
            Ok(()) => lock(&found).1 += u64::from(chunk.stored_len()),
            Err(error) => lock(&found).0.push(Fault {
                image: Some((*image).clone()),
                what: error.to_string(),
            }),
        }
        Ok(())
    })?;
    let (mut faults, bytes) = into_inner(found);
    faults.sort_by(|a, b| a.what.cmp(&b.what));
    faults.retain(|fault| !verified.faults.contains(fault));
    verified.faults.extend(faults);
    verified.chunks += sorted.len() as u64;
    verified.chunk_bytes += bytes;
    Ok(())
}

/// A walk through all inodes of an image.
struct Walk<'v, 's> {
    tree: ImageTree<'s>,
    /// The numbers of inodes and of elements of lists that the metadata has room for. A hostile image can
    /// refer to a block or a list several times, and this bounds the time that it takes.
    inodes_left: u64,
    elements_left: u64,
    verified: &'v mut Verified,
}

impl<'v, 's> Walk<'v, 's> {
    fn new(
        store: &'s Store,
        image: &AnyImage,
        metadata_bytes: u64,
        verified: &'v mut Verified,
    ) -> Result<Self> {
        Ok(Walk {
            tree: ImageTree::new(store, &image.root)?,
            inodes_left: metadata_bytes / INODE_BYTES,
            elements_left: metadata_bytes / ELEMENT_BYTES,
            verified,
        })
    }

    fn run(mut self, faults: &mut BTreeSet<String>) {
        let count = match self.tree.metadata().inode_count() {
            Ok(count) => count,
            Err(error) => {
                faults.insert(error.to_string());
                return;
            }
        };
        for ino in 1..=count {
            if self.inodes_left == 0 || self.elements_left == 0 {
                let what = "malformed metadata: the image uses blocks or lists several times";
                faults.insert(what.to_owned());
                return;
            }
            self.inodes_left -= 1;
            if let Err(error) = self.inode(ino) {
                faults.insert(format!("inode {ino}: {error}"));
            }
        }
    }

    /// Reads everything of an inode.
    fn inode(&mut self, ino: u64) -> Result<()> {
        let inode = self.tree.open_number(ino)?;
        self.verified.inodes += 1;
        self.tree.xattrs(&inode)?;
        match self.tree.stat(&inode)?.file_type() {
            FileType::Dir => self.directory(&inode),
            FileType::File => self.file(&inode),
            FileType::Symlink => self.tree.symlink_target(&inode).map(drop),
            _ => Ok(()),
        }
    }

    fn directory(&mut self, directory: &TreeInode) -> Result<()> {
        let metadata = self.tree.metadata();
        let mut left = self.elements_left;
        let mut first = Ok(());
        let _ = metadata.for_each_entry(directory, 0, |entry| {
            if left == 0 {
                return ControlFlow::Break(());
            }
            left -= 1;
            // The entry's type is that of the inode.
            if let Err(error) = metadata.open(&entry.link) {
                first = Err(error);
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        self.elements_left = left;
        if let Some(parent) = metadata.parent(directory)? {
            metadata.open(&parent)?;
        }
        first
    }

    fn file(&mut self, file: &TreeInode) -> Result<()> {
        let (Some(tree), Versions::V4(file)) = (self.tree.v4(), file) else {
            return Ok(());
        };
        let mut left = self.elements_left;
        let mut extents = 0;
        let _ = tree.for_each_extent(file, 0, |_| {
            if left == 0 {
                return ControlFlow::Break(());
            }
            left -= 1;
            extents += 1;
            ControlFlow::<()>::Continue(())
        })?;
        self.verified.extents += extents;
        self.elements_left = left;
        Ok(())
    }
}
