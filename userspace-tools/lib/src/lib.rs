// SPDX-License-Identifier: MIT OR Apache-2.0

//! Builds PuzzleFS images in stores, reads them, and mounts them.
//!
//! A *store* is an OCI image layout: a directory of content-addressed blobs with an index of tagged
//! manifests. An *image* is a manifest and the blobs that it lists, which hold the image's chunks and
//! metadata. The kernel module mounts an image of a store directly; this crate does everything else.
//!
//! # Example
//!
//! ```
//! use puzzlefs_lib::builder::{build, BuildOptions};
//! use puzzlefs_lib::path::LastLink;
//! use puzzlefs_lib::tree::{FileData, ImageTree};
//! use puzzlefs_lib::{Progress, Selector, Store};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let scratch = tempfile::tempdir()?;
//! # let (tree, directory) = (scratch.path().join("tree"), scratch.path().join("store"));
//! std::fs::create_dir(&tree)?;
//! std::fs::write(tree.join("greeting"), "hello")?;
//!
//! // Build an image of the tree into a new store. The tag is set when all blobs are durable.
//! let store = Store::create(&directory)?;
//! let summary = build(&tree, &store, &BuildOptions::new("v1"), &Progress::default())?;
//! assert_eq!((summary.files, summary.bytes), (1, 5));
//!
//! // Read it back. All data is verified before its contents are returned.
//! let image = store.any_image(&Selector::Tag("v1".to_owned()))?;
//! let tree = ImageTree::new(&store, &image.root)?;
//! let file = tree.resolve(b"/greeting", LastLink::Follow)?;
//! let mut contents = Vec::new();
//! tree.read_file(&file, &mut FileData::checked(), |bytes| {
//!     contents.extend_from_slice(bytes);
//!     Ok(())
//! })?;
//! assert_eq!(contents, b"hello");
//! # Ok(())
//! # }
//! ```
//!
//! # Architecture
//!
//! A build goes down this list: a source becomes a tree without contents (`ingest`), the contents
//! become chunks and the tree becomes metadata (`build`, `image`), and the blobs become durable before
//! the index names them (`store`). Each module uses only those below it. `make check` enforces this
//! table.
//!
//! | module | content |
//! | --- | --- |
//! | `ops` | commands on images and stores: build, import, extract, export, copy, verify, gc |
//! | `ingest` | directories, archives and container images to a tree |
//! | `build` | a tree to an image |
//! | `mount` | mount options, the mount API, writable mounts, unmounts |
//! | `image` | reading and encoding one image |
//! | `store` | the OCI layout: index, locks, staging, garbage collection |
//! | `sys` | Linux wrappers, threads, progress |
//! | `error` | errors of each area, and the exit status for each |
//! | `model` | plain data: digests, trees, references, rules |
//!
//! The folders are private. Other crates use the modules below, each of which has one subject.
//!
//! # Untrusted data
//!
//! Stores, archives and container images are untrusted. Metadata is decoded by `puzzlefs-schema`, the
//! parser of the kernel module. Sizes are checked before anything is allocated, and no path of an image
//! or an archive is resolved on the host.
//!
//! # Errors and interruption
//!
//! Every function returns [`Error`], whose variants are enums of one area each.
//! [`exit_status`](error::exit_status) maps an error to the exit status of a program. Long operations
//! take a [`Progress`], which counts and which stops them: they then return [`Error::Interrupted`], and
//! leave tags as they were.

#![warn(missing_docs)]

mod build;
pub mod error;
mod image;
mod ingest;
mod model;
pub mod mount;
mod ops;
mod store;
mod sys;

pub use error::problems::Problems;
pub use error::{Error, Result};
pub use model::digest::Digest;
pub use model::reference::{ImageRef, Selector};
pub use store::oci_layout::{find_image, find_root, Image, ImageRoot, Store};
pub use sys::progress::Progress;

pub mod builder {
    //! Building images.
    pub use crate::build::build_options::{BuildOptions, OrderChoice, ParentChoice};
    pub use crate::build::builder::Summary;
    pub use crate::model::count::Count;
    pub use crate::model::version::Format;
    pub use crate::ops::build::build;
}

pub mod layout {
    //! The layout of files in blobs.
    pub use crate::build::layout::{Layout, CHUNK_AVG_MAX};
}

pub mod rules {
    //! Rules for the content that a build takes from its source.
    pub use crate::model::rules::{PathPattern, Rules, XattrPattern, XattrSelection};
}

pub mod owners {
    //! Changes of owners during a build.
    pub use crate::model::owners::{IdMap, IdRange, Owners};
}

pub mod import {
    //! Importing container images.
    pub use crate::ops::import::{
        find_puzzlefs, import, list, obtain, ImportSource, Listing, Obtained,
    };
}

