// SPDX-License-Identifier: MIT OR Apache-2.0

//! Chunks of an image in memory, as a source that counts what is loaded.

use puzzlefs_schema::v4::{ChunkRef, ChunkSource, LoadedChunk, MetadataError, Start};
use puzzlefs_schema::{steps::count, Digest};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

pub type Chunk = Rc<LoadedChunk<Vec<u8>, Vec<Start>>>;

/// An error of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TreeError {
    /// The chunk of a digest is missing.
    Missing(Digest),
    /// The chunk of a digest violates a rule.
    Malformed(Digest, MetadataError),
}

impl From<MetadataError> for TreeError {
    fn from(e: MetadataError) -> Self {
        Self::Malformed(Digest::new([0; 32]), e)
    }
}

/// The chunk that a reference leads to.
#[derive(Clone, Copy, Debug)]
pub enum Naming {
    /// The one with the digest and the length.
    Digests,
    /// The one whose number is in the first four bytes of the digest, after division by their number:
    /// so that any reference leads to one.
    Numbers,
}

/// The raw chunks of an image.
#[derive(Debug)]
pub struct Chunks {
    chunks: Vec<([u8; 32], Vec<u8>)>,
    by_digest: HashMap<[u8; 32], usize>,
    naming: Naming,
    /// True if the starts of children are kept.
    pub keep_starts: bool,
    loaded: RefCell<HashMap<usize, Result<Chunk, MetadataError>>>,
    loads: Cell<u64>,
    check_steps: Cell<u64>,
}

impl Chunks {
    pub fn new(chunks: Vec<([u8; 32], Vec<u8>)>, naming: Naming) -> Self {
        let digests = chunks.iter().enumerate();
        Self {
            by_digest: digests.map(|(at, chunk)| (chunk.0, at)).collect(),
            chunks,
            naming,
            keep_starts: true,
            loaded: RefCell::default(),
            loads: Cell::new(0),
            check_steps: Cell::new(0),
        }
    }

    /// Loads the last chunk, which is the root.
    pub fn root(&self) -> Result<Chunk, TreeError> {
        self.get(self.chunks.len() - 1)
    }

    /// The number of chunks that were loaded.
    pub fn loads(&self) -> u64 {
        self.loads.get()
    }

    /// The steps of checks of chunks.
    pub fn check_steps(&self) -> u64 {
        self.check_steps.get()
    }

    fn number(&self, chunk: &ChunkRef) -> Option<usize> {
        let digest = chunk.digest().as_bytes();
        let at = match self.naming {
            Naming::Digests => *self.by_digest.get(digest)?,
            Naming::Numbers => {
                let number = digest
                    .first_chunk()
                    .map(|bytes| u32::from_le_bytes(*bytes))?;
                number as usize % self.chunks.len()
            }
        };
        let len = self.chunks[at].1.len();
        let is_exact = matches!(self.naming, Naming::Digests);
        (!is_exact || chunk.content_len() as usize == len).then_some(at)
    }

    fn get(&self, at: usize) -> Result<Chunk, TreeError> {
        self.loads.set(self.loads.get() + 1);
        let (digest, bytes) = &self.chunks[at];
        let digest = Digest::new(*digest);
        let len = bytes.len() as u32;
        let check = || {
            let chunk = ChunkRef::new_metadata(digest, len, len)?;
            let starts = |len| {
                Ok(vec![
                    Start::default();
                    if self.keep_starts { len } else { 0 }
                ])
            };
            LoadedChunk::check(chunk, bytes.clone(), starts).map(Rc::new)
        };
        let mut loaded = self.loaded.borrow_mut();
        let (steps, chunk) = count(|| loaded.entry(at).or_insert_with(check).clone());
        self.check_steps.set(self.check_steps.get() + steps);
        chunk.map_err(|e| TreeError::Malformed(digest, e))
    }
}

impl ChunkSource for &Chunks {
    type Error = TreeError;
    type Chunk = Chunk;
    type Content = Vec<u8>;

    fn load(&self, chunk: &ChunkRef) -> Result<Chunk, TreeError> {
        let missing = TreeError::Missing(*chunk.digest());
        self.get(self.number(chunk).ok_or(missing)?)
    }

    fn content(&self, chunk: &ChunkRef) -> Result<Vec<u8>, TreeError> {
        self.loads.set(self.loads.get() + 1);
        match self.naming {
            Naming::Digests => {
                let missing = TreeError::Missing(*chunk.digest());
                Ok(self.chunks[self.number(chunk).ok_or(missing)?].1.clone())
            }
            Naming::Numbers => Ok(vec![b'v'; chunk.content_len() as usize]),
        }
    }

    fn malformed(&self, chunk: &ChunkRef, e: MetadataError) -> TreeError {
        TreeError::Malformed(*chunk.digest(), e)
    }
}
