// SPDX-License-Identifier: MIT OR Apache-2.0

//! Reads images of format 3, whose metadata is one blob.
//!
//! Each module uses only those below it.
//!
//! | module | content |
//! | --- | --- |
//! | `tree` | the tree behind [`ImageTree`](crate::image::image_tree::ImageTree) |
//! | `path` | resolves paths |
//! | `visit` | enters the directories of an untrusted image |
//! | `reader` | verifies and reads metadata and files |

pub(crate) mod path;
pub(crate) mod reader;
pub(crate) mod tree;
pub(crate) mod visit;
