// SPDX-License-Identifier: MIT OR Apache-2.0

//! Blobs and chunks that have arrived, on their way into the store.

use crate::error::Result;
use crate::model::count::Count;
use crate::model::digest::Digest;
use crate::store::chunks::pack::NewPack;
use crate::store::chunks::update::add_packs;
use crate::store::chunks::writer::{PackSeries, PACK_ALIGNMENT};
use crate::store::oci_layout::Store;
use crate::store::staging::{Placed, Staging};
use crate::sys::parallel::lock;
use std::sync::Mutex;
use tempfile::NamedTempFile;

/// The bytes after which arrived data becomes durable. The limit bounds what a killed process fetches
/// again.
const CHECKPOINT_BYTES: u64 = 128 << 20;

/// Blobs and chunks that have arrived. All were compared with their digests.
pub(super) struct Arrived<'s> {
    pub store: &'s Store,
    pub staging: &'s Staging<'s>,
    /// Packs of single chunks, which are being written.
    loose: Mutex<PackSeries<'s>>,
    pending: Mutex<Pending>,
    /// Held while arrived data becomes durable, so that packs are durable before the index lists them.
    checkpoint: Mutex<()>,
}

/// Data that is staged.
#[derive(Default)]
struct Pending {
    packs: Vec<NewPack>,
    bytes: u64,
    new: Count,
    shared: Count,
}

impl<'s> Arrived<'s> {
    pub fn new(store: &'s Store, staging: &'s Staging<'s>) -> Self {
        Arrived {
            store,
            staging,
            loose: Mutex::new(PackSeries::new(staging)),
            pending: Mutex::default(),
            checkpoint: Mutex::default(),
        }
    }

    /// Adds a chunk to a new pack.
    pub fn chunk(&self, digest: &Digest, stored: &[u8]) -> Result<()> {
        let full = {
            let mut series = lock(&self.loose);
            series.add(digest, stored, PACK_ALIGNMENT)?;
            series.take_written()
        };
        self.packs(full)
    }

    /// Adds complete packs that are staged, with their sizes.
    pub fn packs(&self, packs: Vec<(NewPack, u64)>) -> Result<()> {
        let is_enough = {
            let mut pending = lock(&self.pending);
            for (pack, size) in packs {
                pending.new.add(size);
                pending.bytes += size;
                pending.packs.push(pack);
            }
            pending.bytes >= CHECKPOINT_BYTES
        };
        if is_enough {
            self.checkpoint()?;
        }
        Ok(())
    }

    /// Adds the chunks of a pack that the store has, and that its index does not list.
    pub fn existing(&self, pack: NewPack, size: u64) {
        let mut pending = lock(&self.pending);
        pending.shared.add(size);
        pending.packs.push(pack);
    }

    /// Counts a blob that the store has.
    pub fn shared(&self, size: u64) {
        lock(&self.pending).shared.add(size);
    }

    /// Adds a blob.
    pub fn blob(&self, file: NamedTempFile, digest: &Digest, size: u64) -> Result<()> {
        let placed = self.staging.put_file(file, digest, size)?;
        let is_enough = {
            let mut pending = lock(&self.pending);
            match placed {
                Placed::New => pending.new.add(size),
                Placed::Shared => pending.shared.add(size),
            }
            pending.bytes += size;
            pending.bytes >= CHECKPOINT_BYTES
        };
        if is_enough {
            self.checkpoint()?;
        }
        Ok(())
    }

    /// Makes everything durable that is staged, and adds it to the chunk index.
    fn checkpoint(&self) -> Result<()> {
        let _alone = lock(&self.checkpoint);
        let packs = {
            let mut pending = lock(&self.pending);
            pending.bytes = 0;
            std::mem::take(&mut pending.packs)
        };
        self.staging.commit()?;
        add_packs(self.store, &packs)
    }

    /// Makes everything durable that has arrived. Returns the blobs that are new, and those that the store
    /// had.
    pub fn finish(&self) -> Result<(Count, Count)> {
        let written = {
            let mut series = lock(&self.loose);
            std::mem::replace(&mut *series, PackSeries::new(self.staging)).finish()?
        };
        self.packs(written)?;
        self.checkpoint()?;
        let pending = lock(&self.pending);
        Ok((pending.new, pending.shared))
    }
}
