// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs verify`.

use crate::arguments::{ImageOrStoreArg, JobsArg, JsonArg, QuietArg};
use crate::faults::{self, FaultReport};
use crate::output::Output;
use crate::progress::Words;
use crate::{format, interrupt, progress};
use clap::Args;
use puzzlefs_lib::message::printable;
use puzzlefs_lib::verify::{self, PackedImage, Verified};
use serde::Serialize;
use std::io::Write;
use std::time::Instant;

/// Check an image or a whole store, and report every fault
///
/// Two commands restore missing and damaged blobs: 'build --check' or 'import --check' with the image's
/// source and the same options, and 'copy --check' from a store that has them. 'reindex' repairs a chunk
/// index.
///
/// An image of format 4 is whole if all its chunks exist, so that it can be mounted. It is complete if all
/// packs of its manifest exist, so that other tools can copy it. An image that is not complete is reported,
/// but does not count as a fault.
#[derive(Debug, Args)]
pub struct VerifyArgs {
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
    counting: "checking the structure",
    things: ("blob", "blobs"),
    doing: "verifying",
    done: "verified",
};

/// The object that `--json` prints. Fields are added, never renamed.
#[derive(Serialize)]
struct Report<'a> {
    images: u64,
    inodes: u64,
    extents: u64,
    blobs: u64,
    bytes: u64,
    chunks: u64,
    chunk_bytes: u64,
    packed: Vec<PackedReport<'a>>,
    unlisted_packs: u64,
    faults: Vec<FaultReport<'a>>,
    seconds: f64,
}

/// The object that `--json` prints of an image of format 4.
#[derive(Serialize)]
struct PackedReport<'a> {
    image: &'a str,
    complete: bool,
    whole: bool,
    packs: u64,
    missing_packs: u64,
}

/// Verifies an image or a store, and fails if anything is wrong.
pub fn run(arguments: &VerifyArgs) -> anyhow::Result<()> {
    let start = Instant::now();
    let (store, selector) = arguments.subject.open()?;
    let progress = interrupt::stoppable()?;
    let jobs = arguments.jobs.count();
    let verified = progress::shown_as(
        WORDS,
        &progress,
        arguments.quiet.quiet,
        || match &selector {
            Some(selector) => verify::verify_image(&store, selector, jobs, &progress),
            None => verify::verify_store(&store, jobs, &progress),
        },
    )?;
    let mut out = Output::new();
    if arguments.json.json {
        out.json(&report(&verified, start))?;
    } else {
        print(&verified, start, arguments.quiet.quiet, &mut out)?;
    }
    out.flush()?;
    faults::fail(&verified.faults, &arguments.subject.name)
}

fn report(verified: &Verified, start: Instant) -> Report<'_> {
    Report {
        images: verified.images,
        inodes: verified.inodes,
        extents: verified.extents,
        blobs: verified.blobs,
        bytes: verified.bytes,
        chunks: verified.chunks,
        chunk_bytes: verified.chunk_bytes,
        packed: verified.packed.iter().map(packed).collect(),
        unlisted_packs: verified.unlisted_packs,
        faults: faults::report(&verified.faults),
        seconds: start.elapsed().as_millis() as f64 / 1000.0,
    }
}

fn packed(image: &PackedImage) -> PackedReport<'_> {
    PackedReport {
        image: &image.name,
        complete: image.is_complete(),
        whole: image.is_whole,
        packs: image.packs,
        missing_packs: image.missing_packs,
    }
}

fn print(verified: &Verified, start: Instant, quiet: bool, out: &mut Output) -> anyhow::Result<()> {
    faults::print(&verified.faults, out)?;
    for image in verified.packed.iter().filter(|image| !image.is_complete()) {
        let state = if image.is_whole {
            "whole"
        } else {
            "neither whole"
        };
        let but = if image.is_whole { "but not" } else { "nor" };
        writeln!(
            out,
            "{}: {state} {but} complete: {} of {} packs missing",
            printable(image.name.as_bytes()),
            image.missing_packs,
            image.packs
        )?;
    }
    if verified.unlisted_packs > 0 && !quiet {
        writeln!(
            out,
            "chunk index: {} not listed; the next mount of the image and 'puzzlefs reindex' add them",
            format::count(verified.unlisted_packs, "pack is", "packs are")
        )?;
    }
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
