// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs diff`.

use crate::arguments::JsonArg;
use crate::format;
use crate::output::{JsonPath, Output};
use clap::Args;
use puzzlefs_lib::diff::{self, Change, Difference, Shared, Totals};
use puzzlefs_lib::tree::ImageTree;
use puzzlefs_lib::{find_root, Error, ImageRef};
use serde::Serialize;
use std::ffi::OsString;
use std::io::{self, Write};

/// Show the paths in which two images differ, and the chunks they share
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// Old image, STORE:TAG or STORE@sha256:DIGEST
    #[arg(value_name = "IMAGE")]
    old: OsString,
    /// New image, of the same store or another
    #[arg(value_name = "IMAGE")]
    new: OsString,
    #[command(flatten)]
    json: JsonArg,
}

/// The end of the object that `--json` prints, after a field `changes` with a [`ChangeReport`] for each.
/// Fields are added, never renamed.
#[derive(Serialize)]
struct Report {
    added: u64,
    removed: u64,
    changed: u64,
    /// Of the new image.
    #[serde(flatten)]
    chunks: SharedReport,
}

#[derive(Serialize)]
struct ChangeReport {
    #[serde(flatten)]
    path: JsonPath,
    change: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    what: Vec<&'static str>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    chunks: Option<SharedReport>,
}

#[derive(Serialize)]
struct SharedReport {
    chunks: u64,
    bytes: u64,
    shared_chunks: u64,
    shared_bytes: u64,
}

impl From<Shared> for SharedReport {
    fn from(shared: Shared) -> Self {
        SharedReport {
            chunks: shared.all.blobs,
            bytes: shared.all.bytes,
            shared_chunks: shared.shared.blobs,
            shared_bytes: shared.shared.bytes,
        }
    }
}

/// Prints the paths in which two images differ, and the chunks they share.
pub fn run(arguments: &DiffArgs) -> anyhow::Result<()> {
    let (old_store, old) = find_root(&ImageRef::parse(&arguments.old)?)?;
    let (new_store, new) = find_root(&ImageRef::parse(&arguments.new)?)?;
    let old = ImageTree::new(&old_store, &old)?;
    let new = ImageTree::new(&new_store, &new)?;
    let mut out = Output::new();
    if arguments.json.json {
        out.write_all(b"{\"changes\":[")?;
    }
    // Change by change: paths can be far longer than the images are large.
    let mut comma = "";
    // The comparison returns the library's errors only, so an error of the output is kept here.
    let mut written = Ok(());
    let totals = diff::diff(&old, &new, |difference| {
        written = if arguments.json.json {
            let change = serde_json::to_string(&change(difference)).map_err(io::Error::from);
            change.and_then(|change| write!(out, "{comma}{change}"))
        } else {
            line(difference, &mut out)
        };
        comma = ",";
        match &written {
            Ok(()) => Ok(()),
            Err(_) => Err(Error::Interrupted),
        }
    });
    written?;
    let totals = totals?;
    if arguments.json.json {
        let totals = serde_json::to_string(&report(&totals))?;
        writeln!(out, "],{}", totals.trim_start_matches('{'))?;
    } else {
        summary(&totals, &mut out)?;
    }
    Ok(out.flush()?)
}

fn change(difference: &Difference<'_>) -> ChangeReport {
    ChangeReport {
        path: JsonPath::new(difference.path),
        change: match difference.change {
            Change::Added => "added",
            Change::Removed => "removed",
            Change::Changed => "changed",
        },
        what: difference.what.clone(),
        chunks: difference.chunks.map(SharedReport::from),
    }
}

fn report(totals: &Totals) -> Report {
    Report {
        added: totals.added,
        removed: totals.removed,
        changed: totals.changed,
        chunks: totals.chunks.into(),
    }
}

/// Prints one path: `M etc/passwd (contents, mtime), 4.0 KiB of 1.5 MiB new`.
fn line(difference: &Difference<'_>, out: &mut Output) -> io::Result<()> {
    out.write_all(match difference.change {
        Change::Added => b"+ ",
        Change::Removed => b"- ",
        Change::Changed => b"M ",
    })?;
    let path = out.name(difference.path);
    out.write_all(&path)?;
    if !difference.what.is_empty() {
        write!(out, " ({})", difference.what.join(", "))?;
    }
    if let Some(Shared { all, shared }) = difference.chunks {
        let (bytes, new) = (
            format::bytes(all.bytes),
            all.bytes.saturating_sub(shared.bytes),
        );
        write!(out, ", {} of {bytes} new", format::bytes(new))?;
    }
    writeln!(out)
}

fn summary(totals: &Totals, out: &mut Output) -> io::Result<()> {
    let Shared { all, shared } = totals.chunks;
    writeln!(
        out,
        "{} added, {} removed, {} changed; {} of {} shared, {} of {}",
        format::number(totals.added),
        format::number(totals.removed),
        format::number(totals.changed),
        format::number(shared.blobs),
        format::count(all.blobs, "chunk", "chunks"),
        format::bytes(shared.bytes),
        format::bytes(all.bytes)
    )
}
