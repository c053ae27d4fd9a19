// SPDX-License-Identifier: MIT OR Apache-2.0

//! Version 4: chunks in packs, and metadata in small messages.
//!
//! `Documentation/image-format-4.md` is the specification. A metadata chunk is checked once, when it
//! is loaded: [`restore_values`] replaces the differences in it by values. Then [`RootLayout::check`],
//! [`BlockListLayout::check`], [`BlockLayout::check`] and [`ListLayout::check`] read all of it, and
//! return a layout that is kept beside the bytes. Lookups
//! then read single fields at known places. They do not check again, but every access has a bound:
//! if the bytes are not those that were checked, a lookup gives something else or an error.
//!
//! This code does not use the Cap'n Proto library. The fuzz targets compare it with that library.
//!
//! ```
//! # use puzzlefs_schema::v4::{
//! #     restore_values, Block, BlockLayout, ChunkRef, Content, MetadataError, RootLayout, Start,
//! # };
//! /// Returns the number of the inode that a name has in the root directory. `load` returns the
//! /// verified content of a chunk.
//! fn look_up(
//!     root: &[u8],
//!     load: impl Fn(&ChunkRef) -> Vec<u8>,
//!     name: &[u8],
//! ) -> Result<Option<u64>, MetadataError> {
//!     let layout = RootLayout::check(root)?;
//!     let blocks = layout.children(root)?;
//!     let mut starts = vec![Start::default(); blocks.len() as usize];
//!     blocks.fill_starts(&mut starts)?;
//!
//!     // The block with the first inode, whose number among the blocks is 0.
//!     let child = blocks.get(0)?.expect("a root has children");
//!     let mut bytes = load(&child.chunk);
//!     restore_values(&mut bytes);
//!     let layout = BlockLayout::check(&bytes)?;
//!     layout.check_child(&child)?;
//!     let directory = Block::new(&layout, &bytes)?.parent(0)?;
//!     let Content::Directory(entries) = directory.content()? else {
//!         return Ok(None);
//!     };
//!     let Some((_, entry)) = entries.find(name)? else {
//!         return Ok(None);
//!     };
//!     let target = entry.inode.block(0);
//!     let found = target.and_then(|number| blocks.find_block(number, &starts));
//!     Ok(found.map(|found| RootLayout::ino(found.start.inodes, entry.inode.slot)))
//! }
//! ```
//!
//! Modules use those below them in this table, and the crate's other modules:
//!
//! | module | content |
//! | --- | --- |
//! | `tree` | an image as a whole: what spans chunks |
//! | `block`, `list_block` | blocks; parts of long lists |
//! | `differences` | fields that are stored as differences |
//! | `inode`, `root` | inodes; roots and block lists |
//! | `attributes`, `directory`, `extents`, `parts` | lists of an inode |
//! | `chunks` | the chunks that a block refers to |
//! | `message` | the encoding of messages |
//! | `index`, `pack` | the chunk index of a store; packs |
//! | `error`, `inode_type`, `names` | errors of metadata; types of inodes; names |
//! | `chunk` | references to chunks |
//! | `words`, `limits` | integers; constants |
//! | `metadata_capnp` | generated code, with which userspace builds messages |

mod attributes;
mod block;
mod chunk;
mod chunks;
mod differences;
mod directory;
mod error;
mod extents;
mod index;
mod inode;
mod inode_type;
mod limits;
mod list_block;
mod message;
// The generated code names itself by this path.
#[cfg(feature = "write")]
#[allow(clippy::all, clippy::restriction, clippy::pedantic)]
#[allow(missing_docs, unreachable_pub, rust_2018_idioms, unused)]
#[rustfmt::skip]
pub mod metadata_capnp;
mod names;
mod pack;
mod parts;
mod root;
mod tree;
mod words;

pub use attributes::{Attribute, Attributes, Value};
pub use block::{Block, BlockLayout};
pub use chunk::{frame_content_len, root_ref, ChunkError, ChunkRef, Encoding, FRAME_HEADER_LEN};
pub use differences::restore_values;
#[cfg(feature = "write")]
pub use differences::store_differences;
pub use directory::{Entries, Entry, InodeRef};
pub use error::{ListName, MetadataError, MetadataErrorKind};
pub use extents::{Extent, ExtentData, Extents};
pub use index::{
    home_page, Catalogue, IndexError, Location, Lookup, Page, Record, Table, CATALOGUE_HEADER_LEN,
    MAX_CATALOGUE_LEN, PAGE_HEADER_LEN, PAGE_LEN, PAGE_RECORDS, RECORD_LEN, TABLE_NAME_LEN,
};
pub use inode::{Content, Inode};
pub use inode_type::InodeType;
pub use limits::{
    HOLE, LIST_LEVELS, MAX_BLOCK_INODES, MAX_CHILDREN, MAX_CHUNK_CONTENT, MAX_INLINE_VALUE,
    MAX_METADATA_CONTENT, MAX_PACKS, MAX_PACK_ALIGNMENT, MAX_PACK_CHUNKS, MAX_TABLES,
    MIN_METADATA_CONTENT, VERSION,
};
pub use list_block::{ListElements, ListLayout};
pub use pack::{
    PackError, PackFooter, PackIndex, PackIter, PackLayout, PackedChunk, FOOTER_LEN,
    INDEX_RECORD_LEN,
};
pub use parts::{Bounds, Part, Parts};
pub use root::{BlockListLayout, Child, ChildType, Children, Found, RootLayout, Start};
pub use tree::{
    ChunkSource, Layout, LoadedChunk, LoadedInode, MetadataChunk, Node, Target, Tree, TreeEntry,
};
