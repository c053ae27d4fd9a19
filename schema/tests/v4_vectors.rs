// SPDX-License-Identifier: MIT OR Apache-2.0

//! The test vectors in `vectors/`: the structures of format 4, byte for byte.
//!
//! `PUZZLEFS_WRITE_VECTORS=1 cargo test --test v4_vectors` replaces them.

#[path = "v4/index.rs"]
mod index;

use puzzlefs_schema::v4::{
    root_ref, store_differences, Block, BlockLayout, BlockListLayout, Bounds, Catalogue, ChunkRef,
    Content, Encoding, ExtentData, InodeType, ListElements, ListLayout, Location, Lookup,
    PackFooter, PackedChunk, Page, Part, Record, RootLayout, Table, Value,
};
use puzzlefs_schema::Digest;
use puzzlefs_test_support::v4;
use std::fmt::Write;
use std::path::PathBuf;
use xxhash_rust::xxh64::xxh64;

fn path(name: &str) -> PathBuf {
    let vectors = concat!(env!("CARGO_MANIFEST_DIR"), "/vectors");
    PathBuf::from(vectors).join(name)
}

/// Compares the stored content of a metadata chunk with a vector.
fn compare_stored(name: &str, bytes: &[u8]) {
    let mut content = bytes.to_vec();
    store_differences(&mut content);
    compare(name, &content);
}

/// Compares bytes with a vector.
fn compare(name: &str, bytes: &[u8]) {
    let mut hex = "# SPDX-License-Identifier: MIT OR Apache-2.0\n".to_owned();
    for line in bytes.chunks(32) {
        for byte in line {
            write!(hex, "{byte:02x}").unwrap();
        }
        hex.push('\n');
    }
    let path = path(name);
    if std::env::var_os("PUZZLEFS_WRITE_VECTORS").is_some() {
        std::fs::write(&path, &hex).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), hex, "{name}");
}

/// A digest of counted bytes.
fn digest(first: u8) -> [u8; 32] {
    std::array::from_fn(|at| first + at as u8)
}

const ZSTD: [u8; 32] = [0xaa; 32];
const RAW: [u8; 32] = [0xbb; 32];

/// A block with a directory that has a file and a symbolic link, and a long directory.
fn block() -> Vec<u8> {
    let mut block = v4::Block {
        version: 4,
        kind: 3,
        chunks: vec![
            v4::Chunk {
                digest: ZSTD,
                stored: 1000,
                content: 4096,
            },
            v4::Chunk {
                digest: RAW,
                stored: 4096,
                content: 4096,
            },
        ],
        sets: vec![(0, 1)],
        ..v4::Block::default()
    };
    let file = block.name(b"file");
    let link = block.name(b"link");
    let many = block.name(b"many");
    for (name, inode_type, distance, slot) in [(file, 8, 0, 1), (link, 10, 0, 2), (many, 4, 1, 0)] {
        block.entries.push(v4::Entry {
            name,
            inode_type,
            slot,
            distance,
        });
    }
    block.extents = vec![
        v4::Extent {
            offset: 0,
            chunk: 0,
            chunk_offset: 96,
        },
        v4::Extent {
            offset: 4000,
            chunk: u32::MAX,
            chunk_offset: 0,
        },
    ];
    let attribute = v4::Attribute {
        name: block.name(b"user.a"),
        value_len: 2,
        value: block.intern(b"42"),
    };
    block.attributes = vec![attribute];
    block.inodes = inodes(file.0);
    block.parts = vec![v4::Part {
        first_offset: 0,
        chunk: 1,
        count: 2,
        name: many,
    }];
    block.build()
}

/// The inodes of the block. `target` is the offset of the symbolic link's target.
fn inodes(target: u32) -> Vec<v4::Inode> {
    vec![
        v4::Inode {
            mode: 0o40755,
            links: 3,
            count: 3,
            ..v4::inode(v4::DIR)
        },
        v4::Inode {
            size: 5000,
            count: 2,
            set: 1,
            ..v4::inode(v4::FILE)
        },
        v4::Inode {
            mode: 0o120777,
            first: target,
            count: 4,
            ..v4::inode(v4::SYMLINK)
        },
        v4::Inode {
            long: true,
            links: 2,
            count: 1,
            parent: (-1, 0),
            ..v4::inode(v4::DIR)
        },
    ]
}

