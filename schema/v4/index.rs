// SPDX-License-Identifier: MIT OR Apache-2.0

//! The chunk index of a store: a catalogue and its tables.
//!
//! A reader keeps a [`Catalogue`], and for each of its [`Table`]s fetches the pages that
//! [`Table::home_page`] and [`Page::find`] ask for. Checksums are XXH64 with seed 0. The kernel and
//! the tools have different implementations, so the caller supplies the function.

use super::{
    limits::{MAX_CHUNK_CONTENT, MAX_PACKS, MAX_TABLES},
    words::{halves, is_zero, split_digest, u16_at, u64_at, words},
};
use crate::{digest::Digest, search::partition_point_of, steps::step};
use core::fmt;

/// The magic number of a catalogue.
const MAGIC: [u8; 8] = *b"PZFSCATA";

/// The version of the catalogue format.
const CATALOGUE_VERSION: u32 = 1;

/// The length of a catalogue's header, in bytes.
pub const CATALOGUE_HEADER_LEN: usize = 32;

/// The length of a table's entry in a catalogue, in bytes.
const TABLE_LEN: usize = 16;

/// The length of the largest catalogue, in bytes.
pub const MAX_CATALOGUE_LEN: usize = {
    let packs = (MAX_PACKS as usize).saturating_mul(Digest::LEN);
    let tables = (MAX_TABLES as usize).saturating_mul(TABLE_LEN);
    CATALOGUE_HEADER_LEN
        .saturating_add(packs)
        .saturating_add(tables)
};

/// The length of a page, in bytes.
pub const PAGE_LEN: usize = 4096;

/// The length of a page's header, in bytes.
pub const PAGE_HEADER_LEN: usize = 16;

/// The length of a record, in bytes.
pub const RECORD_LEN: usize = 48;

/// The largest number of records in a page.
pub const PAGE_RECORDS: u16 = 85;

/// The length of the name of a table's file.
pub const TABLE_NAME_LEN: usize = 16;

/// A violated rule of catalogues and tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum IndexError {
    /// The file does not begin with a catalogue's magic number, or is shorter than its header.
    NotACatalogue,
    /// The catalogue has another version of the format.
    Version(u32),
    /// The checksum is not that of the catalogue or the page.
    Checksum,
    /// A reserved byte is not 0.
    Reserved,
    /// The catalogue has more than [`MAX_PACKS`] packs.
    PackCount,
    /// The catalogue has more than [`MAX_TABLES`] tables.
    TableCount,
    /// The catalogue has another length than its counts state.
    CatalogueLength,
    /// The numbers of the tables do not descend strictly.
    TableOrder,
    /// A table has no pages, no records, or more records than its pages can hold.
    TableSize,
    /// The page has another length than [`PAGE_LEN`].
    PageLength,
    /// The page has more than [`PAGE_RECORDS`] records.
    RecordCount,
    /// The continuation of the page is neither 0 nor 1.
    Continuation,
    /// The records of the page do not ascend strictly by their digests.
    RecordOrder,
    /// A record lies neither in its home page nor in the page after it.
    RecordPage,
    /// The stored length of a chunk is 0 or larger than [`MAX_CHUNK_CONTENT`].
    StoredLength,
    /// The end of a chunk in its pack cannot be expressed.
    Offset,
    /// A record names a pack that the catalogue does not have.
    PackNumber,
}

impl fmt::Display for IndexError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotACatalogue => "the file does not begin with the header of a catalogue",
            Self::Version(version) => {
                return write!(
                    f,
                    "the catalogue has version {version}, expected {CATALOGUE_VERSION}"
                )
            }
            Self::Checksum => "the checksum is wrong",
            Self::Reserved => "a reserved byte is not 0",
            Self::PackCount => "the catalogue has more than 1048576 packs",
            Self::TableCount => "the catalogue has more than 32 tables",
            Self::CatalogueLength => "the catalogue has another length than its header states",
            Self::TableOrder => "the numbers of the tables do not descend",
            Self::TableSize => "the number of a table's records does not fit its pages",
            Self::PageLength => "the page does not have 4096 bytes",
            Self::RecordCount => "the page has more than 85 records",
            Self::Continuation => "the continuation of the page is neither 0 nor 1",
            Self::RecordOrder => "the records of the page do not ascend",
            Self::RecordPage => "a record lies in a page where no lookup finds it",
            Self::StoredLength => "the stored length of a chunk is not 1 to 1048576",
            Self::Offset => "the offset of a chunk is out of range",
            Self::PackNumber => "a record names a pack that the catalogue does not have",
        })
    }
}

