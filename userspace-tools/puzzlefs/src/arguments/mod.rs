// SPDX-License-Identifier: MIT OR Apache-2.0

//! Arguments that several commands have, each defined once and flattened into the commands.
//!
//! | module | arguments |
//! | --- | --- |
//! | this one | images, stores, threads, reports |
//! | [`config`] | the configuration of an image |
//! | [`registry`] | the access to a registry |
//! | [`encoding`] | the layers, chunks and frames of an image |
//! | [`rules`] | the part of a tree that goes into an image |

pub mod config;
pub mod encoding;
#[cfg(feature = "registry")]
pub mod registry;
pub mod rules;

use clap::Args;
use puzzlefs_lib::error::ReferenceError;
use puzzlefs_lib::tree::{find_any_image, AnyImage, AnyRoot};
use puzzlefs_lib::{find_image, find_root, Error, Image, ImageRef, Selector, Store};
use std::ffi::{OsStr, OsString};
use std::num::NonZero;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread;

/// The value of options that name a platform.
pub const PLATFORM: &str = "OS/ARCH[/VARIANT]";

/// An image to read.
#[derive(Debug, Args)]
pub struct ImageArg {
    /// Image, STORE:TAG or STORE@sha256:DIGEST
    ///
    /// DIGEST is that of the image's manifest.
    #[arg(value_name = "IMAGE")]
    pub image: OsString,
}

impl ImageArg {
    /// Finds the image of format 3 in its store.
    pub fn find(&self) -> puzzlefs_lib::Result<(Store, Image)> {
        find_image(&ImageRef::parse(&self.image)?)
    }

    /// Finds the image of any format in its store.
    pub fn find_any(&self) -> puzzlefs_lib::Result<(Store, AnyImage)> {
        find_any_image(&ImageRef::parse(&self.image)?)
    }

    /// Finds the root of the image of any format in its store.
    pub fn find_root(&self) -> puzzlefs_lib::Result<(Store, AnyRoot)> {
        find_root(&ImageRef::parse(&self.image)?)
    }
}

/// A store, for a command that is about all of it.
#[derive(Debug, Args)]
pub struct StoreArg {
    /// Directory of the store, an OCI image layout
    pub store: PathBuf,
}

impl StoreArg {
    /// Opens the store.
    pub fn open(&self) -> puzzlefs_lib::Result<Store> {
        open_store(&self.store)
    }
}

/// An image or a whole store.
#[derive(Debug, Args)]
pub struct ImageOrStoreArg {
    /// Image, STORE:TAG or STORE@sha256:DIGEST, or the directory of a store
    #[arg(value_name = "IMAGE|STORE")]
    pub name: OsString,
}

impl ImageOrStoreArg {
    /// Opens the store. Returns no selector for a whole store. A directory is a store.
    pub fn open(&self) -> puzzlefs_lib::Result<(Store, Option<Selector>)> {
        let name = self.name.as_os_str();
        if Path::new(name).is_dir() {
            return Ok((Store::open(Path::new(name))?, None));
        }
        let image = match ImageRef::parse(name) {
            Err(_) if !name.as_bytes().contains(&b':') => {
                let what = "neither a directory nor <oci-dir>:<tag> or \
                            <oci-dir>@sha256:<manifest digest>";
                return Err(ReferenceError::refused(name, what).into());
            }
            image => image?,
        };
        Ok((Store::open(&image.store)?, Some(image.selector)))
    }
}

/// The number of threads.
#[derive(Debug, Args)]
pub struct JobsArg {
    /// Use N threads, 1 to 1024 [default: one per processor]
    ///
    /// The result does not depend on N.
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
}

impl JobsArg {
    /// Returns the number of threads to use.
    pub fn count(&self) -> usize {
        match self.jobs {
            Some(jobs) => jobs.into(),
            None => thread::available_parallelism().map_or(1, NonZero::get),
        }
    }
}

/// Verification of blobs that are not read otherwise.
#[derive(Debug, Args)]
pub struct CheckArg {
    /// Read blobs that the store already has, and replace damaged ones
    #[arg(long)]
    pub check: bool,
}

/// A report for programs.
#[derive(Debug, Args)]
pub struct JsonArg {
    /// Print one JSON object on standard output
    #[arg(long)]
    pub json: bool,
}

/// Less output.
#[derive(Debug, Args)]
pub struct QuietArg {
    /// Show no progress and no summary
    #[arg(short, long)]
    pub quiet: bool,
}

/// Opens a store, for a command that is about all of it.
pub fn open_store(path: &Path) -> puzzlefs_lib::Result<Store> {
    let image = ImageRef::parse(path.as_os_str());
    match (Store::open(path), image) {
        (Err(_), Ok(image)) if !path.exists() && image.store.is_dir() => {
            let what = format!("give the store alone, {}", image.store.display());
            Err(ReferenceError::refused(path, what).into())
        }
        (Err(error), _) => {
            ImageRef::check_source(path.as_os_str())?;
            Err(error)
        }
        (store, _) => store,
    }
}

/// Reads the target of a copy: a store and a tag, or a store alone, which is a directory or has no `:`
/// in its last name.
pub fn target(target: &OsStr, image: &ImageRef) -> Result<(PathBuf, String), Error> {
    let (store, selector) = if has_tag(target) {
        let target = ImageRef::parse(target)?;
        (target.store, target.selector)
    } else {
        (PathBuf::from(target), image.selector.clone())
    };
    match selector {
        Selector::Tag(tag) => Ok((store, tag)),
        Selector::Manifest(_) => {
            let what = "give a tag for the copy, <oci-dir>:<tag>";
            Err(ReferenceError::refused(target, what).into())
        }
    }
}

/// Returns true if a target is a store and a tag.
pub fn has_tag(target: &OsStr) -> bool {
    let last_name = target.as_bytes().rsplit(|&byte| byte == b'/').next();
    last_name.is_some_and(|name| name.contains(&b':')) && !Path::new(target).is_dir()
}
