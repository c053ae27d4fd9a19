// SPDX-License-Identifier: MIT OR Apache-2.0

//! Chunks that have arrived, on their way into the store.

use crate::error::Result;
use crate::model::digest::Digest;
use crate::store::chunks::update::{add_packs, NewPack};
use crate::store::chunks::writer::{PackSeries, PACK_ALIGNMENT};
use crate::store::oci_layout::Store;
use crate::store::staging::{Content, Staging};

/// A chunk that has arrived, with its stored bytes, which were compared with the digest.
pub(super) type ArrivedChunk = (Digest, Vec<u8>);

/// The most chunks that become files of their own. More of them become a pack, which takes a change of the
/// chunk index.
const LOOSE_MAX: usize = 16;

/// Puts chunks into a store, durably. The store is locked against `gc` only meanwhile.
pub(super) fn commit(store: &Store, chunks: &[ArrivedChunk]) -> Result<()> {
    let staging = Staging::new(store)?;
    let packs = stage(&staging, chunks)?;
    staging.commit()?;
    add_packs(store, &packs)
}

/// Stages chunks. Returns the packs that the chunk index has to list once they are durable.
pub(super) fn stage(staging: &Staging<'_>, chunks: &[ArrivedChunk]) -> Result<Vec<NewPack>> {
    if chunks.len() <= LOOSE_MAX {
        for (digest, stored) in chunks {
            staging.put(digest, Content::Bytes(&[stored]))?;
        }
        return Ok(Vec::new());
    }
    let mut series = PackSeries::new(staging);
    for (digest, stored) in chunks {
        series.add(digest, stored, PACK_ALIGNMENT)?;
    }
    let written = series.finish()?.into_iter();
    Ok(written.map(|(pack, _)| pack).collect())
}
