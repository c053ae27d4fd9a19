// SPDX-License-Identifier: MIT OR Apache-2.0

//! Builds PuzzleFS images in an OCI image layout, and reads them.
//!
//! # Modules
//!
//! Each module uses only those below it. `make check` enforces this table.
//!
//! | module | content |
//! | --- | --- |
//! | `ops` | commands on images and stores |
//! | `ingest` | directories, archives and container images to a tree |
//! | `build` | a tree to an image |
//! | `mount` | mounting and unmounting |
//! | `image` | reading and encoding one image |
//! | `store` | the OCI layout: index, locks, staging |
//! | `sys` | Linux wrappers |
//! | `error` | errors |
//! | `model` | plain data |
//!
//! Other crates use the names below, not the folders.

#![warn(missing_docs)]

mod build;
pub mod error;
mod image;
mod ingest;
mod model;
pub mod mount;
mod ops;
pub mod store;
mod sys;

pub mod builder {
    //! Building images.
    pub use crate::build::build_options::BuildOptions;
    pub use crate::build::builder::Summary;
    pub use crate::model::count::Count;
    pub use crate::ops::build::build;
}

pub use build::{contents, layout};
pub use image::{config, path, reader, seekable, visit};
pub use model::{
    digest, json, message, oci, owners, platform, reference, rules, time, tree, verity,
};
pub use ops::{copy, diff, enable_verity, export, extract, gc, import, usage};
pub use sys::progress;
pub mod verify {
    //! Verifying images and stores.
    pub use crate::ops::report::{Fault, Verified};
    pub use crate::ops::verify::{verify_image, verify_store};
}

pub use error::problems::Problems;
pub use error::{Error, Result};
pub use model::digest::Digest;
pub use model::reference::{ImageRef, Selector};
pub use store::{Image, Store};
pub use sys::progress::Progress;
