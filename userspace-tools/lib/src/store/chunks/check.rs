// SPDX-License-Identifier: MIT OR Apache-2.0

//! Checking the whole chunk index against the packs.

use crate::error::{Result, StoreError, TableFault};
use crate::model::digest::Digest;
use crate::store::chunks::catalogue::{table_name, Catalogue, CATALOGUE};
use crate::store::chunks::directory::{PrivateDirectory, CHUNKS};
use crate::store::chunks::pack::PackFile;
use crate::store::chunks::table;
use crate::store::oci_layout::Store;
use puzzlefs_schema::v4::{Record, Table};
use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

/// Returns all faults of the chunk index of a store: of its catalogue, its tables and their records, and
/// of the packs that it lists.
///
/// A writer can replace the index meanwhile. The faults are then those of the new one.
pub(crate) fn check_index(store: &Store) -> Result<Vec<StoreError>> {
    const ATTEMPTS: usize = 20;
    let mut faults = Vec::new();
    for _ in 0..ATTEMPTS {
        let Some(directory) = PrivateDirectory::open(store, CHUNKS)? else {
            return Ok(Vec::new());
        };
        let Some((file, catalogue)) = Catalogue::read(&directory)? else {
            return Ok(Vec::new());
        };
        faults = match catalogue {
            Ok(catalogue) => check_catalogue(store, &directory, &catalogue)?,
            Err(cause) => {
                let path = directory.file_path(CATALOGUE);
                vec![StoreError::ChunkIndex { path, cause }]
            }
        };
        if faults.is_empty() || directory.is_named(&file, CATALOGUE) {
            break;
        }
    }
    Ok(faults)
}

fn check_catalogue(
    store: &Store,
    directory: &PrivateDirectory,
    catalogue: &Catalogue,
) -> Result<Vec<StoreError>> {
    let mut faults = Vec::new();
    let mut records: BTreeMap<u32, Vec<(Record, PathBuf)>> = BTreeMap::new();
    for table in &catalogue.tables {
        let path = directory.file_path(&table_name(table));
        match read_table(directory, table, catalogue.packs.len() as u32)? {
            Ok(read) => {
                for record in read {
                    let places = records.entry(record.location.pack).or_default();
                    places.push((record, path.clone()));
                }
            }
            Err(cause) => faults.push(StoreError::ChunkTable { path, cause }),
        }
    }
    for (number, pack) in (0..).zip(&catalogue.packs) {
        let Some(pack) = pack else { continue };
        let file = match PackFile::open(store, pack) {
            Ok(file) => file,
            Err(error) if error.is_not_found() => {
                let path = store.blob_path(pack);
                faults.push(StoreError::IndexedPackMissing { path });
                continue;
            }
            Err(crate::error::Error::Store(error)) => {
                faults.push(error);
                continue;
            }
            Err(error) => return Err(error),
        };
        let chunks: HashSet<_> = file
            .chunks()
            .map(|chunk| (chunk.digest, chunk.offset, chunk.stored_len))
            .collect();
        for (record, path) in records.remove(&number).unwrap_or_default() {
            let location = &record.location;
            if !chunks.contains(&(record.digest, location.offset, location.stored_len)) {
                faults.push(StoreError::ChunkRecord {
                    path,
                    digest: Digest::from(record.digest),
                    pack: *pack,
                });
            }
        }
    }
    Ok(faults)
}

fn read_table(
    directory: &PrivateDirectory,
    table: &Table,
    packs: u32,
) -> Result<Result<Vec<Record>, TableFault>> {
    Ok(match directory.open_file(&table_name(table))? {
        Some(file) => table::read_all(&file, table, packs),
        None => Err(TableFault::Missing),
    })
}
