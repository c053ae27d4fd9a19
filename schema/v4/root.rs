// SPDX-License-Identifier: MIT OR Apache-2.0

//! Roots and block lists.

use super::{
    chunk::ChunkRef,
    chunks::StoredRef,
    error::{ListName, MetadataError, MetadataErrorKind as Kind, Result},
    limits::{MAX_BLOCK_INODES, MAX_CHILDREN},
    message::{Element, Elements, List, Message, MessageKind},
    words::{halves, words},
};
use crate::{
    limits::{MAX_FILE_SIZE, ROOT_INO},
    search::partition_point_of,
    steps::step,
};

/// A child, as it stands in a message.
#[derive(Clone, Copy, Debug)]
struct StoredChild {
    chunk: StoredRef,
    inodes: u32,
    blocks: u32,
}

impl Element for StoredChild {
    const LIST: ListName = ListName::Children;
    const WORDS: u32 = 6;

    fn read(bytes: &[u8]) -> Option<Self> {
        let (chunk, rest) = StoredRef::split(bytes)?;
        let [counts] = words(rest)?;
        let (inodes, blocks) = halves(counts);
        Some(Self {
            chunk,
            inodes,
            blocks,
        })
    }
}

/// A child of a root or a block list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Child {
    /// The block or the block list.
    pub chunk: ChunkRef,
    /// The number of inodes in it, or in all blocks below it: not 0.
    pub inodes: u32,
    /// The number of blocks in it: 1 for a block.
    pub blocks: u32,
}

/// The type of the children.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChildType {
    /// Blocks.
    Block,
    /// Block lists.
    BlockList,
}

/// The inodes and blocks before a child.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Start {
    /// The number of inodes.
    pub inodes: u64,
    /// The number of blocks.
    pub blocks: u64,
}

impl Start {
    /// Adds those of a child.
    fn after(self, inodes: u32, blocks: u32) -> Self {
        // Sums of at most 1,024 such numbers: they cannot overflow.
        Self {
            inodes: self.inodes.saturating_add(inodes.into()),
            blocks: self.blocks.saturating_add(blocks.into()),
        }
    }
}

/// The child that has an inode or a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The number of the child.
    pub child: u32,
    /// The inodes and blocks before the child, in its parent.
    pub start: Start,
    /// The number of inodes, or of blocks, in the child before the one that was searched. In a
    /// block, that is the slot of an inode.
    pub rest: u64,
}

/// The layout of a root or a block list: the place of its children, checked once against all rules.
///
/// # Invariants
///
/// The bytes that it was made of, `len` of them, keep all rules of a root or a block list. `total`
/// has the sums over the children, of which there are 1 to [`MAX_CHILDREN`].
#[derive(Clone, Copy, Debug)]
struct ChildrenLayout {
    len: u32,
    children: List,
    child_type: ChildType,
    total: Start,
}

impl ChildrenLayout {
    fn check(message: &Message<'_>, bytes: &[u8], child_type: ChildType) -> Result<Self> {
        let children = message.list::<StoredChild>(0)?;
        if !(1..=MAX_CHILDREN).contains(&children.len()) {
            return Err(Kind::ChildCount.into());
        }
        let mut total = Start::default();
        for (index, child) in (0..).zip(children.of::<StoredChild>(bytes).iter()) {
            check_child(&child, child_type).map_err(|e| e.at(ListName::Children, index))?;
            total = total.after(child.inodes, child.blocks);
        }
        // INVARIANT: The children were just checked and added up.
        Ok(Self {
            // Messages are small.
            len: bytes.len() as u32,
            children,
            child_type,
            total,
        })
    }

    fn children<'a>(&self, bytes: &'a [u8]) -> Result<Children<'a>> {
        if bytes.len() != self.len as usize {
            return Err(Kind::Misuse.into());
        }
        Ok(Children {
            children: self.children.of(bytes),
            child_type: self.child_type,
            total: self.total,
        })
    }
}

/// Checks a child.
fn check_child(child: &StoredChild, child_type: ChildType) -> Result<()> {
    child.chunk.metadata()?;
    let max_blocks = match child_type {
        ChildType::Block => 1,
        ChildType::BlockList => MAX_CHILDREN,
    };
    let max_inodes = child.blocks.saturating_mul(MAX_BLOCK_INODES);
    if !(1..=max_blocks).contains(&child.blocks)
        || !(child.blocks..=max_inodes).contains(&child.inodes)
    {
        return Err(Kind::ChildSize.into());
    }
    Ok(())
}

/// The layout of a root, which was checked against all rules.
///
/// It borrows nothing, so that it can be kept beside the bytes that it was made of.
#[derive(Clone, Copy, Debug)]
pub struct RootLayout {
    layout: ChildrenLayout,
    data_size: u64,
}

