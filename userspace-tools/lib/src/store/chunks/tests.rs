// SPDX-License-Identifier: MIT OR Apache-2.0

//! The chunk index as its users see it: found after every change, whatever happened to it before.

use crate::error::{Error, StoreError};
use crate::model::chunk::ChunkEncoder;
use crate::model::digest::Digest;
use crate::store::chunks::catalogue::{Catalogue, CATALOGUE};
use crate::store::chunks::directory::{PrivateDirectory, CHUNKS};
use crate::store::chunks::index::{ChunkIndex, Location};
use crate::store::chunks::pack::PackFile;
use crate::store::chunks::reader::ChunkReader;
use crate::store::chunks::update::{add_packs, reindex, replace_packs, NewPack};
use crate::store::oci_layout::Store;
use crate::sys::progress::Progress;
use puzzlefs_schema::v4::{ChunkRef, PackFooter, PackedChunk};
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

/// The bytes of a pack of chunks with these stored bytes.
pub(crate) fn pack_bytes(alignment: u8, chunks: &[Vec<u8>]) -> (Vec<u8>, NewPack) {
    let footer = PackFooter::new(alignment, chunks.len() as u32).unwrap();
    let mut layout = footer.layout();
    let (mut bytes, mut records) = (Vec::new(), Vec::new());
    for chunk in chunks {
        let stored_len = chunk.len() as u32;
        let offset = layout.place(stored_len).unwrap();
        bytes.resize(offset as usize, 0);
        bytes.extend_from_slice(chunk);
        records.push(PackedChunk {
            digest: Digest::of(chunk).into(),
            offset,
            stored_len,
        });
    }
    bytes.extend(records.iter().flat_map(PackedChunk::to_record));
    bytes.extend(footer.to_bytes());
    let digest = Digest::of(&bytes);
    let pack = NewPack { digest, records };
    (bytes, pack)
}

/// Writes a pack of chunks with these stored bytes, which the index does not list.
pub(crate) fn write_pack(store: &Store, chunks: &[Vec<u8>]) -> NewPack {
    let (bytes, pack) = pack_bytes(3, chunks);
    fs::write(store.blob_path(&pack.digest), bytes).unwrap();
    pack
}

/// Chunks that no other call with another seed gives.
fn chunks(seed: u64, count: u64) -> Vec<Vec<u8>> {
    (0..count)
        .map(|number| format!("chunk {number} of {seed}").into_bytes())
        .collect()
}

fn store(scratch: &Path) -> Store {
    Store::create(&scratch.join("store")).unwrap()
}

fn index_path(store: &Store, name: &str) -> PathBuf {
    store.path().join(".puzzlefs/chunks").join(name)
}

fn add(store: &Store, seed: u64, count: u64) -> NewPack {
    let pack = write_pack(store, &chunks(seed, count));
    add_packs(store, std::slice::from_ref(&pack)).unwrap();
    pack
}

fn raw(stored: &[u8]) -> ChunkRef {
    let len = stored.len() as u32;
    ChunkRef::new(Digest::of(stored).into(), len, len).unwrap()
}

/// Asserts that a reader finds all of these chunks.
fn assert_readable(store: &Store, chunks: &[Vec<u8>]) {
    let reader = ChunkReader::new(store).unwrap();
    let mut content = Vec::new();
    for chunk in chunks {
        reader.read(&raw(chunk), &mut content).unwrap();
        assert_eq!(content, *chunk);
    }
}

fn names(store: &Store) -> Vec<String> {
    let mut names = PrivateDirectory::open(store, CHUNKS)
        .unwrap()
        .unwrap()
        .names()
        .unwrap();
    names.sort_unstable();
    names
}

fn catalogue(store: &Store) -> Catalogue {
    Catalogue::parse(&fs::read(index_path(store, CATALOGUE)).unwrap()).unwrap()
}

