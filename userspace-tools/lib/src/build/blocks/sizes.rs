// SPDX-License-Identifier: MIT OR Apache-2.0

//! The policy of the metadata's layout: where blocks, list blocks and block lists end.
//!
//! Ends depend on the contents alone: a change moves those near it, and later ones stay. Sizes are upper
//! bounds of what the elements take in a message; equal names are counted as often as they occur.

use xxhash_rust::xxh64::xxh64;

/// The size of a message without elements, in bytes.
pub(super) const MESSAGE: usize = 152;

/// The sizes of runs of elements.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// The size from which on a run can end.
    pub least: usize,
    /// The size that a run has at most, unless one element is larger.
    pub most: usize,
    /// Of so many elements, one can begin a run.
    pub one_in: u64,
}

/// The blocks, within the inodes of a directory that takes several, in bytes.
pub(super) const BLOCK: Limits = Limits {
    least: 32 << 10,
    most: (64 << 10) - MESSAGE,
    one_in: 64,
};

/// The size from which on a block can end after the inodes of a directory, in bytes.
pub(super) const BLOCK_LEAST: usize = 16 << 10;

/// Of so many directories, one ends a block.
pub(super) const DIRECTORIES: u64 = 16;

/// The list blocks, in bytes.
pub(super) const LIST_BLOCK: Limits = Limits {
    least: 16 << 10,
    most: (64 << 10) - MESSAGE,
    one_in: 256,
};

/// The largest list that lies in the block of its inode, in bytes.
pub(super) const LIST_INLINE: usize = 32 << 10;

/// The block lists, in blocks.
pub(super) const BLOCK_LIST: Limits = Limits {
    least: 512,
    most: 1024,
    one_in: 256,
};

/// Returns the hash of a name, which decides where runs end.
pub(super) fn hash(name: &[u8]) -> u64 {
    xxh64(name, 0)
}

/// Divides elements into runs.
#[derive(Debug)]
pub(super) struct Cutter {
    limits: Limits,
    /// The size of the run so far.
    size: usize,
}

impl Cutter {
    pub fn new(limits: Limits) -> Self {
        Cutter { limits, size: 0 }
    }

    /// Returns the size of the run so far.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Returns true if the next element, which has this size and this hash, begins a run.
    pub fn is_cut(&self, size: usize, hash: impl FnOnce() -> u64) -> bool {
        let Limits {
            least,
            most,
            one_in,
        } = self.limits;
        self.size > 0 && (self.size + size > most || self.size >= least && hash() % one_in == 0)
    }

    /// Begins a run.
    pub fn cut(&mut self) {
        self.size = 0;
    }

    /// Adds an element to the run.
    pub fn add(&mut self, size: usize) {
        self.size += size;
    }
}

/// Divides elements, of which `measure` returns the size and `hash` a hash, into runs.
pub(super) fn divide<T>(
    elements: &[T],
    limits: Limits,
    measure: impl Fn(&T) -> usize,
    hash: impl Fn(&T) -> u64,
) -> Vec<&[T]> {
    let mut cutter = Cutter::new(limits);
    let mut runs = Vec::new();
    let mut first = 0;
    for (at, element) in elements.iter().enumerate() {
        let size = measure(element);
        if cutter.is_cut(size, || hash(element)) {
            cutter.cut();
            runs.push(&elements[first..at]);
            first = at;
        }
        cutter.add(size);
    }
    if first < elements.len() {
        runs.push(&elements[first..]);
    }
    runs
}
