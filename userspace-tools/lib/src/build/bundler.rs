// SPDX-License-Identifier: MIT OR Apache-2.0

//! Bundles small files in the order of the walk.

use crate::build::layout::{Layout, REGION_FILES};
use crate::model::digest::Digest;
use crate::model::tree::NodeId;
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::mem;

/// The number of files that a bundle names.
const FIRST_FILES: usize = 8;

/// Consecutive small files that were read together.
#[derive(Default)]
pub(crate) struct Batch {
    /// Their contents, one after the other.
    pub bytes: Vec<u8>,
    pub files: Vec<SmallFile>,
}

/// A small file of a [`Batch`].
pub(crate) struct SmallFile {
    pub node: NodeId,
    pub size: usize,
    pub digest: Digest,
    /// The second of the last modification.
    pub modified: i64,
}

/// A blob of small files.
pub(crate) struct Bundle {
    /// 0 for the first, and so on.
    pub number: u32,
    pub bytes: Vec<u8>,
    /// Its first files, at most [`FIRST_FILES`], with their offsets.
    pub first_files: Vec<(NodeId, u32)>,
    /// The SHA-256 of the SHA-256 of each file, one after the other.
    pub digest: Digest,
}

/// The place of a small file.
pub(crate) struct PlacedFile {
    pub node: NodeId,
    pub bundle: u32,
    pub offset: u32,
    pub size: u32,
}

/// Makes bundles of batches.
pub(crate) struct Bundler<'a> {
    layout: &'a Layout,
    /// The number of the open bundle.
    number: u32,
    open: Vec<u8>,
    first_files: Vec<(NodeId, u32)>,
    /// The hash of the digests of its files.
    sha256: Sha256,
    /// The second in which the last file of the open bundle was modified.
    modified: i64,
    placed: Vec<PlacedFile>,
    /// The bundle and offset of each content seen.
    seen: HashMap<Digest, (u32, u32)>,
    /// The regions of each bundle; the open one is the last.
    regions: Vec<Regions>,
}

/// The regions of the walk whose files refer to a bundle.
struct Regions {
    /// The last file that refers to it.
    last: NodeId,
    /// The number of regions that can be added.
    left: u32,
}

impl Regions {
    /// Adds a file that refers to the bundle. Returns false if there would be too many regions.
    fn add(&mut self, file: NodeId) -> bool {
        if self.last.abs_diff(file) > REGION_FILES {
            let Some(left) = self.left.checked_sub(1) else {
                return false;
            };
            self.left = left;
        }
        self.last = file;
        true
    }
}

impl<'a> Bundler<'a> {
    pub fn new(layout: &'a Layout) -> Self {
        Bundler {
            layout,
            number: 0,
            open: Vec::new(),
            first_files: Vec::new(),
            sha256: Sha256::new(),
            modified: 0,
            placed: Vec::new(),
            seen: HashMap::new(),
            regions: Vec::new(),
        }
    }

    /// Bundles the batch that follows, and returns the bundles that are complete.
    pub fn add(&mut self, batch: Batch) -> Vec<Bundle> {
        let mut bundles = Vec::new();
        let mut at = 0;
        for file in batch.files {
            let bytes = &batch.bytes[at..at + file.size];
            at += file.size;
            self.place(&file, bytes, &mut bundles);
        }
        bundles
    }

    /// Returns the open bundle, if it holds anything, after the last batch.
    pub fn last_bundle(&mut self) -> Option<Bundle> {
        (!self.open.is_empty()).then(|| self.close())
    }

    /// The number of complete bundles.
    pub fn bundles(&self) -> u32 {
        self.number
    }

    /// Returns the places of the files, in the order of the walk.
    pub fn placed(self) -> Vec<PlacedFile> {
        self.placed
    }

    fn place(&mut self, file: &SmallFile, bytes: &[u8], bundles: &mut Vec<Bundle>) {
        let place = match self.earlier_place(file) {
            Some(place) => place,
            None => {
                let packed = self.open.len();
                if self.layout.bundle_is_full(packed, file.size)
                    || self
                        .layout
                        .bundle_ends_between(packed, self.modified, file.modified)
                    || !self.add_region(file)
                {
                    bundles.push(self.close());
                    self.add_region(file);
                }
                self.modified = file.modified;
                let place = (self.number, self.open.len() as u32);
                if self.first_files.len() < FIRST_FILES {
                    self.first_files.push((file.node, place.1));
                }
                self.sha256.update(file.digest.as_bytes());
                self.open.extend_from_slice(bytes);
                self.seen.insert(file.digest, place);
                let packed = self.open.len();
                if self
                    .layout
                    .bundle_ends_after(packed, &file.digest, file.size)
                {
                    bundles.push(self.close());
                }
                place
            }
        };
        self.placed.push(PlacedFile {
            node: file.node,
            bundle: place.0,
            offset: place.1,
            size: file.size as u32,
        });
    }

