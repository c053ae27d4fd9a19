// SPDX-License-Identifier: GPL-2.0

//! Decoders: stored bytes in, verified content out.
//!
//! Owns the cache of decompressed frames, and the policy how much of a blob is read. Uses
//! [`crate::store`] and the layers below it.
//!
//! | module | content |
//! | --- | --- |
//! | `metadata` | reads metadata chunks |
//! | `chunk` | verifies and decodes chunks, and fills folios from them |
//! | `digest`, `zstd`, `raw` | fill folios: from verified, compressed, raw blobs |
//! | `frame` | decodes one frame |
//! | `context` | shared resources of a read |
//! | `plan` | how much of a blob is read |
//! | `frame_cache` | decompressed frames |

pub(crate) mod chunk;
pub(crate) mod context;
pub(crate) mod digest;
mod frame;
pub(crate) mod frame_cache;
pub(crate) mod metadata;
pub(crate) mod plan;
pub(crate) mod raw;
pub(crate) mod zstd;
