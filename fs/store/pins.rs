// SPDX-License-Identifier: GPL-2.0

//! The blobs that an open file keeps open.
//!
//! A file's first blobs are opened with the file, and stay open as long as it is. Reads of their
//! content then open nothing, whatever locks they hold.

use crate::store::blob::Blob;
use crate::vfs::prelude::*;
use kernel::{
    new_spinlock,
    sync::{Arc, SpinLock},
};
use puzzlefs_schema::Digest;

/// The largest number of blobs that an open file keeps open.
///
/// Each holds an open file and an inode of the filesystem below, about 2 KiB. Opening more of them
/// with the file would delay a reader that reads only the beginning. With four, opening a file of
/// six blobs and reading its first page costs 12 % more instructions than with none, and reading
/// all of it no more.
pub(crate) const MAX_PINNED: usize = 4;

struct State {
    /// The number of open files.
    files: usize,
    /// Empty if `files` is 0.
    blobs: [Option<(Digest, Arc<Blob>)>; MAX_PINNED],
}

/// The blobs that are open because a file is.
#[pin_data]
pub(crate) struct Pins {
    #[pin]
    state: SpinLock<State>,
}

impl Pins {
    pub(crate) fn new() -> Result<Arc<Self>> {
        let state = State {
            files: 0,
            blobs: [const { None }; MAX_PINNED],
        };
        Arc::pin_init(
            pin_init!(Self {
                state <- new_spinlock!(state, "puzzlefs_pins"),
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }

    /// Counts an open file; returns whether blobs may be added for it.
    pub(crate) fn open(&self) -> bool {
        let mut state = self.state.lock();
        state.files += 1;
        state.files == 1 || state.blobs.iter().any(Option::is_none)
    }

    /// Uncounts an open file. Closes the blobs if it was the last.
    pub(crate) fn release(&self) {
        let blobs = {
            let mut state = self.state.lock();
            state.files = state.files.saturating_sub(1);
            if state.files > 0 {
                return;
            }
            core::mem::replace(&mut state.blobs, [const { None }; MAX_PINNED])
        };
        // Not under the lock, because files are given back.
        drop(blobs);
    }

    /// Keeps a blob open, as long as a file is; returns whether there is room for more.
    pub(crate) fn add(&self, digest: &Digest, blob: &Arc<Blob>) -> bool {
        let mut state = self.state.lock();
        if state.files == 0 {
            return false;
        }
        if let Some(place) = state.blobs.iter_mut().find(|place| place.is_none()) {
            *place = Some((*digest, blob.clone()));
        }
        state.blobs.iter().any(Option::is_none)
    }

    /// The blob, if it is kept open.
    pub(crate) fn find(&self, digest: &Digest) -> Option<Arc<Blob>> {
        let state = self.state.lock();
        let mut blobs = state.blobs.iter().flatten();
        Some(blobs.find(|(kept, _)| kept == digest)?.1.clone())
    }

    /// Gives up a blob that could not be read.
    pub(crate) fn forget(&self, digest: &Digest) {
        let forgotten = {
            let mut state = self.state.lock();
            let mut blobs = state.blobs.iter_mut();
            let kept = blobs.find(|kept| matches!(kept, Some((kept, _)) if kept == digest));
            kept.and_then(Option::take)
        };
        // Not under the lock, because a file is given back.
        drop(forgotten);
    }
}
