// SPDX-License-Identifier: MIT OR Apache-2.0

//! The order of the inodes, and the blocks that they lie in.

use crate::build::blocks::extent::FileExtent;
use crate::build::blocks::sizes;
use crate::model::tree::{Entry, Kind, NodeId, Tree, Xattr};
use puzzlefs_schema::v4::{InodeRef, MAX_INLINE_VALUE};
use std::collections::HashSet;
use std::mem;
use std::ops::Range;

/// The size of a reference to a chunk in a message, in bytes.
const CHUNK: usize = 40;

/// The place of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    block: u32,
    slot: u16,
}

impl Place {
    /// Stands for no place yet.
    const NONE: Place = Place {
        block: u32::MAX,
        slot: 0,
    };
}

/// The order of the inodes, and their blocks.
///
/// The walk is depth-first: the inodes of a directory's entries, then each subdirectory. An inode with
/// several names is where the first one is.
pub(super) struct Plan {
    /// The inodes in order.
    order: Vec<NodeId>,
    /// The ranges of `order` that make the blocks.
    blocks: Vec<Range<usize>>,
    /// The place of each node of the tree.
    places: Vec<Place>,
    /// The parent of each directory of the tree.
    parents: Vec<NodeId>,
}

impl Plan {
    /// Plans the blocks of a tree with these extents of its files.
    pub fn new(tree: &Tree, extents: &[Vec<FileExtent>]) -> Self {
        let nodes = tree.nodes.len();
        let mut walk = Walk {
            tree,
            extents,
            order: Vec::with_capacity(nodes),
            names: Vec::with_capacity(nodes),
            ends: Vec::with_capacity(nodes + 1),
            groups: Vec::new(),
            is_placed: vec![false; nodes],
            parents: vec![0; nodes],
        };
        walk.run();
        let blocks = walk.blocks();
        let mut places = vec![Place::NONE; nodes];
        for (block, range) in (0..).zip(&blocks) {
            for (slot, node) in (0..).zip(&walk.order[range.clone()]) {
                // A block of such a size has fewer than 2^16 inodes.
                places[*node as usize] = Place { block, slot };
            }
        }
        Plan {
            order: walk.order,
            blocks,
            places,
            parents: walk.parents,
        }
    }

    /// Returns the number of blocks.
    pub fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// Returns the inodes of a block in the order of their slots.
    pub fn block(&self, number: u32) -> &[NodeId] {
        &self.order[self.blocks[number as usize].clone()]
    }

    /// Returns the numbers of the blocks with these nodes, each once, in the order of the nodes.
    pub fn blocks_of(&self, nodes: &[NodeId]) -> Vec<u32> {
        let mut seen = HashSet::new();
        let blocks = nodes.iter().map(|node| self.places[*node as usize].block);
        blocks.filter(|block| seen.insert(*block)).collect()
    }

    /// Returns the reference from a block to an inode.
    pub fn reference(&self, block: u32, node: NodeId) -> InodeRef {
        let place = self.places[node as usize];
        InodeRef {
            // There are less than 2^31 blocks, or the root is refused.
            distance: place.block.wrapping_sub(block) as i32,
            slot: place.slot,
        }
    }

    /// Returns the parent of a directory.
    pub fn parent(&self, directory: NodeId) -> NodeId {
        self.parents[directory as usize]
    }
}

/// Returns the size of a directory's list in bytes.
pub(super) fn entries_size(entries: &[Entry]) -> usize {
    entries.iter().map(entry_size).sum()
}

/// Returns the size of an entry in bytes.
pub(super) fn entry_size(entry: &Entry) -> usize {
    16 + entry.name.len()
}

/// Returns the size of a file's list in bytes.
pub(super) fn extents_size(extents: &[FileExtent]) -> usize {
    extents.iter().map(extent_size).sum()
}

/// Returns the size of an extent in bytes.
pub(super) fn extent_size(extent: &FileExtent) -> usize {
    16 + extent.chunk().map_or(0, |_| CHUNK)
}

/// Returns the size of a part in bytes. A part of a file has no name.
pub(super) fn part_size(name: &[u8]) -> usize {
    24 + CHUNK + name.len()
}

/// The inodes in the order of the walk, with what decides where blocks end.
///
/// # Invariants
///
/// `names` has an element for each one of `order`, and `ends` one more. `groups` ascends.
struct Walk<'t> {
    tree: &'t Tree,
    extents: &'t [Vec<FileExtent>],
    order: Vec<NodeId>,
    /// The name by which the walk finds each inode.
    names: Vec<&'t [u8]>,
    /// The sum of the sizes of all inodes before each one and after the last, in bytes.
    ends: Vec<usize>,
    /// The end of the inodes of each directory, and the hash of its name.
    groups: Vec<(usize, u64)>,
    is_placed: Vec<bool>,
    parents: Vec<NodeId>,
}

impl<'t> Walk<'t> {
    fn run(&mut self) {
        self.ends.push(0);
        if self.tree.nodes.is_empty() {
            return;
        }
        self.is_placed[0] = true;
        self.add(0, b"");
        let mut pending = vec![(0, &b""[..])];
        while let Some((directory, name)) = pending.pop() {
            let first = self.order.len();
            let subdirectories = self.enter(directory);
            let end = self.order.len();
            if end > first || directory == 0 {
                self.groups.push((end, sizes::hash(name)));
            }
            pending.extend(subdirectories.into_iter().rev());
        }
    }

