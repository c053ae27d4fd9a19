// SPDX-License-Identifier: MIT OR Apache-2.0

//! Encodes trees, and reads them back with the schema's reader.

mod image;
mod trees;

use crate::build::blocks::extent::ExtentData;

use super::*;
use crate::model::digest::Digest;
use crate::model::tree::{Kind, NodeId, Time};
use image::Image;
use proptest::prelude::*;
use puzzlefs_schema::v4::ChunkRef;
use std::collections::HashSet;
use std::mem;
use trees::{chunk, seeds, TreeBuilder};

fn encode_with(builder: &TreeBuilder, level: Option<i32>, jobs: usize) -> EncodedTree {
    let encoder = ChunkEncoder::new(level);
    encode(&builder.tree, &builder.extents, &[], &encoder, jobs).unwrap()
}

/// Encodes a tree and checks that the same tree is read back.
fn round_trip(builder: &TreeBuilder, level: Option<i32>) -> Image {
    let image = Image::new(encode_with(builder, level, 1));
    assert_eq!(image.files(), builder.files());
    assert_eq!(image.inodes(), builder.tree.nodes.len() as u64);
    assert_eq!(image.data_size(), builder.tree.data_size());
    image
}

/// The digests of all chunks, the root last.
fn digests(encoded: &EncodedTree) -> Vec<Digest> {
    let chunks = encoded.chunks.iter().chain([&encoded.root]);
    chunks
        .map(|stored| Digest::from(*stored.chunk.digest()))
        .collect()
}

/// The stored bytes of the chunks of `new` that `old` does not have.
fn added(old: &EncodedTree, new: &EncodedTree) -> usize {
    let old: HashSet<_> = digests(old).into_iter().collect();
    let chunks = new.chunks.iter().chain([&new.root]);
    let added = chunks.filter(|stored| !old.contains(&Digest::from(*stored.chunk.digest())));
    added.map(|stored| stored.stored.len()).sum()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 128,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn random_trees_are_read_back(seeds in seeds(), compressed: bool) {
        let builder = TreeBuilder::from_seeds(&seeds);
        round_trip(&builder, compressed.then_some(1));
    }

    /// The numbers of nodes and the number of threads do not matter.
    #[test]
    fn chunks_depend_on_the_tree_alone(seeds in seeds(), shuffle: u64) {
        let builder = TreeBuilder::from_seeds(&seeds);
        let shuffled = builder.shuffled(shuffle);
        let one = encode_with(&builder, None, 1);
        prop_assert_eq!(digests(&one), digests(&encode_with(&shuffled, None, 3)));
    }
}

/// A tree with files in directories, of which each has `files`.
fn many_directories(directories: u32, files: u32) -> TreeBuilder {
    let mut builder = TreeBuilder::new();
    for number in 0..directories {
        let directory = builder.directory(0, format!("directory {number:06}").as_bytes());
        for file in 0..files {
            let (name, chunk) = (format!("file {file:06}"), chunk(number * files + file));
            let node = builder.file(directory, name.as_bytes(), &[(1000, Some((chunk, 24)))]);
            builder.tree.nodes[node as usize].mtime.seconds = i64::from(number * 31 + file * 7);
        }
    }
    builder.finish();
    builder
}

#[test]
fn blocks_have_their_sizes() {
    let builder = many_directories(1000, 20);
    let image = round_trip(&builder, None);
    let sizes = image.block_sizes();
    let (last, others) = sizes.split_last().unwrap();
    assert!(
        others
            .iter()
            .all(|size| (16 << 10..=64 << 10).contains(size)),
        "{sizes:?}"
    );
    assert!(*last <= 64 << 10);
    // 20,000 files of 112 bytes.
    assert!((50..120).contains(&sizes.len()), "{}", sizes.len());
}

/// `ls -l` reads one block beside the one with the directory itself. Only the root's is too large.
#[test]
fn the_inodes_of_a_directory_are_in_one_block() {
    let builder = many_directories(300, 100);
    let image = round_trip(&builder, None);
    let blocks = image.blocks_of_directories();
    assert!(blocks[0] > 1 && blocks[1..].iter().all(|blocks| *blocks == 1));
}

/// A large directory takes blocks of its own.
/// The inodes of a directory's entries, then each subdirectory in the same way.
#[test]
fn the_walk_is_depth_first() {
    let mut builder = TreeBuilder::new();
    for name in [b"a", b"b"] {
        let directory = builder.directory(0, name);
        let inner = builder.directory(directory, b"inner");
        builder.file(directory, b"file", &[]);
        builder.file(inner, b"file", &[]);
    }
    builder.finish();
    let wanted = "|/a|/b|/a/file|/a/inner|/a/inner/file|/b/file|/b/inner|/b/inner/file";
    assert_eq!(round_trip(&builder, None).order().join("|"), wanted);
}

