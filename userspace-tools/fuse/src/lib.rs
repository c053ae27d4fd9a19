// SPDX-License-Identifier: MIT OR Apache-2.0

//! Serves a PuzzleFS image over FUSE, without knowledge of a command line.
//!
//! | module | content |
//! | --- | --- |
//! | `session` | opens an image, mounts it, and serves it until it is unmounted |
//! | `options` | the mount options of the library as FUSE has them |
//! | `fusermount` | mounting by `fusermount3`, for processes that may not mount |
//! | `image_fs` | answers the kernel's requests from the image |
//! | `trace` | the reads of a mount |
//!
//! ```no_run
//! use puzzlefs_fuse::Image;
//! use puzzlefs_lib::mount::Options;
//! use puzzlefs_lib::ImageRef;
//! use std::path::Path;
//!
//! let image = ImageRef::parse("/srv/images:debian".as_ref())?;
//! let image = Image::open(&image, Path::new("/mnt"), Options::parse(&[])?)?;
//! let mount = image.mount(|error| eprintln!("{error}"))?;
//! // Returns when the image is unmounted.
//! mount.serve()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod fusermount;
mod image_fs;
mod options;
mod session;
mod trace;

pub use options::escapes_overlay;
pub use session::{Image, Mount};
pub use trace::Trace;
