// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tables of the chunk index: encoding them, and reading all records of one.

use crate::error::TableFault;
use crate::store::chunks::catalogue::checksum;
use puzzlefs_schema::v4::{
    home_page, IndexError, Page, Record, Table, PAGE_HEADER_LEN, PAGE_LEN, PAGE_RECORDS, RECORD_LEN,
};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// The records per page of the smallest table, and those of the largest.
const RECORDS_PER_PAGE: (usize, usize) = (64, 8);

/// An encoded table.
pub(super) struct EncodedTable {
    pub pages: u32,
    pub records: u32,
    pub bytes: Vec<u8>,
}

/// Encodes a table of records that ascend strictly by digest; there is at least one. Returns the records,
/// too, for which it has no room.
pub(super) fn encode(records: &[Record]) -> (EncodedTable, Vec<Record>) {
    let (most, least) = RECORDS_PER_PAGE;
    let limit = records.len().div_ceil(least);
    let mut pages = records.len().div_ceil(most).max(1);
    while pages < limit && !fits(records, pages) {
        pages = limit.min(pages + pages.div_ceil(8));
    }
    encode_pages(records, pages)
}

/// The page for the next record, when records come in ascending order.
struct Placement {
    pages: u32,
    /// The last home page, and the records in it and in the page after it.
    home: u32,
    here: u16,
    after: u16,
}

impl Placement {
    fn new(pages: usize) -> Self {
        Placement {
            pages: u32::try_from(pages).unwrap_or(u32::MAX),
            home: 0,
            here: 0,
            after: 0,
        }
    }

    /// Returns the page of a record, and its home page; the page is `None` if there is no room.
    fn place(&mut self, record: &Record) -> (u32, Option<u32>) {
        let home = home_page(&record.digest, self.pages);
        if home != self.home {
            let next = home == self.home.saturating_add(1);
            self.here = if next { self.after } else { 0 };
            self.after = 0;
            self.home = home;
        }
        if self.here < PAGE_RECORDS {
            self.here += 1;
            (home, Some(home))
        } else if self.after < PAGE_RECORDS && home + 1 < self.pages {
            self.after += 1;
            (home, Some(home + 1))
        } else {
            (home, None)
        }
    }
}

/// Returns true if the records have room in a table of so many pages.
fn fits(records: &[Record], pages: usize) -> bool {
    let mut placement = Placement::new(pages);
    records
        .iter()
        .all(|record| placement.place(record).1.is_some())
}

fn encode_pages(records: &[Record], pages: usize) -> (EncodedTable, Vec<Record>) {
    let mut placement = Placement::new(pages);
    let mut bytes = vec![0; pages * PAGE_LEN];
    let mut counts = vec![0_u16; pages];
    let mut left_out = Vec::new();
    for record in records {
        let (home, Some(page)) = placement.place(record) else {
            left_out.push(*record);
            continue;
        };
        let page = page as usize;
        let start = page * PAGE_LEN;
        let at = start + PAGE_HEADER_LEN + usize::from(counts[page]) * RECORD_LEN;
        bytes[at..at + RECORD_LEN].copy_from_slice(&record.to_bytes());
        counts[page] += 1;
        bytes[start + 8..start + 10].copy_from_slice(&counts[page].to_le_bytes());
        if page != home as usize {
            bytes[home as usize * PAGE_LEN + 10] = 1;
        }
    }
    for page in bytes.chunks_exact_mut(PAGE_LEN) {
        let (sum, covered) = page.split_at_mut(8);
        sum.copy_from_slice(&checksum(covered).to_le_bytes());
    }
    let table = EncodedTable {
        pages: placement.pages,
        records: (records.len() - left_out.len()) as u32,
        bytes,
    };
    (table, left_out)
}

/// Checks the length of a table's file.
pub(super) fn check_length(file: &File, table: &Table) -> Result<(), TableFault> {
    let expected = u64::from(table.pages) * PAGE_LEN as u64;
    let found = file.metadata().map_or(0, |metadata| metadata.len());
    if found == expected {
        Ok(())
    } else {
        Err(TableFault::Length { expected, found })
    }
}

/// Reads a page's bytes.
pub(super) fn read_page(
    file: &File,
    page: u32,
    bytes: &mut [u8; PAGE_LEN],
) -> Result<(), TableFault> {
    file.read_exact_at(bytes, u64::from(page) * PAGE_LEN as u64)
        .map_err(|cause| TableFault::Read { page, cause })
}

