// SPDX-License-Identifier: MIT OR Apache-2.0

//! Packs of whole trees, read back through the chunk index.

use super::*;
use crate::build::blocks::extent::{ExtentData, FileExtent};
use crate::build::blocks::StoredChunk;
use crate::build::build_options::BuildOptions;
use crate::build::contents::Reading;
use crate::build::flusher::Flusher;
use crate::build::layout::Layout;
use crate::build::source::Source;
use crate::ingest::walk::{self, WalkOptions};
use crate::model::chunk::ChunkEncoder;
use crate::model::count::Count;
use crate::model::digest::Digest;
use crate::model::start_order::StartOrder;
use crate::model::tree::{Kind, NodeId, Tree};
use crate::store::chunks::reader::ChunkReader;
use crate::store::chunks::update::add_packs;
use crate::store::oci_layout::Store;
use crate::store::staging::Staging;
use crate::sys::progress::Progress;
use std::collections::HashSet;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// A small layout, so that small trees have many chunks.
fn layout() -> Layout {
    Layout {
        zero_grid: 4096,
        zero_blob: 4 * 4096,
        ..Layout::of_average(4096)
    }
}

/// Bytes that look random, and differ by their seed.
fn noise(size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let bytes = std::iter::repeat_with(|| {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 56) as u8
    });
    bytes.take(size).collect()
}

/// Writes a tree with small and large files, equal ones, text, and zeros.
fn make_tree(tree: &Path) {
    for directory in 0..4u64 {
        let path = tree.join(format!("d{directory}"));
        fs::create_dir_all(&path).unwrap();
        for number in 0..30u64 {
            let seed = directory * 1000 + number % 20;
            let size = 1 + (seed as usize * 397) % 3000;
            fs::write(path.join(format!("small{number}")), noise(size, seed)).unwrap();
        }
        fs::write(path.join("empty"), b"").unwrap();
        fs::write(path.join("large"), noise(200_000, 77 + directory / 2)).unwrap();
        fs::write(
            path.join("text"),
            "some text, again and again. ".repeat(3000),
        )
        .unwrap();
        let mut zeros = noise(20_000, directory);
        zeros.resize(100_000, 0);
        zeros.extend(noise(5_000, directory));
        fs::write(path.join("zeros"), zeros).unwrap();
        fs::write(path.join("only-zeros"), vec![0; 70_000]).unwrap();
    }
}

/// A tree in a directory, and stores beside it.
struct Fixture {
    scratch: TempDir,
    source: Source,
    tree: Tree,
}

/// How packs are made.
#[derive(Clone, Copy)]
struct How {
    jobs: usize,
    level: Option<i32>,
    fresh: bool,
    check: bool,
    policy: PackPolicy,
    /// The text of a start-up order; empty for none.
    order: &'static str,
}

const HOW: How = How {
    jobs: 1,
    level: Some(3),
    fresh: false,
    check: false,
    policy: PackPolicy {
        size: 100 << 10,
        alignment: 0,
        small_data: 10_000,
        held: 64 << 20,
    },
    order: "",
};

