// SPDX-License-Identifier: MIT OR Apache-2.0

//! Operations on an image.

use super::{
    super::{
        attributes::Attributes,
        block::Block,
        directory::{Entries, InodeRef},
        error::{MetadataError, MetadataErrorKind as Kind},
        extents::{Extent, Extents},
        inode::{Content, Inode},
        inode_type::InodeType,
        list_block::ListElements,
        parts::Parts,
        root::{Child, ChildType, RootLayout},
    },
    loading::{load_block, load_block_list, malformed, read_block, read_block_list, read_root},
    long_lists::{walk, Begin, Leaves},
    node::{LoadedInode, Node},
    numbers::{find_block, find_inodes, Wanted},
    source::{ChunkSource, MetadataChunk},
};
use crate::limits::ROOT_INO;
use core::ops::ControlFlow;

/// An image: its root, and a source of the other chunks.
///
/// All operations load the chunks that they need, and so fail with the errors of the source. An error
/// names the chunk that violates a rule.
#[derive(Debug)]
pub struct Tree<S: ChunkSource> {
    source: S,
    root: S::Chunk,
    layout: RootLayout,
}

/// The inode that an entry refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The place of the inode.
    pub node: Node,
    /// The number of the inode.
    pub ino: u64,
    /// The type that the inode must have; see [`Tree::open`].
    pub inode_type: InodeType,
}

/// An entry of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeEntry<'a> {
    /// The name.
    pub name: &'a [u8],
    /// The inode.
    pub to: Target,
    /// The cursor that continues a listing after this entry: the number of entries up to it.
    pub cursor: u64,
}

impl<S: ChunkSource> Tree<S> {
    /// Makes an image of its root.
    ///
    /// # Errors
    ///
    /// [`MetadataErrorKind::MessageKind`](super::super::MetadataErrorKind::MessageKind) if the chunk
    /// is not a root.
    pub fn new(source: S, root: S::Chunk) -> Result<Self, S::Error> {
        let layout = *root
            .layout()
            .root()
            .map_err(|e| malformed(&source, &root, e))?;
        Ok(Self {
            source,
            root,
            layout,
        })
    }

    /// The source of chunks.
    pub fn source(&self) -> &S {
        &self.source
    }

    /// The chunk with the root.
    pub fn root_chunk(&self) -> &S::Chunk {
        &self.root
    }

    /// The number of inodes, and the size of all data.
    pub fn layout(&self) -> &RootLayout {
        &self.layout
    }

