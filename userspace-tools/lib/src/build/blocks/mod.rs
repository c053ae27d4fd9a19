// SPDX-License-Identifier: MIT OR Apache-2.0

//! Encodes a tree and the extents of its files as metadata chunks of format 4.
//!
//! The chunks are a function of the tree, the extents and the encoder. The numbers of the nodes and the
//! number of threads do not matter. An empty list is a null pointer, and a message ends with its last
//! list. The reader's own checks pass for each message, or the build fails. Then differences replace
//! values.
//!
//! Each module uses only those below it.
//!
//! | module | content |
//! | --- | --- |
//! | `root` | roots and block lists |
//! | `encoder` | blocks |
//! | `long_list` | list blocks |
//! | `plan` | the order of the inodes, and where blocks end |
//! | `lists` | the lists of a message |
//! | `records` | the structures of a message |
//! | `stored` | chunks with their stored bytes |
//! | `sizes` | the policy: sizes of blocks and lists |
//! | `extent` | extents of files |

mod encoder;
pub(crate) mod extent;
mod lists;
mod long_list;
mod plan;
mod records;
mod root;
mod sizes;
pub(crate) mod stored;
#[cfg(test)]
mod tests;

use crate::build::blocks::encoder::{EncodedBlock, Source};
use crate::build::blocks::root::Child;
use crate::error::Result;
use crate::model::chunk::ChunkEncoder;
use crate::model::tree::{NodeId, Tree};
use crate::sys::parallel;
pub(crate) use extent::FileExtent;
use plan::Plan;
use std::sync::OnceLock;
pub(crate) use stored::StoredChunk;

/// The metadata of an image.
#[derive(Debug)]
pub(crate) struct EncodedTree {
    pub root: StoredChunk,
    /// The other chunks in the order of reading: block lists, then each block followed by its list blocks,
    /// large values of attributes. A chunk can occur several times.
    pub chunks: Vec<StoredChunk>,
}

/// Encodes a tree with several threads. `extents` has the extents of each node, which are empty unless it
/// is a regular file with contents. The blocks of the nodes `first` come before the others.
pub(crate) fn encode(
    tree: &Tree,
    extents: &[Vec<FileExtent>],
    first: &[NodeId],
    encoder: &ChunkEncoder,
    jobs: usize,
) -> Result<EncodedTree> {
    let plan = Plan::new(tree, extents);
    let source = Source {
        tree,
        extents,
        plan: &plan,
        encoder,
    };
    let numbers = 0..plan.blocks() as u32;
    let blocks: Vec<_> = numbers.map(|number| (number, OnceLock::new())).collect();
    parallel::for_each(
        jobs,
        &blocks,
        || (),
        |(), (number, block)| {
            // Each block is encoded once.
            let _ = block.set(encoder::encode(source, *number)?);
            Ok(())
        },
    )?;
    let blocks = blocks
        .into_iter()
        .filter_map(|(_, block)| block.into_inner());
    assemble(tree, blocks.collect(), &plan.blocks_of(first), encoder)
}

/// Puts the root above the blocks, and all chunks in order: those of the blocks `first` before the others.
fn assemble(
    tree: &Tree,
    blocks: Vec<EncodedBlock>,
    first: &[u32],
    encoder: &ChunkEncoder,
) -> Result<EncodedTree> {
    let children = blocks.iter().map(|block| Child {
        chunk: block.block.chunk,
        inodes: block.inodes.into(),
        blocks: 1,
    });
    let children: Vec<_> = children.collect();
    let (root, mut chunks) = root::encode(tree, &children, encoder)?;
    let mut values = Vec::new();
    let mut blocks: Vec<_> = blocks.into_iter().map(Some).collect();
    let others = 0..blocks.len() as u32;
    for number in first.iter().copied().chain(others) {
        let Some(block) = blocks[number as usize].take() else {
            continue;
        };
        chunks.push(block.block);
        chunks.extend(block.lists);
        values.extend(block.values);
    }
    chunks.extend(values);
    Ok(EncodedTree { root, chunks })
}
