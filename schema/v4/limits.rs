// SPDX-License-Identifier: MIT OR Apache-2.0

//! The limits of format 4.

/// The version of the metadata.
pub const VERSION: u16 = 4;

/// The largest content of a data chunk, in bytes.
pub const MAX_CHUNK_CONTENT: u32 = 1 << 20;

/// The smallest content of a metadata chunk, in bytes: the stream framing.
pub const MIN_METADATA_CONTENT: u32 = 8;

/// The largest content of a metadata chunk, in bytes.
pub const MAX_METADATA_CONTENT: u32 = 256 << 10;

/// The largest number of children of a root or a block list.
pub const MAX_CHILDREN: u32 = 1024;

/// The largest number of inodes in a block: a slot has 16 bits.
pub const MAX_BLOCK_INODES: u32 = 1 << 16;

/// The largest length of an attribute's value that lies in its block, in bytes. A longer value is a
/// chunk.
pub const MAX_INLINE_VALUE: u32 = 1024;

/// The number of levels of list blocks below an inode.
pub const LIST_LEVELS: u8 = 3;

/// The chunk number of a hole.
pub const HOLE: u32 = u32::MAX;

/// The largest number of chunks in a pack.
pub const MAX_PACK_CHUNKS: u32 = 1 << 20;

/// The largest exponent of a pack's alignment: 4,096 bytes.
pub const MAX_PACK_ALIGNMENT: u8 = 12;

/// The largest number of packs in a catalogue.
pub const MAX_PACKS: u32 = 1 << 20;

/// The largest number of tables in a catalogue.
pub const MAX_TABLES: u32 = 32;
