// SPDX-License-Identifier: MIT OR Apache-2.0

//! The chunks that packs of the store have.

use crate::error::{Error, Result};
use crate::model::chunk;
use crate::model::digest::Digest;
use crate::store::chunks::index::{ChunkIndex, Location};
use crate::store::chunks::reader::ChunkReader;
use crate::store::chunks::update::make_missing_index;
use crate::store::oci_layout::Store;
use crate::sys::parallel::lock;
use puzzlefs_schema::v4::ChunkRef;
use std::collections::HashMap;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;

/// The gap in bytes between two chunks that readahead bridges in a pack.
pub(super) const GAP: u64 = 128 << 10;

/// Finds chunks in the packs of a store.
///
/// Loose chunks do not count, because a manifest lists packs only.
pub(crate) struct KnownChunks<'s> {
    store: &'s Store,
    /// None if the builder ignores the chunks of the store.
    index: Option<ChunkIndex<'s>>,
    /// Chunks are compared with their digests.
    check: bool,
    /// The sizes of the packs that were looked for; none if a pack does not exist.
    packs: Mutex<HashMap<Digest, Option<u64>>>,
}

/// A pack of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KnownPack {
    pub digest: Digest,
    pub size: u64,
}

/// The place of a chunk in a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PackPlace {
    pub pack: Digest,
    pub offset: u64,
    pub stored_len: u32,
}

impl PackPlace {
    /// Returns true if reading this place and then another goes forward in one pack, over a small gap.
    pub fn leads_to(&self, next: &PackPlace) -> bool {
        let end = self.offset.saturating_add(self.stored_len.into());
        let gap = next.offset.checked_sub(end);
        self.pack == next.pack && gap.is_some_and(|gap| gap <= GAP)
    }
}

impl<'s> KnownChunks<'s> {
    /// Opens the chunk index of a store. The caller keeps garbage collection off. If `check` is set,
    /// damaged chunks do not count.
    ///
    /// In a store that another tool has filled, makes the index first.
    pub fn open(store: &'s Store, check: bool) -> Result<Self> {
        make_missing_index(store)?;
        Ok(KnownChunks {
            index: Some(ChunkIndex::open(store)?),
            check,
            ..Self::none(store)
        })
    }

    /// Ignores the chunks of a store.
    pub fn none(store: &'s Store) -> Self {
        KnownChunks {
            store,
            index: None,
            check: false,
            packs: Mutex::default(),
        }
    }

    /// Returns the pack of the store that has a chunk.
    pub fn find(&self, chunk: &ChunkRef) -> Result<Option<KnownPack>> {
        Ok(self.find_place(chunk)?.map(|(pack, _)| pack))
    }

    /// Returns the pack of the store that has a chunk, and the place in it.
    pub(super) fn find_place(&self, chunk: &ChunkRef) -> Result<Option<(KnownPack, PackPlace)>> {
        let Some(index) = &self.index else {
            return Ok(None);
        };
        let digest = Digest::from(*chunk.digest());
        for location in index.packed(&digest) {
            let Location::Pack {
                pack,
                offset,
                stored_len,
            } = location
            else {
                continue;
            };
            if stored_len != chunk.stored_len() {
                continue;
            }
            let Some(size) = self.size(pack)? else {
                continue;
            };
            if !self.check || self.is_intact(&pack, offset, chunk)? {
                let place = PackPlace {
                    pack,
                    offset,
                    stored_len,
                };
                return Ok(Some((KnownPack { digest: pack, size }, place)));
            }
        }
        Ok(None)
    }

    /// Returns a reader of the chunks of the store.
    pub fn reader(&self) -> Result<ChunkReader<'s>> {
        ChunkReader::new(self.store)
    }

    /// Reads a chunk in a pack, and compares it with its digest.
    fn is_intact(&self, pack: &Digest, offset: u64, chunk: &ChunkRef) -> Result<bool> {
        let file = self.store.open_blob(pack)?;
        let mut stored = vec![0; chunk.stored_len() as usize];
        match file.read_exact_at(&mut stored, offset) {
            Ok(()) => Ok(chunk::check_stored(chunk, &stored).is_ok()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(Error::io(self.store.blob_path(pack), "read")(error)),
        }
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
