// SPDX-License-Identifier: GPL-2.0

//! The chunk index of a store: the directory `.puzzlefs/chunks`.
//!
//! The index is derived data that other processes replace at any time. A [`Snapshot`] has the packs
//! of one catalogue, and its tables open: it stays usable when their files are gone. Files are
//! opened by fixed names, and only regular ones. Pages of tables are read through the page cache of
//! the lower filesystem. A damaged catalogue or page is logged, and counts as empty.
//!
//! To check a page costs more than to read a small file. It is done once while the table is open:
//! tables do not change, and a wrong place shows when the chunk is verified. The places of chunks
//! that were found last are kept: a file's chunks are looked up when it is opened and for each
//! request, and the files of a bundle are likely to be read one after the other.
//!
//! # Locking
//!
//! The spinlock `current` protects the pointer to the snapshot. Nothing sleeps under it; a snapshot
//! is dropped without it.

use super::{
    digest_cache::DigestCache,
    opener::{Open, Opener},
    opening::Opening,
};
use crate::{
    base::{
        fault::Fault,
        limits::{MAX_INDEX_LOADS, MAX_PAGES_CHECKED, PLACES_KEPT, TABLE_READ_WHOLE},
        message::{ErrorName, Show, Text},
    },
    ports::xxhash::xxh64,
    vfs::{
        error_ratelimited,
        lower::{BackingFile, Directory, Version},
        prelude::*,
    },
};
use kernel::{
    fmt, new_spinlock,
    str::{BStr, CStr, CString},
    sync::{
        atomic::{Atomic, Relaxed},
        Arc, SpinLock,
    },
};
use puzzlefs_schema::{
    v4::{self, Catalogue, IndexError, Lookup, Page, Table, MAX_CATALOGUE_LEN, PAGE_LEN},
    Digest,
};

/// The place of a chunk in a pack.
#[derive(Clone, Copy)]
pub(super) struct ChunkPlace {
    /// The digest of the pack.
    pub(super) pack: Digest,
    /// The start of the stored bytes in the pack.
    pub(super) offset: u64,
    /// The number of stored bytes.
    pub(super) stored_len: u32,
}

/// An open table.
struct OpenTable {
    table: Table,
    file: BackingFile,
    /// A bit for each of the first pages, set once the page has passed its check.
    checked: KVec<Atomic<u64>>,
}

/// The packs and tables of a catalogue.
struct Tables {
    /// `None` stands for a pack that is gone.
    packs: KVVec<Option<Digest>>,
    /// The newest first.
    tables: KVec<OpenTable>,
    /// Chunks that were found, each with the number of the table behind the one that has it.
    found: DigestCache<(v4::Location, u32)>,
}

/// A state of the chunk index.
pub(super) struct Snapshot {
    tables: Arc<Tables>,
    /// The catalogue that was read last, if there ever was one.
    catalogue: Option<(BackingFile, Version)>,
}

/// A cause why a part of the index is not used.
enum Damage {
    Index(IndexError),
    Errno(Error),
}

impl From<IndexError> for Damage {
    fn from(e: IndexError) -> Self {
        Self::Index(e)
    }
}

impl From<Error> for Damage {
    fn from(e: Error) -> Self {
        Self::Errno(e)
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index(e) => fmt::Display::fmt(&Show(e), f),
            Self::Errno(e) => fmt::Display::fmt(&ErrorName(*e), f),
        }
    }
}

impl Damage {
    /// Returns the error, if it says nothing about the index.
    fn passing(&self) -> Option<Fault> {
        match self {
            Self::Errno(e) => {
                let fault = Fault::Errno(*e);
                fault.passing().map(|_| fault)
            }
            Self::Index(_) => None,
        }
    }
}

impl Tables {
    /// Returns the place of a chunk, if it was found before; with the number of the next table.
    fn found_before(&self, digest: &Digest) -> Option<(ChunkPlace, usize)> {
        let (location, next) = self.found.get(digest)?;
        Some((self.place(location)?, next as usize))
    }

    /// Returns the place of a location; `None` if its pack is gone.
    fn place(&self, location: v4::Location) -> Option<ChunkPlace> {
        Some(ChunkPlace {
            pack: (*self.packs.get(location.pack as usize)?)?,
            offset: location.offset,
            stored_len: location.stored_len,
        })
    }

