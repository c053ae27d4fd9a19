// SPDX-License-Identifier: GPL-2.0

//! Reads of blobs.
//!
//! Owns the buffers and decoders of readers. Knows a blob by its identity and its file. Uses
//! [`crate::base`] and the layers below it.
//!
//! | module | content |
//! | --- | --- |
//! | `pool` | the workspaces of a store |
//! | `buffer` | parts of blobs that were read last |
//! | `prefetch` | parts of packs that are read before a reader needs them |
//! | `streams` | the readers of packs, and the bytes worth prefetching for them |

pub(crate) mod buffer;
pub(crate) mod pool;
pub(crate) mod prefetch;
mod streams;
