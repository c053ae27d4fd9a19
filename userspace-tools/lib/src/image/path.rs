// SPDX-License-Identifier: MIT OR Apache-2.0

//! Paths inside an image.
//!
//! A path is resolved in the metadata alone: a symbolic link leads to another place of the image,
//! never out of it, and `..` of the root is the root.

use crate::error::{Error, ImageError, PathFault, Result};
use crate::image::reader::ImageReader;
use puzzlefs_schema::{FileType, Locator, ROOT_INO};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// The largest number of symbolic links in a path, as in the kernel.
const LINKS_MAX: usize = 40;

/// The treatment of a symbolic link at the end of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastLink {
    /// It is followed, as `stat` does.
    Follow,
    /// The path means the link, as for `lstat`; unless a `/` comes after it.
    Keep,
}

impl ImageReader<'_> {
    /// Finds the inode of a path from the image's root, with or without a `/` in front.
    pub fn resolve(&self, path: &[u8], last: LastLink) -> Result<Locator> {
        let fail = |fault| {
            let path = PathBuf::from(OsStr::from_bytes(path));
            Error::from(ImageError::Path { path, fault })
        };
        let root = self.checked(self.metadata().find(ROOT_INO))?;
        // The directories from the root to here, and the rest of the path, last name first.
        let mut way = vec![root];
        let mut left: Vec<&[u8]> = path.split(|&byte| byte == b'/').rev().collect();
        let mut links = 0;
        // Set at the end, where the path leads to something that is no directory.
        let mut end = None;
        while let Some(name) = left.pop() {
            if end.is_some() {
                return Err(fail(PathFault::NotADirectory));
            }
            let here = way.last().copied().unwrap_or(root);
            match name {
                b"" | b"." => continue,
                b".." => {
                    if way.len() > 1 {
                        way.pop();
                    }
                    continue;
                }
                _ => {}
            }
            let Some(entry) = self.lookup(here, name)? else {
                return Err(fail(PathFault::NotFound));
            };
            match entry.file_type {
                FileType::Dir => way.push(entry.at),
                FileType::Symlink if !left.is_empty() || last == LastLink::Follow => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(fail(PathFault::TooManyLinks));
                    }
                    let inode = self.checked(self.metadata().inode_at(entry.at))?;
                    let target = self.checked(inode.symlink_target())?;
                    if target.first() == Some(&b'/') {
                        way.truncate(1);
                    }
                    left.extend(target.split(|&byte| byte == b'/').rev());
                }
                _ => end = Some(entry.at),
            }
        }
        Ok(end.or(way.last().copied()).unwrap_or(root))
    }
}
