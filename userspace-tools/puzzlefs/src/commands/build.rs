// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs build`.

use crate::arguments::config::ConfigArgs;
use crate::arguments::encoding::EncodingArgs;
use crate::arguments::rules::RuleArgs;
use crate::arguments::{CheckArg, JobsArg, JsonArg, QuietArg};
use crate::output::{say, Output};
use crate::{format, interrupt, progress};
use clap::Args;
use puzzlefs_lib::builder::{self, BuildOptions, Count, Format, Summary};
use puzzlefs_lib::error::{ReferenceError, SystemError};
use puzzlefs_lib::rules::Rules;
use puzzlefs_lib::{ImageRef, Progress, Selector, Store};
use serde::Serialize;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Build an image of a directory tree or a tar archive
#[derive(Debug, Args)]
pub struct BuildArgs {
    /// Directory, or tar archive; '-' reads an archive from standard input
    ///
    /// Archives are plain or compressed with gzip, zstd, xz or bzip2.
    #[arg(value_name = "DIRECTORY|TAR|-")]
    source: PathBuf,
    /// Store, created if it does not exist, and the tag to set
    #[arg(value_name = "OCI-DIR:TAG")]
    image: OsString,
    /// Leave mount points below the directory empty
    #[arg(short = 'x', long)]
    one_file_system: bool,
    /// Read an archive past zero blocks, to the end of its file
    ///
    /// This reads concatenated archives, and archives without an end mark.
    #[arg(long)]
    ignore_zeros: bool,
    /// Leave out and report unreadable files and directories' contents
    #[arg(long)]
    skip_unreadable: bool,
    /// Read files that change up to N times more, 0 to 1000 [default: 0]
    ///
    /// This reads a file again that changes while it is read, and walks the tree again if files
    /// disappear.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1000))]
    retry_changed: Option<u32>,
    #[command(flatten)]
    rules: RuleArgs,
    #[command(flatten)]
    making: MakeArgs,
    // The heading of this group holds for everything that follows it, so the group is last.
    #[command(flatten)]
    config: ConfigArgs,
}

/// The part of the arguments that `build` and `import` share.
#[derive(Debug, Args)]
pub struct MakeArgs {
    #[command(flatten)]
    encoding: EncodingArgs,
    #[command(flatten)]
    jobs: JobsArg,
    #[command(flatten)]
    check: CheckArg,
    #[command(flatten)]
    pub json: JsonArg,
    #[command(flatten)]
    pub quiet: QuietArg,
}

impl MakeArgs {
    /// Returns the options of a build under a tag.
    pub fn options(&self, tag: &str, rules: &Rules) -> anyhow::Result<BuildOptions> {
        let encoding = &self.encoding;
        encoding.check()?;
        Ok(BuildOptions {
            format: encoding.format,
            fresh: encoding.fresh,
            parent: encoding.parent(),
            order: encoding.order()?,
            jobs: self.jobs.count(),
            rules: rules.clone(),
            base: encoding.base.clone(),
            layout: encoding.layout(),
            compression: encoding.compression(),
            check: self.check.check,
            ..BuildOptions::new(tag)
        })
    }
}

/// The object that `--json` prints. Fields are added, never renamed.
#[derive(Serialize)]
struct Report<'a> {
    store: String,
    tag: &'a str,
    format: u8,
    manifest_digest: String,
    manifest_verity: String,
    rootfs_digest: String,
    rootfs_bytes: u64,
    entries: u64,
    inodes: u64,
    files: u64,
    bytes: u64,
    chunks: u64,
    new_blobs: u64,
    new_bytes: u64,
    shared_blobs: u64,
    shared_bytes: u64,
    #[serde(flatten)]
    packed: Option<PackedReport>,
    /// Paths that were left out because they cannot be read.
    unreadable: u64,
    /// Files that changed while they were read, and were read again.
    read_again: u64,
    seconds: f64,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    remarks: &'a [String],
}

/// The part of the object that images of format 4 have. `new_blobs` and `shared_blobs` count packs.
#[derive(Serialize)]
struct PackedReport {
    new_chunks: u64,
    new_chunk_bytes: u64,
    shared_chunks: u64,
    shared_chunk_bytes: u64,
    /// Shared chunks whose contents were not compressed again, because the parent has them.
    reused_chunks: u64,
    reused_chunk_bytes: u64,
    /// Chunks of the parent that could not be read.
    parent_faults: u64,
}

/// Builds an image.
pub fn run(arguments: &BuildArgs) -> anyhow::Result<()> {
    let source = &arguments.source;
    let config = arguments.config.options()?;
    let retry_changed = arguments.retry_changed.unwrap_or(0);
    if (arguments.skip_unreadable || retry_changed > 0) && !source.is_dir() {
        let what = "--skip-unreadable and --retry-changed are for directories";
        return Err(ReferenceError::refused(source, what).into());
    }
    make(
        source,
        &arguments.image,
        &arguments.rules,
        &arguments.making,
        |store, mut options, progress| {
            options.one_file_system = arguments.one_file_system;
            options.ignore_zeros = arguments.ignore_zeros;
            options.config = config;
            options.skip_unreadable = arguments.skip_unreadable;
            options.retry_changed = retry_changed;
            builder::build(source, store, &options, progress)
        },
    )
}

