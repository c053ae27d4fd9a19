// SPDX-License-Identifier: MIT OR Apache-2.0

//! Contents in format 4: chunks in packs.
//!
//! Threads encode chunks in any order. They are written in one order that does not depend on threads, so
//! that the same tree gives the same packs: the bundles of small files, then the chunks of large files,
//! both in the order of the walk. The metadata comes first, in packs of its own unless there is little
//! data. If the image has a start-up order, its chunks come before other data. They are known only when all
//! files are read, so nothing is written before that.
//!
//! Each module uses only those below it.
//!
//! | module | content |
//! | --- | --- |
//! | `chunks` | encodes contents, writes each chunk once |
//! | `first` | the chunks of a start-up order |
//! | `parent` | chunks of an earlier image with equal contents |
//! | `known` | chunks that the store has |
//! | `writer` | writes packs |
//! | `spill` | stored chunks that wait on disk |
//! | `order` | the order of chunks |

mod chunks;
mod first;
mod known;
mod order;
mod parent;
mod spill;
#[cfg(test)]
mod tests;
mod writer;

pub(crate) use crate::build::packs::chunks::{store_chunks, ImagePacks, Packs};
pub(crate) use crate::build::packs::first::FirstFiles;
pub(crate) use crate::build::packs::known::KnownChunks;
pub(crate) use crate::build::packs::parent::Parent;
pub(crate) use crate::build::packs::writer::PackPolicy;
