// SPDX-License-Identifier: MIT OR Apache-2.0

//! The blocks of images of format 4, and those that two images share.

use super::pieces::ChunkId;
use crate::error::Result;
use crate::image::store_chunks::StoreChunks;
use puzzlefs_schema::v4::{Content, ExtentData, Inode, InodeType, Node, Tree};
use puzzlefs_schema::Digest;
use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

/// The tree of an image of format 4.
pub(super) type BlockTree<'s> = Tree<StoreChunks<'s>>;

/// The largest number of distances between equal blocks that are examined. In other images of one
/// origin there is one for each place where blocks were added or removed.
const SHIFTS_MAX: usize = 256;

/// The contents of a block.
#[derive(Default)]
struct Summary {
    /// The chunks of its files.
    chunks: HashSet<ChunkId>,
    /// The distances from it to the inodes of its directories' entries.
    distances: HashSet<i64>,
    /// A file in it has several names, which can be in other blocks.
    has_links: bool,
}

/// The blocks of two images.
pub(super) struct Blocks {
    /// The digests of the old and of the new image's blocks.
    digests: [Vec<Digest>; 2],
    /// The summaries of blocks that both have.
    shared: HashMap<Digest, Summary>,
    /// For each distance between blocks of both images: for each old block, whether the block at this
    /// distance is equal, and everything that it leads to.
    equal: HashMap<i64, Vec<bool>>,
}

/// The chunks of the files of two images, the old one first.
pub(super) type ChunkSets = [HashSet<ChunkId>; 2];

impl Blocks {
    /// Reads each block of either image once. Returns the chunks of the files, too.
    pub fn read(trees: [&BlockTree<'_>; 2]) -> Result<(Self, ChunkSets)> {
        let digests = [digests(trees[0])?, digests(trees[1])?];
        let [old, new] = digests
            .each_ref()
            .map(|digests| digests.iter().collect::<HashSet<_>>());
        let mut shared: HashMap<Digest, Summary> = HashMap::new();
        let mut chunks = ChunkSets::default();
        for (number, digest) in first_of_each(&digests[1]) {
            let summary = Summary::read(trees[1], number)?;
            chunks[1].extend(&summary.chunks);
            if old.contains(digest) {
                chunks[0].extend(&summary.chunks);
                shared.insert(*digest, summary);
            }
        }
        for (number, digest) in first_of_each(&digests[0]) {
            if !new.contains(digest) {
                chunks[0].extend(Summary::read(trees[0], number)?.chunks);
            }
        }
        let blocks = Blocks {
            digests,
            shared,
            equal: HashMap::new(),
        };
        Ok((blocks, chunks))
    }

    /// Returns true if two inodes are equal, and so are all inodes that they lead to. If they are not,
    /// it can return false nevertheless.
    pub fn are_equal(&mut self, old: Node, new: Node) -> bool {
        let shift = i64::from(new.block) - i64::from(old.block);
        if !self.equal.contains_key(&shift) {
            if self.equal.len() >= SHIFTS_MAX {
                return false;
            }
            self.equal.insert(shift, self.find_equal(shift));
        }
        let equal = self.equal.get(&shift);
        let is_equal = equal.and_then(|equal| equal.get(old.block as usize));
        old.slot == new.slot && is_equal == Some(&true)
    }

    /// Finds the old blocks that are equal to the blocks at a distance, and lead to such blocks only.
    fn find_equal(&self, shift: i64) -> Vec<bool> {
        let [old, new] = &self.digests;
        let summary = |number: usize| {
            let digest = &old[number];
            let counterpart = at(new, number, shift);
            let summary = self.shared.get(digest).filter(|summary| !summary.has_links);
            summary.filter(|_| counterpart == Some(digest))
        };
        let mut equal: Vec<bool> = (0..old.len())
            .map(|number| summary(number).is_some())
            .collect();
        // The blocks that lead to each block, and those that lead to a different one.
        let mut referrers: Vec<Vec<usize>> = vec![Vec::new(); old.len()];
        let mut different = Vec::new();
        for number in 0..old.len() {
            for distance in summary(number)
                .iter()
                .flat_map(|summary| &summary.distances)
            {
                match at(&equal, number, *distance) {
                    Some(true) => referrers[(number as i64 + distance) as usize].push(number),
                    _ => different.push(number),
                }
            }
        }
        while let Some(number) = different.pop() {
            if equal[number] {
                equal[number] = false;
                different.append(&mut referrers[number]);
            }
        }
        equal
    }
}

/// Returns the distinct digests, each with the number of the first block that has it.
fn first_of_each(digests: &[Digest]) -> impl Iterator<Item = (u32, &Digest)> {
    let mut seen = HashSet::new();
    (0..)
        .zip(digests)
        .filter(move |(_, digest)| seen.insert(*digest))
}

/// Returns the element at a distance from a position.
fn at<T>(list: &[T], position: usize, distance: i64) -> Option<&T> {
    let position = i64::try_from(position).ok()?.checked_add(distance)?;
    list.get(usize::try_from(position).ok()?)
}

/// Returns all distinct chunks of an image's files.
pub(super) fn chunks(tree: &BlockTree<'_>) -> Result<HashSet<ChunkId>> {
    let mut chunks = HashSet::new();
    for (number, _) in first_of_each(&digests(tree)?) {
        chunks.extend(Summary::read(tree, number)?.chunks);
    }
    Ok(chunks)
}

/// Returns the digests of an image's blocks.
fn digests(tree: &BlockTree<'_>) -> Result<Vec<Digest>> {
    let mut digests = Vec::new();
    let _ = tree.for_each_block(|child| {
        digests.push(*child.chunk.digest());
        ControlFlow::<()>::Continue(())
    })?;
    Ok(digests)
}

impl Summary {
    /// Reads a block.
    fn read(tree: &BlockTree<'_>, number: u32) -> Result<Self> {
        let mut summary = Summary::default();
        let first = tree.open(
            Node {
                block: number,
                slot: 0,
            },
            None,
        )?;
        let block = tree.block(&first)?;
        for slot in 0..block.len().min(1 << 16) as u16 {
            let node = Node {
                block: number,
                slot,
            };
            let inode = block.inode(slot).map_err(|e| tree.broken(&first, e))?;
            if summary.add(&inode).map_err(|e| tree.broken(&first, e))? {
                summary.add_long(tree, node)?;
            }
        }
        Ok(summary)
    }