    /// Opens the root directory.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn root(&self) -> Result<LoadedInode<S::Chunk>, S::Error> {
        self.open(Node::ROOT, None)
    }

    /// Gives the references to all blocks in order, until `give` returns `Break`. Loads no block.
    ///
    /// Cost: the number of blocks, and one loaded chunk for each block list.
    ///
    /// # Errors
    ///
    /// Those of a chunk that differs from the reference to it.
    pub fn for_each_block<B>(
        &self,
        mut give: impl FnMut(&Child) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, S::Error> {
        let children = read_root(&self.source, &self.root)?;
        for child in children.iter() {
            let child = child.map_err(|e| malformed(&self.source, &self.root, e))?;
            if children.child_type() == ChildType::Block {
                if let broken @ ControlFlow::Break(_) = give(&child) {
                    return Ok(broken);
                }
                continue;
            }
            let list = load_block_list(&self.source, &child)?;
            for child in read_block_list(&self.source, &list)?.iter() {
                let child = child.map_err(|e| malformed(&self.source, &list, e))?;
                if let broken @ ControlFlow::Break(_) = give(&child) {
                    return Ok(broken);
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Finds the place of an inode; `None` if the image has none of that number.
    ///
    /// Cost: at most 23 comparisons, and one loaded chunk in an image of more than 1,024 blocks.
    pub fn find(&self, ino: u64) -> Result<Option<Node>, S::Error> {
        let Some(position) = self.layout.position(ino) else {
            return Ok(None);
        };
        let found = find_block(&self.source, &self.root, Wanted::Inode(position))?;
        let node = found.and_then(|found| {
            Some(Node {
                block: u32::try_from(found.start.blocks).ok()?,
                slot: u16::try_from(found.slot).ok()?,
            })
        });
        Ok(node)
    }

    /// Returns the number of an inode.
    ///
    /// Cost: as [`find`](Self::find).
    ///
    /// # Errors
    ///
    /// [`MetadataErrorKind::NoSuchInode`](super::super::MetadataErrorKind::NoSuchInode).
    pub fn ino(&self, node: Node) -> Result<u64, S::Error> {
        self.number(&mut None, node)?
            .ok_or_else(|| malformed(&self.source, &self.root, Kind::NoSuchInode))
    }

    /// Opens an inode: loads its block. `inode_type` is the type that an entry states.
    ///
    /// Cost: that of [`find`](Self::find), and one loaded chunk.
    ///
    /// # Errors
    ///
    /// [`MetadataErrorKind::NoSuchInode`]; [`MetadataErrorKind::TypeMismatch`];
    /// [`MetadataErrorKind::RootType`] if the first inode is not a directory; and those of a chunk that
    /// differs from the reference to it.
    ///
    /// [`MetadataErrorKind::NoSuchInode`]: super::super::MetadataErrorKind::NoSuchInode
    /// [`MetadataErrorKind::TypeMismatch`]: super::super::MetadataErrorKind::TypeMismatch
    /// [`MetadataErrorKind::RootType`]: super::super::MetadataErrorKind::RootType
    pub fn open(
        &self,
        node: Node,
        inode_type: Option<InodeType>,
    ) -> Result<LoadedInode<S::Chunk>, S::Error> {
        let found = find_block(&self.source, &self.root, Wanted::Block(node.block.into()))?
            .ok_or_else(|| malformed(&self.source, &self.root, Kind::NoSuchInode))?;
        let block = load_block(&self.source, &found.child)?;
        let loaded = LoadedInode {
            block,
            node,
            ino: RootLayout::ino(found.start.inodes, node.slot),
        };
        self.check_type(loaded, inode_type)
    }

    /// Opens an inode that a directory refers to, as [`open`](Self::open) does. If it lies in the block
    /// of the directory, nothing is searched or loaded.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_in(
        &self,
        directory: &LoadedInode<S::Chunk>,
        target: &Target,
    ) -> Result<LoadedInode<S::Chunk>, S::Error>
    where
        S::Chunk: Clone,
    {
        if target.node.block != directory.node.block {
            return self.open(target.node, Some(target.inode_type));
        }
        let loaded = LoadedInode {
            block: directory.block.clone(),
            node: target.node,
            ino: target.ino,
        };
        self.check_type(loaded, Some(target.inode_type))
    }

    /// Checks the type of an inode that was opened.
    fn check_type(
        &self,
        loaded: LoadedInode<S::Chunk>,
        inode_type: Option<InodeType>,
    ) -> Result<LoadedInode<S::Chunk>, S::Error> {
        let actual = self.inode(&loaded)?.inode_type();
        if inode_type.is_some_and(|expected| expected != actual) {
            return Err(self.broken(&loaded, Kind::TypeMismatch));
        }
        if loaded.node == Node::ROOT && actual != InodeType::Directory {
            return Err(self.broken(&loaded, Kind::RootType));
        }
        Ok(loaded)
    }

    /// Reads an inode.
    ///
    /// Cost: constant.
    ///
    /// # Errors
    ///
    /// [`MetadataErrorKind::NoSuchInode`](super::super::MetadataErrorKind::NoSuchInode).
    pub fn inode<'a>(&self, loaded: &'a LoadedInode<S::Chunk>) -> Result<Inode<'a>, S::Error> {
        read_block(&self.source, &loaded.block)?
            .inode(loaded.node.slot)
            .map_err(|e| malformed(&self.source, &loaded.block, e))
    }

    /// Reads the block of an inode.
    ///
    /// Cost: constant.
    ///
    /// # Errors
    ///
    /// [`MetadataErrorKind::Misuse`](super::super::MetadataErrorKind::Misuse).
    pub fn block<'a>(&self, loaded: &'a LoadedInode<S::Chunk>) -> Result<Block<'a>, S::Error> {
        read_block(&self.source, &loaded.block)
    }

    /// Opens the parent of a directory, which is the directory itself for the root.
    ///
    /// Cost: as [`open`](Self::open).
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open);
    /// [`MetadataErrorKind::ParentType`](super::super::MetadataErrorKind::ParentType).
    pub fn parent(
        &self,
        directory: &LoadedInode<S::Chunk>,
    ) -> Result<LoadedInode<S::Chunk>, S::Error> {
        let parent = self
            .inode(directory)?
            .parent()
            .ok_or_else(|| self.broken(directory, Kind::Misuse))?;
        let node = directory
            .node
            .follow(parent)
            .ok_or_else(|| self.broken(directory, Kind::NoSuchInode))?;
        if self.number(&mut None, node)?.is_none() {
            return Err(self.broken(directory, Kind::NoSuchInode));
        }
        let parent = self.open(node, None)?;
        if self.inode(&parent)?.inode_type() != InodeType::Directory {
            return Err(self.broken(directory, Kind::ParentType));
        }
        Ok(parent)
    }

    /// Finds the entry of a name; `None` if the directory has none.
    ///
    /// Cost: a binary search, and at most three loaded list blocks with one search in each.
    ///
    /// # Errors
    ///
    /// [`MetadataErrorKind::NoSuchInode`](super::super::MetadataErrorKind::NoSuchInode), and those of
    /// list blocks.
    pub fn lookup(
        &self,
        directory: &LoadedInode<S::Chunk>,
        name: &[u8],
    ) -> Result<Option<Target>, S::Error> {
        let mut search = Search { tree: self, name };
        let block = self.block(directory)?;
        let found = match self.content_in(&block, directory)? {
            Content::Directory(entries) => search.find(&directory.block, &entries)?,
            Content::LongDirectory(parts) => {
                let begin = Begin::Name(name);
                match self.walk(directory, &parts, begin, &mut search)? {
                    ControlFlow::Break(found) => found,
                    ControlFlow::Continue(()) => None,
                }
            }
            _ => return Err(self.broken(directory, Kind::Misuse)),
        };
        let Some((inode_type, to)) = found else {
            return Ok(None);
        };
        // Most inodes lie in the block of their directory.
        let mut last = Some(NumberedBlock::of(directory, block.len()));
        self.target(directory, &mut last, inode_type, to).map(Some)
    }

    /// Gives the entries of a directory from a cursor on, until `give` returns `Break`. The cursor 0 is
    /// the beginning. Cursors of one image are valid as long as there is such an image.
    ///
    /// Cost: constant for each entry, and one loaded chunk for each list block. Before, in a long
    /// directory, at most three times the number of parts of a list block.
    ///
    /// # Errors
    ///
    /// As [`lookup`](Self::lookup).
    pub fn for_each_entry<B>(
        &self,
        directory: &LoadedInode<S::Chunk>,
        cursor: u64,
        give: impl FnMut(TreeEntry<'_>) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, S::Error> {
        let Ok(first) = u32::try_from(cursor) else {
            return Ok(ControlFlow::Continue(()));
        };
        let block = self.block(directory)?;
        let mut listing = Listing {
            tree: self,
            directory,
            give,
            last: Some(NumberedBlock::of(directory, block.len())),
        };
        match self.content_in(&block, directory)? {
            Content::Directory(entries) => listing.give(&directory.block, &entries, first, 0),
            Content::LongDirectory(parts) => {
                self.walk(directory, &parts, Begin::Element(first), &mut listing)
            }
            _ => Err(self.broken(directory, Kind::Misuse)),
        }
    }

    /// The number of entries of a directory.
    ///
    /// Cost: constant; in a long directory, the number of parts.
    ///
    /// # Errors
    ///
    /// [`MetadataErrorKind::Misuse`](super::super::MetadataErrorKind::Misuse).
    pub fn entry_count(&self, directory: &LoadedInode<S::Chunk>) -> Result<u64, S::Error> {
        match self.content(directory)? {
            Content::Directory(entries) => Ok(entries.len().into()),
            Content::LongDirectory(parts) => Ok(parts.count().into()),
            _ => Err(self.broken(directory, Kind::Misuse)),
        }
    }

    /// Gives the extents of a regular file, from the one that contains an offset on, until `give`
    /// returns `Break`. There are none from an offset at the end of the file or beyond.
    ///
    /// Cost: a binary search and at most three loaded list blocks with one search in each; then constant
    /// for each extent, and one loaded chunk for each list block.
    ///
    /// # Errors
    ///
    /// Those of list blocks.
    pub fn for_each_extent<B>(
        &self,
        file: &LoadedInode<S::Chunk>,
        offset: u64,
        give: impl FnMut(Extent) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, S::Error> {
        let mut pieces = Pieces { tree: self, give };
        let begin = Begin::Offset(offset);
        match self.content(file)? {
            Content::File(extents) => pieces.give(&file.block, &extents, begin),
            Content::LongFile(parts) => self.walk(file, &parts, begin, &mut pieces),
            _ => Err(self.broken(file, Kind::Misuse)),
        }
    }

    /// Reads the extended attributes of an inode.
    ///
    /// Cost: constant.
    ///
    /// # Errors
    ///
    /// [`MetadataErrorKind::Misuse`](super::super::MetadataErrorKind::Misuse).
    pub fn attributes<'a>(
        &self,
        loaded: &'a LoadedInode<S::Chunk>,
    ) -> Result<Attributes<'a>, S::Error> {
        let attributes = self.inode(loaded)?.attributes();
        attributes.map_err(|e| self.broken(loaded, e))
    }

    /// Reads the content of an inode.
    ///
    /// Cost: constant.
    ///
    /// # Errors
    ///
    /// [`MetadataErrorKind::Misuse`](super::super::MetadataErrorKind::Misuse).
    pub fn content<'a>(&self, loaded: &'a LoadedInode<S::Chunk>) -> Result<Content<'a>, S::Error> {
        self.content_in(&self.block(loaded)?, loaded)
    }

    /// Reads the content of an inode of a block that was read.
    fn content_in<'a>(
        &self,
        block: &Block<'a>,
        loaded: &LoadedInode<S::Chunk>,
    ) -> Result<Content<'a>, S::Error> {
        let content = block
            .inode(loaded.node.slot)
            .and_then(|inode| inode.content());
        content.map_err(|e| self.broken(loaded, e))
    }

    /// Returns the error for a violated rule of an inode's block.
    pub fn broken(&self, loaded: &LoadedInode<S::Chunk>, e: impl Into<MetadataError>) -> S::Error {
        malformed(&self.source, &loaded.block, e)
    }

    /// Walks through the list blocks of an inode.
    fn walk<L: Leaves<S>>(
        &self,
        loaded: &LoadedInode<S::Chunk>,
        parts: &Parts<'_>,
        begin: Begin<'_>,
        leaves: &mut L,
    ) -> Result<ControlFlow<L::Break>, S::Error> {
        walk(&self.source, &loaded.block, parts, begin, 0, leaves)
    }

    /// Returns the inode that an entry refers to.
    #[inline]
    fn target(
        &self,
        directory: &LoadedInode<S::Chunk>,
        last: &mut Option<NumberedBlock>,
        inode_type: InodeType,
        to: InodeRef,
    ) -> Result<Target, S::Error> {
        let missing = || self.broken(directory, Kind::NoSuchInode);
        let node = directory.node.follow(to).ok_or_else(missing)?;
        let ino = self.number(last, node)?.ok_or_else(missing)?;
        Ok(Target {
            node,
            ino,
            inode_type,
        })
    }

    /// Returns the number of an inode; `None` if the image does not have it. `last` is the block that
    /// was searched before.
    #[inline]
    fn number(
        &self,
        last: &mut Option<NumberedBlock>,
        node: Node,
    ) -> Result<Option<u64>, S::Error> {
        let block = match *last {
            Some(last) if last.number == node.block => last,
            _ => match self.find_numbers(node.block)? {
                Some(found) => *last.insert(found),
                None => return Ok(None),
            },
        };
        let is_there = u32::from(node.slot) < block.inodes;
        Ok(is_there.then(|| RootLayout::ino(block.before, node.slot)))
    }

    /// Finds the numbers of the inodes in a block; `None` if the image does not have it.
    // Not inlined, because most entries of a directory follow one that lies in the same block.
    #[inline(never)]
    fn find_numbers(&self, number: u32) -> Result<Option<NumberedBlock>, S::Error> {
        let found = find_inodes(&self.source, &self.root, number)?;
        Ok(found.map(|(before, inodes)| NumberedBlock {
            number,
            before,
            inodes,
        }))
    }
}

