// SPDX-License-Identifier: MIT OR Apache-2.0

//! Images of format 4 whose chunks contradict each other: each rule that spans chunks has its error, which
//! names the chunk.

use puzzlefs_schema::image::{Entry, ImageMetadata, Versions};
use puzzlefs_schema::v4::{
    store_differences, ChunkSource, Layout, LoadedInode, MetadataErrorKind as Kind, Node, Tree,
};
use puzzlefs_schema::{Digest, FileType};
use puzzlefs_test_support::v4::chunks::{Chunk, Chunks, Naming, TreeError};
use puzzlefs_test_support::v4::{self, Block, Inode, ListBlock, Part};
use std::ops::ControlFlow;

/// The numbers of the chunks of [`TestImage`].
const FIRST: u8 = 0;
const SECOND: u8 = 1;
const LIST: u8 = 2;
const ROOT: u8 = 3;

fn digest(number: u8) -> [u8; 32] {
    let mut digest = [0; 32];
    digest[0] = number;
    digest
}

fn chunk(number: u8) -> v4::Chunk {
    v4::Chunk {
        digest: digest(number),
        stored: 4096,
        content: 4096,
    }
}

/// An image of two blocks. The first has the root directory and a file in a list block, and the second has
/// a directory in a list block.
struct TestImage {
    root: v4::Root,
    first: Block,
    second: Block,
    list: Vec<u8>,
}

/// The list block with the entries of the directory in the second block.
fn names() -> ListBlock {
    let mut list = ListBlock {
        version: 4,
        kind: 4,
        of: v4::DIR,
        ..ListBlock::default()
    };
    for name in [&b"a"[..], b"b"] {
        let name = list.name(name);
        list.entries.push(v4::Entry {
            name,
            inode_type: v4::FIFO,
            slot: 1,
            distance: 0,
        });
    }
    list
}

impl TestImage {
    fn new() -> Self {
        let mut first = Block {
            version: 4,
            kind: 3,
            inodes: vec![Inode {
                count: 1,
                ..v4::inode(v4::DIR)
            }],
            ..Block::default()
        };
        let name = first.name(b"sub");
        first.entries.push(v4::Entry {
            name,
            inode_type: v4::DIR,
            slot: 0,
            distance: 1,
        });
        let mut second = Block {
            version: 4,
            kind: 3,
            inodes: vec![
                Inode {
                    long: true,
                    count: 1,
                    parent: (-1, 0),
                    ..v4::inode(v4::DIR)
                },
                v4::inode(v4::FIFO),
            ],
            chunks: vec![chunk(LIST)],
            ..Block::default()
        };
        let name = second.name(b"a");
        second.parts.push(Part {
            chunk: 0,
            count: 2,
            name,
            first_offset: 0,
        });
        let child = |number, inodes| v4::Child {
            digest: digest(number),
            stored: 4096,
            content: 4096,
            inodes,
            blocks: 1,
        };
        Self {
            root: v4::Root {
                version: 4,
                kind: 1,
                level: 0,
                inode_count: 3,
                data_size: 0,
                children: vec![child(FIRST, 1), child(SECOND, 2)],
            },
            first,
            second,
            list: names().build(),
        }
    }

    fn chunks(&self) -> Chunks {
        let mut contents = [
            self.first.build(),
            self.second.build(),
            self.list.clone(),
            self.root.build(),
        ];
        for content in &mut contents {
            store_differences(content);
        }
        let chunks = (0..).map(digest).zip(contents);
        Chunks::new(chunks.collect(), Naming::Numbers)
    }

    /// The first error of a walk by names: the entries of each directory are opened.
    fn error(&self) -> Option<(u8, Kind)> {
        let chunks = self.chunks();
        walk(&chunks).err().map(|e| match e {
            TreeError::Malformed(digest, e) => (digest.as_bytes()[0], e.kind()),
            TreeError::Missing(digest) => panic!("{digest} is missing"),
        })
    }
}

fn walk(chunks: &Chunks) -> Result<(), TreeError> {
    let tree = Tree::new(chunks, chunks.root()?)?;
    walk_directory(&tree, &tree.root()?)
}

