// SPDX-License-Identifier: MIT OR Apache-2.0

//! Changing the chunk index: adding packs, replacing packs, rebuilding. The page of
//! [`chunks`](crate::store::chunks) explains the order of the steps.

use crate::error::{Error, Result, StoreError, TableFault};
use crate::model::digest::Digest;
use crate::model::oci::Manifest;
use crate::store::chunks::catalogue::{table_name, Catalogue, CATALOGUE, CATALOGUE_NEW};
use crate::store::chunks::directory::{ChunkLock, PrivateDirectory, CHUNKS};
use crate::store::chunks::index::ChunkIndex;
pub(crate) use crate::store::chunks::pack::NewPack;
use crate::store::chunks::pack::PackFile;
use crate::store::chunks::rebuild::{self, Collected};
use crate::store::chunks::table;
use crate::store::locks::UseLock;
use crate::store::oci_layout::Store;
use crate::sys::pause::{self, Point};
use crate::sys::progress::Progress;
use crate::sys::verity;
use puzzlefs_schema::v4::{Record, Table, MAX_PACKS};
use rustix::io::Errno;
use std::collections::HashSet;
use std::num::NonZero;
use std::slice;
use std::thread;

/// A table is merged with an older one that has less than this many times its records.
const MERGE_RATIO: u64 = 4;
/// The name of a loose chunk before it has its final name.
const LOOSE_NEW: &str = "loose.new";

/// The result of a rebuild.
#[derive(Debug, Default)]
pub struct Reindexed {
    /// The number of packs.
    pub packs: u64,
    /// The number of chunks that the index finds.
    pub chunks: u64,
    /// The number of chunks that the index has no room for, and that are loose now.
    pub loose: u64,
    /// The packs and chunks that cannot be used.
    pub faults: Vec<Error>,
}

/// Adds packs to the index of a store. The caller holds the store's `UseLock`.
///
/// Rebuilds an index that is missing or damaged.
pub(crate) fn add_packs(store: &Store, packs: &[NewPack]) -> Result<()> {
    if packs.is_empty() {
        return Ok(());
    }
    let mut writer = Writer::open(store)?;
    let Some(catalogue) = writer.catalogue.clone() else {
        return writer.rebuild(&|_| true, packs).map(|_| ());
    };
    let listed: HashSet<Digest> = catalogue.present().collect();
    let new: Vec<&NewPack> = packs
        .iter()
        .filter(|pack| !listed.contains(&pack.digest))
        .collect();
    if new.is_empty() {
        return Ok(());
    }
    keep_fsverity(store, listed, &new)?;
    match writer.add(catalogue, &new)? {
        Added::Done => Ok(()),
        Added::Damaged => writer.rebuild(&|_| true, packs).map(|_| ()),
    }
}

/// Adds those of these packs to the index that it does not list, because another tool has put them into the
/// store. The caller holds the store's `UseLock`.
///
/// Compares every chunk with its digest, because the index of a pack can claim chunks that are not in it.
/// Leaves out chunks and packs that are missing or damaged. Without an index, all packs of the store are
/// added.
pub(crate) fn adopt_packs(store: &Store, packs: &[Digest]) -> Result<()> {
    let listed: HashSet<Digest> = ChunkIndex::open(store)?.packs().collect();
    let mut unlisted = Vec::new();
    for pack in packs {
        if !listed.contains(pack) && store.blob_size(pack)?.is_some() {
            unlisted.push(*pack);
        }
    }
    if unlisted.is_empty() {
        return Ok(());
    }
    let jobs = thread::available_parallelism().map_or(1, NonZero::get);
    let read = rebuild::read_packs(store, &unlisted, jobs, &Progress::default())?;
    let valid = read.into_iter().filter_map(|(digest, outcome)| {
        let (records, _) = outcome.ok()?;
        Some(NewPack { digest, records })
    });
    add_packs(store, &valid.collect::<Vec<_>>())
}

/// Does the same for the packs that the manifest of an image lists.
pub(crate) fn adopt_packs_of(store: &Store, manifest: &Manifest) -> Result<()> {
    adopt_packs(store, &manifest.packs().collect::<Vec<_>>())
}

