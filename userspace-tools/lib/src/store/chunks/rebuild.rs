// SPDX-License-Identifier: MIT OR Apache-2.0

//! Collecting the records of packs, to rebuild the index.

use crate::error::{Error, Result, StoreError};
use crate::model::digest::Digest;
use crate::store::chunks::pack::PackFile;
use crate::store::oci_layout::Store;
use crate::sys::parallel::{self, into_inner, lock};
use crate::sys::progress::Progress;
use puzzlefs_schema::v4::{Location, PackedChunk, Record};
use std::sync::Mutex;

/// The chunks of some packs.
#[derive(Debug, Default)]
pub(super) struct Collected {
    /// The packs, in the order of their numbers.
    pub packs: Vec<Digest>,
    /// The records, in any order. A digest can occur several times.
    pub records: Vec<Record>,
    /// The packs and chunks that cannot be used.
    pub faults: Vec<Error>,
}

impl Collected {
    /// Adds a pack with these chunks.
    pub fn add(&mut self, pack: Digest, chunks: impl IntoIterator<Item = PackedChunk>) {
        let number = self.packs.len() as u32;
        self.packs.push(pack);
        let records = chunks.into_iter().map(|chunk| record(&chunk, number));
        self.records.extend(records);
    }

    /// Sorts the records and keeps one for each digest. If there are several, the first one whose chunk
    /// is valid is kept: the index of a pack can claim chunks that are not in it.
    pub fn unique(&mut self, store: &Store) {
        self.records
            .sort_by_key(|record| (record.digest, record.location.pack));
        let mut kept: Vec<Record> = Vec::with_capacity(self.records.len());
        for places in self.records.chunk_by(|a, b| a.digest == b.digest) {
            let valid = || {
                places.iter().find(|record| {
                    let pack = self.packs.get(record.location.pack as usize);
                    pack.is_some_and(|pack| is_valid(store, pack, record))
                })
            };
            kept.extend(match places {
                [only] => Some(only),
                _ => valid().or(places.first()),
            });
        }
        self.records = kept;
    }
}

/// The record of a chunk in the pack of this number.
pub(super) fn record(chunk: &PackedChunk, pack: u32) -> Record {
    Record {
        digest: chunk.digest,
        location: Location {
            pack,
            offset: chunk.offset,
            stored_len: chunk.stored_len,
        },
    }
}

/// The chunk of a record.
pub(super) fn packed_chunk(record: &Record) -> PackedChunk {
    PackedChunk {
        digest: record.digest,
        offset: record.location.offset,
        stored_len: record.location.stored_len,
    }
}

fn is_valid(store: &Store, pack: &Digest, record: &Record) -> bool {
    PackFile::open(store, pack)
        .and_then(|pack| pack.read_chunk(&packed_chunk(record), &mut Vec::new()))
        .is_ok()
}

/// Lists the blobs that end as a pack does.
pub(crate) fn find_packs(store: &Store) -> Result<Vec<Digest>> {
    let mut packs = Vec::new();
    for digest in store.list_blobs()?.0 {
        if PackFile::is_pack(store, &digest)? {
            packs.push(digest);
        }
    }
    Ok(packs)
}

/// Collects the chunks that the indices of packs list. A pack that cannot be used is left out.
pub(super) fn collect(store: &Store, packs: &[Digest]) -> Collected {
    let mut collected = Collected::default();
    for pack in packs {
        match PackFile::open(store, pack) {
            Ok(file) => collected.add(*pack, file.chunks()),
            Err(error) => collected.faults.push(error),
        }
    }
    collected
}

/// Collects the chunks of packs that are valid. Reads all of each pack.
pub(super) fn collect_valid(
    store: &Store,
    packs: &[Digest],
    jobs: usize,
    progress: &Progress,
) -> Result<Collected> {
    let mut collected = Collected::default();
    for (pack, outcome) in read_packs(store, packs, jobs, progress)? {
        match outcome {
            Ok((chunks, faults)) => {
                collected.add(pack, chunks);
                collected.faults.extend(faults);
            }
            // A blob of another kind can end as a pack does.
            Err(Error::Store(StoreError::Pack { .. })) => {}
            Err(error) if error.is_not_found() => {}
            Err(error) => collected.faults.push(error),
        }
    }
    Ok(collected)
}

/// The valid chunks of a pack, and the faults of others.
type ReadPack = (Vec<PackedChunk>, Vec<Error>);

/// Reads all chunks of packs. Returns the outcome of each pack, in the order of the digests.
pub(super) fn read_packs(
    store: &Store,
    packs: &[Digest],
    jobs: usize,
    progress: &Progress,
) -> Result<Vec<(Digest, Result<ReadPack>)>> {
    for pack in packs {
        progress.found_entry();
        progress.found_bytes(store.blob_size(pack)?.unwrap_or_default());
    }
    progress.start_reading();
    let found = Mutex::new(Vec::new());
    parallel::for_each(jobs, packs, Vec::new, |stored, pack| {
        let outcome = match PackFile::open(store, pack) {
            Ok(file) => Ok(valid_chunks(&file, stored, progress)?),
            Err(error) => Err(error),
        };
        lock(&found).push((*pack, outcome));
        Ok(())
    })?;
    let mut found = into_inner(found);
    found.sort_by_key(|(pack, _)| *pack);
    Ok(found)
}

/// Reads all chunks of a pack, and returns those that are valid.
fn valid_chunks(pack: &PackFile, stored: &mut Vec<u8>, progress: &Progress) -> Result<ReadPack> {
    let (mut chunks, mut faults) = (Vec::new(), Vec::new());
    for chunk in pack.chunks() {
        progress.check()?;
        match pack.read_chunk(&chunk, stored) {
            Ok(()) => chunks.push(chunk),
            Err(error) => faults.push(error),
        }
        progress.done_bytes(chunk.stored_len.into());
    }
    Ok((chunks, faults))
}
