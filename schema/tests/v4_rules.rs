// SPDX-License-Identifier: MIT OR Apache-2.0

//! Each rule of format 4's metadata, violated alone, gives its own error, and names the element.

use puzzlefs_schema::v4::{
    Block, BlockLayout, BlockListLayout, Bounds, Child, ChildType, ChunkError, ChunkRef, Content,
    InodeType, ListElements, ListLayout, ListName, MetadataError, MetadataErrorKind as Kind, Part,
    RootLayout, Value,
};
use puzzlefs_schema::Digest;
use puzzlefs_test_support::v4::{self, chunk, digest, slot, FILE};

/// The result of a check: the rule, and the element.
type Broken = Option<(Kind, Option<(ListName, usize)>)>;

fn broken<T>(result: Result<T, MetadataError>) -> Broken {
    let e = result.err()?;
    // Every error prints.
    assert!(!e.to_string().is_empty());
    let element = e.element().map(|(list, index)| (list, index as usize));
    Some((e.kind(), element))
}

fn in_block(change: impl FnOnce(&mut v4::Block)) -> Broken {
    let mut block = v4::block();
    change(&mut block);
    broken(BlockLayout::check(&block.build()))
}

fn in_root(change: impl FnOnce(&mut v4::Root)) -> Broken {
    let mut root = v4::root();
    change(&mut root);
    broken(RootLayout::check(&root.build()))
}

fn in_list(mut list: v4::ListBlock, change: impl FnOnce(&mut v4::ListBlock)) -> Broken {
    change(&mut list);
    broken(ListLayout::check(&list.build()))
}

fn at(kind: Kind, list: ListName, index: usize) -> Broken {
    Some((kind, Some((list, index))))
}

fn inode(kind: Kind, slot: usize) -> Broken {
    at(kind, ListName::Inodes, slot)
}

fn anywhere(kind: Kind) -> Broken {
    Some((kind, None))
}

#[test]
fn the_originals_keep_the_rules() {
    assert_eq!(in_block(|_| ()), None);
    assert_eq!(in_root(|_| ()), None);
    assert_eq!(broken(RootLayout::check(&v4::long_root().build())), None);
    assert_eq!(
        broken(BlockListLayout::check(&v4::block_list().build())),
        None
    );
    for list in lists() {
        assert_eq!(in_list(list, |_| ()), None);
    }
}

fn lists() -> [v4::ListBlock; 4] {
    [
        v4::entry_list(),
        v4::extent_list(),
        v4::part_list(),
        v4::file_part_list(),
    ]
}

#[test]
fn versions_and_kinds() {
    assert_eq!(in_block(|b| b.version = 5), anywhere(Kind::Version(5)));
    assert_eq!(in_root(|r| r.version = 3), anywhere(Kind::Version(3)));
    assert_eq!(in_block(|b| b.kind = 4), anywhere(Kind::MessageKind(4)));
    assert_eq!(in_root(|r| r.kind = 2), anywhere(Kind::MessageKind(2)));
    let list = v4::block_list();
    let root = broken(RootLayout::check(&list.build()));
    assert_eq!(root, anywhere(Kind::StructSize));
    for list in lists() {
        let result = in_list(list, |list| list.kind = 3);
        assert_eq!(result, anywhere(Kind::MessageKind(3)));
    }
}

#[test]
fn the_root() {
    let child = |kind, number| at(kind, ListName::Children, number);
    assert_eq!(in_root(|r| r.level = 2), anywhere(Kind::RootLevel));
    assert_eq!(in_root(|r| r.inode_count = 59), anywhere(Kind::InodeCount));
    assert_eq!(in_root(|r| r.data_size = 1 << 63), anywhere(Kind::DataSize));
    assert_eq!(in_root(|r| r.children.clear()), anywhere(Kind::ChildCount));
    let too_many = in_root(|r| {
        r.children = vec![r.children[0].clone(); 1025];
        r.inode_count = 10_250;
    });
    assert_eq!(too_many, anywhere(Kind::ChildCount));
    let just_enough = in_root(|r| {
        r.children = vec![r.children[0].clone(); 1024];
        r.inode_count = 10_240;
    });
    assert_eq!(just_enough, None);
    for (inodes, blocks) in [(0, 1), (65_537, 1), (20, 0), (20, 2)] {
        let result = in_root(|r| {
            r.children[1].inodes = inodes;
            r.children[1].blocks = blocks;
        });
        assert_eq!(result, child(Kind::ChildSize, 1), "{inodes}, {blocks}");
    }
    let length = |stored, content| {
        in_root(|r| {
            r.children[2].stored = stored;
            r.children[2].content = content;
        })
    };
    let chunk = |e| child(Kind::Chunk(e), 2);
    assert_eq!(length(0, 4096), chunk(ChunkError::StoredLength));
    assert_eq!(length(4104, 4096), chunk(ChunkError::StoredLength));
    assert_eq!(length(9, 4097), chunk(ChunkError::MetadataLength));
    assert_eq!(
        length(9, (256 << 10) + 8),
        chunk(ChunkError::MetadataLength)
    );
}

