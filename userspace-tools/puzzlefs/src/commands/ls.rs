// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs ls`.

use crate::arguments::ImageArg;
use crate::format;
use crate::inode_report::{device, size, type_of, InodeReport};
use crate::output::{JsonPath, Output};
use clap::Args;
use puzzlefs_lib::path::LastLink;
use puzzlefs_lib::reader::ImageReader;
use puzzlefs_schema::{FileType, Inode, Kind, Locator};
use serde::Serialize;
use std::ffi::OsString;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;

/// List files in an image
///
/// A symbolic link as PATH is followed, unless --long is given.
#[derive(Debug, Args)]
pub struct LsArgs {
    #[command(flatten)]
    image: ImageArg,
    /// Directory or file, from the image's root
    #[arg(value_name = "PATH", default_value = "/")]
    path: OsString,
    /// Show mode, links, owner, group, size and time (UTC) too
    #[arg(short, long)]
    long: bool,
    /// List everything below a directory, each with its path from there
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Print one JSON object per file on standard output
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Entry {
    #[serde(flatten)]
    path: JsonPath,
    #[serde(flatten)]
    inode: InodeReport,
}

/// Lists a directory of an image, everything below it, or a file.
pub fn run(arguments: &LsArgs) -> anyhow::Result<()> {
    let (store, image) = arguments.image.find()?;
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
        // The visitor returns the library's errors only, so an error of the output is kept here.
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

/// Prints the columns before the name.
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
