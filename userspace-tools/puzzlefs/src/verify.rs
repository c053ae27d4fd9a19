// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs verify`.

use crate::faults::{self, FaultReport};
use crate::output::Output;
use crate::progress::Words;
use crate::{format, progress, work};
use clap::Args;
use puzzlefs_lib::verify::{self, Verified};
use serde::Serialize;
use std::ffi::OsString;
use std::io::Write;
use std::time::Instant;

/// `puzzlefs verify`.
#[derive(Debug, Args)]
#[command(after_help = "\
Blobs that are damaged or missing are put back by 'puzzlefs build --check' or 'puzzlefs import
--check', with the image's source and the options it was made with, and by 'puzzlefs copy --check'
from a store that has them.")]
pub struct VerifyArgs {
    /// The image, or the directory of a store
    #[arg(value_name = "IMAGE|STORE")]
    pub what: OsString,
    /// Blobs to read at once [default: one per processor]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub jobs: Option<u16>,
    /// Print one JSON object on standard output
    #[arg(long)]
    pub json: bool,
    /// Show no progress and no summary
    #[arg(short, long)]
    pub quiet: bool,
}

const WORDS: Words = Words {
    counting: "checking the structure",
    things: ("blob", "blobs"),
    doing: "verifying",
    done: "verified",
};

/// What `--json` prints. Fields are added, never renamed.
#[derive(Serialize)]
struct Report<'a> {
    images: u64,
    inodes: u64,
    extents: u64,
    blobs: u64,
    bytes: u64,
    faults: Vec<FaultReport<'a>>,
    seconds: f64,
}

/// Verifies an image or a store, and fails if anything is wrong.
pub fn run(arguments: &VerifyArgs) -> anyhow::Result<()> {
    let start = Instant::now();
    let (store, selector) = work::image_or_store(&arguments.what)?;
    let progress = work::stoppable()?;
    let jobs = work::jobs(arguments.jobs);
    let verified = progress::shown_as(WORDS, &progress, arguments.quiet, || match &selector {
        Some(selector) => verify::verify_image(&store, selector, jobs, &progress),
        None => verify::verify_store(&store, jobs, &progress),
    })?;
    let mut out = Output::new();
    if arguments.json {
        out.json(&report(&verified, start))?;
    } else {
        tell(&verified, start, arguments.quiet, &mut out)?;
    }
    out.flush()?;
    faults::fail(&verified.faults, &arguments.what)
}

fn report(verified: &Verified, start: Instant) -> Report<'_> {
    Report {
        images: verified.images,
        inodes: verified.inodes,
        extents: verified.extents,
        blobs: verified.blobs,
        bytes: verified.bytes,
        faults: faults::report(&verified.faults),
        seconds: start.elapsed().as_millis() as f64 / 1000.0,
    }
}

fn tell(verified: &Verified, start: Instant, quiet: bool, out: &mut Output) -> anyhow::Result<()> {
    faults::tell(&verified.faults, out)?;
    if !quiet {
        writeln!(
            out,
            "{} in {}, {}, {}, {} ({:.2} s)",
            format::bytes(verified.bytes),
            format::count(verified.blobs, "blob", "blobs"),
            format::count(verified.images, "image", "images"),
            format::count(verified.inodes, "inode", "inodes"),
            format::count(verified.extents, "extent", "extents"),
            start.elapsed().as_secs_f64()
        )?;
    }
    Ok(())
}
