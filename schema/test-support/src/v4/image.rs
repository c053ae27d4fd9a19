// SPDX-License-Identifier: MIT OR Apache-2.0

//! Builds whole images of format 4 from a plain model, with blocks and lists as small as a test needs
//! them.

use super::{
    Attribute, Block, BlockList, Child, Chunk, Entry, Extent, Inode, ListBlock, Part, Root, DIR,
    FILE,
};
use puzzlefs_schema::v4::store_differences;
use std::collections::BTreeMap;

/// The content of an inode.
#[derive(Clone, Debug)]
pub enum Content {
    /// Of another inode than a directory, a regular file or a symbolic link.
    None,
    /// The entries of a directory: numbers of inodes, counted from 0.
    Entries(BTreeMap<Vec<u8>, usize>),
    /// The extents of a regular file: offset, chunk, and offset in its content.
    Extents(Vec<(u64, Option<(Chunk, u32)>)>),
    /// The target of a symbolic link.
    Target(Vec<u8>),
}

/// An inode.
#[derive(Clone, Debug)]
pub struct ModelInode {
    /// Its attributes. What lies in lists is filled in by [`build`].
    pub inode: Inode,
    /// The number of a directory's parent.
    pub parent: usize,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub content: Content,
}

/// Sizes of blocks and lists.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// Inodes of a block.
    pub inodes: usize,
    /// Entries or extents of an inode without list blocks, and of a list block.
    pub elements: usize,
    /// Parts of an inode, and of a list block.
    pub parts: usize,
    /// Children of a root and of a block list.
    pub children: usize,
}

impl Cut {
    /// As large as the format allows.
    pub const LARGE: Self = Self {
        inodes: 200,
        elements: 1000,
        parts: 1000,
        children: 1024,
    };
}

/// The chunks of an image, raw. The root is the last one.
pub struct Image {
    pub chunks: Vec<([u8; 32], Vec<u8>)>,
    digest: fn(usize, &[u8]) -> [u8; 32],
}

impl Image {
    fn add(&mut self, mut content: Vec<u8>) -> Chunk {
        store_differences(&mut content);
        let digest = (self.digest)(self.chunks.len(), &content);
        let len = content.len() as u32;
        self.chunks.push((digest, content));
        Chunk {
            digest,
            stored: len,
            content: len,
        }
    }

    /// Adds a block or a block list.
    fn add_child(&mut self, content: Vec<u8>, inodes: u32, blocks: u32) -> Child {
        let chunk = self.add(content);
        Child {
            digest: chunk.digest,
            stored: chunk.stored,
            content: chunk.content,
            inodes,
            blocks,
        }
    }

    /// The digest and the content of the root.
    pub fn root(&self) -> &([u8; 32], Vec<u8>) {
        self.chunks.last().expect("an image has a root")
    }
}

/// Builds an image of inodes, the first of which is the root directory. `digest` names the chunk of a
/// number.
pub fn build(inodes: &[ModelInode], cut: Cut, digest: fn(usize, &[u8]) -> [u8; 32]) -> Image {
    let mut image = Image {
        chunks: Vec::new(),
        digest,
    };
    let mut blocks = Vec::new();
    for (number, some) in inodes.chunks(cut.inodes).enumerate() {
        let builder = BlockBuilder {
            block: Block {
                version: 4,
                kind: 3,
                ..Block::default()
            },
            image: &mut image,
            inodes,
            number,
            cut,
        };
        let bytes = builder.build(some);
        blocks.push(image.add_child(bytes, some.len() as u32, 1));
    }
    let mut root = Root {
        version: 4,
        kind: 1,
        level: 0,
        inode_count: inodes.len() as u64,
        data_size: inodes.iter().map(file_size).sum(),
        children: blocks,
    };
    if root.children.len() > cut.children {
        root.level = 1;
        let lists = root.children.chunks(cut.children).map(|children| {
            let list = BlockList {
                version: 4,
                kind: 2,
                children: children.to_vec(),
            };
            let inodes = children.iter().map(|child| child.inodes).sum();
            image.add_child(list.build(), inodes, children.len() as u32)
        });
        root.children = lists.collect();
    }
    image.add(root.build());
    image
}

