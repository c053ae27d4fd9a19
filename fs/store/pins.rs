// SPDX-License-Identifier: GPL-2.0

//! The blobs that an open file keeps open.
//!
//! A file's first blobs are opened with the file, and stay open as long as it is. Reads of their
//! content then open nothing, whatever locks they hold.
//!
//! # Locking
//!
//! The spinlock `pinned` protects the count and the list. It is innermost; blobs are dropped
//! without it.

use super::blob::Blob;
use crate::{base::limits::MAX_PINNED, vfs::prelude::*};
use kernel::{
    new_spinlock,
    sync::{Arc, SpinLock},
};
use puzzlefs_schema::Digest;

/// The blobs of an inode's open files.
///
/// # Invariants
///
/// If `files` is 0, there are no blobs.
struct Pinned {
    /// The number of open files.
    files: usize,
    blobs: [Option<(Digest, Arc<Blob>)>; MAX_PINNED],
}

/// The blobs that are open because a file is.
#[pin_data]
pub(crate) struct Pins {
    #[pin]
    pinned: SpinLock<Pinned>,
}

impl Pins {
    /// Makes an empty set for an inode without open files.
    pub(crate) fn new() -> Result<Arc<Self>> {
        let pinned = Pinned {
            files: 0,
            blobs: [const { None }; MAX_PINNED],
        };
        Arc::pin_init(
            pin_init!(Self {
                pinned <- new_spinlock!(pinned, "puzzlefs_pins"),
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }

    /// Counts an open file. Returns true if there is room for blobs.
    pub(crate) fn open(&self) -> bool {
        let mut pinned = self.pinned.lock();
        pinned.files += 1;
        pinned.files == 1 || pinned.blobs.iter().any(Option::is_none)
    }

    /// Uncounts an open file. Closes the blobs if it was the last.
    pub(crate) fn release(&self) {
        let blobs = {
            let mut pinned = self.pinned.lock();
            pinned.files = pinned.files.saturating_sub(1);
            if pinned.files > 0 {
                return;
            }
            // INVARIANT: No file is left, and no blob.
            core::mem::replace(&mut pinned.blobs, [const { None }; MAX_PINNED])
        };
        // Not under the lock, because files are given back.
        drop(blobs);
    }

    /// Keeps a blob open, as long as a file is. Returns true if there is room for more.
    pub(crate) fn add(&self, digest: &Digest, blob: &Arc<Blob>) -> bool {
        let mut pinned = self.pinned.lock();
        if pinned.files == 0 {
            return false;
        }
        if let Some(place) = pinned.blobs.iter_mut().find(|place| place.is_none()) {
            // INVARIANT: There is an open file.
            *place = Some((*digest, blob.clone()));
        }
        pinned.blobs.iter().any(Option::is_none)
    }

    /// Returns a blob, if it is kept open.
    pub(crate) fn find(&self, digest: &Digest) -> Option<Arc<Blob>> {
        let pinned = self.pinned.lock();
        let mut blobs = pinned.blobs.iter().flatten();
        Some(blobs.find(|(kept, _)| kept == digest)?.1.clone())
    }

    /// Gives up a blob that could not be read.
    pub(crate) fn forget(&self, digest: &Digest) {
        let forgotten = {
            let mut pinned = self.pinned.lock();
            let mut blobs = pinned.blobs.iter_mut();
            let kept = blobs.find(|kept| matches!(kept, Some((kept, _)) if kept == digest));
            kept.and_then(Option::take)
        };
        // Not under the lock, because a file is given back.
        drop(forgotten);
    }
}