/// Makes an image by `build`, and reports it.
pub fn make(
    source: &Path,
    image: &OsStr,
    rules: &RuleArgs,
    making: &MakeArgs,
    build: impl FnOnce(&Store, BuildOptions, &Progress) -> puzzlefs_lib::Result<Summary>,
) -> anyhow::Result<()> {
    let start = Instant::now();
    let image = ImageRef::parse(image)?;
    let Selector::Tag(tag) = &image.selector else {
        let what = "an image is built under a tag, <oci-dir>:<tag>";
        return Err(ReferenceError::refused(image.to_string(), what).into());
    };
    ImageRef::check_source(source.as_os_str())?;
    // A misspelt source must not create a store.
    if source != Path::new("-") {
        fs::metadata(source).map_err(|cause| SystemError::Call {
            path: source.to_path_buf(),
            action: "open the directory or archive to build from",
            cause,
        })?;
    }
    let rules = rules.rules()?;
    let progress = interrupt::stoppable()?;
    let options = making.options(tag, &rules)?;
    let store = match options.base {
        Some(_) => Store::open(&image.store)?,
        None => Store::create(&image.store)?,
    };
    let summary = progress::shown(&progress, making.quiet.quiet, || {
        build(&store, options, &progress)
    })?;
    warn(&summary);
    for pattern in rules.unmatched() {
        say(format_args!(
            "--exclude '{pattern}': there is nothing that matches"
        ));
    }
    let seconds = start.elapsed();
    let mut out = Output::new();
    let printed = if making.json.json {
        out.json(&report(&summary, store.path(), tag, seconds))
    } else if !making.quiet.quiet {
        print(&mut out, &summary, &image, seconds)
    } else {
        Ok(())
    };
    out.end(printed, || format!("{image} is built"))
}

/// Reports files that were left out of the image.
fn warn(summary: &Summary) {
    for cause in &summary.first_unreadable {
        say(format_args!("left out: {cause}"));
    }
    let rest = summary
        .unreadable
        .saturating_sub(summary.first_unreadable.len() as u64);
    if rest > 0 {
        say(format_args!("left out: {} more", format::number(rest)));
    }
    if let Some(path) = &summary.skipped_store {
        let path = path.display();
        say(format_args!(
            "{path}: it is the store: an empty directory in the image"
        ));
    }
    for path in &summary.skipped_mounts {
        let path = path.display();
        say(format_args!(
            "{path}: on another file system: an empty directory in the image"
        ));
    }
    for remark in &summary.remarks {
        say(remark);
    }
}

fn report<'a>(summary: &'a Summary, store: &Path, tag: &'a str, time: Duration) -> Report<'a> {
    Report {
        store: store.to_string_lossy().into_owned(),
        tag,
        format: summary.format.number(),
        manifest_digest: summary.manifest.to_oci(),
        manifest_verity: summary.manifest_verity.to_hex(),
        rootfs_digest: summary.rootfs.to_hex(),
        rootfs_bytes: summary.rootfs_size,
        entries: summary.entries,
        inodes: summary.inodes,
        files: summary.files,
        bytes: summary.bytes,
        chunks: summary.chunks,
        new_blobs: summary.new.blobs,
        new_bytes: summary.new.bytes,
        shared_blobs: summary.shared.blobs,
        shared_bytes: summary.shared.bytes,
        packed: (summary.format == Format::V4).then_some(PackedReport {
            new_chunks: summary.new_chunks.blobs,
            new_chunk_bytes: summary.new_chunks.bytes,
            shared_chunks: summary.shared_chunks.blobs,
            shared_chunk_bytes: summary.shared_chunks.bytes,
            reused_chunks: summary.reused_chunks.blobs,
            reused_chunk_bytes: summary.reused_chunks.bytes,
            parent_faults: summary.parent_faults,
        }),
        unreadable: summary.unreadable,
        read_again: summary.read_again,
        seconds: time.as_millis() as f64 / 1000.0,
        remarks: &summary.remarks,
    }
}

fn print(
    out: &mut Output,
    summary: &Summary,
    image: &ImageRef,
    time: Duration,
) -> anyhow::Result<()> {
    let (new, shared, nouns) = match summary.format {
        Format::V3 => (summary.new, summary.shared, ["blob", "blobs"]),
        Format::V4 => (
            summary.new_chunks,
            summary.shared_chunks,
            ["chunk", "chunks"],
        ),
    };
    let number = |count: u64| format::count(count, nouns[0], nouns[1]);
    writeln!(
        out,
        "{} in {}: {} in {}",
        format::bytes(summary.bytes),
        format::count(summary.entries, "entry", "entries"),
        format::bytes(new.bytes + shared.bytes),
        number(new.blobs + shared.blobs),
    )?;
    let mut counts = vec![("new", new), ("shared", shared)];
    if summary.reused_chunks.blobs > 0 {
        counts.push(("reused", summary.reused_chunks));
    }
    for (kind, Count { blobs, bytes }) in counts {
        let bytes = format::bytes(bytes);
        writeln!(out, "{kind:>8}: {bytes:>10} in {}", number(blobs))?;
    }
    writeln!(out, "metadata: {:>10}", format::bytes(summary.rootfs_size))?;
    if summary.format == Format::V4 {
        let (new, shared) = (summary.new.blobs, summary.shared.blobs);
        let packs = format::count(new + shared, "pack", "packs");
        writeln!(out, "{packs}, {} new", format::number(new))?;
    }
    writeln!(out, "image {image}, manifest sha256:{}", summary.manifest)?;
    writeln!(
        out,
        "rootfs={} ({:.2} s)",
        summary.rootfs,
        time.as_secs_f64()
    )?;
    Ok(())
}
