// SPDX-License-Identifier: MIT OR Apache-2.0

//! The lists of a message that is being encoded.
//!
//! Equal strings, chunks and sets of attributes lie in a message once. An empty list is a null pointer.

use crate::build::blocks::extent::FileExtent;
use crate::build::blocks::records::{self, Header, Range};
use crate::image::encoding::{At, Message, Size, TooLarge};
use puzzlefs_schema::v4::{ChunkRef, InodeRef, InodeType};
use std::collections::HashMap;

/// The lists of a block or a list block. `'t` is the tree whose strings they hold.
#[derive(Default)]
pub(super) struct Lists<'t> {
    pub inodes: Vec<records::Inode>,
    pub entries: Vec<records::Entry>,
    pub extents: Vec<records::Extent>,
    pub parts: Vec<records::Part>,
    pub sets: Vec<records::Set>,
    pub attributes: Vec<records::Attribute>,
    chunks: Vec<records::Chunk>,
    pool: Vec<u8>,
    /// The number of each chunk.
    chunk_numbers: HashMap<ChunkRef, u32>,
    /// The chunk that was looked up last, and its number: many neighbours have the same.
    last_chunk: Option<(ChunkRef, u32)>,
    /// The place of each string in the pool.
    strings: HashMap<&'t [u8], u32>,
}

impl<'t> Lists<'t> {
    /// Returns the place of a string in the pool, to which it is added if it is missing.
    pub fn string(&mut self, string: &'t [u8]) -> Range {
        let pool = &mut self.pool;
        let first = *self.strings.entry(string).or_insert_with(|| {
            let first = pool.len() as u32;
            pool.extend_from_slice(string);
            first
        });
        Range {
            first,
            count: string.len() as u32,
        }
    }

    /// Returns the number of a chunk, which is added if it is missing.
    pub fn chunk(&mut self, chunk: &ChunkRef) -> u32 {
        if let Some((_, number)) = self.last_chunk.filter(|(last, _)| last == chunk) {
            return number;
        }
        let next = self.chunks.len() as u32;
        let number = *self.chunk_numbers.entry(*chunk).or_insert(next);
        if number == next {
            self.chunks.push(records::chunk(chunk));
        }
        self.last_chunk = Some((*chunk, number));
        number
    }

    /// Adds an entry of a directory.
    pub fn entry(&mut self, name: &'t [u8], inode_type: InodeType, inode: InodeRef) {
        let name = self.string(name);
        self.entries.push(records::entry(name, inode_type, inode));
    }

    /// Adds an extent of a file.
    pub fn extent(&mut self, extent: &FileExtent) {
        let chunk = extent.chunk().map_or(0, |chunk| self.chunk(chunk));
        self.extents.push(records::extent(extent, chunk));
    }

    /// Returns the message of a block.
    pub fn block(self) -> Result<Vec<u8>, TooLarge> {
        let (mut message, lists) = start(records::BLOCK, Header::Block, self.words())?;
        put(&mut message, lists, &self.inodes)?;
        put(&mut message, lists + 1, &self.entries)?;
        put(&mut message, lists + 2, &self.extents)?;
        put(&mut message, lists + 3, &self.chunks)?;
        put(&mut message, lists + 4, &self.parts)?;
        put(&mut message, lists + 5, &self.sets)?;
        put(&mut message, lists + 6, &self.attributes)?;
        message.data(lists + 7, &self.pool)?;
        Ok(message.finish())
    }

    /// Returns the message of a list block for an inode of a type.
    pub fn list_block(self, of: InodeType, level: u8) -> Result<Vec<u8>, TooLarge> {
        let header = Header::ListBlock { of, level };
        let (mut message, lists) = start(records::LIST_BLOCK, header, self.words())?;
        put(&mut message, lists, &self.entries)?;
        put(&mut message, lists + 1, &self.extents)?;
        put(&mut message, lists + 2, &self.chunks)?;
        put(&mut message, lists + 3, &self.parts)?;
        message.data(lists + 4, &self.pool)?;
        Ok(message.finish())
    }

    /// Returns the number of words that the lists take in a message.
    fn words(&self) -> usize {
        self.inodes.as_flattened().len()
            + self.entries.as_flattened().len()
            + self.extents.as_flattened().len()
            + self.chunks.as_flattened().len()
            + self.parts.as_flattened().len()
            + self.sets.as_flattened().len()
            + self.attributes.as_flattened().len()
            + self.pool.len().div_ceil(8)
    }
}

/// Returns the range that begins with the element after the first `first` ones, and ends with the last.
pub(super) fn range_from<T>(first: usize, list: &[T]) -> Range {
    Range {
        first: first as u32,
        count: (list.len() - first) as u32,
    }
}

/// Starts a message whose lists take so many words. Returns the place of the first pointer.
pub(super) fn start(root: Size, header: Header, words: usize) -> Result<(Message, At), TooLarge> {
    // Each list has a tag.
    let fixed = 1 + root.words() + root.pointers;
    let (mut message, at) = Message::new(root, fixed + words)?;
    message.set(at, header.word());
    Ok((message, at + root.data))
}

/// Adds a list of structures.
pub(super) fn put<const N: usize>(
    message: &mut Message,
    pointer: At,
    elements: &[[u64; N]],
) -> Result<(), TooLarge> {
    let size = Size {
        data: N,
        pointers: 0,
    };
    let first = message.list(pointer, elements.len(), size)?;
    for (at, word) in (first..).zip(elements.as_flattened()) {
        message.set(at, *word);
    }
    Ok(())
}
