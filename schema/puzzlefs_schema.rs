// SPDX-License-Identifier: MIT OR Apache-2.0

//! The metadata of PuzzleFS images.
//!
//! The metadata of an image is one blob, a Cap'n Proto message of which `metadata.capnp` is the
//! schema. This crate reads it. The kernel module and the userspace tools compile the same code, so
//! that they agree on which images are malformed. [`metadata_capnp`] is generated from the schema;
//! with it, userspace builds messages.
//!
//! # Hostile input
//!
//! The blob is untrusted input:
//!
//! - This crate has no `unsafe` code, no allocation and no panics: no slice is indexed, no
//!   arithmetic can overflow, and every loop has a bound. This does not hold for the `capnp` crate,
//!   which decodes pointers and lists: it has `unsafe` code and can panic. This crate calls only
//!   its readers. The fuzz targets run both together.
//! - Every invariant of the format is checked when a value is read, and has an [`ErrorKind`] of its
//!   own. Order is never trusted: a search in an unordered list ends, and finds the right element
//!   or none.
//! - The documentation of every operation states its bound, in terms of the lengths of lists. No
//!   list is longer than the blob has words (eight bytes), although the encoding can express such
//!   lists: empty structs, or many pointers to one list.
//! - The blob must not change while it is read. The kernel reads it from its own memory.
//!
//! # Modules
//!
//! Each module uses only those below it. `make check` enforces this table.
//!
//! | module | content |
//! | --- | --- |
//! | `image` | the trait above all versions |
//! | `v3`, `v4` | the readers of versions 3 and 4 |
//! | `overlay` | names of attributes that overlayfs interprets |
//! | `search` | searching and sorting lists that cannot be trusted |
//! | `digest`, `timestamp` | SHA-256 digests; times |
//! | `error`, `steps` | errors; counting of steps |
//! | `limits`, `metadata_capnp` | constants; generated code |
//!
//! # Use
//!
//! A [`Framing`] is made once of the bytes of a blob, and kept with them. A [`Metadata`] is made of
//! both for each operation. It and all its results are references, so that nothing else is kept,
//! and many threads can read at once. A [`Locator`] identifies an inode between operations.
//!
//! ```
//! # use puzzlefs_schema::{Error, Framing, Metadata, Order, Part, ROOT_INO};
//! fn list_root(bytes: &[u8]) -> Result<(), Error> {
//!     let framing = Framing::parse(bytes)?;
//!     let metadata = Metadata::new(&framing, bytes);
//!     metadata.check()?;
//!
//!     let mut parts = Vec::new();
//!     let mut layer = Some(metadata.dir_at(metadata.find(ROOT_INO)?)?);
//!     while let Some(dir) = layer {
//!         let index = match dir.order()? {
//!             Order::Sorted => None,
//!             Order::Unsorted => {
//!                 let mut index = vec![0; dir.len()];
//!                 dir.sort_index(&mut index)?;
//!                 Some(index)
//!             }
//!         };
//!         parts.push(Part::new(&dir, index));
//!         layer = dir.below()?;
//!     }
//!     let root = metadata.dir(&parts)?;
//!     let mut cursor = 0;
//!     while let Some(entry) = root.next(cursor)? {
//!         println!("{}", entry.name.escape_ascii());
//!         cursor = entry.cursor;
//!     }
//!     Ok(())
//! }
//! ```

#![cfg_attr(not(any(test, feature = "count-steps")), no_std)]
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![deny(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::todo,
    clippy::unreachable,
    clippy::unwrap_used
)]

#[cfg(test)]
extern crate self as puzzlefs_schema;

mod digest;
mod error;
#[cfg(feature = "v4")]
pub mod image;
mod limits;
// The generated code names itself by this path.
#[allow(clippy::all, clippy::restriction, clippy::pedantic)]
#[allow(missing_docs, unreachable_pub, rust_2018_idioms, unused)]
#[rustfmt::skip]
#[path = "v3/metadata_capnp.rs"]
pub mod metadata_capnp;
pub mod overlay;
mod search;
#[cfg(feature = "count-steps")]
pub mod steps;
#[cfg(not(feature = "count-steps"))]
mod steps;
mod timestamp;
mod v3;
#[cfg(feature = "v4")]
pub mod v4;

pub use digest::Digest;
pub use error::{Error, ErrorKind, Result};
pub use limits::{
    MANIFEST_VERSION, MAX_FILE_SIZE, MAX_LAYERS, MAX_NAME_LEN, MAX_SYMLINK_LEN, MAX_XATTR_NAME_LEN,
    MAX_XATTR_VALUE_LEN, ROOT_INO,
};
pub use timestamp::Timestamp;
pub use v3::*;
