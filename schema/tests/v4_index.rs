// SPDX-License-Identifier: MIT OR Apache-2.0

//! The chunk index of format 4: tables and catalogues as a writer makes them, compared with a map,
//! and each rule, violated alone.

#[path = "v4/index.rs"]
mod index;

use index::{build_catalogue, build_page, build_table, seal_catalogue, seal_page};
use puzzlefs_schema::v4::{
    home_page, Catalogue, IndexError, Location, Lookup, Page, Record, Table, PAGE_LEN,
};
use puzzlefs_schema::Digest;
use puzzlefs_test_support::v4::Random;
use std::collections::BTreeMap;
use xxhash_rust::xxh64::xxh64;

fn hash(bytes: &[u8]) -> u64 {
    xxh64(bytes, 0)
}

fn record(prefix: u64, random: &mut Random) -> Record {
    let mut digest = [0; 32];
    digest[..8].copy_from_slice(&prefix.to_be_bytes());
    digest[8..16].copy_from_slice(&random.number().to_le_bytes());
    Record {
        digest: Digest::new(digest),
        location: Location {
            pack: random.below(10) as u32,
            offset: random.number() >> 20,
            stored_len: random.below(1 << 20) as u32 + 1,
        },
    }
}

/// Looks a digest up in a table. Returns its place, and the number of pages that were read.
fn look_up(table: &Table, pages: &[u8], digest: &Digest) -> (Option<Location>, u32) {
    let home = table.home_page(digest);
    let page = |number: u32| {
        let page = &pages[number as usize * PAGE_LEN..][..PAGE_LEN];
        Page::parse(page, hash).unwrap().find(digest, 10).unwrap()
    };
    match page(home) {
        Lookup::Found(location) => (Some(location), 1),
        Lookup::Missing => (None, 1),
        Lookup::NextPage => match page(home + 1) {
            Lookup::Found(location) => (Some(location), 2),
            Lookup::Missing | Lookup::NextPage => (None, 2),
        },
    }
}

/// Compares a table of these records with a map.
fn compare(records: &BTreeMap<Digest, Location>, missing: &[Digest]) {
    let (table, pages) = build_table(records).expect("the records fit");
    assert_eq!(pages.len(), table.pages as usize * PAGE_LEN);
    assert_eq!(table.records as usize, records.len());
    let mut read = 0;
    for (number, bytes) in (0..).zip(pages.chunks(PAGE_LEN)) {
        let page = Page::parse(bytes, hash).unwrap();
        page.check(number, &table, 10).unwrap();
        read += page.len();
    }
    assert_eq!(read, table.records);
    for (digest, location) in records {
        let (found, pages_read) = look_up(&table, &pages, digest);
        assert_eq!(found, Some(*location));
        assert!(pages_read <= 2);
    }
    for digest in missing {
        let (found, _) = look_up(&table, &pages, digest);
        assert_eq!(found, records.get(digest).copied());
    }
}

#[test]
fn tables_are_maps() {
    let mut random = Random(1);
    for count in [1, 2, 64, 65, 1000, 20_000] {
        let mut records = BTreeMap::new();
        for _ in 0..count {
            let record = record(random.number(), &mut random);
            records.insert(record.digest, record.location);
        }
        let missing: Vec<Digest> = (0..1000)
            .map(|_| record(random.number(), &mut random).digest)
            .collect();
        compare(&records, &missing);
    }
}

#[test]
fn pages_overflow_into_the_next_one() {
    let mut random = Random(2);
    let mut records = BTreeMap::new();
    for number in 0..128_u64 {
        // 100 records in the third of four quarters, and the rest all over.
        let prefix = if number < 100 {
            (2 << 62) | (random.number() >> 4)
        } else {
            random.number()
        };
        let record = record(prefix, &mut random);
        records.insert(record.digest, record.location);
    }
    let missing: Vec<Digest> = (0..100)
        .map(|_| record((2 << 62) | (random.number() >> 4), &mut random).digest)
        .collect();
    compare(&records, &missing);
    let (_, pages) = build_table(&records).unwrap();
    let continued = |page| Page::parse(page, hash).unwrap().is_continued();
    assert!(pages.chunks(PAGE_LEN).any(continued));
}

/// Digests whose first bits are made equal fit into no table of a reasonable size.
#[test]
fn hostile_digests_do_not_fit() {
    let mut random = Random(3);
    let mut records = BTreeMap::new();
    for _ in 0..171 {
        let record = record(1 << 40, &mut random);
        records.insert(record.digest, record.location);
    }
    assert!(build_table(&records).is_none());
}

