// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs export`.

use crate::arguments::{target, JsonArg, QuietArg, PLATFORM};
use crate::output::{say, Output};
use crate::progress::Words;
use crate::{format, interrupt, progress};
use anyhow::Context;
use clap::{Args, ValueEnum};
use puzzlefs_lib::error::ReferenceError;
use puzzlefs_lib::export::{self, Compressor, Exported, LayerCompression, LayoutOptions};
use puzzlefs_lib::platform::Platform;
use puzzlefs_lib::tree::{find_any_image, AnyImage};
use puzzlefs_lib::{ImageRef, Progress, Store};
use serde::Serialize;
use std::ffi::OsString;
use std::fs::{File, Permissions};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Export an image as a tar archive or as an ordinary OCI image
///
/// The archive is in PAX format: extended attributes are records SCHILY.xattr.NAME, access control lists
/// records SCHILY.acl too. Holes are written as zeros. Members are in byte order of their paths, and the
/// archive depends on nothing but the image. An archive cannot hold sockets; they are reported and left
/// out. PATH is resolved as by 'extract'; members have their paths from there.
///
/// With --oci, the image keeps its configuration and history; entries of the history that had layers
/// become entries without. The layout may be a store of PuzzleFS images, in which the other tags stay.
///
/// If the export fails or is interrupted, FILE and TAG stay as they were. An archive on standard output
/// then has no end, which tar(1) reports.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit status: 0 the image was exported; 1 failed; 2 wrong usage; 130 interrupted.")]
pub struct ExportArgs {
    /// Image, and the file or directory of it to export [default: all of it]
    #[arg(value_name = "IMAGE[:PATH]")]
    image: OsString,
    /// Write the archive to this file instead of standard output
    #[arg(short, long, value_name = "FILE", conflicts_with = "oci")]
    output: Option<PathBuf>,
    /// Write an OCI image with one layer into this layout, created if it does not exist [default for
    /// TAG: the image's]
    #[arg(long, value_name = "DIR[:TAG]")]
    oci: Option<OsString>,
    /// Compress the archive or layer [default: none for an archive, gzip for a layer]
    #[arg(short, long, value_name = "METHOD")]
    compress: Option<Method>,
    /// Set the platform of the OCI image [default: the image's, otherwise this machine's]
    #[arg(long, value_name = PLATFORM, requires = "oci")]
    platform: Option<Platform>,
    #[command(flatten)]
    json: JsonArg,
    #[command(flatten)]
    quiet: QuietArg,
}

/// A compression.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Method {
    /// No compression
    None,
    /// gzip
    Gzip,
    /// zstd
    Zstd,
}

impl From<Method> for LayerCompression {
    fn from(method: Method) -> Self {
        match method {
            Method::None => LayerCompression::None,
            Method::Gzip => LayerCompression::Gzip,
            Method::Zstd => LayerCompression::Zstd,
        }
    }
}

const WORDS: Words = Words {
    counting: "exporting",
    things: ("entry", "entries"),
    doing: "exporting",
    done: "exported",
};

/// The object that `--json` prints. Fields are added, never renamed.
#[derive(Serialize)]
struct Report {
    entries: u64,
    bytes: u64,
    /// Sockets that were left out.
    sockets: u64,
    #[serde(flatten)]
    layout: Option<LayoutReport>,
}

/// The part of the object that is about a layout.
#[derive(Serialize)]
struct LayoutReport {
    store: String,
    tag: String,
    manifest_digest: String,
    layer_digest: String,
    layer_bytes: u64,
    diff_id: String,
}

/// Exports an image.
pub fn run(arguments: &ExportArgs) -> anyhow::Result<()> {
    let (image_ref, path) = ImageRef::parse_with_path(&arguments.image)?;
    let (store, image) = find_any_image(&image_ref)?;
    match &arguments.oci {
        Some(_) if path.is_some() => Err(ReferenceError::refused(
            &arguments.image,
            "a whole image is exported to a layout; give no path",
        )
        .into()),
        Some(layout) => {
            let (layout, tag) = target(layout, &image_ref)?;
            to_layout(arguments, &store, &image, &layout, &tag)
        }
        None => to_archive(arguments, &store, &image, path),
    }
}