impl core::error::Error for IndexError {}

/// A catalogue: the packs and the tables of a store's chunk index.
#[derive(Clone, Copy, Debug)]
pub struct Catalogue<'a> {
    packs: &'a [u8],
    tables: &'a [u8],
}

impl<'a> Catalogue<'a> {
    /// Reads a catalogue, which is all of `bytes`.
    ///
    /// Cost: one checksum of the bytes, and the number of tables.
    ///
    /// # Errors
    ///
    /// [`IndexError::NotACatalogue`], [`IndexError::Version`], [`IndexError::Reserved`],
    /// [`IndexError::Checksum`], [`IndexError::PackCount`], [`IndexError::TableCount`],
    /// [`IndexError::CatalogueLength`], [`IndexError::TableOrder`], [`IndexError::TableSize`].
    pub fn parse(bytes: &'a [u8], xxh64: impl FnOnce(&[u8]) -> u64) -> Result<Self, IndexError> {
        const COVERED: usize = 24;
        if !bytes.starts_with(&MAGIC) {
            return Err(IndexError::NotACatalogue);
        }
        let (header, lists) = bytes
            .split_at_checked(CATALOGUE_HEADER_LEN)
            .ok_or(IndexError::NotACatalogue)?;
        let [_, version, checksum, counts] = words(header).ok_or(IndexError::NotACatalogue)?;
        let (version, reserved) = halves(version);
        if version != CATALOGUE_VERSION {
            return Err(IndexError::Version(version));
        }
        if reserved != 0 {
            return Err(IndexError::Reserved);
        }
        if xxh64(bytes.get(COVERED..).unwrap_or_default()) != checksum {
            return Err(IndexError::Checksum);
        }
        let (packs, tables) = halves(counts);
        if packs > MAX_PACKS {
            return Err(IndexError::PackCount);
        }
        if tables > MAX_TABLES {
            return Err(IndexError::TableCount);
        }
        let packs_len = (packs as usize).saturating_mul(Digest::LEN);
        let tables_len = (tables as usize).saturating_mul(TABLE_LEN);
        let (packs, tables) = lists
            .split_at_checked(packs_len)
            .filter(|(_, tables)| tables.len() == tables_len)
            .ok_or(IndexError::CatalogueLength)?;
        let catalogue = Self { packs, tables };
        catalogue.check_tables()?;
        Ok(catalogue)
    }

    fn check_tables(&self) -> Result<(), IndexError> {
        let mut newer = None;
        for table in self.tables() {
            step();
            let capacity = u64::from(table.pages).saturating_mul(PAGE_RECORDS.into());
            if table.records == 0 || u64::from(table.records) > capacity {
                return Err(IndexError::TableSize);
            }
            if newer.is_some_and(|newer| newer <= table.number) {
                return Err(IndexError::TableOrder);
            }
            newer = Some(table.number);
        }
        Ok(())
    }

    /// The number of packs, those that are gone included.
    pub fn packs(&self) -> u32 {
        (self.packs.len() / Digest::LEN) as u32
    }

    /// The digest of a pack; `None` if the pack is gone, or if there is no pack of the number.
    pub fn pack(&self, number: u32) -> Option<Digest> {
        let at = (number as usize).checked_mul(Digest::LEN)?;
        let (digest, _) = split_digest(self.packs.get(at..)?)?;
        (!is_zero(digest.as_bytes())).then_some(digest)
    }

    /// The tables, the newest first.
    pub fn tables(&self) -> impl Iterator<Item = Table> + 'a {
        self.tables.chunks_exact(TABLE_LEN).filter_map(|table| {
            let [number, sizes] = words(table)?;
            let (pages, records) = halves(sizes);
            Some(Table {
                number,
                pages,
                records,
            })
        })
    }
}

/// A table, as a catalogue describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// The number of the table, from which its file is named.
    pub number: u64,
    /// The number of pages: the length of the file is [`PAGE_LEN`] times as much.
    pub pages: u32,
    /// The number of records.
    pub records: u32,
}

