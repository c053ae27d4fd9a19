// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs copy`.

use crate::output::Output;
use crate::progress::Words;
use crate::{progress, work};
use clap::Args;
use puzzlefs_lib::copy::{self, CopyOptions};
use puzzlefs_lib::{store, Error, ImageRef, Selector, Store};
use serde::Serialize;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// `puzzlefs copy`.
#[derive(Debug, Args)]
pub struct CopyArgs {
    /// The image
    #[arg(value_name = "IMAGE")]
    pub image: OsString,
    /// The store, made if there is none, and the tag to set there [default: the image's]
    #[arg(value_name = "STORE[:TAG]")]
    pub target: OsString,
    /// Blobs to copy at once [default: one per processor]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub jobs: Option<u16>,
    /// Read the blobs that are there already, too, and replace those that are damaged
    #[arg(long)]
    pub check: bool,
    /// Print one JSON object on standard output
    #[arg(long)]
    pub json: bool,
    /// Show no progress and no summary
    #[arg(short, long)]
    pub quiet: bool,
}

const WORDS: Words = Words {
    counting: "looking",
    things: ("blob", "blobs"),
    doing: "copying",
    done: "copied",
};

/// What `--json` prints. Fields are added, never renamed.
#[derive(Serialize)]
struct Report<'a> {
    store: String,
    tag: &'a str,
    manifest_digest: String,
    new_blobs: u64,
    new_bytes: u64,
    shared_blobs: u64,
    shared_bytes: u64,
}

/// Copies an image to another store.
pub fn run(arguments: &CopyArgs) -> anyhow::Result<()> {
    let image_ref = ImageRef::parse(&arguments.image)?;
    let (target, tag) = target(&arguments.target, &image_ref)?;
    let (from, image) = store::find_image(&image_ref)?;
    let to = Store::create(&target)?;
    let progress = work::stoppable()?;
    let options = CopyOptions {
        jobs: work::jobs(arguments.jobs),
        check: arguments.check,
    };
    let copied = progress::shown_as(WORDS, &progress, arguments.quiet, || {
        copy::copy(&from, &image, &to, &tag, options, &progress)
    })?;
    let mut out = Output::new();
    let told = if arguments.json {
        out.json(&Report {
            store: target.to_string_lossy().into_owned(),
            tag: &tag,
            manifest_digest: image.manifest_digest.to_oci(),
            new_blobs: copied.new.blobs,
            new_bytes: copied.new.bytes,
            shared_blobs: copied.shared.blobs,
            shared_bytes: copied.shared.bytes,
        })
    } else if !arguments.quiet {
        let counts = [("copied", copied.new), ("shared", copied.shared)];
        out.counts(6, counts).map_err(Into::into)
    } else {
        Ok(())
    };
    out.end(told, || {
        format!("{} is copied", arguments.image.to_string_lossy())
    })
}

/// Where to copy to: a store and a tag, or a store alone, which is a directory or has no `:` in its
/// last name.
fn target(target: &OsStr, image: &ImageRef) -> Result<(PathBuf, String), Error> {
    let last_name = target.as_bytes().rsplit(|&byte| byte == b'/').next();
    let has_tag = last_name.is_some_and(|name| name.contains(&b':'));
    let (store, selector) = if has_tag && !Path::new(target).is_dir() {
        let target = ImageRef::parse(target)?;
        (target.store, target.selector)
    } else {
        (PathBuf::from(target), image.selector.clone())
    };
    match selector {
        Selector::Tag(tag) => Ok((store, tag)),
        Selector::Manifest(_) => Err(Error::Reference {
            reference: target.to_string_lossy().into_owned(),
            what: "give a tag for the copy, <oci-dir>:<tag>".to_owned(),
        }),
    }
}
