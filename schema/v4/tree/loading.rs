// SPDX-License-Identifier: MIT OR Apache-2.0

//! Loading of chunks by the references to them, with the rules that connect both.

use super::{
    super::{
        block::Block,
        error::MetadataError,
        list_block::ListElements,
        parts::Part,
        root::{Child, Children},
    },
    source::{ChunkSource, MetadataChunk},
};

/// Returns the error for a violated rule of a loaded chunk.
#[cold]
pub(super) fn malformed<S: ChunkSource>(
    source: &S,
    chunk: &S::Chunk,
    e: impl Into<MetadataError>,
) -> S::Error {
    source.malformed(chunk.chunk(), e.into())
}

/// Loads a block.
pub(super) fn load_block<S: ChunkSource>(source: &S, child: &Child) -> Result<S::Chunk, S::Error> {
    let chunk = source.load(&child.chunk)?;
    chunk
        .layout()
        .block()
        .and_then(|layout| layout.check_child(child))
        .map_err(|e| malformed(source, &chunk, e))?;
    Ok(chunk)
}

/// Loads a block list.
pub(super) fn load_block_list<S: ChunkSource>(
    source: &S,
    child: &Child,
) -> Result<S::Chunk, S::Error> {
    let chunk = source.load(&child.chunk)?;
    chunk
        .layout()
        .block_list()
        .and_then(|layout| layout.check_child(child))
        .map_err(|e| malformed(source, &chunk, e))?;
    Ok(chunk)
}

/// Reads a block.
pub(super) fn read_block<'a, S: ChunkSource>(
    source: &S,
    chunk: &'a S::Chunk,
) -> Result<Block<'a>, S::Error> {
    chunk
        .layout()
        .block()
        .and_then(|layout| Block::new(layout, chunk.bytes()))
        .map_err(|e| malformed(source, chunk, e))
}

/// Reads the children of a root.
pub(super) fn read_root<'a, S: ChunkSource>(
    source: &S,
    chunk: &'a S::Chunk,
) -> Result<Children<'a>, S::Error> {
    chunk
        .layout()
        .root()
        .and_then(|layout| layout.children(chunk.bytes()))
        .map_err(|e| malformed(source, chunk, e))
}

/// Reads the children of a block list.
pub(super) fn read_block_list<'a, S: ChunkSource>(
    source: &S,
    chunk: &'a S::Chunk,
) -> Result<Children<'a>, S::Error> {
    chunk
        .layout()
        .block_list()
        .and_then(|layout| layout.children(chunk.bytes()))
        .map_err(|e| malformed(source, chunk, e))
}

/// Reads a list block, which was loaded for a part.
pub(super) fn read_list<'a, S: ChunkSource>(
    source: &S,
    chunk: &'a S::Chunk,
    part: &Part<'a>,
) -> Result<ListElements<'a>, S::Error> {
    chunk
        .layout()
        .list()
        .and_then(|layout| layout.read(chunk.bytes(), part))
        .map_err(|e| malformed(source, chunk, e))
}
