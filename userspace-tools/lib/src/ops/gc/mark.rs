// SPDX-License-Identifier: MIT OR Apache-2.0

//! Marking: the blobs and the chunks that images need.

use crate::error::{CommandError, Result};
use crate::image::chunk_walk::ChunkWalk;
use crate::image::v3::reader::ImageReader;
use crate::model::digest::Digest;
use crate::model::oci;
use crate::model::reference::Selector;
use crate::mount;
use crate::store::chunks::reader::ChunkReader;
use crate::store::graph;
use crate::store::oci_layout::Store;
use crate::sys::mounts::Mount;
use puzzlefs_schema::v4::RootLayout;
use puzzlefs_schema::{FileType, Locator};
use std::collections::{HashMap, HashSet};
use std::os::unix::ffi::OsStrExt;

/// The blobs and the chunks that images need.
#[derive(Debug, Default)]
pub(super) struct Needed {
    /// The blobs, without packs.
    pub blobs: HashSet<Digest>,
    /// The chunks of images of format 4.
    pub chunks: HashSet<Digest>,
    /// The packs that manifests list, and the names of the images.
    pub listed: HashMap<Digest, Vec<String>>,
}

impl Needed {
    /// Returns true if an image needs a blob, or a chunk that may be a file of that name.
    pub fn is_needed(&self, blob: &Digest) -> bool {
        self.blobs.contains(blob) || self.chunks.contains(blob)
    }
}

/// A mark in progress.
pub(super) struct Marker<'r, 's> {
    store: &'s Store,
    reader: &'r ChunkReader<'s>,
    walk: ChunkWalk<'r, 's>,
    pub needed: Needed,
}

/// Returns the blobs and chunks that are needed. Fails if they cannot be known for certain.
pub(super) fn mark(store: &Store) -> Result<Needed> {
    // A store without an index looks as if it had no images.
    let index = store.path.join("index.json");
    if !index.exists() && !store.list_blobs()?.0.is_empty() {
        return Err(CommandError::NoIndex { path: index }.into());
    }
    let (roots, mut causes) = graph::roots(store, store.known_index()?);
    let reader = ChunkReader::new(store)?;
    let mut marker = Marker::new(store, &reader);
    for root in roots {
        let name = root.name();
        for pack in root.packs.keys() {
            let images = marker.needed.listed.entry(*pack).or_default();
            images.push(name.clone());
        }
        let blobs = root.blobs.into_keys();
        let blobs = blobs.filter(|blob| !root.packs.contains_key(blob));
        marker.needed.blobs.extend(blobs);
        causes.extend(root.errors);
        for manifest in root.images {
            let marked = store
                .image(&Selector::Manifest(manifest))
                .and_then(|image| ImageReader::new(store, &image))
                .and_then(|reader| mark_blobs(&reader, &mut marker.needed.blobs));
            causes.extend(marked.err());
        }
        for manifest in root.packed {
            causes.extend(marker.packed_image(&manifest).err());
        }
    }
    for mount in Mount::all() {
        causes.extend(marker.mounted(&mount).err());
    }
    // A damaged index can hide the root of a mounted image.
    let needed = marker.needed;
    causes.extend(reader.index_damage());
    if causes.is_empty() {
        return Ok(needed);
    }
    let store = store.path.clone();
    Err(CommandError::NeedsUnknown { store, causes }.into())
}

impl<'r, 's> Marker<'r, 's> {
    pub fn new(store: &'s Store, reader: &'r ChunkReader<'s>) -> Self {
        Marker {
            store,
            reader,
            walk: ChunkWalk::new(reader),
            needed: Needed::default(),
        }
    }

    /// Marks the chunks of an image of format 4.
    fn chunks(&mut self, root: &Digest) -> Result<()> {
        let chunks = &mut self.needed.chunks;
        self.walk.image(root, |chunk, _| {
            chunks.insert(Digest::from(*chunk.digest()));
        })
    }

    /// Marks the chunks of the image of a manifest. Returns false if that has another format.
    fn packed_image(&mut self, manifest: &Digest) -> Result<bool> {
        let (document, _) = self.store.manifest(manifest)?;
        let Some(hex) = document.annotations.get(oci::ROOT) else {
            let has_packs = document.layers.iter().any(|l| l.is_pack());
            if has_packs {
                let path = self.store.blob_path(manifest);
                return Err(CommandError::NoRoot { path }.into());
            }
            return Ok(false);
        };
        let Some(root) = Digest::from_hex(hex.as_bytes()) else {
            let path = self.store.blob_path(manifest);
            return Err(CommandError::NoRoot { path }.into());
        };
        self.chunks(&root)?;
        Ok(true)
    }

    /// Marks the blobs of a mounted image of this store. Options of the kernel module's mounts name the
    /// metadata blob or the root; the sources of mounts over FUSE and of writable mounts name the
    /// manifest.
    ///
    /// Without `/proc` there are no mounts to mark. This protects mounts as far as they are known.
    pub fn mounted(&mut self, mount: &Mount) -> Result<()> {
        match &*mount.fs_type {
            mount::TYPE => {
                let rootfs = mount.option("rootfs");
                match rootfs.and_then(|hex| Digest::from_hex(hex.as_bytes())) {
                    Some(rootfs) => self.mounted_rootfs(&rootfs),
                    None => Ok(()),
                }
            }
            // Any user can give a mount over FUSE such a name, so a name without an image here is
            // ignored.
            mount::FUSE_TYPE | "overlay" => {
                let Some(manifest) = mount::manifest_of(&mount.source) else {
                    return Ok(());
                };
                if self.store.manifest(&manifest).is_err() {
                    return Ok(());
                }
                self.needed.blobs.insert(manifest);
                if self.packed_image(&manifest)? {
                    return Ok(());
                }
                match self.store.image(&Selector::Manifest(manifest)) {
                    Ok(image) => self.mounted_rootfs(&image.rootfs),
                    Err(_) => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    /// Marks an image by its metadata blob or its root, if this store has that.
    fn mounted_rootfs(&mut self, rootfs: &Digest) -> Result<()> {
        let is_root = self.reader.find(rootfs)?.is_some()
            && self
                .reader
                .root(rootfs)
                .is_ok_and(|(_, content)| RootLayout::check(&content).is_ok());
        match self.store.blob_size(rootfs)? {
            _ if is_root => self.chunks(rootfs),
            Some(size) => {
                self.needed.blobs.insert(*rootfs);
                let reader = ImageReader::of_rootfs(self.store, rootfs, size)?;
                mark_blobs(&reader, &mut self.needed.blobs)
            }
            None => Ok(()),
        }
    }
}

/// Marks the blobs with the contents of an image's files. Its manifest should list the same.
fn mark_blobs(reader: &ImageReader<'_>, needed: &mut HashSet<Digest>) -> Result<()> {
    let mut mark = || {
        let metadata = reader.metadata();
        for layer in 0..metadata.layers()? {
            for index in 0..metadata.layer_len(layer)? {
                let inode = metadata.inode_at(Locator { layer, index })?;
                if inode.file_type() == FileType::File {
                    for extent in inode.extents()?.iter_from(0, 0) {
                        needed.insert(Digest(*extent?.1.blob.as_bytes()));
                    }
                }
            }
        }
        Ok(())
    };
    reader.checked(mark())
}
