// SPDX-License-Identifier: MIT OR Apache-2.0

//! Going through the tree of an image.

use crate::error::Result;
use crate::reader::ImageReader;
use puzzlefs_schema::{DirEntry, FileType, Locator};
use std::collections::HashSet;
use std::vec;

impl ImageReader<'_> {
    /// Gives everything beneath the directory at a place to a function: its path from there, and
    /// its entry. A directory comes before what is in it, names come in byte order.
    ///
    /// What is kept in memory is the way down and the numbers of the directories. An image that
    /// has a directory in two places, which could be one within itself, is an error.
    pub fn visit<'r>(
        &'r self,
        at: Locator,
        mut give: impl FnMut(&[u8], &DirEntry<'r>) -> Result<()>,
    ) -> Result<()> {
        let mut seen = HashSet::from([self.checked(self.metadata().inode_at(at))?.ino()]);
        let mut left = self.entries_max();
        let mut path: Vec<u8> = Vec::new();
        // For each directory on the way down: what is left of it, and the length of its path.
        let mut way: Vec<(vec::IntoIter<DirEntry<'r>>, usize)> = Vec::new();
        let mut next = Some(at);
        loop {
            if let Some(at) = next.take() {
                let entries = self.entries(at)?;
                left = left.checked_sub(entries.len()).ok_or_else(|| {
                    self.malformed_by("its directories have more entries than it has room for")
                })?;
                way.push((entries.into_iter(), path.len()));
            }
            let Some((entries, length)) = way.last_mut() else {
                return Ok(());
            };
            path.truncate(*length);
            let Some(entry) = entries.next() else {
                way.pop();
                continue;
            };
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(entry.name);
            give(&path, &entry)?;
            if entry.file_type == FileType::Dir {
                if !seen.insert(entry.ino) {
                    let what = format!("directory {} is in two places", entry.ino);
                    return Err(self.malformed_by(what));
                }
                next = Some(entry.at);
            }
        }
    }
}