#[test]
fn roots_of_block_lists() {
    let with = |inodes, blocks| {
        let mut root = v4::long_root();
        root.children[1].inodes = inodes;
        root.children[1].blocks = blocks;
        root.inode_count = 10 + u64::from(inodes);
        broken(RootLayout::check(&root.build()))
    };
    let size = at(Kind::ChildSize, ListName::Children, 1);
    assert_eq!(with(1024, 1024), None);
    assert_eq!(with(1 << 26, 1024), None);
    assert_eq!(with((1 << 26) + 1, 1024), size);
    assert_eq!(with(1025, 1025), size);
    assert_eq!(with(2, 3), size);
}

#[test]
fn children_agree_with_their_parents() {
    let child = |inodes, blocks| Child {
        chunk: ChunkRef::new(Digest::new([0; 32]), 8, 8).unwrap(),
        inodes,
        blocks,
    };
    let layout = BlockListLayout::check(&v4::block_list().build()).unwrap();
    assert_eq!(broken(layout.check_child(&child(60, 3))), None);
    for (inodes, blocks) in [(59, 3), (60, 2)] {
        let result = broken(layout.check_child(&child(inodes, blocks)));
        assert_eq!(result, anywhere(Kind::ChildMismatch));
    }
    let layout = BlockLayout::check(&v4::block().build()).unwrap();
    assert_eq!(broken(layout.check_child(&child(11, 1))), None);
    for (inodes, blocks) in [(12, 1), (11, 2)] {
        let result = broken(layout.check_child(&child(inodes, blocks)));
        assert_eq!(result, anywhere(Kind::ChildMismatch));
    }
}

#[test]
fn inodes() {
    let with = |slot: usize, change: fn(&mut v4::Inode)| in_block(|b| change(&mut b.inodes[slot]));
    for inode_type in [0, 3, 5, 7, 9, 11, 13, 14, 15] {
        let result = in_block(|b| b.inodes[slot::FIFO].mode = inode_type << 12);
        assert_eq!(result, inode(Kind::InodeType, slot::FIFO));
    }
    assert_eq!(
        with(slot::FIFO, |i| i.links = 0),
        inode(Kind::Links, slot::FIFO)
    );
    assert_eq!(
        with(slot::ROOT, |i| i.mtime.1 = 1_000_000_000),
        inode(Kind::Nanoseconds, slot::ROOT)
    );
    assert_eq!(
        with(slot::ROOT, |i| i.set = 3),
        inode(Kind::SetNumber, slot::ROOT)
    );
    assert_eq!(
        with(slot::CHAR, |i| i.size = 1 << 32),
        inode(Kind::DeviceNumber, slot::CHAR)
    );
    assert_eq!(
        with(slot::BLOCK, |i| i.size = 1 << 32),
        inode(Kind::DeviceNumber, slot::BLOCK)
    );
    for slot in [slot::SYMLINK, slot::CHAR, slot::FIFO, slot::SOCKET] {
        assert_eq!(with(slot, |i| i.long = true), inode(Kind::LongType, slot));
    }
    assert_eq!(in_block(|b| b.inodes.clear()), anywhere(Kind::BlockInodes));
}

#[test]
fn unused_fields() {
    let unused = |slot| inode(Kind::UnusedField, slot);
    for slot in [
        slot::ROOT,
        slot::SYMLINK,
        slot::FIFO,
        slot::SOCKET,
        slot::LONG_DIR,
    ] {
        assert_eq!(in_block(|b| b.inodes[slot].size = 1), unused(slot));
    }
    for slot in [slot::CHAR, slot::BLOCK, slot::FIFO, slot::SOCKET] {
        assert_eq!(in_block(|b| b.inodes[slot].first = 1), unused(slot));
        assert_eq!(in_block(|b| b.inodes[slot].count = 1), unused(slot));
    }
    for slot in [slot::FILE, slot::SYMLINK, slot::FIFO, slot::LONG_FILE] {
        assert_eq!(in_block(|b| b.inodes[slot].parent.0 = 1), unused(slot));
        assert_eq!(in_block(|b| b.inodes[slot].parent.1 = 1), unused(slot));
    }
}

