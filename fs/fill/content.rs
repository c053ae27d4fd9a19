// SPDX-License-Identifier: GPL-2.0

//! The content of a regular file: its size, its open files, and in version 3 its chunks.
//!
//! The metadata of version 3 holds the chunks' lengths but not their offsets in the file.
//! [`ChunkTable`] keeps the offsets of some, evenly spaced, in a table of bounded size: a chunk is
//! found by binary search in the table and a short walk from there.

use super::extent_map::ExtentMap;
use crate::{base::fault::Fault, store::pins::Pins, vfs::prelude::*};
use kernel::sync::{Arc, SetOnce};
use puzzlefs_schema::{ExtentList, Inode, Metadata};

/// The largest number of chunk offsets that are kept of one file.
const MAX_CHECKPOINTS: usize = 256;

/// The smallest number of chunks of a file that has a table. Others are walked from the beginning.
const MIN_CHUNKS_INDEXED: usize = 16;

/// The chunks of a file of version 3.
pub(crate) struct ChunkTable {
    list: ExtentList,
    checkpoints: KVec<u64>,
}

impl ChunkTable {
    /// Returns the map of the file.
    pub(crate) fn map<'a>(&'a self, metadata: Metadata<'a>) -> ExtentMap<'a> {
        ExtentMap::Version3 {
            metadata,
            extents: metadata.extents(self.list),
            checkpoints: &self.checkpoints,
        }
    }
}

/// The content of a regular file.
pub(crate) struct Content {
    size: u64,
    /// The blobs that open files keep open, from the first open on.
    pins: SetOnce<Arc<Pins>>,
    /// True if the file's only chunk is all of a blob, once that is known.
    whole_blob: SetOnce<bool>,
}

impl Content {
    /// Makes the content of a file of a size.
    pub(crate) fn new(size: u64) -> Self {
        Self {
            size,
            pins: SetOnce::new(),
            whole_blob: SetOnce::new(),
        }
    }

    /// Reads the chunk lengths of an inode of version 3 once, for their sum and the table.
    pub(crate) fn index(inode: &Inode<'_>) -> Result<(Self, ChunkTable), Fault> {
        let extents = inode.extents()?;
        let mut checkpoints = KVec::new();
        if extents.len() >= MIN_CHUNKS_INDEXED {
            checkpoints = KVec::zeroed(extents.len().min(MAX_CHECKPOINTS), GFP_KERNEL)?;
        }
        let size = extents.index(&mut checkpoints)?;
        let list = extents.list();
        Ok((Self::new(size), ChunkTable { list, checkpoints }))
    }

    /// Returns the blobs that open files keep open, if a file was opened before.
    pub(super) fn pins(&self) -> Option<&Pins> {
        self.pins.as_ref().map(|pins| &**pins)
    }

    /// Returns the blobs that open files keep open, and makes an empty set at the first open.
    pub(super) fn pins_or_new(&self) -> Result<&Pins> {
        if self.pins.as_ref().is_none() {
            // Another thread may be first.
            self.pins.populate(Pins::new()?);
        }
        self.pins().ok_or(ENOMEM)
    }

    /// Returns the size of the file, in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Returns true if the file's only chunk is all of a blob; `None` if that is unknown.
    pub(crate) fn is_whole_blob(&self) -> Option<bool> {
        self.whole_blob.copy()
    }

    /// Notes that the file's only chunk is all of a blob, or not.
    pub(crate) fn set_whole_blob(&self, is_whole: bool) {
        // A thread that was first has found the same.
        self.whole_blob.populate(is_whole);
    }
}
