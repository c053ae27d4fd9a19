// SPDX-License-Identifier: MIT OR Apache-2.0

//! Reading one image, and encoding its metadata.
//!
//! Owns format version 3, and reads version 4. Verifies blobs and chunks while it reads them.
//! [`ImageTree`](image_tree::ImageTree) reads images of both.
//!
//! Each module uses only those below it.
//!
//! | module | content |
//! | --- | --- |
//! | `ordered` | start-up orders of images |
//! | `config` | the configuration of a container image |
//! | `image_tree` | reads the tree and the files of an image of any format |
//! | `file_data` | reads the data of files |
//! | `store_chunks` | the metadata chunks of a store |
//! | `recent` | a cache of chunks |
//! | `v3` | reads images of format 3 |
//! | `chunk_walk` | lists the chunks of images of format 4 |
//! | `encoding` | writes Cap'n Proto messages |
//! | `seekable` | zstd's seekable format |

pub(crate) mod chunk_walk;
pub(crate) mod config;
pub(crate) mod encoding;
pub(crate) mod file_data;
pub(crate) mod image_tree;
pub(crate) mod ordered;
mod recent;
pub(crate) mod seekable;
pub(crate) mod store_chunks;
pub(crate) mod v3;