fn walk_directory(tree: &Tree<&Chunks>, directory: &LoadedInode<Chunk>) -> Result<(), TreeError> {
    tree.parent(directory)?;
    let mut links = Vec::new();
    let _ = ImageMetadata::for_each_entry(tree, directory, 0, |entry: Entry<'_, Node>| {
        links.push((entry.name.to_vec(), entry.link));
        ControlFlow::<()>::Continue(())
    })?;
    for (name, link) in links {
        assert_eq!(ImageMetadata::lookup(tree, directory, &name)?, Some(link));
        let inode = ImageMetadata::open(tree, &link)?;
        if link.file_type == FileType::Dir {
            walk_directory(tree, &inode)?;
        }
    }
    Ok(())
}

#[test]
fn the_original_is_valid() {
    assert_eq!(TestImage::new().error(), None);
}

/// Changes the original, and expects an error in a chunk.
#[track_caller]
fn refused(change: impl FnOnce(&mut TestImage), chunk: u8, kind: Kind) {
    let mut image = TestImage::new();
    change(&mut image);
    assert_eq!(image.error(), Some((chunk, kind)));
}

#[test]
fn the_first_inode_is_a_directory() {
    refused(
        |image| {
            image.first.inodes[0] = v4::inode(v4::FIFO);
            image.first.entries.clear();
        },
        FIRST,
        Kind::RootType,
    );
}

#[test]
fn an_entry_leads_to_an_inode() {
    for (distance, slot) in [
        (1, 2),
        (1, u16::MAX),
        (2, 0),
        (-1, 0),
        (i32::MIN, 0),
        (i32::MAX, 0),
    ] {
        refused(
            |image| {
                image.first.entries[0].distance = distance;
                image.first.entries[0].slot = slot;
            },
            FIRST,
            Kind::NoSuchInode,
        );
    }
}

#[test]
fn an_inode_has_the_type_of_its_entry() {
    refused(
        |image| image.first.entries[0].inode_type = v4::FILE,
        SECOND,
        Kind::TypeMismatch,
    );
}

#[test]
fn a_parent_is_a_directory() {
    let parent = |parent| move |image: &mut TestImage| image.second.inodes[0].parent = parent;
    refused(parent((0, 1)), SECOND, Kind::ParentType);
    refused(parent((-2, 0)), SECOND, Kind::NoSuchInode);
    refused(parent((1, 0)), SECOND, Kind::NoSuchInode);
    refused(parent((-1, 1)), SECOND, Kind::NoSuchInode);
}

#[test]
fn a_block_has_as_many_inodes_as_its_parent_states() {
    refused(
        |image| {
            image.root.children[1].inodes = 3;
            image.root.inode_count = 4;
        },
        SECOND,
        Kind::ChildMismatch,
    );
}

#[test]
fn a_block_list_has_as_many_inodes_and_blocks_as_its_parent_states() {
    for (inodes, blocks) in [(3, 1), (2, 2), (3, 3)] {
        refused(
            |image| {
                // The third chunk is a list of both blocks.
                let list = v4::BlockList {
                    version: 4,
                    kind: 2,
                    children: image.root.children.clone(),
                };
                image.list = list.build();
                image.root.children.truncate(1);
                image.root.children[0].digest = digest(LIST);
                image.root.children[0].inodes = inodes;
                image.root.children[0].blocks = blocks;
                image.root.inode_count = inodes.into();
                image.root.level = 1;
            },
            LIST,
            Kind::ChildMismatch,
        );
    }
}