#[test]
fn ranges() {
    let with = |slot: usize, first, count| {
        in_block(|b| {
            b.inodes[slot].first = first;
            b.inodes[slot].count = count;
        })
    };
    assert_eq!(with(slot::ROOT, 0, 11), inode(Kind::Range, slot::ROOT));
    assert_eq!(
        with(slot::ROOT, u32::MAX, 1),
        inode(Kind::Range, slot::ROOT)
    );
    assert_eq!(with(slot::ROOT, 1, 9), inode(Kind::RangeOrder, slot::ROOT));
    assert_eq!(
        with(slot::ROOT, 0, 9),
        inode(Kind::RangeOrder, slot::EMPTY_DIR)
    );
    assert_eq!(with(slot::FILE, 0, 4), inode(Kind::Range, slot::FILE));
    assert_eq!(with(slot::FILE, 1, 2), inode(Kind::RangeOrder, slot::FILE));
    assert_eq!(
        with(slot::SYMLINK, 1000, 1),
        inode(Kind::Range, slot::SYMLINK)
    );
    assert_eq!(
        with(slot::LONG_DIR, 0, 5),
        inode(Kind::Range, slot::LONG_DIR)
    );
    assert_eq!(
        with(slot::LONG_FILE, 3, 1),
        inode(Kind::RangeOrder, slot::LONG_FILE)
    );
    let unused = |list, index| at(Kind::Unused, list, index);
    let entry = in_block(|b| b.entries.push(b.entries[9].clone()));
    assert_eq!(entry, unused(ListName::Entries, 10));
    let extent = in_block(|b| b.extents.push(b.extents[0].clone()));
    assert_eq!(extent, unused(ListName::Extents, 3));
    let part = in_block(|b| b.parts.push(b.parts[0].clone()));
    assert_eq!(part, unused(ListName::Parts, 4));
    let attribute = in_block(|b| b.attributes.push(b.attributes[0].clone()));
    assert_eq!(attribute, unused(ListName::Attributes, 3));
}

#[test]
fn directories() {
    let entry = |kind, number| at(kind, ListName::Entries, number);
    let renamed = |name: &[u8]| {
        in_block(|b| {
            let name = (b.intern(name), name.len() as u8);
            b.entries[9].name = name;
        })
    };
    assert_eq!(renamed(b"z"), None);
    for name in [&b""[..], b".", b"..", b"s/", b"s\0"] {
        assert_eq!(renamed(name), entry(Kind::Name, 9), "{name:?}");
    }
    assert_eq!(renamed(b"longfile"), entry(Kind::NameOrder, 9));
    assert_eq!(renamed(b"longfil"), entry(Kind::NameOrder, 9));
    let outside = in_block(|b| b.entries[2].name.0 = 10_000);
    assert_eq!(outside, entry(Kind::Range, 2));
    let outside = in_block(|b| b.entries[2].name.0 = u32::MAX);
    assert_eq!(outside, entry(Kind::Range, 2));
    let no_type = in_block(|b| b.entries[2].inode_type = 3);
    assert_eq!(no_type, entry(Kind::EntryType, 2));
}

#[test]
fn files() {
    let extent = |kind, number| at(kind, ListName::Extents, number);
    let set =
        |number: usize, change: fn(&mut v4::Extent)| in_block(|b| change(&mut b.extents[number]));
    assert_eq!(
        set(0, |e| e.offset = 1),
        inode(Kind::FirstExtent, slot::FILE)
    );
    assert_eq!(set(1, |e| e.offset = 0), extent(Kind::ExtentOrder, 1));
    assert_eq!(set(2, |e| e.offset = 4000), extent(Kind::ExtentOrder, 2));
    assert_eq!(set(2, |e| e.offset = 20_000), extent(Kind::LastExtent, 2));
    assert_eq!(set(1, |e| e.offset = 4001), extent(Kind::ExtentContent, 0));
    assert_eq!(
        set(0, |e| e.chunk_offset = 5000),
        extent(Kind::ExtentContent, 0)
    );
    assert_eq!(
        set(0, |e| e.chunk_offset = 1001),
        extent(Kind::ExtentContent, 0)
    );
    assert_eq!(set(2, |e| e.chunk = 5), extent(Kind::ChunkNumber, 2));
    assert_eq!(set(1, |e| e.chunk_offset = 1), extent(Kind::HoleOffset, 1));
    let end = |size| {
        in_block(|b| {
            b.inodes[slot::FILE].size = size;
            b.extents[2].chunk_offset = (1 << 20) - 10_000;
        })
    };
    assert_eq!(end(20_000), None);
    assert_eq!(end(20_001), extent(Kind::ExtentContent, 2));
    let count = |slot: usize| inode(Kind::ExtentCount, slot);
    let size = |slot: usize, size| in_block(|b| b.inodes[slot].size = size);
    assert_eq!(size(slot::FILE, 0), count(slot::FILE));
    assert_eq!(size(slot::EMPTY_FILE, 1), count(slot::EMPTY_FILE));
    assert_eq!(size(slot::FILE, 1 << 63), inode(Kind::FileSize, slot::FILE));
    // A hole has no limit.
    let hole = in_block(|b| {
        b.extents[2].chunk = u32::MAX;
        b.inodes[slot::FILE].size = i64::MAX as u64;
    });
    assert_eq!(hole, None);
}

