// SPDX-License-Identifier: MIT OR Apache-2.0

//! Encodes a tree and the extents of its files as a metadata blob.
//!
//! | module | content |
//! | --- | --- |
//! | `copy` | copies the layers of another image |
//! | `structures` | structures of the metadata |

mod copy;
mod structures;

use crate::build::contents::Contents;
use crate::build::delta::{Delta, TopLayer};
use crate::error::{BuildError, Error, Result};
use crate::image::encoding::{At, Message, TooLarge};
use crate::model::digest::Digest;
use crate::model::extent::Extent;
use crate::model::limits::LIST_MAX;
use crate::model::tree::{Kind, Node, NodeId, Tree};
use std::collections::BTreeMap;
use std::path::Path;
use structures::{
    put_additional, put_chunk, put_device, put_dir, InodeRecord, Mode, DIR_ENTRY, FILE_CHUNK,
    INODE, INODE_VECTOR, ROOTFS, VERITY_DATA, XATTR,
};

/// The version of the published format.
const MANIFEST_VERSION: u64 = 3;

/// Encodes an image, of one layer unless it is on top of others. `store` is for messages only.
///
/// Everything is in one segment: the array of inodes, then the data of each inode, in the order of
/// their numbers, so that neighbours in the tree are neighbours in the blob. A digest, a name or a
/// value that is in the blob already is not added again.
pub(crate) fn encode(
    tree: &Tree,
    contents: &Contents,
    top: Option<&TopLayer<'_>>,
    store: &Path,
) -> Result<Vec<u8>> {
    let too_large = |what| {
        let store = store.to_path_buf();
        Error::from(BuildError::MetadataTooLarge { store, what })
    };
    if tree.nodes.len() > LIST_MAX {
        return Err(too_large("too many inodes"));
    }
    if contents.blobs.len() > LIST_MAX {
        return Err(too_large("too many blobs"));
    }
    let segment = |TooLarge| too_large("more than 4 GiB");
    let below = top.map_or(0, |top| top.base.reader.bytes().len() / 8);
    let words = words(tree, contents).saturating_add(below);
    let (mut message, rootfs) = Message::new(ROOTFS, words).map_err(segment)?;
    message.set(rootfs, MANIFEST_VERSION);
    message.set(rootfs + 1, tree.data_size());
    let metadatas = rootfs + ROOTFS.data;
    let (layer, mut verities) = match top {
        None => {
            let layers = message.list(metadatas, 1, INODE_VECTOR);
            (layers.map_err(segment)?, BTreeMap::new())
        }
        Some(top) => {
            let layers = copy::layers(top.base, &mut message, metadatas);
            let layers = layers.map_err(|error| error.explain(top.base, segment))?;
            (layers, copy::verities(top.base)?)
        }
    };
    let blobs = contents.blobs.iter();
    verities.extend(blobs.map(|(digest, blob)| (*digest, blob.verity)));
    let mut encoder = TreeEncoder {
        message,
        tree,
        contents,
        delta: top.map(|top| top.delta),
    };
    encoder.layer(layer, top).map_err(segment)?;
    encoder
        .verities(metadatas + 1, &verities)
        .map_err(segment)?;
    Ok(encoder.message.finish())
}

/// Encodes a tree, or its difference from another one.
struct TreeEncoder<'a> {
    message: Message,
    tree: &'a Tree,
    contents: &'a Contents,
    /// The changes, if the tree is on top of another.
    delta: Option<&'a Delta>,
}

