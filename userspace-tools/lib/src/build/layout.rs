// SPDX-License-Identifier: MIT OR Apache-2.0

//! The policy of cutting and packing.
//!
//! - A file of at least [`Layout::bundle_below`] bytes is cut on its own by FastCDC, from its own
//!   start. Equal files and equal parts of files give equal chunks.
//! - Smaller files are bundled whole, in the order of the walk. A small file is one extent. The
//!   digest of a file decides whether a bundle ends after it, so that a changed file changes one
//!   bundle. A bundle also ends between files with different modification times: the files of one
//!   package have one time and change together. A small file equal to an earlier one is not stored
//!   again, unless files in too many places would share a bundle: see [`Layout::bundle_regions`].
//! - Each [`Layout::zero_grid`]-aligned block of a cut file that holds only zeros is a reference to
//!   one shared blob of zeros. Only the contents decide, so that a sparse file and its full copy
//!   give the same image. Holes only save reading the zeros.
//!
//! Everything here is a pure function of contents, order and metadata. The number of threads, the
//! time of the build and the inode numbers of the source have no influence.

use crate::model::digest::Digest;
use fastcdc::v2020::FastCDC;

/// The largest [`Layout::of_average`]: no chunk is then larger than 1 MiB, the most that the kernel
/// verifies by its digest.
pub const CHUNK_AVG_MAX: usize = 256 << 10;

/// The largest distance in the walk between two files of one region, in inodes. A block has about as many.
pub(crate) const REGION_FILES: u32 = 512;

/// Sizes of the layout, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The minimum size of a chunk, except the last of a run of data.
    pub chunk_min: usize,
    /// The approximate average size of chunks and bundles.
    pub chunk_avg: usize,
    /// The maximum size of a chunk.
    pub chunk_max: usize,
    /// The maximum size of a bundle, at most `chunk_max`.
    pub bundle_max: usize,
    /// The size of a file that ends its bundle in any case. A smaller file ends it with a probability in
    /// proportion to its size.
    pub bundle_draw: usize,
    /// The number of regions of the walk, beside its own, whose files can refer to a bundle. A region is
    /// a run of files with at most 512 inodes between two of them. Each block with such a
    /// file changes if the bundle changes, so that the number bounds the metadata that changes.
    pub bundle_regions: u32,
    /// Files smaller than this are bundled; at most `bundle_max`.
    pub bundle_below: u64,
    /// The difference of modification times, in seconds, beyond which a bundle ends.
    pub bundle_gap: u64,
    /// The alignment and unit of runs of zeros.
    pub zero_grid: usize,
    /// The size of the shared blob of zeros, a multiple of `zero_grid`: the most that one
    /// reference to it covers.
    pub zero_blob: usize,
}

impl Default for Layout {
    /// Returns twice the reference builder's sizes. A reader of a whole image opens each blob. With
    /// half as many blobs it takes a tenth less time, and ten versions of a root filesystem take a
    /// fortieth more space.
    fn default() -> Self {
        Self::of_average(128 << 10)
    }
}

impl Layout {
    /// Returns the sizes for format 4.
    ///
    /// Small chunks share more, large ones compress better. `Documentation/image-format-4.md` has the
    /// measurements.
    pub fn packed(is_compressed: bool) -> Self {
        Self::packed_of_average(if is_compressed { 128 << 10 } else { 32 << 10 })
    }

    /// Returns the sizes for format 4 with chunks and bundles of about `average` bytes, which is a power
    /// of two, at most [`CHUNK_AVG_MAX`]. A bundle has at most one and a half times that: a small file
    /// that changes adds its bundle to the store.
    pub fn packed_of_average(average: usize) -> Self {
        Layout {
            bundle_max: average / 2 * 3,
            bundle_draw: average / 4 * 5,
            bundle_regions: 3,
            ..Self::of_average(average)
        }
    }