#[test]
fn symbolic_links() {
    let target = |target: &[u8]| {
        in_block(|b| {
            b.inodes[slot::SYMLINK].first = b.bytes.len() as u32;
            b.inodes[slot::SYMLINK].count = target.len() as u32;
            b.bytes.extend(target);
        })
    };
    assert_eq!(target(&[b'a'; 4095]), None);
    for bad in [&b""[..], b"a\0", &[b'a'; 4096]] {
        assert_eq!(target(bad), inode(Kind::SymlinkTarget, slot::SYMLINK));
    }
}

#[test]
fn attributes() {
    let attribute = |kind, number| at(kind, ListName::Attributes, number);
    let set = |kind, number| at(kind, ListName::Sets, number);
    let renamed = |name: &[u8]| {
        in_block(|b| {
            b.attributes[1].name = (b.bytes.len() as u32, name.len() as u8);
            b.bytes.extend(name);
        })
    };
    for name in [&b"user"[..], b"user.", b".a", b"", b"user.\0"] {
        assert_eq!(renamed(name), attribute(Kind::AttributeName, 1));
    }
    assert_eq!(renamed(b"security.a"), attribute(Kind::AttributeOrder, 1));
    assert_eq!(
        renamed(b"security.capability"),
        attribute(Kind::AttributeOrder, 1)
    );
    let with = |number: usize, change: fn(&mut v4::Attribute)| {
        in_block(|b| change(&mut b.attributes[number]))
    };
    assert_eq!(with(0, |a| a.name.0 = 10_000), attribute(Kind::Range, 0));
    assert_eq!(with(0, |a| a.value = 10_000), attribute(Kind::Range, 0));
    assert_eq!(
        with(0, |a| a.value_len = 65_537),
        attribute(Kind::ValueLength, 0)
    );
    assert_eq!(
        with(1, |a| a.value_len = 1999),
        attribute(Kind::ValueChunk, 1)
    );
    assert_eq!(with(1, |a| a.value = 5), attribute(Kind::ChunkNumber, 1));
    // Up to 1,024 bytes it is a range of the pool.
    assert_eq!(with(1, |a| a.value_len = 1024), attribute(Kind::Range, 1));
    assert_eq!(in_block(|b| b.sets[0] = (0, 4)), set(Kind::Range, 0));
    assert_eq!(in_block(|b| b.sets[1] = (1, 2)), set(Kind::RangeOrder, 1));
    assert_eq!(in_block(|b| b.sets.push((3, 0))), set(Kind::EmptySet, 2));
}

#[test]
fn chunks() {
    let with = |stored, content| {
        in_block(|b| {
            b.chunks[1].stored = stored;
            b.chunks[1].content = content;
        })
    };
    let chunk = |e| at(Kind::Chunk(e), ListName::Chunks, 1);
    assert_eq!(with(0, 1 << 20), chunk(ChunkError::StoredLength));
    assert_eq!(with(0, 0), chunk(ChunkError::DataLength));
    assert_eq!(with(1, (1 << 20) + 1), chunk(ChunkError::DataLength));
}