impl Table {
    /// The name of the table's file: the number, as 16 hexadecimal digits.
    pub fn file_name(&self) -> [u8; TABLE_NAME_LEN] {
        let mut name = [0; TABLE_NAME_LEN];
        let mut rest = self.number;
        for digit in name.iter_mut().rev() {
            *digit = match (rest & 15) as u8 {
                value @ 0..=9 => b'0'.wrapping_add(value),
                value => b'a'.wrapping_sub(10).wrapping_add(value),
            };
            rest >>= 4;
        }
        name
    }

    /// The page that a digest's record lies in, unless that page is full.
    pub fn home_page(&self, digest: &Digest) -> u32 {
        home_page(digest, self.pages)
    }
}

/// Returns the home page of a digest in a table of `pages` pages.
pub fn home_page(digest: &Digest, pages: u32) -> u32 {
    let [d0, d1, d2, d3, d4, d5, d6, d7, ..] = *digest.as_bytes();
    let position = u64::from_be_bytes([d0, d1, d2, d3, d4, d5, d6, d7]);
    // The product of 64 and 32 bits has 96; the upper 32 are less than `pages`.
    (u128::from(position).wrapping_mul(pages.into()) >> 64) as u32
}

/// The place of a chunk in a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    /// The number of the pack in the catalogue.
    pub pack: u32,
    /// The start of the stored bytes in the pack.
    pub offset: u64,
    /// The number of stored bytes.
    pub stored_len: u32,
}

/// A record of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The digest of the chunk.
    pub digest: Digest,
    /// The place of the chunk.
    pub location: Location,
}

impl Record {
    /// Reads a record.
    fn read(bytes: &[u8]) -> Option<Self> {
        step();
        let (digest, rest) = split_digest(bytes)?;
        let [offset, rest] = words(rest)?;
        let (stored_len, pack) = halves(rest);
        Some(Self {
            digest,
            location: Location {
                pack,
                offset,
                stored_len,
            },
        })
    }

    /// The record's bytes.
    pub fn to_bytes(&self) -> [u8; RECORD_LEN] {
        let mut record = [0; RECORD_LEN];
        let bytes = self.digest.as_bytes().iter().copied();
        let bytes = bytes.chain(self.location.offset.to_le_bytes());
        let bytes = bytes.chain(self.location.stored_len.to_le_bytes());
        let bytes = bytes.chain(self.location.pack.to_le_bytes());
        for (to, from) in record.iter_mut().zip(bytes) {
            *to = from;
        }
        record
    }

    /// Checks the place of the chunk, for a catalogue of so many packs.
    ///
    /// # Errors
    ///
    /// [`IndexError::StoredLength`], [`IndexError::Offset`], [`IndexError::PackNumber`].
    fn check(&self, packs: u32) -> Result<(), IndexError> {
        let location = &self.location;
        if !(1..=MAX_CHUNK_CONTENT).contains(&location.stored_len) {
            return Err(IndexError::StoredLength);
        }
        let end = location.offset.checked_add(location.stored_len.into());
        if end.is_none() {
            return Err(IndexError::Offset);
        }
        if location.pack >= packs {
            return Err(IndexError::PackNumber);
        }
        Ok(())
    }
}

/// The result of a search in a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// The chunk is there.
    Found(Location),
    /// The record can lie in the next page, if the table has one, and nowhere else.
    NextPage,
    /// The table does not have the chunk.
    Missing,
}

/// A page of a table.
///
/// # Invariants
///
/// `records` has at most [`PAGE_RECORDS`] records.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    records: &'a [u8],
    is_continued: bool,
}

impl<'a> Page<'a> {
    /// Reads a page.
    ///
    /// Cost: one checksum of the bytes.
    ///
    /// # Errors
    ///
    /// [`IndexError::PageLength`], [`IndexError::Checksum`], [`IndexError::Reserved`],
    /// [`IndexError::RecordCount`], [`IndexError::Continuation`].
    pub fn parse(bytes: &'a [u8], xxh64: impl FnOnce(&[u8]) -> u64) -> Result<Self, IndexError> {
        const COVERED: usize = 8;
        const RESERVED: usize = 11;
        if bytes.len() != PAGE_LEN {
            return Err(IndexError::PageLength);
        }
        let covered = bytes.get(COVERED..).unwrap_or_default();
        if u64_at(bytes, 0) != Some(xxh64(covered)) {
            return Err(IndexError::Checksum);
        }
        let (page, unused) = Self::divide(bytes)?;
        let reserved = bytes.get(RESERVED..PAGE_HEADER_LEN);
        if !reserved.is_some_and(is_zero) || !is_zero(unused) {
            return Err(IndexError::Reserved);
        }
        Ok(page)
    }

