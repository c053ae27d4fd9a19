// SPDX-License-Identifier: MIT OR Apache-2.0

//! Sources of metadata chunks.

use super::super::{
    block::BlockLayout,
    chunk::ChunkRef,
    differences::restore_values,
    error::{MetadataError, MetadataErrorKind as Kind, Result},
    list_block::ListLayout,
    message::{Message, MessageKind},
    root::{BlockListLayout, Children, RootLayout, Start},
};
use core::ops::{Deref, DerefMut};

/// A source of metadata chunks: a store, mostly with a cache.
///
/// A call can take long. A [`Tree`](super::Tree) has nothing locked meanwhile, and keeps at most five
/// chunks at a time.
pub trait ChunkSource {
    /// An error of the source.
    type Error;

    /// A chunk in memory. It keeps the chunk as long as it exists: a reference-counted pointer.
    type Chunk: Deref<Target: MetadataChunk>;

    /// The content of a chunk that has no structure.
    type Content: Deref<Target = [u8]>;

    /// Loads a metadata chunk: reads it, verifies it, decodes it, and checks it.
    ///
    /// A cache must have the whole reference as its key, because a malformed image can refer to a
    /// chunk by several lengths.
    fn load(&self, chunk: &ChunkRef) -> core::result::Result<Self::Chunk, Self::Error>;

    /// Loads a chunk that is the value of an extended attribute.
    fn content(&self, chunk: &ChunkRef) -> core::result::Result<Self::Content, Self::Error>;

    /// Makes the error for a violated rule of a chunk.
    fn malformed(&self, chunk: &ChunkRef, e: MetadataError) -> Self::Error;
}

/// A metadata chunk that was checked.
pub trait MetadataChunk {
    /// The reference by which the chunk was loaded.
    fn chunk(&self) -> &ChunkRef;

    /// The layout that was made of the content.
    fn layout(&self) -> &Layout;

    /// The content, with values instead of differences.
    fn bytes(&self) -> &[u8];

    /// The inodes and blocks before each child of a root or a block list, which
    /// [`Children::fill_starts`] wrote. Without them, each search reads all children.
    fn starts(&self) -> &[Start] {
        &[]
    }
}

/// The layout of a metadata chunk of any kind.
#[derive(Clone, Copy, Debug)]
pub enum Layout {
    /// A root.
    Root(RootLayout),
    /// A block list.
    BlockList(BlockListLayout),
    /// A block.
    Block(BlockLayout),
    /// A list block.
    List(ListLayout),
}

impl Layout {
    /// Checks a metadata chunk, whose content is `bytes`, by the rules of its kind.
    ///
    /// Cost: proportional to the length of the bytes, as [`BlockLayout::check`].
    ///
    /// # Errors
    ///
    /// Those of the kind; [`MetadataErrorKind::MessageKind`] if there is no such kind.
    ///
    /// [`MetadataErrorKind::MessageKind`]: super::super::MetadataErrorKind::MessageKind
    pub fn check(bytes: &[u8]) -> Result<Self> {
        Ok(match Message::kind_of(bytes)? {
            MessageKind::Root => Self::Root(RootLayout::check(bytes)?),
            MessageKind::BlockList => Self::BlockList(BlockListLayout::check(bytes)?),
            MessageKind::Block => Self::Block(BlockLayout::check(bytes)?),
            MessageKind::ListBlock => Self::List(ListLayout::check(bytes)?),
        })
    }

    /// Restores the values of a metadata chunk, whose stored content is `content`, and checks it.
    ///
    /// Cost: that of [`restore_values`] and of [`check`](Self::check).
    ///
    /// # Errors
    ///
    /// Those of [`check`](Self::check).
    pub fn restore(content: &mut [u8]) -> Result<Self> {
        restore_values(content);
        Self::check(content)
    }

    fn kind(&self) -> MessageKind {
        match self {
            Self::Root(_) => MessageKind::Root,
            Self::BlockList(_) => MessageKind::BlockList,
            Self::Block(_) => MessageKind::Block,
            Self::List(_) => MessageKind::ListBlock,
        }
    }

    /// The error that the chunk is of another kind than its reference requires.
    fn other_kind(&self) -> MetadataError {
        Kind::MessageKind(self.kind() as u16).into()
    }

    pub(super) fn root(&self) -> Result<&RootLayout> {
        match self {
            Self::Root(layout) => Ok(layout),
            _ => Err(self.other_kind()),
        }
    }

    pub(super) fn block_list(&self) -> Result<&BlockListLayout> {
        match self {
            Self::BlockList(layout) => Ok(layout),
            _ => Err(self.other_kind()),
        }
    }

    pub(super) fn block(&self) -> Result<&BlockLayout> {
        match self {
            Self::Block(layout) => Ok(layout),
            _ => Err(self.other_kind()),
        }
    }

    pub(super) fn list(&self) -> Result<&ListLayout> {
        match self {
            Self::List(layout) => Ok(layout),
            _ => Err(self.other_kind()),
        }
    }

    /// The children of a root or a block list; `None` for the other kinds.
    fn children<'a>(&self, bytes: &'a [u8]) -> Result<Option<Children<'a>>> {
        match self {
            Self::Root(layout) => layout.children(bytes).map(Some),
            Self::BlockList(layout) => layout.children(bytes).map(Some),
            Self::Block(_) | Self::List(_) => Ok(None),
        }
    }
}

/// A metadata chunk that was checked, in memory of the caller's.
///
/// # Invariants
///
/// `layout` was made of `bytes`. `starts` are those of the children, or empty.
#[derive(Clone, Debug)]
pub struct LoadedChunk<B, T> {
    chunk: ChunkRef,
    layout: Layout,
    bytes: B,
    starts: T,
}

impl<B: DerefMut<Target = [u8]>, T: DerefMut<Target = [Start]>> LoadedChunk<B, T> {
    /// Restores and checks a chunk, whose verified content is `bytes`. `allocate` makes a list of so many
    /// starts, at most [`MAX_CHILDREN`](super::super::MAX_CHILDREN), or an empty one.
    ///
    /// Cost: that of [`Layout::restore`].
    ///
    /// # Errors
    ///
    /// Those of [`Layout::restore`] and of `allocate`;
    /// [`MetadataErrorKind::Misuse`](super::super::MetadataErrorKind::Misuse) if the bytes do not
    /// have the content length.
    pub fn check<E: From<MetadataError>>(
        chunk: ChunkRef,
        mut bytes: B,
        allocate: impl FnOnce(usize) -> core::result::Result<T, E>,
    ) -> core::result::Result<Self, E> {
        if bytes.len() != chunk.content_len() as usize {
            return Err(MetadataError::from(Kind::Misuse).into());
        }
        let layout = Layout::restore(&mut bytes)?;
        let starts = match layout.children(&bytes)? {
            Some(children) => {
                let mut starts = allocate(children.len() as usize)?;
                if !starts.is_empty() {
                    children.fill_starts(&mut starts)?;
                }
                starts
            }
            None => allocate(0)?,
        };
        // INVARIANT: Both were just made of the bytes.
        Ok(Self {
            chunk,
            layout,
            bytes,
            starts,
        })
    }
}

impl<B: Deref<Target = [u8]>, T: Deref<Target = [Start]>> MetadataChunk for LoadedChunk<B, T> {
    fn chunk(&self) -> &ChunkRef {
        &self.chunk
    }

    fn layout(&self) -> &Layout {
        &self.layout
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn starts(&self) -> &[Start] {
        &self.starts
    }
}
