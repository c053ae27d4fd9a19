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

/// The size from which on a block can end, in bytes.
pub(super) const BLOCK_LEAST: usize = 24 << 10;

/// The size that a block has at most, unless one inode is larger, in bytes.
pub(super) const BLOCK_MOST: usize = (64 << 10) - MESSAGE;

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

/// Divides elements, of which `measure` returns the size and `hash` a hash, into runs.
pub(super) fn divide<T>(
    elements: &[T],
    limits: Limits,
    measure: impl Fn(&T) -> usize,
    hash: impl Fn(&T) -> u64,
) -> Vec<&[T]> {
    let Limits {
        least,
        most,
        one_in,
    } = limits;
    let mut runs = Vec::new();
    let (mut first, mut run_size) = (0, 0);
    for (at, element) in elements.iter().enumerate() {
        let size = measure(element);
        let is_full = run_size + size > most;
        if at > first && (is_full || run_size >= least && hash(element) % one_in == 0) {
            runs.push(&elements[first..at]);
            (first, run_size) = (at, 0);
        }
        run_size += size;
    }
    if first < elements.len() {
        runs.push(&elements[first..]);
    }
    runs
}
