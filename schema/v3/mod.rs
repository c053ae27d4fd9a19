// SPDX-License-Identifier: MIT OR Apache-2.0

//! Version 3: one message with all metadata of an image, and zstd's seekable format for its blobs.
//!
//! Modules use those below them in this table, and the crate's other modules:
//!
//! | module | content |
//! | --- | --- |
//! | `metadata` | operations on an image as a whole |
//! | `inode` | an inode and its properties |
//! | `dir` | directories, merged from layers |
//! | `extents`, `xattr` | lists of an inode |
//! | `message` | the message, open for one operation |
//! | `file_type`, `names` | the type of an inode; names in directories |
//! | `framing` | the segments of a message |
//! | `seekable` | seek tables of compressed blobs |

mod dir;
mod extents;
mod file_type;
mod framing;
mod inode;
mod message;
mod metadata;
mod names;
mod seekable;
#[cfg(test)]
#[allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]
mod segments_tests;
mod xattr;

pub use dir::{Dir, DirEntry, DirLayer, EntryOf, Order, Part, RawDirEntry};
pub use extents::{Chunk, ExtentList, Extents, ExtentsIter};
pub use file_type::FileType;
pub use framing::Framing;
#[cfg(test)]
pub(crate) use framing::Segments;
pub use inode::{Inode, Kind};
pub use message::{Locator, Metadata};
pub use seekable::{
    Frame, SeekTable, SeekTableError, MAX_FRAMES, MAX_FRAME_SIZE, SEEK_TABLE_FOOTER_LEN,
};
pub use xattr::{Xattr, Xattrs, XattrsIter};
