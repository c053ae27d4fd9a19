// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs du`.

use crate::arguments::{JsonArg, StoreArg};
use crate::format;
use crate::output::{say, Output};
use anyhow::bail;
use clap::Args;
use puzzlefs_lib::builder::Count;
use puzzlefs_lib::message::printable;
use puzzlefs_lib::usage::{self, Usage};
use serde::Serialize;
use std::io::Write;

/// Show the size of each image of a store, and the part it shares with others
///
/// 'alone' is the size of the image's blobs, 'unique' of those that no other image has, 'shared' of the
/// rest. Blobs that no image needs are unreferenced; 'puzzlefs gc' removes them. In format 4, the chunks of
/// the image count instead of its packs.
#[derive(Debug, Args)]
pub struct DuArgs {
    #[command(flatten)]
    store: StoreArg,
    #[command(flatten)]
    json: JsonArg,
}

/// The object that `--json` prints. Fields are added, never renamed.
#[derive(Serialize)]
struct Report<'a> {
    images: Vec<ImageReport<'a>>,
    blobs: u64,
    bytes: u64,
    unreferenced_blobs: u64,
    unreferenced_bytes: u64,
    /// In packs that have chunks of images, too.
    dead_chunks: u64,
    dead_chunk_bytes: u64,
    errors: Vec<String>,
}

#[derive(Serialize)]
struct ImageReport<'a> {
    tags: &'a [String],
    manifest_digest: String,
    puzzlefs: bool,
    blobs: u64,
    bytes: u64,
    unique_blobs: u64,
    unique_bytes: u64,
    shared_blobs: u64,
    shared_bytes: u64,
}

/// Prints the sizes of the images of a store.
pub fn run(arguments: &DuArgs) -> anyhow::Result<()> {
    let usage = usage::usage(&arguments.store.open()?)?;
    let mut out = Output::new();
    if arguments.json.json {
        out.json(&report(&usage))?;
    } else {
        table(&usage, &mut out)?;
    }
    out.flush()?;
    for error in &usage.errors {
        say(error);
    }
    if !usage.errors.is_empty() {
        bail!("blobs of these images are counted as unreferenced");
    }
    Ok(())
}

fn report(usage: &Usage) -> Report<'_> {
    let images = usage.images.iter().map(|image| ImageReport {
        tags: &image.tags,
        manifest_digest: image.manifest.to_oci(),
        puzzlefs: image.is_puzzlefs,
        blobs: image.alone.blobs,
        bytes: image.alone.bytes,
        unique_blobs: image.unique.blobs,
        unique_bytes: image.unique.bytes,
        shared_blobs: image.shared.blobs,
        shared_bytes: image.shared.bytes,
    });
    Report {
        images: images.collect(),
        blobs: usage.total.blobs,
        bytes: usage.total.bytes,
        unreferenced_blobs: usage.unreferenced.blobs,
        unreferenced_bytes: usage.unreferenced.bytes,
        dead_chunks: usage.dead_chunks.blobs,
        dead_chunk_bytes: usage.dead_chunks.bytes,
        errors: usage.errors.iter().map(ToString::to_string).collect(),
    }
}

fn table(usage: &Usage, out: &mut Output) -> anyhow::Result<()> {
    writeln!(
        out,
        "{:>10}  {:>10}  {:>10}  image",
        "alone", "unique", "shared"
    )?;
    for image in &usage.images {
        let name = match &image.tags[..] {
            [] => image.manifest.to_oci(),
            tags => printable(tags.join(", ").as_bytes()),
        };
        let [alone, unique, shared] =
            [image.alone, image.unique, image.shared].map(|count| format::bytes(count.bytes));
        let note = if image.is_puzzlefs {
            ""
        } else {
            "  (not a PuzzleFS image)"
        };
        writeln!(out, "{alone:>10}  {unique:>10}  {shared:>10}  {name}{note}")?;
    }
    let blobs = |count: Count| {
        let blobs = format::count(count.blobs, "blob", "blobs");
        format!("{:>10} in {blobs}", format::bytes(count.bytes))
    };
    writeln!(out, "{}", blobs(usage.total))?;
    writeln!(out, "{}, unreferenced", blobs(usage.unreferenced))?;
    let dead = usage.dead_chunks;
    if dead.blobs > 0 {
        let chunks = format::count(dead.blobs, "chunk", "chunks");
        let bytes = format::bytes(dead.bytes);
        writeln!(out, "{bytes:>10} in {chunks} of packs, unreferenced")?;
    }
    Ok(())
}