impl RootLayout {
    /// Checks a root, the content of whose chunk is `bytes`.
    ///
    /// Cost: proportional to the number of children.
    ///
    /// # Errors
    ///
    /// Those of the message, and those of roots.
    pub fn check(bytes: &[u8]) -> Result<Self> {
        let message = Message::parse(bytes, MessageKind::Root, 3)?;
        let (_, level) = halves(message.data(0)?);
        let child_type = match level as u8 {
            0 => ChildType::Block,
            1 => ChildType::BlockList,
            _ => return Err(Kind::RootLevel.into()),
        };
        let layout = ChildrenLayout::check(&message, bytes, child_type)?;
        if message.data(1)? != layout.total.inodes {
            return Err(Kind::InodeCount.into());
        }
        let data_size = message.data(2)?;
        if data_size > MAX_FILE_SIZE {
            return Err(Kind::DataSize.into());
        }
        Ok(Self { layout, data_size })
    }

    /// The number of inodes of the image: not 0.
    pub fn inode_count(&self) -> u64 {
        self.layout.total.inodes
    }

    /// The sum of the sizes of all regular files in bytes, each inode once, as the builder states it.
    pub fn data_size(&self) -> u64 {
        self.data_size
    }

    /// The children. `bytes` are those that the layout was made of.
    ///
    /// # Errors
    ///
    /// [`MetadataErrorKind::Misuse`](super::MetadataErrorKind::Misuse) if the bytes have another
    /// length.
    pub fn children<'a>(&self, bytes: &'a [u8]) -> Result<Children<'a>> {
        self.layout.children(bytes)
    }

    /// Returns the number of inodes before the inode of a number; `None` if there is no such inode.
    pub fn position(&self, ino: u64) -> Option<u64> {
        ino.checked_sub(ROOT_INO)
            .filter(|&position| position < self.inode_count())
    }

    /// Returns the number of the inode in a slot of a block, before which there are so many inodes.
    /// In a checked image it cannot overflow.
    #[inline]
    pub fn ino(before: u64, slot: u16) -> u64 {
        before.saturating_add(slot.into()).saturating_add(ROOT_INO)
    }
}

/// The layout of a block list, which was checked against all rules.
#[derive(Clone, Copy, Debug)]
pub struct BlockListLayout {
    layout: ChildrenLayout,
}

impl BlockListLayout {
    /// Checks a block list, the content of whose chunk is `bytes`.
    ///
    /// Cost: proportional to the number of children.
    ///
    /// # Errors
    ///
    /// Those of the message; [`MetadataErrorKind::ChildCount`], [`MetadataErrorKind::ChildSize`],
    /// [`MetadataErrorKind::Chunk`].
    ///
    /// [`MetadataErrorKind::ChildCount`]: super::MetadataErrorKind::ChildCount
    /// [`MetadataErrorKind::ChildSize`]: super::MetadataErrorKind::ChildSize
    /// [`MetadataErrorKind::Chunk`]: super::MetadataErrorKind::Chunk
    pub fn check(bytes: &[u8]) -> Result<Self> {
        let message = Message::parse(bytes, MessageKind::BlockList, 1)?;
        let layout = ChildrenLayout::check(&message, bytes, ChildType::Block)?;
        Ok(Self { layout })
    }

    /// Checks the block list against the reference by which it was reached.
    ///
    /// # Errors
    ///
    /// [`MetadataErrorKind::ChildMismatch`](super::MetadataErrorKind::ChildMismatch).
    pub fn check_child(&self, child: &Child) -> Result<()> {
        let expected = Start::default().after(child.inodes, child.blocks);
        if self.layout.total != expected {
            return Err(Kind::ChildMismatch.into());
        }
        Ok(())
    }

    /// The children. `bytes` are those that the layout was made of.
    ///
    /// # Errors
    ///
    /// [`MetadataErrorKind::Misuse`](super::MetadataErrorKind::Misuse) if the bytes have another
    /// length.
    pub fn children<'a>(&self, bytes: &'a [u8]) -> Result<Children<'a>> {
        self.layout.children(bytes)
    }
}

/// The children of a root or a block list, in order.
#[derive(Clone, Copy, Debug)]
pub struct Children<'a> {
    children: Elements<'a, StoredChild>,
    child_type: ChildType,
    total: Start,
}