/// A block, and the numbers of its inodes.
#[derive(Clone, Copy)]
struct NumberedBlock {
    number: u32,
    /// The number of inodes in the blocks before it.
    before: u64,
    /// The number of inodes in it.
    inodes: u32,
}

impl NumberedBlock {
    /// Returns the block of an inode, which has so many inodes.
    fn of<C>(loaded: &LoadedInode<C>, inodes: u32) -> Self {
        let position = loaded.ino.saturating_sub(ROOT_INO);
        Self {
            number: loaded.node.block,
            before: position.saturating_sub(loaded.node.slot.into()),
            inodes,
        }
    }
}

/// A search for the entry of a name, which ends with the first leaf.
struct Search<'t, S: ChunkSource> {
    tree: &'t Tree<S>,
    name: &'t [u8],
}

impl<S: ChunkSource> Search<'_, S> {
    fn find(
        &self,
        chunk: &S::Chunk,
        entries: &Entries<'_>,
    ) -> Result<Option<(InodeType, InodeRef)>, S::Error> {
        let found = entries
            .find(self.name)
            .map_err(|e| malformed(&self.tree.source, chunk, e))?;
        Ok(found.map(|(_, entry)| (entry.inode_type, entry.inode)))
    }
}

impl<S: ChunkSource> Leaves<S> for Search<'_, S> {
    type Break = Option<(InodeType, InodeRef)>;

    fn leaf(
        &mut self,
        chunk: &S::Chunk,
        elements: ListElements<'_>,
        _: Begin<'_>,
        _: u32,
    ) -> Result<ControlFlow<Self::Break>, S::Error> {
        let ListElements::Entries(entries) = elements else {
            return Err(malformed(&self.tree.source, chunk, Kind::Misuse));
        };
        self.find(chunk, &entries).map(ControlFlow::Break)
    }
}

