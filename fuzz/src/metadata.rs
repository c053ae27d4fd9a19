// SPDX-License-Identifier: MIT OR Apache-2.0

//! The metadata blob, as the kernel and the tools read it.

use crate::random::Random;
use crate::Mutate;
use puzzlefs_test_support::{walk, Bytes};

const WORD: usize = 8;

/// Reads everything of a message, and checks what each call costs and what must hold of its result.
pub fn run(data: &[u8]) {
    let _ = walk(&Bytes::new(data));
}

/// Changes words to others that say something to a reader of messages, and mostly makes the
/// segment table agree with the length.
pub fn mutate(data: &mut [u8], size: usize, max_size: usize, seed: u32, mutate: Mutate) -> usize {
    let mut random = Random(seed.into());
    let table = table_len(&data[..size]);
    if size < table + WORD || random.below(4) == 0 {
        return mutate(data, size, max_size);
    }
    let mut size = size;
    let words = (size - table) / WORD;
    for _ in 0..=random.below(3) {
        let at = table + random.below(words) * WORD;
        let other = table + random.below(words) * WORD;
        match random.below(8) {
            0 => data.copy_within(other..other + WORD, at),
            // The copy of a struct or a list, with the pointers to it.
            1 => {
                let len = (1 + random.below(16)) * WORD;
                let len = len.min(size - at.max(other));
                data.copy_within(other..other + len, at);
            }
            2 if size + WORD <= max_size => {
                data.copy_within(at..size, at + WORD);
                size += WORD;
            }
            3 => {
                let byte = at + random.below(WORD);
                data[byte] ^= 1 << random.below(8);
            }
            _ => data[at..at + WORD].copy_from_slice(&word(&mut random).to_le_bytes()),
        }
    }
    if random.below(16) != 0 {
        size -= (size - table) % WORD;
        fit_table(&mut data[..size]);
    }
    size
}

/// The number of segments, by the table.
fn segments(data: &[u8]) -> usize {
    let less_one = data.first_chunk();
    less_one.map_or(0, |bytes| u32::from_le_bytes(*bytes) as usize % 512) + 1
}

fn table_len(data: &[u8]) -> usize {
    (segments(data) + 1).div_ceil(2) * WORD
}

/// Gives the last segment what the others leave of the message, or else makes one of all.
fn fit_table(data: &mut [u8]) {
    let table = table_len(data);
    let last = segments(data) * 4;
    let others: usize = data[4..last]
        .chunks_exact(4)
        .map(|len| u32::from_le_bytes([len[0], len[1], len[2], len[3]]) as usize)
        .sum();
    match ((data.len() - table) / WORD).checked_sub(others) {
        Some(rest) => data[last..last + 4].copy_from_slice(&(rest as u32).to_le_bytes()),
        None => {
            let words = (data.len() / WORD - 1) as u32;
            data[..4].fill(0);
            data[4..8].copy_from_slice(&words.to_le_bytes());
        }
    }
}

// Pointers are put together of fields that are shifted: bare, that reads better.
#[allow(clippy::precedence)]
fn word(random: &mut Random) -> u64 {
    let offset = (random.below(240) as u64).wrapping_sub(40) << 2 & 0xffff_fffc;
    let small = random.below(200) as u64;
    let (data, pointers) = (random.below(8) as u64, random.below(4) as u64);
    match random.below(8) {
        0 => 0,
        1 => u64::MAX << random.below(64),
        2 => small,
        // A struct, a list, an endless list.
        3 => offset | data << 32 | pointers << 48,
        4 => offset | 1 | data << 32 | small << 35,
        5 => offset | 1 | data << 32 | 0x1fff_ffff << 35,
        // A far pointer.
        6 => small << 3 | (random.next() & 1) << 2 | 2 | (random.below(6) as u64) << 32,
        // The tag of a list.
        _ => small << 2 | data << 32 | pointers << 48,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use puzzlefs_schema::Framing;

    #[test]
    fn most_mutants_are_framed() {
        for segment in [None, Some(50), Some(2)] {
            let original = puzzlefs_test_support::everything().build(segment);
            let len = original.as_slice().len();
            let framed = (0..1000).filter(|&seed| {
                let mut data = original.as_slice().to_vec();
                data.resize(len + 1024, 0);
                let len = mutate(&mut data, len, len + 1024, seed, |_, size, _| size);
                Framing::parse(Bytes::new(&data[..len]).as_slice()).is_ok()
            });
            assert!(framed.count() > 900);
        }
    }
}
