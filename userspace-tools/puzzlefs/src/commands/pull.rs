// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs pull`.

use crate::arguments::registry::{RegistryArgs, FORM};
use crate::arguments::{has_tag, JobsArg, JsonArg, QuietArg, PLATFORM};
use crate::output::{say, Output};
use crate::progress::Words;
use crate::{format, interrupt, progress};
use clap::Args;
use puzzlefs_lib::builder::{BuildOptions, Count};
use puzzlefs_lib::error::ReferenceError;
use puzzlefs_lib::import::Obtained;
use puzzlefs_lib::platform::Platform;
use puzzlefs_lib::{Digest, ImageRef, Selector, Store};
use puzzlefs_registry::{objects, pull, PullOptions, RemoteName};
use serde::Serialize;
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::PathBuf;

/// Pull an image from a registry or an object store: only data that the store lacks
///
/// A PuzzleFS image is fetched, and an ordinary container image is imported, as by 'puzzlefs import'.
/// Where there are images of several platforms, that of this machine is pulled.
///
/// Everything is verified before it enters the store. The tag is set last: if the pull fails or is
/// interrupted, it stays as it was. Data that has arrived remains, and another pull fetches the rest;
/// 'puzzlefs gc' removes it.
///
/// Of packs that the store has a part of, only missing chunks are fetched, to new packs. The image can then
/// be mounted, but other tools cannot copy it until 'puzzlefs complete' has run.
#[derive(Debug, Args)]
pub struct PullArgs {
    /// Image in a registry, docker://HOST:PORT/NAME:TAG or docker://HOST:PORT/NAME@sha256:DIGEST, or in an
    /// image layout at the address s3://BUCKET/PREFIX:TAG, gs://…, az://…, abfs://…, file:///… or
    /// https://HOST/PATH:TAG [default for TAG: latest]
    #[arg(value_name = FORM)]
    image: OsString,
    /// Store, created if it does not exist, and the tag to set there [default for TAG: the image's]
    #[arg(value_name = "STORE[:TAG]")]
    target: OsString,
    /// Pull the image of this platform, such as linux/arm64 [default: this machine's]
    #[arg(long, value_name = PLATFORM)]
    platform: Option<Platform>,
    #[command(flatten)]
    jobs: JobsArg,
    #[command(flatten)]
    registry: RegistryArgs,
    #[command(flatten)]
    json: JsonArg,
    #[command(flatten)]
    quiet: QuietArg,
}

const WORDS: Words = Words {
    counting: "connecting",
    things: ("item", "items"),
    doing: "pulling",
    done: "pulled",
};

/// The object that `--json` prints. Fields are added, never renamed.
#[derive(Serialize)]
struct Report {
    image: String,
    store: String,
    tag: String,
    manifest_digest: String,
    source_digest: String,
    imported: bool,
    new_blobs: u64,
    new_bytes: u64,
    shared_blobs: u64,
    shared_bytes: u64,
    partial_packs: u64,
    requests: u64,
    received_bytes: u64,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    remarks: Vec<String>,
}

/// The part of a report that both kinds of images have.
struct Counts {
    manifest: Digest,
    new: Count,
    shared: Count,
    partial_packs: u64,
    remarks: Vec<String>,
}

impl Counts {
    fn of(obtained: Obtained) -> Self {
        match obtained {
            Obtained::Fetched(fetched) => Counts {
                manifest: fetched.manifest,
                new: fetched.new,
                shared: fetched.shared,
                partial_packs: fetched.partial_packs,
                remarks: Vec::new(),
            },
            Obtained::Known { manifest, shared } => Counts {
                manifest,
                new: Count::default(),
                shared,
                partial_packs: 0,
                remarks: Vec::new(),
            },
            Obtained::Imported(summary) => Counts {
                manifest: summary.manifest,
                new: summary.new,
                shared: summary.shared,
                partial_packs: 0,
                remarks: summary.remarks,
            },
        }
    }
}

/// Pulls an image from a registry.
pub fn run(arguments: &PullArgs) -> anyhow::Result<()> {
    let connection = arguments.registry.options()?;
    let image = RemoteName::parse(&arguments.image, connection.settings.search())?;
    let (directory, tag) = target(&arguments.target, &image)?;
    let store = Store::create(&directory)?;
    let options = PullOptions {
        connection,
        platform: arguments.platform.clone(),
        build: BuildOptions {
            jobs: arguments.jobs.count(),
            ..BuildOptions::new(&tag)
        },
    };
    let progress = interrupt::stoppable()?;
    let pulled = progress::shown_as(WORDS, &progress, arguments.quiet.quiet, || match &image {
        RemoteName::Registry(name) => pull(name, &store, &options, &progress),
        RemoteName::Objects(image) => objects::pull(image, &store, &options, &progress),
    })?;
    let place = pulled.image;
    let imported = !matches!(pulled.obtained, Obtained::Fetched(_));
    let counts = Counts::of(pulled.obtained);
    for remark in &counts.remarks {
        say(remark);
    }
    let mut out = Output::new();
    let printed = if arguments.json.json {
        out.json(&Report {
            image: place,
            store: directory.to_string_lossy().into_owned(),
            tag,
            manifest_digest: counts.manifest.to_oci(),
            source_digest: pulled.source.to_oci(),
            imported,
            new_blobs: counts.new.blobs,
            new_bytes: counts.new.bytes,
            shared_blobs: counts.shared.blobs,
            shared_bytes: counts.shared.bytes,
            partial_packs: counts.partial_packs,
            requests: pulled.traffic.requests,
            received_bytes: pulled.traffic.received,
            remarks: counts.remarks,
        })
    } else if arguments.quiet.quiet {
        Ok(())
    } else {
        let done = if imported { "imported" } else { "pulled" };
        out.counts(8, [(done, counts.new), ("shared", counts.shared)])?;
        let received = format::bytes(pulled.traffic.received);
        let requests = format::count(pulled.traffic.requests, "request", "requests");
        writeln!(out, "received: {received} in {requests}")?;
        if place != image.to_string() {
            writeln!(out, "{:>8}: {place}", "from")?;
        }
        Ok(())
    };
    out.end(printed, || format!("{image} is pulled"))
}

/// Reads the target: a store and a tag, or a store alone.
pub fn target(target: &OsStr, image: &RemoteName) -> anyhow::Result<(PathBuf, String)> {
    if has_tag(target) {
        if let ImageRef {
            store,
            selector: Selector::Tag(tag),
        } = ImageRef::parse(target)?
        {
            return Ok((store, tag));
        }
    } else if let Some(tag) = image.tag() {
        return Ok((PathBuf::from(target), ImageRef::parse_tag(OsStr::new(tag))?));
    }
    Err(ReferenceError::refused(target, "give a tag to set, <oci-dir>:<tag>").into())
}
