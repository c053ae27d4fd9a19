// SPDX-License-Identifier: GPL-2.0

//! The blob store.
//!
//! Owns the directory of blobs, and the open files of the lower filesystem. Uses [`crate::io`] and
//! the layers below it.
//!
//! | module | content |
//! | --- | --- |
//! | `blob_store` | the directory of blobs |
//! | `opener` | opens blobs for readers that must not wait |
//! | `open_blobs`, `pins` | the cache of open blobs; the blobs that open files keep open |
//! | `blob` | an open blob |
//! | `frame_table` | the frames of a compressed blob |

pub(crate) mod blob;
pub(crate) mod blob_store;
pub(crate) mod frame_table;
mod open_blobs;
mod opener;
pub(crate) mod pins;
