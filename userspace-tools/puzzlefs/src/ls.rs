// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs ls`.

use crate::format;
use crate::output::{hex_unless_text, JsonPath, Output};
use clap::Args;
use puzzlefs_lib::path::LastLink;
use puzzlefs_lib::reader::ImageReader;
use puzzlefs_lib::{store, ImageRef};
use puzzlefs_schema::{FileType, Inode, Kind, Locator};
use serde::Serialize;
use std::ffi::OsString;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;

/// `puzzlefs ls`.
#[derive(Debug, Args)]
pub struct LsArgs {
    /// The image
    #[arg(value_name = "IMAGE")]
    pub image: OsString,
    /// What to list, from the image's root
    #[arg(value_name = "PATH", default_value = "/")]
    pub path: OsString,
    /// Show mode, links, owner, group, size and time (UTC) too
    #[arg(short, long)]
    pub long: bool,
    /// List all that is beneath a directory, each with its path from there
    #[arg(short = 'R', long)]
    pub recursive: bool,
    /// Print one JSON object a line on standard output
    #[arg(long)]
    pub json: bool,
}

/// An inode, as `--json` prints it. Fields are added, never renamed.
#[derive(Serialize)]
pub struct InodeReport {
    ino: u64,
    #[serde(rename = "type")]
    file_type: &'static str,
    /// The permissions, in octal.
    mode: String,
    uid: u32,
    gid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    nlink: Option<u32>,
    /// For regular files.
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    mtime_seconds: i64,
    mtime_nanoseconds: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<(u32, u32)>,
    /// For symbolic links.
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    /// The target's bytes, where they are no text.
    #[serde(skip_serializing_if = "Option::is_none")]
    target_hex: Option<String>,
}

#[derive(Serialize)]
struct Entry {
    #[serde(flatten)]
    path: JsonPath,
    #[serde(flatten)]
    inode: InodeReport,
}

/// Lists a directory of an image, all beneath it, or a file.
pub fn run(arguments: &LsArgs) -> anyhow::Result<()> {
    let (store, image) = store::find_image(&ImageRef::parse(&arguments.image)?)?;
    let reader = ImageReader::new(&store, &image)?;
    let path = arguments.path.as_bytes();
    let last = if arguments.long {
        LastLink::Keep
    } else {
        LastLink::Follow
    };
    let at = reader.resolve(path, last)?;
    let mut out = Output::new();
    let inode = reader.checked(reader.metadata().inode_at(at))?;
    if inode.file_type() != FileType::Dir {
        show(&reader, arguments, path, at, &mut out)?;
    } else if arguments.recursive {
        // The visitor has this crate's library's errors: what happens to the output is kept here.
        let mut written = Ok(());
        let visited = reader.visit(at, |path, entry| {
            written = show(&reader, arguments, path, entry.at, &mut out);
            match &written {
                Ok(()) => Ok(()),
                Err(_) => Err(puzzlefs_lib::Error::Interrupted),
            }
        });
        written?;
        visited?;
    } else {
        for entry in reader.entries(at)? {
            show(&reader, arguments, entry.name, entry.at, &mut out)?;
        }
    }
    Ok(out.flush()?)
}

fn show(
    reader: &ImageReader<'_>,
    arguments: &LsArgs,
    path: &[u8],
    at: Locator,
    out: &mut Output,
) -> anyhow::Result<()> {
    let inode = || reader.checked(reader.metadata().inode_at(at));
    if arguments.json {
        return out.json(&Entry {
            path: JsonPath::new(path),
            inode: InodeReport::new(reader, &inode()?)?,
        });
    }
    let name = out.name(path);
    if arguments.long {
        let inode = inode()?;
        long(reader, &inode, out)?;
        out.write_all(&name)?;
        if inode.kind() == Kind::Symlink {
            let target = out.name(reader.checked(inode.symlink_target())?);
            out.write_all(b" -> ")?;
            out.write_all(&target)?;
        }
    } else {
        out.write_all(&name)?;
    }
    Ok(out.write_all(b"\n")?)
}

/// Prints what comes before the name.
fn long(reader: &ImageReader<'_>, inode: &Inode<'_>, out: &mut Output) -> anyhow::Result<()> {
    let (letter, _) = type_of(inode.kind());
    let nlink = inode.nlink().map_or("?".to_owned(), |n| n.to_string());
    let size = match (device(inode.kind()), size(reader, inode)?) {
        (Some((major, minor)), _) => format!("{major}, {minor}"),
        (None, Some(size)) => size.to_string(),
        (None, None) => "-".to_owned(),
    };
    let mtime = reader.checked(inode.mtime())?;
    Ok(write!(
        out,
        "{} {nlink:>3} {:>5} {:>5} {size:>10} {} ",
        format::mode(letter, inode.permissions()),
        inode.uid(),
        inode.gid(),
        format::time(mtime.seconds)
    )?)
}

impl InodeReport {
    /// Reads an inode.
    pub fn new(reader: &ImageReader<'_>, inode: &Inode<'_>) -> anyhow::Result<Self> {
        let mtime = reader.checked(inode.mtime())?;
        let target = match inode.kind() {
            Kind::Symlink => Some(reader.checked(inode.symlink_target())?),
            _ => None,
        };
        Ok(InodeReport {
            ino: inode.ino(),
            file_type: type_of(inode.kind()).1,
            mode: format!("{:04o}", inode.permissions()),
            uid: inode.uid(),
            gid: inode.gid(),
            nlink: inode.nlink(),
            size: size(reader, inode)?,
            mtime_seconds: mtime.seconds,
            mtime_nanoseconds: mtime.nanoseconds,
            device: device(inode.kind()),
            target: target.map(|target| String::from_utf8_lossy(target).into_owned()),
            target_hex: target.and_then(hex_unless_text),
        })
    }
}

/// The letter and the word for a type of file.
pub fn type_of(kind: Kind) -> (char, &'static str) {
    match kind {
        Kind::File => ('-', "file"),
        Kind::Dir => ('d', "directory"),
        Kind::Symlink => ('l', "symlink"),
        Kind::Chr { .. } => ('c', "character device"),
        Kind::Blk { .. } => ('b', "block device"),
        Kind::Fifo => ('p', "fifo"),
        Kind::Sock => ('s', "socket"),
        Kind::Whiteout => ('?', "whiteout"),
        Kind::Unknown => ('?', "unknown"),
    }
}

fn device(kind: Kind) -> Option<(u32, u32)> {
    match kind {
        Kind::Chr { major, minor } | Kind::Blk { major, minor } => Some((major, minor)),
        _ => None,
    }
}

/// The size of a regular file.
fn size(reader: &ImageReader<'_>, inode: &Inode<'_>) -> puzzlefs_lib::Result<Option<u64>> {
    match inode.kind() {
        Kind::File => reader.file_size(inode).map(Some),
        _ => Ok(None),
    }
}
