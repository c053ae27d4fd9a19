// SPDX-License-Identifier: MIT OR Apache-2.0

//! Fetches packs: as a whole if the store has next to nothing of them, otherwise the missing ranges.

use super::arrived::Arrived;
use super::cutter::ChunkCutter;
use super::manifest::RemoteManifest;
use super::pack_index::{self, length, PackIndex};
use super::plan::{ranges, PackRange};
use super::source::{BlobSource, FetchOptions, RemoteBlob};
use crate::error::{Error, FetchError, Result, StoreError};
use crate::model::chunk::ChunkFault;
use crate::model::digest::Digest;
use crate::store::chunks::index::ChunkIndex;
use crate::store::chunks::pack::{NewPack, PackFile};
use crate::store::chunks::recipes::keep_recipe;
use crate::store::chunks::writer::PackWriter;
use crate::sys::parallel::{self, lock};
use crate::sys::progress::Progress;
use puzzlefs_schema::v4::PackedChunk;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeSet, HashSet};
use std::io::{BufWriter, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::Mutex;
use tempfile::NamedTempFile;

/// A pack is fetched as a whole if the store has less than this part of it, in per cent.
const SHARED_PERCENT: u64 = 10;
const BUFFER: usize = 1 << 20;

/// A transfer that one thread makes.
pub(super) enum Task {
    /// A blob that is not a pack.
    Blob(RemoteBlob),
    /// A pack with these chunks.
    WholePack {
        pack: RemoteBlob,
        /// The exponent of a power of two.
        alignment: u8,
        chunks: Vec<PackedChunk>,
    },
    /// A range of a pack.
    Range { pack: RemoteBlob, range: PackRange },
    /// A pack whose index cannot be read before the pack.
    UnknownPack(RemoteBlob),
}

/// The transfer of an image.
pub(super) struct Transfer<'t, 's> {
    source: &'t dyn BlobSource,
    arrived: &'t Arrived<'s>,
    options: FetchOptions,
    progress: &'t Progress,
    /// The chunk index of the store before the transfer.
    index: ChunkIndex<'s>,
    indexed: BTreeSet<Digest>,
    /// The chunks that a task fetches.
    claimed: Mutex<HashSet<Digest>>,
    chunks: AtomicUsize,
    partial_packs: AtomicU64,
    /// The source cannot read parts of blobs.
    is_unranged: AtomicBool,
    /// The packs that were fetched as a whole because of that.
    unranged: Mutex<HashSet<Digest>>,
}

impl<'t, 's> Transfer<'t, 's> {
    pub fn new(
        source: &'t dyn BlobSource,
        arrived: &'t Arrived<'s>,
        options: FetchOptions,
        progress: &'t Progress,
    ) -> Result<Self> {
        let index = ChunkIndex::open(arrived.store)?;
        let indexed = index.packs().collect();
        Ok(Transfer {
            source,
            arrived,
            options,
            progress,
            index,
            indexed,
            claimed: Mutex::default(),
            chunks: AtomicUsize::new(0),
            partial_packs: AtomicU64::new(0),
            is_unranged: AtomicBool::new(false),
            unranged: Mutex::default(),
        })
    }

    /// Fetches what the store lacks: no packs if it has all chunks of the image, which `is_whole` says.
    /// Returns the number of packs that it then has a part of.
    pub fn run(&self, image: &RemoteManifest, is_whole: bool) -> Result<u64> {
        let mut missing = Vec::new();
        let mut tasks = Vec::new();
        for blob in &image.blobs {
            if self.has(blob)? {
                self.arrived.shared(blob.size);
            } else {
                self.found(blob);
                tasks.push(Task::Blob(*blob));
            }
        }
        for pack in &image.packs {
            if !self.has(pack)? {
                if is_whole {
                    self.partial_packs.fetch_add(1, Relaxed);
                } else {
                    self.found(pack);
                    missing.push(*pack);
                }
            } else if self.indexed.contains(&pack.digest) {
                self.arrived.shared(pack.size);
            } else {
                let file = PackFile::open(self.arrived.store, &pack.digest)?;
                let new = NewPack {
                    digest: pack.digest,
                    records: file.intact_chunks(),
                };
                self.arrived.existing(new, pack.size);
            }
        }
        let planned = Mutex::new(Vec::new());
        let jobs = self.options.jobs;
        let plan = |(): &mut (), pack: &RemoteBlob| {
            self.progress.check()?;
            let tasks = self.plan(pack)?;
            lock(&planned).extend(tasks);
            Ok(())
        };
        parallel::for_each(jobs, &missing, || (), plan)?;
        tasks.append(&mut parallel::into_inner(planned));
        self.progress.start_reading();
        parallel::for_each(jobs, &tasks, || (), |(), task| self.transfer(task))?;
        Ok(self.partial_packs.load(Relaxed))
    }

    fn has(&self, blob: &RemoteBlob) -> Result<bool> {
        Ok(self.arrived.store.blob_size(&blob.digest)? == Some(blob.size))
    }

    fn found(&self, blob: &RemoteBlob) {
        self.progress.found_entry();
        self.progress.found_bytes(blob.size);
    }

    /// Decides what of a pack is fetched.
    fn plan(&self, pack: &RemoteBlob) -> Result<Vec<Task>> {
        let Some(index) = self.index(pack)? else {
            return Ok(vec![Task::UnknownPack(*pack)]);
        };
        let PackIndex {
            recipe,
            alignment,
            chunks,
        } = index;
        let count = self.chunks.fetch_add(chunks.len(), Relaxed) + chunks.len();
        pack_index::check_count(count)?;
        let len = |chunks: &[PackedChunk]| -> u64 {
            chunks.iter().map(|chunk| u64::from(chunk.stored_len)).sum()
        };
        let mut missing = Vec::new();
        for chunk in &chunks {
            if self.index.find(&chunk.digest.into())?.is_none() {
                missing.push(*chunk);
            }
        }
        let mut claimed = lock(&self.claimed);
        missing.retain(|chunk| claimed.insert(chunk.digest.into()));
        let shared = len(&chunks).saturating_sub(len(&missing));
        if shared * 100 < pack.size * SHARED_PERCENT {
            claimed.extend(chunks.iter().map(|chunk| Digest::from(chunk.digest)));
            return Ok(vec![Task::WholePack {
                pack: *pack,
                alignment,
                chunks,
            }]);
        }
        drop(claimed);
        self.partial_packs.fetch_add(1, Relaxed);
        keep_recipe(self.arrived.store, &pack.digest, &recipe)?;
        let ranges = ranges(&missing);
        let requested: u64 = ranges.iter().map(|r| r.bytes.end - r.bytes.start).sum();
        self.progress
            .done_bytes(pack.size.saturating_sub(requested));
        let task = |range| Task::Range { pack: *pack, range };
        Ok(ranges.into_iter().map(task).collect())
    }

    /// Reads the index of a pack. Returns `None` if the source reads whole blobs only.
    fn index(&self, pack: &RemoteBlob) -> Result<Option<PackIndex>> {
        if self.is_unranged.load(Relaxed) {
            return Ok(None);
        }
        let index = PackIndex::read(self.source, pack)?;
        if index.is_none() {
            self.is_unranged.store(true, Relaxed);
        }
        Ok(index)
    }

    fn transfer(&self, task: &Task) -> Result<()> {
        match task {
            Task::Blob(blob) => {
                let file = self.whole_blob(blob)?;
                self.arrived.blob(file, &blob.digest, blob.size)
            }
            Task::WholePack {
                pack,
                alignment,
                chunks,
            } => self.whole_pack(pack, *alignment, chunks),
            Task::Range { pack, range } => self.range(pack, range),
            Task::UnknownPack(pack) => self.unknown_pack(pack),
        }
    }

    /// Fetches a blob into a file, and compares it with its digest.
    fn whole_blob(&self, blob: &RemoteBlob) -> Result<NamedTempFile> {
        let staging = self.arrived.staging;
        let mut file = BufWriter::with_capacity(BUFFER, staging.create_file()?);
        let mut sha256 = Sha256::new();
        let mut found = 0;
        self.source.read(blob, 0..blob.size, &mut |piece| {
            self.progress.check()?;
            self.progress.done_bytes(piece.len() as u64);
            found += piece.len() as u64;
            sha256.update(piece);
            file.write_all(piece)
                .map_err(Error::io(&staging.path, "write a blob in"))
        })?;
        if found != blob.size {
            return Err(length(blob, blob.size, found));
        }
        let found = Digest(sha256.finalize().into());
        if found != blob.digest {
            let wanted = blob.digest;
            return Err(FetchError::Blob { wanted, found }.into());
        }
        let file = file.into_inner();
        file.map_err(|error| Error::io(&staging.path, "write a blob in")(error.into_error()))
    }

    /// Fetches a pack. If that fails, the chunks that arrived stay, in a shorter pack.
    fn whole_pack(&self, pack: &RemoteBlob, alignment: u8, chunks: &[PackedChunk]) -> Result<()> {
        let Some(last) = chunks.last() else {
            return Ok(());
        };
        let end = last.offset + u64::from(last.stored_len);
        let mut writer = PackWriter::new(self.arrived.staging, alignment)?;
        let mut cutter = ChunkCutter::new(pack.digest, 0, chunks);
        let read = self.source.read(pack, 0..end, &mut |piece| {
            self.progress.check()?;
            self.progress.done_bytes(piece.len() as u64);
            cutter.push(piece, |digest, stored| writer.add(digest, stored))
        });
        match read {
            Ok(true) if cutter.is_done() => {
                self.progress.done_bytes(pack.size - end);
                let wanted = &pack.digest;
                match writer.finish_as(wanted)? {
                    Ok(finished) => self.arrived.packs(vec![finished]),
                    Err(found) => {
                        let wanted = *wanted;
                        Err(FetchError::Blob { wanted, found }.into())
                    }
                }
            }
            Ok(true) => Err(length(pack, end, cutter.position())),
            Ok(false) => self.unknown_pack(pack),
            Err(error) => {
                if !writer.is_empty() {
                    // The first error counts.
                    let kept = writer.finish().map(|kept| self.arrived.packs(vec![kept]));
                    kept.and_then(|kept| kept).unwrap_or_default();
                }
                Err(error)
            }
        }
    }

    /// Fetches the missing chunks of a range of a pack.
    fn range(&self, pack: &RemoteBlob, range: &PackRange) -> Result<()> {
        let mut cutter = ChunkCutter::new(pack.digest, range.bytes.start, &range.chunks);
        let has_ranges = self.source.read(pack, range.bytes.clone(), &mut |piece| {
            self.progress.check()?;
            self.progress.done_bytes(piece.len() as u64);
            cutter.push(piece, |digest, stored| self.arrived.chunk(digest, stored))
        })?;
        if !has_ranges {
            return self.unknown_pack(pack);
        }
        if !cutter.is_done() {
            return Err(length(pack, range.bytes.end, cutter.position()));
        }
        Ok(())
    }

    /// Fetches a pack whose index comes last. All chunks are verified before the pack enters the store.
    fn unknown_pack(&self, pack: &RemoteBlob) -> Result<()> {
        if !lock(&self.unranged).insert(pack.digest) {
            return Ok(());
        }
        let file = self.whole_blob(pack)?;
        let path = file.path().to_path_buf();
        let opened = file.reopen().map_err(Error::io(&path, "open"))?;
        let digest = pack.digest;
        let opened = PackFile::of_file(path, opened).map_err(|error| match error {
            Error::Store(StoreError::Pack { cause, .. }) => FetchError::Pack {
                pack: digest,
                cause,
            }
            .into(),
            error => error,
        })?;
        let mut stored = Vec::new();
        for chunk in opened.chunks() {
            self.progress.check()?;
            opened
                .read_chunk(&chunk, &mut stored)
                .map_err(|error| match error {
                    Error::Store(StoreError::Chunk {
                        digest: wanted,
                        cause: ChunkFault::Digest { found },
                        ..
                    }) => FetchError::Chunk {
                        pack: digest,
                        wanted,
                        found,
                    }
                    .into(),
                    error => error,
                })?;
        }
        let records = opened.chunks().collect();
        self.arrived.staging.put_file(file, &digest, pack.size)?;
        self.arrived
            .packs(vec![(NewPack { digest, records }, pack.size)])
    }
}