/// The list block of the part in that block.
fn list_block() -> Vec<u8> {
    let mut list = v4::ListBlock {
        version: 4,
        kind: 4,
        of: v4::DIR,
        ..v4::ListBlock::default()
    };
    for (name, slot) in [(b"many", 0), (b"more", 1)] {
        let name = list.name(name);
        list.entries.push(v4::Entry {
            name,
            inode_type: v4::FILE,
            slot,
            distance: -1,
        });
    }
    list.build()
}

fn root() -> v4::Root {
    let child = |digest, stored, inodes| v4::Child {
        digest,
        stored,
        content: 4096,
        inodes,
        blocks: 1,
    };
    v4::Root {
        version: 4,
        kind: 1,
        level: 0,
        inode_count: 10,
        data_size: 5000,
        children: vec![child(ZSTD, 1000, 4), child(RAW, 4096, 6)],
    }
}

#[test]
fn a_chunk_reference() {
    let reference = ChunkRef::new(Digest::new(digest(0)), 1000, 4096).unwrap();
    assert_eq!(reference.encoding(), Encoding::Zstd);
    let mut bytes = reference.digest().as_bytes().to_vec();
    bytes.extend(reference.stored_len().to_le_bytes());
    bytes.extend(reference.content_len().to_le_bytes());
    assert_eq!(bytes.len(), ChunkRef::LEN);
    compare("chunk-reference.hex", &bytes);
    // It stands so in a block.
    let mut block = v4::block();
    block.chunks[0] = v4::Chunk {
        digest: digest(0),
        stored: 1000,
        content: 5000,
    };
    let block = block.build();
    assert!(block.windows(36).any(|window| window == &bytes[..36]));
}

#[test]
fn a_pack() {
    let mut pack = b"first".to_vec();
    let footer = PackFooter::new(3, 2).unwrap();
    let mut layout = footer.layout();
    let mut records = Vec::new();
    for (byte, content) in [(ZSTD, b"first".as_slice()), (RAW, b"second")] {
        let stored_len = content.len() as u32;
        let offset = layout.place(stored_len).unwrap();
        pack.resize(offset as usize, 0);
        pack.extend(content);
        let chunk = PackedChunk {
            digest: Digest::new(byte),
            offset,
            stored_len,
        };
        records.extend(chunk.to_record());
    }
    pack.extend(records);
    pack.extend(footer.to_bytes());
    compare("pack.hex", &pack);
    let footer = PackFooter::parse(&pack).unwrap();
    let range = footer.index_range(pack.len() as u64).unwrap();
    let index = &pack[range.start as usize..range.end as usize];
    let index = footer.index(index).unwrap();
    index.check(pack.len() as u64).unwrap();
    let places: Vec<_> = index
        .iter()
        .map(|chunk| (chunk.unwrap().offset, chunk.unwrap().stored_len))
        .collect();
    assert_eq!(places, [(0, 5), (8, 6)]);
}

#[test]
fn a_page() {
    let record = |digest, pack, offset, stored_len| Record {
        digest: Digest::new(digest),
        location: Location {
            pack,
            offset,
            stored_len,
        },
    };
    let records = [record(ZSTD, 1, 0, 5), record(RAW, 1, 8, 6)];
    let bytes = index::build_page(&records, false);
    compare("table-page.hex", &bytes);
    let page = Page::parse(&bytes, |bytes| xxh64(bytes, 0)).unwrap();
    let found = page.find(&Digest::new(RAW), 2);
    assert_eq!(found, Ok(Lookup::Found(records[1].location)));
}

#[test]
fn a_catalogue() {
    let table = Table {
        number: 7,
        pages: 1,
        records: 2,
    };
    let bytes = index::build_catalogue(&[[0; 32], digest(1)], &[table]);
    compare("catalogue.hex", &bytes);
    let catalogue = Catalogue::parse(&bytes, |bytes| xxh64(bytes, 0)).unwrap();
    assert_eq!(catalogue.pack(0), None);
    assert_eq!(catalogue.pack(1), Some(Digest::new(digest(1))));
    assert!(catalogue.tables().eq([table]));
}