#[test]
fn parts() {
    let part = |kind, number| at(kind, ListName::Parts, number);
    let with =
        |number: usize, change: fn(&mut v4::Part)| in_block(|b| change(&mut b.parts[number]));
    assert_eq!(with(0, |p| p.chunk = 5), part(Kind::ChunkNumber, 0));
    let metadata = Kind::Chunk(ChunkError::MetadataLength);
    assert_eq!(with(0, |p| p.chunk = 1), part(metadata, 0));
    assert_eq!(with(1, |p| p.count = 0), part(Kind::EmptyPart, 1));
    assert_eq!(with(1, |p| p.count = u32::MAX), part(Kind::PartCount, 1));
    assert_eq!(with(1, |p| p.first_offset = 1), part(Kind::UnusedField, 1));
    assert_eq!(with(2, |p| p.name = (1, 0)), part(Kind::UnusedField, 2));
    assert_eq!(with(2, |p| p.name = (0, 1)), part(Kind::UnusedField, 2));
    assert_eq!(
        in_block(|b| b.parts[1].name = b.parts[0].name),
        part(Kind::PartOrder, 1)
    );
    assert_eq!(with(1, |p| p.name.1 = 0), part(Kind::Name, 1));
    assert_eq!(with(1, |p| p.name.0 = 10_000), part(Kind::Range, 1));
    assert_eq!(with(3, |p| p.first_offset = 0), part(Kind::PartOrder, 3));
    assert_eq!(
        with(2, |p| p.first_offset = 1),
        inode(Kind::FirstExtent, slot::LONG_FILE)
    );
    let last = with(3, |p| p.first_offset = 30 << 20);
    assert_eq!(last, inode(Kind::LastExtent, slot::LONG_FILE));
    let no_parts = in_block(|b| {
        b.inodes[slot::LONG_DIR].count = 0;
    });
    assert_eq!(no_parts, inode(Kind::NoParts, slot::LONG_DIR));
}

#[test]
fn list_blocks() {
    let entries = v4::entry_list;
    for of in [0, 1, 10, 255] {
        assert_eq!(in_list(entries(), |l| l.of = of), anywhere(Kind::ListType));
    }
    let level = anywhere(Kind::ListLevel);
    assert_eq!(in_list(entries(), |l| l.of = FILE), level);
    assert_eq!(in_list(entries(), |l| l.level = 1), level);
    assert_eq!(in_list(entries(), |l| l.entries.clear()), level);
    assert_eq!(
        in_list(entries(), |l| l.parts = v4::part_list().parts),
        level
    );
    assert_eq!(
        in_list(entries(), |l| l.extents = v4::extent_list().extents),
        level
    );
    assert_eq!(in_list(v4::extent_list(), |l| l.extents.clear()), level);
    assert_eq!(in_list(v4::part_list(), |l| l.level = 0), level);
    assert_eq!(in_list(v4::part_list(), |l| l.level = 2), None);
    assert_eq!(in_list(v4::part_list(), |l| l.level = 3), level);
    // The rules of the elements are those of a block.
    let order = in_list(entries(), |l| l.entries.swap(0, 1));
    assert_eq!(order, at(Kind::NameOrder, ListName::Entries, 1));
    let order = in_list(v4::extent_list(), |l| l.extents.swap(0, 1));
    assert_eq!(order, at(Kind::ExtentOrder, ListName::Extents, 1));
    let content = in_list(v4::extent_list(), |l| l.extents[0].chunk_offset = 1);
    assert_eq!(content, at(Kind::ExtentContent, ListName::Extents, 0));
    let content = in_list(v4::extent_list(), |l| l.extents[2].chunk_offset = 1000);
    assert_eq!(content, at(Kind::ExtentContent, ListName::Extents, 2));
    let order = in_list(v4::part_list(), |l| l.parts.swap(0, 1));
    assert_eq!(order, at(Kind::PartOrder, ListName::Parts, 1));
    let lengths = in_list(v4::extent_list(), |l| l.chunks[0].stored = 0);
    assert_eq!(
        lengths,
        at(Kind::Chunk(ChunkError::StoredLength), ListName::Chunks, 0)
    );
}

fn names<'a>(first: &'a [u8], before: Option<&'a [u8]>) -> Bounds<'a> {
    Bounds::Names {
        first: Some(first),
        before,
    }
}

fn offsets(start: u64, end: u64) -> Bounds<'static> {
    Bounds::Offsets { start, end }
}

/// The result of reading a list block by a reference.
fn read(list: &v4::ListBlock, bounds: Bounds<'_>, count: u32, level: u8) -> Broken {
    let bytes = list.build();
    let part = Part {
        chunk: ChunkRef::new(Digest::new(digest(0)), 8, 8).unwrap(),
        count,
        bounds,
        level,
    };
    broken(ListLayout::check(&bytes).unwrap().read(&bytes, &part))
}

