// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs cat`.

use crate::output::Output;
use anyhow::bail;
use clap::Args;
use puzzlefs_lib::message::printable;
use puzzlefs_lib::path::LastLink;
use puzzlefs_lib::reader::{Blobs, ImageReader};
use puzzlefs_lib::{store, Error, ImageRef};
use puzzlefs_schema::FileType;
use std::ffi::OsString;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;

/// `puzzlefs cat`.
#[derive(Debug, Args)]
pub struct CatArgs {
    /// The image
    #[arg(value_name = "IMAGE")]
    pub image: OsString,
    /// The files, from the image's root; symbolic links are followed within the image
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<OsString>,
}

/// Writes files of an image to standard output, one after the other.
pub fn run(arguments: &CatArgs) -> anyhow::Result<()> {
    let (store, image) = store::find_image(&ImageRef::parse(&arguments.image)?)?;
    let reader = ImageReader::new(&store, &image)?;
    let mut blobs = Blobs::checked();
    let mut out = Output::new();
    for path in &arguments.paths {
        let path = path.as_bytes();
        let at = reader.resolve(path, LastLink::Follow)?;
        let inode = reader.checked(reader.metadata().inode_at(at))?;
        if inode.file_type() != FileType::File {
            bail!("{}: not a regular file in the image", printable(path));
        }
        // The reader has this crate's library's errors: what happens to the output is kept here.
        let mut written = Ok(());
        let read = reader.read_file(at, &mut blobs, |piece| {
            written = out.write_all(piece);
            match &written {
                Ok(()) => Ok(()),
                Err(_) => Err(Error::Interrupted),
            }
        });
        written?;
        read?;
    }
    Ok(out.flush()?)
}