    /// Returns the place of an earlier file with the same content, if this file can refer to its bundle.
    fn earlier_place(&mut self, file: &SmallFile) -> Option<(u32, u32)> {
        let place = *self.seen.get(&file.digest)?;
        let regions = self.regions.get_mut(place.0 as usize)?;
        regions.add(file.node).then_some(place)
    }

    /// Adds a file to the regions of the open bundle. Returns false if its content is stored again and
    /// there would be too many regions. A new content does not end a bundle for that.
    fn add_region(&mut self, file: &SmallFile) -> bool {
        let Some(regions) = self.regions.get_mut(self.number as usize) else {
            self.regions.push(Regions {
                last: file.node,
                left: self.layout.bundle_regions,
            });
            return true;
        };
        let is_again = self.seen.contains_key(&file.digest);
        if is_again {
            return regions.add(file.node);
        }
        regions.last = file.node;
        true
    }

    fn close(&mut self) -> Bundle {
        let number = self.number;
        self.number += 1;
        Bundle {
            number,
            bytes: mem::take(&mut self.open),
            first_files: mem::take(&mut self.first_files),
            digest: Digest(mem::take(&mut self.sha256).finalize().into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::scheduler::InOrder;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn batch(first: u32, contents: &[Vec<u8>]) -> Batch {
        let mut batch = Batch::default();
        for (node, bytes) in (first..).zip(contents) {
            batch.bytes.extend_from_slice(bytes);
            batch.files.push(SmallFile {
                node,
                size: bytes.len(),
                digest: Digest::of(bytes),
                modified: i64::from(node / 90) * 86_400,
            });
        }
        batch
    }

    /// Every file is where it is said to be, whatever the order of the batches.
    #[test]
    fn order_of_arrival_does_not_matter() {
        let layout = Layout::default();
        let content = |number: usize| {
            let size = 1 + number * 7919 % 30_000;
            // Each hundredth is the same as the first.
            let seed = if number % 100 == 0 { 0 } else { number };
            let size = if seed == 0 { 1000 } else { size };
            (0..size)
                .map(|at| (at * 31 + seed * 17 + at / 251 * seed) as u8)
                .collect()
        };
        let contents: Vec<Vec<u8>> = (0..400).map(content).collect();
        let run = |order: &[usize]| {
            let mut bundler = Bundler::new(&layout);
            let mut bundles = Vec::new();
            let (mut in_order, mut taken) = (InOrder::default(), 0);
            for &number in order {
                let files = &contents[number * 100..][..100];
                in_order.push(number, batch(number as u32 * 100, files));
                while let Some((_, batch)) = in_order.pop() {
                    bundles.extend(bundler.add(batch));
                    taken += 1;
                }
            }
            assert_eq!(taken, 4);
            bundles.extend(bundler.last_bundle());
            let bundles: Vec<Vec<u8>> = bundles.into_iter().map(|bundle| bundle.bytes).collect();
            (bundles, bundler.placed())
        };
        let (bundles, placed) = run(&[0, 1, 2, 3]);
        assert_eq!(run(&[3, 1, 0, 2]).0, bundles);
        assert!(bundles.len() > 20, "{}", bundles.len());
        assert!(bundles
            .iter()
            .all(|bundle| bundle.len() <= layout.chunk_max));
        assert_eq!(placed.len(), 400);
        for file in &placed {
            let bytes =
                &bundles[file.bundle as usize][file.offset as usize..][..file.size as usize];
            assert_eq!(bytes, contents[file.node as usize]);
            if file.node % 100 == 0 {
                assert_eq!((file.bundle, file.offset), (0, 0));
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 64,
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        /// Files of a few contents and times, in batches of any sizes.
        #[test]
        fn packs_do_not_depend_on_batches(
            files in vec((0u8..40, 1usize..9000, -9000i64..9000), 0..120),
            sizes in vec(1usize..30, 1..5),
        ) {
            let layout = Layout::of_average(8 << 10);
            let files: Vec<_> = files
                .into_iter()
                .map(|(seed, size, modified)| (vec![seed; size], modified))
                .collect();
            let (bundles, placed) = packed(&layout, &files, &[files.len().max(1)]);
            let (others, other_places) = packed(&layout, &files, &sizes);
            prop_assert_eq!(&bundles, &others);
            let places = |placed: &[PlacedFile]| -> Vec<_> {
                placed.iter().map(|file| (file.node, file.bundle, file.offset, file.size)).collect()
            };
            prop_assert_eq!(places(&placed), places(&other_places));

            prop_assert!(bundles.iter().all(|bundle| !bundle.is_empty() && bundle.len() <= layout.chunk_max));
            prop_assert_eq!(placed.len(), files.len());
            for (file, (bytes, _)) in placed.iter().zip(&files) {
                let bundle = &bundles[file.bundle as usize];
                prop_assert_eq!(&bundle[file.offset as usize..][..file.size as usize], &bytes[..]);
            }
            let distinct: HashSet<&[u8]> = files.iter().map(|(bytes, _)| &bytes[..]).collect();
            let sizes: usize = distinct.iter().map(|bytes| bytes.len()).sum();
            prop_assert_eq!(bundles.iter().map(Vec::len).sum::<usize>(), sizes, "each content once");
        }
    }

    /// Bundles files of these nodes and contents. Returns the bundle of each.
    fn bundles_of(layout: &Layout, files: impl Iterator<Item = (NodeId, Vec<u8>)>) -> Vec<u32> {
        let mut bundler = Bundler::new(layout);
        for (node, bytes) in files {
            bundler.add(Batch {
                files: vec![SmallFile {
                    node,
                    size: bytes.len(),
                    digest: Digest::of(&bytes),
                    modified: 0,
                }],
                bytes,
            });
        }
        bundler.placed().iter().map(|file| file.bundle).collect()
    }

    /// Files in many places have equal contents, as copies of one directory have: each bundle has files
    /// in few places, so that its change affects few blocks of metadata. In format 3, all copies refer to
    /// the first one.
    #[test]
    fn a_bundle_is_shared_by_few_regions() {
        let distance = 10 * REGION_FILES;
        let copies = (0..40u32).flat_map(|copy| {
            (0..20u32).map(move |file| {
                let content = format!("{file}").repeat(100).into_bytes();
                (copy * distance + file, content)
            })
        });
        let copies_of_bundles = |layout: &Layout| {
            let mut places: HashMap<u32, HashSet<usize>> = HashMap::new();
            for (at, bundle) in bundles_of(layout, copies.clone()).into_iter().enumerate() {
                places.entry(bundle).or_default().insert(at / 20);
            }
            places.into_values().map(|copies| copies.len()).max()
        };
        let packed = Layout::packed_of_average(4 << 10);
        assert_eq!(copies_of_bundles(&packed), Some(4));
        let (size, all) = (packed.chunk_avg, 40);
        assert_eq!(copies_of_bundles(&Layout::of_average(size)), Some(all));
    }

    /// Files in one region share contents, whatever their number is.
    #[test]
    fn neighbours_share_contents() {
        let layout = Layout::packed_of_average(4 << 10);
        let files = (0..100).map(|file| (file * REGION_FILES, b"same".repeat(500)));
        let bundles = bundles_of(&layout, files);
        assert!(bundles.iter().all(|&bundle| bundle == 0));
    }

    /// Bundles files in batches of so many in turn.
    fn packed(
        layout: &Layout,
        mut files: &[(Vec<u8>, i64)],
        sizes: &[usize],
    ) -> (Vec<Vec<u8>>, Vec<PlacedFile>) {
        let mut bundler = Bundler::new(layout);
        let (mut bundles, mut node) = (Vec::new(), 0);
        for &size in sizes.iter().cycle() {
            if files.is_empty() {
                break;
            }
            let (these, rest) = files.split_at(size.min(files.len()));
            files = rest;
            let mut batch = Batch::default();
            for (bytes, modified) in these {
                batch.bytes.extend_from_slice(bytes);
                batch.files.push(SmallFile {
                    node,
                    size: bytes.len(),
                    digest: Digest::of(bytes),
                    modified: *modified,
                });
                node += 1;
            }
            bundles.extend(bundler.add(batch));
        }
        bundles.extend(bundler.last_bundle());
        for (number, bundle) in bundles.iter().enumerate() {
            assert_eq!(bundle.number as usize, number);
        }
        let bundles = bundles.into_iter().map(|bundle| bundle.bytes).collect();
        (bundles, bundler.placed())
    }
}
