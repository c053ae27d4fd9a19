// SPDX-License-Identifier: MIT OR Apache-2.0

//! Progress of a long operation, and the request to stop it.

use crate::error::{Error, Result};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::Arc;

/// Counters of an operation, which other threads may read at any time.
#[derive(Debug, Default)]
pub struct Progress {
    entries: AtomicU64,
    bytes_found: AtomicU64,
    bytes_done: AtomicU64,
    reading: AtomicBool,
    stop: Arc<AtomicBool>,
}

impl Progress {
    /// Makes the progress of an operation, which ends with [`Error::Interrupted`] soon after `stop` is set.
    pub fn new(stop: Arc<AtomicBool>) -> Self {
        Progress {
            stop,
            ..Self::default()
        }
    }

    /// The directory entries found so far.
    pub fn entries(&self) -> u64 {
        self.entries.load(Relaxed)
    }

    /// The bytes of regular files found so far. All are found once [`Progress::is_reading`].
    pub fn bytes_found(&self) -> u64 {
        self.bytes_found.load(Relaxed)
    }

    /// The bytes of regular files that are in the store.
    pub fn bytes_done(&self) -> u64 {
        self.bytes_done.load(Relaxed)
    }

    /// Returns true if the tree has been walked and its files are being read.
    pub fn is_reading(&self) -> bool {
        self.reading.load(Relaxed)
    }

    /// Counts an entry, or a blob.
    pub fn found_entry(&self) {
        self.entries.fetch_add(1, Relaxed);
    }

    /// Adds bytes to the total.
    pub fn found_bytes(&self, bytes: u64) {
        self.bytes_found.fetch_add(bytes, Relaxed);
    }

    /// Adds bytes to those that are done.
    pub fn done_bytes(&self, bytes: u64) {
        self.bytes_done.fetch_add(bytes, Relaxed);
    }

    /// Takes bytes back that have to be done again.
    pub fn undone_bytes(&self, bytes: u64) {
        self.bytes_done.fetch_sub(bytes, Relaxed);
    }

    /// Says that everything was found, and that the bytes are being read.
    pub fn start_reading(&self) {
        self.reading.store(true, Relaxed);
    }

    /// Returns the flag that requests a stop.
    pub(crate) fn stop(&self) -> Arc<AtomicBool> {
        self.stop.clone()
    }

    /// Fails after a request to stop.
    pub fn check(&self) -> Result<()> {
        if self.stop.load(Relaxed) {
            return Err(Error::Interrupted);
        }
        Ok(())
    }
}