/// A listing of a directory.
struct Listing<'t, S: ChunkSource, F> {
    tree: &'t Tree<S>,
    directory: &'t LoadedInode<S::Chunk>,
    give: F,
    /// The block of the inode that was given last.
    last: Option<NumberedBlock>,
}

impl<S: ChunkSource, B, F: FnMut(TreeEntry<'_>) -> ControlFlow<B>> Listing<'_, S, F> {
    /// Gives entries from a position on. Before the first one, there are `before` entries.
    fn give(
        &mut self,
        chunk: &S::Chunk,
        entries: &Entries<'_>,
        first: u32,
        before: u32,
    ) -> Result<ControlFlow<B>, S::Error> {
        for position in first..entries.len() {
            let entry = entries
                .get(position)
                .and_then(|entry| entry.ok_or(Kind::Misuse.into()))
                .map_err(|e| malformed(&self.tree.source, chunk, e))?;
            let (inode_type, inode) = (entry.inode_type, entry.inode);
            let to = self
                .tree
                .target(self.directory, &mut self.last, inode_type, inode)?;
            let entry = TreeEntry {
                name: entry.name,
                to,
                cursor: u64::from(before)
                    .saturating_add(position.into())
                    .saturating_add(1),
            };
            if let broken @ ControlFlow::Break(_) = (self.give)(entry) {
                return Ok(broken);
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

impl<S: ChunkSource, B, F: FnMut(TreeEntry<'_>) -> ControlFlow<B>> Leaves<S> for Listing<'_, S, F> {
    type Break = B;

    fn leaf(
        &mut self,
        chunk: &S::Chunk,
        elements: ListElements<'_>,
        begin: Begin<'_>,
        before: u32,
    ) -> Result<ControlFlow<B>, S::Error> {
        let ListElements::Entries(entries) = elements else {
            return Err(malformed(&self.tree.source, chunk, Kind::Misuse));
        };
        let first = match begin {
            Begin::Element(number) => number,
            Begin::First | Begin::Name(_) | Begin::Offset(_) => 0,
        };
        self.give(chunk, &entries, first, before)
    }
}

/// A walk through the extents of a file.
struct Pieces<'t, S: ChunkSource, F> {
    tree: &'t Tree<S>,
    give: F,
}

impl<S: ChunkSource, B, F: FnMut(Extent) -> ControlFlow<B>> Pieces<'_, S, F> {
    fn give(
        &mut self,
        chunk: &S::Chunk,
        extents: &Extents<'_>,
        begin: Begin<'_>,
    ) -> Result<ControlFlow<B>, S::Error> {
        let broken = |e| malformed(&self.tree.source, chunk, e);
        let first = match begin {
            Begin::Offset(offset) => match extents.find(offset).map_err(broken)? {
                Some((position, _)) => position,
                None => return Ok(ControlFlow::Continue(())),
            },
            Begin::First | Begin::Element(_) | Begin::Name(_) => 0,
        };
        for position in first..extents.len() {
            let extent = extents
                .get(position)
                .and_then(|extent| extent.ok_or(Kind::Misuse.into()))
                .map_err(broken)?;
            if let broken @ ControlFlow::Break(_) = (self.give)(extent) {
                return Ok(broken);
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

impl<S: ChunkSource, B, F: FnMut(Extent) -> ControlFlow<B>> Leaves<S> for Pieces<'_, S, F> {
    type Break = B;

    fn leaf(
        &mut self,
        chunk: &S::Chunk,
        elements: ListElements<'_>,
        begin: Begin<'_>,
        _: u32,
    ) -> Result<ControlFlow<B>, S::Error> {
        let ListElements::Extents(extents) = elements else {
            return Err(malformed(&self.tree.source, chunk, Kind::Misuse));
        };
        self.give(chunk, &extents, begin)
    }
}