    /// Returns the number of packs, those that are gone included.
    fn pack_count(&self) -> u32 {
        // The catalogue has at most `MAX_PACKS`.
        self.packs.len() as u32
    }
}

impl OpenTable {
    /// Starts to read a short table: chunks that are read in order are anywhere in it.
    fn new(table: Table, file: BackingFile) -> Result<Self> {
        if file.size() <= TABLE_READ_WHOLE {
            file.will_need(0, file.size());
        }
        let pages = table.pages.min(MAX_PAGES_CHECKED) as usize;
        let mut checked = KVec::new();
        for _ in 0..pages.div_ceil(u64::BITS as usize) {
            checked.push(Atomic::new(0), GFP_KERNEL_ACCOUNT)?;
        }
        Ok(Self {
            table,
            file,
            checked,
        })
    }

    /// Returns the word and the bit of a page, unless it is checked each time.
    fn check_of(&self, number: u32) -> Option<(&Atomic<u64>, u64)> {
        let word = self.checked.get((number / u64::BITS) as usize)?;
        Some((word, 1 << (number % u64::BITS)))
    }

    /// Reads a page that is in memory. Its checksum is computed once while the table is open.
    fn parse<'a>(&self, number: u32, page: &'a [u8]) -> Result<Page<'a>, IndexError> {
        let check = self.check_of(number);
        if check.is_some_and(|(word, bit)| word.load(Relaxed) & bit != 0) {
            return Page::parse_again(page);
        }
        let page = Page::parse(page, |bytes| xxh64(bytes, 0))?;
        if let Some((word, bit)) = check {
            // If another thread sets a bit at once, one of the pages is checked again.
            word.store(word.load(Relaxed) | bit, Relaxed);
        }
        Ok(page)
    }

    /// Searches for a digest. Reads at most two pages, into `memory`.
    fn find(
        &self,
        digest: &Digest,
        packs: u32,
        memory: &mut KVVec<u8>,
    ) -> Result<Option<v4::Location>, (u32, Damage)> {
        let home = self.table.home_page(digest);
        let damaged = |number| move |damage| (number, damage);
        match self
            .find_in(home, digest, packs, memory)
            .map_err(damaged(home))?
        {
            Lookup::Found(location) => Ok(Some(location)),
            Lookup::NextPage if home + 1 < self.table.pages => {
                let next = self.find_in(home + 1, digest, packs, memory);
                match next.map_err(damaged(home + 1))? {
                    Lookup::Found(location) => Ok(Some(location)),
                    Lookup::NextPage | Lookup::Missing => Ok(None),
                }
            }
            Lookup::NextPage | Lookup::Missing => Ok(None),
        }
    }

    /// Searches a page for a digest.
    fn find_in(
        &self,
        number: u32,
        digest: &Digest,
        packs: u32,
        memory: &mut KVVec<u8>,
    ) -> Result<Lookup, Damage> {
        let offset = u64::from(number) * PAGE_LEN as u64;
        let read = self.file.read_cached(memory, offset)?;
        let page = memory.get(..read).unwrap_or_default();
        Ok(self.parse(number, page)?.find(digest, packs)?)
    }
}

/// The files of a chunk index.
pub(super) struct IndexFiles {
    /// The directory of the store.
    root: Directory,
    /// The path of the store, as the first mounter named it.
    name: CString,
    current: Pin<KBox<SpinLock<Arc<Snapshot>>>>,
}

impl IndexFiles {
    fn new(root: Directory, name: &CStr) -> Result<Self> {
        let tables = Tables {
            packs: KVVec::new(),
            tables: KVec::new(),
            found: DigestCache::new(0)?,
        };
        let empty = Snapshot {
            tables: Arc::new(tables, GFP_KERNEL)?,
            catalogue: None,
        };
        let empty = Arc::new(empty, GFP_KERNEL)?;
        Ok(Self {
            root,
            name: CString::try_from(name)?,
            current: KBox::pin_init(new_spinlock!(empty, "puzzlefs_chunk_index"), GFP_KERNEL)?,
        })
    }

    fn current(&self) -> Arc<Snapshot> {
        self.current.lock().clone()
    }

    /// Logs that a part of the index is damaged.
    fn log(&self, part: fmt::Arguments<'_>, damage: &Damage) {
        error_ratelimited(fmt!(
            "chunk index of {}: {part}: {damage}; reindex rebuilds it",
            Text(&self.name)
        ));
    }