impl Fixture {
    fn new() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("tree");
        make_tree(&path);
        Self::of(scratch)
    }

    /// A fixture with the tree that was written into a directory.
    fn of(scratch: TempDir) -> Self {
        let source = Source::open(&scratch.path().join("tree")).unwrap();
        let options = WalkOptions {
            rules: &Default::default(),
            one_file_system: false,
            store: None,
            skip_unreadable: false,
            unreadable: &HashSet::new(),
            jobs: 2,
        };
        let (tree, _) = walk::walk(&source, &options, &Progress::default()).unwrap();
        Fixture {
            scratch,
            source,
            tree,
        }
    }

    fn store(&self, name: &str) -> Store {
        Store::create(&self.scratch.path().join(name)).unwrap()
    }

    /// Puts the contents and some metadata into a store.
    fn pack(&self, store: &Store, how: How) -> (Vec<Vec<FileExtent>>, ImagePacks) {
        let staging = Staging::new(store).unwrap().checking(how.check);
        let known = if how.fresh {
            KnownChunks::none(store)
        } else {
            KnownChunks::open(store, how.check).unwrap()
        };
        let flusher = Flusher::default();
        let mut options = BuildOptions::new("t");
        options.layout = layout();
        options.jobs = how.jobs;
        let reading = Reading {
            source: &self.source,
            tree: &self.tree,
            skip: &[],
            options: &options,
            staging: &staging,
            progress: &Progress::default(),
        };
        let encoder = ChunkEncoder::new(how.level);
        let packs = Packs::new(&staging, &known, &flusher, how.policy);
        let order = StartOrder::parse(how.order.as_bytes()).unwrap();
        let first = FirstFiles::find(&order, &self.tree);
        assert_eq!(first.missing, 0);
        let first = (!how.order.is_empty()).then_some(&first);
        let contents = store_chunks(&reading, &encoder, None, first, packs, &flusher).unwrap();
        let metadata = [metadata(1), metadata(2)];
        let packs = contents.packs.finish(&metadata).unwrap();
        staging.commit().unwrap();
        add_packs(store, &packs.written).unwrap();
        (contents.extents, packs)
    }

    /// Compares all files with their extents.
    fn check(&self, store: &Store, extents: &[Vec<FileExtent>]) {
        let reader = ChunkReader::new(store).unwrap();
        let mut chunk_content = Vec::new();
        for (id, node) in (0..).zip(&self.tree.nodes) {
            let Kind::File(state) = &node.kind else {
                assert_eq!(extents[id as usize], []);
                continue;
            };
            let path = self.scratch.path().join("tree").join(self.tree.path(id));
            let wanted = fs::read(&path).unwrap();
            assert_eq!(wanted.len() as u64, state.size);
            let file = &extents[id as usize];
            let ends = file.iter().skip(1).map(|extent| extent.offset);
            let ends = ends.chain([state.size]);
            let mut content = Vec::new();
            for (extent, end) in file.iter().zip(ends) {
                assert_eq!(extent.offset, content.len() as u64);
                let length = (end - extent.offset) as usize;
                match &extent.data {
                    ExtentData::Hole => content.resize(content.len() + length, 0),
                    ExtentData::Chunk { chunk, offset } => {
                        reader.read(chunk, &mut chunk_content).unwrap();
                        content.extend(&chunk_content[*offset as usize..][..length]);
                    }
                }
            }
            assert!(content == wanted, "{}", path.display());
        }
    }
}

fn metadata(seed: u64) -> StoredChunk {
    StoredChunk::new(noise(800, 9000 + seed), &ChunkEncoder::new(None)).unwrap()
}

fn layers(packs: &ImagePacks) -> Vec<Digest> {
    packs.layers.iter().map(|pack| pack.digest).collect()
}

#[test]
fn contents_come_back() {
    let fixture = Fixture::new();
    for (number, level) in [None, Some(3)].into_iter().enumerate() {
        for alignment in [0, 12] {
            let store = fixture.store(&format!("store-{number}-{alignment}"));
            let mut how = How { level, ..HOW };
            how.policy.alignment = alignment;
            let (extents, packs) = fixture.pack(&store, how);
            fixture.check(&store, &extents);
            assert!(packs.layers.len() > 3);
            assert_eq!(packs.new_packs.blobs, packs.layers.len() as u64);
        }
    }
}

#[test]
fn zeros_are_holes() {
    let fixture = Fixture::new();
    let (extents, _) = fixture.pack(&fixture.store("store"), HOW);
    let holes = extents.iter().filter(|file| {
        let hole = |extent: &FileExtent| extent.data == ExtentData::Hole;
        file.iter().any(hole)
    });
    // "zeros" and "only-zeros" of four directories.
    assert_eq!(holes.count(), 8);
}

/// Checks that neither threads nor the memory that is left matter to the bytes of packs.
fn check_independence(how: How, jobs: &[usize]) {
    let fixture = Fixture::new();
    let (extents, packs) = fixture.pack(&fixture.store("store"), how);
    for &jobs in jobs {
        for held in [0, 20_000, 64 << 20] {
            let store = fixture.store(&format!("store-{jobs}-{held}"));
            let mut how = How { jobs, ..how };
            how.policy.held = held;
            let (others, again) = fixture.pack(&store, how);
            assert_eq!(others, extents);
            assert_eq!(layers(&again), layers(&packs), "{jobs} jobs, {held} bytes");
            fixture.check(&store, &others);
        }
    }
}

#[test]
fn packs_do_not_depend_on_threads() {
    check_independence(HOW, &[1, 2, 3, 8]);
}

