// SPDX-License-Identifier: MIT OR Apache-2.0

//! Fixed-size integers in bytes.

use crate::digest::Digest;

/// Bytes in a word.
pub(super) const WORD: usize = 8;

/// Reads the first `N` little-endian words of `bytes`.
#[inline]
pub(super) fn words<const N: usize>(bytes: &[u8]) -> Option<[u64; N]> {
    let bytes = bytes.get(..N.checked_mul(WORD)?)?;
    let mut words = [0; N];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(WORD)) {
        *word = u64::from_le_bytes(*bytes.first_chunk()?);
    }
    Some(words)
}

/// Splits a word into its lower and its upper half.
#[inline]
pub(super) fn halves(word: u64) -> (u32, u32) {
    (word as u32, (word >> 32) as u32)
}

/// Reads a little-endian word.
#[inline]
pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Reads a little-endian half of a word.
#[inline]
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Reads a little-endian quarter of a word.
#[inline]
pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Reads the digest that `bytes` begin with, and what follows it.
#[inline]
pub(super) fn split_digest(bytes: &[u8]) -> Option<(Digest, &[u8])> {
    let (digest, rest) = bytes.split_first_chunk::<{ Digest::LEN }>()?;
    Some((Digest::new(*digest), rest))
}

/// Returns true if all bytes are zero.
///
/// Cost: one word at a time, because every lookup in a table of the chunk index checks most of a page.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    let mut words = bytes.chunks_exact(WORD);
    words.all(|word| u64_at(word, 0) == Some(0)) && words.remainder().iter().all(|&byte| byte == 0)
}