#[test]
fn list_blocks_agree_with_their_parents() {
    let list = v4::entry_list();
    assert_eq!(read(&list, names(b"a", None), 3, 3), None);
    assert_eq!(read(&list, names(b"a", Some(b"c\0")), 3, 1), None);
    let first = anywhere(Kind::ListFirstMismatch);
    let end = anywhere(Kind::ListEndMismatch);
    assert_eq!(read(&list, names(b"A", None), 3, 3), first);
    assert_eq!(read(&list, names(b"a", Some(b"c")), 3, 3), end);
    assert_eq!(
        read(&list, names(b"a", None), 2, 3),
        anywhere(Kind::ListCountMismatch)
    );
    assert_eq!(
        read(&list, offsets(0, 1), 3, 3),
        anywhere(Kind::ListTypeMismatch)
    );
    assert_eq!(
        read(&list, names(b"a", None), 3, 0),
        anywhere(Kind::ListLevelMismatch)
    );

    let list = v4::extent_list();
    assert_eq!(read(&list, offsets(1000, 3500), 3, 3), None);
    assert_eq!(read(&list, offsets(1001, 3500), 3, 3), first);
    assert_eq!(read(&list, offsets(999, 3500), 3, 3), first);
    let last = |kind| at(kind, ListName::Extents, 2);
    assert_eq!(
        read(&list, offsets(1000, 3000), 3, 3),
        last(Kind::ListEndMismatch)
    );
    assert_eq!(
        read(&list, offsets(1000, 3501), 3, 3),
        last(Kind::ExtentContent)
    );
    assert_eq!(
        read(&list, names(b"a", None), 3, 3),
        anywhere(Kind::ListTypeMismatch)
    );
}

#[test]
fn lists_of_parts_agree_with_their_parents() {
    let first = anywhere(Kind::ListFirstMismatch);
    let end = anywhere(Kind::ListEndMismatch);
    let list = v4::part_list();
    assert_eq!(read(&list, names(b"a", Some(b"n")), 9, 2), None);
    assert_eq!(read(&list, names(b"b", Some(b"n")), 9, 2), first);
    assert_eq!(read(&list, names(b"a", Some(b"m")), 9, 2), end);
    assert_eq!(
        read(&list, names(b"a", None), 8, 2),
        anywhere(Kind::ListCountMismatch)
    );
    assert_eq!(
        read(&list, names(b"a", None), 9, 1),
        anywhere(Kind::ListLevelMismatch)
    );

    let list = v4::file_part_list();
    assert_eq!(read(&list, offsets(1000, 5001), 9, 3), None);
    assert_eq!(read(&list, offsets(0, 5001), 9, 3), first);
    assert_eq!(read(&list, offsets(1000, 5000), 9, 3), end);
    assert_eq!(
        read(&list, offsets(1000, 5001), 9, 2),
        anywhere(Kind::ListLevelMismatch)
    );
}

#[test]
fn references_between_blocks() {
    let bytes = v4::block().build();
    let layout = BlockLayout::check(&bytes).unwrap();
    let block = Block::new(&layout, &bytes).unwrap();
    assert_eq!(broken(block.target(1, InodeType::File)), None);
    let target = broken(block.target(1, InodeType::Directory));
    assert_eq!(target, anywhere(Kind::TypeMismatch));
    let target = broken(block.target(11, InodeType::File));
    assert_eq!(target, anywhere(Kind::NoSuchInode));
    assert_eq!(broken(block.parent(0)), None);
    assert_eq!(broken(block.parent(1)), anywhere(Kind::ParentType));
    assert_eq!(broken(block.parent(11)), anywhere(Kind::NoSuchInode));
}

#[test]
fn other_bytes_are_misuse() {
    let bytes = v4::block().build();
    let layout = BlockLayout::check(&bytes).unwrap();
    let misuse = anywhere(Kind::Misuse);
    assert_eq!(broken(Block::new(&layout, &bytes[8..])), misuse);
    let bytes = v4::root().build();
    let layout = RootLayout::check(&bytes).unwrap();
    assert_eq!(broken(layout.children(&bytes[8..])), misuse);
    assert_eq!(
        layout.children(&bytes).unwrap().child_type(),
        ChildType::Block
    );
    let bytes = v4::part_list().build();
    let layout = ListLayout::check(&bytes).unwrap();
    let part = Part {
        chunk: ChunkRef::new(Digest::new(digest(0)), 8, 8).unwrap(),
        count: 9,
        bounds: names(b"a", None),
        level: 3,
    };
    let longer = [bytes.as_slice(), &[0; 8]].concat();
    assert_eq!(broken(layout.read(&longer, &part)), misuse);
    let Ok(ListElements::Parts(parts)) = layout.read(&bytes, &part) else {
        panic!("the list block has parts");
    };
    assert_eq!(broken(parts.find_offset(0)), misuse);
}

