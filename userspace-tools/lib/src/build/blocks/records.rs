// SPDX-License-Identifier: MIT OR Apache-2.0

//! The structures of `schema/v4/metadata.capnp` in words, as the schema's compiler lays them out.

use crate::build::blocks::extent::{ExtentData, FileExtent};
use crate::image::encoding::Size;
use crate::model::tree::{Kind, Node};
use puzzlefs_schema::v4::{ChunkRef, InodeRef, InodeType, HOLE, VERSION};

/// The sizes of the messages' roots.
pub(super) const ROOT: Size = size(3, 1);
pub(super) const BLOCK_LIST: Size = size(1, 1);
pub(super) const BLOCK: Size = size(1, 8);
pub(super) const LIST_BLOCK: Size = size(1, 5);

/// The words of the lists' elements.
pub(super) type Child = [u64; 6];
pub(super) type Inode = [u64; 7];
pub(super) type Entry = [u64; 2];
pub(super) type Extent = [u64; 2];
pub(super) type Chunk = [u64; 5];
pub(super) type Part = [u64; 3];
pub(super) type Set = [u64; 1];
pub(super) type Attribute = [u64; 2];

const fn size(data: usize, pointers: usize) -> Size {
    Size { data, pointers }
}

/// Joins two halves to a word.
const fn word(low: u32, high: u32) -> u64 {
    low as u64 | ((high as u64) << 32)
}

/// The kind of a message, with the values that only messages of this kind have.
#[derive(Clone, Copy, Debug)]
pub(super) enum Header {
    Root { level: u8 },
    BlockList,
    Block,
    ListBlock { of: InodeType, level: u8 },
}

impl Header {
    /// Returns the first word of the message's root.
    pub fn word(self) -> u64 {
        let (kind, rest) = match self {
            Header::Root { level } => (1, u32::from(level)),
            Header::BlockList => (2, 0),
            Header::Block => (3, 0),
            Header::ListBlock { of, level } => (4, u32::from_le_bytes([of.code(), level, 0, 0])),
        };
        word(u32::from(VERSION) | (kind << 16), rest)
    }
}

/// A range of a list or of the pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Range {
    pub first: u32,
    pub count: u32,
}

/// The fields of an inode that depend on its place.
pub(super) struct InodeFields {
    pub range: Range,
    /// The range lies in the parts.
    pub long: bool,
    /// 1 plus the number of the attribute set, or 0.
    pub set: u32,
    /// The parent of a directory.
    pub parent: InodeRef,
}

pub(super) fn inode(node: &Node, fields: &InodeFields) -> Inode {
    let mode = (u16::from(inode_type(node).code()) << 12) | (node.permissions & 0o7777);
    let size = match node.kind {
        Kind::File(ref state) => state.size,
        Kind::CharDevice(major, minor) | Kind::BlockDevice(major, minor) => device(major, minor),
        _ => 0,
    };
    [
        word(u32::from(mode) | (u32::from(fields.long) << 16), node.nlink),
        word(node.uid, node.gid),
        node.mtime.seconds as u64,
        word(node.mtime.nanoseconds, fields.set),
        size,
        word(fields.range.first, fields.range.count),
        word(fields.parent.distance as u32, fields.parent.slot.into()),
    ]
}

/// Joins the numbers of a device. The check of the message refuses the result if one is too large.
fn device(major: u32, minor: u32) -> u64 {
    if minor < 1 << 20 {
        (u64::from(major) << 20) | u64::from(minor)
    } else {
        u64::MAX
    }
}

pub(super) fn inode_type(node: &Node) -> InodeType {
    match node.kind {
        Kind::File(_) => InodeType::File,
        Kind::Directory(_) => InodeType::Directory,
        Kind::Symlink(_) => InodeType::Symlink,
        Kind::Fifo => InodeType::Fifo,
        Kind::Socket => InodeType::Socket,
        Kind::CharDevice(..) => InodeType::CharDevice,
        Kind::BlockDevice(..) => InodeType::BlockDevice,
    }
}

/// Joins the place of a name, its length, and up to three bytes that follow.
fn name_word(name: Range, rest: [u8; 3]) -> u64 {
    // The check of the message refuses the length 0, too.
    let len = u8::try_from(name.count).unwrap_or(0);
    let [first, second, third] = rest;
    word(name.first, u32::from_le_bytes([len, first, second, third]))
}

pub(super) fn entry(name: Range, inode_type: InodeType, inode: InodeRef) -> Entry {
    let [low, high] = inode.slot.to_le_bytes();
    [
        name_word(name, [inode_type.code(), low, high]),
        word(inode.distance as u32, 0),
    ]
}

/// `chunk` is the number of the extent's chunk, unless it is a hole.
pub(super) fn extent(extent: &FileExtent, chunk: u32) -> Extent {
    let place = match extent.data {
        ExtentData::Hole => word(HOLE, 0),
        ExtentData::Chunk { offset, .. } => word(chunk, offset),
    };
    [extent.offset, place]
}

pub(super) fn chunk(chunk: &ChunkRef) -> Chunk {
    let mut words = [0; 5];
    let digest = chunk.digest().as_bytes().chunks_exact(8);
    for (word, bytes) in words.iter_mut().zip(digest) {
        *word = bytes
            .iter()
            .rev()
            .fold(0, |word, byte| (word << 8) | u64::from(*byte));
    }
    words[4] = word(chunk.stored_len(), chunk.content_len());
    words
}

pub(super) fn child(chunk: &ChunkRef, inodes: u32, blocks: u32) -> Child {
    let mut words = [0; 6];
    words[..5].copy_from_slice(&self::chunk(chunk));
    words[5] = word(inodes, blocks);
    words
}

/// `name` is the name of the first entry of a directory's part; `offset` that of the first extent.
pub(super) fn part(offset: u64, name: Range, chunk: u32, count: u32) -> Part {
    [offset, word(chunk, count), name_word(name, [0; 3])]
}

pub(super) fn set(attributes: Range) -> Set {
    [word(attributes.first, attributes.count)]
}

/// `value` is the place of the value in the pool, or the number of its chunk.
pub(super) fn attribute(name: Range, value: Range) -> Attribute {
    [name_word(name, [0; 3]), word(value.count, value.first)]
}