#[test]
fn a_chunk_is_of_the_kind_of_its_reference() {
    let block =
        |number| move |image: &mut TestImage| image.root.children[1].digest = digest(number);
    refused(block(LIST), LIST, Kind::MessageKind(4));
    refused(block(ROOT), ROOT, Kind::MessageKind(1));
    refused(
        |image| image.second.chunks[0] = chunk(FIRST),
        FIRST,
        Kind::MessageKind(3),
    );
    refused(|image| image.root.level = 1, FIRST, Kind::MessageKind(3));
    let image = TestImage::new();
    let chunks = image.chunks();
    let block = (&chunks)
        .load(&puzzlefs_schema::v4::ChunkRef::new(Digest::new(digest(FIRST)), 8, 8).unwrap());
    let e = Tree::new(&chunks, block.unwrap()).unwrap_err();
    assert!(matches!(e, TreeError::Malformed(_, e) if e.kind() == Kind::MessageKind(3)));
    assert!(matches!(Layout::check(&image.list), Ok(Layout::List(_))));
    let mut other = image.first.clone();
    other.kind = 5;
    let e = Layout::check(&other.build()).unwrap_err();
    assert_eq!(e.kind(), Kind::MessageKind(5));
}

#[test]
fn a_list_block_is_what_its_parent_states() {
    let list = |change: fn(&mut ListBlock)| {
        move |image: &mut TestImage| {
            let mut list = names();
            change(&mut list);
            image.list = list.build();
        }
    };
    let other_count = list(|list| list.entries.truncate(1));
    refused(other_count, LIST, Kind::ListCountMismatch);
    let other_name = list(|list| list.entries[0].name = list.name(b"aa"));
    refused(other_name, LIST, Kind::ListFirstMismatch);
    refused(
        |image| {
            // The next list block begins before this one ends.
            let name = image.second.name(b"aa");
            let part = image.second.parts[0].clone();
            image.second.parts.push(Part { name, ..part });
            image.second.inodes[0].count = 2;
        },
        LIST,
        Kind::ListEndMismatch,
    );
    refused(
        |image| image.list = v4::extent_list().build(),
        LIST,
        Kind::ListTypeMismatch,
    );
    refused(
        |image| {
            // It refers to itself.
            let mut list = v4::part_list();
            list.level = 2;
            list.parts.truncate(1);
            list.parts[0].count = 2;
            list.chunks[0] = chunk(LIST);
            image.list = list.build();
        },
        LIST,
        Kind::ListLevelMismatch,
    );
    refused(
        list(|list| list.entries[1].distance = -2),
        SECOND,
        Kind::NoSuchInode,
    );
}

#[test]
fn an_inode_of_another_version_is_refused() {
    let image = TestImage::new();
    let chunks = image.chunks();
    let root = || chunks.root().unwrap();
    type Both<'c> = Versions<Tree<&'c Chunks>, Tree<&'c Chunks>>;
    let old: Both<'_> = Versions::V3(Tree::new(&chunks, root()).unwrap());
    let new: Both<'_> = Versions::V4(Tree::new(&chunks, root()).unwrap());
    let inode = new.root().unwrap();
    assert_eq!(new.ino(&inode), 1);
    let link = new.lookup(&inode, b"sub").unwrap().unwrap();
    assert_eq!(new.find(link.ino).unwrap().unwrap().place, link.place);
    assert!(new.open(&link).is_ok());
    for e in [
        old.stat(&inode).map(drop),
        old.lookup(&inode, b"sub").map(drop),
        old.open(&link).map(drop),
        old.parent(&inode).map(drop),
        old.has_xattrs(&inode).map(drop),
    ] {
        let e = e.unwrap_err();
        assert!(matches!(e, TreeError::Malformed(_, e) if e.kind() == Kind::Misuse));
    }
    assert_eq!(old.ino(&inode), 0);
}

#[test]
fn an_operation_on_another_type_is_a_misuse() {
    let image = TestImage::new();
    let chunks = image.chunks();
    let tree = Tree::new(&chunks, chunks.root().unwrap()).unwrap();
    let fifo = tree.open(tree.find(3).unwrap().unwrap(), None).unwrap();
    let root = tree.root().unwrap();
    for e in [
        tree.lookup(&fifo, b"a").map(drop),
        tree.parent(&fifo).map(drop),
        tree.entry_count(&fifo).map(drop),
        tree.for_each_extent(&root, 0, ControlFlow::Break).map(drop),
        tree.symlink_target(&root).map(drop),
    ] {
        let e = e.unwrap_err();
        assert!(matches!(e, TreeError::Malformed(_, e) if e.kind() == Kind::Misuse));
    }
}