#[test]
fn added_chunks_are_found_and_others_are_not() {
    let scratch = tempfile::tempdir().unwrap();
    let store = store(scratch.path());
    let missing = Digest::of(b"missing");
    let empty = ChunkIndex::open(&store).unwrap();
    assert_eq!(empty.find(&missing).unwrap(), None);
    assert!(!store.path().join(".puzzlefs/chunks").exists());
    let pack = add(&store, 1, 3);
    let index = ChunkIndex::open(&store).unwrap();
    for chunk in &pack.records {
        let expected = Location::Pack {
            pack: pack.digest,
            offset: chunk.offset,
            stored_len: chunk.stored_len,
        };
        assert_eq!(index.find(&chunk.digest.into()).unwrap(), Some(expected));
    }
    assert_eq!(index.find(&missing).unwrap(), None);
    assert!(empty.is_replaced().unwrap() && !index.is_replaced().unwrap());
    // Adding it again changes nothing.
    add(&store, 1, 3);
    assert!(!index.is_replaced().unwrap());
    fs::write(store.blob_path(&missing), b"missing").unwrap();
    let loose = Location::Loose { stored_len: 7 };
    assert_eq!(index.find(&missing).unwrap(), Some(loose));
}

#[test]
fn many_additions_keep_few_tables() {
    let scratch = tempfile::tempdir().unwrap();
    let store = store(scratch.path());
    let mut all = Vec::new();
    for seed in 0..60 {
        let count = 1 + seed * 7 % 40;
        add(&store, seed, count);
        all.extend(chunks(seed, count));
        let catalogue = catalogue(&store);
        let sizes: Vec<u32> = catalogue.tables.iter().map(|table| table.records).collect();
        assert!(
            sizes.windows(2).all(|pair| pair[1] >= 4 * pair[0]),
            "{sizes:?}"
        );
        assert_eq!(sizes.iter().sum::<u32>() as usize, all.len());
        // Nothing else stays in the directory.
        assert_eq!(names(&store).len(), 1 + sizes.len());
    }
    assert_readable(&store, &all);
}

#[test]
fn compressed_chunks_and_roots_are_decoded() {
    let scratch = tempfile::tempdir().unwrap();
    let store = store(scratch.path());
    let content = vec![0; 8000];
    let encoded = ChunkEncoder::new(Some(3)).encode(&content).unwrap();
    let stored = encoded.stored.to_vec();
    let pack = write_pack(&store, &[stored.clone(), b"other".to_vec()]);
    add_packs(&store, &[pack]).unwrap();
    let reader = ChunkReader::new(&store).unwrap();
    let mut found = Vec::new();
    reader.read(&encoded.chunk, &mut found).unwrap();
    assert_eq!(found, content);
    let digest = Digest::of(&stored);
    assert_eq!(reader.read_root(&digest).unwrap(), content);
    reader.read_stored(&digest, &mut found).unwrap();
    assert_eq!(found, stored);
    // Raw data is no root, and a reference with another length is not the chunk.
    assert!(reader.read_root(&Digest::of(b"other")).is_err());
    let longer = ChunkRef::new(encoded.chunk.digest().to_owned(), stored.len() as u32, 8001);
    let error = reader.read(&longer.unwrap(), &mut found).unwrap_err();
    assert!(
        matches!(error, Error::Store(StoreError::Chunk { .. })),
        "{error}"
    );
    assert!(found.is_empty());
}

#[test]
fn damaged_chunks_are_read_elsewhere_or_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let store = store(scratch.path());
    let shared = chunks(1, 1);
    let first = add(&store, 1, 1);
    let second = write_pack(&store, &[shared[0].clone(), b"more".to_vec()]);
    add_packs(&store, std::slice::from_ref(&second)).unwrap();
    let damage = |pack: &NewPack| {
        let path = store.blob_path(&pack.digest);
        let mut bytes = fs::read(&path).unwrap();
        bytes[0] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    damage(&second);
    let reader = ChunkReader::new(&store).unwrap();
    let mut content = Vec::new();
    // Both records are in one table, which keeps the newest place; a loose chunk helps.
    let error = reader.read(&raw(&shared[0]), &mut content).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("the SHA-256 of its stored bytes is"),
        "{error}"
    );
    fs::write(store.blob_path(&Digest::of(&shared[0])), &shared[0]).unwrap();
    reader.read(&raw(&shared[0]), &mut content).unwrap();
    fs::remove_file(store.blob_path(&Digest::of(&shared[0]))).unwrap();
    // A rebuild compares the chunks, and finds the one that is valid.
    let report = reindex(&store, 2, &Progress::default()).unwrap();
    assert_eq!(
        (report.packs, report.chunks, report.faults.len()),
        (2, 2, 1)
    );
    assert_readable(&store, &shared);
    damage(&first);
    let error = ChunkReader::new(&store)
        .unwrap()
        .read(&raw(&shared[0]), &mut content)
        .unwrap_err();
    assert!(
        matches!(error, Error::Store(StoreError::Chunk { .. })),
        "{error}"
    );
}

