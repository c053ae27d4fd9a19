// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs pull`.

use crate::arguments::registry::RegistryArgs;
use crate::arguments::{has_tag, JsonArg, QuietArg};
use crate::output::Output;
use crate::progress::Words;
use crate::{format, interrupt, progress};
use clap::Args;
use puzzlefs_lib::error::ReferenceError;
use puzzlefs_lib::{ImageRef, Selector, Store};
use puzzlefs_registry::{pull, RemoteImage};
use serde::Serialize;
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::PathBuf;

/// Pull an image from a registry: only data that the store lacks
///
/// Everything is verified before it enters the store. The tag is set last: if the pull fails or is
/// interrupted, it stays as it was. Data that has arrived remains, and another pull fetches the rest;
/// 'puzzlefs gc' removes it.
///
/// Of packs that the store has a part of, only missing chunks are fetched, to new packs. The image can then
/// be mounted, but other tools cannot copy it until 'puzzlefs complete' has run.
#[derive(Debug, Args)]
pub struct PullArgs {
    /// Image, docker://HOST:PORT/NAME:TAG or docker://HOST:PORT/NAME@sha256:DIGEST [default for TAG: latest]
    #[arg(value_name = "docker://HOST/NAME:TAG")]
    image: OsString,
    /// Store, created if it does not exist, and the tag to set there [default for TAG: the image's]
    #[arg(value_name = "STORE[:TAG]")]
    target: OsString,
    #[command(flatten)]
    registry: RegistryArgs,
    #[command(flatten)]
    json: JsonArg,
    #[command(flatten)]
    quiet: QuietArg,
}

const WORDS: Words = Words {
    counting: "connecting",
    things: ("blob", "blobs"),
    doing: "pulling",
    done: "pulled",
};

/// The object that `--json` prints. Fields are added, never renamed.
#[derive(Serialize)]
struct Report {
    store: String,
    tag: String,
    manifest_digest: String,
    new_blobs: u64,
    new_bytes: u64,
    shared_blobs: u64,
    shared_bytes: u64,
    partial_packs: u64,
    requests: u64,
    received_bytes: u64,
}

/// Pulls an image from a registry.
pub fn run(arguments: &PullArgs) -> anyhow::Result<()> {
    let image = RemoteImage::parse(&arguments.image)?;
    let (directory, tag) = target(&arguments.target, &image)?;
    let store = Store::create(&directory)?;
    let options = arguments.registry.options();
    let progress = interrupt::stoppable()?;
    let pulled = progress::shown_as(WORDS, &progress, arguments.quiet.quiet, || {
        pull(&image, &store, &tag, &options, &progress)
    })?;
    let fetched = pulled.fetched;
    let mut out = Output::new();
    let printed = if arguments.json.json {
        out.json(&Report {
            store: directory.to_string_lossy().into_owned(),
            tag,
            manifest_digest: fetched.manifest.to_oci(),
            new_blobs: fetched.new.blobs,
            new_bytes: fetched.new.bytes,
            shared_blobs: fetched.shared.blobs,
            shared_bytes: fetched.shared.bytes,
            partial_packs: fetched.partial_packs,
            requests: pulled.traffic.requests,
            received_bytes: pulled.traffic.received,
        })
    } else if arguments.quiet.quiet {
        Ok(())
    } else {
        out.counts(6, [("pulled", fetched.new), ("shared", fetched.shared)])?;
        let received = format::bytes(pulled.traffic.received);
        let requests = format::count(pulled.traffic.requests, "request", "requests");
        Ok(writeln!(out, "received: {received} in {requests}")?)
    };
    out.end(printed, || format!("{image} is pulled"))
}

/// Reads the target: a store and a tag, or a store alone.
fn target(target: &OsStr, image: &RemoteImage) -> anyhow::Result<(PathBuf, String)> {
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
