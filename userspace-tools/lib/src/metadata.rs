// SPDX-License-Identifier: MIT OR Apache-2.0

//! Encodes a tree and the extents of its files as a metadata blob.

use crate::contents::{Contents, Extent};
use crate::delta::{Base, Delta};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::tree::{Kind, NodeId, Tree};
use capnp::message::{Builder, HeapAllocator, ReaderOptions};
use capnp::struct_list;
use puzzlefs_schema::metadata_capnp as wire;
use std::collections::BTreeMap;
use std::path::Path;

/// The version of the published format.
const MANIFEST_VERSION: u64 = 3;
/// The most elements of a list, and the most words of a segment, are 2^29 - 1 on the wire. No
/// struct of a list has more than 16 words.
pub(crate) const LIST_MAX: usize = (1 << 29) / 16;
/// The largest first segment, in words.
const SEGMENT_MAX: usize = 1 << 29;

/// A metadata blob in memory.
pub(crate) struct Encoded {
    message: Builder<HeapAllocator>,
    table: Vec<u8>,
}

impl Encoded {
    /// The bytes of the blob, in order.
    pub fn pieces(&self) -> Vec<&[u8]> {
        let mut pieces = vec![&self.table[..]];
        pieces.extend_from_slice(&self.message.get_segments_for_output());
        pieces
    }
}

/// A layer to encode on top of those of another image.
pub(crate) struct TopLayer<'a> {
    pub base: &'a Base<'a>,
    pub delta: &'a Delta,
    /// The inodes of the layer, ascending by number; a whiteout has no node.
    pub inodes: Vec<(u64, Option<NodeId>)>,
}

/// Encodes an image, of one layer if it is not on top of others. `store` is for messages only.
///
/// Everything is in one segment, where it fits: the array of inodes, then what belongs to each
/// inode, in the order of their numbers, so that neighbours in the tree are neighbours in the
/// blob.
pub(crate) fn encode(
    tree: &Tree,
    contents: &Contents,
    top: Option<&TopLayer<'_>>,
    store: &Path,
) -> Result<Encoded> {
    let too_large = |what: &str| {
        let what = format!("the image's metadata would be too large: {what}");
        Error::store(store, what)
    };
    if tree.nodes.len() > LIST_MAX {
        return Err(too_large("too many inodes"));
    }
    if contents.blobs.len() > LIST_MAX {
        return Err(too_large("too many blobs"));
    }
    let below = top.map_or(0, |top| top.base.reader.bytes().len() / 8);
    let words = words(tree, contents).saturating_add(below).min(SEGMENT_MAX);
    let mut message = Builder::new(HeapAllocator::new().first_segment_words(words as u32));
    let mut rootfs = message.init_root::<wire::rootfs::Builder<'_>>();
    rootfs.set_manifest_version(MANIFEST_VERSION);
    rootfs.set_data_size(tree.data_size());
    let mut verities: BTreeMap<Digest, Digest> = BTreeMap::new();
    let layers = match top {
        None => rootfs.reborrow().init_metadatas(1),
        Some(top) => copy_below(top.base, rootfs.reborrow(), &mut verities)?,
    };
    let layer = layers.get(0);
    let alone: Vec<_>;
    let list = match top {
        Some(top) => &top.inodes,
        None => {
            let ids = 0..tree.nodes.len() as NodeId;
            alone = ids.map(|id| (number(id, None), Some(id))).collect();
            &alone
        }
    };
    let mut inodes = layer.init_inodes(list.len() as u32);
    for (at, &(ino, node)) in (0u32..).zip(list) {
        let mut inode = inodes.reborrow().get(at);
        inode.set_ino(ino);
        let Some(id) = node else {
            inode.init_mode().set_wht(());
            continue;
        };
        encode_node(inode, id, tree, contents, top.map(|top| top.delta)).map_err(|list| {
            too_large(&format!("{} has too many {list}", tree.path(id).display()))
        })?;
    }
    verities.extend(
        contents
            .blobs
            .iter()
            .map(|(digest, blob)| (*digest, blob.verity)),
    );
    let mut list = rootfs.init_fs_verity_data(verities.len() as u32);
    for (at, (digest, value)) in (0..).zip(&verities) {
        let mut verity = list.reborrow().get(at);
        verity.set_digest(digest.as_bytes());
        verity.set_verity(value.as_bytes());
    }
    let table = segment_table(&message.get_segments_for_output());
    Ok(Encoded { message, table })
}

/// Puts the layers of another image beneath a place for one, and takes its fs-verity digests.
fn copy_below<'a>(
    base: &Base<'_>,
    rootfs: wire::rootfs::Builder<'a>,
    verities: &mut BTreeMap<Digest, Digest>,
) -> Result<struct_list::Builder<'a, wire::inode_vector::Owned>> {
    let mut bytes = base.reader.bytes();
    // A message may have the same list in many places, and would then grow by being copied: no
    // more is copied than it has words.
    let options = ReaderOptions {
        traversal_limit_in_words: Some(bytes.len() / 8 + 1024),
        ..ReaderOptions::new()
    };
    let copy = || {
        let message = capnp::serialize::read_message_from_flat_slice(&mut bytes, options)?;
        let below = message
            .get_root::<wire::rootfs::Reader<'_>>()?
            .get_metadatas()?;
        let mut layers = rootfs.init_metadatas(below.len() + 1);
        for (at, layer) in (1..).zip(below) {
            layers.set_with_caveats(at, layer)?;
        }
        Ok(layers)
    };
    let layers =
        copy().map_err(|error: capnp::Error| base.reader.malformed_by(error.to_string()))?;
    let metadata = base.reader.metadata();
    for index in 0..base.reader.checked(metadata.verity_len())? {
        let (blob, verity) = base.reader.checked(metadata.verity_at(index))?;
        verities.insert(Digest(*blob.as_bytes()), Digest(*verity.as_bytes()));
    }
    Ok(layers)
}

