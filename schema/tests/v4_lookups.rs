// SPDX-License-Identifier: MIT OR Apache-2.0

//! Lookups in blocks and list blocks of format 4, compared with maps.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use puzzlefs_schema::v4::{
    Block, BlockLayout, Bounds, Content, ExtentData, InodeType, ListElements, ListLayout, Part,
    RootLayout, Start, Value,
};
use puzzlefs_test_support::v4;
use std::collections::BTreeMap;

type Names = BTreeMap<Vec<u8>, (u8, u16, i32)>;
/// The end of an extent, and its chunk and the offset in it, if it is not a hole.
type FileExtent = (u64, Option<(u32, u32)>);
type FileExtents = Vec<FileExtent>;
type Values = BTreeMap<Vec<u8>, Vec<u8>>;

/// A name of a directory entry: few bytes, so that names share beginnings.
fn name() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![Just(b'a'), Just(b'b'), Just(b'.'), Just(0xff), 1..=b'.'];
    vec(byte, 1..6).prop_filter("dots", |name| name != b"." && name != b"..")
}

fn names(len: usize) -> impl Strategy<Value = Names> {
    let inode_type = prop::sample::select(vec![1_u8, 2, 4, 6, 8, 10, 12]);
    btree_map(name(), (inode_type, any::<u16>(), any::<i32>()), 0..len)
}

fn values() -> impl Strategy<Value = Values> {
    let name = vec(b'a'..=b'c', 1..4).prop_map(|name| [b"user.", name.as_slice()].concat());
    btree_map(name, vec(any::<u8>(), 0..5), 1..8)
}

/// Extents of any file.
fn extents(len: usize) -> impl Strategy<Value = FileExtents> {
    let chunk = prop::option::of((0..3_u32, 0..1000_u32));
    vec((1..1000_u64, chunk), 0..len).prop_map(|mut extents| {
        let mut end = 0;
        for extent in &mut extents {
            end += extent.0;
            extent.0 = end;
        }
        extents
    })
}

fn entry(name: (u32, u8), &(inode_type, slot, distance): &(u8, u16, i32)) -> v4::Entry {
    v4::Entry {
        name,
        inode_type,
        slot,
        distance,
    }
}

fn raw_extents(extents: &[FileExtent], mut offset: u64) -> Vec<v4::Extent> {
    let extents = extents.iter().map(|&(end, data)| {
        let (chunk, chunk_offset) = data.unwrap_or((u32::MAX, 0));
        let extent = v4::Extent {
            offset,
            chunk,
            chunk_offset,
        };
        offset = end;
        extent
    });
    extents.collect()
}

fn chunks() -> Vec<v4::Chunk> {
    vec![
        v4::chunk(1, 2000),
        v4::chunk(2, 4096),
        v4::chunk(3, 1 << 20),
    ]
}

/// A block of these directories, files, and attribute sets.
fn block(directories: &[Names], files: &[FileExtents], sets: &[Values]) -> Vec<u8> {
    let mut block = v4::Block {
        version: 4,
        kind: 3,
        chunks: chunks(),
        ..v4::Block::default()
    };
    for names in directories {
        let first = block.entries.len() as u32;
        for (name, inode) in names {
            let name = block.name(name);
            block.entries.push(entry(name, inode));
        }
        block.inodes.push(v4::Inode {
            first,
            count: names.len() as u32,
            ..v4::inode(v4::DIR)
        });
    }
    for extents in files {
        block.inodes.push(v4::Inode {
            first: block.extents.len() as u32,
            count: extents.len() as u32,
            size: extents.last().map_or(0, |last| last.0),
            ..v4::inode(v4::FILE)
        });
        block.extents.extend(raw_extents(extents, 0));
    }
    for (number, values) in (1..).zip(sets) {
        block
            .sets
            .push((block.attributes.len() as u32, values.len() as u32));
        for (name, value) in values {
            let attribute = v4::Attribute {
                name: block.name(name),
                value_len: value.len() as u32,
                value: block.intern(value),
            };
            block.attributes.push(attribute);
        }
        block.inodes.push(v4::Inode {
            set: number,
            ..v4::inode(v4::FIFO)
        });
    }
    block.build()
}

