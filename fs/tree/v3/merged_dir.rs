// SPDX-License-Identifier: GPL-2.0

//! Directories that are merged from the layers of an image.

use crate::{base::fault::Fault, vfs::prelude::*};
use core::ops::ControlFlow;
use puzzlefs_schema::{Dir, DirEntry, DirLayer, Locator, Metadata, Order, Part};

/// A directory: a part for each layer that has it, the topmost first.
///
/// Reading the inode finds out whether the entries of a part are sorted by name. If they are not,
/// the directory has an index.
pub(crate) struct MergedDir {
    parts: KVec<Part<KVVec<u32>>>,
}

impl MergedDir {
    /// Reads the entries of a directory once, to check them and their order.
    pub(crate) fn new(metadata: &Metadata<'_>, at: Locator) -> Result<Self, Fault> {
        let mut parts = KVec::new();
        let mut layer = Some(metadata.dir_at(at)?);
        while let Some(part) = layer {
            parts.push(Part::new(&part, index(&part)?), GFP_KERNEL)?;
            layer = part.below()?;
        }
        Ok(Self { parts })
    }

    /// Returns the number of entries in all parts.
    pub(crate) fn len(&self) -> u64 {
        self.parts
            .iter()
            .fold(0, |sum, part| sum.saturating_add(part.len() as u64))
    }

    fn merged<'a, 'p>(
        &'p self,
        metadata: &Metadata<'a>,
    ) -> Result<Dir<'a, 'p, KVVec<u32>>, puzzlefs_schema::Error> {
        metadata.dir(&self.parts)
    }

    /// Returns the entry of a name; `None` if the directory has no such entry.
    pub(crate) fn lookup<'a>(
        &self,
        metadata: &Metadata<'a>,
        name: &[u8],
    ) -> Result<Option<DirEntry<'a>>, Fault> {
        Ok(self.merged(metadata)?.lookup(name)?)
    }

    /// Calls a function with each entry from a cursor on, until it returns `Break`.
    pub(crate) fn for_each<'a, B>(
        &self,
        metadata: &Metadata<'a>,
        cursor: u64,
        give: impl FnMut(DirEntry<'a>) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, Fault> {
        Ok(self.merged(metadata)?.for_each(cursor, give)?)
    }
}

/// Returns the index that a part of a directory needs to be searched, if it needs one.
fn index(part: &DirLayer<'_>) -> Result<Option<KVVec<u32>>, Fault> {
    match part.order()? {
        Order::Sorted => Ok(None),
        Order::Unsorted => {
            // The image chooses the size, and the task that looks into the directory is charged.
            let mut index = KVVec::zeroed(part.len(), GFP_KERNEL_ACCOUNT)?;
            part.sort_index(&mut index)?;
            Ok(Some(index))
        }
    }
}