pub mod convert {
    //! Changing the version of the format of images.
    pub use crate::ops::convert::convert;
}

pub mod config {
    //! Configurations of container images.
    pub use crate::image::config::{ConfigOptions, Configuration, History, Run};
}

pub mod start_order {
    //! Start-up orders: the ranges of files that a program reads when it starts.
    pub use crate::model::start_order::{FileRange, StartOrder};
}

pub mod platform {
    //! Platforms of container images.
    pub use crate::model::platform::Platform;
}

pub mod reader {
    //! Reading images of format 3.
    pub use crate::image::v3::reader::{Blobs, Counts, ImageReader, Parts};
}

pub mod tree {
    //! Reading images of any format.
    pub use crate::image::file_data::{FileData, Piece};
    pub use crate::image::image_tree::{
        ImageTree, InodeLink, Metadata, NamedLink, Place, TreeInode, Xattr,
    };
    pub use crate::store::oci_layout::{find_any_image, AnyImage, AnyRoot, ChunkRoot};
}

pub mod path {
    //! Resolving paths in images.
    pub use crate::model::path_walk::LastLink;
}

pub mod seekable {
    //! Compressed blobs.
    pub use crate::image::seekable::{Compression, FRAME_SIZE_MAX};
}

pub mod extract {
    //! Writing images into directories.
    pub use crate::ops::extract::{extract, Extracted, Refusal, RefusalKind, Refusals};
}

pub mod export {
    //! Writing images as archives and as container images.
    pub use crate::ops::export::{
        export_layout, export_tar, Compressor, Exported, LayerCompression, LayoutOptions,
        LayoutSummary,
    };
}

pub mod copy {
    //! Copying images between stores.
    pub use crate::ops::copy::{copy, copy_all, Copied, CopyOptions, Tagged};
}

pub mod fetch {
    //! Fetching images from sources that are not trusted, such as registries.
    pub use crate::ops::fetch::{
        fetch, fetch_metadata, fetch_status, parse_rate, prepare, BlobSource, Claim, Completion,
        Conversation, Expected, FetchOptions, FetchRecord, Fetched, FetcherReply, FetcherRequest,
        FetcherSocket, FetcherStatus, ImageSource, ImageStatus, LastError, LazyImage, LazyOptions,
        RemoteBlob, RetryPauses, Served, Service, ServiceStatus, SIGN_OF_LIFE,
    };
}

pub mod diff {
    //! Comparing images.
    pub use crate::ops::diff::{diff, Change, Difference, Shared, Totals};
}

pub mod verify {
    //! Verifying images and stores.
    pub use crate::ops::report::{Fault, PackedImage, Verified};
    pub use crate::ops::verify::{verify_image, verify_store};
}

pub mod enable_verity {
    //! Enabling fs-verity on blobs.
    pub use crate::ops::enable_verity::{enable, Enabled, EnabledImage};
}

pub mod verity {
    //! fs-verity digests, computed in userspace.
    pub use crate::model::verity::digest;
}

pub mod gc {
    //! Removing the blobs that no image needs.
    pub use crate::ops::gc::{collect, dry_run, Collected, GcOptions};
}

pub mod chunk_map {
    //! The chunks of images of format 4, and their places.
    pub use crate::ops::chunk_map::{
        chunk_map, placed_extents, ChunkCount, ChunkMap, ChunkPlace, PlacedChunk, PlacedExtent,
    };
}

pub mod complete {
    //! Creating the packs that an image lacks.
    pub use crate::ops::complete::{complete, repack, Completed, ManifestChoice};
}

pub mod reindex {
    //! Rebuilding the chunk index of a store.
    pub use crate::store::chunks::update::{reindex, Reindexed};
}

pub mod usage {
    //! The space that images take.
    pub use crate::ops::usage::{usage, ImageUsage, Usage};
}

pub mod oci {
    //! The JSON documents of an OCI image layout.
    pub use crate::model::oci::{
        Descriptor, Index, Manifest, UnknownIndex, CREATED, DOCKER_CONFIG, EMPTY_CONTENT, FILEDATA,
        FILEDATA_ZSTD, INDEX, LAYOUT, LAYOUT_VERSION, MANIFEST, REF_NAME, ROOT, ROOTFS,
        VERITY_ROOT_HASH,
    };
}

pub mod json {
    //! Parsing JSON with messages for people.
    pub use crate::model::json::{parse, ParseError};
}

pub mod message {
    //! Messages for people.
    pub use crate::model::message::{print, printable, tell, unwritable};
}

pub mod threads {
    //! Running the same work on many items in several threads.
    pub use crate::sys::parallel::{for_each, lock};
}

pub mod time {
    //! Times as text.
    pub use crate::model::time::utc;
}
