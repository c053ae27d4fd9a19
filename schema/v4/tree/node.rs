// SPDX-License-Identifier: MIT OR Apache-2.0

//! Places of inodes.

use super::super::directory::InodeRef;

/// The place of an inode in an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node {
    /// The number of the block, counted from 0.
    pub block: u32,
    /// The inode's place in the block.
    pub slot: u16,
}

impl Node {
    /// The root directory.
    pub const ROOT: Self = Self { block: 0, slot: 0 };

    /// The place that a reference in the block of this inode leads to; `None` if there is no block of
    /// such a number.
    #[inline]
    pub(super) fn follow(self, to: InodeRef) -> Option<Self> {
        let block = to.block(self.block.into())?;
        Some(Self {
            block: u32::try_from(block).ok()?,
            slot: to.slot,
        })
    }
}

/// An inode whose block is loaded.
///
/// [`Tree::inode`](super::Tree::inode) reads it.
#[derive(Clone, Debug)]
pub struct LoadedInode<C> {
    pub(super) block: C,
    pub(super) node: Node,
    pub(super) ino: u64,
}

impl<C> LoadedInode<C> {
    /// The place of the inode.
    pub fn node(&self) -> Node {
        self.node
    }

    /// The number of the inode: not 0.
    pub fn ino(&self) -> u64 {
        self.ino
    }

    /// The block of the inode.
    pub fn block(&self) -> &C {
        &self.block
    }
}
