// SPDX-License-Identifier: GPL-2.0

//! Version 4: metadata chunks, which are loaded when they are needed.
//!
//! | module | content |
//! | --- | --- |
//! | `tree` | nodes, lookups, listings, attributes |
//! | `node` | the data of an inode in memory; the extents of a file |
//! | `source` | loading of chunks for one image |
//! | `chunk_cache` | the metadata chunks in memory |

mod chunk_cache;
mod node;
mod source;
#[allow(clippy::module_inception)]
mod tree;

pub(crate) use chunk_cache::ShrinkableChunks;
pub(crate) use node::Node;
pub(crate) use tree::{Place, Tree};
