// SPDX-License-Identifier: MIT OR Apache-2.0

//! Helpers that the tests and the fuzzers of several crates share.
//!
//! | module | content |
//! | --- | --- |
//! | `v4` | builds metadata of format 4, and reads everything of it |
//! | `walk` | reads everything of a message, and checks the cost of each call |
//! | `read` | reads images as a filesystem does |
//! | `image` | a model of an image, to build messages from |
//! | `bytes` | the bytes of messages |
//! | `noise` | bytes that look random |

mod bytes;
mod image;
mod noise;
mod read;
pub mod v4;
#[cfg(feature = "walk")]
mod walk;

pub use bytes::Bytes;
pub use image::*;
pub use noise::noise;
pub use read::*;
#[cfg(feature = "walk")]
pub use walk::walk;
