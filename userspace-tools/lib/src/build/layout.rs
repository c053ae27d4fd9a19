// SPDX-License-Identifier: MIT OR Apache-2.0

//! The policy: how files' contents are laid out in blobs.
//!
//! - A file of at least [`Layout::pack_below`] bytes is cut on its own by FastCDC, from its own
//!   start: equal files give equal chunks wherever they stand, and so do equal parts.
//! - Smaller files are packed whole, in the order of the walk, into blobs that end where the
//!   contents of a file say so: a small file is one extent, and a changed one costs one pack.
//!   They end, too, where the times of modification say that what follows comes from elsewhere:
//!   the files of one package, which are of one time, change together, and those of its
//!   neighbour do not. A small file equal to an earlier one is not stored again.
//! - Zeros: each [`Layout::zero_grid`]-aligned block of a cut file that holds only zeros is a
//!   reference to one shared blob of zeros. This looks at the contents, never at how the source
//!   filesystem allocated them, so that a sparse file and its full copy give the same image;
//!   holes are only a way not to read the zeros.
//!
//! Everything here is a pure function of contents, order and what the image says of its files: no
//! count of jobs, no time of the build, no inode numbers of the source.

use crate::model::digest::Digest;
use fastcdc::v2020::FastCDC;

/// The largest [`Layout::of_average`]: no chunk is then larger than 1 MiB, the most that the kernel
/// verifies by its digest.
pub const CHUNK_AVG_MAX: usize = 256 << 10;

/// Sizes of the layout, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// No chunk is smaller, but for the last of a run of data.
    pub chunk_min: usize,
    /// What chunks and packs are about on average.
    pub chunk_avg: usize,
    /// No chunk or pack is larger.
    pub chunk_max: usize,
    /// Files smaller than this are packed; at most `chunk_max`.
    pub pack_below: u64,
    /// Between files whose times are further apart, in seconds, a pack ends.
    pub pack_gap: u64,
    /// The alignment and unit of what counts as a run of zeros.
    pub zero_grid: usize,
    /// The size of the shared blob of zeros, a multiple of `zero_grid`: the most that one
    /// reference to it covers.
    pub zero_blob: usize,
}

impl Default for Layout {
    /// Twice the reference builder's sizes. Each blob is a file to be opened by whoever reads all of an
    /// image: with half as many that takes a tenth less, and ten versions of a root filesystem take
    /// a fortieth more room.
    fn default() -> Self {
        Self::of_average(128 << 10)
    }
}

impl Layout {
    /// Chunks and packs of about `average` bytes, up to four times that. `average` is a power of two,
    /// at most [`CHUNK_AVG_MAX`].
    pub fn of_average(average: usize) -> Self {
        Layout {
            chunk_min: average / 4,
            chunk_avg: average,
            chunk_max: average * 4,
            pack_below: average as u64,
            pack_gap: 3600,
            zero_grid: 64 << 10,
            zero_blob: 1 << 20,
        }
    }

    /// Whether a file of this size is packed with others rather than cut on its own.
    pub fn is_packed(&self, size: u64) -> bool {
        size < self.pack_below
    }

    /// The length of the next chunk of `data`, which is a run's remainder when `last` is set.
    ///
    /// `None` asks for more data: unless it is the last, the cut may depend on what follows.
    pub fn next_chunk(&self, data: &[u8], last: bool) -> Option<usize> {
        if data.is_empty() || (!last && data.len() < self.chunk_max) {
            return None;
        }
        let window = data.len().min(self.chunk_max);
        let cutter = FastCDC::new(
            &data[..window],
            self.chunk_min,
            self.chunk_avg,
            self.chunk_max,
        );
        let (_, length) = cutter.cut(0, window);
        Some(length)
    }

    /// Whether a file of `next` bytes no longer goes into a pack that holds `packed` bytes.
    pub fn pack_is_full(&self, packed: usize, next: usize) -> bool {
        packed + next > self.chunk_max
    }

    /// Whether a pack that holds `packed` bytes ends between two files that were modified in these
    /// seconds.
    ///
    /// What was made in one go has times that are minutes apart, if not equal ones: a copy of a tree
    /// with a new time for each file is packed as if there were none.
    pub fn pack_ends_between(&self, packed: usize, last: i64, next: i64) -> bool {
        packed >= self.chunk_min && last.abs_diff(next) > self.pack_gap
    }

