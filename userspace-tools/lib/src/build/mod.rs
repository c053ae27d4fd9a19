// SPDX-License-Identifier: MIT OR Apache-2.0

//! Builds an image from a tree: cuts content into chunks, packs, compresses, encodes metadata.
//!
//! Owns the policy of the layout. The same tree and options give the same bytes.
//!
//! Each module uses only those below it.
//!
//! | module | content |
//! | --- | --- |
//! | `packed` | format 4: packs, manifest, tag |
//! | `builder` | format 3: layers, manifest, tag |
//! | `packs` | format 4: chunks in packs |
//! | `blocks` | format 4: the chunks with metadata |
//! | `metadata` | format 3: the metadata blob |
//! | `delta` | the difference between a tree and an image |
//! | `contents` | reads, cuts, hashes and stores files with several threads |
//! | `scheduler` | distributes work over threads |
//! | `flusher` | sends written blobs to the disk meanwhile |
//! | `bundler` | puts small files into bundles |
//! | `build_options` | options of a build |
//! | `layout` | the policy: chunk and pack sizes |
//! | `source` | the files of a tree |

pub(crate) mod blocks;
pub(crate) mod build_options;
pub(crate) mod builder;
pub(crate) mod bundler;
pub(crate) mod contents;
pub(crate) mod delta;
pub(crate) mod flusher;
pub(crate) mod layout;
pub(crate) mod metadata;
pub(crate) mod packed;
pub(crate) mod packs;
pub(crate) mod scheduler;
pub(crate) mod source;
