// SPDX-License-Identifier: MIT OR Apache-2.0

//! The metadata chunks of a store, for trees of images of format 4.

use crate::error::{Error, ImageError, Result};
use crate::image::recent::Recent;
use crate::model::digest::Digest;
use crate::store::chunks::reader::ChunkReader;
use crate::store::oci_layout::Store;
use crate::sys::parallel::lock;
use puzzlefs_schema::v4::{ChunkRef, ChunkSource, LoadedChunk, MetadataError, Start, Tree};
use std::sync::{Arc, Mutex};

/// The most bytes of metadata chunks that an image keeps in memory.
const CACHE_BYTES: usize = 64 << 20;

/// A metadata chunk in memory.
pub type MetadataBlock = Arc<LoadedChunk<Vec<u8>, Vec<Start>>>;

/// Chunks of a store. Metadata chunks that were used last stay in memory.
pub struct StoreChunks<'s> {
    reader: ChunkReader<'s>,
    recent: Mutex<Recent<MetadataBlock>>,
}

impl<'s> StoreChunks<'s> {
    /// Opens the chunks of a store.
    pub(crate) fn new(store: &'s Store) -> Result<Self> {
        Ok(Self::with(ChunkReader::new(store)?))
    }

    /// Opens the chunks that the index of a store lists.
    pub(crate) fn of_index(store: &'s Store) -> Result<Self> {
        Ok(Self::with(ChunkReader::of_index(store)?))
    }

    fn with(reader: ChunkReader<'s>) -> Self {
        StoreChunks {
            reader,
            recent: Mutex::new(Recent::new(CACHE_BYTES)),
        }
    }

    /// Opens the tree of an image, whose root has this digest.
    pub(crate) fn open_tree(self, root: &Digest) -> Result<Tree<Self>> {
        let (chunk, content) = self.reader.root(root)?;
        let root = self.check(&chunk, content)?;
        Tree::new(self, root)
    }

    /// The reader of chunks.
    pub(crate) fn reader(&self) -> &ChunkReader<'s> {
        &self.reader
    }

    /// Returns an error about the metadata of an image as a whole.
    pub(crate) fn inconsistent(&self, what: String) -> Error {
        let path = self.reader.store().path().to_path_buf();
        ImageError::Inconsistent { path, what }.into()
    }

    /// Checks a metadata chunk.
    pub(crate) fn check(&self, chunk: &ChunkRef, content: Vec<u8>) -> Result<MetadataBlock> {
        let starts = |len| Ok::<_, MetadataError>(vec![Start::default(); len]);
        match LoadedChunk::check(*chunk, content, starts) {
            Ok(loaded) => Ok(Arc::new(loaded)),
            Err(e) => Err(self.malformed(chunk, e)),
        }
    }
}

impl ChunkSource for StoreChunks<'_> {
    type Error = Error;
    type Chunk = MetadataBlock;
    type Content = Vec<u8>;

    fn load(&self, chunk: &ChunkRef) -> Result<MetadataBlock> {
        if let Some(loaded) = lock(&self.recent).get(chunk) {
            return Ok(loaded);
        }
        let loaded = self.check(chunk, self.content(chunk)?)?;
        lock(&self.recent).insert(chunk, Arc::clone(&loaded));
        Ok(loaded)
    }

    fn content(&self, chunk: &ChunkRef) -> Result<Vec<u8>> {
        let mut content = Vec::new();
        self.reader.read(chunk, &mut content)?;
        Ok(content)
    }

    fn malformed(&self, chunk: &ChunkRef, cause: MetadataError) -> Error {
        ImageError::MalformedChunk {
            store: self.reader.store().path().to_path_buf(),
            chunk: Digest::from(*chunk.digest()),
            cause,
        }
        .into()
    }
}
