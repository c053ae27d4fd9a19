// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs inspect`: an image, which is one of format 4 in [`packed`]; [`path`] shows one file of it.

mod packed;
mod path;

use crate::arguments::{ImageArg, JsonArg};
use crate::format;
use crate::output::Output;
use clap::Args;
use puzzlefs_lib::config::{Configuration, History};
use puzzlefs_lib::message::printable;
use puzzlefs_lib::oci;
use puzzlefs_lib::platform::Platform;
use puzzlefs_lib::reader::{Counts, ImageReader};
use puzzlefs_lib::tree::AnyRoot;
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Write};

/// Show the properties of an image, or of a file in it
#[derive(Debug, Args)]
pub struct InspectArgs {
    #[command(flatten)]
    image: ImageArg,
    /// File in the image: show its inode, extended attributes and extents
    path: Option<OsString>,
    #[command(flatten)]
    json: JsonArg,
}

/// The object that `--json` prints of an image. Fields are added, never renamed.
#[derive(Serialize)]
struct Report {
    manifest_digest: String,
    rootfs_digest: String,
    rootfs_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    rootfs_verity: Option<String>,
    layers: u64,
    #[serde(flatten)]
    tree: TreeReport,
    chunks: u64,
    blobs: u64,
    blob_bytes: u64,
    /// Of the manifest.
    annotations: BTreeMap<String, String>,
    /// Of the index, with the tag by which the image was found.
    index_annotations: BTreeMap<String, String>,
    #[serde(flatten)]
    configuration: Option<Configured>,
}

/// The numbers of an image's tree, which images of both formats have.
#[derive(Serialize)]
struct TreeReport {
    inodes: u64,
    entries: u64,
    files: u64,
    directories: u64,
    symlinks: u64,
    special: u64,
    bytes: u64,
}

impl From<&Counts> for TreeReport {
    fn from(counts: &Counts) -> Self {
        TreeReport {
            inodes: counts.inodes,
            entries: counts.entries,
            files: counts.files,
            directories: counts.directories,
            symlinks: counts.symlinks,
            special: counts.special,
            bytes: counts.bytes,
        }
    }
}

impl TreeReport {
    fn print(&self, output: &mut Output) -> io::Result<()> {
        writeln!(
            output,
            "tree       {} in {}: {}, {}, {}, {} special",
            format::bytes(self.bytes),
            format::count(self.entries, "entry", "entries"),
            format::count(self.files, "file", "files"),
            format::count(self.directories, "directory", "directories"),
            format::count(self.symlinks, "symbolic link", "symbolic links"),
            self.special
        )
    }
}

/// The image's configuration, as `--json` prints it.
#[derive(Serialize)]
struct Configured {
    platform: Option<String>,
    created: Option<String>,
    author: Option<String>,
    entrypoint: Vec<String>,
    cmd: Vec<String>,
    env: Vec<String>,
    working_dir: Option<String>,
    user: Option<String>,
    exposed_ports: Vec<String>,
    volumes: Vec<String>,
    stop_signal: Option<String>,
    labels: BTreeMap<String, String>,
    history: Vec<History>,
}

impl From<Configuration> for Configured {
    fn from(configuration: Configuration) -> Self {
        let platform = configuration.platform().map(Platform::to_string);
        let run = configuration.config;
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        Configured {
            platform,
            created: given(configuration.created),
            author: given(configuration.author),
            entrypoint: run.entrypoint,
            cmd: run.cmd,
            env: run.env,
            working_dir: given(run.working_dir),
            user: given(run.user),
            exposed_ports: run.exposed_ports.into_keys().collect(),
            volumes: run.volumes.into_keys().collect(),
            stop_signal: given(run.stop_signal),
            labels: run.labels,
            history: configuration.history,
        }
    }
}

/// Prints the properties of an image, or of a file in it.
pub fn run(arguments: &InspectArgs) -> anyhow::Result<()> {
    match &arguments.path {
        Some(path) => path::run(arguments, path),
        None => image(arguments),
    }
}

