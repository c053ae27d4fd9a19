// SPDX-License-Identifier: MIT OR Apache-2.0

//! Reads encoded trees with the schema's reader, and checks all rules.

use super::*;
use crate::model::chunk;
use crate::model::tree::Xattr;
use puzzlefs_schema::v4::{
    self, restore_values, Block, BlockLayout, BlockListLayout, Child, ChildType, Content, Entry,
    Extent, InodeRef, InodeType, ListElements, ListLayout, Part, Parts, RootLayout, Value,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Everything about a file of a tree.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct File {
    pub mode: u16,
    pub nlink: u32,
    pub owner: (u32, u32),
    pub mtime: (i64, u32),
    pub size: u64,
    pub device: u32,
    pub target: Vec<u8>,
    pub extents: Vec<FileExtent>,
    pub xattrs: Vec<Xattr>,
    /// Another path of the inode that a walk finds before; empty for the first.
    pub other: Vec<u8>,
}

/// An image whose blocks are loaded.
pub(super) struct Image {
    root: Vec<u8>,
    chunks: HashMap<Digest, StoredChunk>,
    blocks: Vec<(BlockLayout, Vec<u8>)>,
}

impl Image {
    pub fn new(encoded: EncodedTree) -> Self {
        let EncodedTree { root, chunks } = encoded;
        let named = |chunk: StoredChunk| (Digest::from(*chunk.chunk.digest()), chunk);
        let mut image = Image {
            root: content(&root),
            chunks: chunks.into_iter().map(named).collect(),
            blocks: Vec::new(),
        };
        for child in image.children() {
            let bytes = image.load(&child.chunk);
            let layout = BlockLayout::check(&bytes).unwrap();
            layout.check_child(&child).unwrap();
            image.blocks.push((layout, bytes));
        }
        image
    }

    fn load(&self, chunk: &ChunkRef) -> Vec<u8> {
        let stored = &self.chunks[&Digest::from(*chunk.digest())];
        assert_eq!(stored.chunk, *chunk);
        let mut bytes = content(stored);
        restore_values(&mut bytes);
        bytes
    }

    fn children(&self) -> Vec<Child> {
        let children = RootLayout::check(&self.root)
            .unwrap()
            .children(&self.root)
            .unwrap();
        let direct = (0..children.len()).map(|number| children.get(number).unwrap().unwrap());
        if children.child_type() == ChildType::Block {
            return direct.collect();
        }
        let below = direct.flat_map(|child| {
            let bytes = self.load(&child.chunk);
            let layout = BlockListLayout::check(&bytes).unwrap();
            layout.check_child(&child).unwrap();
            let children = layout.children(&bytes).unwrap();
            let list = (0..children.len()).map(|number| children.get(number).unwrap().unwrap());
            list.collect::<Vec<_>>()
        });
        below.collect()
    }

    pub fn inodes(&self) -> u64 {
        RootLayout::check(&self.root).unwrap().inode_count()
    }

    pub fn data_size(&self) -> u64 {
        RootLayout::check(&self.root).unwrap().data_size()
    }

    /// The number of the root's children.
    pub fn root_children(&self) -> u32 {
        let layout = RootLayout::check(&self.root).unwrap();
        layout.children(&self.root).unwrap().len()
    }

    /// The content lengths of the blocks.
    pub fn block_sizes(&self) -> Vec<usize> {
        self.blocks.iter().map(|(_, bytes)| bytes.len()).collect()
    }

    /// The levels of all list blocks.
    pub fn list_levels(&self) -> BTreeSet<u8> {
        let levels = self.chunks.values().filter_map(|chunk| {
            let bytes = content(chunk);
            // The word after the framing and the pointer to the root: version and kind, then the level.
            (bytes.get(18) == Some(&4)).then(|| bytes[21])
        });
        levels.collect()
    }

    /// Of each directory, the number of blocks that the inodes of its entries are in.
    pub fn blocks_of_directories(&self) -> Vec<usize> {
        let mut numbers = Vec::new();
        self.walk(|image, _, block, inode| {
            let blocks = image.entries(inode).into_iter();
            let blocks: BTreeSet<_> = blocks.map(|(_, target)| target.block(block)).collect();
            numbers.extend((!blocks.is_empty()).then_some(blocks.len()));
        });
        numbers
    }

    /// The paths in the order of the inodes.
    pub fn order(&self) -> Vec<String> {
        let mut paths = BTreeMap::new();
        self.walk(|_, path, block, inode| {
            let path = String::from_utf8_lossy(path).into_owned();
            paths.insert((block, inode.0), path);
        });
        paths.into_values().collect()
    }

    /// Everything about the tree by path.
    pub fn files(&self) -> BTreeMap<Vec<u8>, File> {
        let mut files = BTreeMap::new();
        let mut first: HashMap<(u64, u16), Vec<u8>> = HashMap::new();
        self.walk(|image, path, block, inode| {
            let place = (block, inode.0);
            let other = first.insert(place, path.to_vec()).unwrap_or_default();
            files.insert(path.to_vec(), image.file(&inode.1, other));
        });
        // The walk reaches every inode.
        assert_eq!(first.len() as u64, self.inodes());
        files
    }

    /// Calls a function for each path, with the number of the block, the slot and the inode.
    fn walk(&self, mut visit: impl FnMut(&Self, &[u8], u64, &(u16, v4::Inode<'_>))) {
        let mut pending = vec![(Vec::new(), 0, 0, InodeType::Directory)];
        while let Some((path, block, slot, inode_type)) = pending.pop() {
            let (layout, bytes) = &self.blocks[block as usize];
            let inode = Block::new(layout, bytes)
                .unwrap()
                .target(slot, inode_type)
                .unwrap();
            if let Some(parent) = inode.parent() {
                let number = parent.block(block).unwrap();
                let (layout, bytes) = &self.blocks[number as usize];
                Block::new(layout, bytes)
                    .unwrap()
                    .parent(parent.slot)
                    .unwrap();
            }
            visit(self, &path, block, &(slot, inode));
            let targets = match inode.content().unwrap() {
                Content::Directory(entries) => {
                    let get = |position| entries.get(position).unwrap().unwrap();
                    (0..entries.len()).map(get).map(own).collect()
                }
                Content::LongDirectory(parts) => self.long_entries(&parts),
                _ => Vec::new(),
            };
            for (name, inode_type, target) in targets {
                let path = [&*path, b"/", &name].concat();
                pending.push((path, target.block(block).unwrap(), target.slot, inode_type));
            }
        }
    }

    fn entries(&self, inode: &(u16, v4::Inode<'_>)) -> Vec<(Vec<u8>, InodeRef)> {
        let Content::Directory(entries) = inode.1.content().unwrap() else {
            return Vec::new();
        };
        let entries = (0..entries.len()).map(|position| {
            let entry = entries.get(position).unwrap().unwrap();
            (entry.name.to_vec(), entry.inode)
        });
        entries.collect()
    }

    fn file(&self, inode: &v4::Inode<'_>, other: Vec<u8>) -> File {
        let (mut extents, mut device, mut target) = (Vec::new(), 0, Vec::new());
        match inode.content().unwrap() {
            Content::File(list) => {
                let list = (0..list.len()).map(|position| list.get(position).unwrap().unwrap());
                extents = list.map(file_extent).collect();
            }
            Content::LongFile(parts) => extents = self.long_extents(&parts),
            Content::Symlink(link) => target = link.to_vec(),
            Content::Device { major, minor } => device = (major << 20) | minor,
            Content::Directory(_) | Content::LongDirectory(_) | Content::None => {}
        }
        let attributes = inode.attributes().unwrap();
        let xattrs = (0..attributes.len()).map(|position| {
            let attribute = attributes.get(position).unwrap().unwrap();
            let value = match attribute.value {
                Value::Inline(value) => value.to_vec(),
                Value::Chunk(chunk) => self.load(&chunk),
            };
            (attribute.name.to_vec(), value)
        });
        File {
            mode: inode.mode(),
            nlink: inode.links(),
            owner: (inode.uid(), inode.gid()),
            mtime: (inode.mtime().seconds, inode.mtime().nanoseconds),
            size: inode.size(),
            device,
            target,
            extents,
            xattrs: xattrs.collect(),
            other,
        }
    }

    fn long_entries(&self, parts: &Parts<'_>) -> Vec<(Vec<u8>, InodeType, InodeRef)> {
        let mut found = Vec::new();
        self.leaves(parts, &mut |elements| {
            let ListElements::Entries(entries) = elements else {
                panic!("a directory has entries");
            };
            let get = |position| entries.get(position).unwrap().unwrap();
            found.extend((0..entries.len()).map(get).map(own));
        });
        found
    }

    fn long_extents(&self, parts: &Parts<'_>) -> Vec<FileExtent> {
        let mut found = Vec::new();
        self.leaves(parts, &mut |elements| {
            let ListElements::Extents(extents) = elements else {
                panic!("a file has extents");
            };
            let get = |position| extents.get(position).unwrap().unwrap();
            found.extend((0..extents.len()).map(get).map(file_extent));
        });
        found
    }

    /// Reads the list blocks of level 0 below some parts.
    fn leaves(&self, parts: &Parts<'_>, visit: &mut dyn FnMut(&ListElements<'_>)) {
        for position in 0..parts.len() {
            let part: Part<'_> = parts.get(position).unwrap().unwrap();
            let bytes = self.load(&part.chunk);
            assert!(bytes.len() <= 64 << 10);
            let layout = ListLayout::check(&bytes).unwrap();
            match layout.read(&bytes, &part).unwrap() {
                ListElements::Parts(parts) => self.leaves(&parts, visit),
                elements => visit(&elements),
            }
        }
    }
}

fn own(entry: Entry<'_>) -> (Vec<u8>, InodeType, InodeRef) {
    (entry.name.to_vec(), entry.inode_type, entry.inode)
}

fn file_extent(extent: Extent) -> FileExtent {
    FileExtent {
        offset: extent.start,
        data: match extent.data {
            v4::ExtentData::Hole => ExtentData::Hole,
            v4::ExtentData::Chunk { chunk, offset } => ExtentData::Chunk { chunk, offset },
        },
    }
}

fn content(stored: &StoredChunk) -> Vec<u8> {
    let mut content = Vec::new();
    chunk::decode(&stored.chunk, &stored.stored, &mut content).unwrap();
    content
}
