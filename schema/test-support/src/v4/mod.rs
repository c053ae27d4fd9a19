// SPDX-License-Identifier: MIT OR Apache-2.0

//! Builds metadata chunks of format 4, valid or not: the lists are written as they are.
//!
//! `image` builds whole images; `chunks` has them in memory. `walk` reads everything of a structure, and
//! `walk_tree` that of an image.

use capnp::{
    message::{AllocationStrategy, Builder, HeapAllocator},
    serialize,
};
use puzzlefs_schema::v4::metadata_capnp as schema;

#[cfg(feature = "walk")]
pub mod chunks;
pub mod image;
#[cfg(feature = "walk")]
pub mod walk;
#[cfg(feature = "walk")]
pub mod walk_tree;

/// Fills a struct's digest fields.
macro_rules! set_digest {
    ($builder:expr, $digest:expr) => {
        let word = |at| u64::from_le_bytes($digest[at..at + 8].try_into().unwrap());
        $builder.set_digest0(word(0));
        $builder.set_digest1(word(8));
        $builder.set_digest2(word(16));
        $builder.set_digest3(word(24));
    };
}

/// The types of inodes, as in `d_type`.
pub const FIFO: u8 = 1;
pub const CHAR: u8 = 2;
pub const DIR: u8 = 4;
pub const BLOCK: u8 = 6;
pub const FILE: u8 = 8;
pub const SYMLINK: u8 = 10;
pub const SOCKET: u8 = 12;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Child {
    pub digest: [u8; 32],
    pub stored: u32,
    pub content: u32,
    pub inodes: u32,
    pub blocks: u32,
}

#[derive(Clone, Debug, Default)]
pub struct Root {
    pub version: u16,
    pub kind: u16,
    pub level: u8,
    pub inode_count: u64,
    pub data_size: u64,
    pub children: Vec<Child>,
}

#[derive(Clone, Debug, Default)]
pub struct BlockList {
    pub version: u16,
    pub kind: u16,
    pub children: Vec<Child>,
}

#[derive(Clone, Debug, Default)]
pub struct Inode {
    pub mode: u16,
    pub long: bool,
    pub links: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: (i64, u32),
    pub set: u32,
    pub size: u64,
    pub first: u32,
    pub count: u32,
    pub parent: (i32, u16),
}

#[derive(Clone, Debug, Default)]
pub struct Entry {
    pub name: (u32, u8),
    pub inode_type: u8,
    pub slot: u16,
    pub distance: i32,
}

#[derive(Clone, Debug, Default)]
pub struct Extent {
    pub offset: u64,
    pub chunk: u32,
    pub chunk_offset: u32,
}

#[derive(Clone, Debug, Default)]
pub struct Chunk {
    pub digest: [u8; 32],
    pub stored: u32,
    pub content: u32,
}

#[derive(Clone, Debug, Default)]
pub struct Part {
    pub first_offset: u64,
    pub chunk: u32,
    pub count: u32,
    pub name: (u32, u8),
}

#[derive(Clone, Debug, Default)]
pub struct Attribute {
    pub name: (u32, u8),
    pub value_len: u32,
    pub value: u32,
}

#[derive(Clone, Debug, Default)]
pub struct Block {
    pub version: u16,
    pub kind: u16,
    pub inodes: Vec<Inode>,
    pub entries: Vec<Entry>,
    pub extents: Vec<Extent>,
    pub chunks: Vec<Chunk>,
    pub parts: Vec<Part>,
    pub sets: Vec<(u32, u32)>,
    pub attributes: Vec<Attribute>,
    pub bytes: Vec<u8>,
}

#[derive(Clone, Debug, Default)]
pub struct ListBlock {
    pub version: u16,
    pub kind: u16,
    pub of: u8,
    pub level: u8,
    pub entries: Vec<Entry>,
    pub extents: Vec<Extent>,
    pub chunks: Vec<Chunk>,
    pub parts: Vec<Part>,
    pub bytes: Vec<u8>,
}

