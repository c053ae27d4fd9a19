// SPDX-License-Identifier: MIT OR Apache-2.0

//! Visits the tree of an image of format 3.

use crate::error::Result;
use crate::image::v3::reader::ImageReader;
use puzzlefs_schema::{DirEntry, FileType, Locator};
use std::collections::HashSet;
use std::vec;

/// The limits of a way through the directories of an untrusted image.
pub(crate) struct DescentLimit {
    /// The numbers of the directories that were entered.
    seen: HashSet<u64>,
    /// The number of entries that can follow.
    left: usize,
}

impl DescentLimit {
    /// The limits of a way that sees so many entries at most.
    pub fn new(entries: usize) -> Self {
        DescentLimit {
            seen: HashSet::new(),
            left: entries,
        }
    }

    /// Counts a directory that is entered. Returns the violated rule if it was entered before.
    pub fn enter(&mut self, ino: u64) -> Result<(), String> {
        if self.seen.insert(ino) {
            return Ok(());
        }
        Err(format!("directory {ino} is in two places"))
    }

    /// Counts the entries of a directory. Returns the violated rule if they are too many.
    pub fn count(&mut self, entries: usize) -> Result<(), String> {
        let left = self.left.checked_sub(entries);
        self.left = left.ok_or("its directories have more entries than the metadata can hold")?;
        Ok(())
    }
}

/// A bounded way through the directories of an untrusted image: it enters each directory once, and
/// sees no more entries than the metadata has space for.
pub(crate) struct Descent<'r> {
    reader: &'r ImageReader<'r>,
    limit: DescentLimit,
}

impl<'r> Descent<'r> {
    pub fn new(reader: &'r ImageReader<'r>) -> Self {
        Descent {
            reader,
            limit: DescentLimit::new(reader.entries_max()),
        }
    }

    /// Enters a directory, and returns its entries.
    pub fn enter(&mut self, at: Locator) -> Result<Vec<DirEntry<'r>>> {
        let ino = self
            .reader
            .checked(self.reader.metadata().inode_at(at))?
            .ino();
        let malformed = |rule: String| self.reader.malformed_by(rule);
        self.limit.enter(ino).map_err(malformed)?;
        let entries = self.reader.entries(at)?;
        self.limit.count(entries.len()).map_err(malformed)?;
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
