// SPDX-License-Identifier: MIT OR Apache-2.0

//! Whole images of format 4, compared with the models that they were built of.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use puzzlefs_schema::image::{ImageMetadata, Link};
use puzzlefs_schema::v4::{Extent, ExtentData, InodeType, Node, Tree};
use puzzlefs_schema::{FileType, Kind, ROOT_INO};
use puzzlefs_test_support::v4::chunks::{Chunks, Naming};
use puzzlefs_test_support::v4::image::{build, Content, Cut, ModelInode};
use puzzlefs_test_support::v4::walk_tree::walk_tree;
use puzzlefs_test_support::v4::{self, Random};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

fn number(number: usize, _: &[u8]) -> [u8; 32] {
    let mut digest = [0xdd; 32];
    digest[..4].copy_from_slice(&(number as u32).to_le_bytes());
    digest
}

fn chunks(inodes: &[ModelInode], cut: Cut) -> Chunks {
    Chunks::new(build(inodes, cut, number).chunks, Naming::Digests)
}

fn plain(inode_type: u8, content: Content) -> ModelInode {
    ModelInode {
        inode: v4::inode(inode_type),
        parent: 0,
        xattrs: BTreeMap::new(),
        content,
    }
}

fn extents() -> impl Strategy<Value = (u64, Content)> {
    vec((1..3000_u64, prop::option::of(0..1000_u32)), 0..30).prop_map(|pieces| {
        let mut size = 0;
        let extents = pieces.into_iter().map(|(len, data)| {
            let start = size;
            size += len;
            (start, data.map(|offset| (v4::chunk(1, 4096), offset)))
        });
        let extents = extents.collect();
        (size, Content::Extents(extents))
    })
}

/// An inode that is not a directory.
fn leaf() -> impl Strategy<Value = ModelInode> {
    let file = extents().prop_map(|(size, content)| {
        let mut file = plain(v4::FILE, content);
        file.inode.size = size;
        file
    });
    let device = any::<u32>().prop_map(|number| {
        let mut device = plain(v4::CHAR, Content::None);
        device.inode.size = number.into();
        device
    });
    prop_oneof![
        4 => file,
        1 => Just(plain(v4::SYMLINK, Content::Target(b"/usr/bin".to_vec()))),
        1 => Just(plain(v4::FIFO, Content::None)),
        1 => device,
    ]
}

fn xattrs() -> impl Strategy<Value = BTreeMap<Vec<u8>, Vec<u8>>> {
    let name = vec(b'a'..=b'c', 1..4).prop_map(|name| [b"user.", name.as_slice()].concat());
    let value = prop_oneof![
        4 => vec(any::<u8>(), 0..5),
        1 => any::<u8>().prop_map(|byte| vec![byte; 2000]),
    ];
    btree_map(name, value, 0..5)
}

/// The inodes of an image. Each has an entry in one of the directories before it, and some have another.
fn image() -> impl Strategy<Value = Vec<ModelInode>> {
    let inode = prop_oneof![
        1 => Just(plain(v4::DIR, Content::Entries(BTreeMap::new()))),
        3 => leaf(),
    ];
    let place = (any::<prop::sample::Index>(), any::<u16>());
    vec(
        (inode, xattrs(), place.clone(), prop::option::of(place)),
        0..120,
    )
    .prop_map(|places| {
        let mut inodes = vec![plain(v4::DIR, Content::Entries(BTreeMap::new()))];
        let mut directories = vec![0];
        for (mut inode, xattrs, (first, salt), second) in places {
            let number = inodes.len();
            inode.xattrs = xattrs;
            inode.parent = *first.get(&directories);
            let is_directory = matches!(inode.content, Content::Entries(_));
            let links = second.filter(|_| !is_directory).into_iter();
            for (directory, salt) in links.chain([(first, salt)]) {
                let directory = *directory.get(&directories);
                if let Content::Entries(names) = &mut inodes[directory].content {
                    // The number makes the name another than all before.
                    names.insert(format!("{salt:x}.{number}").into_bytes(), number);
                }
            }
            if is_directory {
                directories.push(number);
            } else {
                inode.parent = 0;
            }
            inodes.push(inode);
        }
        inodes
    })
}

fn cut() -> impl Strategy<Value = Cut> {
    (1..9_usize, 1..9_usize, 6..9_usize, 1..9_usize).prop_map(
        |(inodes, elements, parts, children)| Cut {
            inodes,
            elements,
            parts,
            // A root has at most as many children as there are block lists.
            children: children.max(4),
        },
    )
}