fn to_layout(
    arguments: &ExportArgs,
    store: &Store,
    image: &AnyImage,
    layout: &Path,
    tag: &str,
) -> anyhow::Result<()> {
    let progress = interrupt::stoppable()?;
    let to = Store::create(layout)?;
    let options = LayoutOptions {
        compression: arguments.compress.map_or_else(Default::default, Into::into),
        platform: arguments.platform.clone(),
    };
    let summary = progress::shown_as(WORDS, &progress, arguments.quiet.quiet, || {
        export::export_layout(store, image, &to, tag, &options, &progress)
    })?;
    report_sockets(&summary.exported);
    let mut out = Output::new();
    let printed = if arguments.json.json {
        let layout = LayoutReport {
            store: layout.to_string_lossy().into_owned(),
            tag: tag.to_owned(),
            manifest_digest: summary.manifest.to_oci(),
            layer_digest: summary.layer.to_oci(),
            layer_bytes: summary.layer_size,
            diff_id: summary.diff_id.to_oci(),
        };
        out.json(&Report::new(&summary.exported, Some(layout)))
    } else if !arguments.quiet.quiet {
        let content = content(&summary.exported);
        let layer = format::bytes(summary.layer_size);
        let image = layout.display();
        writeln!(
            out,
            "{content}: {layer}\nimage {image}:{tag}, manifest sha256:{}",
            summary.manifest
        )
        .map_err(Into::into)
    } else {
        Ok(())
    };
    out.end(printed, || {
        format!("{}:{tag} is exported", layout.display())
    })
}

fn to_archive(
    arguments: &ExportArgs,
    store: &Store,
    image: &AnyImage,
    path: Option<&[u8]>,
) -> anyhow::Result<()> {
    let compression = arguments
        .compress
        .map_or(LayerCompression::None, Into::into);
    let export = |output: &mut dyn Write, progress: &Progress| -> anyhow::Result<Exported> {
        let mut output = Compressor::new(compression, output).context("cannot compress")?;
        let exported = progress::shown_as(WORDS, progress, arguments.quiet.quiet, || {
            export::export_tar(store, &image.root, path, &mut output, progress)
        })?;
        let output = output.finish().and_then(|output| output.flush());
        output.context("cannot write the archive")?;
        Ok(exported)
    };
    let Some(file) = &arguments.output else {
        if arguments.json.json {
            let what = "--json needs --output or --oci: the archive is on standard output";
            return Err(ReferenceError::refused(&arguments.image, what).into());
        }
        if io::stdout().is_terminal() {
            let what = "an archive is not written to a terminal; give --output FILE";
            return Err(ReferenceError::refused(&arguments.image, what).into());
        }
        let progress = interrupt::stoppable()?;
        let exported = export(&mut buffered(io::stdout().lock()), &progress)?;
        report_sockets(&exported);
        return Ok(());
    };
    let progress = interrupt::stoppable()?;
    let exported = into_file(file, |output| export(output, &progress))?;
    report_sockets(&exported);
    let mut out = Output::new();
    let printed = if arguments.json.json {
        out.json(&Report::new(&exported, None))
    } else if !arguments.quiet.quiet {
        writeln!(out, "{}", content(&exported)).map_err(Into::into)
    } else {
        Ok(())
    };
    out.end(printed, || format!("{} is exported", file.display()))
}

/// Writes a file that takes its name when it is complete. A device or a pipe is written directly.
fn into_file<T>(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let fail = |what: &'static str| {
        move |error: io::Error| anyhow::anyhow!("{}: cannot {what}: {error}", path.display())
    };
    if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
        let file = File::options().write(true).open(path);
        return write(&mut buffered(file.map_err(fail("open it"))?));
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let file = tempfile::Builder::new()
        .prefix(".puzzlefs-export-")
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(parent)
        .map_err(fail("make a file in its directory"))?;
    let result = write(&mut buffered(file.as_file()))?;
    file.as_file().sync_all().map_err(fail("write it"))?;
    file.persist(path)
        .map_err(|error| fail("name it")(error.error))?;
    Ok(result)
}

fn buffered<W: Write>(output: W) -> BufWriter<W> {
    BufWriter::with_capacity(256 << 10, output)
}

/// Reports the sockets that were left out.
fn report_sockets(exported: &Exported) {
    if exported.sockets == 0 {
        return;
    }
    let first = exported.first_sockets.iter();
    let mut paths: Vec<String> = first.map(|path| path.display().to_string()).collect();
    let rest = exported.sockets.saturating_sub(paths.len() as u64);
    if rest > 0 {
        paths.push(format!("and {} more", format::number(rest)));
    }
    let sockets = format::count(exported.sockets, "socket", "sockets");
    say(format_args!("left out {sockets}: {}", paths.join(", ")));
}

fn content(exported: &Exported) -> String {
    let entries = format::count(exported.entries, "entry", "entries");
    format!("{} in {entries}", format::bytes(exported.bytes))
}

impl Report {
    fn new(exported: &Exported, layout: Option<LayoutReport>) -> Self {
        Report {
            entries: exported.entries,
            bytes: exported.bytes,
            sockets: exported.sockets,
            layout,
        }
    }
}
