// SPDX-License-Identifier: MIT OR Apache-2.0

//! The decision which packs stay, which are removed, and which are rewritten.
//!
//! A pack that a manifest lists stays if enough of its data is needed. Other packs stay if they have
//! enough chunks that no pack before them has. Packs that the index does not list stay if they have any
//! chunk that is needed. Where a chunk lies in several packs, it is read: a pack
//! can claim chunks that are not in it.
//!
//! A collection that is interrupted leaves a pack that the index does not list any more. The next one
//! removes it if its chunks can be read elsewhere.

use super::mark::Needed;
use crate::error::{Error, Result, StoreError};
use crate::model::digest::Digest;
use crate::store::chunks::directory::{PrivateDirectory, CHUNKS};
use crate::store::chunks::index::ChunkIndex;
use crate::store::chunks::pack::PackFile;
use crate::store::chunks::reader::ChunkReader;
use crate::store::chunks::rebuild::find_packs;
use crate::store::oci_layout::Store;
use puzzlefs_schema::v4::PackedChunk;
use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

/// The packs of a store, each in one of the lists.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// They stay as they are.
    pub kept: Vec<Digest>,
    /// Nothing in them is needed, and no manifest lists them.
    pub dropped: Vec<Digest>,
    /// Too much of them is not needed.
    pub rewritten: Vec<LivePack>,
}

/// A pack, and its chunks that are needed.
#[derive(Debug)]
pub(super) struct LivePack {
    pub digest: Digest,
    /// The size of the file in bytes.
    pub size: u64,
    /// The bytes of all chunks.
    stored: u64,
    /// The chunks, in order of position.
    pub live: Vec<PackedChunk>,
    is_listed: bool,
}

impl LivePack {
    /// The bytes of the chunks that are needed.
    pub fn live_bytes(&self) -> u64 {
        let lens = self.live.iter().map(|chunk| u64::from(chunk.stored_len));
        lens.sum()
    }

    fn has_too_much_dead(&self, max_dead: u8) -> bool {
        let dead = self.stored.saturating_sub(self.live_bytes());
        u128::from(dead) * 100 > u128::from(self.stored) * u128::from(max_dead)
    }
}

impl Plan {
    /// Decides for each pack of a store. `max_dead` is in per cent.
    pub fn new(store: &Store, needed: &Needed, max_dead: u8) -> Result<Self> {
        let mut plan = Plan::default();
        let mut packs = Vec::new();
        let has_index = PrivateDirectory::open(store, CHUNKS)?.is_some();
        if !has_index && needed.listed.is_empty() {
            return Ok(plan);
        }
        let index = ChunkIndex::open(store)?;
        let indexed: HashSet<Digest> = index.packs().collect();
        let reader = ChunkReader::of_index(store)?;
        for digest in find_packs(store)? {
            // Another image needs all of it.
            if needed.is_needed(&digest) {
                continue;
            }
            match open(store, needed, digest)? {
                Some(pack) if indexed.contains(&digest) => packs.push(pack),
                Some(mut pack) if max_dead < 100 && is_copied(store, &reader, &pack)? => {
                    pack.live.clear();
                    if pack.is_listed {
                        plan.rewritten.push(pack);
                    } else {
                        plan.dropped.push(digest);
                    }
                }
                // Nothing finds its chunks before `reindex` has run.
                Some(pack) if pack.is_listed || !pack.live.is_empty() => plan.kept.push(digest),
                Some(_) => plan.dropped.push(digest),
                // A blob of another kind, or a malformed pack. The blobs that are needed decide.
                None if needed.listed.contains_key(&digest) => plan.kept.push(digest),
                None => {}
            }
        }
        // Listed packs that are too short for a footer, and those that are not packs at all.
        let known: HashSet<Digest> = packs.iter().map(|pack| pack.digest).collect();
        let others = needed.listed.keys().filter(|pack| !known.contains(pack));
        plan.kept.extend(others);
        packs.sort_by_key(|pack| (!pack.is_listed, Reverse(pack.live_bytes()), pack.digest));
        let mut places = Places::of(store, &packs);
        for mut pack in packs {
            if !pack.is_listed {
                places.remove_taken(&mut pack);
            }
            if pack.live.is_empty() && !pack.is_listed {
                plan.dropped.push(pack.digest);
            } else if max_dead < 100 && pack.has_too_much_dead(max_dead) {
                plan.rewritten.push(pack);
            } else {
                places.take(&pack)?;
                plan.kept.push(pack.digest);
            }
        }
        // A chunk of a pack that is rewritten can lie in a pack that stays.
        for pack in &mut plan.rewritten {
            places.remove_taken(pack);
        }
        Ok(plan)
    }
}

