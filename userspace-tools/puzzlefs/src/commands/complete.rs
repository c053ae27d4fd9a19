// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs complete` and `puzzlefs repack`.

use crate::arguments::{JsonArg, QuietArg};
use crate::output::{say, Output};
use crate::{format, interrupt};
use clap::Args;
use puzzlefs_lib::complete::{self, Completed, ManifestChoice};
use puzzlefs_lib::start_order::StartOrder;
use puzzlefs_lib::{ImageRef, Progress, Result, Selector, Store};
use serde::Serialize;
use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;

/// Create the packs that an image lacks, so that other tools can copy it
///
/// The packs that the manifest lists are built again, byte for byte. The manifest and its digest stay the
/// same. 'puzzlefs gc' can have removed chunks of a pack that no image needs. The command then reports the
/// pack and the first missing chunk, and exits with status 1. Only images of format 4 have packs.
#[derive(Debug, Args)]
pub struct CompleteArgs {
    /// Image, STORE:TAG or STORE@sha256:DIGEST
    image: OsString,
    /// Replace the manifest if a pack cannot be built again
    ///
    /// The new manifest lists packs that have the chunks of the image, and the tags of the image name it.
    /// The root of the image, which mounts name, stays the same.
    #[arg(long)]
    new_manifest: bool,
    #[command(flatten)]
    json: JsonArg,
    #[command(flatten)]
    quiet: QuietArg,
}

/// Put the chunks of an image together in few packs
///
/// Loose chunks, packs of less than 32 MiB, and packs with much data of other images are written to new
/// packs, in the order in which a reader needs the chunks. The image gets a new manifest, and its tags name
/// that one. The root of the image, which mounts name, stays the same. 'puzzlefs gc' removes old packs. Only
/// images of format 4 have packs.
///
/// The ranges of a start-up order come first in the new packs.
#[derive(Debug, Args)]
pub struct RepackArgs {
    /// Image, STORE:TAG or STORE@sha256:DIGEST
    image: OsString,
    /// Put the ranges of the start-up order in FILE first [default: that of the image]
    ///
    /// 'puzzlefs record' writes FILE. The image keeps it, for 'mount -o prefetch'.
    #[arg(long, value_name = "FILE")]
    order: Option<PathBuf>,
    #[command(flatten)]
    json: JsonArg,
    #[command(flatten)]
    quiet: QuietArg,
}

/// The object that `--json` prints. Fields are added, never renamed.
#[derive(Serialize)]
struct Report {
    rebuilt_packs: u64,
    rebuilt_bytes: u64,
    new_packs: u64,
    new_bytes: u64,
    manifest_digest: Option<String>,
}

/// Creates the packs that an image lacks.
pub fn run(arguments: &CompleteArgs) -> anyhow::Result<()> {
    let CompleteArgs {
        image,
        new_manifest,
        json,
        quiet,
    } = arguments;
    let manifest = if *new_manifest {
        ManifestChoice::Replace
    } else {
        ManifestChoice::Keep
    };
    change(image, json, quiet, |store, image, progress| {
        complete::complete(store, image, manifest, progress)
    })
}

/// Puts the chunks of an image together in few packs.
pub fn run_repack(arguments: &RepackArgs) -> anyhow::Result<()> {
    let RepackArgs {
        image,
        order,
        json,
        quiet,
    } = arguments;
    let order = order.as_deref().map(StartOrder::read).transpose()?;
    change(image, json, quiet, |store, image, progress| {
        complete::repack(store, image, order.as_ref(), progress)
    })
}

fn change(
    image: &OsString,
    json: &JsonArg,
    quiet: &QuietArg,
    work: impl FnOnce(&Store, &Selector, &Progress) -> Result<Completed>,
) -> anyhow::Result<()> {
    let image = ImageRef::parse(image)?;
    let store = Store::open(&image.store)?;
    let progress = interrupt::stoppable()?;
    let completed = work(&store, &image.selector, &progress)?;
    if completed.missing_ranges > 0 {
        say(format_args!(
            "start-up order: {} of paths that do not exist",
            format::count(completed.missing_ranges as u64, "range is", "ranges are")
        ));
    }
    let mut out = Output::new();
    if json.json {
        out.json(&report(&completed))?;
    } else if !quiet.quiet {
        print(&completed, &mut out)?;
    }
    Ok(out.flush()?)
}

fn report(completed: &Completed) -> Report {
    Report {
        rebuilt_packs: completed.rebuilt.blobs,
        rebuilt_bytes: completed.rebuilt.bytes,
        new_packs: completed.new.blobs,
        new_bytes: completed.new.bytes,
        manifest_digest: completed.manifest.map(|manifest| manifest.to_oci()),
    }
}

fn print(completed: &Completed, out: &mut Output) -> anyhow::Result<()> {
    out.counts(7, [("rebuilt", completed.rebuilt), ("new", completed.new)])?;
    if let Some(manifest) = completed.manifest {
        writeln!(out, "manifest {}", manifest.to_oci())?;
    }
    Ok(())
}
