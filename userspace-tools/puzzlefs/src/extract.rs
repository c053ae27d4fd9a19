// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs extract`.

use crate::cli::ExtractArgs;
use crate::output::{say, Output};
use crate::progress::Words;
use crate::{format, progress, work};
use anyhow::bail;
use puzzlefs_lib::{extract, store, ImageRef};
use serde::Serialize;
use std::io::Write;

const WORDS: Words = Words {
    // How many bytes there are is not known before: files of an image may share what they hold.
    counting: "extracting",
    things: ("entry", "entries"),
    doing: "extracting",
    done: "extracted",
};

/// What `--json` prints. Fields are added, never renamed.
#[derive(Serialize)]
struct Report {
    entries: u64,
    bytes: u64,
    /// Inodes that kept this user as the owner.
    not_owned: u64,
    /// Names of devices that were left out.
    no_devices: u64,
    /// Inodes without extended attributes that could not be set.
    no_xattrs: u64,
}

/// Extracts an image.
pub fn run(arguments: &ExtractArgs) -> anyhow::Result<()> {
    let (store, image) = store::find_image(&ImageRef::parse(&arguments.image)?)?;
    let progress = work::stoppable()?;
    let extracted = progress::shown_as(WORDS, &progress, arguments.quiet, || {
        extract::extract(&store, &image, &arguments.directory, &progress)
    })?;
    let mut output = Output::new();
    if arguments.json {
        output.json(&Report {
            entries: extracted.entries,
            bytes: extracted.bytes,
            not_owned: extracted.not_owned,
            no_devices: extracted.no_devices,
            no_xattrs: extracted.no_xattrs,
        })?;
    } else if !arguments.quiet {
        let entries = format::count(extracted.entries, "entry", "entries");
        writeln!(output, "{} in {entries}", format::bytes(extracted.bytes))?;
    }
    output.flush()?;
    if extracted.not_owned > 0 {
        let inodes = format::count(extracted.not_owned, "inode", "inodes");
        say(format_args!(
            "{inodes} kept this user as the owner; extracting owners takes root"
        ));
    }
    if let Some(first) = &extracted.first_no_xattr {
        let inodes = format::count(extracted.no_xattrs, "inode is", "inodes are");
        let what = format!("{inodes} without extended attributes; the first: {first}");
        // Whoever is root gets all of them, unless the filesystem does not have them.
        if rustix::process::geteuid().is_root() {
            bail!("all else is extracted, but {what}");
        }
        say(what);
    }
    if extracted.no_devices > 0 {
        let devices = format::count(extracted.no_devices, "device was", "devices were");
        bail!("all is extracted, but {devices} left out; making devices takes root");
    }
    Ok(())
}
