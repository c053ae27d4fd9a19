// SPDX-License-Identifier: MIT OR Apache-2.0

//! The chunks of packs that the chunk index does not list.
//!
//! Another tool has put such packs into the store. Their own indices find their chunks. Nothing is written,
//! so this works for every reader. A wrong index of a pack does no harm, because each chunk is verified by
//! its own digest, and all places of a chunk are known.

use crate::error::Result;
use crate::model::digest::Digest;
use crate::store::chunks::index::{ChunkIndex, Location};
use crate::store::chunks::pack::PackFile;
use crate::store::chunks::rebuild;
use crate::store::oci_layout::Store;
use puzzlefs_schema::v4::Record;
use std::collections::HashSet;

/// The places of chunks in packs that an index does not list.
#[derive(Debug)]
pub(super) struct UnlistedChunks {
    packs: Vec<Digest>,
    /// In the order of digests. A digest can occur several times.
    records: Vec<Record>,
}

impl UnlistedChunks {
    /// Reads the indices of all packs of a store that `index` does not list, or of all packs if a part of
    /// `index` is damaged. Leaves out blobs that cannot be read.
    ///
    /// The memory is proportional to the size of these indices.
    ///
    /// # Errors
    ///
    /// If the blobs of the store cannot be listed.
    pub fn find(store: &Store, index: &ChunkIndex<'_>) -> Result<Self> {
        let listed: HashSet<Digest> = match index.damage() {
            None => index.packs().collect(),
            Some(_) => HashSet::new(),
        };
        let mut packs = store.list_blobs()?.0;
        packs.retain(|blob| {
            !listed.contains(blob) && PackFile::is_pack(store, blob).is_ok_and(|is_pack| is_pack)
        });
        let collected = rebuild::collect(store, &packs);
        let mut records = collected.records;
        records.sort_unstable_by_key(|record| record.digest);
        Ok(UnlistedChunks {
            packs: collected.packs,
            records,
        })
    }

    /// Returns the places of a chunk.
    pub fn places<'a>(&'a self, digest: &Digest) -> impl Iterator<Item = Location> + 'a {
        let digest = puzzlefs_schema::Digest::from(*digest);
        let start = self
            .records
            .partition_point(|record| record.digest < digest);
        let records = self.records.iter().skip(start);
        records
            .take_while(move |record| record.digest == digest)
            .filter_map(|record| {
                Some(Location::Pack {
                    pack: *self.packs.get(record.location.pack as usize)?,
                    offset: record.location.offset,
                    stored_len: record.location.stored_len,
                })
            })
    }
}
