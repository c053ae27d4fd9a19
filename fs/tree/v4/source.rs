// SPDX-License-Identifier: GPL-2.0

//! The source of an image's metadata chunks: the cache, and behind it the store.

use super::chunk_cache::{CheckedChunk, ChunkHandle, ShrinkableChunks};
use crate::{
    base::{
        fault::{Fault, FaultSite},
        registry::InUse,
        statistics::Statistics,
    },
    codec::metadata,
    store::{blob_store::BlobStore, chunks::ChunkQuery, opening::Opening},
    vfs::{prelude::*, relax},
};
use core::mem;
use kernel::{sync::Arc, time::Msecs};
use puzzlefs_schema::{
    v4::{ChunkRef, ChunkSource, LoadedChunk, MetadataError, Start, Tree},
    Digest,
};

/// The metadata chunks of a mounted image.
pub(super) struct ImageChunks {
    pub(super) cache: InUse<ShrinkableChunks>,
    pub(super) blobs: Arc<BlobStore>,
    pub(super) statistics: Arc<Statistics>,
    /// The time that a task waits for a chunk that the store lacks, if it does.
    pub(super) fetch: Option<Msecs>,
    /// The digest of the image's root.
    pub(super) root: Digest,
}

/// The source of an image's metadata chunks, for callers of one patience.
pub(super) struct Source {
    chunks: Arc<ImageChunks>,
    how: Opening,
}

impl Source {
    /// Returns the digest of the image's root.
    pub(super) fn root(&self) -> &Digest {
        &self.chunks.root
    }

    /// Logs why a chunk cannot be used. The result is not logged again.
    fn report(&self, chunk: &ChunkRef, fault: Fault) -> Fault {
        if matches!(fault, Fault::NotOpen | Fault::Reported(_)) || fault.passing().is_some() {
            return fault;
        }
        let site = FaultSite::image(&self.chunks.root).chunk(chunk.digest());
        Fault::Reported(site.report(fault))
    }

    /// Reads a chunk, unless the caller has folios locked: it also has little of the stack left.
    fn read(&self, chunk: &ChunkRef) -> Result<KVVec<u8>, Fault> {
        if self.how == Opening::Now {
            return Err(Fault::NotOpen);
        }
        let ImageChunks {
            blobs, statistics, ..
        } = &*self.chunks;
        metadata::read(blobs, chunk, statistics)
    }

    /// Waits until a chunk has been fetched, if a fault is that the store lacks it and the mount
    /// waits for that. Otherwise returns the fault.
    ///
    /// The cache of chunks is shared by all stores. Therefore nothing waits for a fetcher while it
    /// loads a chunk.
    // Not inlined, because the chunk is then loaded without its variables on the stack.
    #[inline(never)]
    fn fetch(&self, chunk: &ChunkRef, fault: Fault) -> Result<(), Fault> {
        let (Fault::NoChunk, Some(timeout)) = (fault, self.chunks.fetch) else {
            return Err(fault);
        };
        let ImageChunks {
            blobs, statistics, ..
        } = &*self.chunks;
        let query = ChunkQuery::new(chunk, Opening::Waiting, statistics);
        blobs.fetch(&query, timeout)
    }
}

impl ChunkSource for Source {
    type Error = Fault;
    type Chunk = ChunkHandle;
    type Content = KVVec<u8>;

    fn load(&self, chunk: &ChunkRef) -> Result<ChunkHandle, Fault> {
        // Untrusted data determines the number of loads.
        relax()?;
        let cache = self.chunks.cache.cache();
        let mut may_fetch = true;
        // The second round is the last.
        loop {
            let got = cache.get_or_load(chunk, self.how, || check(*chunk, self.read(chunk)?));
            let Err(fault) = got else {
                return got;
            };
            let fetched = if mem::take(&mut may_fetch) {
                self.fetch(chunk, fault)
            } else {
                Err(fault)
            };
            fetched.map_err(|fault| self.report(chunk, fault))?;
        }
    }

    fn content(&self, chunk: &ChunkRef) -> Result<KVVec<u8>, Fault> {
        self.read(chunk)
            .or_else(|fault| {
                self.fetch(chunk, fault)?;
                self.read(chunk)
            })
            .map_err(|fault| self.report(chunk, fault))
    }

    fn malformed(&self, chunk: &ChunkRef, e: MetadataError) -> Fault {
        self.report(chunk, e.into())
    }
}

/// Checks the content of a metadata chunk.
// Not inlined, so that chunks are read without its variables on the stack.
#[inline(never)]
pub(super) fn check(chunk: ChunkRef, bytes: KVVec<u8>) -> Result<CheckedChunk, Fault> {
    let starts =
        |len| KVVec::from_elem(Start::default(), len, GFP_KERNEL_ACCOUNT).map_err(Fault::from);
    LoadedChunk::check(chunk, bytes, starts)
}

/// The tree of an image, for callers of either patience.
pub(super) struct Trees {
    waiting: Tree<Source>,
    now: Tree<Source>,
}

impl Trees {
    /// Makes the trees of a root.
    pub(super) fn new(chunks: ImageChunks, root: ChunkHandle) -> Result<Arc<Self>, Fault> {
        let chunks = Arc::new(chunks, GFP_KERNEL)?;
        let tree = |how| {
            let chunks = chunks.clone();
            Tree::new(Source { chunks, how }, root.clone())
        };
        let this = Self {
            waiting: tree(Opening::Waiting)?,
            now: tree(Opening::Now)?,
        };
        Ok(Arc::new(this, GFP_KERNEL)?)
    }

    /// Returns the tree for callers of a patience.
    pub(super) fn of(&self, how: Opening) -> &Tree<Source> {
        match how {
            Opening::Waiting => &self.waiting,
            Opening::Now => &self.now,
        }
    }
}
