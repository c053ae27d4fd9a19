// SPDX-License-Identifier: MIT OR Apache-2.0

//! Visits the tree of an image of format 3.

use crate::error::Result;
use crate::image::v3::reader::ImageReader;
use puzzlefs_schema::{DirEntry, FileType, Locator};
use std::collections::HashSet;
use std::vec;

/// A bounded way through the directories of an untrusted image: it enters each directory once, and
/// sees no more entries than the metadata has space for.
pub(crate) struct Descent<'r> {
    reader: &'r ImageReader<'r>,
    seen: HashSet<u64>,
    left: usize,
}

impl<'r> Descent<'r> {
    pub fn new(reader: &'r ImageReader<'r>) -> Self {
        Descent {
            reader,
            seen: HashSet::new(),
            left: reader.entries_max(),
        }
    }

    /// Enters a directory, and returns its entries.
    pub fn enter(&mut self, at: Locator) -> Result<Vec<DirEntry<'r>>> {
        let ino = self
            .reader
            .checked(self.reader.metadata().inode_at(at))?
            .ino();
        if !self.seen.insert(ino) {
            let what = format!("directory {ino} is in two places");
            return Err(self.reader.malformed_by(what));
        }
        let entries = self.reader.entries(at)?;
        self.left = self.left.checked_sub(entries.len()).ok_or_else(|| {
            let what = "its directories have more entries than the metadata can hold";
            self.reader.malformed_by(what)
        })?;
        Ok(entries)
    }
}

impl ImageReader<'_> {
    /// Passes each entry beneath the directory at a place to a function, with its path from there.
    /// A directory comes before its entries, and names come in byte order.
    ///
    /// Memory is taken by the way down and the numbers of the directories. A directory in two
    /// places is an error, because it could contain itself.
    pub fn visit<'r>(
        &'r self,
        at: Locator,
        mut give: impl FnMut(&[u8], &DirEntry<'r>) -> Result<()>,
    ) -> Result<()> {
        let mut descent = Descent::new(self);
        let mut path: Vec<u8> = Vec::new();
        // For each directory on the way down: its remaining entries, and the length of its path.
        let mut way: Vec<(vec::IntoIter<DirEntry<'r>>, usize)> = Vec::new();
        let mut next = Some(at);
        loop {
            if let Some(at) = next.take() {
                let entries = descent.enter(at)?;
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
                next = Some(entry.at);
            }
        }
    }
}
