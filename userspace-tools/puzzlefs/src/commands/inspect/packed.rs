// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs inspect IMAGE`: an image of format 4.

use super::{show, show_annotations, Configured, InspectArgs, TreeReport};
use crate::format;
use crate::output::Output;
use puzzlefs_lib::builder::Count;
use puzzlefs_lib::chunk_map::{chunk_map, ChunkMap};
use puzzlefs_lib::oci::Manifest;
use puzzlefs_lib::tree::{AnyRoot, ChunkRoot, ImageTree};
use puzzlefs_lib::Store;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{self, Write};

/// The object that `--json` prints. Fields are added, never renamed.
#[derive(Serialize)]
struct Report {
    manifest_digest: String,
    rootfs_digest: String,
    #[serde(flatten)]
    tree: TreeReport,
    extents: u64,
    blocks: u64,
    metadata_chunks: u64,
    metadata_bytes: u64,
    metadata_stored_bytes: u64,
    data_chunks: u64,
    data_bytes: u64,
    data_stored_bytes: u64,
    packs: Vec<PackReport>,
    loose_chunks: u64,
    loose_bytes: u64,
    missing_chunks: u64,
    missing_bytes: u64,
    /// Of the manifest.
    annotations: BTreeMap<String, String>,
    /// Of the index, with the tag by which the image was found.
    index_annotations: BTreeMap<String, String>,
    #[serde(flatten)]
    configuration: Option<Configured>,
}

/// A pack that the manifest lists, or that has chunks of the image.
#[derive(Serialize)]
struct PackReport {
    digest: String,
    /// The manifest lists it.
    listed: bool,
    /// The chunks of the image in it.
    chunks: u64,
    bytes: u64,
}

/// Prints the properties of an image.
pub fn run(
    arguments: &InspectArgs,
    store: &Store,
    root: ChunkRoot,
    manifest: Manifest,
    index_annotations: BTreeMap<String, String>,
) -> anyhow::Result<()> {
    let configuration = store.configuration_of(&root.manifest_digest, &manifest)?;
    let manifest_digest = root.manifest_digest.to_oci();
    let rootfs_digest = root.root.to_hex();
    let tree = ImageTree::new(store, &AnyRoot::V4(root))?;
    let map = match tree.v4() {
        Some(tree) => chunk_map(tree)?,
        None => ChunkMap::default(),
    };
    let listed = manifest.layers.iter();
    let listed = listed.map(|layer| layer.digest.trim_start_matches("sha256:").to_owned());
    let report = Report {
        manifest_digest,
        rootfs_digest,
        tree: TreeReport::from(&map.counts),
        extents: map.counts.chunks,
        blocks: map.blocks,
        metadata_chunks: map.metadata.stored.blobs,
        metadata_bytes: map.metadata.content_bytes,
        metadata_stored_bytes: map.metadata.stored.bytes,
        data_chunks: map.data.stored.blobs,
        data_bytes: map.data.content_bytes,
        data_stored_bytes: map.data.stored.bytes,
        packs: packs(&map, listed.collect()),
        loose_chunks: map.loose.blobs,
        loose_bytes: map.loose.bytes,
        missing_chunks: map.missing.blobs,
        missing_bytes: map.missing.bytes,
        annotations: manifest.annotations,
        index_annotations,
        configuration: configuration.map(Configured::from),
    };
    let mut output = Output::new();
    if arguments.json.json {
        output.json(&report)?;
    } else {
        print(&report, &mut output)?;
    }
    Ok(output.flush()?)
}

/// Returns the packs: those that the manifest lists in its order, then those that have chunks, too.
fn packs(map: &ChunkMap, listed: Vec<String>) -> Vec<PackReport> {
    let mut counts: BTreeMap<String, Count> = BTreeMap::new();
    counts.extend(
        map.packs
            .iter()
            .map(|(pack, count)| (pack.to_hex(), *count)),
    );
    let report = |digest: String, listed, count: Count| PackReport {
        digest,
        listed,
        chunks: count.blobs,
        bytes: count.bytes,
    };
    let mut packs = Vec::new();
    for digest in listed {
        let count = counts.remove(&digest).unwrap_or_default();
        packs.push(report(digest, true, count));
    }
    let others = counts.into_iter();
    packs.extend(others.map(|(digest, count)| report(digest, false, count)));
    packs
}

fn print(report: &Report, output: &mut Output) -> io::Result<()> {
    writeln!(output, "manifest   {}", report.manifest_digest)?;
    writeln!(output, "root       {}", report.rootfs_digest)?;
    report.tree.print(output)?;
    writeln!(
        output,
        "metadata   {} in {}, {} of them blocks; {} stored",
        format::bytes(report.metadata_bytes),
        format::count(report.metadata_chunks, "chunk", "chunks"),
        format::number(report.blocks),
        format::bytes(report.metadata_stored_bytes)
    )?;
    writeln!(
        output,
        "data       {} in {}, named by {}; {} stored",
        format::bytes(report.data_bytes),
        format::count(report.data_chunks, "chunk", "chunks"),
        format::count(report.extents, "extent", "extents"),
        format::bytes(report.data_stored_bytes)
    )?;
    for pack in &report.packs {
        let chunks = chunks(pack.chunks, pack.bytes);
        let note = if pack.listed {
            ""
        } else {
            ", not in the manifest"
        };
        writeln!(output, "pack       {}: {chunks}{note}", pack.digest)?;
    }
    for (name, count, bytes) in [
        ("loose", report.loose_chunks, report.loose_bytes),
        ("missing", report.missing_chunks, report.missing_bytes),
    ] {
        if count > 0 {
            writeln!(output, "{name:<10} {}", chunks(count, bytes))?;
        }
    }
    if let Some(configuration) = &report.configuration {
        show(configuration, output)?;
    }
    show_annotations(&report.annotations, &report.index_annotations, output)
}

fn chunks(count: u64, bytes: u64) -> String {
    format!(
        "{} in {}",
        format::bytes(bytes),
        format::count(count, "chunk", "chunks")
    )
}