    /// Returns the sizes for format 3 with chunks and bundles of about `average` bytes, at most four times
    /// that. `average` is a power of two, at most [`CHUNK_AVG_MAX`].
    pub fn of_average(average: usize) -> Self {
        Layout {
            chunk_min: average / 4,
            chunk_avg: average,
            chunk_max: average * 4,
            bundle_max: average * 4,
            bundle_draw: average,
            bundle_regions: u32::MAX,
            bundle_below: average as u64,
            bundle_gap: 3600,
            zero_grid: 64 << 10,
            zero_blob: 1 << 20,
        }
    }

    /// Returns true if a file of this size is bundled with others, false if it is cut on its own.
    pub fn is_bundled(&self, size: u64) -> bool {
        size < self.bundle_below
    }

    /// Returns the length of the next chunk of `data`, which is the rest of a run if `last` is set.
    ///
    /// `None` asks for more data, because the cut may depend on the bytes that follow.
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

    /// Returns true if a file of `next` bytes does not fit into a bundle that holds `bundled` bytes.
    pub fn bundle_is_full(&self, bundled: usize, next: usize) -> bool {
        bundled + next > self.bundle_max
    }

    /// Returns true if a bundle that holds `bundled` bytes ends between two files that were modified
    /// in these seconds.
    ///
    /// Files that were created together have times that are equal or minutes apart. The times do
    /// not affect the bundles of a tree whose copy has a new time for each file.
    pub fn bundle_ends_between(&self, bundled: usize, last: i64, next: i64) -> bool {
        bundled >= self.chunk_min && last.abs_diff(next) > self.bundle_gap
    }

    /// Returns true if a bundle that now holds `bundled` bytes ends after the file that was added.
    ///
    /// The file's own digest decides, with a probability in proportion to its size. Bundles therefore
    /// have about [`Layout::chunk_avg`] bytes, and a file that is added, changed or removed moves
    /// only the end of its own bundle.
    pub fn bundle_ends_after(&self, bundled: usize, file: &Digest, size: usize) -> bool {
        let [a, b, c, d, ..] = *file.as_bytes();
        let draw = u32::from_le_bytes([a, b, c, d]) as usize % self.bundle_draw;
        bundled >= self.chunk_min && draw < size
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
        assert!(layout.bundle_ends_between(enough, 0, hour + 1));
        assert!(layout.bundle_ends_between(enough, hour + 1, 0));
        assert!(layout.bundle_ends_between(enough, i64::MIN, i64::MAX));
        assert!(!layout.bundle_ends_between(enough - 1, 0, hour + 1));
        assert!(!layout.bundle_ends_between(enough, 0, hour));
    }

    #[test]
    fn bundles_come_out_near_the_average() {
        let layout = Layout::default();
        let (mut bundles, mut bundled, mut total) = (0, 0, 0);
        for number in 0..20_000u32 {
            let size = 100 + (number as usize * 37) % 9000;
            if layout.bundle_is_full(bundled, size) {
                (bundles, bundled) = (bundles + 1, 0);
            }
            bundled += size;
            total += size;
            if layout.bundle_ends_after(bundled, &Digest::of(&number.to_le_bytes()), size) {
                (bundles, bundled) = (bundles + 1, 0);
            }
        }
        let average = total / bundles;
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
            assert!(layout.bundle_below <= layout.bundle_max as u64);
            let packed = Layout::packed_of_average(average);
            assert!(packed.bundle_below <= packed.bundle_max as u64);
            assert!(packed.bundle_max <= packed.chunk_max);
            assert!(
                layout.is_bundled(layout.bundle_below - 1)
                    && !layout.is_bundled(layout.bundle_below)
            );
            average *= 2;
        }
    }

    #[test]
    fn a_full_pack_takes_no_more() {
        let layout = Layout::default();
        assert!(!layout.bundle_is_full(layout.chunk_max - 10, 10));
        assert!(layout.bundle_is_full(layout.chunk_max - 10, 11));
        // A file as large as a bundle on the average always ends it.
        let file = Digest::of(b"any");
        assert!(layout.bundle_ends_after(layout.chunk_min, &file, layout.chunk_avg));
        assert!(!layout.bundle_ends_after(layout.chunk_min - 1, &file, layout.chunk_avg));
    }
}
