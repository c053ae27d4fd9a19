// SPDX-License-Identifier: MIT OR Apache-2.0

//! The chunks that a block refers to.

use super::{
    chunk::{ChunkError, ChunkRef},
    error::{ListName, MetadataError, MetadataErrorKind as Kind, Result},
    message::{Element, Elements},
    words::{halves, split_digest},
};
use crate::digest::Digest;

/// A reference to a chunk, as it stands in a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct StoredRef {
    digest: Digest,
    stored_len: u32,
    content_len: u32,
}

impl StoredRef {
    /// The number of words of a reference.
    pub(super) const WORDS: u32 = 5;

    /// Reads a reference, and what follows it.
    #[inline]
    pub(super) fn split(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (digest, rest) = split_digest(bytes)?;
        let (lens, rest) = rest.split_first_chunk()?;
        let (stored_len, content_len) = halves(u64::from_le_bytes(*lens));
        let stored = Self {
            digest,
            stored_len,
            content_len,
        };
        Some((stored, rest))
    }

    /// Checks the reference as one to a chunk of any type.
    pub(super) fn data(&self) -> core::result::Result<ChunkRef, ChunkError> {
        ChunkRef::new(self.digest, self.stored_len, self.content_len)
    }

    /// Checks the reference as one to a metadata chunk.
    pub(super) fn metadata(&self) -> core::result::Result<ChunkRef, ChunkError> {
        ChunkRef::new_metadata(self.digest, self.stored_len, self.content_len)
    }
}

impl Element for StoredRef {
    const LIST: ListName = ListName::Chunks;
    const WORDS: u32 = Self::WORDS;

    #[inline]
    fn read(bytes: &[u8]) -> Option<Self> {
        Self::split(bytes).map(|(stored, _)| stored)
    }
}

/// The chunks of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunks<'a>(Elements<'a, StoredRef>);

impl<'a> Chunks<'a> {
    pub(super) fn new(chunks: Elements<'a, StoredRef>) -> Self {
        Self(chunks)
    }

    /// Checks all references.
    pub(super) fn check(&self) -> Result<()> {
        for (index, stored) in (0..).zip(self.0.iter()) {
            stored
                .data()
                .map_err(|e| MetadataError::from(e).at(ListName::Chunks, index))?;
        }
        Ok(())
    }

    /// All chunks.
    pub(super) fn iter(&self) -> impl Iterator<Item = ChunkRef> + 'a {
        self.0.iter().filter_map(|stored| stored.data().ok())
    }

    /// The chunk of a number.
    pub(super) fn get(&self, number: u32) -> Result<ChunkRef> {
        let stored = self.0.get(number).ok_or(Kind::ChunkNumber)?;
        Ok(stored.data()?)
    }

    /// The content length of the chunk of a number.
    #[inline]
    pub(super) fn content_len(&self, number: u32) -> Result<u32> {
        let stored = self.0.get(number).ok_or(Kind::ChunkNumber)?;
        Ok(stored.content_len)
    }
}
