// SPDX-License-Identifier: MIT OR Apache-2.0

//! The bytes of messages.

use capnp::Word;

/// Bytes that are aligned as a reader expects.
#[derive(Clone)]
pub struct Bytes {
    words: Vec<Word>,
    len: usize,
}

impl Bytes {
    /// A copy of some bytes.
    pub fn new(bytes: &[u8]) -> Self {
        let mut words = Word::allocate_zeroed_vec(bytes.len().div_ceil(8));
        Word::words_to_bytes_mut(&mut words)[..bytes.len()].copy_from_slice(bytes);
        Self {
            words,
            len: bytes.len(),
        }
    }

    /// The bytes of words, in little endian: a message written by hand.
    pub fn from_words(words: &[u64]) -> Self {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        Self::new(&bytes)
    }

    /// Returns the bytes.
    pub fn as_slice(&self) -> &[u8] {
        &Word::words_to_bytes(&self.words)[..self.len]
    }

    /// Returns the bytes, to be changed.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut Word::words_to_bytes_mut(&mut self.words)[..self.len]
    }
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for word in self.as_slice().chunks(8) {
            for byte in word {
                write!(f, "{byte:02x}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
