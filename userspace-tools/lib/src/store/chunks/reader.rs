// SPDX-License-Identifier: MIT OR Apache-2.0

//! Reading chunks: finding, verifying and decoding them.

use crate::error::{Error, Result, StoreError};
use crate::model::chunk::{self, ChunkFault};
use crate::model::digest::Digest;
use crate::store::chunks::index::{ChunkIndex, Location};
use crate::store::oci_layout::Store;
use crate::sys::parallel::lock;
use puzzlefs_schema::v4::{root_ref, ChunkRef};
use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

/// The number of packs that a reader keeps open.
const OPEN_PACKS: usize = 64;

/// The number of searches for a chunk, each but the first in an index that replaced the one before.
const ATTEMPTS: usize = 10;

/// Reads chunks of a store, for any number of threads.
pub(crate) struct ChunkReader<'s> {
    store: &'s Store,
    index: Mutex<Arc<ChunkIndex<'s>>>,
    /// The packs that were used last, the latest at the back.
    packs: Mutex<VecDeque<(Digest, Arc<File>)>>,
}

impl<'s> ChunkReader<'s> {
    /// Opens the index of a store.
    pub fn new(store: &'s Store) -> Result<Self> {
        Ok(ChunkReader {
            store,
            index: Mutex::new(Arc::new(ChunkIndex::open(store)?)),
            packs: Mutex::default(),
        })
    }

    /// The store.
    pub fn store(&self) -> &'s Store {
        self.store
    }

    /// The index that lookups use at present.
    pub fn index(&self) -> Arc<ChunkIndex<'s>> {
        lock(&self.index).clone()
    }

    /// Finds a chunk.
    pub fn find(&self, digest: &Digest) -> Result<Option<Location>> {
        let index = self.index();
        if let Some(location) = index.find(digest)? {
            return Ok(Some(location));
        }
        match self.newer_index(&index)? {
            Some(index) => index.find(digest),
            None => Ok(None),
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
    /// and the index was replaced, searches the new one.
    fn find_valid(
        &self,
        digest: &Digest,
        stored: &mut Vec<u8>,
        mut check: impl FnMut(&[u8]) -> Result<(), ChunkFault>,
    ) -> Result<()> {
        let mut index = self.index();
        let mut error = None;
        for _ in 0..ATTEMPTS {
            error = None;
            let loose = || index.loose(digest).transpose();
            let places = index.packed(digest).map(Ok);
            for place in places.chain(std::iter::once_with(loose).flatten()) {
                match self.read_place(digest, &place?, stored, &mut check) {
                    Ok(()) => return Ok(()),
                    Err(place_error) if place_error.is_not_found() => {}
                    Err(place_error) => error = error.or(Some(place_error)),
                }
            }
            match self.newer_index(&index)? {
                Some(newer) => index = newer,
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
    fn newer_index(&self, used: &Arc<ChunkIndex<'s>>) -> Result<Option<Arc<ChunkIndex<'s>>>> {
        let mut index = lock(&self.index);
        if !Arc::ptr_eq(&index, used) {
            return Ok(Some(index.clone()));
        }
        if !used.is_replaced()? {
            return Ok(None);
        }
        *index = Arc::new(ChunkIndex::open(self.store)?);
        Ok(Some(index.clone()))
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
