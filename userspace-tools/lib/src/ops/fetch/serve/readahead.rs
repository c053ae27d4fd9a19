// SPDX-License-Identifier: MIT OR Apache-2.0

//! Extends the requested ranges of an image by the chunks behind them that readers likely need next.
//!
//! Two patterns count:
//!
//! - A range that begins where an earlier one has ended, or a little behind it, continues a stream. Its
//!   extension is 64 KiB long, and twice as long in each further step, up to 1 MiB.
//! - A range of small chunks that continues nothing is extended to 64 KiB. A round trip costs more.
//!
//! An extension is part of the same request to the source. It counts as used if a later range continues the
//! stream. All other extensions are waste: at most 256 KiB, and an eighth of the requested and used bytes.

use super::super::plan::{end_of, PackRange};
use puzzlefs_schema::v4::PackedChunk;
use std::collections::VecDeque;

/// The length of the first extension of a stream, and of the shortest range, in bytes.
const SHORTEST: u64 = 64 << 10;
/// The length of the longest extension.
const LONGEST: u64 = 1 << 20;
/// A range continues a stream that ends so many bytes before it.
const GAP: u64 = 64 << 10;
/// Chunks of fewer bytes are small.
const SMALL_CHUNK: u32 = 16 << 10;
/// The bytes that may be wasted: these, and this part of the requested and used bytes.
const WASTE: u64 = 256 << 10;
const WASTE_PART: u64 = 8;
/// The number of streams that are known. The oldest one is forgotten first.
const STREAMS_MAX: usize = 32;

/// The last range of a stream.
#[derive(Clone, Copy, Debug)]
struct Stream {
    /// The number of the pack.
    pack: u32,
    /// The end of the requested part.
    requested_end: u64,
    /// The end of the extension.
    end: u64,
    /// The longest extension that the pattern has permitted.
    window: u64,
}

/// The streams of an image.
///
/// # Invariants
///
/// `unused` is the length of all extensions that no stream has continued, and at most 256 KiB and an eighth
/// of `used`.
#[derive(Debug, Default)]
pub(super) struct Readahead {
    /// The latest one is at the back.
    streams: VecDeque<Stream>,
    /// The bytes of requested ranges, and of extensions that were used.
    used: u64,
    /// The bytes of the other extensions.
    unused: u64,
}

impl Readahead {
    /// Returns the extension of a requested range of a pack. `following` gives the missing chunks directly
    /// behind the range, of at most so many bytes with the gaps before them.
    pub fn extend(
        &mut self,
        pack: u32,
        range: &PackRange,
        following: impl FnOnce(u64) -> Vec<PackedChunk>,
    ) -> Vec<PackedChunk> {
        let bytes = &range.bytes;
        let len = bytes.end.saturating_sub(bytes.start);
        self.used = self.used.saturating_add(len);
        let window = match self.take_continued(pack, bytes.start) {
            Some(former) => {
                let extension = former.end - former.requested_end;
                self.unused = self.unused.saturating_sub(extension);
                self.used = self.used.saturating_add(extension);
                (2 * former.window).clamp(SHORTEST, LONGEST)
            }
            None => 0,
        };
        let is_small = |chunk: &PackedChunk| chunk.stored_len < SMALL_CHUNK;
        let most = if window == 0 && range.chunks.iter().all(is_small) {
            SHORTEST.saturating_sub(len)
        } else {
            window
        };
        let budget = (WASTE + self.used / WASTE_PART).saturating_sub(self.unused);
        let extension = match most.min(budget) {
            0 => Vec::new(),
            most => following(most),
        };
        let end = extension.last().map_or(bytes.end, end_of);
        // INVARIANT: `following` keeps to the budget.
        self.unused += end.saturating_sub(bytes.end);
        self.streams.push_back(Stream {
            pack,
            requested_end: bytes.end,
            end: end.max(bytes.end),
            window,
        });
        if self.streams.len() > STREAMS_MAX {
            self.streams.pop_front();
        }
        extension
    }