#[test]
fn home_pages_divide_the_digests() {
    let home = |prefix: u64, pages| home_page(&record(prefix, &mut Random(0)).digest, pages);
    assert_eq!(home(0, 7), 0);
    assert_eq!(home(u64::MAX, 7), 6);
    assert_eq!(home(u64::MAX, u32::MAX), u32::MAX - 1);
    assert_eq!(home(1 << 63, 2), 1);
    assert_eq!(home((1 << 63) - 1, 2), 0);
    assert_eq!(home(u64::MAX, 0), 0);
}

/// A page of three records in a table of four pages.
fn page() -> (Vec<u8>, Table) {
    let mut random = Random(4);
    let records: Vec<Record> = [1 << 62, (1 << 62) | (1 << 60), 2 << 62]
        .map(|prefix| record(prefix, &mut random))
        .to_vec();
    let table = Table {
        number: 1,
        pages: 4,
        records: 3,
    };
    (build_page(&records, false), table)
}

/// The violated rule of a page, after a change that its checksum covers.
fn broken_page(change: impl FnOnce(&mut Vec<u8>)) -> Option<IndexError> {
    let (mut bytes, table) = page();
    change(&mut bytes);
    seal_page(&mut bytes);
    let result = Page::parse(&bytes, hash).and_then(|page| page.check(2, &table, 10));
    let e = result.err()?;
    assert!(!e.to_string().is_empty());
    Some(e)
}

#[test]
fn pages_are_read_again_without_their_checksum() {
    let (mut bytes, _) = page();
    let parsed = Page::parse(&bytes, hash).unwrap();
    let records: Vec<Record> = parsed.iter().collect();
    let read_again =
        |bytes: &[u8]| -> Vec<Record> { Page::parse_again(bytes).unwrap().iter().collect() };
    assert_eq!(read_again(&bytes), records);
    bytes[0] ^= 1;
    assert_eq!(Page::parse(&bytes, hash).err(), Some(IndexError::Checksum));
    assert_eq!(read_again(&bytes), records);
    // Bytes that have changed are still bounded.
    bytes[8] = 86;
    assert_eq!(
        Page::parse_again(&bytes).err(),
        Some(IndexError::RecordCount)
    );
    bytes[10] = 2;
    assert_eq!(
        Page::parse_again(&bytes).err(),
        Some(IndexError::Continuation)
    );
    bytes.pop();
    assert_eq!(
        Page::parse_again(&bytes).err(),
        Some(IndexError::PageLength)
    );
}

#[test]
fn each_rule_of_a_page_has_its_error() {
    const FIRST: usize = 16;
    const SECOND: usize = FIRST + 48;
    assert_eq!(broken_page(|_| ()), None);
    assert_eq!(broken_page(|p| p.push(0)), Some(IndexError::PageLength));
    assert_eq!(broken_page(|p| p[8] = 86), Some(IndexError::RecordCount));
    assert_eq!(broken_page(|p| p[10] = 2), Some(IndexError::Continuation));
    for at in 11..16 {
        assert_eq!(broken_page(|p| p[at] = 1), Some(IndexError::Reserved));
    }
    let unused = FIRST + 48 * usize::from(page().0[8]);
    for at in unused..PAGE_LEN {
        assert_eq!(broken_page(|p| p[at] = 1), Some(IndexError::Reserved));
    }
    assert_eq!(broken_page(|p| p[8] = 2), Some(IndexError::Reserved));
    let order = |p: &mut Vec<u8>| p.copy_within(SECOND..SECOND + 32, FIRST);
    assert_eq!(broken_page(order), Some(IndexError::RecordOrder));
    assert_eq!(broken_page(|p| p[FIRST] = 0), Some(IndexError::RecordPage));
    let later = |p: &mut Vec<u8>| p[SECOND + 48] = 0xc0;
    assert_eq!(broken_page(later), Some(IndexError::RecordPage));
    let with = |at: usize, bytes: &'static [u8]| {
        broken_page(move |p| p[FIRST + at..][..bytes.len()].copy_from_slice(bytes))
    };
    assert_eq!(with(32, &[255; 8]), Some(IndexError::Offset));
    assert_eq!(with(40, &[0; 4]), Some(IndexError::StoredLength));
    assert_eq!(with(40, &[1, 0, 16, 0]), Some(IndexError::StoredLength));
    assert_eq!(with(44, &[10, 0, 0, 0]), Some(IndexError::PackNumber));

    let (mut bytes, table) = page();
    bytes[0] ^= 1;
    let e = Page::parse(&bytes, hash).err();
    assert_eq!(e, Some(IndexError::Checksum));
    bytes[10] = 1;
    seal_page(&mut bytes);
    let page = Page::parse(&bytes, hash).unwrap();
    assert_eq!(page.check(2, &table, 10), Ok(()));
    let last = page.check(3, &table, 10);
    assert_eq!(last, Err(IndexError::Continuation));
    assert_eq!(page.find(&Digest::new([0; 32]), 10), Ok(Lookup::NextPage));
    // A lookup checks the record that it finds.
    let digest = page.get(0).unwrap().digest;
    assert_eq!(page.find(&digest, 0), Err(IndexError::PackNumber));
}