/// A message that is written to one segment.
fn message() -> Builder<HeapAllocator> {
    let allocator = HeapAllocator::new()
        .first_segment_words(1 << 17)
        .allocation_strategy(AllocationStrategy::FixedSize);
    Builder::new(allocator)
}

/// The length of a list.
fn len<T>(list: &[T]) -> u32 {
    list.len() as u32
}

fn write_children(
    mut list: capnp::struct_list::Builder<'_, schema::child::Owned>,
    children: &[Child],
) {
    for (at, child) in (0..).zip(children) {
        let mut to = list.reborrow().get(at);
        set_digest!(to, child.digest);
        to.set_stored_length(child.stored);
        to.set_content_length(child.content);
        to.set_inodes(child.inodes);
        to.set_blocks(child.blocks);
    }
}

fn write_entries(
    mut list: capnp::struct_list::Builder<'_, schema::entry::Owned>,
    entries: &[Entry],
) {
    for (at, entry) in (0..).zip(entries) {
        let mut to = list.reborrow().get(at);
        to.set_name_offset(entry.name.0);
        to.set_name_length(entry.name.1);
        to.set_type(entry.inode_type);
        to.set_slot(entry.slot);
        to.set_distance(entry.distance);
    }
}

fn write_extents(
    mut list: capnp::struct_list::Builder<'_, schema::extent::Owned>,
    extents: &[Extent],
) {
    for (at, extent) in (0..).zip(extents) {
        let mut to = list.reborrow().get(at);
        to.set_offset(extent.offset);
        to.set_chunk(extent.chunk);
        to.set_chunk_offset(extent.chunk_offset);
    }
}

fn write_chunks(mut list: capnp::struct_list::Builder<'_, schema::chunk::Owned>, chunks: &[Chunk]) {
    for (at, chunk) in (0..).zip(chunks) {
        let mut to = list.reborrow().get(at);
        set_digest!(to, chunk.digest);
        to.set_stored_length(chunk.stored);
        to.set_content_length(chunk.content);
    }
}

fn write_parts(mut list: capnp::struct_list::Builder<'_, schema::part::Owned>, parts: &[Part]) {
    for (at, part) in (0..).zip(parts) {
        let mut to = list.reborrow().get(at);
        to.set_first_offset(part.first_offset);
        to.set_chunk(part.chunk);
        to.set_count(part.count);
        to.set_name_offset(part.name.0);
        to.set_name_length(part.name.1);
    }
}

impl Root {
    pub fn build(&self) -> Vec<u8> {
        let mut message = message();
        let mut root: schema::root::Builder<'_> = message.init_root();
        root.set_version(self.version);
        root.set_kind(self.kind);
        root.set_level(self.level);
        root.set_inode_count(self.inode_count);
        root.set_data_size(self.data_size);
        write_children(root.init_children(len(&self.children)), &self.children);
        serialize::write_message_to_words(&message)
    }
}

impl BlockList {
    pub fn build(&self) -> Vec<u8> {
        let mut message = message();
        let mut list: schema::block_list::Builder<'_> = message.init_root();
        list.set_version(self.version);
        list.set_kind(self.kind);
        write_children(list.init_children(len(&self.children)), &self.children);
        serialize::write_message_to_words(&message)
    }
}

