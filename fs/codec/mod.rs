// SPDX-License-Identifier: GPL-2.0

//! Decoding: stored bytes in, verified content out.
//!
//! Owns the cache of decompressed frames. May use [`crate::store`] and below.

pub(crate) mod frame_cache;