    /// Whether a pack that now holds `packed` bytes ends after the file just added.
    ///
    /// The file's own digest decides, with a probability in proportion to its size, so that
    /// packs come out at about [`Layout::chunk_avg`] bytes, and a file that is added, changed or
    /// removed moves the ends of its own pack only.
    pub fn pack_ends_after(&self, packed: usize, file: &Digest, size: usize) -> bool {
        let [a, b, c, d, ..] = *file.as_bytes();
        let draw = u32::from_le_bytes([a, b, c, d]) as usize % self.chunk_avg;
        packed >= self.chunk_min && draw < size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that look random and are the same everywhere.
    fn noise(size: usize, mut seed: u64) -> Vec<u8> {
        (0..size)
            .map(|_| {
                seed = seed
                    .wrapping_mul(6364136223846793005)
                    .wrapping_add(1442695040888963407);
                (seed >> 56) as u8
            })
            .collect()
    }

    fn cut(layout: &Layout, mut data: &[u8]) -> Vec<usize> {
        let mut lengths = Vec::new();
        while let Some(length) = layout.next_chunk(data, true) {
            lengths.push(length);
            data = &data[length..];
        }
        lengths
    }

    #[test]
    fn chunks_are_fastcdc_2020s() {
        let layout = Layout::default();
        let data = noise(3 << 20, 1);
        let wanted: Vec<usize> = FastCDC::new(&data, 32 << 10, 128 << 10, 512 << 10)
            .map(|chunk| chunk.length)
            .collect();
        assert_eq!(cut(&layout, &data), wanted);
        assert!(wanted.len() > 10);
    }

    #[test]
    fn an_unfinished_run_is_not_cut_early() {
        let layout = Layout::default();
        let data = noise(layout.chunk_max, 2);
        assert_eq!(layout.next_chunk(&data[..data.len() - 1], false), None);
        assert!(layout.next_chunk(&data, false).is_some());
        assert_eq!(layout.next_chunk(&[], true), None);
        assert_eq!(layout.next_chunk(&data[..5], true), Some(5));
    }

    #[test]
    fn an_insertion_moves_few_cuts() {
        let layout = Layout::default();
        let data = noise(4 << 20, 3);
        let mut other = noise(100, 4);
        other.extend_from_slice(&data);
        let ends = |lengths: Vec<usize>, skip: usize| {
            lengths
                .iter()
                .scan(0, |at, length| {
                    *at += length;
                    Some(*at - skip)
                })
                .collect::<std::collections::HashSet<_>>()
        };
        let (before, after) = (
            ends(cut(&layout, &data), 0),
            ends(cut(&layout, &other), 100),
        );
        assert!(before.difference(&after).count() <= 3);
    }

    #[test]
    fn packs_end_where_times_differ() {
        let layout = Layout::default();
        let (enough, hour) = (layout.chunk_min, 3600);
        assert!(layout.pack_ends_between(enough, 0, hour + 1));
        assert!(layout.pack_ends_between(enough, hour + 1, 0));
        assert!(layout.pack_ends_between(enough, i64::MIN, i64::MAX));
        assert!(!layout.pack_ends_between(enough - 1, 0, hour + 1));
        assert!(!layout.pack_ends_between(enough, 0, hour));
    }

    #[test]
    fn packs_come_out_near_the_average() {
        let layout = Layout::default();
        let (mut packs, mut packed, mut total) = (0, 0, 0);
        for number in 0..20_000u32 {
            let size = 100 + (number as usize * 37) % 9000;
            if layout.pack_is_full(packed, size) {
                (packs, packed) = (packs + 1, 0);
            }
            packed += size;
            total += size;
            if layout.pack_ends_after(packed, &Digest::of(&number.to_le_bytes()), size) {
                (packs, packed) = (packs + 1, 0);
            }
        }
        let average = total / packs;
        let near = layout.chunk_avg * 3 / 4..layout.chunk_avg * 2;
        assert!(near.contains(&average), "{average}");
    }

    /// For each size that `--chunk-size` takes.
    #[test]
    fn sizes_are_in_proportion() {
        let mut average = 4 << 10;
        while average <= CHUNK_AVG_MAX {
            let layout = Layout::of_average(average);
            assert!(layout.chunk_min < layout.chunk_avg && layout.chunk_avg < layout.chunk_max);
            // One reference to the blob of zeros covers a whole chunk, and no chunk is larger than
            // the kernel verifies by its digest.
            assert!(layout.chunk_max <= layout.zero_blob && layout.zero_blob <= 1 << 20);
            assert_eq!(layout.zero_blob % layout.zero_grid, 0);
            assert!(layout.pack_below <= layout.chunk_max as u64);
            assert!(
                layout.is_packed(layout.pack_below - 1) && !layout.is_packed(layout.pack_below)
            );
            average *= 2;
        }
    }

    #[test]
    fn a_full_pack_takes_no_more() {
        let layout = Layout::default();
        assert!(!layout.pack_is_full(layout.chunk_max - 10, 10));
        assert!(layout.pack_is_full(layout.chunk_max - 10, 11));
        // A file as large as a pack on the average always ends it.
        let file = Digest::of(b"any");
        assert!(layout.pack_ends_after(layout.chunk_min, &file, layout.chunk_avg));
        assert!(!layout.pack_ends_after(layout.chunk_min - 1, &file, layout.chunk_avg));
    }
}
