// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs gc`.

use crate::arguments::{JsonArg, StoreArg};
use crate::format;
use crate::output::{say, Output};
use anyhow::bail;
use clap::Args;
use puzzlefs_lib::gc::{self, Collected, GcOptions};
use serde::Serialize;
use std::io::Write;

/// Remove the blobs of a store that no image needs
///
/// Waits for builders that use the store, unless --no-wait is given.
#[derive(Debug, Args)]
pub struct GcArgs {
    #[command(flatten)]
    store: StoreArg,
    /// Show the blobs that would be removed, and remove nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Fail if builders use the store, instead of waiting for them
    #[arg(long)]
    no_wait: bool,
    /// Rewrite packs of which more than PERCENT is dead data, that is, chunks that no image needs [0-100]
    ///
    /// The rest of such a pack is copied to a new pack. An image whose manifest lists the old pack can
    /// still be mounted, but other tools cannot copy it until 'puzzlefs complete' has run. 100 rewrites no
    /// pack. Only images of format 4 have packs.
    #[arg(long, value_name = "PERCENT", default_value_t = 25)]
    #[arg(value_parser = clap::value_parser!(u8).range(0..=100))]
    max_dead: u8,
    #[command(flatten)]
    json: JsonArg,
}

/// The object that `--json` prints. Fields are added, never renamed.
#[derive(Serialize)]
struct Report {
    dry_run: bool,
    kept_blobs: u64,
    kept_bytes: u64,
    removed_blobs: u64,
    removed_bytes: u64,
    removed_staging: u64,
    removed: Vec<Removed>,
    rewritten_packs: u64,
    rewritten_bytes: u64,
    new_packs: u64,
    new_bytes: u64,
    incomplete: Vec<String>,
}

#[derive(Serialize)]
struct Removed {
    digest: String,
    bytes: u64,
}

/// Removes the blobs of a store that no image needs.
pub fn run(arguments: &GcArgs) -> anyhow::Result<()> {
    let store = arguments.store.open()?;
    let options = GcOptions {
        max_dead: arguments.max_dead,
    };
    let collected = if arguments.dry_run {
        gc::dry_run(&store, options)?
    } else {
        let collected = gc::collect(&store, options, || {
            if !arguments.no_wait {
                say("waiting for builders that use the store");
            }
            !arguments.no_wait
        })?;
        match collected {
            Some(collected) => collected,
            None => bail!(
                "{}: builders use the store; nothing was removed",
                store.path().display()
            ),
        }
    };
    let mut out = Output::new();
    if arguments.json.json {
        out.json(&report(&collected, arguments.dry_run))?;
    } else {
        print(&collected, arguments.dry_run, &mut out)?;
    }
    Ok(out.flush()?)
}

fn report(collected: &Collected, dry_run: bool) -> Report {
    let removed = collected.blobs.iter().map(|(digest, bytes)| Removed {
        digest: digest.to_oci(),
        bytes: *bytes,
    });
    Report {
        dry_run,
        kept_blobs: collected.kept.blobs,
        kept_bytes: collected.kept.bytes,
        removed_blobs: collected.swept.blobs,
        removed_bytes: collected.swept.bytes,
        removed_staging: collected.stale,
        removed: removed.collect(),
        rewritten_packs: collected.rewritten.blobs,
        rewritten_bytes: collected.rewritten.bytes,
        new_packs: collected.repacked.blobs,
        new_bytes: collected.repacked.bytes,
        incomplete: collected.incomplete.clone(),
    }
}

fn print(collected: &Collected, dry_run: bool, out: &mut Output) -> anyhow::Result<()> {
    if dry_run {
        for (digest, bytes) in &collected.blobs {
            writeln!(out, "{:>10}  {digest}", format::bytes(*bytes))?;
        }
    }
    let word = if dry_run { "to remove" } else { "removed" };
    out.counts(9, [("kept", collected.kept), (word, collected.swept)])?;
    if collected.rewritten.blobs > 0 {
        let word = if dry_run { "to rewrite" } else { "rewritten" };
        let packs = format::count(collected.rewritten.blobs, "pack", "packs");
        let before = format::bytes(collected.rewritten.bytes);
        let after = format::bytes(collected.repacked.bytes);
        writeln!(out, "{word} {packs}: {before} to {after}")?;
    }
    for image in &collected.incomplete {
        let word = if dry_run { "would be" } else { "is" };
        writeln!(
            out,
            "{image} {word} incomplete; 'puzzlefs complete' makes it complete"
        )?;
    }
    if collected.stale > 0 {
        let builds = format::count(collected.stale, "build", "builds");
        writeln!(out, "removed the remains of {builds}")?;
    }
    Ok(())
}
