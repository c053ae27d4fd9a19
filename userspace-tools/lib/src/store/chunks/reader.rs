// SPDX-License-Identifier: MIT OR Apache-2.0

//! Reading chunks: finding, verifying and decoding them.

use crate::error::{Error, Result, StoreError};
use crate::model::chunk::{self, ChunkFault};
use crate::model::digest::Digest;
use crate::store::chunks::index::{ChunkIndex, Location};
use crate::store::chunks::unlisted::UnlistedChunks;
use crate::store::oci_layout::Store;
use crate::sys::parallel::lock;
use puzzlefs_schema::v4::{root_ref, ChunkRef};
use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};

/// The number of packs that a reader keeps open.
const OPEN_PACKS: usize = 64;

/// The number of searches for a chunk, each but the first in an index that replaced the one before.
const ATTEMPTS: usize = 10;

/// Reads chunks of a store, for any number of threads.
pub(crate) struct ChunkReader<'s> {
    store: &'s Store,
    index: Mutex<Arc<Snapshot<'s>>>,
    sources: Sources,
    /// The packs that were used last, the latest at the back.
    packs: Mutex<VecDeque<(Digest, Arc<File>)>>,
}

/// The packs whose chunks a reader finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sources {
    /// Those that the index lists, as for the kernel.
    Index,
    /// All packs of the store.
    All,
}

/// The index at some time, and the packs that it did not list then.
struct Snapshot<'s> {
    index: ChunkIndex<'s>,
    /// Read when a chunk is missing.
    unlisted: OnceLock<UnlistedChunks>,
}

impl<'s> Snapshot<'s> {
    fn open(store: &'s Store) -> Result<Arc<Self>> {
        Ok(Arc::new(Snapshot {
            index: ChunkIndex::open(store)?,
            unlisted: OnceLock::new(),
        }))
    }

    /// Returns the chunks of packs that the index does not list.
    fn unlisted(&self, store: &Store) -> Result<&UnlistedChunks> {
        if let Some(unlisted) = self.unlisted.get() {
            return Ok(unlisted);
        }
        let found = UnlistedChunks::find(store, &self.index)?;
        Ok(self.unlisted.get_or_init(|| found))
    }
}

impl<'s> ChunkReader<'s> {
    /// Opens the index of a store. The reader also finds chunks of packs that the index does not list.
    pub fn new(store: &'s Store) -> Result<Self> {
        Self::of(store, Sources::All)
    }

    /// Opens the index of a store. The reader finds the chunks that the kernel finds.
    pub fn of_index(store: &'s Store) -> Result<Self> {
        Self::of(store, Sources::Index)
    }

    fn of(store: &'s Store, sources: Sources) -> Result<Self> {
        Ok(ChunkReader {
            store,
            index: Mutex::new(Snapshot::open(store)?),
            sources,
            packs: Mutex::default(),
        })
    }

