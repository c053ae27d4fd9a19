// SPDX-License-Identifier: MIT OR Apache-2.0

//! Numbers of inodes and of blocks, through the levels below the root.

use super::{
    super::{
        error::MetadataErrorKind,
        root::{Child, ChildType, Children, Found, Start},
    },
    loading::{load_block_list, malformed, read_block_list, read_root},
    source::{ChunkSource, MetadataChunk},
};

/// The number that a search is for.
#[derive(Clone, Copy)]
pub(super) enum Wanted {
    /// The block with the inode before which there are so many in the image.
    Inode(u64),
    /// The block of a number.
    Block(u64),
}

impl Wanted {
    /// The same in the child that was found.
    fn within(self, found: &Found) -> Self {
        match self {
            Self::Inode(_) => Self::Inode(found.rest),
            Self::Block(_) => Self::Block(found.rest),
        }
    }

    /// Searches children, by sums if there are any.
    fn find(self, children: &Children<'_>, starts: &[Start]) -> Option<Found> {
        match self {
            Self::Inode(position) if starts.is_empty() => children.scan_inode(position),
            Self::Inode(position) => children.find_inode(position, starts),
            Self::Block(number) if starts.is_empty() => children.scan_block(number),
            Self::Block(number) => children.find_block(number, starts),
        }
    }
}

/// A block, and its place in the image.
#[derive(Clone, Copy)]
pub(super) struct PlacedBlock {
    /// The reference to the block.
    pub(super) child: Child,
    /// The inodes and blocks of the image before it.
    pub(super) start: Start,
    /// The number of inodes in the block before the one that was searched: its slot.
    pub(super) slot: u64,
}

/// Finds a block; `None` if the image does not have it.
///
/// Cost: two searches among children, and one loaded chunk if the root has level 1.
pub(super) fn find_block<S: ChunkSource>(
    source: &S,
    root: &S::Chunk,
    wanted: Wanted,
) -> Result<Option<PlacedBlock>, S::Error> {
    let children = read_root(source, root)?;
    let Some(found) = wanted.find(&children, root.starts()) else {
        return Ok(None);
    };
    let child = child(source, root, &children, &found)?;
    match children.child_type() {
        ChildType::Block => Ok(Some(PlacedBlock {
            child,
            start: found.start,
            slot: found.rest,
        })),
        ChildType::BlockList => find_below(source, &child, &found, wanted).map(Some),
    }
}

/// Finds the inodes of a block: the number of those before it, and of those in it. `None` if the image
/// does not have the block.
///
/// Cost: as [`find_block`].
pub(super) fn find_inodes<S: ChunkSource>(
    source: &S,
    root: &S::Chunk,
    number: u32,
) -> Result<Option<(u64, u32)>, S::Error> {
    let wanted = Wanted::Block(number.into());
    let children = read_root(source, root)?;
    if children.child_type() == ChildType::BlockList {
        let found = find_block(source, root, wanted)?;
        return Ok(found.map(|found| (found.start.inodes, found.child.inodes)));
    }
    let Some(found) = wanted.find(&children, root.starts()) else {
        return Ok(None);
    };
    // The reference to the block is not needed.
    let inodes = children.inodes(found.child);
    let inodes = inodes.map_err(|e| malformed(source, root, e))?;
    Ok(Some((found.start.inodes, inodes)))
}

/// Finds a block in a block list, which has it.
fn find_below<S: ChunkSource>(
    source: &S,
    list: &Child,
    place: &Found,
    wanted: Wanted,
) -> Result<PlacedBlock, S::Error> {
    let list = load_block_list(source, list)?;
    let children = read_block_list(source, &list)?;
    let found = wanted
        .within(place)
        .find(&children, list.starts())
        .ok_or_else(|| malformed(source, &list, MetadataErrorKind::Misuse))?;
    Ok(PlacedBlock {
        child: child(source, &list, &children, &found)?,
        start: Start {
            inodes: place.start.inodes.saturating_add(found.start.inodes),
            blocks: place.start.blocks.saturating_add(found.start.blocks),
        },
        slot: found.rest,
    })
}

/// Reads the child that was found.
fn child<S: ChunkSource>(
    source: &S,
    chunk: &S::Chunk,
    children: &Children<'_>,
    found: &Found,
) -> Result<Child, S::Error> {
    children
        .get(found.child)
        .and_then(|child| child.ok_or(MetadataErrorKind::Misuse.into()))
        .map_err(|e| malformed(source, chunk, e))
}