impl Children<'_> {
    /// The number of children: 1 to [`MAX_CHILDREN`].
    pub fn len(&self) -> u32 {
        self.children.len()
    }

    /// Returns false: a checked root or block list has children.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The type of the children.
    pub fn child_type(&self) -> ChildType {
        self.child_type
    }

    /// The numbers of inodes and blocks of all children.
    pub fn total(&self) -> Start {
        self.total
    }

    /// The child of a number; `None` if there are not so many.
    ///
    /// Cost: constant.
    ///
    /// # Errors
    ///
    /// [`MetadataErrorKind::Misuse`](super::MetadataErrorKind::Misuse).
    pub fn get(&self, number: u32) -> Result<Option<Child>> {
        if number >= self.len() {
            return Ok(None);
        }
        let child = self.children.known(number)?;
        Ok(Some(Child {
            chunk: child.chunk.metadata().map_err(|_| Kind::Misuse)?,
            inodes: child.inodes,
            blocks: child.blocks,
        }))
    }

    /// The number of inodes in the child of a number, or in all blocks below it.
    ///
    /// Cost: constant.
    ///
    /// # Errors
    ///
    /// [`MetadataErrorKind::Misuse`](super::MetadataErrorKind::Misuse) if there are
    /// not so many children.
    pub(super) fn inodes(&self, number: u32) -> Result<u32> {
        Ok(self.children.known(number)?.inodes)
    }

    /// All children in order.
    ///
    /// Cost of each step: constant.
    pub fn iter(&self) -> impl Iterator<Item = Result<Child>> + '_ {
        (0..self.len()).filter_map(|number| self.get(number).transpose())
    }

    /// Writes the inodes and blocks before each child, for [`find_inode`](Self::find_inode) and
    /// [`find_block`](Self::find_block).
    ///
    /// Cost: the number of children.
    ///
    /// # Errors
    ///
    /// [`MetadataErrorKind::Misuse`](super::MetadataErrorKind::Misuse) if there are not as many
    /// `starts` as children.
    pub fn fill_starts(&self, starts: &mut [Start]) -> Result<()> {
        if starts.len() != self.len() as usize {
            return Err(Kind::Misuse.into());
        }
        let mut sum = Start::default();
        for (start, child) in starts.iter_mut().zip(self.children.iter()) {
            *start = sum;
            sum = sum.after(child.inodes, child.blocks);
        }
        Ok(())
    }

    /// Finds the child with the inode before which there are `position` inodes, without sums.
    ///
    /// Cost: the number of children, at most [`MAX_CHILDREN`].
    pub fn scan_inode(&self, position: u64) -> Option<Found> {
        self.scan(position, |start| start.inodes)
    }

    /// Finds the child with the block of a number, without sums.
    ///
    /// Cost: the number of children, at most [`MAX_CHILDREN`].
    pub fn scan_block(&self, number: u64) -> Option<Found> {
        self.scan(number, |start| start.blocks)
    }

    fn scan(&self, wanted: u64, of: impl Fn(Start) -> u64) -> Option<Found> {
        let mut start = Start::default();
        for (number, child) in (0..).zip(self.children.iter()) {
            let end = start.after(child.inodes, child.blocks);
            if wanted < of(end) {
                return Some(Found {
                    child: number,
                    start,
                    rest: wanted.checked_sub(of(start))?,
                });
            }
            start = end;
        }
        None
    }

    /// Finds the child with the inode before which there are `position` inodes. `starts` are those
    /// that [`fill_starts`](Self::fill_starts) wrote.
    ///
    /// Cost: at most 2 + log2 of the number of children.
    pub fn find_inode(&self, position: u64, starts: &[Start]) -> Option<Found> {
        self.find(position, starts, |start| start.inodes)
    }

    /// Finds the child with the block of a number. `starts` are those that
    /// [`fill_starts`](Self::fill_starts) wrote.
    ///
    /// Cost: constant if the children are blocks, otherwise at most 2 + log2 of their number.
    pub fn find_block(&self, number: u64, starts: &[Start]) -> Option<Found> {
        match self.child_type {
            // Each child is one block, so that both have the same number.
            ChildType::Block => {
                let child = u32::try_from(number).ok()?;
                Some(Found {
                    child,
                    start: *starts.get(child as usize)?,
                    rest: 0,
                })
            }
            ChildType::BlockList => self.find(number, starts, |start| start.blocks),
        }
    }

    fn find(&self, wanted: u64, starts: &[Start], of: impl Fn(Start) -> u64) -> Option<Found> {
        if wanted >= of(self.total) {
            return None;
        }
        let len = u32::try_from(starts.len()).ok()?;
        let after = partition_point_of(len, |number| {
            step();
            let start = starts.get(number as usize);
            Ok::<_, MetadataError>(start.is_some_and(|start| of(*start) <= wanted))
        });
        let child = after.ok()?.checked_sub(1)?;
        let start = *starts.get(child as usize)?;
        Some(Found {
            child,
            start,
            rest: wanted.checked_sub(of(start))?,
        })
    }
}