    /// Adds the inodes of a directory that have no place yet. Returns those of them that are directories,
    /// with their names.
    fn enter(&mut self, directory: NodeId) -> Vec<(NodeId, &'t [u8])> {
        let tree = self.tree;
        let mut subdirectories = Vec::new();
        let Kind::Directory(entries) = &tree.nodes[directory as usize].kind else {
            return subdirectories;
        };
        for entry in entries {
            if mem::replace(&mut self.is_placed[entry.node as usize], true) {
                continue;
            }
            self.add(entry.node, &entry.name);
            if let Kind::Directory(_) = tree.nodes[entry.node as usize].kind {
                self.parents[entry.node as usize] = directory;
                subdirectories.push((entry.node, &*entry.name));
            }
        }
        subdirectories
    }

    fn add(&mut self, node: NodeId, name: &'t [u8]) {
        let shared = match self.order.last() {
            Some(before) => self.shared_size(*before, node),
            None => 0,
        };
        let end = self.ends[self.order.len()] + self.size(node) - shared;
        self.order.push(node);
        self.names.push(name);
        self.ends.push(end);
    }

    /// Returns the size of what an inode shares with the inode before it if they are in one block, in
    /// bytes: a chunk or a set of attributes.
    fn shared_size(&self, before: NodeId, node: NodeId) -> usize {
        let [one, other] = [before, node].map(|node| &self.tree.nodes[node as usize].xattrs);
        let set = if one == other { set_size(one) } else { 0 };
        let last = self.inline_extents(before).last();
        let last = last.and_then(FileExtent::chunk);
        let first = self.inline_extents(node).first();
        let is_shared = last.is_some() && last == first.and_then(FileExtent::chunk);
        set + if is_shared { CHUNK } else { 0 }
    }

    /// Returns the extents of a file that lie in the block of its inode.
    fn inline_extents(&self, node: NodeId) -> &'t [FileExtent] {
        let extents = &self.extents[node as usize];
        if extents_size(extents) > sizes::LIST_INLINE {
            return &[];
        }
        extents
    }

    /// Returns the ranges of the order that make the blocks.
    fn blocks(&self) -> Vec<Range<usize>> {
        let mut blocks = Vec::new();
        // A mount loads the block of the root directory, which is small therefore.
        let root = self.groups.first().map_or(0, |&(end, _)| end);
        self.divide(0..root, &mut blocks);
        self.divide(root..self.order.len(), &mut blocks);
        blocks
    }

    /// Divides a range of the order into blocks.
    fn divide(&self, range: Range<usize>, blocks: &mut Vec<Range<usize>>) {
        let mut first = range.start;
        while first < range.end {
            let end = self.end_of_block(first, range.end);
            blocks.push(first..end);
            first = end;
        }
    }

    /// Returns the end of the block that begins with an inode: of the possible ends, the one behind a
    /// directory's inodes, or else the one before an inode, whose name has the least hash.
    ///
    /// Most possible ends do not depend on the beginning, so two different beginnings soon lead to the
    /// same end.
    fn end_of_block(&self, first: usize, last: usize) -> usize {
        // The block has what the inode shares with the one in the block before.
        let shared = match first.checked_sub(1) {
            Some(before) => self.shared_size(self.order[before], self.order[first]),
            None => 0,
        };
        let start = self.ends[first];
        let end_within = |size: usize| {
            let bound = (start + size).saturating_sub(shared);
            // `ends` ascends, and begins with 0.
            self.ends.partition_point(|&end| end <= bound) - 1
        };
        let most = end_within(sizes::BLOCK_MOST).clamp(first + 1, last);
        if most == last {
            return last;
        }
        let least = (end_within(sizes::BLOCK_LEAST - 1) + 1).clamp(first + 1, most);
        let from = self.groups.partition_point(|&(end, _)| end < least);
        let groups = self.groups[from..].iter();
        let groups = groups.take_while(|&&(end, _)| end <= most);
        let behind_directory = groups.min_by_key(|&&(_, hash)| hash);
        match behind_directory {
            Some(&(end, _)) => end,
            None => (least..=most)
                .min_by_key(|&end| sizes::hash(self.names[end]))
                .unwrap_or(most),
        }
    }

    /// Returns the size of an inode and of everything that belongs to it, in bytes.
    fn size(&self, node: NodeId) -> usize {
        let inode = &self.tree.nodes[node as usize];
        let list = match &inode.kind {
            Kind::Directory(entries) => list_size(entries_size(entries), 255),
            Kind::File(_) => list_size(extents_size(&self.extents[node as usize]), 0),
            Kind::Symlink(target) => target.len(),
            _ => 0,
        };
        56 + list + set_size(&inode.xattrs)
    }
}

/// Returns the size of a list in its inode's block in bytes. A long one has parts there instead.
fn list_size(size: usize, name_len: usize) -> usize {
    if size <= sizes::LIST_INLINE {
        return size;
    }
    let parts = size / sizes::LIST_BLOCK.least + 1;
    sizes::LIST_INLINE.min(parts * (24 + CHUNK + name_len))
}

/// Returns the size of a set of attributes in bytes.
fn set_size(xattrs: &[Xattr]) -> usize {
    if xattrs.is_empty() {
        return 0;
    }
    let attributes = xattrs.iter().map(|(name, value)| {
        let value = match value.len() {
            len if len > MAX_INLINE_VALUE as usize => CHUNK,
            len => len,
        };
        16 + name.len() + value
    });
    8 + attributes.sum::<usize>()
}
