// SPDX-License-Identifier: MIT OR Apache-2.0

//! Searching the chunk index.

use crate::error::{Error, Result, StoreError, TableFault};
use crate::model::digest::Digest;
use crate::store::chunks::catalogue::{checksum, table_name, Catalogue, CATALOGUE};
use crate::store::chunks::directory::{PrivateDirectory, CHUNKS};
use crate::store::chunks::table::{check_length, read_page};
use crate::store::locks::PRIVATE;
use crate::store::oci_layout::Store;
use puzzlefs_schema::v4::{Lookup, Page, Table, MAX_CHUNK_CONTENT, PAGE_LEN};
use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The number of attempts to open the tables of a catalogue, each of which a writer replaced meanwhile.
const ATTEMPTS: usize = 20;

/// The place of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Location {
    /// It lies in a pack.
    Pack {
        /// The digest of the pack.
        pack: Digest,
        /// The start of the stored bytes.
        offset: u64,
        /// The number of stored bytes.
        stored_len: u32,
    },
    /// It is a file of its own.
    Loose {
        /// The size of the file.
        stored_len: u32,
    },
}

/// A snapshot of the chunk index of a store, for any number of threads.
///
/// The files of one catalogue stay open, so writers do not disturb it. Damaged parts are skipped.
pub(crate) struct ChunkIndex<'s> {
    store: &'s Store,
    /// The directory and the open catalogue; `None` if there is none.
    opened: Option<(PrivateDirectory, File)>,
    packs: Vec<Option<Digest>>,
    tables: Vec<(Table, File)>,
    faults: Vec<StoreError>,
    pages_read: AtomicU64,
    damaged_pages: AtomicU64,
}

impl<'s> ChunkIndex<'s> {
    /// Opens the index. A store without one has no packed chunks.
    pub fn open(store: &'s Store) -> Result<Self> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let index = Self::open_once(store)?;
            // A table can be missing because a writer has replaced the catalogue.
            if index.faults.is_empty() || attempts == ATTEMPTS || !index.is_replaced()? {
                return Ok(index);
            }
        }
    }

    fn open_once(store: &'s Store) -> Result<Self> {
        let mut index = ChunkIndex {
            store,
            opened: None,
            packs: Vec::new(),
            tables: Vec::new(),
            faults: Vec::new(),
            pages_read: AtomicU64::new(0),
            damaged_pages: AtomicU64::new(0),
        };
        let Some(directory) = PrivateDirectory::open(store, CHUNKS)? else {
            return Ok(index);
        };
        let Some((file, catalogue)) = Catalogue::read(&directory)? else {
            return Ok(index);
        };
        match catalogue {
            Ok(catalogue) => {
                index.packs = catalogue.packs;
                for table in catalogue.tables {
                    index.open_table(&directory, table)?;
                }
            }
            Err(cause) => {
                let path = directory.file_path(CATALOGUE);
                index.faults.push(StoreError::ChunkIndex { path, cause });
            }
        }
        index.opened = Some((directory, file));
        Ok(index)
    }

    fn open_table(&mut self, directory: &PrivateDirectory, table: Table) -> Result<()> {
        let name = table_name(&table);
        let opened = match directory.open_file(&name)? {
            Some(file) => check_length(&file, &table).map(|()| file),
            None => Err(TableFault::Missing),
        };
        match opened {
            Ok(file) => self.tables.push((table, file)),
            Err(cause) => {
                let path = directory.file_path(&name);
                self.faults.push(StoreError::ChunkTable { path, cause });
            }
        }
        Ok(())
    }

    /// Returns true if the store has a catalogue, which may be damaged.
    pub fn exists(&self) -> bool {
        self.opened.is_some()
    }

    /// Returns true if the store has another catalogue by now.
    pub fn is_replaced(&self) -> Result<bool> {
        match &self.opened {
            Some((directory, file)) => Ok(!directory.is_named(file, CATALOGUE)),
            None => match PrivateDirectory::open(self.store, CHUNKS)? {
                Some(directory) => Ok(directory.open_file(CATALOGUE)?.is_some()),
                None => Ok(false),
            },
        }
    }

    /// Finds a chunk: in a pack, or else loose.
    pub fn find(&self, digest: &Digest) -> Result<Option<Location>> {
        match self.packed(digest).next() {
            Some(location) => Ok(Some(location)),
            None => self.loose(digest),
        }
    }

    /// Returns the places of a chunk in packs, that of the newest table first.
    pub fn packed<'a>(&'a self, digest: &'a Digest) -> impl Iterator<Item = Location> + 'a {
        self.tables
            .iter()
            .filter_map(|(table, file)| match self.search(table, file, digest) {
                Ok(location) => location,
                Err(_) => {
                    self.damaged_pages.fetch_add(1, Relaxed);
                    None
                }
            })
    }

    /// Finds a loose chunk.
    pub fn loose(&self, digest: &Digest) -> Result<Option<Location>> {
        let stored_len = self.store.blob_size(digest)?;
        Ok(stored_len
            .and_then(|len| u32::try_from(len).ok())
            .filter(|len| (1..=MAX_CHUNK_CONTENT).contains(len))
            .map(|stored_len| Location::Loose { stored_len }))
    }

    fn search(
        &self,
        table: &Table,
        file: &File,
        digest: &Digest,
    ) -> Result<Option<Location>, TableFault> {
        let key = puzzlefs_schema::Digest::from(*digest);
        let home = table.home_page(&key);
        let packs = self.packs.len() as u32;
        let mut bytes = [0; PAGE_LEN];
        for page in home..=home.saturating_add(1).min(table.pages - 1) {
            self.pages_read.fetch_add(1, Relaxed);
            read_page(file, page, &mut bytes)?;
            let lookup = Page::parse(&bytes, checksum).and_then(|page| page.find(&key, packs));
            match lookup.map_err(|cause| TableFault::Page { page, cause })? {
                Lookup::Found(found) => {
                    let pack = self.packs.get(found.pack as usize).copied().flatten();
                    return Ok(pack.map(|pack| Location::Pack {
                        pack,
                        offset: found.offset,
                        stored_len: found.stored_len,
                    }));
                }
                Lookup::Missing => return Ok(None),
                Lookup::NextPage => {}
            }
        }
        Ok(None)
    }

    /// The packs that the index lists.
    pub fn packs(&self) -> impl Iterator<Item = Digest> + '_ {
        self.packs.iter().flatten().copied()
    }

    /// Returns an error if a part of the index cannot be used: the catalogue, a table, or a page that a
    /// lookup has read.
    pub fn damage(&self) -> Option<Error> {
        let (_, damaged) = self.pages_read();
        if self.faults.is_empty() && damaged == 0 {
            return None;
        }
        let path = self.store.path.join(PRIVATE).join(CHUNKS);
        Some(StoreError::ChunkIndexDamaged { path }.into())
    }

    /// The number of pages that lookups have read, and the number of these that are damaged.
    pub fn pages_read(&self) -> (u64, u64) {
        (
            self.pages_read.load(Relaxed),
            self.damaged_pages.load(Relaxed),
        )
    }
}
