// SPDX-License-Identifier: MIT OR Apache-2.0

//! A cache of the values that were used last.

use puzzlefs_schema::v4::ChunkRef;
use std::collections::HashMap;

/// Values by chunk, up to a number of bytes: those of two generations. A value that is used moves to the
/// younger one. When that is full, it becomes the older one, whose other values are dropped.
#[derive(Debug)]
pub(crate) struct Recent<V> {
    young: HashMap<ChunkRef, V>,
    old: HashMap<ChunkRef, V>,
    /// The bytes of the younger generation, and the most that it has.
    bytes: usize,
    max: usize,
}

impl<V: Clone> Recent<V> {
    /// An empty cache that holds about `max` bytes.
    pub fn new(max: usize) -> Self {
        Recent {
            young: HashMap::new(),
            old: HashMap::new(),
            bytes: 0,
            max: max / 2,
        }
    }

    /// Returns the value of a chunk.
    pub fn get(&mut self, chunk: &ChunkRef) -> Option<V> {
        if let Some(value) = self.young.get(chunk) {
            return Some(value.clone());
        }
        let value = self.old.remove(chunk)?;
        self.insert(chunk, value.clone());
        Some(value)
    }

    /// Adds the value of a chunk. It counts with the content length.
    pub fn insert(&mut self, chunk: &ChunkRef, value: V) {
        let bytes = chunk.content_len() as usize;
        if self.bytes + bytes > self.max {
            self.old = std::mem::take(&mut self.young);
            self.bytes = 0;
        }
        if self.young.insert(*chunk, value).is_none() {
            self.bytes += bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use puzzlefs_schema::Digest;

    fn chunk(number: u8, len: u32) -> ChunkRef {
        ChunkRef::new(Digest::new([number; 32]), len, len).unwrap()
    }

    #[test]
    fn the_values_used_last_stay() {
        let mut recent = Recent::new(400);
        let kept = chunk(0, 100);
        recent.insert(&kept, 0);
        for number in 1..50 {
            recent.insert(&chunk(number, 100), number);
            assert_eq!(recent.get(&kept), Some(0));
            assert_eq!(recent.get(&chunk(number, 100)), Some(number));
            assert!(recent.young.len() + recent.old.len() <= 4);
        }
        assert_eq!(recent.get(&chunk(1, 100)), None);
        // The same digest with another length is another chunk.
        assert_eq!(recent.get(&chunk(0, 99)), None);
    }

    #[test]
    fn a_value_larger_than_the_cache_is_kept_until_the_next() {
        let mut recent = Recent::new(100);
        recent.insert(&chunk(1, 1000), 1);
        assert_eq!(recent.get(&chunk(1, 1000)), Some(1));
        recent.insert(&chunk(2, 1000), 2);
        recent.insert(&chunk(3, 1000), 3);
        assert_eq!(recent.get(&chunk(1, 1000)), None);
    }
}