impl Block {
    pub fn build(&self) -> Vec<u8> {
        let mut message = message();
        let mut block: schema::block::Builder<'_> = message.init_root();
        block.set_version(self.version);
        block.set_kind(self.kind);
        let mut inodes = block.reborrow().init_inodes(len(&self.inodes));
        for (at, inode) in (0..).zip(&self.inodes) {
            let mut to = inodes.reborrow().get(at);
            to.set_mode(inode.mode);
            to.set_long(inode.long);
            to.set_links(inode.links);
            to.set_uid(inode.uid);
            to.set_gid(inode.gid);
            to.set_mtime_seconds(inode.mtime.0);
            to.set_mtime_nanoseconds(inode.mtime.1);
            to.set_set(inode.set);
            to.set_size(inode.size);
            to.set_first(inode.first);
            to.set_count(inode.count);
            to.set_parent_distance(inode.parent.0);
            to.set_parent_slot(inode.parent.1);
        }
        let list = block.reborrow().init_entries(len(&self.entries));
        write_entries(list, &self.entries);
        let list = block.reborrow().init_extents(len(&self.extents));
        write_extents(list, &self.extents);
        let list = block.reborrow().init_chunks(len(&self.chunks));
        write_chunks(list, &self.chunks);
        let list = block.reborrow().init_parts(len(&self.parts));
        write_parts(list, &self.parts);
        let mut sets = block.reborrow().init_sets(len(&self.sets));
        for (at, set) in (0..).zip(&self.sets) {
            let mut to = sets.reborrow().get(at);
            to.set_first(set.0);
            to.set_count(set.1);
        }
        let mut attributes = block.reborrow().init_attributes(len(&self.attributes));
        for (at, attribute) in (0..).zip(&self.attributes) {
            let mut to = attributes.reborrow().get(at);
            to.set_name_offset(attribute.name.0);
            to.set_name_length(attribute.name.1);
            to.set_value_length(attribute.value_len);
            to.set_value(attribute.value);
        }
        block.set_bytes(&self.bytes);
        serialize::write_message_to_words(&message)
    }

    /// Adds a string to the pool, unless it is there.
    pub fn intern(&mut self, string: &[u8]) -> u32 {
        intern(&mut self.bytes, string)
    }

    /// Adds a name to the pool.
    pub fn name(&mut self, name: &[u8]) -> (u32, u8) {
        (self.intern(name), name.len() as u8)
    }
}

impl ListBlock {
    pub fn build(&self) -> Vec<u8> {
        let mut message = message();
        let mut list: schema::list_block::Builder<'_> = message.init_root();
        list.set_version(self.version);
        list.set_kind(self.kind);
        list.set_of(self.of);
        list.set_level(self.level);
        let to = list.reborrow().init_entries(len(&self.entries));
        write_entries(to, &self.entries);
        let to = list.reborrow().init_extents(len(&self.extents));
        write_extents(to, &self.extents);
        let to = list.reborrow().init_chunks(len(&self.chunks));
        write_chunks(to, &self.chunks);
        let to = list.reborrow().init_parts(len(&self.parts));
        write_parts(to, &self.parts);
        list.set_bytes(&self.bytes);
        serialize::write_message_to_words(&message)
    }

    /// Adds a name to the pool.
    pub fn name(&mut self, name: &[u8]) -> (u32, u8) {
        (intern(&mut self.bytes, name), name.len() as u8)
    }
}

fn intern(pool: &mut Vec<u8>, string: &[u8]) -> u32 {
    let at = pool
        .windows(string.len().max(1))
        .position(|window| window == string);
    at.unwrap_or_else(|| {
        pool.extend(string);
        pool.len() - string.len()
    }) as u32
}

/// A digest of equal bytes.
pub const fn digest(byte: u8) -> [u8; 32] {
    [byte; 32]
}

/// A chunk of equal lengths, raw.
pub fn chunk(byte: u8, content: u32) -> Chunk {
    Chunk {
        digest: digest(byte),
        stored: content,
        content,
    }
}

/// A root of three blocks with 10, 20 and 30 inodes.
pub fn root() -> Root {
    let child = |byte, inodes| Child {
        digest: digest(byte),
        stored: 1000,
        content: 4096,
        inodes,
        blocks: 1,
    };
    Root {
        version: 4,
        kind: 1,
        level: 0,
        inode_count: 60,
        data_size: 1 << 20,
        children: vec![child(1, 10), child(2, 20), child(3, 30)],
    }
}

/// A root of two block lists, with 2 and 3 blocks.
pub fn long_root() -> Root {
    let mut root = root();
    root.level = 1;
    root.children.truncate(2);
    root.inode_count = 30;
    root.children[0].blocks = 2;
    root.children[1].blocks = 3;
    root
}

