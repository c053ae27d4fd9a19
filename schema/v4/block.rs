// SPDX-License-Identifier: MIT OR Apache-2.0

//! Blocks.

use super::{
    chunk::ChunkRef,
    error::{MetadataErrorKind as Kind, Result},
    inode::{Checker, Inode, Lists, Places, StoredInode},
    inode_type::InodeType,
    limits::MAX_BLOCK_INODES,
    message::{List, Message, MessageKind},
    parts::part_chunks,
    root::Child,
};

/// The layout of a block: the places of its lists, checked once against all rules.
///
/// It borrows nothing, so that it can be kept beside the bytes that it was made of.
///
/// # Invariants
///
/// The bytes that it was made of, `len` of them, keep all rules of a block.
#[derive(Clone, Copy, Debug)]
pub struct BlockLayout {
    len: u32,
    inodes: List,
    places: Places,
}

impl BlockLayout {
    /// Checks a block, the content of whose chunk is `bytes`.
    ///
    /// Cost: proportional to the length of the bytes. Each element is read at most four times. Names
    /// and targets of symbolic links can share bytes, so that up to 73 bytes are compared for each
    /// byte of the block.
    ///
    /// # Errors
    ///
    /// Any but those of roots, of list blocks, and of references between chunks.
    pub fn check(bytes: &[u8]) -> Result<Self> {
        let message = Message::parse(bytes, MessageKind::Block, 1)?;
        let inodes = message.list::<StoredInode>(0)?;
        let layout = Self {
            // Messages are small.
            len: bytes.len() as u32,
            inodes,
            places: Places::find(&message, inodes)?,
        };
        if !(1..=MAX_BLOCK_INODES).contains(&layout.inodes.len()) {
            return Err(Kind::BlockInodes.into());
        }
        // INVARIANT: The rest of the rules.
        Checker::new(Lists::new(&layout.places, bytes)).check(layout.inodes.of(bytes))?;
        Ok(layout)
    }

    /// The number of inodes.
    #[inline]
    pub fn inodes(&self) -> u32 {
        self.inodes.len()
    }

    /// The chunks that the block refers to, of every kind. `bytes` are those that the layout was made of.
    ///
    /// Cost of each step: constant.
    pub fn chunk_refs<'a>(&self, bytes: &'a [u8]) -> impl Iterator<Item = ChunkRef> + 'a {
        self.places.chunks(bytes).iter()
    }

    /// The list blocks that the block refers to, which are among its chunks.
    ///
    /// Cost of each step: constant.
    pub fn list_blocks<'a>(&self, bytes: &'a [u8]) -> impl Iterator<Item = ChunkRef> + 'a {
        part_chunks(self.places.parts(bytes), self.places.chunks(bytes))
    }

    /// Checks the block against the reference by which it was reached.
    ///
    /// # Errors
    ///
    /// [`MetadataErrorKind::ChildMismatch`](super::MetadataErrorKind::ChildMismatch).
    pub fn check_child(&self, child: &Child) -> Result<()> {
        if child.inodes != self.inodes() || child.blocks != 1 {
            return Err(Kind::ChildMismatch.into());
        }
        Ok(())
    }
}

/// A block.
///
/// To make one costs nothing.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    layout: &'a BlockLayout,
    bytes: &'a [u8],
}

impl<'a> Block<'a> {
    /// Makes a block of its layout and the bytes that the layout was made of.
    ///
    /// With other bytes of the same length, lookups give other things, or errors.
    ///
    /// # Errors
    ///
    /// [`MetadataErrorKind::Misuse`](super::MetadataErrorKind::Misuse) if the bytes have another
    /// length.
    #[inline]
    pub fn new(layout: &'a BlockLayout, bytes: &'a [u8]) -> Result<Self> {
        if bytes.len() != layout.len as usize {
            return Err(Kind::Misuse.into());
        }
        Ok(Self { layout, bytes })
    }

    /// The number of inodes.
    #[inline]
    pub fn len(&self) -> u32 {
        self.layout.inodes()
    }

    /// Returns false: a checked block has inodes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The inode in a slot.
    ///
    /// Cost: constant.
    ///
    /// # Errors
    ///
    /// [`MetadataErrorKind::NoSuchInode`](super::MetadataErrorKind::NoSuchInode).
    #[inline]
    pub fn inode(&self, slot: u16) -> Result<Inode<'a>> {
        let stored = self.layout.inodes.of(self.bytes).get(slot.into());
        Inode::read(
            stored.ok_or(Kind::NoSuchInode)?,
            Lists::new(&self.layout.places, self.bytes),
        )
    }

    /// The inode that a directory entry refers to, by its slot and its type.
    ///
    /// Cost: constant.
    ///
    /// # Errors
    ///
    /// [`MetadataErrorKind::NoSuchInode`](super::MetadataErrorKind::NoSuchInode),
    /// [`MetadataErrorKind::TypeMismatch`](super::MetadataErrorKind::TypeMismatch).
    pub fn target(&self, slot: u16, inode_type: InodeType) -> Result<Inode<'a>> {
        let inode = self.inode(slot)?;
        if inode.inode_type() != inode_type {
            return Err(Kind::TypeMismatch.into());
        }
        Ok(inode)
    }

    /// The directory that another directory refers to as its parent.
    ///
    /// Cost: constant.
    ///
    /// # Errors
    ///
    /// [`MetadataErrorKind::NoSuchInode`](super::MetadataErrorKind::NoSuchInode),
    /// [`MetadataErrorKind::ParentType`](super::MetadataErrorKind::ParentType).
    pub fn parent(&self, slot: u16) -> Result<Inode<'a>> {
        let inode = self.inode(slot)?;
        if inode.inode_type() != InodeType::Directory {
            return Err(Kind::ParentType.into());
        }
        Ok(inode)
    }
}
