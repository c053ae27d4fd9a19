// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs enable-verity`.

use crate::faults::{self, FaultReport};
use crate::output::Output;
use crate::progress::Words;
use crate::{progress, work};
use clap::Args;
use puzzlefs_lib::enable_verity::{self, Enabled};
use serde::Serialize;
use std::ffi::OsString;
use std::io::Write;

/// `puzzlefs enable-verity`.
#[derive(Debug, Args)]
#[command(after_help = "\
The kernel checks each such blob from then on whenever it is read, and nobody can write to it, only
remove it. A blob that is not what the image says is left as it is, and told.
The digest that is printed is the one to mount with: -o digest=DIGEST")]
pub struct EnableVerityArgs {
    /// The image, or the directory of a store
    #[arg(value_name = "IMAGE|STORE")]
    pub what: OsString,
    /// Blobs to work on at once [default: one per processor]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub jobs: Option<u16>,
    /// Print one JSON object on standard output
    #[arg(long)]
    pub json: bool,
    /// Show no progress
    #[arg(short, long)]
    pub quiet: bool,
}

const WORDS: Words = Words {
    counting: "finding blobs",
    things: ("blob", "blobs"),
    doing: "enabling fs-verity",
    done: "done",
};

/// What `--json` prints. Fields are added, never renamed.
#[derive(Serialize)]
struct Report<'a> {
    images: Vec<ImageReport<'a>>,
    enabled_blobs: u64,
    enabled_bytes: u64,
    already_blobs: u64,
    already_bytes: u64,
    faults: Vec<FaultReport<'a>>,
}

#[derive(Serialize)]
struct ImageReport<'a> {
    image: &'a str,
    manifest_verity: String,
}

/// Enables fs-verity on the blobs of an image or a store, and fails if any is left without.
pub fn run(arguments: &EnableVerityArgs) -> anyhow::Result<()> {
    let (store, selector) = work::image_or_store(&arguments.what)?;
    let progress = work::stoppable()?;
    let jobs = work::jobs(arguments.jobs);
    let enabled = progress::shown_as(WORDS, &progress, arguments.quiet, || {
        enable_verity::enable(&store, selector.as_ref(), jobs, &progress)
    })?;
    let mut out = Output::new();
    if arguments.json {
        out.json(&report(&enabled))?;
    } else {
        tell(&enabled, &mut out)?;
    }
    out.flush()?;
    faults::fail(&enabled.faults, &arguments.what)
}

fn report(enabled: &Enabled) -> Report<'_> {
    let images = enabled.images.iter().map(|image| ImageReport {
        image: &image.name,
        manifest_verity: image.manifest_verity.to_hex(),
    });
    Report {
        images: images.collect(),
        enabled_blobs: enabled.new.blobs,
        enabled_bytes: enabled.new.bytes,
        already_blobs: enabled.already.blobs,
        already_bytes: enabled.already.bytes,
        faults: faults::report(&enabled.faults),
    }
}

fn tell(enabled: &Enabled, out: &mut Output) -> anyhow::Result<()> {
    faults::tell(&enabled.faults, out)?;
    out.counts(8, [("enabled", enabled.new), ("already", enabled.already)])?;
    for image in &enabled.images {
        writeln!(out, "digest={} {}", image.manifest_verity, image.name)?;
    }
    Ok(())
}