    /// Loads the catalogue, unless it is the one of the current snapshot, or there is none.
    ///
    /// # Errors
    ///
    /// Without `wait`, [`EAGAIN`] if a lock is taken; [`ENOMEM`]; [`EINTR`].
    fn load(&self, wait: bool) -> Result {
        let mut loads = 0;
        loop {
            let known = self.current();
            let Some((chunks, file)) = self.open_catalogue(wait)? else {
                return Ok(());
            };
            let version = file.version();
            let is_known = |(old, at): &(BackingFile, Version)| file.is_same(old) && version == *at;
            if known.catalogue.as_ref().is_some_and(is_known) {
                return Ok(());
            }
            loads += 1;
            let tables = match self.read(&file, &chunks, wait, loads < MAX_INDEX_LOADS) {
                // The catalogue was replaced meanwhile, and its tables are gone.
                Err(Damage::Errno(ENOENT)) => continue,
                Err(Damage::Errno(e)) if e == EAGAIN || Fault::Errno(e).passing().is_some() => {
                    return Err(e)
                }
                Err(damage) => {
                    self.log(fmt!("catalogue"), &damage);
                    // What it listed before is still likely to be there.
                    known.tables.clone()
                }
                Ok(tables) => tables,
            };
            let snapshot = Snapshot {
                tables,
                catalogue: Some((file, version)),
            };
            self.replace(&known, Arc::new(snapshot, GFP_KERNEL)?);
            return Ok(());
        }
    }

    /// Makes a snapshot the current one, unless another task has replaced the known one.
    fn replace(&self, known: &Arc<Snapshot>, new: Arc<Snapshot>) {
        // Dropped after the lock is released, because files are given back.
        let _unused = {
            let mut current = self.current.lock();
            if Arc::ptr_eq(&current, known) {
                core::mem::replace(&mut *current, new)
            } else {
                new
            }
        };
    }

    /// Opens the directory of the index, and its catalogue; `None` if there is none.
    fn open_catalogue(&self, wait: bool) -> Result<Option<(Directory, BackingFile)>> {
        let open = || {
            let private = self.root.open_directory_at(b".puzzlefs", wait)?;
            let chunks = private.open_directory_at(b"chunks", wait)?;
            let file = chunks.open_file(b"catalogue", wait)?;
            Ok((chunks, file))
        };
        match open() {
            Ok(opened) => Ok(Some(opened)),
            Err(ENOENT) => Ok(None),
            Err(e) if e == EAGAIN || Fault::Errno(e).passing().is_some() => Err(e),
            Err(e) => {
                self.log(fmt!("catalogue"), &Damage::Errno(e));
                Ok(None)
            }
        }
    }

    /// Reads a catalogue, and opens its tables. A table that cannot be opened is logged and left
    /// out.
    ///
    /// # Errors
    ///
    /// [`ENOENT`] if `may_repeat` is set and a table does not exist.
    fn read(
        &self,
        file: &BackingFile,
        chunks: &Directory,
        wait: bool,
        may_repeat: bool,
    ) -> Result<Arc<Tables>, Damage> {
        let bytes = read_catalogue(file)?;
        let catalogue = Catalogue::parse(&bytes, |bytes| xxh64(bytes, 0))?;
        let count = catalogue.packs();
        let no_memory = |_| Damage::Errno(ENOMEM);
        let mut packs = KVVec::with_capacity(count as usize, GFP_KERNEL_ACCOUNT | __GFP_NOWARN)
            .map_err(no_memory)?;
        for number in 0..count {
            let pack = catalogue.pack(number);
            packs.push(pack, GFP_KERNEL_ACCOUNT).map_err(no_memory)?;
        }
        let mut tables = KVec::new();
        for table in catalogue.tables() {
            let name = table.file_name();
            match chunks.open_file(&name, wait) {
                Ok(file) => tables
                    .push(OpenTable::new(table, file)?, GFP_KERNEL)
                    .map_err(no_memory)?,
                Err(e) if e == EAGAIN || Fault::Errno(e).passing().is_some() => {
                    return Err(Damage::Errno(e))
                }
                Err(ENOENT) if may_repeat => return Err(Damage::Errno(ENOENT)),
                Err(e) => {
                    let name = BStr::from_bytes(&name);
                    self.log(fmt!("table {name}"), &Damage::Errno(e));
                }
            }
        }
        let tables = Tables {
            packs,
            tables,
            found: DigestCache::new(PLACES_KEPT)?,
        };
        Arc::new(tables, GFP_KERNEL).map_err(no_memory)
    }

