// SPDX-License-Identifier: MIT OR Apache-2.0

//! Encodes a tree and the extents of its files as a metadata blob.

use crate::contents::{Contents, Extent};
use crate::error::{Error, Result};
use crate::tree::{Entry, Kind, Node, Tree};
use capnp::message::{Builder, HeapAllocator};
use puzzlefs_schema::metadata_capnp as wire;
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

/// Encodes an image of one layer. `store` is for messages only.
///
/// Everything is in one segment, where it fits: the array of inodes, then what belongs to each
/// inode, in the order of their numbers, so that neighbours in the tree are neighbours in the
/// blob.
pub(crate) fn encode(tree: &Tree, contents: &Contents, store: &Path) -> Result<Encoded> {
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
    let mut message = Builder::new(
        HeapAllocator::new().first_segment_words(words(tree, contents).min(SEGMENT_MAX) as u32),
    );
    let mut rootfs = message.init_root::<wire::rootfs::Builder<'_>>();
    rootfs.set_manifest_version(MANIFEST_VERSION);
    rootfs.set_data_size(tree.data_size());
    let layer = rootfs.reborrow().init_metadatas(1).get(0);
    let mut inodes = layer.init_inodes(tree.nodes.len() as u32);
    for (at, node) in (0u32..).zip(&tree.nodes) {
        let mut inode = inodes.reborrow().get(at);
        inode.set_ino(u64::from(at) + 1);
        encode_node(inode, node, &contents.extents[at as usize]).map_err(|list| {
            too_large(&format!("{} has too many {list}", tree.path(at).display()))
        })?;
    }
    let mut verities = rootfs.init_fs_verity_data(contents.blobs.len() as u32);
    for (at, (digest, blob)) in (0..).zip(&contents.blobs) {
        let mut verity = verities.reborrow().get(at);
        verity.set_digest(digest.as_bytes());
        verity.set_verity(blob.verity.as_bytes());
    }
    let table = segment_table(&message.get_segments_for_output());
    Ok(Encoded { message, table })
}

/// Encodes one inode; fails with the name of a list that is too long.
fn encode_node(
    mut inode: wire::inode::Builder<'_>,
    node: &Node,
    extents: &[Extent],
) -> Result<(), &'static str> {
    inode.set_uid(node.uid);
    inode.set_gid(node.gid);
    inode.set_permissions(node.permissions);
    inode.set_mtime_seconds(node.mtime.seconds);
    inode.set_mtime_nanoseconds(node.mtime.nanoseconds);
    inode.set_nlink(node.nlink);
    let mut mode = inode.reborrow().init_mode();
    match &node.kind {
        Kind::File(_) => encode_extents(mode, extents)?,
        Kind::Directory(entries) => encode_entries(mode, entries)?,
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
        let mut xattrs = additional.init_xattrs(length(&node.xattrs, "extended attributes")?);
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
    let mut chunks = mode.init_file(length(extents, "chunks")?);
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

fn encode_entries(
    mode: wire::inode::mode::Builder<'_>,
    entries: &[Entry],
) -> Result<(), &'static str> {
    let mut list = mode.init_dir().init_entries(length(entries, "entries")?);
    for (at, entry) in (0..).zip(entries) {
        let mut item = list.reborrow().get(at);
        item.set_ino(u64::from(entry.node) + 1);
        item.set_name(&entry.name);
    }
    Ok(())
}

fn length<T>(list: &[T], name: &'static str) -> Result<u32, &'static str> {
    if list.len() > LIST_MAX {
        return Err(name);
    }
    Ok(list.len() as u32)
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
