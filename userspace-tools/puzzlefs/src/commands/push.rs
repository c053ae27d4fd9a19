// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs push`.

use crate::arguments::registry::{RegistryArgs, FORM};
use crate::arguments::{ImageArg, JsonArg, QuietArg};
use crate::output::Output;
use crate::progress::Words;
use crate::{interrupt, progress};
use clap::Args;
use puzzlefs_lib::error::ReferenceError;
use puzzlefs_registry::{objects, push, Pushed, RemoteName};
use serde::Serialize;
use std::ffi::OsString;

/// Push an image to a registry or an object store: only blobs that it lacks
///
/// The tag is set last: if the push fails or is interrupted, the tag there stays as it was, and another push
/// continues with the next blob. An image whose packs are missing is refused; run 'puzzlefs
/// complete' first.
#[derive(Debug, Args)]
pub struct PushArgs {
    #[command(flatten)]
    image: ImageArg,
    /// Name in a registry, docker://HOST:PORT/NAME:TAG, or the address of an image layout in an object store,
    /// s3://BUCKET/PREFIX:TAG, gs://…, az://…, abfs://… or file:///… [default for TAG: latest]
    #[arg(value_name = FORM)]
    target: OsString,
    /// Take blobs from this repository of the same registry, if it has them and the registry permits it
    #[arg(long, value_name = "NAME")]
    mount_from: Option<String>,
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
    doing: "pushing",
    done: "pushed",
};

/// The object that `--json` prints. Fields are added, never renamed.
#[derive(Serialize)]
struct Report {
    image: String,
    manifest_digest: String,
    #[serde(flatten)]
    blobs: BlobsReport,
    requests: u64,
    sent_bytes: u64,
}

/// The blobs of an upload, in the reports of `push` and `convert`.
#[derive(Serialize)]
pub struct BlobsReport {
    new_blobs: u64,
    new_bytes: u64,
    shared_blobs: u64,
    shared_bytes: u64,
    mounted_blobs: u64,
    mounted_bytes: u64,
}

impl BlobsReport {
    pub fn of(pushed: &Pushed) -> Self {
        BlobsReport {
            new_blobs: pushed.new.blobs,
            new_bytes: pushed.new.bytes,
            shared_blobs: pushed.shared.blobs,
            shared_bytes: pushed.shared.bytes,
            mounted_blobs: pushed.mounted.blobs,
            mounted_bytes: pushed.mounted.bytes,
        }
    }
}

/// Pushes an image to a registry.
pub fn run(arguments: &PushArgs) -> anyhow::Result<()> {
    let options = arguments.registry.options()?;
    let target = RemoteName::parse(&arguments.target, options.settings.search())?;
    let mount_from = arguments.mount_from.as_deref();
    let source = match (&target, mount_from) {
        (_, None) => None,
        (RemoteName::Registry(name), Some(source)) => Some(name.target()?.sibling(source)?),
        (RemoteName::Objects(_), Some(_)) => {
            let what = "--mount-from is for registries";
            return Err(ReferenceError::refused(&arguments.target, what).into());
        }
    };
    let (store, image) = arguments.image.find_any()?;
    let progress = interrupt::stoppable()?;
    let pushed = progress::shown_as(WORDS, &progress, arguments.quiet.quiet, || match &target {
        RemoteName::Registry(name) => push(
            &store,
            &image,
            name.target()?,
            source.as_ref(),
            &options,
            &progress,
        ),
        RemoteName::Objects(to) => objects::push(&store, &image, to, &options, &progress),
    })?;
    let mut out = Output::new();
    let printed = if arguments.json.json {
        out.json(&Report {
            image: target.to_string(),
            manifest_digest: image.root.manifest_digest().to_oci(),
            blobs: BlobsReport::of(&pushed),
            requests: pushed.traffic.requests,
            sent_bytes: pushed.traffic.sent,
        })
    } else if arguments.quiet.quiet {
        Ok(())
    } else {
        let (new, shared) = (("pushed", pushed.new), ("shared", pushed.shared));
        let counts = match source {
            Some(_) => out.counts(7, [new, shared, ("mounted", pushed.mounted)]),
            None => out.counts(6, [new, shared]),
        };
        Ok(counts?)
    };
    out.end(printed, || format!("{target} is pushed"))
}