/// The first layer begins with the metadata, in a pack of its own unless there is little data.
#[test]
fn metadata_comes_first() {
    let fixture = Fixture::new();
    for (small_data, with_data) in [(10_000, false), (64 << 20, true)] {
        let store = fixture.store(&format!("store-{small_data}"));
        let mut how = HOW;
        how.policy.small_data = small_data;
        how.policy.size = 64 << 20;
        let (extents, packs) = fixture.pack(&store, how);
        let first = &packs.written[0];
        assert_eq!(first.digest, packs.layers[0].digest);
        for (record, seed) in first.records.iter().zip(1..=2) {
            assert_eq!(record.digest, *metadata(seed).chunk.digest());
        }
        assert_eq!(first.records.len() > 2, with_data);
        assert_eq!(packs.layers.len() == 1, with_data);
        fixture.check(&store, &extents);
    }
}

#[test]
fn chunks_of_the_store_are_not_written_again() {
    let fixture = Fixture::new();
    let store = fixture.store("store");
    let (extents, packs) = fixture.pack(&store, HOW);
    let (others, again) = fixture.pack(&store, HOW);
    assert_eq!(others, extents);
    assert_eq!(layers(&again), layers(&packs));
    assert_eq!((again.written.len(), again.new), (0, Count::default()));
    assert_eq!(again.shared, packs.new);
    assert_eq!(again.shared_packs, packs.new_packs);

    // One more file brings one more pack.
    let path = fixture.scratch.path().join("tree/d1/zz");
    fs::write(path, noise(5_000, 1234)).unwrap();
    let fixture = Fixture::of(fixture.scratch);
    let (extents, more) = fixture.pack(&store, HOW);
    fixture.check(&store, &extents);
    assert_eq!(more.new_packs.blobs, 1);
    assert!(layers(&packs)
        .iter()
        .all(|pack| layers(&more).contains(pack)));
    assert!(more.new.bytes < 20_000, "{:?}", more.new);

    // And a fresh build brings the same packs as into an empty store.
    let fresh = How { fresh: true, ..HOW };
    let (_, in_full) = fixture.pack(&store, fresh);
    let (_, in_empty) = fixture.pack(&fixture.store("empty"), HOW);
    assert_eq!(layers(&in_full), layers(&in_empty));
}

/// The index can list a pack that no longer exists.
#[test]
fn chunks_of_lost_packs_are_written_again() {
    let fixture = Fixture::new();
    let store = fixture.store("store");
    let (_, packs) = fixture.pack(&store, HOW);
    let lost = packs.layers[2].digest;
    fs::remove_file(store.blob_path(&lost)).unwrap();
    let (extents, again) = fixture.pack(&store, HOW);
    assert!(again.new.blobs > 0 && again.shared.blobs > 0);
    fixture.check(&store, &extents);
}

/// A checking build replaces damaged chunks, and a damaged pack that it writes again.
#[test]
fn damaged_chunks_are_replaced_if_asked_for() {
    let fixture = Fixture::new();
    let store = fixture.store("store");
    let (extents, packs) = fixture.pack(&store, HOW);
    let path = store.blob_path(&packs.layers[2].digest);
    let mut bytes = fs::read(&path).unwrap();
    bytes[20..5000].fill(7);
    fs::write(&path, &bytes).unwrap();
    assert_eq!(fixture.pack(&store, HOW).1.new, Count::default());
    let check = How { check: true, ..HOW };
    let (_, checked) = fixture.pack(&store, check);
    assert!(checked.new.blobs > 0 && checked.shared.blobs > 0);
    fixture.check(&store, &extents);

    let fresh = How {
        fresh: true,
        ..check
    };
    let (_, again) = fixture.pack(&store, fresh);
    assert_eq!(again.new_packs.blobs, 1);
    let repaired = fs::read(&path).unwrap();
    assert_eq!(Digest::of(&repaired), packs.layers[2].digest);
}

/// An image without data has one pack.
#[test]
fn a_tree_without_data_has_metadata_only() {
    let scratch = tempfile::tempdir().unwrap();
    fs::create_dir_all(scratch.path().join("tree/directory")).unwrap();
    let fixture = Fixture::of(scratch);
    let (_, packs) = fixture.pack(&fixture.store("store"), HOW);
    assert_eq!((packs.layers.len(), packs.new.blobs), (1, 0));
    assert_eq!(packs.metadata.blobs, 2);
}

