// SPDX-License-Identifier: GPL-2.0

//! Chunks: finds them in packs and among loose files.
//!
//! A lookup searches the tables of the chunk index, the newest first, and then the loose chunk. If
//! the chunk is in neither, or its pack has disappeared, the index is read again if it was
//! replaced. Nothing here verifies a chunk: a wrong place shows when its digest is checked.

use super::{
    blob::Blob, blob_store::BlobStore, chunk_index::Snapshot, fetches::MissingChunk,
    opening::Opening, pins::Pins,
};
use crate::{
    base::{fault::Fault, limits::MAX_INDEX_LOADS, range::ByteRange, statistics::Statistics},
    vfs::prelude::*,
};
use kernel::{sync::Arc, time::Msecs};
use puzzlefs_schema::{
    v4::{ChunkRef, MAX_CHUNK_CONTENT},
    Digest,
};

/// A chunk in an open file.
pub(crate) struct OpenChunk {
    /// The file: a pack, or the chunk itself if that is loose.
    pub(crate) blob: Arc<Blob>,
    /// The range of the stored bytes in the file, which is in it.
    pub(crate) stored: ByteRange,
}

/// A wanted chunk, and the terms on which it is looked for.
#[derive(Clone, Copy)]
pub(crate) struct ChunkQuery<'a> {
    digest: &'a Digest,
    /// The number of stored bytes, if that is known.
    stored_len: Option<u32>,
    pub(crate) how: Opening,
    /// Files that are open already.
    pub(crate) pins: Option<&'a Pins>,
    pub(crate) statistics: &'a Statistics,
}

impl<'a> ChunkQuery<'a> {
    /// Makes a query for a chunk that metadata refers to.
    pub(crate) fn new(chunk: &'a ChunkRef, how: Opening, statistics: &'a Statistics) -> Self {
        Self {
            stored_len: Some(chunk.stored_len()),
            ..Self::root(chunk.digest(), how, statistics)
        }
    }

    /// Makes a query for a root, of which only the digest is known.
    pub(crate) fn root(digest: &'a Digest, how: Opening, statistics: &'a Statistics) -> Self {
        Self {
            digest,
            stored_len: None,
            how,
            pins: None,
            statistics,
        }
    }

    /// Returns the chunk, as requests name it.
    fn missing(&self) -> MissingChunk<'a> {
        MissingChunk {
            digest: self.digest,
            stored_len: self.stored_len.unwrap_or(0),
        }
    }

    /// Returns true if the chunk can have so many stored bytes.
    fn accepts(&self, stored_len: u64) -> bool {
        match self.stored_len {
            Some(wanted) => stored_len == u64::from(wanted),
            None => (1..=u64::from(MAX_CHUNK_CONTENT)).contains(&stored_len),
        }
    }
}

/// The result of a search: a chunk, or a fault that shows only if the chunk is nowhere else.
struct Search {
    fault: Fault,
}

impl Search {
    /// Notes that a place does not have the chunk.
    ///
    /// # Errors
    ///
    /// Faults that say nothing about the place.
    fn note(&mut self, fault: Fault) -> Result<(), Fault> {
        let is_final =
            matches!(fault, Fault::NotOpen) || fault.is_timeout() || fault.passing().is_some();
        if is_final {
            return Err(fault);
        }
        if fault.errno() != ENOENT {
            self.fault = fault;
        }
        Ok(())
    }
}

impl BlobStore {
    /// Finds a chunk, and opens its file.
    ///
    /// # Errors
    ///
    /// [`Fault::NotOpen`] if the caller does not wait as long as that takes; [`Fault::NoChunk`] if
    /// the store does not have the chunk; [`Fault::TooShort`] if its pack ends before it, and
    /// [`Fault::ChunkSize`] if the loose chunk has another size; those of [`Self::open`].
    pub(crate) fn open_chunk(&self, query: &ChunkQuery<'_>) -> Result<OpenChunk, Fault> {
        let mut snapshot = self.index().snapshot();
        for _ in 0..MAX_INDEX_LOADS {
            let mut search = Search {
                fault: Fault::NoChunk,
            };
            if let Some(found) = self.find_chunk(&snapshot, query, &mut search)? {
                return Ok(found);
            }
            snapshot = match self.index().newer_than(&snapshot, query.how)? {
                Some(newer) => newer,
                None => return Err(search.fault),
            };
        }
        Err(Fault::NoChunk)
    }