/// Compares an inode with its model.
fn same_inode(tree: &Tree<&Chunks>, inodes: &[ModelInode], number: usize) {
    let model = &inodes[number];
    let ino = number as u64 + ROOT_INO;
    let link = ImageMetadata::find(tree, ino).unwrap().unwrap();
    let inode = ImageMetadata::open(tree, &link).unwrap();
    let stat = tree.stat(&inode).unwrap();
    assert_eq!(stat.file_type(), file_type(model));
    assert_eq!(stat.permissions, model.inode.mode & 0o7777);
    assert_eq!((stat.uid, stat.gid), (model.inode.uid, model.inode.gid));
    assert_eq!(
        (stat.mtime.seconds, stat.mtime.nanoseconds),
        model.inode.mtime
    );
    assert_eq!(stat.links, Some(model.inode.links));
    let device = match stat.kind {
        Kind::Chr { major, minor } | Kind::Blk { major, minor } => (major << 20) | minor,
        _ => 0,
    };
    match &model.content {
        Content::None => assert_eq!((u64::from(device), stat.size), (model.inode.size, 0)),
        Content::Target(target) => {
            assert_eq!(tree.symlink_target(&inode), Ok(target.as_slice()));
            assert_eq!(stat.size, target.len() as u64);
        }
        Content::Entries(names) => {
            assert_eq!(stat.size, names.len() as u64);
            let mut expected = names.iter();
            let listed = ImageMetadata::for_each_entry(tree, &inode, 0, |entry| {
                let (name, &target) = expected.next().unwrap();
                assert_eq!(entry.name, name);
                same_link(&entry.link, inodes, target);
                ControlFlow::<()>::Continue(())
            });
            assert_eq!(listed, Ok(ControlFlow::Continue(())));
            assert_eq!(expected.next(), None);
            let parent = ImageMetadata::parent(tree, &inode).unwrap().unwrap();
            same_link(&parent, inodes, model.parent);
        }
        Content::Extents(extents) => {
            assert_eq!(stat.size, model.inode.size);
            let mut found = Vec::new();
            let walked = tree.for_each_extent(&inode, 0, |extent| {
                found.push(extent);
                ControlFlow::<()>::Continue(())
            });
            assert_eq!(walked, Ok(ControlFlow::Continue(())));
            let starts: Vec<_> = extents.iter().map(|extent| extent.0).collect();
            assert_eq!(
                found.iter().map(|extent| extent.start).collect::<Vec<_>>(),
                starts
            );
            for (extent, (_, data)) in found.iter().zip(extents) {
                same_data(extent, data.as_ref());
            }
        }
    }
    let mut values = BTreeMap::new();
    let _ = tree.for_each_xattr(&inode, |name, value| {
        values.insert(name.to_vec(), value.to_vec());
        ControlFlow::<()>::Continue(())
    });
    assert_eq!(values, model.xattrs);
}

fn file_type(model: &ModelInode) -> FileType {
    let code = (model.inode.mode >> 12) as u8;
    InodeType::from_code(code).unwrap().into()
}

fn same_link(link: &Link<Node>, inodes: &[ModelInode], number: usize) {
    assert_eq!(link.ino, number as u64 + ROOT_INO);
    assert_eq!(link.file_type, file_type(&inodes[number]));
}

