// SPDX-License-Identifier: GPL-2.0

//! The blob store.
//!
//! Owns the directory of blobs, the chunk index, and the open files of the lower filesystem. Uses
//! [`crate::io`] and the layers below it.
//!
//! | module | content |
//! | --- | --- |
//! | `chunks` | finds chunks |
//! | `blob_store` | the directory of blobs |
//! | `fetches` | requests for chunks that the store lacks |
//! | `chunk_index` | the map from chunks to packs |
//! | `opener` | opens files for readers that must not wait |
//! | `open_blobs`, `pins` | the cache of open blobs; the blobs that open files keep open |
//! | `blob` | an open blob |
//! | `frame_table` | the frames of a compressed blob |
//! | `verified_chunks`, `opening` | chunks that were verified; the patience of callers |
//! | `digest_cache` | a cache of values by digest |

pub(crate) mod blob;
pub(crate) mod blob_store;
mod chunk_index;
pub(crate) mod chunks;
mod digest_cache;
pub(crate) mod fetches;
pub(crate) mod frame_table;
mod open_blobs;
mod opener;
pub(crate) mod opening;
pub(crate) mod pins;
mod verified_chunks;