fn file_size(inode: &ModelInode) -> u64 {
    match inode.content {
        Content::Extents(_) => inode.inode.size,
        _ => 0,
    }
}

/// A list block that is not built yet: its elements are of one of these types.
trait Elements: Sized {
    /// The type of the inode that such a list belongs to.
    const OF: u8;

    /// Adds the element to a list block.
    fn add_to(&self, list: &mut ListBlock);

    /// A part that begins with the element. `name` adds a name to a pool.
    fn part(&self, name: impl FnOnce(&[u8]) -> (u32, u8)) -> Part;
}

#[derive(Clone)]
struct NamedEntry {
    name: Vec<u8>,
    entry: Entry,
}

impl Elements for NamedEntry {
    const OF: u8 = DIR;

    fn add_to(&self, list: &mut ListBlock) {
        let name = append(&mut list.bytes, &self.name);
        list.entries.push(Entry {
            name,
            ..self.entry.clone()
        });
    }

    fn part(&self, name: impl FnOnce(&[u8]) -> (u32, u8)) -> Part {
        Part {
            name: name(&self.name),
            ..Part::default()
        }
    }
}

#[derive(Clone)]
struct FileExtent {
    offset: u64,
    data: Option<(Chunk, u32)>,
}

impl Elements for FileExtent {
    const OF: u8 = FILE;

    fn add_to(&self, list: &mut ListBlock) {
        let extent = extent(self, &mut list.chunks);
        list.extents.push(extent);
    }

    fn part(&self, _: impl FnOnce(&[u8]) -> (u32, u8)) -> Part {
        Part {
            first_offset: self.offset,
            ..Part::default()
        }
    }
}

fn extent(extent: &FileExtent, chunks: &mut Vec<Chunk>) -> Extent {
    let (chunk, chunk_offset) = match &extent.data {
        Some((chunk, offset)) => (add_chunk(chunks, chunk.clone()), *offset),
        None => (u32::MAX, 0),
    };
    Extent {
        offset: extent.offset,
        chunk,
        chunk_offset,
    }
}

/// Adds a string to a pool.
fn append(pool: &mut Vec<u8>, name: &[u8]) -> (u32, u8) {
    let at = pool.len() as u32;
    pool.extend(name);
    (at, name.len() as u8)
}

/// Adds a chunk to those that a block refers to.
fn add_chunk(chunks: &mut Vec<Chunk>, chunk: Chunk) -> u32 {
    chunks.push(chunk);
    chunks.len() as u32 - 1
}

/// A list block, and what its parent says of it.
struct Listed<'e, T> {
    chunk: Chunk,
    count: u32,
    first: &'e T,
}

impl<T: Elements> Listed<'_, T> {
    fn part(&self, chunks: &mut Vec<Chunk>, pool: &mut Vec<u8>) -> Part {
        Part {
            chunk: add_chunk(chunks, self.chunk.clone()),
            count: self.count,
            ..self.first.part(|name| append(pool, name))
        }
    }
}

struct BlockBuilder<'i> {
    block: Block,
    image: &'i mut Image,
    inodes: &'i [ModelInode],
    number: usize,
    cut: Cut,
}