/// Makes an index of all packs if a store has packs and no index. The caller holds the store's `UseLock`.
pub(crate) fn make_missing_index(store: &Store) -> Result<()> {
    if ChunkIndex::open(store)?.exists() {
        return Ok(());
    }
    adopt_packs(store, &rebuild::find_packs(store)?)
}

/// Adds packs to the index, and removes those that `keep` returns false for. The caller holds the
/// store's `UseLock`, and removes the files of these packs afterwards.
pub(crate) fn replace_packs(
    store: &Store,
    keep: impl Fn(&Digest) -> bool,
    new: &[NewPack],
) -> Result<()> {
    let mut writer = Writer::open(store)?;
    writer.rebuild(&keep, new).map(|_| ())
}

/// Rebuilds the index from the packs of the store, and compares every chunk with its digest.
pub fn reindex(store: &Store, jobs: usize, progress: &Progress) -> Result<Reindexed> {
    // A `gc` must not remove packs that are found here.
    let _in_use = UseLock::shared(store.locked())?;
    let found = rebuild::find_packs(store)?;
    let mut collected = rebuild::collect_valid(store, &found, jobs, progress)?;
    let mut writer = Writer::open(store)?;
    // A builder may have added packs meanwhile.
    let known: HashSet<Digest> = found.into_iter().collect();
    let listed = writer.catalogue.iter().flat_map(Catalogue::present);
    let added: Vec<Digest> = listed.filter(|pack| !known.contains(pack)).collect();
    let added = rebuild::collect(store, &added);
    for pack in &added.packs {
        if let Ok(file) = PackFile::open(store, pack) {
            collected.add(*pack, file.chunks());
        }
    }
    let packs = collected.packs.len() as u64;
    let faults = std::mem::take(&mut collected.faults);
    let (chunks, loose) = writer.write_all(collected)?;
    Ok(Reindexed {
        packs,
        chunks,
        loose,
        faults,
    })
}

/// The outcome of adding packs to an index.
enum Added {
    Done,
    /// A table that has to be merged is damaged. Nothing was changed.
    Damaged,
}

/// A writer of the index, which holds its lock.
struct Writer<'s> {
    store: &'s Store,
    directory: PrivateDirectory,
    /// The present catalogue; `None` if it is missing or damaged.
    catalogue: Option<Catalogue>,
    _lock: ChunkLock,
}

impl<'s> Writer<'s> {
    fn open(store: &'s Store) -> Result<Self> {
        let lock = ChunkLock::take(store)?;
        let directory = PrivateDirectory::create(store, CHUNKS)?;
        let catalogue = Catalogue::read(&directory)?.and_then(|(_, catalogue)| catalogue.ok());
        Ok(Writer {
            store,
            directory,
            catalogue,
            _lock: lock,
        })
    }

    /// Adds packs that the catalogue does not list.
    fn add(&mut self, mut catalogue: Catalogue, new: &[&NewPack]) -> Result<Added> {
        if catalogue.packs.len() + new.len() > MAX_PACKS as usize {
            // A rebuild drops the numbers of packs that are gone.
            return Ok(Added::Damaged);
        }
        let mut records = Vec::new();
        for pack in new {
            let number = catalogue.packs.len() as u32;
            catalogue.packs.push(Some(pack.digest));
            let chunks = pack.records.iter();
            records.extend(chunks.map(|chunk| rebuild::record(chunk, number)));
        }
        sort_and_dedup(&mut records);
        let merged = match self.merge(&catalogue, &mut records)? {
            Ok(merged) => merged,
            Err(_damage) => return Ok(Added::Damaged),
        };
        catalogue.tables.drain(..merged);
        self.write(catalogue, &records)?;
        Ok(Added::Done)
    }

