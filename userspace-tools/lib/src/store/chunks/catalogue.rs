// SPDX-License-Identifier: MIT OR Apache-2.0

//! The catalogue of a chunk index, in memory.

use crate::error::{Error, Result, StoreError};
use crate::model::digest::Digest;
use crate::store::chunks::directory::PrivateDirectory;
use puzzlefs_schema::v4::{self, IndexError, Table, CATALOGUE_HEADER_LEN, MAX_PACKS, MAX_TABLES};
use std::fs::File;
use std::io::Read;
use xxhash_rust::xxh64::xxh64;

/// The name of the catalogue's file.
pub(crate) const CATALOGUE: &str = "catalogue";
/// The name of a catalogue before it replaces the old one.
pub(super) const CATALOGUE_NEW: &str = "catalogue.new";
/// The length of a pack's entry, and that of a table's.
const PACK_LEN: u64 = 32;
const TABLE_LEN: u64 = 16;
/// The length of the largest catalogue, in bytes.
const CATALOGUE_MAX: u64 =
    CATALOGUE_HEADER_LEN as u64 + MAX_PACKS as u64 * PACK_LEN + MAX_TABLES as u64 * TABLE_LEN;

/// The checksum of pages and catalogues.
pub(super) fn checksum(bytes: &[u8]) -> u64 {
    xxh64(bytes, 0)
}

/// The packs and the tables of a chunk index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Catalogue {
    /// The packs; `None` for one that is gone.
    pub packs: Vec<Option<Digest>>,
    /// The tables, the newest first.
    pub tables: Vec<Table>,
}

impl Catalogue {
    /// Reads a catalogue.
    pub fn parse(bytes: &[u8]) -> Result<Self, IndexError> {
        let catalogue = v4::Catalogue::parse(bytes, checksum)?;
        let packs = 0..catalogue.packs();
        Ok(Catalogue {
            packs: packs
                .map(|number| catalogue.pack(number).map(Digest::from))
                .collect(),
            tables: catalogue.tables().collect(),
        })
    }

    /// Reads the catalogue of a directory, if there is one. The inner error is the rule that the
    /// catalogue violates. The file stays open, so that no other file gets its inode number.
    pub fn read(directory: &PrivateDirectory) -> Result<Option<(File, Result<Self, IndexError>)>> {
        let Some(file) = directory.open_file(CATALOGUE)? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        (&file)
            .take(CATALOGUE_MAX + 1)
            .read_to_end(&mut bytes)
            .map_err(Error::io(directory.file_path(CATALOGUE), "read"))?;
        let catalogue = Self::parse(&bytes);
        if let Err(cause @ IndexError::Version(_)) = catalogue {
            // No command rewrites an index whose version it does not know.
            let path = directory.file_path(CATALOGUE);
            return Err(StoreError::ChunkIndex { path, cause }.into());
        }
        Ok(Some((file, catalogue)))
    }

    /// The catalogue's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        const CHECKSUM: usize = 16;
        const COVERED: usize = 24;
        let mut bytes = Vec::with_capacity(CATALOGUE_HEADER_LEN + 32 * self.packs.len());
        bytes.extend_from_slice(b"PZFSCATA");
        bytes.extend_from_slice(&1_u32.to_le_bytes());
        bytes.extend_from_slice(&[0; 4 + 8]);
        bytes.extend_from_slice(&(self.packs.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&(self.tables.len() as u32).to_le_bytes());
        for pack in &self.packs {
            bytes.extend_from_slice(&pack.map_or([0; 32], |pack| pack.0));
        }
        for table in &self.tables {
            bytes.extend_from_slice(&table.number.to_le_bytes());
            bytes.extend_from_slice(&table.pages.to_le_bytes());
            bytes.extend_from_slice(&table.records.to_le_bytes());
        }
        let sum = checksum(&bytes[COVERED..]).to_le_bytes();
        bytes[CHECKSUM..COVERED].copy_from_slice(&sum);
        bytes
    }

    /// The packs that are not gone.
    pub fn present(&self) -> impl Iterator<Item = Digest> + '_ {
        self.packs.iter().flatten().copied()
    }
}

/// Returns the name of a table's file.
pub(super) fn table_name(table: &Table) -> String {
    String::from_utf8_lossy(&table.file_name()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_back() {
        let table = |number, pages, records| Table {
            number,
            pages,
            records,
        };
        let catalogue = Catalogue {
            packs: vec![Some(Digest::of(b"a")), None, Some(Digest::of(b"b"))],
            tables: vec![table(9, 1, 85), table(3, 20, 1000)],
        };
        assert_eq!(
            Catalogue::parse(&catalogue.to_bytes()),
            Ok(catalogue.clone())
        );
        assert_eq!(catalogue.present().count(), 2);
        let empty = Catalogue::default();
        assert_eq!(Catalogue::parse(&empty.to_bytes()), Ok(empty));
        let mut bytes = catalogue.to_bytes();
        bytes[40] ^= 1;
        assert_eq!(Catalogue::parse(&bytes), Err(IndexError::Checksum));
    }
}
