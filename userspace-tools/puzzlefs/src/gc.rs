// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs gc`.

use crate::output::{say, Output};
use crate::{format, work};
use anyhow::bail;
use clap::Args;
use puzzlefs_lib::gc::{self, Collected};
use serde::Serialize;
use std::io::Write;
use std::path::PathBuf;

/// `puzzlefs gc`.
#[derive(Debug, Args)]
pub struct GcArgs {
    /// The store
    pub store: PathBuf,
    /// Only show what would be removed
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Fail if builders are at work, instead of waiting for them
    #[arg(long)]
    pub no_wait: bool,
    /// Print one JSON object on standard output
    #[arg(long)]
    pub json: bool,
}

/// What `--json` prints. Fields are added, never renamed.
#[derive(Serialize)]
struct Report {
    dry_run: bool,
    kept_blobs: u64,
    kept_bytes: u64,
    removed_blobs: u64,
    removed_bytes: u64,
    removed_staging: u64,
    removed: Vec<Removed>,
}

#[derive(Serialize)]
struct Removed {
    digest: String,
    bytes: u64,
}

/// Removes the blobs of a store that no image needs.
pub fn run(arguments: &GcArgs) -> anyhow::Result<()> {
    let store = work::store(&arguments.store)?;
    let collected = if arguments.dry_run {
        gc::dry_run(&store)?
    } else {
        let collected = gc::collect(&store, || {
            if !arguments.no_wait {
                say("waiting for builders at work in the store");
            }
            !arguments.no_wait
        })?;
        match collected {
            Some(collected) => collected,
            None => bail!(
                "{}: builders are at work in the store; nothing was removed",
                store.path().display()
            ),
        }
    };
    let mut out = Output::new();
    if arguments.json {
        out.json(&report(&collected, arguments.dry_run))?;
    } else {
        tell(&collected, arguments.dry_run, &mut out)?;
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
    }
}

fn tell(collected: &Collected, dry_run: bool, out: &mut Output) -> anyhow::Result<()> {
    if dry_run {
        for (digest, bytes) in &collected.blobs {
            writeln!(out, "{:>10}  {digest}", format::bytes(*bytes))?;
        }
    }
    let word = if dry_run { "to remove" } else { "removed" };
    out.counts(9, [("kept", collected.kept), (word, collected.swept)])?;
    if collected.stale > 0 {
        let builds = format::count(collected.stale, "build", "builds");
        writeln!(out, "and what {builds} left unfinished")?;
    }
    Ok(())
}