#[test]
fn everything_is_read() {
    let bytes = v4::block().build();
    let layout = BlockLayout::check(&bytes).unwrap();
    let block = Block::new(&layout, &bytes).unwrap();
    let content = |slot: usize| block.inode(slot as u16).unwrap().content().unwrap();
    assert!(matches!(
        content(slot::SYMLINK),
        Content::Symlink(b"/usr/bin")
    ));
    assert!(matches!(
        content(slot::CHAR),
        Content::Device { major: 5, minor: 1 }
    ));
    assert!(matches!(
        content(slot::BLOCK),
        Content::Device {
            major: 4095,
            minor: 0xf_ffff
        }
    ));
    assert!(matches!(content(slot::FIFO), Content::None));
    let file = block.inode(slot::FILE as u16).unwrap();
    let attributes = file.attributes().unwrap();
    let value = attributes.find(b"security.capability").unwrap();
    assert_eq!(value, Some(Value::Inline(b"\x01\0\0\x02")));
    let expected = ChunkRef::new(Digest::new(digest(0xc2)), 2000, 2000).unwrap();
    assert_eq!(attributes.find(b"user.a"), Ok(Some(Value::Chunk(expected))));
    assert_eq!(attributes.find(b"user.b"), Ok(None));
    let fifo = block.inode(slot::FIFO as u16).unwrap();
    assert!(fifo.attributes().unwrap().is_empty());
    assert_eq!(chunk(1, 2).stored, 2);
}

/// Changes a word of a message, and checks it as a root.
fn with_word(word: usize, value: u64) -> Broken {
    let mut bytes = v4::root().build();
    bytes[word * 8..][..8].copy_from_slice(&value.to_le_bytes());
    broken(RootLayout::check(&bytes))
}

/// The words of a root: the segment table, the root pointer, three words of data, the pointer to
/// the children, their tag, and the children.
#[test]
fn the_encoding() {
    let len = v4::root().build().len() as u64;
    let words = len / 8 - 1;
    assert_eq!(with_word(0, words << 32), None);
    assert_eq!(with_word(0, (words << 32) | 1), anywhere(Kind::Segments));
    assert_eq!(with_word(0, (words + 1) << 32), anywhere(Kind::Truncated));
    assert_eq!(
        with_word(0, (words - 1) << 32),
        anywhere(Kind::TrailingBytes)
    );
    let root = |offset: u64, kind: u64, data: u64, pointers: u64| {
        with_word(
            1,
            ((offset << 2) & 0xffff_ffff) | kind | (data << 32) | (pointers << 48),
        )
    };
    assert_eq!(root(0, 0, 3, 1), None);
    assert_eq!(root(0, 1, 3, 1), anywhere(Kind::PointerType));
    assert_eq!(root(0, 2, 3, 1), anywhere(Kind::PointerType));
    assert_eq!(root(0, 3, 3, 1), anywhere(Kind::PointerType));
    assert_eq!(root(0, 0, 2, 1), anywhere(Kind::StructSize));
    assert_eq!(root(words - 4, 0, 3, 1), anywhere(Kind::OutOfBounds));
    assert_eq!(root(u64::MAX - 5, 0, 3, 1), anywhere(Kind::OutOfBounds));
    assert_eq!(root(0, 0, 3, 0), anywhere(Kind::ChildCount));
    let list = |offset: u64, kind: u64, size: u64, len: u64| {
        with_word(
            5,
            ((offset << 2) & 0xffff_ffff) | kind | (size << 32) | (len << 35),
        )
    };
    assert_eq!(list(0, 1, 7, 18), None);
    assert_eq!(list(0, 0, 7, 18), anywhere(Kind::PointerType));
    assert_eq!(list(0, 1, 6, 18), anywhere(Kind::PointerType));
    assert_eq!(list(0, 1, 7, 19), anywhere(Kind::OutOfBounds));
    assert_eq!(list(18, 1, 7, 18), anywhere(Kind::OutOfBounds));
    assert_eq!(list(0, 1, 7, 17), anywhere(Kind::ListLength));
    let tag = |kind: u64, count: u64, data: u64, pointers: u64| {
        with_word(6, kind | (count << 2) | (data << 32) | (pointers << 48))
    };
    assert_eq!(tag(0, 3, 6, 0), None);
    assert_eq!(tag(1, 3, 6, 0), anywhere(Kind::PointerType));
    assert_eq!(tag(0, 3, 5, 1), anywhere(Kind::PointersInList));
    assert_eq!(tag(0, 3, 5, 0), anywhere(Kind::StructSize));
    assert_eq!(tag(0, 2, 6, 0), anywhere(Kind::ListLength));
    // The segment table looks like the tag of an empty list, and is not in the segment.
    assert_eq!(list(-6_i64 as u64, 1, 7, 0), anywhere(Kind::OutOfBounds));
    assert_eq!(root(-2_i64 as u64, 0, 3, 1), anywhere(Kind::OutOfBounds));
    assert_eq!(
        root(-1_i64 as u64, 0, 3, 1),
        anywhere(Kind::Version(0xfffc))
    );
    let null = with_word(5, 0);
    assert_eq!(null, anywhere(Kind::ChildCount));
    let mut large = vec![0; (256 << 10) + 8];
    large[4..8].copy_from_slice(&(32_u32 << 10).to_le_bytes());
    assert_eq!(
        broken(RootLayout::check(&large)),
        anywhere(Kind::MessageTooLarge)
    );
}