/// Reads the index of a pack; `None` if the blob is not a valid pack.
fn open(store: &Store, needed: &Needed, digest: Digest) -> Result<Option<LivePack>> {
    let file = match PackFile::open(store, &digest) {
        Ok(file) => file,
        Err(Error::Store(StoreError::Pack { .. })) => return Ok(None),
        Err(error) => return Err(error),
    };
    let is_needed = |chunk: &PackedChunk| needed.chunks.contains(&Digest::from(chunk.digest));
    let mut seen = HashSet::new();
    let stored = file.chunks().map(|chunk| u64::from(chunk.stored_len)).sum();
    let live = file.chunks().filter(is_needed);
    let live = live.filter(|chunk| seen.insert(chunk.digest)).collect();
    Ok(Some(LivePack {
        digest,
        size: file.len(),
        stored,
        live,
        is_listed: needed.listed.contains_key(&digest),
    }))
}

/// Returns true if all chunks of a pack that are needed are valid, and can be read by the index, which does
/// not list the pack.
fn is_copied(store: &Store, reader: &ChunkReader<'_>, pack: &LivePack) -> Result<bool> {
    let file = PackFile::open(store, &pack.digest)?;
    let (mut stored, mut copy) = (Vec::new(), Vec::new());
    let mut live = pack.live.iter();
    Ok(live.all(|chunk| {
        file.read_chunk(chunk, &mut stored).is_ok()
            && reader.read_stored(&chunk.digest.into(), &mut copy).is_ok()
    }))
}

/// The chunks that lie in several packs, and those of them that packs that stay have.
struct Places<'s> {
    store: &'s Store,
    contested: HashSet<puzzlefs_schema::Digest>,
    taken: HashSet<puzzlefs_schema::Digest>,
}

impl<'s> Places<'s> {
    fn of(store: &'s Store, packs: &[LivePack]) -> Self {
        let mut counts: HashMap<puzzlefs_schema::Digest, u32> = HashMap::new();
        for chunk in packs.iter().flat_map(|pack| &pack.live) {
            *counts.entry(chunk.digest).or_default() += 1;
        }
        let contested = counts.into_iter().filter(|(_, count)| *count > 1);
        Places {
            store,
            contested: contested.map(|(digest, _)| digest).collect(),
            taken: HashSet::new(),
        }
    }

    /// Notes the chunks of a pack that stays, as far as they lie in other packs, too, and are valid here.
    fn take(&mut self, pack: &LivePack) -> Result<()> {
        let is_new = |chunk: &&PackedChunk| {
            self.contested.contains(&chunk.digest) && !self.taken.contains(&chunk.digest)
        };
        let chunks: Vec<PackedChunk> = pack.live.iter().filter(is_new).copied().collect();
        if chunks.is_empty() {
            return Ok(());
        }
        let file = PackFile::open(self.store, &pack.digest)?;
        let mut stored = Vec::new();
        for chunk in chunks {
            if file.read_chunk(&chunk, &mut stored).is_ok() {
                self.taken.insert(chunk.digest);
            }
        }
        Ok(())
    }

    /// Removes the chunks that packs that stay have.
    fn remove_taken(&self, pack: &mut LivePack) {
        pack.live
            .retain(|chunk| !self.taken.contains(&chunk.digest));
    }
}