    /// Finds a chunk like [`Self::open_chunk`], and requests it if the store does not have it.
    ///
    /// # Errors
    ///
    /// Those of [`Self::open_chunk`].
    pub(crate) fn open_or_request(&self, query: &ChunkQuery<'_>) -> Result<OpenChunk, Fault> {
        let seen = self.fetches().brought();
        let opened = self.open_chunk(query);
        if let Err(Fault::NoChunk) = opened {
            self.fetches().request(&query.missing(), seen);
        }
        opened
    }

    /// Waits until a chunk that the store lacks has been fetched, for so many milliseconds at most.
    ///
    /// # Errors
    ///
    /// [`Fault::NotFetched`] if it has not been; [`EINTR`] if the task is being killed; [`ENOMEM`].
    pub(crate) fn fetch(&self, query: &ChunkQuery<'_>, timeout: Msecs) -> Result<(), Fault> {
        query.statistics.fetches_awaited.add(1);
        let is_there = || match self.open_chunk(query) {
            Err(Fault::NoChunk) => Ok(false),
            Err(fault) if fault.is_interruption() => Err(fault),
            // Other faults show when the chunk is read.
            _ => Ok(true),
        };
        self.fetches().wait_for(&query.missing(), timeout, is_there)
    }

    /// Finds a chunk by a state of the index, or as a loose chunk.
    // Not inlined, because the index would then be loaded on top of its variables on the stack.
    #[inline(never)]
    fn find_chunk(
        &self,
        snapshot: &Snapshot,
        query: &ChunkQuery<'_>,
        search: &mut Search,
    ) -> Result<Option<OpenChunk>, Fault> {
        let mut first = 0;
        while let Some((place, next)) = self.index().find(snapshot, query.digest, first)? {
            first = next;
            let stored = ByteRange {
                offset: place.offset,
                len: place.stored_len.into(),
            };
            // A record of another length is wrong.
            if !query.accepts(stored.len) {
                continue;
            }
            let opened = self.open_holding(&place.pack, query, |size| {
                if stored.end() <= size {
                    Ok(stored)
                } else {
                    Err(Fault::TooShort)
                }
            });
            match opened {
                Ok(found) => return Ok(Some(found)),
                Err(fault) => search.note(fault)?,
            }
        }
        let opened = self.open_holding(query.digest, query, |size| {
            if query.accepts(size) {
                Ok(ByteRange::first(size))
            } else {
                Err(Fault::ChunkSize)
            }
        });
        match opened {
            Ok(found) => Ok(Some(found)),
            Err(fault) => search.note(fault).map(|()| None),
        }
    }

    /// Opens the file that should hold a chunk. `place` returns the place for the file's size.
    ///
    /// A file of another size may have been replaced, and is opened anew once.
    fn open_holding(
        &self,
        file: &Digest,
        query: &ChunkQuery<'_>,
        place: impl Fn(u64) -> Result<ByteRange, Fault>,
    ) -> Result<OpenChunk, Fault> {
        let ChunkQuery {
            how, statistics, ..
        } = *query;
        let open = |blob: Arc<Blob>| place(blob.size()).map(|stored| OpenChunk { blob, stored });
        let pinned = query.pins.and_then(|pins| pins.find(file));
        let blob = match pinned {
            Some(blob) => {
                if how == Opening::Now {
                    statistics.blobs_found_open.add(1);
                }
                blob
            }
            None => self.open(file, how, statistics)?,
        };
        match open(blob) {
            Ok(found) => Ok(found),
            Err(_) => open(self.reopen(file, how, statistics)?),
        }
    }
}