    /// Takes the latest stream that a range at this position continues.
    fn take_continued(&mut self, pack: u32, start: u64) -> Option<Stream> {
        let continues = |stream: &Stream| {
            let near = stream.requested_end..=stream.end.saturating_add(GAP);
            stream.pack == pack && near.contains(&start)
        };
        let at = self.streams.iter().rposition(continues)?;
        self.streams.remove(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::digest::Digest;

    const KIB: u64 = 1 << 10;

    fn range(start: u64, len: u64) -> PackRange {
        PackRange {
            chunks: vec![chunk(start, len)],
            bytes: start..start + len,
        }
    }

    fn chunk(offset: u64, len: u64) -> PackedChunk {
        PackedChunk {
            digest: Digest([0; 32]).into(),
            offset,
            stored_len: len as u32,
        }
    }

    /// Requests a range in a pack without end, and returns the length of its extension.
    fn extend(readahead: &mut Readahead, pack: u32, start: u64, len: u64) -> u64 {
        let end = start + len;
        let extension = readahead.extend(pack, &range(start, len), |most| {
            let chunks = most / (4 * KIB);
            (0..chunks)
                .map(|number| chunk(end + number * 4 * KIB, 4 * KIB))
                .collect()
        });
        let budget = WASTE + readahead.used / WASTE_PART;
        assert!(readahead.unused <= budget, "{readahead:?}");
        extension.len() as u64 * 4 * KIB
    }

    #[test]
    fn extensions_of_a_stream_double() {
        let mut readahead = Readahead {
            used: 64 << 20,
            ..Readahead::default()
        };
        let mut start = 0;
        let mut lengths = Vec::new();
        for _ in 0..8 {
            let extension = extend(&mut readahead, 1, start, 32 * KIB);
            lengths.push(extension / KIB);
            start += 32 * KIB + extension;
        }
        assert_eq!(lengths, [0, 64, 128, 256, 512, 1024, 1024, 1024]);
        // A gap of a few chunks is no end, and another pack or a jump is.
        assert_eq!(extend(&mut readahead, 1, start + GAP, 32 * KIB), LONGEST);
        assert_eq!(extend(&mut readahead, 2, start + GAP, 32 * KIB), 0);
        assert_eq!(extend(&mut readahead, 1, start + (64 << 20), 32 * KIB), 0);
        assert_eq!(extend(&mut readahead, 1, 0, 32 * KIB), 0);
    }

    #[test]
    fn streams_beside_each_other_are_known() {
        let mut readahead = Readahead {
            used: 64 << 20,
            ..Readahead::default()
        };
        let mut starts: Vec<u64> = (0..4).map(|number| number << 30).collect();
        for wanted in [0, 64, 128, 256] {
            for start in &mut starts {
                let extension = extend(&mut readahead, 1, *start, 20 * KIB);
                assert_eq!(extension / KIB, wanted);
                *start += 20 * KIB + extension;
            }
        }
        // Streams are forgotten.
        for number in 0..STREAMS_MAX as u64 {
            extend(&mut readahead, 2, number << 30, 20 * KIB);
        }
        assert_eq!(extend(&mut readahead, 1, starts[0], 20 * KIB), 0);
    }

    #[test]
    fn small_chunks_come_with_others() {
        let mut readahead = Readahead::default();
        assert_eq!(extend(&mut readahead, 1, 0, 4 * KIB), 60 * KIB);
        assert_eq!(extend(&mut readahead, 1, 1 << 30, 16 * KIB), 0);
    }

    #[test]
    fn waste_is_bounded() {
        let mut readahead = Readahead::default();
        let (mut requested, mut extended) = (0, 0);
        for number in 1..1000 {
            // Nothing continues a stream.
            extended += extend(&mut readahead, 1, number << 30, 4 * KIB);
            requested += 4 * KIB;
            assert!(extended <= WASTE + requested / WASTE_PART);
        }
        assert!(extended > WASTE);
        // A stream that goes on makes room for itself.
        let mut start = 1 << 50;
        for _ in 0..100 {
            start += 20 * KIB + extend(&mut readahead, 2, start, 20 * KIB);
        }
        assert_eq!(extend(&mut readahead, 2, start, 20 * KIB), LONGEST);
    }
}
