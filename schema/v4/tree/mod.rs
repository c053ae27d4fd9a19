// SPDX-License-Identifier: MIT OR Apache-2.0

//! An image as a whole: what spans metadata chunks.
//!
//! A [`Tree`] gets chunks from a [`ChunkSource`], and checks the rules that connect them when it
//! follows a reference. An inode has a number, and a place that is a [`Node`]: its block, and its slot
//! there. A [`LoadedInode`] keeps the block of an inode, and with it everything that borrows from it.
//!
//! ```
//! # use puzzlefs_schema::v4::{ChunkRef, ChunkSource, LoadedChunk, MetadataError, Start, Tree};
//! # use puzzlefs_schema::v4::Content;
//! # use std::{ops::ControlFlow, rc::Rc};
//! struct Store;
//!
//! type Chunk = Rc<LoadedChunk<Vec<u8>, Vec<Start>>>;
//!
//! impl ChunkSource for Store {
//!     type Error = String;
//!     type Chunk = Chunk;
//!     type Content = Vec<u8>;
//!
//!     fn load(&self, chunk: &ChunkRef) -> Result<Chunk, String> {
//!         // Another source has a cache of chunks.
//!         let bytes = self.content(chunk)?;
//!         let loaded = LoadedChunk::check(*chunk, bytes, |len| Ok(vec![Start::default(); len]));
//!         loaded.map(Rc::new).map_err(|e: MetadataError| self.malformed(chunk, e))
//!     }
//!
//!     fn content(&self, chunk: &ChunkRef) -> Result<Vec<u8>, String> {
//!         Err(format!("cannot read chunk {}: the store is empty", chunk.digest()))
//!     }
//!
//!     fn malformed(&self, chunk: &ChunkRef, e: MetadataError) -> String {
//!         format!("chunk {}: {e}", chunk.digest())
//!     }
//! }
//!
//! fn list(root: &ChunkRef) -> Result<(), String> {
//!     let tree = Tree::new(Store, Store.load(root)?)?;
//!     let directory = tree.root()?;
//!     let _ = tree.for_each_entry(&directory, 0, |entry| {
//!         println!("{} {}", entry.to.ino, entry.name.escape_ascii());
//!         ControlFlow::<()>::Continue(())
//!     })?;
//!     let Some(found) = tree.lookup(&directory, b"README")? else {
//!         return Err(format!("there is no README"));
//!     };
//!     let file = tree.open(found.node, Some(found.inode_type))?;
//!     println!("{} bytes", tree.inode(&file)?.size());
//!     Ok(())
//! }
//! ```
//!
//! | module | content |
//! | --- | --- |
//! | `image_tree` | operations on an image |
//! | `long_lists`, `numbers` | walks through list blocks; numbers and places of inodes |
//! | `loading` | loading of chunks by reference |
//! | `node`, `source` | places of inodes; sources of chunks |

mod image_tree;
mod loading;
mod long_lists;
mod node;
mod numbers;
mod source;

pub use image_tree::{Target, Tree, TreeEntry};
pub use node::{LoadedInode, Node};
pub use source::{ChunkSource, Layout, LoadedChunk, MetadataChunk};