    /// Merges the newest tables into new records, as long as they are not much larger. Returns the
    /// number of merged tables. The inner error is the damage of a table.
    fn merge(
        &self,
        catalogue: &Catalogue,
        records: &mut Vec<Record>,
    ) -> Result<Result<usize, TableFault>> {
        let mut merged = 0;
        for table in &catalogue.tables {
            if u64::from(table.records) >= MERGE_RATIO * records.len() as u64 {
                break;
            }
            let read = match self.directory.open_file(&table_name(table))? {
                Some(file) => table::read_all(&file, table, catalogue.packs.len() as u32),
                None => Err(TableFault::Missing),
            };
            match read {
                // The sort is stable, so that the newer record of a digest is kept.
                Ok(older) => records.extend(older),
                Err(damage) => return Ok(Err(damage)),
            }
            records.retain(|record| {
                let pack = catalogue.packs.get(record.location.pack as usize);
                pack.is_some_and(Option::is_some)
            });
            sort_and_dedup(records);
            merged += 1;
        }
        Ok(Ok(merged))
    }

    /// Writes an index of the packs that it has and `keep` returns true for, and of new ones. Without a
    /// catalogue, all packs of the store are examined.
    fn rebuild(&mut self, keep: &dyn Fn(&Digest) -> bool, new: &[NewPack]) -> Result<(u64, u64)> {
        let added: HashSet<Digest> = new.iter().map(|pack| pack.digest).collect();
        let wanted = |pack: &Digest| !added.contains(pack) && keep(pack);
        let new_packs: Vec<&NewPack> = new.iter().collect();
        let mut collected = match &self.catalogue {
            Some(catalogue) => {
                // Those that are removed count, too: a new pack has their chunks.
                keep_fsverity(self.store, catalogue.present(), &new_packs)?;
                let listed: Vec<Digest> = catalogue.present().filter(wanted).collect();
                rebuild::collect(self.store, &listed)
            }
            None => {
                let mut found = rebuild::find_packs(self.store)?;
                keep_fsverity(self.store, found.iter().copied(), &new_packs)?;
                found.retain(wanted);
                rebuild::collect_valid(self.store, &found, 1, &Progress::default())?
            }
        };
        for pack in new {
            collected.add(pack.digest, pack.records.iter().copied());
        }
        self.write_all(collected)
    }

    /// Writes an index of one table. Returns the number of chunks in it and of those that are loose.
    fn write_all(&mut self, mut collected: Collected) -> Result<(u64, u64)> {
        collected.unique(self.store);
        let catalogue = Catalogue {
            packs: collected.packs.into_iter().map(Some).collect(),
            tables: Vec::new(),
        };
        if catalogue.packs.len() > MAX_PACKS as usize {
            let store = self.store.path.clone();
            return Err(StoreError::TooManyPacks { store }.into());
        }
        self.write(catalogue, &collected.records)
    }

    /// Writes a table of the records, and then the catalogue, whose newest table it becomes.
    fn write(&mut self, mut catalogue: Catalogue, records: &[Record]) -> Result<(u64, u64)> {
        let (mut chunks, mut loose) = (0, 0);
        let mut new = None;
        if !records.is_empty() {
            let (encoded, left_out) = table::encode(records);
            loose = self.put_loose(&catalogue, &left_out)?;
            let table = Table {
                number: self.next_number(&catalogue)?,
                pages: encoded.pages,
                records: encoded.records,
            };
            self.directory
                .write_file(&table_name(&table), &encoded.bytes)?;
            self.directory.sync()?;
            pause::at(Point::Table);
            catalogue.tables.insert(0, table);
            chunks = u64::from(encoded.records);
            new = Some(table_name(&table));
        }
        self.directory
            .write_file(CATALOGUE_NEW, &catalogue.to_bytes())
            .inspect_err(|_| {
                // On a full disk, a table that no catalogue lists takes room for nothing.
                let _ = new.map(|table| self.directory.remove_file(&table));
            })?;
        pause::at(Point::Catalogue);
        self.directory.rename_file(CATALOGUE_NEW, CATALOGUE)?;
        pause::at(Point::Catalogued);
        self.directory.sync()?;
        self.remove_unlisted(&catalogue);
        self.catalogue = Some(catalogue);
        Ok((chunks, loose))
    }