    /// Searches the tables of a snapshot from one on; returns the place, and the number of the next
    /// table to search.
    fn find(
        &self,
        snapshot: &Snapshot,
        digest: &Digest,
        first: usize,
    ) -> Result<Option<(ChunkPlace, usize)>, Fault> {
        let all = &*snapshot.tables;
        if first == 0 {
            if let Some(found) = all.found_before(digest) {
                return Ok(Some(found));
            }
        }
        if first >= all.tables.len() {
            return Ok(None);
        }
        let mut memory = KVVec::zeroed(PAGE_LEN, GFP_KERNEL)?;
        for (number, table) in all.tables.iter().enumerate().skip(first) {
            let found = table.find(digest, all.pack_count(), &mut memory);
            let location = match found {
                Ok(Some(location)) => location,
                Ok(None) => continue,
                Err((page, damage)) => {
                    if let Some(fault) = damage.passing() {
                        return Err(fault);
                    }
                    let name = table.table.file_name();
                    let name = BStr::from_bytes(&name);
                    self.log(fmt!("table {name}: page {page}"), &damage);
                    continue;
                }
            };
            if let Some(place) = all.place(location) {
                let next = number + 1;
                if first == 0 {
                    // A catalogue has at most `MAX_TABLES`.
                    all.found.insert(digest, (location, next as u32));
                }
                return Ok(Some((place, next)));
            }
        }
        Ok(None)
    }
}

/// Reads all of a catalogue.
fn read_catalogue(file: &BackingFile) -> Result<KVVec<u8>, Damage> {
    let size = usize::try_from(file.size()).map_err(|_| EFBIG)?;
    if size > MAX_CATALOGUE_LEN {
        return Err(Damage::Index(IndexError::CatalogueLength));
    }
    let mut bytes = KVVec::zeroed(size, GFP_KERNEL_ACCOUNT | __GFP_NOWARN).map_err(|_| ENOMEM)?;
    let read = file.read_cached(&mut bytes, 0)?;
    bytes.truncate(read);
    Ok(bytes)
}

/// Loads the catalogue for readers that must not wait for locks.
impl Open for IndexFiles {
    type Name = ();
    type Opened = ();

    fn open(&self, _name: &()) -> Result {
        self.load(true)
    }
}

/// The chunk index of a store.
pub(super) struct ChunkIndex {
    files: Arc<IndexFiles>,
    opener: Opener<IndexFiles>,
}

impl ChunkIndex {
    /// Makes the index of the store in a directory, of which nothing is read yet. Messages name the
    /// store by `name`.
    pub(super) fn new(root: Directory, name: &CStr) -> Result<Self> {
        let files = Arc::new(IndexFiles::new(root, name)?, GFP_KERNEL)?;
        Ok(Self {
            opener: Opener::new(files.clone())?,
            files,
        })
    }

    /// Returns the newest state that was read.
    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        self.files.current()
    }

    /// Returns a newer state than a known one; `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`Fault::NotOpen`] if the caller does not wait as long as it takes to find out; [`EDEADLK`]
    /// if that takes too long; [`ENOMEM`]; [`EINTR`].
    pub(super) fn newer_than(
        &self,
        known: &Arc<Snapshot>,
        how: Opening,
    ) -> Result<Option<Arc<Snapshot>>, Fault> {
        let newer = || Some(self.snapshot()).filter(|current| !Arc::ptr_eq(current, known));
        if newer().is_none() {
            match self.files.load(false) {
                Err(EAGAIN) if how == Opening::Now => return Err(Fault::NotOpen),
                Err(EAGAIN) => self.opener.open(&())?,
                loaded => loaded?,
            }
        }
        Ok(newer())
    }

    /// Searches the tables of a state from one on; returns the place, and the number of the next
    /// table to search. Damaged pages are logged and skipped.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`], [`EINTR`].
    pub(super) fn find(
        &self,
        snapshot: &Snapshot,
        digest: &Digest,
        first: usize,
    ) -> Result<Option<(ChunkPlace, usize)>, Fault> {
        self.files.find(snapshot, digest, first)
    }
}
