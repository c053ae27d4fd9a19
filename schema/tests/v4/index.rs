// SPDX-License-Identifier: MIT OR Apache-2.0

//! Writes tables and catalogues of the chunk index.

#![allow(dead_code)]

use puzzlefs_schema::v4::{home_page, Location, Record, Table, PAGE_LEN, PAGE_RECORDS};
use puzzlefs_schema::Digest;
use std::collections::BTreeMap;
use xxhash_rust::xxh64::xxh64;

/// Writes a page.
pub fn build_page(records: &[Record], is_continued: bool) -> Vec<u8> {
    let mut page = vec![0; 16];
    page[8..10].copy_from_slice(&(records.len() as u16).to_le_bytes());
    page[10] = is_continued.into();
    page.extend(records.iter().flat_map(Record::to_bytes));
    page.resize(PAGE_LEN, 0);
    seal_page(&mut page);
    page
}

/// Writes the checksum of a page.
pub fn seal_page(page: &mut [u8]) {
    let checksum = xxh64(&page[8..], 0);
    page[..8].copy_from_slice(&checksum.to_le_bytes());
}

/// Writes a table, unless it would have more than a page for every 8 records.
pub fn build_table(records: &BTreeMap<Digest, Location>) -> Option<(Table, Vec<u8>)> {
    let count = records.len() as u32;
    let (first, last) = (count.div_ceil(64), count.div_ceil(8));
    let mut pages = first;
    while pages <= last {
        if let Some(bytes) = try_table(records, pages) {
            let table = Table {
                number: 1,
                pages,
                records: count,
            };
            return Some((table, bytes));
        }
        pages += pages.div_ceil(8);
    }
    None
}

/// Writes a table of so many pages, if the records fit.
fn try_table(records: &BTreeMap<Digest, Location>, pages: u32) -> Option<Vec<u8>> {
    let mut table = vec![Vec::new(); pages as usize];
    let mut is_continued = vec![false; pages as usize];
    for (&digest, &location) in records {
        let home = home_page(&digest, pages) as usize;
        let is_full = |page: &Vec<Record>| page.len() == PAGE_RECORDS as usize;
        let page = home + usize::from(is_full(&table[home]));
        if page == table.len() || is_full(&table[page]) {
            return None;
        }
        is_continued[home] |= page != home;
        table[page].push(Record { digest, location });
    }
    let pages = table.iter().zip(is_continued);
    Some(
        pages
            .flat_map(|(page, is_continued)| build_page(page, is_continued))
            .collect(),
    )
}

/// Writes a catalogue.
pub fn build_catalogue(packs: &[[u8; 32]], tables: &[Table]) -> Vec<u8> {
    let mut catalogue = b"PZFSCATA\x01\0\0\0\0\0\0\0".to_vec();
    catalogue.extend([0; 8]);
    catalogue.extend((packs.len() as u32).to_le_bytes());
    catalogue.extend((tables.len() as u32).to_le_bytes());
    catalogue.extend(packs.concat());
    for table in tables {
        catalogue.extend(table.number.to_le_bytes());
        catalogue.extend(table.pages.to_le_bytes());
        catalogue.extend(table.records.to_le_bytes());
    }
    seal_catalogue(&mut catalogue);
    catalogue
}

/// Writes the checksum of a catalogue.
pub fn seal_catalogue(catalogue: &mut [u8]) {
    let checksum = xxh64(&catalogue[24..], 0);
    catalogue[16..24].copy_from_slice(&checksum.to_le_bytes());
}