/// A catalogue of three packs, one of which is gone, and two tables.
fn catalogue() -> Vec<u8> {
    let table = |number, pages, records| Table {
        number,
        pages,
        records,
    };
    build_catalogue(
        &[[1; 32], [0; 32], [3; 32]],
        &[table(0x1234_5678_9abc_def0, 1, 85), table(7, 10, 640)],
    )
}

fn broken_catalogue(change: impl FnOnce(&mut Vec<u8>)) -> Option<IndexError> {
    let mut bytes = catalogue();
    change(&mut bytes);
    seal_catalogue(&mut bytes);
    let e = Catalogue::parse(&bytes, hash).err()?;
    assert!(!e.to_string().is_empty());
    Some(e)
}

#[test]
fn each_rule_of_a_catalogue_has_its_error() {
    const TABLES: usize = 32 + 3 * 32;
    assert_eq!(broken_catalogue(|_| ()), None);
    assert_eq!(
        broken_catalogue(|c| c[0] = 0),
        Some(IndexError::NotACatalogue)
    );
    assert_eq!(broken_catalogue(|c| c[8] = 2), Some(IndexError::Version(2)));
    assert_eq!(broken_catalogue(|c| c[12] = 1), Some(IndexError::Reserved));
    assert_eq!(
        broken_catalogue(|c| c[24] = 4),
        Some(IndexError::CatalogueLength)
    );
    assert_eq!(
        broken_catalogue(|c| c[24] = 2),
        Some(IndexError::CatalogueLength)
    );
    assert_eq!(
        broken_catalogue(|c| c[26] = 0x10),
        Some(IndexError::PackCount)
    );
    assert_eq!(
        broken_catalogue(|c| c[28] = 33),
        Some(IndexError::TableCount)
    );
    assert_eq!(
        broken_catalogue(|c| c.push(0)),
        Some(IndexError::CatalogueLength)
    );
    assert_eq!(
        broken_catalogue(|c| c[TABLES + 12] = 86),
        Some(IndexError::TableSize)
    );
    assert_eq!(
        broken_catalogue(|c| c[TABLES + 12] = 0),
        Some(IndexError::TableSize)
    );
    assert_eq!(
        broken_catalogue(|c| c[TABLES + 8] = 0),
        Some(IndexError::TableSize)
    );
    let equal = |c: &mut Vec<u8>| c.copy_within(TABLES..TABLES + 16, TABLES + 16);
    assert_eq!(broken_catalogue(equal), Some(IndexError::TableOrder));
    let mut bytes = catalogue();
    for at in 16..bytes.len() {
        bytes[at] ^= 1;
        let e = Catalogue::parse(&bytes, hash).err();
        assert_eq!(e, Some(IndexError::Checksum), "{at}");
        bytes[at] ^= 1;
    }
    for len in 0..bytes.len() {
        assert!(Catalogue::parse(&bytes[..len], hash).is_err());
    }
}

#[test]
fn catalogues_are_read() {
    let bytes = catalogue();
    let catalogue = Catalogue::parse(&bytes, hash).unwrap();
    let packs = [0, 1, 2, 3].map(|number| catalogue.pack(number));
    let pack = |byte| Some(Digest::new([byte; 32]));
    assert_eq!(packs, [pack(1), None, pack(3), None]);
    let names: Vec<_> = catalogue.tables().map(|table| table.file_name()).collect();
    assert_eq!(names, [*b"123456789abcdef0", *b"0000000000000007"]);
    let empty = build_catalogue(&[], &[]);
    assert_eq!(Catalogue::parse(&empty, hash).unwrap().packs(), 0);
}