/// A list of three blocks with 10, 20 and 30 inodes.
pub fn block_list() -> BlockList {
    BlockList {
        version: 4,
        kind: 2,
        children: root().children,
    }
}

/// An inode of a type.
pub fn inode(inode_type: u8) -> Inode {
    Inode {
        mode: (u16::from(inode_type) << 12) | 0o644,
        links: 1,
        uid: 1000,
        gid: 100,
        mtime: (1_700_000_000, 999_999_999),
        ..Inode::default()
    }
}

/// The slots of the inodes of [`block`].
pub mod slot {
    pub const ROOT: usize = 0;
    pub const FILE: usize = 1;
    pub const EMPTY_FILE: usize = 2;
    pub const SYMLINK: usize = 3;
    pub const CHAR: usize = 4;
    pub const BLOCK: usize = 5;
    pub const FIFO: usize = 6;
    pub const SOCKET: usize = 7;
    pub const EMPTY_DIR: usize = 8;
    pub const LONG_DIR: usize = 9;
    pub const LONG_FILE: usize = 10;
}

/// A block that has something of everything.
pub fn block() -> Block {
    let mut block = Block {
        version: 4,
        kind: 3,
        chunks: vec![
            chunk(0xc0, 5000),
            Chunk {
                stored: 300,
                ..chunk(0xc1, 1 << 20)
            },
            chunk(0xc2, 2000),
            chunk(0xc3, 4096),
            chunk(0xc4, 8192),
        ],
        ..Block::default()
    };
    add_entries(&mut block);
    add_extents(&mut block);
    add_attributes(&mut block);
    add_parts(&mut block);
    add_inodes(&mut block);
    block
}

fn add_entries(block: &mut Block) {
    let entries: [(&[u8], u8, usize); 10] = [
        (b"block", BLOCK, slot::BLOCK),
        (b"char", CHAR, slot::CHAR),
        (b"empty", FILE, slot::EMPTY_FILE),
        (b"emptydir", DIR, slot::EMPTY_DIR),
        (b"fifo", FIFO, slot::FIFO),
        (b"file", FILE, slot::FILE),
        (b"link", FILE, slot::FILE),
        (b"longdir", DIR, slot::LONG_DIR),
        (b"longfile", FILE, slot::LONG_FILE),
        (b"symlink", SYMLINK, slot::SYMLINK),
    ];
    for (name, inode_type, slot) in entries {
        let name = block.name(name);
        block.entries.push(Entry {
            name,
            inode_type,
            slot: slot as u16,
            distance: 0,
        });
    }
}

fn add_extents(block: &mut Block) {
    block.extents = vec![
        Extent {
            offset: 0,
            chunk: 0,
            chunk_offset: 1000,
        },
        Extent {
            offset: 4000,
            chunk: u32::MAX,
            chunk_offset: 0,
        },
        Extent {
            offset: 10_000,
            chunk: 1,
            chunk_offset: 0,
        },
    ];
}

fn add_attributes(block: &mut Block) {
    let (capability, acl) = (block.name(b"security.capability"), block.name(b"user.a"));
    let value = block.intern(b"\x01\0\0\x02");
    block.sets = vec![(0, 2), (2, 1)];
    block.attributes = vec![
        Attribute {
            name: capability,
            value_len: 4,
            value,
        },
        Attribute {
            name: acl,
            value_len: 2000,
            value: 2,
        },
        Attribute {
            name: acl,
            value_len: 0,
            value: 0,
        },
    ];
}

fn add_parts(block: &mut Block) {
    let (first, second) = (block.name(b"a"), block.name(b"m"));
    let part = |chunk, count, name, first_offset| Part {
        first_offset,
        chunk,
        count,
        name,
    };
    block.parts = vec![
        part(3, 2, first, 0),
        part(4, 3, second, 0),
        part(3, 10, (0, 0), 0),
        part(4, 20, (0, 0), 10 << 20),
    ];
}

