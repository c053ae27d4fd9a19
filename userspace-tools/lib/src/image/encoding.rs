// SPDX-License-Identifier: MIT OR Apache-2.0

//! Encodes Cap'n Proto messages that hold equal data once.
//!
//! Follows the encoding specification of Cap'n Proto: one segment, in the standard stream framing.
//! The builder of the `capnp` crate cannot make several pointers lead to one place. Readers accept
//! that, and a third of an image's metadata would be repeated digests and names. Only data is
//! shared, never a list of structures: readers rely on a message having no more elements than
//! words.

use std::collections::hash_map::{DefaultHasher, HashMap};
use std::hash::Hasher;

/// Bytes in a word.
const WORD: usize = 8;
/// The segment table of a message of one segment, in words.
const TABLE: usize = 1;
/// The largest number of words of a segment, which a pointer can reach.
const WORDS_MAX: usize = (1 << 29) - 1;
/// The largest number of elements of a list.
const LIST_MAX: usize = (1 << 29) - 1;

/// A word of the segment.
pub(crate) type At = usize;

/// The sizes of a structure's two sections, in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    pub data: usize,
    pub pointers: usize,
}

impl Size {
    /// Returns the sum of both.
    pub const fn words(self) -> usize {
        self.data + self.pointers
    }

    /// Returns the sizes as pointers to structures and tags of lists hold them.
    fn bits(self) -> u64 {
        ((self.data as u64) << 32) | ((self.pointers as u64) << 48)
    }
}

/// The message would be larger than a segment can be: 4 GiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLarge;

/// A message that is being encoded.
pub(crate) struct Message {
    /// The segment table, which is filled in at the end, and the segment.
    bytes: Vec<u8>,
    /// The places of data, by hash. Of two values with one hash, only the first is found.
    known: HashMap<u64, u32>,
}

impl Message {
    /// Starts a message with its root, which is at word 1. `words` is the expected size.
    pub fn new(root: Size, words: usize) -> Result<(Self, At), TooLarge> {
        let mut message = Message {
            bytes: Vec::with_capacity((TABLE + words.min(WORDS_MAX)) * WORD),
            known: HashMap::new(),
        };
        message.bytes.resize(TABLE * WORD, 0);
        let pointer = message.allocate(1)?;
        let root = message.structure(pointer, root)?;
        Ok((message, root))
    }

    /// Returns the bytes of the message.
    pub fn finish(mut self) -> Vec<u8> {
        let words = (self.bytes.len() / WORD - TABLE) as u64;
        self.put(0, words << 32);
        self.bytes
    }

    /// Sets a word.
    pub fn set(&mut self, at: At, value: u64) {
        self.put(TABLE + at, value);
    }

    fn put(&mut self, word: usize, value: u64) {
        self.bytes[word * WORD..][..WORD].copy_from_slice(&value.to_le_bytes());
    }

    /// Appends words that are zero, and returns the place of the first.
    fn allocate(&mut self, words: usize) -> Result<At, TooLarge> {
        let at = self.bytes.len() / WORD - TABLE;
        let end = at.checked_add(words).filter(|end| *end <= WORDS_MAX);
        self.bytes.resize((TABLE + end.ok_or(TooLarge)?) * WORD, 0);
        Ok(at)
    }

    /// Returns the bits of a pointer at one word that lead to another.
    fn offset(from: At, to: At) -> u64 {
        // Both are in one segment: it fits.
        let distance = to as i64 - from as i64 - 1;
        ((distance as u64) << 2) & 0xffff_fffc
    }

    /// Adds a structure, which is not empty, and has a pointer lead to it.
    pub fn structure(&mut self, pointer: At, size: Size) -> Result<At, TooLarge> {
        let at = self.allocate(size.words())?;
        self.set(pointer, Self::offset(pointer, at) | size.bits());
        Ok(at)
    }

    /// Adds a list of structures, has a pointer lead to it, and returns the place of the first. The
    /// pointer to an empty list is null.
    pub fn list(&mut self, pointer: At, len: usize, size: Size) -> Result<At, TooLarge> {
        const COMPOSITE: u64 = 7;
        if len == 0 {
            return Ok(pointer);
        }
        let words = len.checked_mul(size.words()).ok_or(TooLarge)?;
        let tag = self.allocate(words.checked_add(1).ok_or(TooLarge)?)?;
        self.set(
            pointer,
            Self::offset(pointer, tag) | 1 | (COMPOSITE << 32) | ((words as u64) << 35),
        );
        self.set(tag, ((len as u64) << 2) | size.bits());
        Ok(tag + 1)
    }