/// The inode number of a node.
fn number(node: NodeId, delta: Option<&Delta>) -> u64 {
    match delta {
        None => u64::from(node) + 1,
        Some(delta) => delta.numbers[node as usize],
    }
}

/// Encodes one inode; fails with the name of a list that is too long.
fn encode_node(
    mut inode: wire::inode::Builder<'_>,
    id: NodeId,
    tree: &Tree,
    contents: &Contents,
    delta: Option<&Delta>,
) -> Result<(), &'static str> {
    let node = &tree.nodes[id as usize];
    inode.set_uid(node.uid);
    inode.set_gid(node.gid);
    inode.set_permissions(node.permissions);
    inode.set_mtime_seconds(node.mtime.seconds);
    inode.set_mtime_nanoseconds(node.mtime.nanoseconds);
    inode.set_nlink(node.nlink);
    let mut mode = inode.reborrow().init_mode();
    match &node.kind {
        Kind::File(_) => encode_extents(mode, &contents.extents[id as usize])?,
        Kind::Directory(entries) => {
            let mut dir = mode.init_dir();
            match delta.and_then(|delta| delta.changes.get(&id)) {
                Some(changes) => {
                    dir.set_look_below(true);
                    let changes = changes.iter().map(|(name, ino)| (&**name, *ino));
                    encode_entries(dir, changes)?;
                }
                None => {
                    let entries = entries.iter();
                    let entries = entries.map(|entry| (&*entry.name, number(entry.node, delta)));
                    encode_entries(dir, entries)?;
                }
            }
        }
        Kind::Symlink(_) => mode.set_lnk(()),
        Kind::Fifo => mode.set_fifo(()),
        Kind::Socket => mode.set_sock(()),
        Kind::CharDevice(major, minor) => {
            let mut device = mode.init_chr();
            device.set_major((*major).into());
            device.set_minor((*minor).into());
        }
        Kind::BlockDevice(major, minor) => {
            let mut device = mode.init_blk();
            device.set_major((*major).into());
            device.set_minor((*minor).into());
        }
    }
    if let Kind::File(state) = &node.kind {
        inode.set_size(state.size);
    }
    let target = match &node.kind {
        Kind::Symlink(target) => Some(target),
        _ => None,
    };
    if target.is_none() && node.xattrs.is_empty() {
        return Ok(());
    }
    let mut additional = inode.init_additional();
    if let Some(target) = target {
        additional.set_symlink_target(target);
    }
    if !node.xattrs.is_empty() {
        let mut xattrs = additional.init_xattrs(length(node.xattrs.len(), "extended attributes")?);
        for (at, (key, value)) in (0..).zip(&node.xattrs) {
            let mut xattr = xattrs.reborrow().get(at);
            xattr.set_key(key);
            xattr.set_val(value);
        }
    }
    Ok(())
}

fn encode_extents(
    mode: wire::inode::mode::Builder<'_>,
    extents: &[Extent],
) -> Result<(), &'static str> {
    let mut chunks = mode.init_file(length(extents.len(), "chunks")?);
    for (at, extent) in (0..).zip(extents) {
        let mut chunk = chunks.reborrow().get(at);
        chunk.set_len(extent.length);
        let mut blob = chunk.init_blob();
        blob.set_digest(extent.blob.as_bytes());
        blob.set_offset(extent.offset);
        blob.set_compressed(extent.compressed);
    }
    Ok(())
}

fn encode_entries<'e>(
    dir: wire::dir::Builder<'_>,
    entries: impl ExactSizeIterator<Item = (&'e [u8], u64)>,
) -> Result<(), &'static str> {
    let mut list = dir.init_entries(length(entries.len(), "entries")?);
    for (at, (name, ino)) in (0..).zip(entries) {
        let mut item = list.reborrow().get(at);
        item.set_ino(ino);
        item.set_name(name);
    }
    Ok(())
}

fn length(length: usize, name: &'static str) -> Result<u32, &'static str> {
    if length > LIST_MAX {
        return Err(name);
    }
    Ok(length as u32)
}

/// The words that the encoding takes, or a few more: what is not used costs nothing.
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

/// The head of the standard stream framing: the number of segments less one and the words of
/// each, as little-endian 32-bit numbers, filled up to a word.
fn segment_table(segments: &[&[u8]]) -> Vec<u8> {
    let mut table = Vec::new();
    table.extend_from_slice(&(segments.len() as u32 - 1).to_le_bytes());
    for segment in segments {
        table.extend_from_slice(&((segment.len() / 8) as u32).to_le_bytes());
    }
    table.resize(table.len().next_multiple_of(8), 0);
    table
}
