// SPDX-License-Identifier: MIT OR Apache-2.0

//! The places of the contents of a regular file.
//!
//! A file is its chunks in order. The metadata has the length of each, but not its offset in the
//! file. [`Extents::index`] adds up the lengths once, and writes the offsets of some chunks to a
//! table of the caller. With it, [`Extents::seek`] finds any chunk quickly.

use super::message::{element, Locator, Metadata, View};
use crate::{
    digest::Digest,
    error::{Error, ErrorKind, Result},
    limits::MAX_FILE_SIZE,
    metadata_capnp::{file_chunk, inode::mode},
    steps::step,
};
use capnp::struct_list;
use core::ops::ControlFlow;

/// A part of a file, and its place in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The blob that holds it.
    pub blob: Digest,
    /// The offset in the uncompressed content of the blob, in bytes.
    pub blob_offset: u64,
    /// The length in bytes: not 0, and `blob_offset + len` does not overflow.
    pub len: u64,
    /// True if the blob is compressed, in the zstd seekable format.
    pub compressed: bool,
}

/// The chunks of a regular file.
#[derive(Clone, Copy, Debug)]
pub struct Extents<'a> {
    metadata: Metadata<'a>,
    list: ExtentList,
}

/// The place of a file's chunks in the metadata: the state of [`Extents`] that can be kept.
///
/// It stays valid for as long as the blob is the same.
#[derive(Clone, Copy, Debug)]
pub struct ExtentList {
    at: Locator,
    ino: u64,
    len: u32,
    /// The chunk of a file that has only one, as most files have, so that it need not be read
    /// again.
    only: Option<Chunk>,
    declared_size: Option<u64>,
}

impl ExtentList {
    /// Returns the list of an inode's chunks that is being read.
    pub(crate) fn new(
        at: Locator,
        ino: u64,
        declared_size: Option<u64>,
        chunks: struct_list::Reader<'_, file_chunk::Owned>,
    ) -> Self {
        let len = chunks.len();
        Self {
            at,
            ino,
            len,
            // An error in it is reported when it is used.
            only: chunks
                .try_get(0)
                .filter(|_| len == 1)
                .and_then(|chunk| read(chunk).ok()),
            declared_size,
        }
    }

    /// Returns the number of chunks.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Returns true if there are no chunks, and thus no contents.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl<'a> Extents<'a> {
    /// Reads the list of the chunks of the regular file at a place.
    pub(crate) fn read(
        metadata: Metadata<'a>,
        at: Locator,
        ino: u64,
        declared_size: Option<u64>,
    ) -> Result<Self> {
        let list =
            metadata.read(|view| Ok(ExtentList::new(at, ino, declared_size, chunks(view, at)?)))?;
        Ok(Self { metadata, list })
    }

    /// Makes the chunks of a list of the same metadata. With a list of other metadata, operations
    /// return errors or other chunks.
    pub(crate) fn of(metadata: Metadata<'a>, list: ExtentList) -> Self {
        Self { metadata, list }
    }

    /// Returns the place of the chunks.
    pub fn list(&self) -> ExtentList {
        self.list
    }

    /// Returns the number of chunks.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Returns true if there are no chunks, and thus no contents.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Returns the chunk at a place.
    ///
    /// Cost: constant.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NoSuchPlace`], [`ErrorKind::EmptyChunk`], [`ErrorKind::FileTooLarge`],
    /// [`ErrorKind::BlobRange`], [`ErrorKind::DigestLength`], and those of the encoding.
    pub fn get(&self, index: usize) -> Result<Chunk> {
        if let Some(only) = self.list.only.filter(|_| index == 0) {
            return Ok(only);
        }
        let index = u32::try_from(index).map_err(|_| ErrorKind::NoSuchPlace)?;
        self.chunks(|chunks| read(element(chunks, index)?))
    }

