// SPDX-License-Identifier: MIT OR Apache-2.0

//! Chunks with their stored bytes.

use crate::error::{BuildError, Result};
use crate::model::chunk::ChunkEncoder;
use crate::model::tree::{NodeId, Tree};
use puzzlefs_schema::v4::{store_differences, ChunkRef, MetadataError};
use std::borrow::Cow;
use std::path::Path;

/// A chunk and its stored bytes.
#[derive(Clone, Debug)]
pub(crate) struct StoredChunk {
    pub chunk: ChunkRef,
    pub stored: Vec<u8>,
}

impl StoredChunk {
    /// Encodes a metadata chunk: a checked message.
    pub fn message(mut message: Vec<u8>, encoder: &ChunkEncoder) -> Result<Self> {
        store_differences(&mut message);
        Self::new(message, encoder)
    }

    /// Encodes a chunk with this content.
    pub fn new(content: Vec<u8>, encoder: &ChunkEncoder) -> Result<Self> {
        let encoded = encoder.encode(&content)?;
        let chunk = encoded.chunk;
        let frame = match encoded.stored {
            Cow::Owned(frame) => Some(frame),
            Cow::Borrowed(_) => None,
        };
        Ok(StoredChunk {
            chunk,
            stored: frame.unwrap_or(content),
        })
    }
}

/// Returns the error for metadata of a node that breaks a rule of the format.
pub(super) fn refused(tree: &Tree, node: NodeId, cause: MetadataError) -> BuildError {
    BuildError::Metadata {
        path: Path::new("/").join(tree.path(node)),
        cause,
    }
}
