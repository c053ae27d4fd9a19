// SPDX-License-Identifier: MIT OR Apache-2.0

//! The metadata of an image of any version, as a filesystem needs it.
//!
//! [`ImageMetadata`] is what the kernel's filesystem and the tools read. [`v4::Tree`](crate::v4::Tree)
//! implements it for version 4. An implementation for version 3 needs memory for the indexes of its
//! directories, so that the kernel and the tools each have one, above [`Metadata`](crate::Metadata).
//! [`Versions`] is an image of one of two versions.
//!
//! The data of files is not part of it: versions differ in where it is stored, and how.
//!
//! | module | content |
//! | --- | --- |
//! | `tree`, `versions` | images of version 4; images of one of two versions |
//! | `metadata` | the trait |
//! | `stat` | types and attributes of inodes |

mod metadata;
mod stat;
mod tree;
mod versions;

pub use metadata::{Entry, ImageMetadata, Link};
pub use stat::Stat;
pub use versions::Versions;
