// SPDX-License-Identifier: MIT OR Apache-2.0

//! Roots and block lists.

use crate::build::blocks::lists::{put, start};
use crate::build::blocks::long_list::digest_hash;
use crate::build::blocks::records::{self, Header};
use crate::build::blocks::sizes::{self, divide};
use crate::build::blocks::stored::{self, StoredChunk};
use crate::error::Result;
use crate::image::encoding::TooLarge;
use crate::model::chunk::ChunkEncoder;
use crate::model::tree::Tree;
use puzzlefs_schema::v4::{
    BlockListLayout, ChunkRef, MetadataError, MetadataErrorKind, RootLayout, MAX_CHILDREN,
};

/// A block or a block list, as its parent refers to it.
#[derive(Clone, Copy)]
pub(super) struct Child {
    pub chunk: ChunkRef,
    /// The number of inodes in it.
    pub inodes: u64,
    /// The number of blocks in it.
    pub blocks: u32,
}

/// Encodes the root above these blocks. Returns it, and the block lists between them, if any.
pub(super) fn encode(
    tree: &Tree,
    blocks: &[Child],
    encoder: &ChunkEncoder,
) -> Result<(StoredChunk, Vec<StoredChunk>)> {
    if blocks.len() <= MAX_CHILDREN as usize {
        return Ok((root(tree, 0, blocks, encoder)?, Vec::new()));
    }
    let (mut children, mut lists) = (Vec::new(), Vec::new());
    for run in divide(
        blocks,
        sizes::BLOCK_LIST,
        |_| 1,
        |child| digest_hash(&child.chunk),
    ) {
        let list = block_list(tree, run, encoder)?;
        children.push(Child {
            chunk: list.chunk,
            inodes: run.iter().map(|child| child.inodes).sum(),
            blocks: run.len() as u32,
        });
        lists.push(list);
    }
    Ok((root(tree, 1, &children, encoder)?, lists))
}

fn root(tree: &Tree, level: u8, children: &[Child], encoder: &ChunkEncoder) -> Result<StoredChunk> {
    let inodes = children.iter().map(|child| child.inodes).sum();
    let encode = || {
        let words = children.len() * 6;
        let (mut message, pointer) = start(records::ROOT, Header::Root { level }, words)?;
        message.set(pointer - 2, inodes);
        message.set(pointer - 1, tree.data_size());
        put(&mut message, pointer, &elements(children))?;
        Ok(message.finish())
    };
    finish(
        tree,
        encode(),
        |content| RootLayout::check(content).map(|_| ()),
        encoder,
    )
}

fn block_list(tree: &Tree, children: &[Child], encoder: &ChunkEncoder) -> Result<StoredChunk> {
    let encode = || {
        let words = children.len() * 6;
        let (mut message, pointer) = start(records::BLOCK_LIST, Header::BlockList, words)?;
        put(&mut message, pointer, &elements(children))?;
        Ok(message.finish())
    };
    finish(
        tree,
        encode(),
        |content| BlockListLayout::check(content).map(|_| ()),
        encoder,
    )
}

fn elements(children: &[Child]) -> Vec<records::Child> {
    let children = children.iter().map(|child| {
        // The check of the message refuses the number 0, too.
        let inodes = u32::try_from(child.inodes).unwrap_or(0);
        records::child(&child.chunk, inodes, child.blocks)
    });
    children.collect()
}

/// Checks a message and encodes it as a chunk.
fn finish(
    tree: &Tree,
    content: Result<Vec<u8>, TooLarge>,
    check: impl Fn(&[u8]) -> Result<(), MetadataError>,
    encoder: &ChunkEncoder,
) -> Result<StoredChunk> {
    let content = content
        .map_err(|TooLarge| MetadataErrorKind::MessageTooLarge.into())
        .and_then(|content| check(&content).map(|()| content))
        .map_err(|cause| stored::refused(tree, 0, cause))?;
    StoredChunk::message(content, encoder)
}