    /// Adds an inode. Returns true if its list is long, and so not added.
    fn add(&mut self, inode: &Inode<'_>) -> Result<bool, puzzlefs_schema::v4::MetadataError> {
        self.has_links |= inode.links() > 1 && inode.inode_type() != InodeType::Directory;
        match inode.content()? {
            Content::Directory(entries) => {
                for position in 0..entries.len() {
                    let entry = entries.get(position)?;
                    self.distances
                        .extend(entry.map(|entry| i64::from(entry.inode.distance)));
                }
            }
            Content::File(extents) => {
                for position in 0..extents.len() {
                    let extent = extents.get(position)?;
                    self.add_data(extent.map(|extent| extent.data));
                }
            }
            Content::LongDirectory(_) | Content::LongFile(_) => return Ok(true),
            Content::Symlink(_) | Content::Device { .. } | Content::None => {}
        }
        Ok(false)
    }

    /// Adds an inode with a long list.
    fn add_long(&mut self, tree: &BlockTree<'_>, node: Node) -> Result<()> {
        let inode = tree.open(node, None)?;
        let _ = match tree.content(&inode)? {
            Content::LongDirectory(_) => tree.for_each_entry(&inode, 0, |entry| {
                let distance = i64::from(entry.to.node.block) - i64::from(node.block);
                self.distances.insert(distance);
                ControlFlow::<()>::Continue(())
            })?,
            _ => tree.for_each_extent(&inode, 0, |extent| {
                self.add_data(Some(extent.data));
                ControlFlow::<()>::Continue(())
            })?,
        };
        Ok(())
    }

    fn add_data(&mut self, data: Option<ExtentData>) {
        if let Some(ExtentData::Chunk { chunk, .. }) = &data {
            self.chunks.insert(chunk.into());
        }
    }
}