    /// Has a pointer lead to data, which is added unless the message holds it. The pointer to no
    /// data is null.
    pub fn data(&mut self, pointer: At, data: &[u8]) -> Result<(), TooLarge> {
        const BYTES: u64 = 2;
        if data.is_empty() {
            return Ok(());
        }
        if data.len() > LIST_MAX {
            return Err(TooLarge);
        }
        let mut hasher = DefaultHasher::new();
        hasher.write(data);
        let hash = hasher.finish();
        let known = self.known.get(&hash).map(|at| *at as usize);
        let at = match known.filter(|at| self.is_at(*at, data)) {
            Some(at) => at,
            None => {
                let at = self.allocate(data.len().div_ceil(WORD))?;
                self.bytes[(TABLE + at) * WORD..][..data.len()].copy_from_slice(data);
                self.known.entry(hash).or_insert(at as u32);
                at
            }
        };
        let bits = 1 | (BYTES << 32) | ((data.len() as u64) << 35);
        self.set(pointer, Self::offset(pointer, at) | bits);
        Ok(())
    }

    fn is_at(&self, at: At, data: &[u8]) -> bool {
        self.bytes[(TABLE + at) * WORD..].starts_with(data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use capnp::message::ReaderOptions;
    use puzzlefs_schema::metadata_capnp::{inode_additional, xattr};

    const ADDITIONAL: Size = Size {
        data: 0,
        pointers: 2,
    };

    fn made() -> Vec<u8> {
        let (mut message, root) = Message::new(ADDITIONAL, 0).unwrap();
        message.data(root + 1, b"target").unwrap();
        let xattr = Size {
            data: 0,
            pointers: 2,
        };
        let first = message.list(root, 3, xattr).unwrap();
        for (at, value) in [&b"value of nine"[..], b"", b"value of nine"]
            .iter()
            .enumerate()
        {
            message.data(first + 2 * at, b"target").unwrap();
            message.data(first + 2 * at + 1, value).unwrap();
        }
        message.finish()
    }

    #[test]
    fn capnp_reads_it() {
        let bytes = made();
        // The table, the pointer to the root, the root, the target, the tag, three elements, and
        // one value of two words.
        assert_eq!(bytes.len(), 8 * (1 + 1 + 2 + 1 + 1 + 6 + 2));
        let message =
            capnp::serialize::read_message_from_flat_slice(&mut &bytes[..], ReaderOptions::new())
                .unwrap();
        let root: inode_additional::Reader<'_> = message.get_root().unwrap();
        assert_eq!(root.get_symlink_target().unwrap(), b"target");
        let read = |xattr: xattr::Reader<'_>| {
            let (key, value) = (xattr.get_key().unwrap(), xattr.get_val().unwrap());
            (key.to_vec(), value.to_vec())
        };
        let xattrs: Vec<_> = root.get_xattrs().unwrap().iter().map(read).collect();
        let wanted = [&b"value of nine"[..], b"", b"value of nine"];
        assert_eq!(
            xattrs,
            wanted.map(|value| (b"target".to_vec(), value.to_vec()))
        );
    }

    /// Data that begins the same is not equal.
    #[test]
    fn only_equal_data_is_shared() {
        let (mut message, root) = Message::new(ADDITIONAL, 0).unwrap();
        message.data(root, b"abc").unwrap();
        let before = message.bytes.len();
        message.data(root + 1, b"ab").unwrap();
        assert_eq!(message.bytes.len(), before + WORD);
        message.data(root, b"ab").unwrap();
        assert_eq!(message.bytes.len(), before + WORD);
        // A hash that leads elsewhere.
        let wrong = message.known.values().copied().max().unwrap();
        message.known.values_mut().for_each(|at| *at = wrong);
        message.data(root, b"abc").unwrap();
        assert_eq!(message.bytes.len(), before + 2 * WORD);
    }

    #[test]
    fn what_is_too_large_is_an_error() {
        let (mut message, root) = Message::new(ADDITIONAL, 0).unwrap();
        assert_eq!(message.list(root, usize::MAX, ADDITIONAL), Err(TooLarge));
        assert_eq!(message.list(root, 1 << 28, ADDITIONAL), Err(TooLarge));
    }
}