    /// Passes the chunks from a place on to a function, until it returns `Break`.
    ///
    /// Cost: the number of chunks that are passed.
    ///
    /// # Errors
    ///
    /// Those of [`get`](Self::get), after the chunks before were passed.
    pub fn for_each_from<B>(
        &self,
        index: usize,
        mut give: impl FnMut(Chunk) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>> {
        if let Some(only) = self.list.only {
            return Ok(match index {
                0 => give(only),
                _ => ControlFlow::Continue(()),
            });
        }
        let first = u32::try_from(index).map_err(|_| ErrorKind::NoSuchPlace)?;
        self.chunks(|chunks| {
            let mut pace = self.metadata.pace();
            for index in first..chunks.len() {
                pace.step()?;
                if let ControlFlow::Break(b) = give(read(element(chunks, index)?)?) {
                    return Ok(ControlFlow::Break(b));
                }
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    /// Adds up the chunks, and returns the size of the file in bytes. Fills the table for
    /// [`seek`](Self::seek): with more entries, the walk from one of them is shorter. It may be
    /// empty; entries beyond the number of chunks are unused.
    ///
    /// Only the lengths of the chunks are read.
    ///
    /// Cost: the number of chunks and that of the table's entries.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::EmptyChunk`]; [`ErrorKind::FileTooLarge`] if the size is larger than
    /// [`MAX_FILE_SIZE`](crate::MAX_FILE_SIZE); [`ErrorKind::SizeMismatch`] if it differs from the
    /// declared one; and those of the encoding.
    pub fn index(&self, table: &mut [u64]) -> Result<u64> {
        // No chunk begins there.
        table.fill(u64::MAX);
        let stride = stride(self.len(), table.len());
        let mut slots = table.iter_mut();
        let mut until_slot: usize = 0;
        let mut size: u64 = 0;
        let mut add = |len| {
            if until_slot == 0 {
                until_slot = stride;
                if let Some(slot) = slots.next() {
                    *slot = size;
                }
            }
            until_slot = until_slot.saturating_sub(1);
            size = add_len(size, len)?;
            Ok(())
        };

        match self.list.only {
            Some(only) => add(only.len).map_err(|e: Error| e.of(self.list.ino))?,
            None => self.chunks(|chunks| {
                let mut pace = self.metadata.pace();
                for chunk in chunks.iter() {
                    pace.step()?;
                    add(chunk_len(chunk)?)?;
                }
                Ok(())
            })?,
        }
        if self
            .list
            .declared_size
            .is_some_and(|declared| declared != size)
        {
            return Err(self.error(ErrorKind::SizeMismatch));
        }
        Ok(size)
    }

    /// Finds the chunk at an offset in the file, and returns its place and its own offset. At the
    /// end of the file and beyond, these are the number of chunks and the size.
    ///
    /// The table must be one that [`index`](Self::index) has filled for this file. With any other,
    /// the result is a wrong place or an error.
    ///
    /// Cost: a binary search in the table and a walk over as many chunks as there are for each
    /// entry of it.
    ///
    /// # Errors
    ///
    /// Those of [`index`](Self::index), except for [`ErrorKind::SizeMismatch`].
    pub fn seek(&self, offset: u64, table: &[u64]) -> Result<(usize, u64)> {
        // No file goes beyond, and so not into the part of a table that has no chunks.
        let offset = offset.min(MAX_FILE_SIZE);
        if let Some(only) = self.list.only {
            let end = add_len(0, only.len).map_err(|e| e.of(self.list.ino))?;
            return Ok(if offset < end { (0, 0) } else { (1, end) });
        }
        let stride = stride(self.len(), table.len());
        let slot = table.partition_point(|&start| start <= offset);
        let (first, mut start) = match slot.checked_sub(1) {
            Some(slot) => (
                slot.saturating_mul(stride),
                table.get(slot).copied().unwrap_or(0),
            ),
            None => (0, 0),
        };
        self.chunks(|chunks| {
            let first = u32::try_from(first).map_err(|_| ErrorKind::NoSuchPlace)?;
            for index in first..chunks.len() {
                let end = add_len(start, chunk_len(element(chunks, index)?)?)?;
                if offset < end {
                    return Ok((index as usize, start));
                }
                start = end;
            }
            Ok((chunks.len() as usize, start))
        })
    }

    /// Returns the chunks from a place on, each with its offset in the file. `start` is the offset
    /// of the first one, as [`seek`](Self::seek) returns it.
    ///
    /// Cost of each step: constant. An error ends the iteration.
    pub fn iter_from(&self, index: usize, start: u64) -> ExtentsIter<'a> {
        ExtentsIter {
            extents: *self,
            next: index,
            start,
        }
    }

    /// Opens the list of chunks for one operation.
    fn chunks<T>(
        &self,
        operation: impl FnOnce(struct_list::Reader<'_, file_chunk::Owned>) -> Result<T>,
    ) -> Result<T> {
        self.metadata
            .read(|view| operation(chunks(view, self.list.at)?))
            .map_err(|e| e.of(self.list.ino))
    }

    fn error(&self, kind: ErrorKind) -> Error {
        Error::new(kind).of(self.list.ino)
    }
}

/// The chunks of a file; see [`Extents::iter_from`].
#[derive(Clone, Debug)]
pub struct ExtentsIter<'a> {
    extents: Extents<'a>,
    next: usize,
    start: u64,
}

impl Iterator for ExtentsIter<'_> {
    type Item = Result<(u64, Chunk)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.extents.len() {
            return None;
        }
        let item = self.extents.get(self.next).and_then(|chunk| {
            let start = self.start;
            self.start = add_len(start, chunk.len).map_err(|e| e.of(self.extents.list.ino))?;
            Ok((start, chunk))
        });
        self.next = match item {
            Ok(_) => self.next.saturating_add(1),
            Err(_) => self.extents.len(),
        };
        Some(item)
    }
}

/// Returns the chunks of the regular file at a place.
fn chunks<'r>(view: &View<'r>, at: Locator) -> Result<struct_list::Reader<'r, file_chunk::Owned>> {
    match view.inode(at)?.get_mode().which() {
        Ok(mode::File(chunks)) => view.bounded(chunks?),
        _ => Err(ErrorKind::NotAFile.into()),
    }
}

/// Reads a chunk.
fn read(chunk: file_chunk::Reader<'_>) -> Result<Chunk> {
    let len = chunk_len(chunk)?;
    let blob = chunk.get_blob()?;
    let blob_offset = blob.get_offset();
    if blob_offset.checked_add(len).is_none() {
        return Err(ErrorKind::BlobRange.into());
    }
    Ok(Chunk {
        blob: Digest::from_slice(blob.get_digest()?)?,
        blob_offset,
        len,
        compressed: blob.get_compressed(),
    })
}

/// Returns the length of a chunk.
fn chunk_len(chunk: file_chunk::Reader<'_>) -> Result<u64> {
    step();
    match chunk.get_len() {
        0 => Err(ErrorKind::EmptyChunk.into()),
        len => Ok(len),
    }
}

/// Adds the length of a chunk to an offset in a file.
fn add_len(offset: u64, len: u64) -> Result<u64> {
    match offset.checked_add(len) {
        Some(end @ ..=MAX_FILE_SIZE) => Ok(end),
        _ => Err(ErrorKind::FileTooLarge.into()),
    }
}

/// Returns the number of chunks for each entry of a table: not 0, unless there are no chunks.
fn stride(chunks: usize, entries: usize) -> usize {
    match entries {
        0 => chunks,
        _ => chunks.div_ceil(entries),
    }
}