#[test]
fn the_encoding_of_a_pool() {
    // The pool of a block is a list of bytes.
    let mut bytes = v4::block().build();
    let pool = 8 * 10;
    let pointer = u64::from_le_bytes(bytes[pool..pool + 8].try_into().unwrap());
    let mut with = |pointer: u64| {
        bytes[pool..pool + 8].copy_from_slice(&pointer.to_le_bytes());
        broken(BlockLayout::check(&bytes))
    };
    assert_eq!(with(pointer), None);
    assert_eq!(with(pointer ^ (1 << 32)), anywhere(Kind::PointerType));
    assert_eq!(with(pointer | (1 << 63)), anywhere(Kind::OutOfBounds));
    assert_eq!(with(0), at(Kind::Range, ListName::Attributes, 0));
}

/// Two lists that share elements, and a pool with the bytes of a list.
#[test]
fn lists_do_not_overlap() {
    let original = v4::block().build();
    let word = |at: usize| u64::from_le_bytes(original[at..at + 8].try_into().unwrap());
    let check = |at: usize, pointer: u64| {
        let mut bytes = original.clone();
        bytes[at..at + 8].copy_from_slice(&pointer.to_le_bytes());
        broken(BlockLayout::check(&bytes))
    };
    let (sets, attributes, pool) = (8 * 8, 8 * 9, 8 * 10);
    assert_eq!(check(sets, word(sets)), None);
    // The attributes, as seen from the pointer before.
    let shared = word(attributes) + (1 << 2);
    assert_eq!(check(sets, shared), anywhere(Kind::ListOrder));
    // The byte before the pool is one of an attribute.
    let before = word(pool) - (1 << 2);
    assert_eq!(check(pool, before), anywhere(Kind::ListOrder));
    let mut list = v4::entry_list().build();
    assert_eq!(broken(ListLayout::check(&list)), None);
    let pool = 8 * 7;
    let pointer = u64::from_le_bytes(list[pool..pool + 8].try_into().unwrap()) - (1 << 2);
    list[pool..pool + 8].copy_from_slice(&pointer.to_le_bytes());
    assert_eq!(broken(ListLayout::check(&list)), anywhere(Kind::ListOrder));
}

/// A later revision can add fields to structs, and pointers to the root struct.
#[test]
fn structs_can_be_longer() {
    let bytes = v4::root().build();
    let word = |at: usize| u64::from_le_bytes(bytes[at * 8..][..8].try_into().unwrap());
    let mut words = vec![25 << 32, (5 << 32) | (2 << 48)];
    words.extend([word(2), 30, word(4), 0, u64::MAX]);
    // The children, of seven words each, after an unknown pointer.
    words.extend([(1 << 2) | 1 | (7 << 32) | (14 << 35), 0]);
    words.push((2 << 2) | (7 << 32));
    for child in 0..2 {
        words.extend((0..6).map(|at| word(7 + child * 6 + at)));
        words.push(u64::MAX);
    }
    words[0] = (words.len() as u64 - 1) << 32;
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let layout = RootLayout::check(&bytes).unwrap();
    let children = layout.children(&bytes).unwrap();
    assert_eq!(children.len(), 2);
    assert_eq!(children.get(1).unwrap().unwrap().inodes, 20);
}