fn same_data(extent: &Extent, expected: Option<&(v4::Chunk, u32)>) {
    match (&extent.data, expected) {
        (ExtentData::Hole, None) => (),
        (ExtentData::Chunk { chunk, offset }, Some((model, model_offset))) => {
            assert_eq!(chunk.digest().as_bytes(), &model.digest);
            assert_eq!(offset, model_offset);
        }
        (found, expected) => panic!("{found:?}, expected {expected:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn images_are_what_they_were_built_of(inodes in image(), cut in cut(), keep_starts: bool) {
        let mut chunks = chunks(&inodes, cut);
        chunks.keep_starts = keep_starts;
        if keep_starts {
            let totals = walk_tree(&chunks, 100_000).unwrap();
            prop_assert_eq!(totals.inodes, inodes.len() as u64);
        }
        let tree = Tree::new(&chunks, chunks.root().unwrap()).unwrap();
        prop_assert_eq!(tree.inode_count(), Ok(inodes.len() as u64));
        for number in 0..inodes.len() {
            same_inode(&tree, &inodes, number);
        }
    }
}

/// A directory of a million names, in three levels of list blocks: a lookup loads three of them.
#[test]
fn a_lookup_among_a_million_entries_loads_three_list_blocks() {
    let names = (0..1_000_000).map(|number| (format!("{number:07}").into_bytes(), 1));
    let inodes = [
        plain(v4::DIR, Content::Entries(names.collect())),
        plain(v4::FIFO, Content::None),
    ];
    let cut = Cut {
        parts: 20,
        ..Cut::LARGE
    };
    let chunks = chunks(&inodes, cut);
    let tree = Tree::new(&chunks, chunks.root().unwrap()).unwrap();
    let root = tree.root().unwrap();
    assert_eq!(tree.entry_count(&root), Ok(1_000_000));
    for number in [0, 1, 999, 1000, 123_456, 999_999] {
        let before = chunks.loads();
        let found = tree
            .lookup(&root, format!("{number:07}").as_bytes())
            .unwrap();
        assert_eq!(found.map(|found| found.ino), Some(2));
        assert_eq!(chunks.loads() - before, 3);
        let before = chunks.loads();
        let next = tree.for_each_entry(&root, number, |entry| ControlFlow::Break(entry.cursor));
        assert_eq!(next, Ok(ControlFlow::Break(number + 1)));
        assert_eq!(chunks.loads() - before, 3);
    }
    assert_eq!(tree.lookup(&root, b"0123456x"), Ok(None));
    assert_eq!(tree.lookup(&root, b"!"), Ok(None));
}

/// A file of 800,000 extents: to find one loads two list blocks.
#[test]
fn an_extent_of_a_large_file_is_found_in_two_list_blocks() {
    const LEN: u64 = 100 << 10;
    let chunk = v4::chunk(7, 1 << 20);
    let extents = (0..800_000).map(|number| (number * LEN, Some((chunk.clone(), 0))));
    let mut file = plain(v4::FILE, Content::Extents(extents.collect()));
    file.inode.size = 800_000 * LEN;
    let names = BTreeMap::from([(b"file".to_vec(), 1)]);
    let chunks = chunks(&[plain(v4::DIR, Content::Entries(names)), file], Cut::LARGE);
    let tree = Tree::new(&chunks, chunks.root().unwrap()).unwrap();
    let node = tree.find(2).unwrap().unwrap();
    let file = tree.open(node, Some(InodeType::File)).unwrap();
    for number in [0, 1, 1000, 555_555, 799_999] {
        let before = chunks.loads();
        let offset = number * LEN + 5;
        let found = tree
            .for_each_extent(&file, offset, ControlFlow::Break)
            .unwrap();
        assert!(matches!(found, ControlFlow::Break(extent) if extent.start == number * LEN));
        assert!(chunks.loads() - before <= 2);
    }
}

#[test]
fn devices_have_a_major_and_a_minor_number() {
    let mut device = plain(v4::BLOCK, Content::None);
    device.inode.size = (8 << 20) | 17;
    let names = BTreeMap::from([(b"sda17".to_vec(), 1)]);
    let chunks = chunks(
        &[plain(v4::DIR, Content::Entries(names)), device],
        Cut::LARGE,
    );
    let tree = Tree::new(&chunks, chunks.root().unwrap()).unwrap();
    let link = ImageMetadata::lookup(&tree, &tree.root().unwrap(), b"sda17")
        .unwrap()
        .unwrap();
    let stat = tree
        .stat(&ImageMetadata::open(&tree, &link).unwrap())
        .unwrap();
    let (major, minor) = (8, 17);
    assert_eq!(stat.kind, Kind::Blk { major, minor });
}

/// An image with something of everything, and list blocks of three levels.
fn sample() -> Vec<ModelInode> {
    let mut names: BTreeMap<Vec<u8>, usize> = (0..40)
        .map(|number| (format!("n{number:02}").into_bytes(), 1 + number % 3))
        .collect();
    names.insert(b"sub".to_vec(), 4);
    let extents = (0..40).map(|number| (number * 1000, Some((v4::chunk(7, 4096), 0))));
    let mut file = plain(v4::FILE, Content::Extents(extents.collect()));
    file.inode.size = 40_000;
    file.xattrs.insert(b"user.a".to_vec(), b"value".to_vec());
    file.xattrs.insert(b"user.large".to_vec(), vec![1; 3000]);
    vec![
        plain(v4::DIR, Content::Entries(names)),
        file,
        plain(v4::SYMLINK, Content::Target(b"target".to_vec())),
        plain(v4::CHAR, Content::None),
        plain(
            v4::DIR,
            Content::Entries(BTreeMap::from([(b"link".to_vec(), 1)])),
        ),
    ]
}

const SMALL: Cut = Cut {
    inodes: 2,
    elements: 4,
    parts: 2,
    children: 2,
};

/// Sets of chunks of which some words are others: nothing panics, and no call costs more than it may.
#[test]
fn mutated_images_are_walked_at_a_bounded_cost() {
    let mut random = Random(24);
    let original = build(&sample(), Cut { parts: 4, ..SMALL }, number).chunks;
    let mut walked = 0;
    let total = 4000;
    for _ in 0..total {
        let mut chunks = original.clone();
        for _ in 0..=random.below(3) {
            let chunk = random.below(chunks.len());
            v4::change_word(&mut chunks[chunk].1, &mut random);
        }
        walked += u32::from(walk_tree(&Chunks::new(chunks, Naming::Numbers), 300).is_ok());
    }
    assert!(walked > 100 && walked < total, "{walked} of {total} pass");
}
