// SPDX-License-Identifier: MIT OR Apache-2.0

//! The contents of a tree's files: read, cut, hashed and put into the store, by several threads.
//!
//! Each module uses only those below it.
//!
//! | module | content |
//! | --- | --- |
//! | `blobs` | format 3: compresses contents, writes each blob once, extents |
//! | `reading` | reads all files with several threads |
//! | `placement` | the places of all contents |
//! | `attempts` | reads files that may change meanwhile |
//! | `cutter` | cuts one file |
//! | `sink` | the storage of contents |

mod attempts;
mod blobs;
mod cutter;
mod placement;
mod reading;
mod sink;

pub use crate::build::contents::blobs::{Blob, Contents};

pub(crate) use crate::build::contents::blobs::store_blobs;
pub(crate) use crate::build::contents::placement::{PieceData, Stored};
pub(crate) use crate::build::contents::reading::{store_contents, Reading};
pub(crate) use crate::build::contents::sink::{ContentSink, Provenance, Turn};