impl BlockBuilder<'_> {
    fn build(mut self, inodes: &[ModelInode]) -> Vec<u8> {
        for inode in inodes {
            let set = self.add_xattrs(&inode.xattrs);
            let mut built = Inode {
                set,
                ..inode.inode.clone()
            };
            if inode.inode.mode >> 12 == u16::from(DIR) {
                built.parent = self.reference(inode.parent);
            }
            (built.long, built.first, built.count) = self.add_content(&inode.content);
            self.block.inodes.push(built);
        }
        self.block.build()
    }

    /// The distance and the slot of an inode.
    fn reference(&self, inode: usize) -> (i32, u16) {
        let block = inode / self.cut.inodes;
        (
            block as i32 - self.number as i32,
            (inode % self.cut.inodes) as u16,
        )
    }

    fn add_xattrs(&mut self, xattrs: &BTreeMap<Vec<u8>, Vec<u8>>) -> u32 {
        if xattrs.is_empty() {
            return 0;
        }
        let first = self.block.attributes.len() as u32;
        for (name, value) in xattrs {
            let attribute = Attribute {
                name: append(&mut self.block.bytes, name),
                value_len: value.len() as u32,
                value: if value.len() > 1024 {
                    let chunk = self.image.add(value.clone());
                    add_chunk(&mut self.block.chunks, chunk)
                } else {
                    append(&mut self.block.bytes, value).0
                },
            };
            self.block.attributes.push(attribute);
        }
        self.block.sets.push((first, xattrs.len() as u32));
        self.block.sets.len() as u32
    }

    /// Adds what lies in lists. Returns its range, and true if it is one of parts.
    fn add_content(&mut self, content: &Content) -> (bool, u32, u32) {
        match content {
            Content::None => (false, 0, 0),
            Content::Target(target) => {
                let at = append(&mut self.block.bytes, target).0;
                (false, at, target.len() as u32)
            }
            Content::Entries(names) => {
                let entries = names.iter().map(|(name, &inode)| {
                    let (distance, slot) = self.reference(inode);
                    let entry = Entry {
                        name: (0, 0),
                        inode_type: (self.inodes[inode].inode.mode >> 12) as u8,
                        slot,
                        distance,
                    };
                    let name = name.clone();
                    NamedEntry { name, entry }
                });
                let entries: Vec<_> = entries.collect();
                if entries.len() > self.cut.elements {
                    return self.add_long(&entries);
                }
                let first = self.block.entries.len() as u32;
                for entry in &entries {
                    let name = append(&mut self.block.bytes, &entry.name);
                    self.block.entries.push(Entry {
                        name,
                        ..entry.entry.clone()
                    });
                }
                (false, first, entries.len() as u32)
            }
            Content::Extents(extents) => {
                let extents: Vec<_> = extents
                    .iter()
                    .cloned()
                    .map(|(offset, data)| FileExtent { offset, data })
                    .collect();
                if extents.len() > self.cut.elements {
                    return self.add_long(&extents);
                }
                let first = self.block.extents.len() as u32;
                for one in &extents {
                    let one = extent(one, &mut self.block.chunks);
                    self.block.extents.push(one);
                }
                (false, first, extents.len() as u32)
            }
        }
    }

    /// Adds a long list. Returns the range of its parts.
    fn add_long<T: Elements>(&mut self, elements: &[T]) -> (bool, u32, u32) {
        let mut lists: Vec<_> = elements
            .chunks(self.cut.elements)
            .map(|some| self.add_leaf(some))
            .collect();
        let mut level = 1;
        while lists.len() > self.cut.parts {
            assert!(level < 3, "the list needs too many levels");
            lists = lists
                .chunks(self.cut.parts)
                .map(|some| self.add_parts(some, level))
                .collect();
            level += 1;
        }
        let first = self.block.parts.len() as u32;
        for list in &lists {
            let part = list.part(&mut self.block.chunks, &mut self.block.bytes);
            self.block.parts.push(part);
        }
        (true, first, lists.len() as u32)
    }

    fn add_leaf<'e, T: Elements>(&mut self, elements: &'e [T]) -> Listed<'e, T> {
        let mut list = list_block::<T>(0);
        for element in elements {
            element.add_to(&mut list);
        }
        Listed {
            chunk: self.image.add(list.build()),
            count: elements.len() as u32,
            first: &elements[0],
        }
    }

    fn add_parts<'e, T: Elements>(&mut self, lists: &[Listed<'e, T>], level: u8) -> Listed<'e, T> {
        let mut block = list_block::<T>(level);
        for list in lists {
            let part = list.part(&mut block.chunks, &mut block.bytes);
            block.parts.push(part);
        }
        Listed {
            chunk: self.image.add(block.build()),
            count: lists.iter().map(|list| list.count).sum(),
            first: lists[0].first,
        }
    }
}

fn list_block<T: Elements>(level: u8) -> ListBlock {
    ListBlock {
        version: 4,
        kind: 4,
        of: T::OF,
        level,
        ..ListBlock::default()
    }
}