/// Reads all records of a table, and checks every rule of it. `packs` is the number of packs of the
/// catalogue.
pub(super) fn read_all(file: &File, table: &Table, packs: u32) -> Result<Vec<Record>, TableFault> {
    check_length(file, table)?;
    // The length of the file bounds the allocation.
    let mut records: Vec<Record> = Vec::with_capacity(table.records as usize);
    let mut bytes = [0; PAGE_LEN];
    for page in 0..table.pages {
        read_page(file, page, &mut bytes)?;
        let fail = |cause| TableFault::Page { page, cause };
        let parsed = Page::parse(&bytes, checksum).map_err(fail)?;
        parsed.check(page, table, packs).map_err(fail)?;
        let before = records.last().map(|record| record.digest);
        if parsed
            .get(0)
            .is_some_and(|first| before >= Some(first.digest))
        {
            return Err(fail(IndexError::RecordOrder));
        }
        records.extend(parsed.iter());
    }
    if records.len() != table.records as usize {
        return Err(TableFault::Records {
            expected: table.records,
            found: records.len() as u64,
        });
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::btree_set;
    use proptest::prelude::*;
    use puzzlefs_schema::v4::{Location, Lookup};
    use puzzlefs_schema::Digest;
    use std::io::Write;

    fn record(prefix: u64, suffix: u8) -> Record {
        let mut digest = [suffix; 32];
        digest[..8].copy_from_slice(&prefix.to_be_bytes());
        Record {
            digest: Digest::new(digest),
            location: Location {
                pack: 0,
                offset: prefix >> 8,
                stored_len: 1,
            },
        }
    }

    /// Encodes records, and reads them back from a file.
    fn round_trip(records: &[Record]) -> (Table, Vec<u8>, Vec<Record>) {
        let (encoded, left_out) = encode(records);
        let table = Table {
            number: 1,
            pages: encoded.pages,
            records: encoded.records,
        };
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&encoded.bytes).unwrap();
        let read = read_all(&file, &table, 1).unwrap();
        assert_eq!(read.len() + left_out.len(), records.len());
        let mut all = [read, left_out.clone()].concat();
        all.sort_by_key(|record| record.digest);
        assert_eq!(all, records);
        (table, encoded.bytes, left_out)
    }

    fn find(table: &Table, bytes: &[u8], record: &Record) -> Option<Location> {
        let mut page = table.home_page(&record.digest);
        for _ in 0..2 {
            let page_bytes = &bytes[page as usize * PAGE_LEN..][..PAGE_LEN];
            let parsed = Page::parse(page_bytes, checksum).unwrap();
            match parsed.find(&record.digest, 1).unwrap() {
                Lookup::Found(location) => return Some(location),
                Lookup::Missing => return None,
                Lookup::NextPage => page += 1,
            }
        }
        None
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 64,
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        /// Skewed digests included: `shift` crowds them into a part of the pages.
        #[test]
        fn a_table_is_a_map(prefixes in btree_set(any::<u64>(), 1..700), shift in 0..12_u32) {
            let records: Vec<Record> =
                prefixes.iter().map(|prefix| record(prefix >> shift, *prefix as u8)).collect();
            let mut records = records;
            records.sort_by_key(|record| record.digest);
            records.dedup_by_key(|record| record.digest);
            let (table, bytes, left_out) = round_trip(&records);
            for record in &records {
                let expected = (!left_out.contains(record)).then_some(record.location);
                prop_assert_eq!(find(&table, &bytes, record), expected);
            }
        }
    }

    #[test]
    fn equal_prefixes_are_left_out() {
        let records: Vec<Record> = (0..=255).map(|suffix| record(1 << 40, suffix)).collect();
        let (table, _, left_out) = round_trip(&records);
        assert_eq!(table.pages, 32);
        assert_eq!(left_out.len(), 256 - 2 * 85);
    }

    #[test]
    fn each_fault_of_a_table_is_named() {
        let records: Vec<Record> = (0..200).map(|n| record(n << 56, 0)).collect();
        let (encoded, _) = encode(&records);
        let table = Table {
            number: 1,
            pages: encoded.pages,
            records: encoded.records,
        };
        let read = |table: &Table, bytes: &[u8]| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(bytes).unwrap();
            read_all(&file, table, 1)
        };
        let mut damaged = encoded.bytes.clone();
        damaged[PAGE_LEN + 100] ^= 1;
        assert!(matches!(
            read(&table, &damaged),
            Err(TableFault::Page {
                page: 1,
                cause: IndexError::Checksum
            })
        ));
        assert!(matches!(
            read(&table, &encoded.bytes[1..]),
            Err(TableFault::Length { .. })
        ));
        let more = Table {
            records: 201,
            ..table
        };
        assert!(matches!(
            read(&more, &encoded.bytes),
            Err(TableFault::Records {
                expected: 201,
                found: 200
            })
        ));
    }
}