#[test]
fn a_lost_index_is_rebuilt_by_the_next_addition() {
    let scratch = tempfile::tempdir().unwrap();
    let store = store(scratch.path());
    let all = [chunks(1, 30), chunks(2, 2)].concat();
    let (big, small) = (chunks(3, 1), chunks(4, 1));
    let lose: [&dyn Fn(); 4] = [
        &|| fs::remove_dir_all(index_path(&store, ".")).unwrap_or_default(),
        &|| fs::remove_dir_all(store.path().join(".puzzlefs/chunks")).unwrap(),
        &|| fs::write(index_path(&store, CATALOGUE), b"PZFSCATA").unwrap(),
        &|| {
            for name in names(&store) {
                fs::write(index_path(&store, &name), b"").unwrap();
            }
        },
    ];
    add(&store, 1, 30);
    add(&store, 2, 2);
    for lose in lose {
        lose();
        add(&store, 3, 1);
        assert_readable(&store, &all);
        assert_readable(&store, &big);
    }
    // A catalogue that leads to a table that a power failure took.
    add(&store, 4, 1);
    for table in catalogue(&store).tables {
        fs::remove_file(index_path(&store, &format!("{:016x}", table.number))).unwrap();
    }
    let index = ChunkIndex::open(&store).unwrap();
    assert!(index.damage().is_some());
    assert_eq!(index.find(&Digest::of(&all[0])).unwrap(), None);
    let report = reindex(&store, 1, &Progress::default()).unwrap();
    assert_eq!((report.packs, report.chunks), (4, 34));
    assert_readable(&store, &[all, big, small].concat());
}

#[test]
fn a_damaged_page_hides_its_records_and_nothing_else() {
    let scratch = tempfile::tempdir().unwrap();
    let store = store(scratch.path());
    let all = chunks(1, 2000);
    add(&store, 1, 2000);
    let [table] = catalogue(&store).tables[..] else {
        panic!("one table");
    };
    let path = index_path(&store, &format!("{:016x}", table.number));
    let mut bytes = fs::read(&path).unwrap();
    bytes[4096 + 50] ^= 1;
    fs::write(&path, bytes).unwrap();
    let index = ChunkIndex::open(&store).unwrap();
    let hidden = all
        .iter()
        .filter(|chunk| index.find(&Digest::of(chunk)).unwrap().is_none())
        .count();
    assert!((30..=170).contains(&hidden), "{hidden}");
    assert_eq!(index.pages_read().1, hidden as u64);
    // The next merge repairs it.
    add(&store, 2, 600);
    assert_readable(&store, &all);
}

#[test]
fn an_unknown_version_is_left_alone() {
    let scratch = tempfile::tempdir().unwrap();
    let store = store(scratch.path());
    add(&store, 1, 1);
    let path = index_path(&store, CATALOGUE);
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] = 2;
    fs::write(&path, &bytes).unwrap();
    let pack = write_pack(&store, &chunks(2, 1));
    let results = [
        add_packs(&store, &[pack]).err(),
        reindex(&store, 1, &Progress::default()).err(),
        ChunkIndex::open(&store).err(),
    ];
    for error in results {
        let error = error.unwrap().to_string();
        assert!(error.contains("version 2"), "{error}");
    }
    assert_eq!(fs::read(path).unwrap(), bytes);
}

#[test]
fn readers_follow_chunks_to_new_packs() {
    let scratch = tempfile::tempdir().unwrap();
    let store = store(scratch.path());
    let all = chunks(1, 5);
    let old = add(&store, 1, 5);
    let reader = ChunkReader::new(&store).unwrap();
    let opened = ChunkReader::new(&store).unwrap();
    let mut content = Vec::new();
    opened.read(&raw(&all[0]), &mut content).unwrap();
    // Another pack replaces it, in another order.
    let reversed: Vec<Vec<u8>> = all.iter().rev().cloned().collect();
    let new = write_pack(&store, &reversed);
    replace_packs(&store, |pack| *pack != old.digest, &[new]).unwrap();
    fs::remove_file(store.blob_path(&old.digest)).unwrap();
    for reader in [&reader, &opened] {
        for chunk in &all {
            reader.read(&raw(chunk), &mut content).unwrap();
            assert_eq!(content, *chunk);
        }
    }
    let packs = reader.listed_packs();
    assert!(!packs.contains(&old.digest) && packs.len() == 1);
    let nothing = opened.read(&raw(b"nothing"), &mut content).unwrap_err();
    assert!(matches!(
        nothing,
        Error::Store(StoreError::ChunkMissing { .. })
    ));
}

