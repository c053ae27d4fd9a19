// SPDX-License-Identifier: MIT OR Apache-2.0

//! The ranges of a pack that are requested.

use puzzlefs_schema::v4::PackedChunk;
use std::ops::Range;

/// The bytes of chunks that nobody needs and that are fetched to save requests: this part of the needed
/// bytes, in per cent.
const WASTE_PERCENT: u64 = 8;
/// Gaps up to this length in bytes are always fetched: a request costs more.
const SMALL_GAP: u64 = 8 << 10;
/// The most requests for one pack.
const RANGES_MAX: usize = 64;

/// A range of a pack, and the chunks in it that are needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PackRange {
    /// The needed chunks, in order of position. There is at least one.
    pub chunks: Vec<PackedChunk>,
    /// The bytes from the first chunk to the last one.
    pub bytes: Range<u64>,
}

/// Returns the position behind a chunk.
pub(super) fn end_of(chunk: &PackedChunk) -> u64 {
    chunk.offset + u64::from(chunk.stored_len)
}

/// Returns the ranges that hold the needed chunks of a pack, which are in order of position.
///
/// Ranges with small gaps between them become one, the smallest gaps first. The waste stays within
/// limits, unless there would be too many requests.
pub(super) fn ranges(needed: &[PackedChunk]) -> Vec<PackRange> {
    at_most(RANGES_MAX, needed)
}

/// Does the same for chunks on demand: the waste stays within limits, however many requests that takes.
pub(super) fn sparse_ranges(needed: &[PackedChunk]) -> Vec<PackRange> {
    at_most(usize::MAX, needed)
}

/// Returns the ranges that hold the needed chunks, and joins them as long as there are more than `most`.
fn at_most(most: usize, needed: &[PackedChunk]) -> Vec<PackRange> {
    let total: u64 = needed.iter().map(|chunk| u64::from(chunk.stored_len)).sum();
    // The gap before each chunk but the first one.
    let mut gaps: Vec<(u64, usize)> = needed
        .windows(2)
        .enumerate()
        .filter_map(|(at, pair)| match pair {
            [before, after] => Some((after.offset.saturating_sub(end_of(before)), at + 1)),
            _ => None,
        })
        .collect();
    gaps.sort_unstable();
    let budget = total.saturating_mul(WASTE_PERCENT) / 100;
    let (mut waste, mut joined) = (0, 0);
    for (gap, _) in &gaps {
        let ranges = needed.len() - joined;
        if *gap > SMALL_GAP && waste + gap > budget && ranges <= most {
            break;
        }
        waste += gap;
        joined += 1;
    }
    let mut cuts: Vec<usize> = gaps.iter().skip(joined).map(|(_, at)| *at).collect();
    cuts.sort_unstable();
    cuts.push(needed.len());
    let mut start = 0;
    let mut ranges = Vec::with_capacity(cuts.len());
    for cut in cuts {
        let chunks = needed.get(start..cut).unwrap_or_default().to_vec();
        start = cut;
        if let (Some(first), Some(last)) = (chunks.first(), chunks.last()) {
            let bytes = first.offset..end_of(last);
            ranges.push(PackRange { chunks, bytes });
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(offset: u64, stored_len: u32) -> PackedChunk {
        let digest = crate::model::digest::Digest([0; 32]).into();
        PackedChunk {
            digest,
            offset,
            stored_len,
        }
    }

    fn bytes(needed: &[PackedChunk]) -> Vec<Range<u64>> {
        ranges(needed)
            .into_iter()
            .map(|range| range.bytes)
            .collect()
    }

    #[test]
    fn neighbours_are_one_range() {
        let needed: Vec<_> = (0..100).map(|at| chunk(at * 1000, 1000)).collect();
        let [range] = &bytes(&needed)[..] else {
            panic!("{:?}", bytes(&needed));
        };
        assert_eq!(*range, 0..100_000);
        assert_eq!(ranges(&[]), []);
    }

    #[test]
    fn small_gaps_are_fetched_and_large_ones_are_not() {
        let needed = [chunk(0, 1000), chunk(9000, 1000), chunk(1_000_000, 50)];
        assert_eq!(bytes(&needed), [0..10_000, 1_000_000..1_000_050]);
        let found = ranges(&needed);
        assert_eq!(found[0].chunks, needed[..2]);
        assert_eq!(found[1].chunks, needed[2..]);
    }

    #[test]
    fn the_smallest_gaps_are_within_the_budget() {
        // 8 % of 1,000,000 bytes are 80,000: the gaps of 20,000 and 50,000, not that of 60,000.
        let needed = [
            chunk(0, 500_000),
            chunk(560_000, 250_000),
            chunk(830_000, 200_000),
            chunk(1_080_000, 50_000),
        ];
        assert_eq!(bytes(&needed), [0..500_000, 560_000..1_130_000]);
    }

    #[test]
    fn requests_are_bounded() {
        let needed: Vec<_> = (0..1000).map(|at| chunk(at * 100_000, 10)).collect();
        let found = ranges(&needed);
        assert_eq!(found.len(), RANGES_MAX);
        let chunks: Vec<_> = found.into_iter().flat_map(|range| range.chunks).collect();
        assert_eq!(chunks, needed);
        // Chunks on demand are not worth the gaps.
        let found = sparse_ranges(&needed);
        assert_eq!(found.len(), needed.len());
        assert!(found
            .iter()
            .all(|range| range.bytes.end - range.bytes.start == 10));
    }
}
