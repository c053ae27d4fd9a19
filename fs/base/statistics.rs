// SPDX-License-Identifier: GPL-2.0

//! Counters of a mount, for `/proc/self/mountstats`.

use kernel::{
    seq_file::SeqFile,
    seq_print,
    sync::atomic::{Atomic, Relaxed},
};

/// A number that only grows, from many threads.
pub(crate) struct Counter(Atomic<u64>);

impl Default for Counter {
    fn default() -> Self {
        Self(Atomic::new(0))
    }
}

impl Counter {
    /// Adds to the number.
    pub(crate) fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// The counters of a mount. `Documentation/puzzlefs.rst` explains each.
#[derive(Default)]
pub(crate) struct Statistics {
    /// Blobs that had to be opened.
    pub(crate) blobs_opened: Counter,
    /// Blobs that were open when they were needed.
    pub(crate) blobs_found_open: Counter,
    /// Bytes read of blobs for readers, as they are stored.
    pub(crate) bytes_read: Counter,
    /// Bytes of packs that were read before a reader needed them, and perhaps never needed.
    pub(crate) bytes_prefetched: Counter,
    /// Bytes of blobs that were hashed, under `verify=digest`.
    pub(crate) bytes_hashed: Counter,
    /// Bytes that decompression has made.
    pub(crate) bytes_decompressed: Counter,
    /// Files whose first open found pages that other files had read.
    pub(crate) files_shared: Counter,
    /// The number of those pages.
    pub(crate) pages_shared: Counter,
    /// Times that a task has waited for a chunk to be fetched, under `fetch=wait`.
    pub(crate) fetches_awaited: Counter,
    /// Reads that failed because a blob has other content than the image says.
    pub(crate) verification_failures: Counter,
    /// Reads that failed because a blob is missing, damaged, or has other content than the image
    /// says.
    pub(crate) read_errors: Counter,
}

impl Statistics {
    /// Prints the counters, one per line, as NFS does.
    pub(crate) fn show(&self, seq: &SeqFile) {
        seq_print!(seq, "statvers=1.0");
        for (name, counter) in [
            ("blobs_opened", &self.blobs_opened),
            ("blobs_found_open", &self.blobs_found_open),
            ("bytes_read", &self.bytes_read),
            ("bytes_prefetched", &self.bytes_prefetched),
            ("bytes_hashed", &self.bytes_hashed),
            ("bytes_decompressed", &self.bytes_decompressed),
            ("files_shared", &self.files_shared),
            ("pages_shared", &self.pages_shared),
            ("fetches_awaited", &self.fetches_awaited),
            ("verification_failures", &self.verification_failures),
            ("read_errors", &self.read_errors),
        ] {
            seq_print!(seq, "\n\t{name}: {}", counter.get());
        }
    }
}
