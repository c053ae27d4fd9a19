// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs inspect` and `puzzlefs resolve`.

use crate::cli::{InspectArgs, ResolveArgs};
use crate::format;
use crate::output::Output;
use puzzlefs_lib::reader::ImageReader;
use puzzlefs_lib::{store, ImageRef};
use serde::Serialize;
use std::io::Write;

/// What `inspect --json` prints. Fields are added, never renamed.
#[derive(Serialize)]
struct Report {
    manifest_digest: String,
    rootfs_digest: String,
    rootfs_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    rootfs_verity: Option<String>,
    layers: u64,
    inodes: u64,
    entries: u64,
    files: u64,
    directories: u64,
    symlinks: u64,
    special: u64,
    bytes: u64,
    chunks: u64,
    blobs: u64,
    blob_bytes: u64,
}

/// Prints the digest of an image's metadata blob.
pub fn resolve(arguments: &ResolveArgs) -> anyhow::Result<()> {
    let (_, image) = store::find_image(&ImageRef::parse(&arguments.image)?)?;
    let mut output = Output::new();
    writeln!(output, "{}", image.rootfs)?;
    Ok(output.flush()?)
}

/// Prints what an image is.
pub fn inspect(arguments: &InspectArgs) -> anyhow::Result<()> {
    let (store, image) = store::find_image(&ImageRef::parse(&arguments.image)?)?;
    let counts = ImageReader::new(&store, &image)?.counts()?;
    let blobs = image.data_blobs();
    let report = Report {
        manifest_digest: image.manifest_digest.to_oci(),
        rootfs_digest: image.rootfs.to_hex(),
        rootfs_bytes: image.rootfs_size,
        rootfs_verity: image.rootfs_verity.map(|digest| digest.to_hex()),
        layers: counts.layers,
        inodes: counts.inodes,
        entries: counts.entries,
        files: counts.files,
        directories: counts.directories,
        symlinks: counts.symlinks,
        special: counts.special,
        bytes: counts.bytes,
        chunks: counts.chunks,
        blobs: blobs.clone().count() as u64,
        blob_bytes: blobs.map(|blob| blob.size).sum(),
    };
    let mut output = Output::new();
    if arguments.json {
        output.json(&report)?;
        return Ok(output.flush()?);
    }
    writeln!(output, "manifest  {}", report.manifest_digest)?;
    writeln!(output, "rootfs    {}", report.rootfs_digest)?;
    if let Some(verity) = &report.rootfs_verity {
        writeln!(output, "fs-verity {verity} (of the metadata blob)")?;
    }
    writeln!(
        output,
        "tree      {} in {}: {}, {}, {}, {} special",
        format::bytes(report.bytes),
        format::count(report.entries, "entry", "entries"),
        format::count(report.files, "file", "files"),
        format::count(report.directories, "directory", "directories"),
        format::count(report.symlinks, "symbolic link", "symbolic links"),
        report.special
    )?;
    writeln!(output, "layers    {}", report.layers)?;
    writeln!(output, "metadata  {}", format::bytes(report.rootfs_bytes))?;
    writeln!(
        output,
        "data      {} in {}, named by {}",
        format::bytes(report.blob_bytes),
        format::count(report.blobs, "blob", "blobs"),
        format::count(report.chunks, "chunk", "chunks")
    )?;
    Ok(output.flush()?)
}
