// SPDX-License-Identifier: MIT OR Apache-2.0

//! The structures of image format 4.

use crate::random::Random;
use crate::Mutate;
use puzzlefs_schema::v4::{
    frame_content_len, restore_values, root_ref, store_differences, ChunkRef,
};
use puzzlefs_schema::Digest;
use puzzlefs_test_support::v4::chunks::{Chunks, Naming};
use puzzlefs_test_support::v4::walk;
use puzzlefs_test_support::v4::walk_tree::walk_tree;

const WORD: usize = 8;

/// The references to chunks and the header of a compressed one: two lengths, and stored bytes.
pub fn run_chunk(data: &[u8]) {
    let Some((lens, stored)) = data.split_first_chunk::<8>() else {
        return;
    };
    let [s0, s1, s2, s3, c0, c1, c2, c3] = *lens;
    let stored_len = u32::from_le_bytes([s0, s1, s2, s3]);
    let content_len = u32::from_le_bytes([c0, c1, c2, c3]);
    let digest = Digest::new([0; 32]);
    if let Ok(chunk) = ChunkRef::new(digest, stored_len, content_len) {
        assert!(chunk.stored_len() <= chunk.content_len());
        if chunk.check_frame(stored).is_ok() && stored_len < content_len {
            assert_eq!(frame_content_len(stored), Ok(content_len.into()));
        }
    }
    if let Ok(chunk) = root_ref(digest, stored_len, stored) {
        assert_eq!(chunk.stored_len(), stored_len);
        assert!(chunk.check_metadata().is_ok());
    }
}

/// A root.
pub fn run_root(data: &[u8]) {
    let _ = walk::walk_root(data);
}

/// A list of blocks.
pub fn run_block_list(data: &[u8]) {
    let _ = walk::walk_block_list(data);
}

/// A block.
pub fn run_block(data: &[u8]) {
    run_stored(data, walk::walk_block);
}

/// A list block.
pub fn run_list_block(data: &[u8]) {
    run_stored(data, walk::walk_list_block);
}

/// Stored content, whose values are restored. Those of a valid chunk give the same differences.
fn run_stored(data: &[u8], walk: walk::Walk) {
    let mut content = data.to_vec();
    restore_values(&mut content);
    if walk(&content).is_ok() {
        store_differences(&mut content);
        assert!(content == data);
    }
}

/// A pack.
pub fn run_pack(data: &[u8]) {
    walk::walk_pack(data);
}

/// A page of a table.
pub fn run_page(data: &[u8]) {
    walk::walk_page(data);
}

/// A catalogue.
pub fn run_catalogue(data: &[u8]) {
    walk::walk_catalogue(data);
}

/// An image: chunks one after the other, the last of which is the root. A reference leads to the chunk
/// whose number is in its digest.
pub fn run_tree(data: &[u8]) {
    /// More chunks than a small input has use for.
    const MAX_CHUNKS: usize = 64;
    /// The elements that are read. An input can have many more, all from one chunk.
    const BUDGET: u64 = 300;

    let mut chunks = Vec::new();
    let mut rest = data;
    while let Some((chunk, behind)) = split_message(rest) {
        chunks.push(([0; 32], chunk.to_vec()));
        rest = behind;
        if chunks.len() == MAX_CHUNKS {
            break;
        }
    }
    if !chunks.is_empty() {
        let _ = walk_tree(&Chunks::new(chunks, Naming::Numbers), BUDGET);
    }
}

/// Splits off a message, whose length is in its segment table.
fn split_message(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let words = data.get(4..).and_then(|bytes| bytes.first_chunk())?;
    let words = u32::from_le_bytes(*words) as usize;
    Some(data.split_at(data.len().min((words + 1) * WORD)))
}

/// Changes fields of messages one after the other, and leaves their lengths.
pub fn mutate_tree(
    data: &mut [u8],
    size: usize,
    max_size: usize,
    seed: u32,
    mutate: Mutate,
) -> usize {
    let mut random = Random(seed.into());
    if size < 2 * WORD || random.below(8) == 0 {
        return mutate(data, size, max_size);
    }
    change_words(data, size / WORD, &mut random);
    size
}

/// Changes fields of a message, and mostly makes the segment table agree with its length.
pub fn mutate(data: &mut [u8], size: usize, max_size: usize, seed: u32, mutate: Mutate) -> usize {
    let mut random = Random(seed.into());
    if size < 2 * WORD || random.below(4) == 0 {
        return mutate(data, size, max_size);
    }
    let words = size / WORD;
    change_words(data, words, &mut random);
    let size = words * WORD;
    if random.below(16) != 0 {
        data[..4].fill(0);
        data[4..8].copy_from_slice(&(words as u32 - 1).to_le_bytes());
    }
    size
}

/// Changes some words, mostly to others that say something to a reader of messages.
fn change_words(data: &mut [u8], words: usize, random: &mut Random) {
    for _ in 0..=random.below(3) {
        let at = random.below(words) * WORD;
        let from = random.below(words) * WORD;
        let field = at + random.below(4) * 2;
        match random.below(6) {
            0 => data.copy_within(from..from + WORD, at),
            1 => data[at + random.below(WORD)] ^= 1 << random.below(8),
            2 => data[at..at + WORD].copy_from_slice(&random.next().to_le_bytes()),
            3 => {
                let small = random.below(20) as u16;
                data[field..field + 2].copy_from_slice(&small.to_le_bytes());
            }
            4 => data[field] = data[field].wrapping_add(1),
            _ => data[field] = data[field].wrapping_sub(1),
        }
    }
}
