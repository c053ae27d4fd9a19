// SPDX-License-Identifier: MIT OR Apache-2.0

//! Reading one image, and encoding its metadata.
//!
//! Owns format version 3. Verifies blobs while it reads them.
//!
//! Each module uses only those below it.
//!
//! | module | content |
//! | --- | --- |
//! | `config` | the configuration of a container image |
//! | `visit` | goes through an image's tree |
//! | `path` | resolves paths in an image |
//! | `reader` | reads metadata and files |
//! | `encoding` | writes Cap'n Proto messages |
//! | `seekable` | zstd's seekable format |

pub(crate) mod config;
pub(crate) mod encoding;
pub(crate) mod path;
pub(crate) mod reader;
pub(crate) mod seekable;
pub(crate) mod visit;
