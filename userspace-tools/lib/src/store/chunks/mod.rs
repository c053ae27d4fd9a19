// SPDX-License-Identifier: MIT OR Apache-2.0

//! The chunks of a store: packs, loose chunks, and the index that finds them.
//!
//! `Documentation/image-format-4.md` specifies the files. The index is derived data: it can be rebuilt at
//! any time, and a wrong place in it does no harm, because each chunk is verified by its own digest.
//!
//! # Changing the index
//!
//! Writers hold `chunks.lock`. A writer makes the new table durable, then the new catalogue, then its
//! name, and removes old tables last. After a crash the index is the old one or the new one. A writer that
//! finds a damaged or missing index rebuilds it from the packs.
//!
//! The order of a builder is: packs durable under their names, index, tag. The order of `gc` is the
//! reverse: tags, index, packs. So the index names no pack that was never there, and a tagged image is
//! found by the index.
//!
//! # Reading
//!
//! Readers take no lock. A reader keeps a [`ChunkIndex`](index::ChunkIndex), which holds the files of one
//! catalogue open. If a chunk is not where that index says, the reader looks for a new catalogue and
//! searches once more.
//!
//! Another tool does not change the index when it puts packs into the store. A reader that misses a chunk
//! therefore looks into the packs that the index does not list. The kernel does not, so a mount adds them to
//! the index, and so do the commands that change the store.
//!
//! # Modules
//!
//! Each module uses only those below it.
//!
//! | module | content |
//! | --- | --- |
//! | `reader` | finds, verifies and decodes chunks |
//! | `check` | checks the index against the packs |
//! | `update` | adds and removes packs, rebuilds the index |
//! | `recipes` | the recipes of packs |
//! | `writer` | writes packs |
//! | `unlisted` | finds chunks of packs that the index does not list |
//! | `rebuild` | collects the records of packs |
//! | `index` | searches the index |
//! | `pack` | opens packs |
//! | `table` | encodes and reads tables |
//! | `catalogue` | encodes and reads the catalogue |
//! | `directory` | private directories of the store; the lock of the index |

pub(crate) mod catalogue;
pub(crate) mod check;
pub(crate) mod directory;
pub(crate) mod index;
pub(crate) mod pack;
pub(crate) mod reader;
pub(crate) mod rebuild;
pub(crate) mod recipes;
mod table;
#[cfg(test)]
pub(crate) mod tests;
mod unlisted;
pub(crate) mod update;
pub(crate) mod writer;
