// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs reindex`.

use crate::arguments::{JobsArg, JsonArg, QuietArg, StoreArg};
use crate::output::Output;
use crate::progress::Words;
use crate::{format, interrupt, progress};
use anyhow::bail;
use clap::Args;
use puzzlefs_lib::message::printable;
use puzzlefs_lib::reindex::{self, Reindexed};
use serde::Serialize;
use std::io::Write;

/// Rebuild the chunk index of a store from its packs
///
/// The chunk index has the places of the chunks of images of format 4. Rebuild it if it is damaged. Mounts,
/// and commands that change the store, add the packs that other tools have copied into the store to it.
/// Every chunk is read and verified. Mounted images can be used meanwhile.
#[derive(Debug, Args)]
pub struct ReindexArgs {
    #[command(flatten)]
    store: StoreArg,
    #[command(flatten)]
    jobs: JobsArg,
    #[command(flatten)]
    json: JsonArg,
    #[command(flatten)]
    quiet: QuietArg,
}

const WORDS: Words = Words {
    counting: "looking for packs",
    things: ("pack", "packs"),
    doing: "reading",
    done: "indexed",
};

/// The object that `--json` prints. Fields are added, never renamed.
#[derive(Serialize)]
struct Report {
    packs: u64,
    chunks: u64,
    loose_chunks: u64,
    faults: Vec<String>,
}

/// Rebuilds the chunk index of a store, and fails if a pack or a chunk cannot be used.
pub fn run(arguments: &ReindexArgs) -> anyhow::Result<()> {
    let store = arguments.store.open()?;
    let progress = interrupt::stoppable()?;
    let jobs = arguments.jobs.count();
    let reindexed = progress::shown_as(WORDS, &progress, arguments.quiet.quiet, || {
        reindex::reindex(&store, jobs, &progress)
    })?;
    let faults: Vec<String> = reindexed.faults.iter().map(ToString::to_string).collect();
    let mut out = Output::new();
    if arguments.json.json {
        out.json(&report(&reindexed, faults.clone()))?;
    } else {
        for fault in &faults {
            writeln!(out, "{}", printable(fault.as_bytes()))?;
        }
        if !arguments.quiet.quiet {
            print(&reindexed, &mut out)?;
        }
    }
    out.flush()?;
    if !faults.is_empty() {
        let faults = format::count(faults.len() as u64, "fault", "faults");
        bail!("{}: {faults}", store.path().display());
    }
    Ok(())
}

fn report(reindexed: &Reindexed, faults: Vec<String>) -> Report {
    Report {
        packs: reindexed.packs,
        chunks: reindexed.chunks,
        loose_chunks: reindexed.loose,
        faults,
    }
}

fn print(reindexed: &Reindexed, out: &mut Output) -> anyhow::Result<()> {
    let chunks = format::count(reindexed.chunks, "chunk", "chunks");
    let packs = format::count(reindexed.packs, "pack", "packs");
    writeln!(out, "{chunks} in {packs}")?;
    if reindexed.loose > 0 {
        let loose = format::count(reindexed.loose, "chunk", "chunks");
        writeln!(out, "{loose} loose, because the index has no room")?;
    }
    Ok(())
}
