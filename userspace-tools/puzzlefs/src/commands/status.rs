// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs status`.

use crate::arguments::{JsonArg, StoreArg};
use crate::format;
use crate::output::{say, Output};
use anyhow::bail;
use clap::Args;
use puzzlefs_lib::error::FetchError;
use puzzlefs_lib::fetch::{
    fetch_status, Conversation, FetcherReply, FetcherRequest, FetcherStatus, ImageStatus,
};
use puzzlefs_lib::message::printable;
use puzzlefs_lib::{Error, Progress, Result, Store};
use serde::Serialize;
use std::io::Write;

/// Show the parts of images that a store has, and what its fetcher does
///
/// The images are those of format 4. 'local' counts the chunks that the store has, 'missing' the others. An
/// image is complete if none is missing. 'puzzlefs fetch' and 'puzzlefs mount --lazy' fetch the others
/// while the image is in use. Root, or the user of the fetcher, also sees the requests that wait, the
/// longest wait, the ranges in transfer, the bytes that have arrived since the fetcher's start, and its
/// last failure.
#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    store: StoreArg,
    #[command(flatten)]
    json: JsonArg,
}

/// The object that `--json` prints. Fields are added, never renamed.
#[derive(Serialize)]
struct Report<'a> {
    images: Vec<ImageReport<'a>>,
    /// Absent if no fetcher runs, or if it is a process of another user.
    #[serde(skip_serializing_if = "Option::is_none")]
    fetcher: Option<&'a FetcherStatus>,
    errors: Vec<String>,
}

#[derive(Serialize)]
struct ImageReport<'a> {
    tag: &'a str,
    manifest_digest: String,
    complete: bool,
    local_chunks: u64,
    local_bytes: u64,
    missing_chunks: u64,
    missing_bytes: u64,
    /// Packs whose chunks are not counted, because the store has neither the pack nor its index.
    unknown_packs: u64,
    /// The name of the image from which the rest is fetched.
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'a str>,
    /// True if a fetcher serves the image.
    served: bool,
}

/// Prints the state of a store.
pub fn run(arguments: &StatusArgs) -> anyhow::Result<()> {
    let store = arguments.store.open()?;
    // A fetcher that cannot be reached does not hide the state of the store.
    let (fetcher, unreachable) = match fetcher(&store) {
        Ok(fetcher) => (fetcher, None),
        Err(error) => (None, Some(error)),
    };
    let (images, mut errors) = fetch_status(&store)?;
    errors.extend(unreachable);
    let images: Vec<ImageReport<'_>> = images
        .iter()
        .map(|image| image_report(image, fetcher.as_ref()))
        .collect();
    let mut out = Output::new();
    if arguments.json.json {
        out.json(&Report {
            images,
            fetcher: fetcher.as_ref(),
            errors: errors.iter().map(ToString::to_string).collect(),
        })?;
    } else {
        table(&images, fetcher.as_ref(), &mut out)?;
    }
    out.flush()?;
    for error in &errors {
        say(error);
    }
    if !errors.is_empty() {
        bail!("the state is incomplete");
    }
    Ok(())
}

/// Asks the fetcher of a store. Returns `None` if there is none.
fn fetcher(store: &Store) -> Result<Option<FetcherStatus>> {
    let mut conversation = match Conversation::connect(store) {
        Ok(Some(conversation)) => conversation,
        Ok(None) | Err(Error::Fetch(FetchError::ForeignFetcher { .. })) => return Ok(None),
        Err(error) => return Err(error),
    };
    if conversation.send(&FetcherRequest::Status).is_err() {
        return Ok(None);
    }
    Ok(match conversation.receive(&Progress::default())? {
        Some(FetcherReply::Status(status)) => Some(status),
        _ => None,
    })
}

fn image_report<'a>(image: &'a ImageStatus, fetcher: Option<&FetcherStatus>) -> ImageReport<'a> {
    ImageReport {
        tag: &image.tag,
        manifest_digest: image.manifest.to_oci(),
        complete: image.is_complete(),
        local_chunks: image.local.blobs,
        local_bytes: image.local.bytes,
        missing_chunks: image.missing.blobs,
        missing_bytes: image.missing.bytes,
        unknown_packs: image.unknown_packs,
        source: image.record.as_ref().map(|record| &*record.image),
        served: fetcher.is_some_and(|fetcher| fetcher.tags.contains(&image.tag)),
    }
}

fn table(
    images: &[ImageReport<'_>],
    fetcher: Option<&FetcherStatus>,
    out: &mut Output,
) -> anyhow::Result<()> {
    let (local, missing, state) = ("local", "missing", "state");
    writeln!(out, "{local:>10}  {missing:>10}  {state:<11}  image")?;
    for image in images {
        let [local, missing] = [image.local_bytes, image.missing_bytes].map(format::bytes);
        let state = match (image.complete, image.served) {
            (true, _) => "complete",
            (false, true) => "in transfer",
            (false, false) => "incomplete",
        };
        let tag = printable(image.tag.as_bytes());
        write!(out, "{local:>10}  {missing:>10}  {state:<11}  {tag}")?;
        if let Some(source) = image.source {
            write!(out, " from {}", printable(source.as_bytes()))?;
        }
        if image.unknown_packs > 0 {
            let packs = format::count(image.unknown_packs, "pack", "packs");
            write!(out, " (and {packs} of unknown chunks)")?;
        }
        writeln!(out)?;
    }
    let Some(fetcher) = fetcher else {
        writeln!(out, "no fetcher answers")?;
        return Ok(());
    };
    let requests = format::count(fetcher.requests, "request waits", "requests wait");
    let transfers = format::count(fetcher.transfers, "range", "ranges");
    let bytes = format::bytes(fetcher.fetched_bytes);
    writeln!(
        out,
        "fetcher {}: {requests}, the longest for {:.1} s; {transfers} in transfer; {bytes} fetched",
        fetcher.process, fetcher.longest_wait_seconds
    )?;
    if let Some(error) = &fetcher.last_error {
        let message = printable(error.message.as_bytes());
        writeln!(
            out,
            "last failure, {:.0} s ago: {message}",
            error.seconds_ago
        )?;
    }
    Ok(())
}
