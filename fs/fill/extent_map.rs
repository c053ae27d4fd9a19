// SPDX-License-Identifier: GPL-2.0

//! The map of a regular file: from offsets in the file to stored bytes, in both versions.

use crate::{base::fault::Fault, store::opening::Opening};
use core::ops::ControlFlow;
use puzzlefs_schema::{
    v4::{self, ChunkRef, ExtentData},
    Chunk, Extents, Metadata,
};

/// The extents of one regular file of version 4.
pub(crate) trait ExtentSource {
    /// Gives the extents of the file in order, from the one that contains `offset` on, until `give`
    /// returns `Break` or the file ends.
    ///
    /// With [`Opening::Now`] the caller has folios locked, and nothing is read from the store.
    ///
    /// # Errors
    ///
    /// [`Fault::NotOpen`] if extents must be read from the store first, and the caller does not
    /// wait; other faults if they cannot be read.
    fn for_each_extent(
        &self,
        offset: u64,
        how: Opening,
        give: &mut dyn FnMut(&v4::Extent) -> ControlFlow<()>,
    ) -> Result<(), Fault>;

    /// Gives bytes that determine the content of the file: files that give equal bytes have equal
    /// content. Reads no list blocks.
    fn identify(&self, give: &mut dyn FnMut(&[u8])) -> Result<(), Fault>;
}

/// A part of a file that is stored in one place.
pub(super) struct Extent {
    /// The start of the part in the file.
    pub(super) start: u64,
    /// The number of bytes.
    pub(super) len: u64,
    pub(super) data: ExtentPlace,
}

/// The place of an extent's bytes.
#[derive(Clone, Copy)]
pub(super) enum ExtentPlace {
    /// Nothing is stored, and the bytes are zeros.
    Hole,
    /// A range of the content of a blob of version 3.
    Blob(Chunk),
    /// The bytes from an offset on of the content of a chunk of version 4.
    Chunk { chunk: ChunkRef, offset: u32 },
}

/// The map of a regular file.
#[derive(Clone, Copy)]
pub(crate) enum ExtentMap<'a> {
    /// Version 3: the chunks, and the offsets in the file of some of them.
    Version3 {
        /// Has the fs-verity digests of blobs.
        metadata: Metadata<'a>,
        extents: Extents<'a>,
        checkpoints: &'a [u64],
    },
    /// Version 4.
    Version4(&'a dyn ExtentSource),
}

/// A walk through the extents of a file.
pub(super) struct ExtentWalk<'a> {
    map: ExtentMap<'a>,
    /// The offset in the file from which on extents are given next.
    next: u64,
    /// Version 3: the next chunk, and its offset in the file, once they are known.
    chunk: Option<(usize, u64)>,
}

impl<'a> ExtentMap<'a> {
    /// Starts a walk at the extent that contains an offset in the file.
    pub(super) fn walk(self, offset: u64) -> ExtentWalk<'a> {
        ExtentWalk {
            map: self,
            next: offset,
            chunk: None,
        }
    }

    /// Returns the extent that contains an offset in the file.
    pub(super) fn find(self, offset: u64, how: Opening) -> Result<Option<Extent>, Fault> {
        let mut found = None;
        // The walk ends at the first extent.
        let _ = self.walk(offset).for_each(how, |extent| {
            found = Some(extent);
            ControlFlow::Break(())
        })?;
        Ok(found)
    }
}

impl ExtentWalk<'_> {
    /// Gives the next extents until `give` returns `Break`. A later call continues behind them.
    ///
    /// Returns `Continue` if there are no more.
    ///
    /// # Errors
    ///
    /// Those of malformed metadata, and of [`ExtentSource::for_each_extent`].
    pub(super) fn for_each(
        &mut self,
        how: Opening,
        mut give: impl FnMut(Extent) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Fault> {
        match self.map {
            ExtentMap::Version3 {
                extents,
                checkpoints,
                ..
            } => {
                let (mut index, mut start) = match self.chunk {
                    Some(chunk) => chunk,
                    None => extents.seek(self.next, checkpoints)?,
                };
                let given = extents.for_each_from(index, |chunk| {
                    let extent = Extent {
                        start,
                        len: chunk.len,
                        data: ExtentPlace::Blob(chunk),
                    };
                    index += 1;
                    start = start.saturating_add(chunk.len);
                    give(extent)
                });
                self.chunk = Some((index, start));
                Ok(given?)
            }
            ExtentMap::Version4(source) => {
                let mut flow = ControlFlow::Continue(());
                let next = &mut self.next;
                source.for_each_extent(*next, how, &mut |extent| {
                    *next = extent.end;
                    flow = give(Extent::of(extent));
                    flow
                })?;
                Ok(flow)
            }
        }
    }
}

impl Extent {
    /// Returns an extent of version 4.
    fn of(extent: &v4::Extent) -> Self {
        Self {
            start: extent.start,
            len: extent.end.saturating_sub(extent.start),
            data: match extent.data {
                ExtentData::Hole => ExtentPlace::Hole,
                ExtentData::Chunk { chunk, offset } => ExtentPlace::Chunk { chunk, offset },
            },
        }
    }
}
