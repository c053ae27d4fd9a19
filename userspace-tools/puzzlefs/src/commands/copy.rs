// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs copy`.

use crate::arguments::{has_tag, open_store, target, CheckArg, JobsArg, JsonArg, QuietArg};
use crate::output::{say, Output};
use crate::progress::Words;
use crate::{format, interrupt, progress};
use clap::Args;
use puzzlefs_lib::builder::Count;
use puzzlefs_lib::copy::{self, Copied, CopyOptions, Tagged};
use puzzlefs_lib::error::ReferenceError;
use puzzlefs_lib::tree::find_any_image;
use puzzlefs_lib::{ImageRef, Store};
use serde::Serialize;
use std::ffi::OsString;
use std::io::Write;
use std::path::Path;

/// Copy an image to another store: only missing blobs
///
/// Blobs are verified during the copy. Tags are set last, with --all all of them at once: if the copy
/// fails or is interrupted, no tag changes.
///
/// --all copies the PuzzleFS images of a store under their tags. It leaves out images of other formats
/// and reports them. Other tags of the target store stay.
#[derive(Debug, Args)]
pub struct CopyArgs {
    /// Image, STORE:TAG or STORE@sha256:DIGEST; with --all, the directory of a store
    #[arg(value_name = "IMAGE|STORE")]
    image: OsString,
    /// Store, created if it does not exist, and the tag to set there [default for TAG: the image's]
    #[arg(value_name = "STORE[:TAG]")]
    target: OsString,
    /// Copy all images of the store that have tags
    #[arg(short, long)]
    all: bool,
    #[command(flatten)]
    jobs: JobsArg,
    #[command(flatten)]
    check: CheckArg,
    /// Copy whole packs, also if the store has a part of their chunks
    ///
    /// Without this option, only missing chunks are copied, to new packs. An image whose packs are missing
    /// can be mounted, but other tools cannot copy it until 'puzzlefs complete' has run. Only images of
    /// format 4 have packs.
    #[arg(long)]
    whole_packs: bool,
    #[command(flatten)]
    json: JsonArg,
    #[command(flatten)]
    quiet: QuietArg,
}

const WORDS: Words = Words {
    counting: "looking",
    things: ("blob", "blobs"),
    doing: "copying",
    done: "copied",
};

/// The object that `--json` prints. Fields are added, never renamed.
#[derive(Serialize)]
struct Report<'a> {
    store: String,
    tag: &'a str,
    manifest_digest: String,
    new_blobs: u64,
    new_bytes: u64,
    shared_blobs: u64,
    shared_bytes: u64,
    partial_packs: u64,
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
    partial_packs: u64,
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
    let (from, image) = find_any_image(&image_ref)?;
    let to = Store::create(&target)?;
    let progress = interrupt::stoppable()?;
    let copied = progress::shown_as(WORDS, &progress, arguments.quiet.quiet, || {
        copy::copy(&from, &image, &to, &tag, options(arguments), &progress)
    })?;
    report(arguments, copied, |out| {
        out.json(&Report {
            store: target.to_string_lossy().into_owned(),
            tag: &tag,
            manifest_digest: image.root.manifest_digest().to_oci(),
            new_blobs: copied.new.blobs,
            new_bytes: copied.new.bytes,
            shared_blobs: copied.shared.blobs,
            shared_bytes: copied.shared.bytes,
            partial_packs: copied.partial_packs,
        })
    })
}

/// Copies all images of a store.
fn all(arguments: &CopyArgs) -> anyhow::Result<()> {
    let target = Path::new(&arguments.target);
    let from = open_store(Path::new(&arguments.image))?;
    let tagged = Tagged::of(&from)?;
    if has_tag(&arguments.target) {
        let what = "--all copies each image under its own tag; give the store alone";
        return Err(ReferenceError::refused(&arguments.target, what).into());
    }
    let to = Store::create(target)?;
    let progress = interrupt::stoppable()?;
    let copied = progress::shown_as(WORDS, &progress, arguments.quiet.quiet, || {
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
            manifest_digest: image.root.manifest_digest().to_oci(),
        });
        out.json(&AllReport {
            store: target.to_string_lossy().into_owned(),
            images: images.collect(),
            left_out: &tagged.others,
            new_blobs: copied.new.blobs,
            new_bytes: copied.new.bytes,
            shared_blobs: copied.shared.blobs,
            shared_bytes: copied.shared.bytes,
            partial_packs: copied.partial_packs,
        })
    })
}

fn options(arguments: &CopyArgs) -> CopyOptions {
    CopyOptions {
        jobs: arguments.jobs.count(),
        check: arguments.check.check,
        whole_packs: arguments.whole_packs,
    }
}

/// Prints the counts of blobs.
fn report(
    arguments: &CopyArgs,
    copied: Copied,
    json: impl FnOnce(&mut Output) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut out = Output::new();
    let printed = if arguments.json.json {
        json(&mut out)
    } else if !arguments.quiet.quiet {
        let counts = [("copied", copied.new), ("shared", copied.shared)];
        print(&mut out, counts, copied.partial_packs)
    } else {
        Ok(())
    };
    out.end(printed, || {
        format!("{} is copied", arguments.image.to_string_lossy())
    })
}

fn print(out: &mut Output, counts: [(&str, Count); 2], partial_packs: u64) -> anyhow::Result<()> {
    out.counts(6, counts)?;
    if partial_packs > 0 {
        let packs = format::count(partial_packs, "pack", "packs");
        writeln!(
            out,
            "{packs} of the manifest missing, with all chunks elsewhere; to copy the image by \
            other tools, run 'puzzlefs complete'"
        )?;
    }
    Ok(())
}
