// SPDX-License-Identifier: MIT OR Apache-2.0

//! The seek table of a compressed blob.

use crate::random::Random;
use crate::Mutate;
use puzzlefs_schema::{Frame, SeekTable, MAX_FRAMES, SEEK_TABLE_FOOTER_LEN};

/// Reads the seek table of a blob, which is `data`.
pub fn run(data: &[u8]) {
    let footer = &data[data.len().saturating_sub(SEEK_TABLE_FOOTER_LEN)..];
    let Ok(table) = SeekTable::parse_footer(footer, data.len() as u64) else {
        return;
    };
    assert!(table.frames() <= MAX_FRAMES as usize);
    assert!(table.byte_len() <= data.len() as u64);
    let mut frames = vec![Frame::default(); table.frames()];
    let start = data.len() - table.byte_len() as usize;
    if table.read(&data[start..], &mut frames).is_ok() {
        assert!(frames.is_sorted_by(|a, b| a.end <= b.end && a.content_end <= b.content_end));
        assert_eq!(frames.last().map_or(0, |frame| frame.end), start as u64);
    }
}

/// Changes a blob, and then mostly makes its footer and header agree with the bytes before them.
pub fn mutate(data: &mut [u8], size: usize, max_size: usize, seed: u32, mutate: Mutate) -> usize {
    let mut random = Random(seed.into());
    let size = mutate(data, size, max_size);
    if random.below(4) != 0 {
        fit(&mut data[..size], &mut random);
    }
    size
}

/// Writes a header and a footer around as many entries as the last bytes may be.
fn fit(blob: &mut [u8], random: &mut Random) {
    let entry = if random.below(2) == 0 { 8 } else { 12 };
    let around = 8 + SEEK_TABLE_FOOTER_LEN;
    let Some(room) = blob.len().checked_sub(around) else {
        return;
    };
    let frames = random.below(room / entry + 1).min(random.below(64) + 1);
    let table = around + frames * entry;
    let start = blob.len() - table;
    let stored = (start / frames.max(1)) as u32;
    let table = &mut blob[start..];
    let len = table.len();
    table[..4].copy_from_slice(&0x184d_2a5eu32.to_le_bytes());
    table[4..8].copy_from_slice(&(len as u32 - 8).to_le_bytes());
    // Frames that fill the blob, but for what the last one has to add.
    if random.below(2) == 0 {
        for (index, entry) in table[8..].chunks_exact_mut(entry).take(frames).enumerate() {
            let rest = start as u32 - stored * index as u32;
            let last = index + 1 == frames;
            let size = if last { rest } else { stored };
            entry[..4].copy_from_slice(&size.to_le_bytes());
        }
    }
    table[len - 9..len - 5].copy_from_slice(&(frames as u32).to_le_bytes());
    table[len - 5] = if entry == 12 { 0x80 } else { 0 };
    table[len - 4..].copy_from_slice(&0x8f92_eab1u32.to_le_bytes());
}
