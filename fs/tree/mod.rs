// SPDX-License-Identifier: GPL-2.0

//! The metadata of an image.
//!
//! Owns its bytes, which only the crate `puzzlefs_schema` parses. [`Tree`] is the interface above
//! all versions of the format. Uses [`crate::fill`] and the layers below it.
//!
//! | module | content |
//! | --- | --- |
//! | `tree` | the tree of an image, of any version |
//! | `v3`, `v4` | version 3: one metadata blob in memory; version 4: chunks, loaded on demand |
//! | `attributes` | attributes of nodes, entries of directories |

pub(crate) mod attributes;
#[allow(clippy::module_inception)]
mod tree;
pub(crate) mod v3;
pub(crate) mod v4;

pub(crate) use tree::{Node, Place, Tree};
