// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs extract`.

use crate::arguments::{JsonArg, QuietArg};
use crate::output::{say, JsonPath, Output};
use crate::progress::Words;
use crate::{format, interrupt, progress};
use anyhow::bail;
use clap::Args;
use puzzlefs_lib::extract::{self, Extracted, Refusal, RefusalKind};
use puzzlefs_lib::{ImageRef, Store};
use serde::Serialize;
use std::ffi::OsString;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Extract an image, or a part of it, into a directory
///
/// If PATH names a directory, its contents go into DIRECTORY. Any other file goes into DIRECTORY under
/// its own name. Symbolic links on the way are followed within the image; a link at the end is
/// extracted. If the text as a whole names an image of an existing store, there is no PATH. Otherwise
/// PATH begins after the first ':' that follows such an image.
///
/// Root restores owners, devices and all attributes. An ordinary user owns the extracted files, and
/// gets no devices and no attributes that only root may set. If the filesystem refuses an attribute, a
/// link, a name or a file, the extraction goes on; each kind of refusal is reported once, with a count
/// and the first paths. A refused hard link becomes a copy. Only a full filesystem, an unreadable image
/// or an interruption ends the extraction early; the files extracted by then stay.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit status: 0 everything was extracted, except for owners and attributes that take root; 1 something \
else was refused, or the extraction ended early; 2 wrong usage; 130 interrupted.")]
pub struct ExtractArgs {
    /// Image, and the file or directory of it to extract [default: all of it]
    #[arg(value_name = "IMAGE[:PATH]")]
    image: OsString,
    /// Directory to extract into; must be empty or not exist
    directory: PathBuf,
    #[command(flatten)]
    json: JsonArg,
    #[command(flatten)]
    quiet: QuietArg,
}

const WORDS: Words = Words {
    // The number of bytes is not known in advance, because files of an image may share extents.
    counting: "extracting",
    things: ("entry", "entries"),
    doing: "extracting",
    done: "extracted",
};

/// The object that `--json` prints. Fields are added, never renamed.
#[derive(Serialize)]
struct Report<'a> {
    entries: u64,
    bytes: u64,
    /// Inodes that kept this user as the owner.
    not_owned: u64,
    /// Names of devices that were left out.
    no_devices: u64,
    /// Inodes without extended attributes that could not be set.
    no_xattrs: u64,
    /// Everything that was refused.
    refused: Vec<RefusalReport<'a>>,
}

/// The refusals of one kind.
#[derive(Serialize)]
struct RefusalReport<'a> {
    kind: &'static str,
    count: u64,
    /// The first of them.
    first: Vec<FirstReport<'a>>,
}

#[derive(Serialize)]
struct FirstReport<'a> {
    #[serde(flatten)]
    path: JsonPath,
    cause: &'a str,
}

impl<'a> Report<'a> {
    fn new(extracted: &'a Extracted) -> Self {
        let refusals = &extracted.refusals;
        let refused = refusals.iter().map(|(kind, refusal)| RefusalReport {
            kind: kind.name(),
            count: refusal.count,
            first: refusal.first.iter().map(FirstReport::new).collect(),
        });
        Report {
            entries: extracted.entries,
            bytes: extracted.bytes,
            not_owned: refusals.count(RefusalKind::OwnerPrivilege)
                + refusals.count(RefusalKind::Owner),
            no_devices: refusals.count(RefusalKind::Device),
            no_xattrs: extracted.no_xattrs,
            refused: refused.collect(),
        }
    }
}

impl<'a> FirstReport<'a> {
    fn new((path, cause): &'a (PathBuf, String)) -> Self {
        FirstReport {
            path: JsonPath::new(path.as_os_str().as_bytes()),
            cause,
        }
    }
}

/// Extracts an image, or a part of it.
pub fn run(arguments: &ExtractArgs) -> anyhow::Result<()> {
    let (image, path) = ImageRef::parse_with_path(&arguments.image)?;
    let store = Store::open(&image.store)?;
    let root = store.any_root(&image.selector)?;
    let progress = interrupt::stoppable()?;
    let target = &arguments.directory;
    let extracted = progress::shown_as(WORDS, &progress, arguments.quiet.quiet, || {
        extract::extract(&store, &root, path, target, &progress)
    })?;
    let mut output = Output::new();
    if arguments.json.json {
        output.json(&Report::new(&extracted))?;
    } else if !arguments.quiet.quiet {
        let entries = format::count(extracted.entries, "entry", "entries");
        writeln!(output, "{} in {entries}", format::bytes(extracted.bytes))?;
    }
    output.flush()?;
    let mut unexpected = 0;
    for (kind, refusal) in extracted.refusals.iter() {
        say(refusal_line(kind, refusal));
        if !kind.is_expected() {
            unexpected += refusal.count;
        }
    }
    if unexpected > 0 {
        let refusals = format::count(unexpected, "refusal", "refusals");
        let target = target.display();
        bail!("{target}: extracted, but for {refusals}; each kind is listed above");
    }
    Ok(())
}

/// The line that reports the refusals of one kind.
fn refusal_line(kind: RefusalKind, refusal: &Refusal) -> String {
    let count = |one, many| format::count(refusal.count, one, many);
    let of_inodes = |what: &str| format!("cannot {what} of {}", count("inode", "inodes"));
    let what = match kind {
        RefusalKind::OwnerPrivilege | RefusalKind::Owner => of_inodes("set the owner"),
        RefusalKind::XattrPrivilege | RefusalKind::Xattr => of_inodes("set extended attributes"),
        RefusalKind::Acl => of_inodes("set access control lists"),
        RefusalKind::Permissions => of_inodes("set the permissions"),
        RefusalKind::Time => of_inodes("set the modification time"),
        RefusalKind::Link => {
            let names = count("hard link", "hard links");
            format!("cannot make {names}, so copies were made")
        }
        RefusalKind::File => format!("cannot extract {}", count("file", "files")),
        RefusalKind::Directory => {
            let directories = count("directory", "directories");
            format!("cannot extract {directories} with everything beneath")
        }
        RefusalKind::Symlink => {
            let links = count("symbolic link", "symbolic links");
            format!("cannot make {links}")
        }
        RefusalKind::Device => format!("cannot make {}", count("device", "devices")),
        RefusalKind::Special => {
            let special = count("named pipe or socket", "named pipes or sockets");
            format!("cannot make {special}")
        }
    };
    let first = refusal.first.iter();
    let mut causes: Vec<String> = first
        .map(|(path, cause)| format!("{}: {cause}", path.display()))
        .collect();
    let rest = refusal.count.saturating_sub(causes.len() as u64);
    if rest > 0 {
        causes.push(format!("and {} more", format::number(rest)));
    }
    format!("{what}: {}{}", causes.join(", "), remedy(kind))
}

/// The remedy for a kind of refusal.
fn remedy(kind: RefusalKind) -> &'static str {
    let privileged = rustix::process::geteuid().is_root();
    match kind {
        RefusalKind::OwnerPrivilege => "; extract as root to set owners",
        RefusalKind::XattrPrivilege => "; extract as root to set them",
        RefusalKind::Device if !privileged => "; extract as root to make devices",
        _ => "",
    }
}