#[test]
fn a_root() {
    let bytes = root().build();
    compare("root.hex", &bytes);
    let layout = RootLayout::check(&bytes).unwrap();
    assert_eq!((layout.inode_count(), layout.data_size()), (10, 5000));
    let children = layout.children(&bytes).unwrap();
    let second = children.get(1).unwrap().unwrap();
    assert_eq!(second.chunk.digest(), &Digest::new(RAW));
    assert_eq!(second.inodes, 6);
    let reference = root_ref(Digest::new(RAW), bytes.len() as u32, &bytes).unwrap();
    assert_eq!(reference.encoding(), Encoding::Raw);
}

#[test]
fn a_block_list() {
    let list = v4::BlockList {
        version: 4,
        kind: 2,
        children: root().children,
    };
    let bytes = list.build();
    compare("block-list.hex", &bytes);
    let layout = BlockListLayout::check(&bytes).unwrap();
    assert_eq!(layout.children(&bytes).unwrap().total().inodes, 10);
}

#[test]
fn a_block_and_its_list_block() {
    let bytes = block();
    compare_stored("block.hex", &bytes);
    let layout = BlockLayout::check(&bytes).unwrap();
    let block = Block::new(&layout, &bytes).unwrap();
    let inode = |slot| block.inode(slot).unwrap();
    let Content::Directory(entries) = inode(0).content().unwrap() else {
        panic!("the first inode is a directory");
    };
    let (position, entry) = entries.find(b"many").unwrap().unwrap();
    assert_eq!((position, entry.inode_type), (2, InodeType::Directory));
    assert_eq!((entry.inode.distance, entry.inode.slot), (1, 0));
    let Content::File(extents) = inode(1).content().unwrap() else {
        panic!("the second inode is a file");
    };
    let hole = extents.find(4999).unwrap().unwrap().1;
    assert_eq!((hole.start, hole.end), (4000, 5000));
    assert_eq!(hole.data, ExtentData::Hole);
    let value = inode(1).attributes().unwrap().find(b"user.a").unwrap();
    assert_eq!(value, Some(Value::Inline(b"42")));
    let target = inode(2).content().unwrap();
    assert!(matches!(target, Content::Symlink(b"file")));
    let Content::LongDirectory(parts) = inode(3).content().unwrap() else {
        panic!("the fourth inode is a long directory");
    };
    let (_, part) = parts.find_name(b"more").unwrap().unwrap();
    read_list_block(&part);
}

fn read_list_block(part: &Part<'_>) {
    let first = Bounds::Names {
        first: Some(b"many"),
        before: None,
    };
    assert_eq!((part.count, part.bounds), (2, first));
    let bytes = list_block();
    compare_stored("list-block.hex", &bytes);
    let layout = ListLayout::check(&bytes).unwrap();
    let ListElements::Entries(entries) = layout.read(&bytes, part).unwrap() else {
        panic!("the list block has entries");
    };
    let (position, entry) = entries.find(b"more").unwrap().unwrap();
    assert_eq!(
        (position, entry.inode.distance, entry.inode.slot),
        (1, -1, 1)
    );
}

/// The tables of the README explain every byte, in order, and show those that they explain.
#[test]
fn the_readme_explains_every_byte() {
    let readme = std::fs::read_to_string(path("README.md")).unwrap();
    let mut sections = 0;
    for section in readme.split("\n## ").skip(1) {
        let name = section.lines().next().unwrap().trim_matches('`');
        let hex = std::fs::read_to_string(path(name)).unwrap();
        let digits: String = hex.lines().skip(1).collect();
        let mut end = 0;
        for row in section.lines().filter_map(|line| line.strip_prefix("| ")) {
            let mut cells = row.split(" | ");
            let Some((from, to)) = cells.next().and_then(|range| range.split_once("..")) else {
                continue;
            };
            let (from, to): (usize, usize) = (from.parse().unwrap(), to.parse().unwrap());
            assert_eq!(from, end, "{name}: {row}");
            end = to;
            let shown = cells.next().unwrap().trim_matches('`').replace(' ', "");
            let stored = &digits[from * 2..to * 2];
            match shown.split_once('…') {
                Some((first, last)) => {
                    assert!(stored.starts_with(first), "{name}: {row}: {stored}");
                    assert!(stored.ends_with(last), "{name}: {row}: {stored}");
                }
                None => assert_eq!(shown, stored, "{name}: {row}"),
            }
        }
        assert_eq!(end * 2, digits.len(), "{name}");
        sections += 1;
    }
    let files = std::fs::read_dir(path("")).unwrap().count();
    assert_eq!(sections, files - 1, "every file has a section");
}
