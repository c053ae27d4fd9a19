// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs enable-verity`.

use crate::arguments::{ImageOrStoreArg, JobsArg, JsonArg, QuietArg};
use crate::faults::{self, FaultReport};
use crate::output::Output;
use crate::progress::Words;
use crate::{interrupt, progress};
use clap::Args;
use puzzlefs_lib::enable_verity::{self, Enabled};
use serde::Serialize;
use std::io::Write;

/// Enable fs-verity on the blobs of an image or a whole store
///
/// The kernel then verifies each read of these blobs. They cannot be written any more, only removed. A
/// blob that does not match its digest is reported and left unchanged.
///
/// Prints the digest that authenticates the image: mount with -o digest=DIGEST.
#[derive(Debug, Args)]
pub struct EnableVerityArgs {
    #[command(flatten)]
    subject: ImageOrStoreArg,
    #[command(flatten)]
    jobs: JobsArg,
    #[command(flatten)]
    json: JsonArg,
    #[command(flatten)]
    quiet: QuietArg,
}

const WORDS: Words = Words {
    counting: "finding blobs",
    things: ("blob", "blobs"),
    doing: "enabling fs-verity",
    done: "done",
};

/// The object that `--json` prints. Fields are added, never renamed.
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
    let (store, selector) = arguments.subject.open()?;
    let progress = interrupt::stoppable()?;
    let jobs = arguments.jobs.count();
    let enabled = progress::shown_as(WORDS, &progress, arguments.quiet.quiet, || {
        enable_verity::enable(&store, selector.as_ref(), jobs, &progress)
    })?;
    let mut out = Output::new();
    if arguments.json.json {
        out.json(&report(&enabled))?;
    } else {
        print(&enabled, &mut out)?;
    }
    out.flush()?;
    faults::fail(&enabled.faults, &arguments.subject.name)
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

fn print(enabled: &Enabled, out: &mut Output) -> anyhow::Result<()> {
    faults::print(&enabled.faults, out)?;
    out.counts(8, [("enabled", enabled.new), ("already", enabled.already)])?;
    for image in &enabled.images {
        writeln!(out, "digest={} {}", image.manifest_verity, image.name)?;
    }
    Ok(())
}
