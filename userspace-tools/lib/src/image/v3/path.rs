// SPDX-License-Identifier: MIT OR Apache-2.0

//! Paths inside an image of format 3.
//!
//! A path is resolved in the metadata alone: a symbolic link leads to another place of the image,
//! never out of it, and `..` of the root is the root.

use crate::error::{Error, ImageError, PathFault, Result};
use crate::image::v3::reader::ImageReader;
use crate::model::path_walk::{LastLink, PathWalk, Step, Stop};
use puzzlefs_schema::{FileType, Locator, ROOT_INO};
use std::borrow::Cow;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

impl ImageReader<'_> {
    /// Finds the inode of a path from the image's root, with or without a `/` in front.
    pub fn resolve(&self, path: &[u8], last: LastLink) -> Result<Locator> {
        let fail = |fault| {
            let path = PathBuf::from(OsStr::from_bytes(path));
            Error::from(ImageError::Path { path, fault })
        };
        let root = self.checked(self.metadata().find(ROOT_INO))?;
        let mut walk = PathWalk::new(root, path.split(|&byte| byte == b'/'));
        let stop = walk.advance(|directory, name, is_last| {
            let Some(entry) = self.lookup(directory, name)? else {
                return Ok(Step::Missing);
            };
            let keep = is_last && last == LastLink::Keep;
            match entry.file_type {
                FileType::Dir => Ok(Step::Directory(entry.at)),
                FileType::Symlink if !keep => {
                    let inode = self.checked(self.metadata().inode_at(entry.at))?;
                    let target = self.checked(inode.symlink_target())?;
                    Ok(Step::Link(Cow::Borrowed(target)))
                }
                _ => Ok::<_, Error>(Step::Other(entry.at)),
            }
        })?;
        match stop {
            Stop::Directory(at) => Ok(at),
            Stop::Other(at, _) if walk.is_done() => Ok(at),
            Stop::Other(..) => Err(fail(PathFault::NotADirectory)),
            Stop::Missing(_) => Err(fail(PathFault::NotFound)),
            Stop::TooManyLinks => Err(fail(PathFault::TooManyLinks)),
        }
    }
}