    /// The store.
    pub fn store(&self) -> &'s Store {
        self.store
    }

    /// Returns the packs that the index lists at present.
    pub fn listed_packs(&self) -> Vec<Digest> {
        self.snapshot().index.packs().collect()
    }

    /// Returns an error if a part of the index cannot be used.
    pub fn index_damage(&self) -> Option<Error> {
        self.snapshot().index.damage()
    }

    fn snapshot(&self) -> Arc<Snapshot<'s>> {
        lock(&self.index).clone()
    }

    /// Finds a chunk.
    pub fn find(&self, digest: &Digest) -> Result<Option<Location>> {
        let mut snapshot = self.snapshot();
        if let Some(location) = snapshot.index.find(digest)? {
            return Ok(Some(location));
        }
        if let Some(newer) = self.newer_index(&snapshot)? {
            snapshot = newer;
            if let Some(location) = snapshot.index.find(digest)? {
                return Ok(Some(location));
            }
        }
        match self.sources {
            Sources::Index => Ok(None),
            Sources::All => Ok(snapshot.unlisted(self.store)?.places(digest).next()),
        }
    }

    /// Reads a chunk, verifies it, and decodes it into `content`, whose earlier bytes are replaced.
    pub fn read(&self, chunk: &ChunkRef, content: &mut Vec<u8>) -> Result<()> {
        let mut stored = Vec::new();
        self.find_valid(&Digest::from(*chunk.digest()), &mut stored, |stored| {
            chunk::decode(chunk, stored, content)
        })
    }

    /// Reads the stored bytes of a chunk, and compares them with its digest.
    pub fn read_stored(&self, digest: &Digest, stored: &mut Vec<u8>) -> Result<()> {
        self.find_valid(digest, stored, |stored| {
            let found = Digest::of(stored);
            if found == *digest {
                Ok(())
            } else {
                Err(ChunkFault::Digest { found })
            }
        })
    }

    /// Reads the root of an image, and returns its content. Nothing but the root states its length.
    pub fn read_root(&self, digest: &Digest) -> Result<Vec<u8>> {
        Ok(self.root(digest)?.1)
    }

    /// Returns the reference to the root of an image, and its content.
    pub fn root(&self, digest: &Digest) -> Result<(ChunkRef, Vec<u8>)> {
        let (mut stored, mut content) = (Vec::new(), Vec::new());
        let mut root = None;
        self.find_valid(digest, &mut stored, |stored| {
            // A chunk has at most 1 MiB.
            let reference = root_ref((*digest).into(), stored.len() as u32, stored);
            let reference = reference.map_err(ChunkFault::Frame)?;
            root = Some(reference);
            chunk::decode(&reference, stored, &mut content)
        })?;
        match root {
            Some(root) => Ok((root, content)),
            None => Err(self.missing(digest)),
        }
    }

    /// Reads the stored bytes of a chunk from the first place where they are valid. If there is none,
    /// and the index was replaced, searches the new one, and at last the packs that it does not list.
    fn find_valid(
        &self,
        digest: &Digest,
        stored: &mut Vec<u8>,
        mut check: impl FnMut(&[u8]) -> Result<(), ChunkFault>,
    ) -> Result<()> {
        let mut snapshot = self.snapshot();
        let mut error = None;
        for _ in 0..ATTEMPTS {
            error = None;
            let index = &snapshot.index;
            let loose = || index.loose(digest).transpose();
            let places = index.packed(digest).map(Ok);
            for place in places.chain(std::iter::once_with(loose).flatten()) {
                match self.read_place(digest, &place?, stored, &mut check) {
                    Ok(()) => return Ok(()),
                    Err(place_error) if place_error.is_not_found() => {}
                    Err(place_error) => error = error.or(Some(place_error)),
                }
            }
            if let Some(newer) = self.newer_index(&snapshot)? {
                snapshot = newer;
                continue;
            }
            if self.sources == Sources::All {
                for place in snapshot.unlisted(self.store)?.places(digest) {
                    match self.read_place(digest, &place, stored, &mut check) {
                        Ok(()) => return Ok(()),
                        Err(place_error) => error = error.or(Some(place_error)),
                    }
                }
            }
            // A `gc` can have removed an unlisted pack after it had copied the chunk.
            match self.newer_index(&snapshot)? {
                Some(newer) => snapshot = newer,
                None => break,
            }
        }
        Err(error.unwrap_or_else(|| self.missing(digest)))
    }

    fn read_place(
        &self,
        digest: &Digest,
        place: &Location,
        stored: &mut Vec<u8>,
        check: impl FnOnce(&[u8]) -> Result<(), ChunkFault>,
    ) -> Result<()> {
        let (file, path, offset, len) = match *place {
            Location::Pack {
                pack,
                offset,
                stored_len,
            } => {
                let path = self.store.blob_path(&pack);
                (self.open_pack(&pack)?, path, offset, stored_len)
            }
            Location::Loose { stored_len } => {
                let path = self.store.blob_path(digest);
                (Arc::new(self.store.open_blob(digest)?), path, 0, stored_len)
            }
        };
        // A location has at most 1 MiB.
        stored.resize(len as usize, 0);
        file.read_exact_at(stored, offset)
            .map_err(Error::io(&path, "read"))?;
        check(stored).map_err(|cause| self.damaged(path, digest, cause))
    }

    /// Opens a pack, or takes one that is open.
    fn open_pack(&self, pack: &Digest) -> Result<Arc<File>> {
        let mut packs = lock(&self.packs);
        let known = packs.iter().position(|(digest, _)| digest == pack);
        let file = match known.and_then(|at| packs.remove(at)) {
            Some((_, file)) => file,
            None => Arc::new(self.store.open_blob(pack)?),
        };
        if packs.len() >= OPEN_PACKS {
            packs.pop_front();
        }
        packs.push_back((*pack, file.clone()));
        Ok(file)
    }

    /// Returns the index that replaced `used`, if there is one.
    fn newer_index(&self, used: &Arc<Snapshot<'s>>) -> Result<Option<Arc<Snapshot<'s>>>> {
        let mut present = lock(&self.index);
        if !Arc::ptr_eq(&present, used) {
            return Ok(Some(present.clone()));
        }
        if !used.index.is_replaced()? {
            return Ok(None);
        }
        *present = Snapshot::open(self.store)?;
        Ok(Some(present.clone()))
    }

    fn damaged(&self, path: PathBuf, digest: &Digest, cause: ChunkFault) -> Error {
        let digest = *digest;
        StoreError::Chunk {
            path,
            digest,
            cause,
        }
        .into()
    }

    fn missing(&self, digest: &Digest) -> Error {
        StoreError::ChunkMissing {
            store: self.store.path.clone(),
            digest: *digest,
        }
        .into()
    }
}
