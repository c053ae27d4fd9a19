// SPDX-License-Identifier: MIT OR Apache-2.0

//! The order of the inodes, and the blocks that they lie in.

use crate::build::blocks::extent::FileExtent;
use crate::build::blocks::sizes::{self, Cutter};
use crate::model::tree::{Entry, Kind, NodeId, Tree, Xattr};
use puzzlefs_schema::v4::{ChunkRef, InodeRef, MAX_INLINE_VALUE};
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
        let mut planner = Planner {
            tree,
            extents,
            plan: Plan {
                order: Vec::with_capacity(nodes),
                blocks: Vec::new(),
                places: vec![Place::NONE; nodes],
                parents: vec![0; nodes],
            },
            cutter: Cutter::new(sizes::BLOCK),
            before: Before::default(),
            first: 0,
        };
        planner.run();
        planner.plan
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

/// The inode before another one in its block, with which it can share a chunk or a set.
#[derive(Clone, Copy, Default)]
struct Before<'t> {
    chunk: Option<&'t ChunkRef>,
    xattrs: &'t [Xattr],
}

struct Planner<'t> {
    tree: &'t Tree,
    extents: &'t [Vec<FileExtent>],
    plan: Plan,
    cutter: Cutter,
    before: Before<'t>,
    /// The first inode of the block, in the order.
    first: usize,
}

impl<'t> Planner<'t> {
    fn run(&mut self) {
        if self.tree.nodes.is_empty() {
            return;
        }
        self.add(0, b"", true);
        let mut pending = vec![(0, &b""[..])];
        while let Some((directory, name)) = pending.pop() {
            let (group, subdirectories) = self.enter(directory);
            self.add_group(&group);
            // A mount loads the block of the root directory, which is small therefore.
            let is_root = directory == 0;
            let can_end = self.cutter.size() >= sizes::BLOCK_LEAST;
            if is_root || can_end && sizes::hash(name) % sizes::DIRECTORIES == 0 {
                self.cut();
            }
            pending.extend(subdirectories.into_iter().rev());
        }
        self.cut();
    }

    /// Returns the inodes of a directory that have no place yet, and those of them that are directories,
    /// with their names.
    #[allow(clippy::type_complexity)]
    fn enter(&mut self, directory: NodeId) -> (Vec<&'t Entry>, Vec<(NodeId, &'t [u8])>) {
        let tree = self.tree;
        let (mut group, mut subdirectories) = (Vec::new(), Vec::new());
        let Kind::Directory(entries) = &tree.nodes[directory as usize].kind else {
            return (group, subdirectories);
        };
        for entry in entries {
            let place = &mut self.plan.places[entry.node as usize];
            if *place != Place::NONE {
                continue;
            }
            // It gets its slot with its block.
            place.block = 0;
            group.push(entry);
            if let Kind::Directory(_) = tree.nodes[entry.node as usize].kind {
                self.plan.parents[entry.node as usize] = directory;
                subdirectories.push((entry.node, &*entry.name));
            }
        }
        (group, subdirectories)
    }

    /// Adds the inodes of a directory. They stay together if they fit into a block.
    fn add_group(&mut self, group: &[&'t Entry]) {
        let mut fits = self.fits(group);
        if !fits && self.cutter.size() >= sizes::BLOCK_LEAST {
            self.cut();
            fits = self.fits(group);
        }
        for entry in group {
            self.add(entry.node, &entry.name, fits);
        }
    }

    /// Returns true if the inodes fit into this block.
    fn fits(&self, group: &[&'t Entry]) -> bool {
        let mut before = self.before;
        let mut sum = self.cutter.size();
        group.iter().all(|entry| {
            sum += self.size(entry.node, &mut before);
            sum <= sizes::BLOCK.most
        })
    }

    /// Adds an inode to this block, or begins another one with it unless it is known to fit.
    fn add(&mut self, node: NodeId, name: &[u8], fits: bool) {
        let mut before = self.before;
        let mut size = self.size(node, &mut before);
        if !fits && self.cutter.is_cut(size, || sizes::hash(name)) {
            self.cut();
            before = self.before;
            size = self.size(node, &mut before);
        }
        self.before = before;
        self.cutter.add(size);
        self.plan.places[node as usize] = Place {
            block: self.plan.blocks.len() as u32,
            // A block of such a size has fewer inodes.
            slot: (self.plan.order.len() - self.first) as u16,
        };
        self.plan.order.push(node);
    }

    /// Ends the block, unless it is empty.
    fn cut(&mut self) {
        let end = self.plan.order.len();
        if end > self.first {
            let first = mem::replace(&mut self.first, end);
            self.plan.blocks.push(first..end);
        }
        self.cutter.cut();
        self.before = Before::default();
    }

    /// Returns the size of an inode and of everything that belongs to it, in bytes.
    fn size(&self, node: NodeId, before: &mut Before<'t>) -> usize {
        let inode = &self.tree.nodes[node as usize];
        let list = match &inode.kind {
            Kind::Directory(entries) => list_size(entries_size(entries), 255),
            Kind::File(_) => self.file_size(&self.extents[node as usize], before),
            Kind::Symlink(target) => target.len(),
            _ => 0,
        };
        let set = if inode.xattrs.is_empty() || inode.xattrs == before.xattrs {
            0
        } else {
            before.xattrs = &inode.xattrs;
            set_size(&inode.xattrs)
        };
        56 + list + set
    }

    fn file_size(&self, extents: &'t [FileExtent], before: &mut Before<'t>) -> usize {
        let size = extents_size(extents);
        if size > sizes::LIST_INLINE {
            return list_size(size, 0);
        }
        let chunks = extents.iter().filter_map(FileExtent::chunk);
        let shared = chunks.filter(|chunk| before.chunk.replace(chunk) == Some(chunk));
        size - CHUNK * shared.count()
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
    let attributes = xattrs.iter().map(|(name, value)| {
        let value = match value.len() {
            len if len > MAX_INLINE_VALUE as usize => CHUNK,
            len => len,
        };
        16 + name.len() + value
    });
    8 + attributes.sum::<usize>()
}
