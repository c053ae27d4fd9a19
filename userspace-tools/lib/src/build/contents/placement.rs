// SPDX-License-Identifier: MIT OR Apache-2.0

//! Puts together the extents of all files from the work of all threads.

use crate::build::contents::attempts::ReadAgain;
use crate::build::contents::writer::{Blob, StoredBlob};
use crate::build::packer::PlacedFile;
use crate::model::digest::Digest;
use crate::model::extent::{Extent, Extents};
use crate::model::tree::NodeId;
use std::collections::{BTreeMap, HashMap, HashSet};

/// The place of a piece in the contents of a tree.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub node: NodeId,
    /// The attempt to read the file.
    pub attempt: u32,
    /// 0 for the first piece of the file, and so on.
    pub number: u32,
}

/// A piece of a file that was cut. A run of zeros is one piece, however long.
pub(crate) struct CutPiece {
    pub position: Position,
    pub content: Digest,
    pub length: u64,
    /// The most that one extent covers: a run of zeros refers to the blob of zeros many times.
    pub unit: u64,
}

/// The packs and pieces that were stored, in any order. Digests are those of contents.
#[derive(Default)]
pub(crate) struct Stored {
    pub packs: Vec<(u32, Digest)>,
    pub pieces: Vec<CutPiece>,
}

impl Stored {
    /// Removes pieces of attempts that do not count.
    pub fn retain_last_attempts(&mut self, read_again: &ReadAgain) {
        self.pieces.retain(|piece| {
            let counts = read_again.get(&piece.position.node);
            piece.position.attempt == counts.map_or(0, |(attempt, _)| *attempt)
        });
    }

    /// Returns the extents of each of `nodes` nodes. `blobs` has the blob of each content.
    pub fn extents(
        mut self,
        nodes: usize,
        packed: &[PlacedFile],
        blobs: &HashMap<Digest, StoredBlob>,
    ) -> Vec<Extents> {
        let extent = |content: &Digest, offset: u64, length: u64| {
            // Each content was stored before its digest was noted.
            let stored = blobs[content];
            Extent {
                blob: stored.digest,
                offset,
                length,
                compressed: stored.compressed,
            }
        };
        let mut extents = vec![Extents::default(); nodes];
        self.packs.sort_unstable_by_key(|&(number, _)| number);
        for file in packed {
            let (number, content) = self.packs[file.pack as usize];
            debug_assert_eq!(number, file.pack);
            let only = extent(&content, file.offset.into(), file.size.into());
            extents[file.node as usize] = Extents::One(only);
        }
        self.pieces.sort_unstable_by_key(|piece| piece.position);
        for piece in &self.pieces {
            let extents = &mut extents[piece.position.node as usize];
            let mut left = piece.length;
            while left > 0 {
                let length = left.min(piece.unit);
                extents.push(extent(&piece.content, 0, length));
                left -= length;
            }
        }
        extents
    }
}

/// Returns the blobs of contents, by the digests of the blobs.
pub(crate) fn blobs(contents: &HashMap<Digest, StoredBlob>) -> BTreeMap<Digest, Blob> {
    let mut blobs = BTreeMap::new();
    for StoredBlob { digest, blob, .. } in contents.values() {
        let known: &mut Blob = blobs.entry(*digest).or_insert(*blob);
        known.new |= blob.new;
    }
    blobs
}

/// Removes blobs that no extent refers to.
pub(crate) fn retain_referenced(blobs: &mut BTreeMap<Digest, Blob>, extents: &[Extents]) {
    let referenced = extents.iter().flat_map(|extents| extents.iter());
    let referenced: HashSet<Digest> = referenced.map(|extent| extent.blob).collect();
    blobs.retain(|digest, _| referenced.contains(digest));
}