#[test]
fn an_index_without_packs_is_valid() {
    let scratch = tempfile::tempdir().unwrap();
    let store = store(scratch.path());
    add(&store, 1, 5);
    replace_packs(&store, |_| false, &[]).unwrap();
    assert_eq!(catalogue(&store), Catalogue::default());
    assert_eq!(names(&store), [CATALOGUE]);
    add(&store, 2, 5);
    assert_readable(&store, &chunks(2, 5));
}

/// A pack can claim any chunk. A rebuild that has the choice takes the pack that has it.
#[test]
fn a_pack_cannot_take_the_chunks_of_another() {
    let scratch = tempfile::tempdir().unwrap();
    let store = store(scratch.path());
    let honest = add(&store, 1, 1);
    for byte in 0..8 {
        let (mut bytes, _) = pack_bytes(0, &[vec![byte; 5]]);
        let claimed = *honest.records[0].digest.as_bytes();
        bytes[5..5 + 32].copy_from_slice(&claimed);
        fs::write(store.blob_path(&Digest::of(&bytes)), &bytes).unwrap();
    }
    fs::remove_file(index_path(&store, CATALOGUE)).unwrap();
    add(&store, 2, 1);
    assert_readable(&store, &chunks(1, 1));
    // Not even if the index lists all of them already.
    replace_packs(&store, |_| true, &[]).unwrap();
    assert_readable(&store, &chunks(1, 1));
    let report = reindex(&store, 1, &Progress::default()).unwrap();
    assert_eq!(report.faults.len(), 8);
}

#[test]
fn table_numbers_only_grow() {
    let scratch = tempfile::tempdir().unwrap();
    let store = store(scratch.path());
    add(&store, 1, 1);
    let first = catalogue(&store).tables[0].number;
    fs::write(index_path(&store, &format!("{:016x}", 77)), b"").unwrap();
    fs::remove_file(index_path(&store, CATALOGUE)).unwrap();
    add(&store, 2, 1);
    let [table] = catalogue(&store).tables[..] else {
        panic!("one table");
    };
    assert_eq!((first, table.number), (1, 78));
    assert_eq!(names(&store).len(), 2);
}

#[test]
fn builders_and_readers_do_not_disturb_each_other() {
    let scratch = tempfile::tempdir().unwrap();
    let store = store(scratch.path());
    add(&store, 100, 50);
    thread::scope(|scope| {
        for writer in 0..3 {
            let store = &store;
            scope.spawn(move || {
                for seed in 0..15 {
                    add(store, 1000 * (writer + 1) + seed, 20);
                }
            });
        }
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..20 {
                    assert_readable(&store, &chunks(100, 50));
                }
            });
        }
    });
    for writer in 1..=3 {
        for seed in 0..15 {
            assert_readable(&store, &chunks(1000 * writer + seed, 20));
        }
    }
    assert!(ChunkIndex::open(&store).unwrap().damage().is_none());
}

#[test]
fn packs_are_checked_when_they_are_opened() {
    let scratch = tempfile::tempdir().unwrap();
    let store = store(scratch.path());
    let pack = write_pack(&store, &chunks(1, 3));
    let open = PackFile::open(&store, &pack.digest).unwrap();
    assert!(open.chunks().eq(pack.records.iter().copied()));
    assert_eq!(open.footer().chunks(), 3);
    let bytes = fs::read(store.blob_path(&pack.digest)).unwrap();
    assert!(bytes.ends_with(open.recipe()) && open.len() == bytes.len() as u64);
    for cut in [1, 16, 40, bytes.len()] {
        let name = Digest::of(&[cut as u8]);
        fs::write(store.blob_path(&name), &bytes[cut..]).unwrap();
        let error = PackFile::open(&store, &name).unwrap_err();
        assert!(
            matches!(error, Error::Store(StoreError::Pack { .. })),
            "{error}"
        );
    }
    assert!(PackFile::is_pack(&store, &pack.digest).unwrap());
    assert!(!PackFile::is_pack(&store, &Digest::of(b"none")).unwrap());
    let error = PackFile::open(&store, &Digest::of(b"none")).unwrap_err();
    assert!(error.is_not_found());
}