/// Splits a list into pieces of these lengths, which are repeated.
fn pieces<T: Clone>(list: &[T], len: usize) -> Vec<Vec<T>> {
    list.chunks(len).map(<[T]>::to_vec).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn directories(directories in vec(names(40), 1..5), other in vec(name(), 20)) {
        let bytes = block(&directories, &[], &[]);
        let layout = BlockLayout::check(&bytes).unwrap();
        let block = Block::new(&layout, &bytes).unwrap();
        for (slot, names) in (0..).zip(&directories) {
            let Content::Directory(entries) = block.inode(slot).unwrap().content().unwrap() else {
                panic!("the inode is a directory");
            };
            prop_assert_eq!(entries.len() as usize, names.len());
            for (position, (name, &(code, slot, distance))) in (0..).zip(names) {
                let (found, entry) = entries.find(name).unwrap().unwrap();
                prop_assert_eq!((found, entry.name), (position, name.as_slice()));
                prop_assert_eq!(Some(entry.inode_type), InodeType::from_code(code));
                prop_assert_eq!((entry.inode.slot, entry.inode.distance), (slot, distance));
                prop_assert_eq!(entries.get(position).unwrap(), Some(entry));
                let block = (1_i64 << 31) + i64::from(distance);
                prop_assert_eq!(entry.inode.block(1 << 31), Some(block as u64));
            }
            for name in &other {
                prop_assert_eq!(entries.find(name).unwrap().is_some(), names.contains_key(name));
            }
        }
    }

    #[test]
    fn files(files in vec(extents(30), 1..5)) {
        let bytes = block(&[], &files, &[]);
        let layout = BlockLayout::check(&bytes).unwrap();
        let block = Block::new(&layout, &bytes).unwrap();
        for (slot, file) in (0..).zip(&files) {
            let inode = block.inode(slot).unwrap();
            let Content::File(extents) = inode.content().unwrap() else {
                panic!("the inode is a file");
            };
            let size = file.last().map_or(0, |last| last.0);
            prop_assert_eq!(inode.size(), size);
            for offset in (0..size + 2).step_by(97).chain(file.iter().map(|extent| extent.0)) {
                let expected = file.iter().position(|extent| offset < extent.0);
                let found = extents.find(offset).unwrap();
                prop_assert_eq!(found.map(|found| found.0 as usize), expected);
                let (Some((_, extent)), Some(position)) = (found, expected) else {
                    continue;
                };
                prop_assert_eq!(extent.end, file[position].0);
                match (extent.data, file[position].1) {
                    (ExtentData::Hole, None) => (),
                    (ExtentData::Chunk { chunk, offset }, Some((number, start))) => {
                        prop_assert_eq!(chunk.digest().as_bytes(), &[number as u8 + 1; 32]);
                        prop_assert_eq!(offset, start);
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    #[test]
    fn attributes(sets in vec(values(), 1..5)) {
        let bytes = block(&[], &[], &sets);
        let layout = BlockLayout::check(&bytes).unwrap();
        let block = Block::new(&layout, &bytes).unwrap();
        for (slot, values) in (0..).zip(&sets) {
            let attributes = block.inode(slot).unwrap().attributes().unwrap();
            for (name, value) in values {
                prop_assert_eq!(attributes.find(name).unwrap(), Some(Value::Inline(value)));
            }
            let listed: Vec<_> = (0..attributes.len())
                .map(|position| attributes.get(position).unwrap().unwrap().name)
                .collect();
            let names: Vec<_> = values.keys().map(Vec::as_slice).collect();
            prop_assert_eq!(listed, names);
            for name in [&b"user.a"[..], b"user.b", b"user.ca", b"user.", b"", b"x"] {
                prop_assert_eq!(attributes.find(name).unwrap().is_some(), values.contains_key(name));
            }
        }
    }

    /// A directory in list blocks of a few entries.
    #[test]
    fn long_directories(names in names(60), other in vec(name(), 20), len in 1..9_usize) {
        prop_assume!(!names.is_empty());
        let all: Vec<_> = names.iter().collect();
        let mut top = v4::Block { version: 4, kind: 3, chunks: chunks(), ..v4::Block::default() };
        let mut blocks = Vec::new();
        for piece in pieces(&all, len) {
            let name = top.name(piece[0].0);
            top.parts.push(v4::Part { chunk: 1, count: piece.len() as u32, name, first_offset: 0 });
            let mut list = v4::ListBlock { version: 4, kind: 4, of: 4, ..v4::ListBlock::default() };
            for (name, inode) in piece {
                let name = list.name(name);
                list.entries.push(entry(name, inode));
            }
            blocks.push(list.build());
        }
        top.inodes = vec![v4::Inode {
            long: true,
            count: top.parts.len() as u32,
            ..v4::inode(v4::DIR)
        }];
        let bytes = top.build();
        let layout = BlockLayout::check(&bytes).unwrap();
        let inode = Block::new(&layout, &bytes).unwrap().inode(0).unwrap();
        let Content::LongDirectory(parts) = inode.content().unwrap() else {
            panic!("the directory is long");
        };
        let open = |number: u32, part: &Part<'_>, name: &[u8]| {
            let bytes = &blocks[number as usize];
            let layout = ListLayout::check(bytes).unwrap();
            let ListElements::Entries(entries) = layout.read(bytes, part).unwrap() else {
                panic!("the list block has entries");
            };
            entries.find(name).unwrap().map(|(position, entry)| (position, entry.inode.slot))
        };
        let all = names.iter().map(|(name, inode)| (name, Some(inode.1)));
        let other = other.iter().map(|name| (name, names.get(name).map(|inode| inode.1)));
        for (name, slot) in all.chain(other) {
            let part = parts.find_name(name).unwrap();
            let found = part.and_then(|(number, part)| open(number, &part, name));
            prop_assert_eq!(found.map(|found| found.1), slot);
        }
        for (element, name) in (0..).zip(names.keys()) {
            let (number, start, part) = parts.find_element(element).unwrap().unwrap();
            let found = open(number, &part, name);
            prop_assert_eq!(found.map(|found| found.0), Some(element - start));
        }
    }

    /// A file in list blocks of a few extents.
    #[test]
    fn long_files(file in extents(60), len in 1..9_usize) {
        prop_assume!(!file.is_empty());
        let size = file[file.len() - 1].0;
        let mut top = v4::Block { version: 4, kind: 3, chunks: chunks(), ..v4::Block::default() };
        let mut blocks = Vec::new();
        let mut start = 0;
        for piece in pieces(&file, len) {
            top.parts.push(v4::Part {
                chunk: 1,
                count: piece.len() as u32,
                first_offset: start,
                name: (0, 0),
            });
            let list = v4::ListBlock {
                version: 4,
                kind: 4,
                of: 8,
                extents: raw_extents(&piece, start),
                chunks: chunks(),
                ..v4::ListBlock::default()
            };
            blocks.push(list.build());
            start = piece[piece.len() - 1].0;
        }
        top.inodes = vec![v4::Inode {
            long: true,
            size,
            count: top.parts.len() as u32,
            ..v4::inode(v4::FILE)
        }];
        let bytes = top.build();
        let layout = BlockLayout::check(&bytes).unwrap();
        let inode = Block::new(&layout, &bytes).unwrap().inode(0).unwrap();
        let Content::LongFile(parts) = inode.content().unwrap() else {
            panic!("the file is long");
        };
        for offset in (0..size + 2).step_by(101) {
            let expected = file.iter().find(|extent| offset < extent.0).map(|extent| extent.0);
            let part = parts.find_offset(offset).unwrap();
            let found = part.and_then(|(number, part)| {
                let bytes = &blocks[number as usize];
                let layout = ListLayout::check(bytes).unwrap();
                let ListElements::Extents(extents) = layout.read(bytes, &part).unwrap() else {
                    panic!("the list block has extents");
                };
                extents.find(offset).unwrap()
            });
            prop_assert_eq!(found.map(|found| found.1.end), expected);
        }
        let bounds = parts.get(0).unwrap().unwrap().bounds;
        let is_first = matches!(bounds, Bounds::Offsets { start: 0, .. });
        prop_assert!(is_first);
    }

    /// Inode numbers and block numbers.
    #[test]
    fn numbers(inodes in vec(1..20_u32, 1..40)) {
        let mut root = v4::root();
        root.children = inodes
            .iter()
            .map(|&inodes| v4::Child { inodes, ..root.children[0].clone() })
            .collect();
        root.inode_count = inodes.iter().map(|&inodes| u64::from(inodes)).sum();
        let bytes = root.build();
        let layout = RootLayout::check(&bytes).unwrap();
        let children = layout.children(&bytes).unwrap();
        let mut starts = vec![Start::default(); inodes.len()];
        children.fill_starts(&mut starts).unwrap();
        let mut ino = 1;
        for (number, &count) in (0..).zip(&inodes) {
            for slot in 0..count {
                let position = layout.position(ino).unwrap();
                let found = children.find_inode(position, &starts).unwrap();
                prop_assert_eq!((found.child, found.rest), (number, u64::from(slot)));
                prop_assert_eq!(children.scan_inode(position), Some(found));
                prop_assert_eq!(RootLayout::ino(found.start.inodes, slot as u16), ino);
                ino += 1;
            }
        }
        prop_assert_eq!(layout.position(ino), None);
        let mut wrong = vec![Start::default(); inodes.len() + 1];
        prop_assert!(children.fill_starts(&mut wrong).is_err());
    }
}