/// Not the order of the walk. The two large files are equal to others that come before them.
const ORDER: &str =
    "/d3/large\n4000 1 /d1/large\n/d2/small7\n0 1 /d0/zeros\n/d3\n120000 90000 /d1/large\n";

impl Fixture {
    fn node(&self, path: &str) -> NodeId {
        let nodes = 0..self.tree.nodes.len() as NodeId;
        let mut found = nodes.filter(|node| self.tree.path(*node) == Path::new(path));
        found.next().unwrap()
    }

    /// The chunks of a file from one offset to another.
    fn chunks_of(
        &self,
        extents: &[Vec<FileExtent>],
        path: &str,
        range: std::ops::Range<u64>,
    ) -> Vec<Digest> {
        let extents = &extents[self.node(path) as usize];
        let ends = extents
            .iter()
            .skip(1)
            .map(|next| next.offset)
            .chain([u64::MAX]);
        let touched = extents.iter().zip(ends);
        let touched =
            touched.filter(|(extent, end)| extent.offset < range.end && *end > range.start);
        let chunks = touched.filter_map(|(extent, _)| extent.chunk());
        chunks.map(|chunk| Digest::from(*chunk.digest())).collect()
    }

    /// The chunks that [`ORDER`] leads to, each once.
    fn wanted_first(&self, extents: &[Vec<FileExtent>]) -> Vec<Digest> {
        let mut wanted = self.chunks_of(extents, "d3/large", 0..u64::MAX);
        assert!(wanted.len() > 10);
        wanted.extend(self.chunks_of(extents, "d1/large", 4000..4001));
        wanted.extend(self.chunks_of(extents, "d2/small7", 0..u64::MAX));
        wanted.extend(self.chunks_of(extents, "d0/zeros", 0..1));
        wanted.extend(self.chunks_of(extents, "d1/large", 120_000..210_000));
        let mut seen = HashSet::new();
        wanted.retain(|chunk| seen.insert(*chunk));
        wanted
    }
}

/// The data chunks of packs that were written, in order.
fn data_of(packs: &ImagePacks) -> Vec<Digest> {
    let records = packs.written.iter().flat_map(|pack| &pack.records);
    let metadata = [1, 2].map(|seed| *metadata(seed).chunk.digest());
    let data = records.filter(|record| !metadata.contains(&record.digest));
    data.map(|record| Digest::from(record.digest)).collect()
}

#[test]
fn chunks_of_a_start_up_order_come_first() {
    let fixture = Fixture::new();
    for small_data in [10_000, 64 << 20] {
        let mut how = HOW;
        how.policy.small_data = small_data;
        let (extents, packs) = fixture.pack(&fixture.store(&format!("walk-{small_data}")), how);
        let wanted = fixture.wanted_first(&extents);
        how.order = ORDER;
        let store = fixture.store(&format!("ordered-{small_data}"));
        let (same, ordered) = fixture.pack(&store, how);
        assert_eq!(same, extents);
        fixture.check(&store, &extents);
        let (mut data, mut ordered_data) = (data_of(&packs), data_of(&ordered));
        assert_ne!(data[..wanted.len()], wanted);
        assert_eq!(ordered_data[..wanted.len()], wanted);
        // The others keep their order.
        let rest = data.iter().filter(|chunk| !wanted.contains(chunk));
        assert!(rest.eq(&ordered_data[wanted.len()..]));
        data.sort_unstable();
        ordered_data.sort_unstable();
        assert_eq!(data, ordered_data);
    }
}

#[test]
fn ordered_packs_do_not_depend_on_threads() {
    let order = How {
        order: ORDER,
        ..HOW
    };
    check_independence(order, &[1, 3, 8]);
}

/// A rebuild puts them together once.
#[test]
fn ordered_chunks_of_the_store_are_put_together() {
    let fixture = Fixture::new();
    let store = fixture.store("store");
    let (extents, packs) = fixture.pack(&store, HOW);
    let wanted = fixture.wanted_first(&extents);
    let order = How {
        order: ORDER,
        ..HOW
    };
    let (_, ordered) = fixture.pack(&store, order);
    assert_eq!(data_of(&ordered), wanted);
    assert_eq!((ordered.new, ordered.shared), (Count::default(), packs.new));
    fixture.check(&store, &extents);
    let (_, again) = fixture.pack(&store, order);
    assert_eq!((again.written.len(), again.shared), (0, packs.new));
    assert!(layers(&again).contains(&ordered.written[0].digest));
}