#[test]
fn a_long_directory_is_read_back() {
    let mut builder = TreeBuilder::new();
    let long = builder.directory(0, b"long");
    for number in 0..20_000 {
        builder.file(long, format!("{number}").as_bytes(), &[]);
    }
    builder.file(0, b"short", &[]);
    builder.finish();
    let image = round_trip(&builder, Some(1));
    assert_eq!(image.list_levels(), [0].into());
}

#[test]
fn list_blocks_have_levels() {
    let mut builder = TreeBuilder::new();
    for number in 0..25_000 {
        builder.file(0, format!("{number:0>255}").as_bytes(), &[]);
    }
    let extents: Vec<_> = (0..300_000)
        .map(|number| (4096, Some((chunk(number), 0))))
        .collect();
    let mut sparse = extents.clone();
    sparse[9] = (1 << 40, None);
    sparse[123_456] = (1 << 40, None);
    builder.file(0, b"long", &extents);
    builder.file(0, b"sparse", &sparse);
    builder.finish();
    let image = round_trip(&builder, Some(1));
    assert_eq!(image.list_levels(), [0, 1].into());
}

/// A list of holes ends at the largest size of a list block only.
#[test]
fn holes_end_no_list_block() {
    let mut builder = TreeBuilder::new();
    builder.file(0, b"sparse", &[(4096, None); 6000]);
    builder.finish();
    let encoded = encode_with(&builder, None, 1);
    // The block, and 96,000 bytes of extents in two list blocks.
    assert_eq!(encoded.chunks.len(), 3);
}

#[test]
fn large_values_are_chunks() {
    let mut builder = TreeBuilder::new();
    let file = builder.file(0, b"file", &[]);
    let values = [0, 1, 1024, 1025, 65_536];
    let xattrs = values.map(|size| (format!("user.{size:06}").into_bytes(), vec![7; size]));
    builder.tree.nodes[file as usize].xattrs = xattrs.to_vec();
    builder.finish();
    let encoded = encode_with(&builder, None, 1);
    let lengths: Vec<_> = encoded.chunks[1..]
        .iter()
        .map(|value| value.stored.len())
        .collect();
    assert_eq!(lengths, [1025, 65_536]);
    round_trip(&builder, None);
}

/// Two inodes with 100 KiB of attributes each, equal or not, are in blocks of their own.
#[test]
fn large_sets_fit() {
    for equal in [true, false] {
        let mut builder = TreeBuilder::new();
        for name in [b"a", b"b", b"c"] {
            let node = builder.file(0, name, &[]);
            let byte = if equal { 0 } else { name[0] };
            let xattrs = (0..200).map(|n| (format!("user.{n:03}").into_bytes(), vec![byte; 900]));
            builder.tree.nodes[node as usize].xattrs = xattrs.collect();
        }
        builder.finish();
        round_trip(&builder, None);
    }
}

/// Returns the error of encoding a tree whose node `change` changes.
fn refusal(change: impl FnOnce(&mut TreeBuilder, NodeId)) -> String {
    let mut builder = TreeBuilder::new();
    let directory = builder.directory(0, b"directory");
    let file = builder.file(directory, b"file", &[]);
    builder.finish();
    change(&mut builder, file);
    let encoder = ChunkEncoder::new(None);
    let error = encode(&builder.tree, &builder.extents, &[], &encoder, 1).unwrap_err();
    error.to_string()
}

#[test]
fn what_a_reader_refuses_is_not_written() {
    let remedy = "; change the file, or leave it out with --exclude";
    let message = refusal(|builder, file| builder.tree.nodes[file as usize].nlink = 0);
    assert_eq!(
        message,
        format!(
            "cannot encode the metadata of /directory/file: inode 0: the link count is 0{remedy}"
        )
    );
    let refused = [
        refusal(|builder, file| {
            builder.tree.nodes[file as usize].kind = Kind::CharDevice(0, 1 << 20);
        }),
        refusal(|builder, file| {
            builder.tree.nodes[file as usize].kind = Kind::BlockDevice(1 << 12, 0);
        }),
        refusal(|builder, file| {
            builder.tree.nodes[file as usize].kind = Kind::Symlink(vec![b'a'; 4096]);
        }),
        refusal(|builder, file| {
            let (name, value) = (vec![b'a'; 256], Vec::new());
            builder.tree.nodes[file as usize].xattrs = vec![(name, value)];
        }),
        refusal(|builder, file| {
            let xattrs =
                (0..300).map(|n| (format!("user.{n:03}").into_bytes(), vec![n as u8; 1024]));
            builder.tree.nodes[file as usize].xattrs = xattrs.collect();
        }),
        refusal(|builder, file| {
            builder.tree.nodes[file as usize].mtime = Time {
                seconds: 0,
                nanoseconds: 1_000_000_000,
            };
        }),
        refusal(|builder, _| {
            if let Kind::Directory(entries) = &mut builder.tree.nodes[1].kind {
                entries[0].name = vec![b'a'; 256].into();
            }
        }),
    ];
    for message in refused {
        assert!(
            message.starts_with("cannot encode the metadata of /"),
            "{message}"
        );
        assert!(message.ends_with(remedy), "{message}");
    }
}