impl TreeEncoder<'_> {
    /// Encodes the inodes of a layer.
    fn layer(&mut self, layer: At, top: Option<&TopLayer<'_>>) -> Result<(), TooLarge> {
        let alone: Vec<_>;
        let list = match top {
            Some(top) => &top.inodes,
            None => {
                let ids = 0..self.tree.nodes.len() as NodeId;
                alone = ids.map(|id| (self.number(id), Some(id))).collect();
                &alone
            }
        };
        let inodes = self.message.list(layer, list.len(), INODE)?;
        for (at, &(ino, node)) in list.iter().enumerate() {
            let at = inodes + at * INODE.words();
            match node {
                Some(id) => self.node(at, ino, id)?,
                None => {
                    let whiteout = InodeRecord {
                        ino,
                        mode: Mode::Whiteout,
                        ..InodeRecord::default()
                    };
                    whiteout.put(&mut self.message, at);
                }
            }
        }
        Ok(())
    }

    /// Returns the inode number of a node.
    fn number(&self, node: NodeId) -> u64 {
        match self.delta {
            None => u64::from(node) + 1,
            Some(delta) => delta.numbers[node as usize],
        }
    }

    /// Encodes one inode.
    fn node(&mut self, at: At, ino: u64, id: NodeId) -> Result<(), TooLarge> {
        let (tree, contents) = (self.tree, self.contents);
        let node = &tree.nodes[id as usize];
        let to = record(ino, node).put(&mut self.message, at);
        match &node.kind {
            Kind::File(_) => self.extents(to.mode, &contents.extents[id as usize])?,
            Kind::Directory(entries) => {
                let changes = self.delta.and_then(|delta| delta.changes.get(&id));
                if let Some(changes) = changes {
                    let changes = changes.iter().map(|(name, ino)| (&**name, *ino));
                    self.entries(to.mode, changes, true)?;
                } else {
                    let numbers: Vec<_> = entries
                        .iter()
                        .map(|entry| self.number(entry.node))
                        .collect();
                    let names = entries.iter().map(|entry| &*entry.name);
                    self.entries(to.mode, names.zip(numbers), false)?;
                }
            }
            &Kind::CharDevice(major, minor) | &Kind::BlockDevice(major, minor) => {
                put_device(&mut self.message, to.mode, major.into(), minor.into())?;
            }
            Kind::Symlink(_) | Kind::Fifo | Kind::Socket => {}
        }
        self.additional(to.additional, node)
    }

    fn entries<'e>(
        &mut self,
        at: At,
        entries: impl ExactSizeIterator<Item = (&'e [u8], u64)>,
        look_below: bool,
    ) -> Result<(), TooLarge> {
        let list = put_dir(&mut self.message, at, entries.len(), look_below)?;
        for (at, (name, ino)) in entries.enumerate() {
            let at = list + at * DIR_ENTRY.words();
            self.message.set(at, ino);
            self.message.data(at + 1, name)?;
        }
        Ok(())
    }

    fn extents(&mut self, at: At, extents: &[Extent]) -> Result<(), TooLarge> {
        let list = self.message.list(at, extents.len(), FILE_CHUNK)?;
        for (at, extent) in extents.iter().enumerate() {
            let at = list + at * FILE_CHUNK.words();
            let (offset, compressed) = (extent.offset, extent.compressed);
            let digest = put_chunk(&mut self.message, at, extent.length, offset, compressed)?;
            self.message.data(digest, extent.blob.as_bytes())?;
        }
        Ok(())
    }

    /// Encodes the target of a symbolic link, and the extended attributes.
    fn additional(&mut self, at: At, node: &Node) -> Result<(), TooLarge> {
        let target = match &node.kind {
            Kind::Symlink(target) => &target[..],
            _ => &[],
        };
        let has_xattrs = !node.xattrs.is_empty();
        let to = put_additional(&mut self.message, at, has_xattrs, !target.is_empty())?;
        if let Some(to) = to.target {
            self.message.data(to, target)?;
        }
        if let Some(to) = to.xattrs {
            let list = self.message.list(to, node.xattrs.len(), XATTR)?;
            for (at, (key, value)) in node.xattrs.iter().enumerate() {
                let at = list + at * XATTR.words();
                self.message.data(at, key)?;
                self.message.data(at + 1, value)?;
            }
        }
        Ok(())
    }

    /// Encodes the fs-verity digests of blobs.
    fn verities(&mut self, at: At, verities: &BTreeMap<Digest, Digest>) -> Result<(), TooLarge> {
        let list = self.message.list(at, verities.len(), VERITY_DATA)?;
        for (at, (digest, value)) in verities.iter().enumerate() {
            let at = list + at * VERITY_DATA.words();
            self.message.data(at, digest.as_bytes())?;
            self.message.data(at + 1, value.as_bytes())?;
        }
        Ok(())
    }
}

/// Returns the fixed part of an inode.
fn record(ino: u64, node: &Node) -> InodeRecord {
    InodeRecord {
        ino,
        mode: match &node.kind {
            Kind::File(_) => Mode::File,
            Kind::Directory(_) => Mode::Directory,
            Kind::Symlink(_) => Mode::Symlink,
            Kind::Fifo => Mode::Fifo,
            Kind::Socket => Mode::Socket,
            Kind::CharDevice(..) => Mode::CharDevice,
            Kind::BlockDevice(..) => Mode::BlockDevice,
        },
        uid: node.uid,
        gid: node.gid,
        permissions: node.permissions,
        mtime_seconds: node.mtime.seconds,
        mtime_nanoseconds: node.mtime.nanoseconds,
        size: match &node.kind {
            Kind::File(state) => state.size,
            _ => 0,
        },
        nlink: node.nlink,
    }
}

/// Returns the number of words that the encoding takes, or a few more: unused room costs nothing.
fn words(tree: &Tree, contents: &Contents) -> usize {
    let data = |bytes: usize| bytes.div_ceil(8);
    let nodes = tree.nodes.iter().zip(&contents.extents);
    let nodes = nodes.map(|(node, extents)| {
        let xattrs = node.xattrs.iter();
        let xattrs = xattrs.map(|(key, value)| 4 + data(key.len()) + data(value.len()));
        let kind = match &node.kind {
            Kind::Directory(entries) => {
                let entries = entries.iter().map(|entry| 4 + data(entry.name.len()));
                4 + entries.sum::<usize>()
            }
            Kind::Symlink(target) => data(target.len()),
            _ => 4,
        };
        24 + xattrs.sum::<usize>() + kind + 12 * extents.len()
    });
    64 + nodes.sum::<usize>() + 12 * contents.blobs.len()
}