/// Prints the properties of an image.
fn image(arguments: &InspectArgs) -> anyhow::Result<()> {
    let (store, image) = arguments.image.find_any()?;
    if let AnyRoot::V4(root) = image.root {
        return packed::run(arguments, &store, root, image.manifest, image.annotations);
    }
    let (store, image) = arguments.image.find()?;
    let counts = ImageReader::new(&store, &image)?.counts()?;
    let blobs = image.data_blobs();
    let report = Report {
        manifest_digest: image.manifest_digest.to_oci(),
        rootfs_digest: image.rootfs.to_hex(),
        rootfs_bytes: image.rootfs_size,
        rootfs_verity: image.rootfs_verity.map(|digest| digest.to_hex()),
        layers: counts.layers,
        tree: TreeReport::from(&counts),
        chunks: counts.chunks,
        blobs: blobs.clone().count() as u64,
        blob_bytes: blobs.map(|blob| blob.size).sum(),
        annotations: image.manifest.annotations.clone(),
        index_annotations: image.annotations.clone(),
        configuration: store.configuration(&image)?.map(Configured::from),
    };
    let mut output = Output::new();
    if arguments.json.json {
        output.json(&report)?;
        return Ok(output.flush()?);
    }
    writeln!(output, "manifest   {}", report.manifest_digest)?;
    writeln!(output, "rootfs     {}", report.rootfs_digest)?;
    if let Some(verity) = &report.rootfs_verity {
        writeln!(output, "fs-verity  {verity} (of the metadata blob)")?;
    }
    report.tree.print(&mut output)?;
    writeln!(output, "layers     {}", report.layers)?;
    writeln!(output, "metadata   {}", format::bytes(report.rootfs_bytes))?;
    writeln!(
        output,
        "data       {} in {}, named by {}",
        format::bytes(report.blob_bytes),
        format::count(report.blobs, "blob", "blobs"),
        format::count(report.chunks, "chunk", "chunks")
    )?;
    if let Some(configuration) = &report.configuration {
        show(configuration, &mut output)?;
    }
    show_annotations(&report.annotations, &report.index_annotations, &mut output)?;
    Ok(output.flush()?)
}

/// Prints the annotations of a manifest, and those of its descriptor in the index except for the tag.
fn show_annotations(
    of_manifest: &BTreeMap<String, String>,
    of_index: &BTreeMap<String, String>,
    output: &mut Output,
) -> io::Result<()> {
    for (kind, annotations) in [("annotation", of_manifest), ("index", of_index)] {
        for (key, value) in annotations {
            if kind != "index" || key != oci::REF_NAME {
                line(output, kind, &format!("{key}={value}"))?;
            }
        }
    }
    Ok(())
}

/// Prints a configuration.
fn show(configured: &Configured, output: &mut Output) -> io::Result<()> {
    let words = |words: &[String]| (!words.is_empty()).then(|| json!(words).to_string());
    for (name, value) in [
        ("platform", &configured.platform),
        ("created", &configured.created),
        ("author", &configured.author),
        ("entrypoint", &words(&configured.entrypoint)),
        ("cmd", &words(&configured.cmd)),
        ("workdir", &configured.working_dir),
        ("user", &configured.user),
        ("stop", &configured.stop_signal),
    ] {
        if let Some(value) = value {
            line(output, name, value)?;
        }
    }
    for (name, values) in [
        ("env", &configured.env),
        ("port", &configured.exposed_ports),
        ("volume", &configured.volumes),
    ] {
        for value in values {
            line(output, name, value)?;
        }
    }
    for (key, value) in &configured.labels {
        line(output, "label", &format!("{key}={value}"))?;
    }
    for entry in &configured.history {
        let created = entry.created.as_deref().unwrap_or("-");
        let by = entry.created_by.as_deref().unwrap_or("-");
        let comment = entry.comment.as_deref().filter(|text| !text.is_empty());
        let comment = comment.map_or(String::new(), |text| format!(" ({text})"));
        line(output, "history", &format!("{created} {by}{comment}"))?;
    }
    Ok(())
}

/// Prints a value that another tool wrote. It may hold any bytes.
fn line(output: &mut Output, name: &str, value: &str) -> io::Result<()> {
    writeln!(output, "{name:<10} {}", printable(value.as_bytes()))
}
