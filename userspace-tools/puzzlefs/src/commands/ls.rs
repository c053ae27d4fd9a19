// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs ls`.

use crate::arguments::ImageArg;
use crate::format;
use crate::inode_report::{device, size, type_of, InodeReport};
use crate::output::{JsonPath, Output};
use clap::Args;
use puzzlefs_lib::path::LastLink;
use puzzlefs_lib::tree::{ImageTree, TreeInode};
use puzzlefs_schema::Kind;
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
    let (store, root) = arguments.image.find_root()?;
    let tree = ImageTree::new(&store, &root)?;
    let path = arguments.path.as_bytes();
    let last = if arguments.long {
        LastLink::Keep
    } else {
        LastLink::Follow
    };
    let inode = tree.resolve(path, last)?;
    let mut out = Output::new();
    if tree.kind(&inode)? != Kind::Dir {
        show(&tree, arguments, path, || Ok(inode.clone()), &mut out)?;
    } else if arguments.recursive {
        // The visitor returns the library's errors only, so an error of the output is kept here.
        let mut written = Ok(());
        let visited = tree.visit(&inode, |path, entry| {
            let open = || tree.open(&entry.link);
            written = show(&tree, arguments, path, open, &mut out);
            match &written {
                Ok(()) => Ok(()),
                Err(_) => Err(puzzlefs_lib::Error::Interrupted),
            }
        });
        written?;
        visited?;
    } else {
        for entry in tree.entries(&inode)? {
            let open = || tree.open(&entry.link);
            show(&tree, arguments, &entry.name, open, &mut out)?;
        }
    }
    Ok(out.flush()?)
}

/// Prints a file. Its inode is opened only if more than the name is printed.
fn show(
    tree: &ImageTree<'_>,
    arguments: &LsArgs,
    path: &[u8],
    open: impl FnOnce() -> puzzlefs_lib::Result<TreeInode>,
    out: &mut Output,
) -> anyhow::Result<()> {
    if arguments.json {
        return out.json(&Entry {
            path: JsonPath::new(path),
            inode: InodeReport::new(tree, &open()?)?,
        });
    }
    let name = out.name(path);
    if arguments.long {
        let inode = open()?;
        long(tree, &inode, out)?;
        out.write_all(&name)?;
        if tree.kind(&inode)? == Kind::Symlink {
            let target = out.name(tree.symlink_target(&inode)?);
            out.write_all(b" -> ")?;
            out.write_all(&target)?;
        }
    } else {
        out.write_all(&name)?;
    }
    Ok(out.write_all(b"\n")?)
}

/// Prints the columns before the name.
fn long(tree: &ImageTree<'_>, inode: &TreeInode, out: &mut Output) -> anyhow::Result<()> {
    let stat = tree.stat(inode)?;
    let (letter, _) = type_of(stat.kind);
    let nlink = stat.links.map_or("?".to_owned(), |n| n.to_string());
    let size = match (device(stat.kind), size(&stat)) {
        (Some((major, minor)), _) => format!("{major}, {minor}"),
        (None, Some(size)) => size.to_string(),
        (None, None) => "-".to_owned(),
    };
    Ok(write!(
        out,
        "{} {nlink:>3} {:>5} {:>5} {size:>10} {} ",
        format::mode(letter, stat.permissions),
        stat.uid,
        stat.gid,
        format::time(stat.mtime.seconds)
    )?)
}