    /// Reads a page that [`Self::parse`] has accepted before. If the bytes have changed since, its
    /// records are other ones.
    ///
    /// Cost: constant.
    ///
    /// # Errors
    ///
    /// [`IndexError::PageLength`], [`IndexError::RecordCount`], [`IndexError::Continuation`].
    pub fn parse_again(bytes: &'a [u8]) -> Result<Self, IndexError> {
        if bytes.len() != PAGE_LEN {
            return Err(IndexError::PageLength);
        }
        Ok(Self::divide(bytes)?.0)
    }

    /// Divides the bytes of a page into the page and the unused bytes behind its records.
    fn divide(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), IndexError> {
        let (header, records) = bytes
            .split_at_checked(PAGE_HEADER_LEN)
            .ok_or(IndexError::PageLength)?;
        let count = u16_at(header, 8).ok_or(IndexError::PageLength)?;
        let is_continued = match header.get(10) {
            Some(0) => false,
            Some(1) => true,
            _ => return Err(IndexError::Continuation),
        };
        let (records, unused) = records
            .split_at_checked(usize::from(count).saturating_mul(RECORD_LEN))
            .ok_or(IndexError::RecordCount)?;
        // INVARIANT: A page has room for `PAGE_RECORDS` records.
        let page = Self {
            records,
            is_continued,
        };
        Ok((page, unused))
    }

    /// The number of records.
    pub fn len(&self) -> u32 {
        (self.records.len() / RECORD_LEN) as u32
    }

    /// Returns true if the page has no records.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Returns true if records whose home is this page continue in the next one.
    pub const fn is_continued(&self) -> bool {
        self.is_continued
    }

    /// The record at a position.
    pub fn get(&self, index: u32) -> Option<Record> {
        let at = (index as usize).checked_mul(RECORD_LEN)?;
        Record::read(self.records.get(at..)?)
    }

    /// The records, ascending by digest.
    pub fn iter(&self) -> impl Iterator<Item = Record> + 'a {
        self.records
            .chunks_exact(RECORD_LEN)
            .filter_map(Record::read)
    }

    /// Searches for a digest, in its home page or in the page after it. `packs` is the number of
    /// packs of the catalogue.
    ///
    /// Of a page after the home page, [`Lookup::NextPage`] means that the table does not have the
    /// chunk.
    ///
    /// Cost: at most 8 records.
    ///
    /// # Errors
    ///
    /// If the record is found: [`IndexError::StoredLength`], [`IndexError::Offset`],
    /// [`IndexError::PackNumber`].
    pub fn find(&self, digest: &Digest, packs: u32) -> Result<Lookup, IndexError> {
        let place = partition_point_of(self.len(), |index| {
            let record = self.get(index).ok_or(IndexError::RecordCount)?;
            Ok(record.digest < *digest)
        })?;
        if let Some(record) = self.get(place).filter(|record| record.digest == *digest) {
            record.check(packs)?;
            return Ok(Lookup::Found(record.location));
        }
        Ok(if self.is_continued {
            Lookup::NextPage
        } else {
            Lookup::Missing
        })
    }

    /// Checks all records of the page, which has the given number in the table, for a catalogue of
    /// `packs` packs. A lookup does without: an error in a record hides chunks, and changes none.
    ///
    /// Cost: the number of records.
    ///
    /// # Errors
    ///
    /// [`IndexError::RecordOrder`], [`IndexError::RecordPage`], [`IndexError::Continuation`] if the
    /// last page is continued, [`IndexError::StoredLength`], [`IndexError::Offset`],
    /// [`IndexError::PackNumber`].
    pub fn check(&self, number: u32, table: &Table, packs: u32) -> Result<(), IndexError> {
        if self.is_continued && number.checked_add(1) == Some(table.pages) {
            return Err(IndexError::Continuation);
        }
        let mut before = None;
        for record in self.iter() {
            if before.is_some_and(|before| before >= record.digest) {
                return Err(IndexError::RecordOrder);
            }
            before = Some(record.digest);
            if !matches!(
                number.checked_sub(table.home_page(&record.digest)),
                Some(0 | 1)
            ) {
                return Err(IndexError::RecordPage);
            }
            record.check(packs)?;
        }
        Ok(())
    }
}
