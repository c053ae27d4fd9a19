// SPDX-License-Identifier: MIT OR Apache-2.0

//! Rewriting packs: copying the chunks that are needed, and removing the rest.
//!
//! Packs are rewritten in batches of about one new pack, so that little room is needed, and a collection
//! that is interrupted has made progress.

use super::mark::Needed;
use super::plan::{LivePack, Plan};
use crate::error::Result;
use crate::model::count::Count;
use crate::model::digest::Digest;
use crate::store::chunks::pack::PackFile;
use crate::store::chunks::recipes::keep_recipe;
use crate::store::chunks::update::{replace_packs, NewPack};
use crate::store::chunks::writer::{PackSeries, PACK_SIZE};
use crate::store::locks::UseLock;
use crate::store::oci_layout::Store;
use crate::store::staging::Staging;
use crate::sys::pause::{self, Point};
use std::collections::HashSet;

/// Rewrites the packs of a plan. Returns the packs that were removed, and those that were written.
pub(super) fn run(
    store: &Store,
    lock: &UseLock,
    needed: &Needed,
    plan: &Plan,
) -> Result<(Count, Count)> {
    let (mut removed, mut written) = (Count::default(), Count::default());
    // Chunks that an earlier batch has copied.
    let mut copied = HashSet::new();
    for batch in batches(&plan.rewritten) {
        let Rewritten { new, done } = write(store, lock, batch, &mut copied)?;
        let gone: HashSet<Digest> = done.iter().map(|pack| pack.digest).collect();
        let packs: Vec<NewPack> = new
            .into_iter()
            .map(|(pack, size)| {
                written.add(size);
                pack
            })
            .collect();
        replace_packs(store, |pack| !gone.contains(pack), &packs)?;
        for pack in done {
            if needed.listed.contains_key(&pack.digest) {
                let file = PackFile::open(store, &pack.digest)?;
                keep_recipe(store, &pack.digest, file.recipe())?;
                pause::at(Point::Recipe);
            }
            store.remove_blob(&pack.digest)?;
            pause::at(Point::Removed);
            removed.add(pack.size);
        }
    }
    Ok((removed, written))
}

/// Divides packs into batches whose chunks fill about one pack.
fn batches(packs: &[LivePack]) -> Vec<&[LivePack]> {
    let mut batches = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (at, pack) in packs.iter().enumerate() {
        bytes += pack.live_bytes();
        if bytes >= PACK_SIZE {
            batches.push(&packs[start..=at]);
            (start, bytes) = (at + 1, 0);
        }
    }
    if start < packs.len() {
        batches.push(&packs[start..]);
    }
    batches
}

/// The result of rewriting a batch.
#[derive(Default)]
struct Rewritten<'p> {
    /// The new packs, with their sizes.
    new: Vec<(NewPack, u64)>,
    /// The packs of which every chunk was copied.
    done: Vec<&'p LivePack>,
}

/// Writes the chunks of packs to new packs. A pack with a damaged chunk stays.
fn write<'p>(
    store: &Store,
    lock: &UseLock,
    packs: &'p [LivePack],
    copied: &mut HashSet<puzzlefs_schema::Digest>,
) -> Result<Rewritten<'p>> {
    let staging = Staging::under(store, lock)?;
    let mut series = PackSeries::new(&staging);
    let mut rewritten = Rewritten::default();
    let mut stored = Vec::new();
    for pack in packs {
        let file = PackFile::open(store, &pack.digest)?;
        let alignment = file.footer().alignment().trailing_zeros() as u8;
        let mut is_whole = true;
        for chunk in &pack.live {
            if copied.contains(&chunk.digest) {
                continue;
            }
            if file.read_chunk(chunk, &mut stored).is_err() {
                is_whole = false;
                continue;
            }
            series.add(&chunk.digest.into(), &stored, alignment)?;
            copied.insert(chunk.digest);
        }
        if is_whole {
            rewritten.done.push(pack);
        }
    }
    rewritten.new = series.finish()?;
    staging.commit()?;
    Ok(rewritten)
}
