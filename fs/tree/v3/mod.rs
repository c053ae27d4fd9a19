// SPDX-License-Identifier: GPL-2.0

//! Version 3: one metadata blob, which is held in memory as it is stored.
//!
//! | module | content |
//! | --- | --- |
//! | `tree` | lookups, listings, attributes |
//! | `node` | the data of an inode in memory |
//! | `merged_dir`, `metadata_blob` | directories of all layers; the metadata blob in memory |

mod merged_dir;
pub(crate) mod metadata_blob;
mod node;
#[allow(clippy::module_inception)]
mod tree;

pub(crate) use node::Node;
pub(crate) use tree::Tree;