/// Every state in which a crash can leave the directory, one change after the other.
#[test]
fn every_state_of_an_interrupted_change_is_usable() {
    let scratch = tempfile::tempdir().unwrap();
    let store = store(scratch.path());
    add(&store, 1, 10);
    let before = fs::read(index_path(&store, CATALOGUE)).unwrap();
    let old = names(&store);
    let table = fs::read(index_path(&store, &old[0])).unwrap();
    add(&store, 2, 10);
    let after = fs::read(index_path(&store, CATALOGUE)).unwrap();
    let new = names(&store);
    let merged = fs::read(index_path(&store, &new[0])).unwrap();
    assert!(old[0] != new[0]);
    // Old catalogue; the new table is torn, complete, or beside a torn catalogue.
    let cases: [&[(&str, &[u8])]; 4] = [
        &[(&new[0], &merged[..100])],
        &[(&new[0], &merged)],
        &[(&new[0], &merged), ("catalogue.new", &after[..40])],
        &[(&new[0], &merged), ("catalogue.new", &after)],
    ];
    for files in cases {
        fs::remove_dir_all(store.path().join(".puzzlefs/chunks")).unwrap();
        fs::create_dir(store.path().join(".puzzlefs/chunks")).unwrap();
        fs::write(index_path(&store, CATALOGUE), &before).unwrap();
        fs::write(index_path(&store, &old[0]), &table).unwrap();
        for (name, bytes) in files {
            fs::write(index_path(&store, name), bytes).unwrap();
        }
        assert_readable(&store, &chunks(1, 10));
        add(&store, 2, 10);
        add(&store, 3, 1);
        assert_readable(&store, &chunks(1, 10));
        assert_readable(&store, &chunks(2, 10));
        assert!(!names(&store).contains(&"catalogue.new".to_owned()));
    }
    // The new catalogue, with the old table still there.
    fs::write(index_path(&store, "0000000000000001"), &table).unwrap();
    add(&store, 4, 1);
    assert!(!names(&store).contains(&"0000000000000001".to_owned()));
}

/// Adds packs of `chunks` chunks, which exist only in the index. Returns the bytes that were written.
fn add_fabricated(store: &Store, first: u64, packs: u64, chunks: u64) -> u64 {
    let mut written = 0;
    for pack in first..first + packs {
        let chunk = |number: u64| PackedChunk {
            digest: Digest::of(format!("{pack} {number}").as_bytes()).into(),
            offset: number << 16,
            stored_len: 1 << 16,
        };
        let pack = NewPack {
            digest: Digest::of(&pack.to_le_bytes()),
            records: (0..chunks).map(chunk).collect(),
        };
        add_packs(store, &[pack]).unwrap();
        let catalogue = catalogue(store);
        written += u64::from(catalogue.tables[0].pages) * 4096;
        written += catalogue.to_bytes().len() as u64;
    }
    written
}

/// A lookup reads at most two pages of each table, and one on average; an addition rewrites each chunk
/// a logarithmic number of times.
#[test]
fn lookups_and_additions_are_cheap() {
    const PACKS: u64 = 20;
    const ADDITIONS: u64 = 60;
    let scratch = tempfile::tempdir().unwrap();
    let store = store(scratch.path());
    add_fabricated(&store, 0, PACKS, 1000);
    let written = add_fabricated(&store, 1 << 32, ADDITIONS, 100);
    let index = ChunkIndex::open(&store).unwrap();
    let tables = catalogue(&store).tables.len() as u64;
    let lookups: u64 = 400;
    for number in 0..lookups {
        // One half is not there, and so is looked up in every table.
        let name = format!("{} {}", number % PACKS, number / PACKS * 100);
        let found = index.packed(&Digest::of(name.as_bytes())).count();
        assert_eq!(found, usize::from(number / PACKS < 10));
    }
    let (pages, damaged) = index.pages_read();
    assert_eq!(damaged, 0);
    assert!(
        pages * 10 < lookups * tables * 11,
        "{pages} pages in {tables} tables"
    );
    assert!(written < ADDITIONS << 20, "{written} bytes");
}