/// The changes of two files in different places add two blocks and the root.
#[test]
fn a_change_stays_where_it_is() {
    let builder = many_directories(1000, 20);
    let old = encode_with(&builder, None, 1);
    let mut changed = many_directories(1000, 20);
    for node in [5_000, 15_000] {
        changed.tree.nodes[node].mtime.seconds += 1;
    }
    let new = encode_with(&changed, None, 1);
    let root = new.root.stored.len();
    assert!(added(&old, &new) < root + 2 * (64 << 10));
}

/// A new file changes the blocks that it is in, and those whose references cross it.
#[test]
fn an_addition_stays_where_it_is() {
    let builder = many_directories(1000, 20);
    let old = encode_with(&builder, None, 1);
    let mut changed = many_directories(1000, 20);
    let Kind::Directory(root) = &changed.tree.nodes[0].kind else {
        panic!("the root is a directory");
    };
    let directory = root[500].node;
    changed.file(directory, b"file 000010a", &[(1000, Some((chunk(9), 24)))]);
    changed.finish();
    let new = encode_with(&changed, None, 1);
    let chunks = digests(&new).len();
    let old: HashSet<_> = digests(&old).into_iter().collect();
    let changed = digests(&new)
        .into_iter()
        .filter(|digest| !old.contains(digest))
        .count();
    assert!(changed < 8 && chunks > 50, "{changed} of {chunks}");
}

/// The ends of blocks follow from names. A file of another size, in any directory, moves few of them.
#[test]
fn growing_files_move_few_ends() {
    let blocks = |builder: &TreeBuilder| {
        let plan = Plan::new(&builder.tree, &builder.extents);
        let blocks = (0..plan.blocks() as u32).map(|number| plan.block(number).to_vec());
        blocks.collect::<HashSet<_>>()
    };
    let mut builder = many_directories(1000, 20);
    let old = blocks(&builder);
    let mut moved = 0;
    for directory in (0..1000).step_by(5) {
        // The nodes are the root, and each directory with its files.
        let node = 1 + directory * 21 + 1;
        let file = FileExtent {
            offset: 0,
            data: ExtentData::Hole,
        };
        let extents = (0..400).map(|number| FileExtent {
            offset: 4096 * number,
            ..file
        });
        let before = mem::replace(&mut builder.extents[node], extents.collect());
        moved += blocks(&builder).difference(&old).count();
        builder.extents[node] = before;
    }
    // Ends that follow from sizes alone move 306 blocks.
    assert!(moved < 150, "{moved} by 200 changes");
}

/// Beyond 1,024 blocks there are block lists, and the root stays small.
#[test]
fn large_trees_have_block_lists() {
    let mut builder = TreeBuilder::new();
    for directory in 0..40u32 {
        let parent = builder.directory(0, &directory.to_le_bytes().map(|byte| b'a' + byte));
        for number in 0..500 {
            let link = builder.file(parent, format!("{number}").as_bytes(), &[]);
            let kind = Kind::Symlink(format!("{directory}{number:04000}").into_bytes());
            builder.tree.nodes[link as usize].kind = kind;
        }
    }
    builder.finish();
    let image = round_trip(&builder, Some(1));
    assert!(image.block_sizes().len() > 1024);
    assert_eq!(image.root_children(), 3);
}

/// The library of Cap'n Proto reads the messages.
#[test]
fn capnp_reads_the_messages() {
    use puzzlefs_schema::v4::metadata_capnp as schema;
    let mut builder = TreeBuilder::new();
    builder.file(0, b"file", &[(1000, Some((chunk(1), 24)))]);
    builder.finish();
    let encoded = encode_with(&builder, None, 1);
    let read = |bytes: &[u8]| {
        let options = capnp::message::ReaderOptions::new();
        capnp::serialize::read_message(bytes, options).unwrap()
    };
    let root = read(&encoded.root.stored);
    let root: schema::root::Reader<'_> = root.get_root().unwrap();
    assert_eq!((root.get_version(), root.get_kind()), (4, 1));
    assert_eq!((root.get_inode_count(), root.get_data_size()), (2, 1000));
    let child = root.get_children().unwrap().get(0);
    let stored_len = encoded.chunks[0].chunk.stored_len();
    assert_eq!(
        (child.get_inodes(), child.get_stored_length()),
        (2, stored_len)
    );
    let block = read(&encoded.chunks[0].stored);
    let block: schema::block::Reader<'_> = block.get_root().unwrap();
    assert_eq!((block.get_version(), block.get_kind()), (4, 3));
    assert_eq!(block.get_bytes().unwrap(), b"file");
    assert_eq!(block.get_extents().unwrap().get(0).get_chunk_offset(), 24);
    assert!(!block.has_parts() && !block.has_sets());
}
