// SPDX-License-Identifier: GPL-2.0

//! XXH64, by the kernel's library.
//!
//! C header: [`include/linux/xxhash.h`](srctree/include/linux/xxhash.h)

use super::bindings;

/// The XXH64 of some data.
pub(crate) fn xxh64(data: &[u8], seed: u64) -> u64 {
    // SAFETY: The data is valid for its length.
    unsafe { bindings::xxh64(data.as_ptr().cast(), data.len(), seed) }
}