fn add_inodes(block: &mut Block) {
    let target = block.intern(b"/usr/bin");
    block.inodes = vec![
        Inode {
            links: 4,
            count: 10,
            set: 2,
            ..inode(DIR)
        },
        Inode {
            links: 2,
            size: 20_000,
            count: 3,
            set: 1,
            ..inode(FILE)
        },
        Inode {
            first: 3,
            ..inode(FILE)
        },
        Inode {
            first: target,
            count: 8,
            ..inode(SYMLINK)
        },
        Inode {
            size: (5 << 20) | 1,
            ..inode(CHAR)
        },
        Inode {
            size: 0xffff_ffff,
            ..inode(BLOCK)
        },
        inode(FIFO),
        inode(SOCKET),
        Inode {
            first: 10,
            ..inode(DIR)
        },
        Inode {
            long: true,
            count: 2,
            parent: (-3, 7),
            ..inode(DIR)
        },
        Inode {
            long: true,
            first: 2,
            count: 2,
            size: 30 << 20,
            ..inode(FILE)
        },
    ];
}

/// A list block with the entries a, b and c.
pub fn entry_list() -> ListBlock {
    let mut list = ListBlock {
        version: 4,
        kind: 4,
        of: DIR,
        ..ListBlock::default()
    };
    for (name, inode_type) in [(b"a", FILE), (b"b", DIR), (b"c", SYMLINK)] {
        let name = list.name(name);
        list.entries.push(Entry {
            name,
            inode_type,
            slot: 9,
            distance: -1,
        });
    }
    list
}

/// A list block with extents at 1000, 2000 and 3000, the second of which is a hole. The last one has
/// room for 500 bytes.
pub fn extent_list() -> ListBlock {
    let extent = |offset, chunk, chunk_offset| Extent {
        offset,
        chunk,
        chunk_offset,
    };
    ListBlock {
        version: 4,
        kind: 4,
        of: FILE,
        extents: vec![
            extent(1000, 0, 0),
            extent(2000, u32::MAX, 0),
            extent(3000, 0, 500),
        ],
        chunks: vec![chunk(0xc0, 1000)],
        ..ListBlock::default()
    }
}

/// A list block of level 1 with two parts of a directory.
pub fn part_list() -> ListBlock {
    let mut list = ListBlock {
        version: 4,
        kind: 4,
        of: DIR,
        level: 1,
        chunks: vec![chunk(0xc0, 4096)],
        ..ListBlock::default()
    };
    for (name, count) in [(b"a", 4), (b"m", 5)] {
        let name = list.name(name);
        list.parts.push(Part {
            first_offset: 0,
            chunk: 0,
            count,
            name,
        });
    }
    list
}

/// A list block of level 2 with two parts of a file, from 1000 and from 5000 on.
pub fn file_part_list() -> ListBlock {
    let part = |first_offset, count| Part {
        first_offset,
        chunk: 0,
        count,
        name: (0, 0),
    };
    ListBlock {
        version: 4,
        kind: 4,
        of: FILE,
        level: 2,
        chunks: vec![chunk(0xc0, 4096)],
        parts: vec![part(1000, 4), part(5000, 5)],
        ..ListBlock::default()
    }
}

/// A sequence of numbers that depends on its seed alone: SplitMix64.
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below a limit.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.number() % limit.max(1) as u64) as usize
    }
}

/// Changes a word of a message, mostly to another that says something to a reader.
pub fn change_word(bytes: &mut [u8], random: &mut Random) {
    let words = bytes.len() / 8;
    let at = random.below(words) * 8;
    let from = random.below(words) * 8;
    let field = at + [0, 2, 4, 6][random.below(4)];
    match random.below(6) {
        0 => bytes.copy_within(from..from + 8, at),
        1 => bytes[at + random.below(8)] ^= 1 << random.below(8),
        2 => bytes[at..at + 8].copy_from_slice(&random.number().to_le_bytes()),
        // A small number, and one that is a little larger or smaller.
        3 => bytes[field..field + 2].copy_from_slice(&(random.below(20) as u16).to_le_bytes()),
        4 => bytes[field] = bytes[field].wrapping_add(1),
        _ => bytes[field] = bytes[field].wrapping_sub(1),
    }
}
