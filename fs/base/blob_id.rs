// SPDX-License-Identifier: GPL-2.0

//! Identities of open blobs.

use kernel::sync::atomic::{Atomic, Relaxed};

/// The identity of an open blob.
///
/// A blob that is closed and opened again gets another one, so that nothing that was read of the
/// old file counts as read of the new.
///
/// # Invariants
///
/// No two opened blobs have the same number while the module is loaded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlobId(u64);

/// The number of blobs that were opened.
static OPENED: Atomic<u64> = Atomic::new(0);

impl BlobId {
    /// Returns an identity that no blob has had.
    pub(crate) fn new() -> Self {
        // INVARIANT: The counter only grows, and does not wrap: 2^64 blobs are never opened.
        Self(OPENED.fetch_add(1, Relaxed))
    }
}