    /// Returns a number that is higher than those of all tables that a reader may know.
    fn next_number(&self, catalogue: &Catalogue) -> Result<u64> {
        let listed = self
            .catalogue
            .iter()
            .chain(slice::from_ref(&catalogue).iter().copied());
        let listed = listed.flat_map(|catalogue| catalogue.tables.iter().map(|table| table.number));
        let names = self.directory.names()?;
        let files = names.iter().filter_map(|name| table_number(name));
        let last = listed.chain(files).max().unwrap_or_default();
        last.checked_add(1).ok_or_else(|| {
            let path = self.directory.file_path(CATALOGUE);
            StoreError::TableNumber { path }.into()
        })
    }

    /// Stores chunks of packs loose, durably, because the index has no room for them.
    fn put_loose(&self, catalogue: &Catalogue, records: &[Record]) -> Result<u64> {
        let mut stored = Vec::new();
        let mut count = 0;
        for record in records {
            let pack = catalogue.packs.get(record.location.pack as usize);
            let Some(pack) = pack.copied().flatten() else {
                continue;
            };
            let digest = Digest::from(record.digest);
            let len = u64::from(record.location.stored_len);
            if self.store.blob_size(&digest)? != Some(len) {
                let pack = PackFile::open(self.store, &pack)?;
                if pack
                    .read_chunk(&rebuild::packed_chunk(record), &mut stored)
                    .is_err()
                {
                    // Its place would be of no use, either.
                    continue;
                }
                self.directory.write_file(LOOSE_NEW, &stored)?;
                self.directory
                    .move_file(LOOSE_NEW, &self.store.blobs, &digest.to_hex())
                    .map_err(|errno| {
                        Error::io(self.store.blob_path(&digest), "rename a chunk to")(errno)
                    })?;
            }
            count += 1;
        }
        if count > 0 {
            let path = self.store.path.join("blobs/sha256");
            rustix::fs::fsync(&self.store.blobs).map_err(Error::io(path, "sync"))?;
        }
        Ok(count)
    }

    /// Removes the files that the catalogue does not list. One that cannot be removed does no harm.
    fn remove_unlisted(&self, catalogue: &Catalogue) {
        let listed: HashSet<u64> = catalogue.tables.iter().map(|table| table.number).collect();
        for name in self.directory.names().unwrap_or_default() {
            let is_old = table_number(&name).is_some_and(|number| !listed.contains(&number));
            if is_old || name == CATALOGUE_NEW || name == LOOSE_NEW {
                let _ = self.directory.remove_file(&name);
            }
        }
    }
}

/// Enables fs-verity on new packs if one of these packs has it. A mount can require it of every file that it
/// reads, and reads a chunk from the pack that the index lists last.
fn keep_fsverity(
    store: &Store,
    listed: impl IntoIterator<Item = Digest>,
    new: &[&NewPack],
) -> Result<()> {
    if new.is_empty() {
        return Ok(());
    }
    let is_new = |pack: &Digest| new.iter().any(|new| new.digest == *pack);
    for pack in listed {
        if !is_new(&pack) && has_fsverity(store, &pack)? {
            return new
                .iter()
                .try_for_each(|pack| enable_fsverity(store, &pack.digest));
        }
    }
    Ok(())
}

/// Returns true if a pack has fs-verity. A pack that is missing has not.
fn has_fsverity(store: &Store, pack: &Digest) -> Result<bool> {
    let file = match store.open_blob(pack) {
        Ok(file) => file,
        Err(error) if error.is_not_found() => return Ok(false),
        Err(error) => return Err(error),
    };
    Ok(verity::measure(&file, &store.blob_path(pack))?.is_some())
}

fn enable_fsverity(store: &Store, pack: &Digest) -> Result<()> {
    match verity::enable(&store.open_blob(pack)?) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(Error::io(store.blob_path(pack), "enable fs-verity on")(
            errno,
        )),
    }
}

/// Sorts records by digest, and keeps the first one of each digest.
fn sort_and_dedup(records: &mut Vec<Record>) {
    records.sort_by_key(|record| record.digest);
    records.dedup_by_key(|record| record.digest);
}

/// Returns the number of a table, from the name of its file.
fn table_number(name: &str) -> Option<u64> {
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let is_table = name.len() == 16 && name.bytes().all(is_hex);
    is_table
        .then(|| u64::from_str_radix(name, 16).ok())
        .flatten()
}
