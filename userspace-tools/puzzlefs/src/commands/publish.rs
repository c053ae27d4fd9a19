// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs convert` of container images in registries and object stores.

use super::build::MakeArgs;
use super::convert::RemoteArgs;
use super::push::BlobsReport;
use crate::arguments::registry::RegistryArgs;
use crate::arguments::rules::RuleArgs;
use crate::output::Output;
use crate::progress::Words;
use crate::{interrupt, progress};
use puzzlefs_lib::error::SystemError;
use puzzlefs_lib::Store;
use puzzlefs_registry::{publish, PublishOptions, RemoteName};
use serde::Serialize;
use std::env;
use std::ffi::OsStr;
use std::io::Write;

const WORDS: Words = Words {
    counting: "connecting",
    things: ("item", "items"),
    doing: "publishing",
    done: "published",
};

/// The object that `--json` prints. Fields are added, never renamed.
#[derive(Serialize)]
struct Report {
    image: String,
    index_digest: String,
    variants: Vec<VariantReport>,
    #[serde(flatten)]
    blobs: BlobsReport,
    artifacts: u64,
    requests: u64,
    received_bytes: u64,
    sent_bytes: u64,
}

/// A PuzzleFS image.
#[derive(Serialize)]
struct VariantReport {
    platform: String,
    manifest_digest: String,
    rootfs_digest: String,
}

/// Publishes PuzzleFS images of a container image.
pub fn run(
    from: &OsStr,
    to: &OsStr,
    rules: &RuleArgs,
    making: &MakeArgs,
    remote: &RemoteArgs,
    registry: &RegistryArgs,
) -> anyhow::Result<()> {
    let connection = registry.options()?;
    let parse = |name| RemoteName::parse(name, connection.settings.search());
    let (from, to) = (parse(from)?, parse(to)?);
    let tag = to.target()?;
    let rules = rules.rules()?;
    let options = PublishOptions {
        connection,
        source_creds: remote.src_creds.clone(),
        platforms: remote.platform.clone(),
        build: making.options(tag, &rules)?,
    };
    let progress = interrupt::stoppable()?;
    // It disappears with this value, also after an error.
    let scratch;
    let path = match &remote.store {
        Some(path) => path.clone(),
        None => {
            scratch = tempfile::tempdir().map_err(|cause| SystemError::Call {
                path: env::temp_dir(),
                action: "create a temporary store in",
                cause,
            })?;
            scratch.path().join("store")
        }
    };
    let store = Store::create(&path)?;
    let published = progress::shown_as(WORDS, &progress, making.quiet.quiet, || {
        publish(&from, &to, &store, &options, &progress)
    })?;
    let pushed = published.pushed;
    let variants = published.variants.iter().map(|variant| VariantReport {
        platform: variant.platform.to_string(),
        manifest_digest: variant.manifest.to_oci(),
        rootfs_digest: variant.root.to_hex(),
    });
    let mut out = Output::new();
    let printed = if making.json.json {
        out.json(&Report {
            image: to.to_string(),
            index_digest: published.index.to_oci(),
            variants: variants.collect(),
            blobs: BlobsReport::of(&pushed),
            artifacts: published.artifacts,
            requests: pushed.traffic.requests,
            received_bytes: pushed.traffic.received,
            sent_bytes: pushed.traffic.sent,
        })
    } else if making.quiet.quiet {
        Ok(())
    } else {
        for variant in variants {
            writeln!(
                out,
                "{}: rootfs={}",
                variant.platform, variant.rootfs_digest
            )?;
        }
        let (new, shared) = (("pushed", pushed.new), ("shared", pushed.shared));
        out.counts(7, [new, shared, ("mounted", pushed.mounted)])?;
        Ok(writeln!(out, "{to}: sha256:{}", published.index)?)
    };
    out.end(printed, || format!("{to} is published"))
}
