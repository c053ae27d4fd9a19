// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs cat`.

use crate::arguments::ImageArg;
use crate::output::{say, Output};
use anyhow::bail;
use clap::Args;
use puzzlefs_lib::message::printable;
use puzzlefs_lib::path::LastLink;
use puzzlefs_lib::tree::{FileData, ImageTree};
use puzzlefs_lib::Error;
use puzzlefs_schema::Kind;
use std::ffi::OsString;
use std::io::Write;
use std::mem;
use std::os::unix::ffi::OsStrExt;

/// Write files of an image to standard output
///
/// Files that cannot be read are reported; the others are written.
#[derive(Debug, Args)]
pub struct CatArgs {
    #[command(flatten)]
    image: ImageArg,
    /// Paths from the image's root; symbolic links are followed within the image
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<OsString>,
}

/// Writes files of an image to standard output, one after the other. As with cat(1), an unreadable file
/// does not keep the others from being written.
pub fn run(arguments: &CatArgs) -> anyhow::Result<()> {
    let (store, root) = arguments.image.find_root()?;
    let tree = ImageTree::new(&store, &root)?;
    let mut data = FileData::checked();
    let mut out = Output::new();
    let mut failed = Ok(());
    for path in &arguments.paths {
        // The reader returns the library's errors only, so an error of the output is kept here.
        let mut written = Ok(());
        let read = read(&tree, path.as_bytes(), &mut data, |piece| {
            written = out.write_all(piece);
            match &written {
                Ok(()) => Ok(()),
                Err(_) => Err(Error::Interrupted),
            }
        });
        written?;
        if read.is_err() {
            // `main` reports the last one.
            if let Err(earlier) = mem::replace(&mut failed, read) {
                say(format_args!("{earlier:#}"));
            }
        }
    }
    out.flush()?;
    failed
}

/// Passes the contents of a file to `give`, piece by piece.
fn read(
    tree: &ImageTree<'_>,
    path: &[u8],
    data: &mut FileData,
    give: impl FnMut(&[u8]) -> puzzlefs_lib::Result<()>,
) -> anyhow::Result<()> {
    let inode = tree.resolve(path, LastLink::Follow)?;
    if tree.kind(&inode)? != Kind::File {
        bail!("{}: not a regular file in the image", printable(path));
    }
    Ok(tree.read_file(&inode, data, give)?)
}
