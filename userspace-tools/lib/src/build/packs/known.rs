// SPDX-License-Identifier: MIT OR Apache-2.0

//! The chunks that packs of the store have.

use crate::error::Result;
use crate::model::digest::Digest;
use crate::store::chunks::index::{ChunkIndex, Location};
use crate::store::oci_layout::Store;
use crate::sys::parallel::lock;
use puzzlefs_schema::v4::ChunkRef;
use std::collections::HashMap;
use std::sync::Mutex;

/// Finds chunks in the packs of a store.
///
/// Loose chunks do not count, because a manifest lists packs only.
pub(crate) struct KnownChunks<'s> {
    store: &'s Store,
    /// None if the builder ignores the chunks of the store.
    index: Option<ChunkIndex<'s>>,
    /// The sizes of the packs that were looked for; none if a pack does not exist.
    packs: Mutex<HashMap<Digest, Option<u64>>>,
}

/// A pack of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KnownPack {
    pub digest: Digest,
    pub size: u64,
}

impl<'s> KnownChunks<'s> {
    /// Opens the chunk index of a store. The caller keeps garbage collection off.
    pub fn open(store: &'s Store) -> Result<Self> {
        Ok(KnownChunks {
            index: Some(ChunkIndex::open(store)?),
            ..Self::none(store)
        })
    }

    /// Ignores the chunks of a store.
    pub fn none(store: &'s Store) -> Self {
        KnownChunks {
            store,
            index: None,
            packs: Mutex::default(),
        }
    }

    /// Returns the pack of the store that has a chunk.
    pub fn find(&self, chunk: &ChunkRef) -> Result<Option<KnownPack>> {
        let Some(index) = &self.index else {
            return Ok(None);
        };
        let digest = Digest::from(*chunk.digest());
        for location in index.packed(&digest) {
            let Location::Pack {
                pack, stored_len, ..
            } = location
            else {
                continue;
            };
            if stored_len != chunk.stored_len() {
                continue;
            }
            if let Some(size) = self.size(pack)? {
                return Ok(Some(KnownPack { digest: pack, size }));
            }
        }
        Ok(None)
    }

    /// Returns the size of a pack, if it exists.
    fn size(&self, pack: Digest) -> Result<Option<u64>> {
        if let Some(size) = lock(&self.packs).get(&pack) {
            return Ok(*size);
        }
        let size = self.store.blob_size(&pack)?;
        lock(&self.packs).insert(pack, size);
        Ok(size)
    }
}
