// SPDX-License-Identifier: MIT OR Apache-2.0

//! Builds PuzzleFS images in an OCI image layout, and reads them.
//!
//! The way of a build: `walk` makes a [`tree::Tree`] of a directory; [`contents`] cuts its
//! files, as [`layout`] says, into blobs; `staging` writes them; `metadata` encodes the tree
//! and where its contents are; [`builder`] adds the manifest and sets the tag.

#![warn(missing_docs)]

mod acl;
mod archive;
mod assembly;
mod beneath;
pub mod builder;
mod compression;
pub mod config;
mod container;
pub mod contents;
pub mod copy;
mod delta;
pub mod diff;
pub mod digest;
pub mod enable_verity;
mod encoding;
pub mod error;
pub mod export;
pub mod extract;
pub mod gc;
mod graph;
pub mod import;
mod index;
pub mod json;
pub mod layout;
mod media;
pub mod message;
mod metadata;
pub mod mount;
pub mod oci;
pub mod owners;
mod packer;
mod parallel;
pub mod path;
mod pause;
pub mod platform;
mod problems;
pub mod progress;
pub mod reader;
pub mod reference;
pub mod rules;
pub mod seekable;
mod source;
mod staging;
mod stoppable;
pub mod store;
mod structure;
mod tags;
mod tar;
pub mod time;
mod transport;
pub mod tree;
pub mod usage;
pub mod verify;
pub mod verity;
pub mod visit;
mod walk;
mod xattrs;

pub use digest::Digest;
pub use error::{Error, Result};
pub use problems::Problems;
pub use progress::Progress;
pub use reference::{ImageRef, Selector};
pub use store::{Image, Store};
