// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs copy`.

use crate::output::{say, Output};
use crate::progress::Words;
use crate::{format, progress, work};
use clap::Args;
use puzzlefs_lib::copy::{self, Copied, CopyOptions, Tagged};
use puzzlefs_lib::{store, Error, ImageRef, Selector, Store};
use serde::Serialize;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// `puzzlefs copy`.
#[derive(Debug, Args)]
#[command(after_help = "\
Blobs are verified on the way. Tags are set last, with --all all of them at once: if the copy fails or is
interrupted, no tag changes. --all copies the PuzzleFS images of a store under their tags. It leaves out
images of other formats and reports them. Other tags of the target store stay.")]
pub struct CopyArgs {
    /// The image; with --all, the store
    #[arg(value_name = "IMAGE|STORE")]
    pub image: OsString,
    /// The store, made if there is none, and the tag to set there [default: the image's]
    #[arg(value_name = "STORE[:TAG]")]
    pub target: OsString,
    /// Copy all images of the store that have tags
    #[arg(short, long)]
    pub all: bool,
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

/// The object that `--json` prints with `--all`.
#[derive(Serialize)]
struct AllReport<'a> {
    store: String,
    images: Vec<ImageReport<'a>>,
    /// The tags of images of other formats, which were left out.
    left_out: &'a [String],
    new_blobs: u64,
    new_bytes: u64,
    shared_blobs: u64,
    shared_bytes: u64,
}

#[derive(Serialize)]
struct ImageReport<'a> {
    tag: &'a str,
    manifest_digest: String,
}

/// Copies an image, or all of a store, to another store.
pub fn run(arguments: &CopyArgs) -> anyhow::Result<()> {
    if arguments.all {
        return all(arguments);
    }
    let image_ref = ImageRef::parse(&arguments.image)?;
    let (target, tag) = target(&arguments.target, &image_ref)?;
    let (from, image) = store::find_image(&image_ref)?;
    let to = Store::create(&target)?;
    let progress = work::stoppable()?;
    let copied = progress::shown_as(WORDS, &progress, arguments.quiet, || {
        copy::copy(&from, &image, &to, &tag, options(arguments), &progress)
    })?;
    report(arguments, copied, |out| {
        out.json(&Report {
            store: target.to_string_lossy().into_owned(),
            tag: &tag,
            manifest_digest: image.manifest_digest.to_oci(),
            new_blobs: copied.new.blobs,
            new_bytes: copied.new.bytes,
            shared_blobs: copied.shared.blobs,
            shared_bytes: copied.shared.bytes,
        })
    })
}

/// Copies all images of a store.
fn all(arguments: &CopyArgs) -> anyhow::Result<()> {
    let target = Path::new(&arguments.target);
    let from = work::store(Path::new(&arguments.image))?;
    let tagged = Tagged::of(&from)?;
    if has_tag(&arguments.target) {
        let what = "--all copies each image under its own tag; give the store alone";
        return Err(Error::Reference {
            reference: arguments.target.to_string_lossy().into_owned(),
            what: what.to_owned(),
        }
        .into());
    }
    let to = Store::create(target)?;
    let progress = work::stoppable()?;
    let copied = progress::shown_as(WORDS, &progress, arguments.quiet, || {
        copy::copy_all(&from, &tagged, &to, options(arguments), &progress)
    })?;
    if !tagged.others.is_empty() {
        let images = format::count(tagged.others.len() as u64, "image", "images");
        let tags = tagged.others.join(", ");
        say(format_args!("left out {images} of other formats: {tags}"));
    }
    report(arguments, copied, |out| {
        let images = tagged.images.iter().map(|(tag, image)| ImageReport {
            tag,
            manifest_digest: image.manifest_digest.to_oci(),
        });
        out.json(&AllReport {
            store: target.to_string_lossy().into_owned(),
            images: images.collect(),
            left_out: &tagged.others,
            new_blobs: copied.new.blobs,
            new_bytes: copied.new.bytes,
            shared_blobs: copied.shared.blobs,
            shared_bytes: copied.shared.bytes,
        })
    })
}

fn options(arguments: &CopyArgs) -> CopyOptions {
    CopyOptions {
        jobs: work::jobs(arguments.jobs),
        check: arguments.check,
    }
}

/// Prints what was copied.
fn report(
    arguments: &CopyArgs,
    copied: Copied,
    json: impl FnOnce(&mut Output) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut out = Output::new();
    let told = if arguments.json {
        json(&mut out)
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
        Selector::Manifest(_) => Err(Error::Reference {
            reference: target.to_string_lossy().into_owned(),
            what: "give a tag for the copy, <oci-dir>:<tag>".to_owned(),
        }),
    }
}

/// Returns true if a target is a store and a tag.
fn has_tag(target: &OsStr) -> bool {
    let last_name = target.as_bytes().rsplit(|&byte| byte == b'/').next();
    last_name.is_some_and(|name| name.contains(&b':')) && !Path::new(target).is_dir()
}
