// SPDX-License-Identifier: MIT OR Apache-2.0

//! The places of all contents, from the work of all threads.

use crate::build::bundler::PlacedFile;
use crate::build::contents::attempts::ReadAgain;
use crate::model::tree::{Fresh, NodeId};

/// The place of a piece in the contents of a tree.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub node: NodeId,
    /// The attempt to read the file.
    pub attempt: u32,
    /// 0 for the first piece of the file, and so on.
    pub number: u32,
}

/// A piece of a file that was cut.
pub(crate) struct CutPiece<K> {
    pub position: Position,
    pub data: PieceData<K>,
    pub length: u64,
}

/// The data of a piece.
#[derive(Clone, Copy)]
pub(crate) enum PieceData<K> {
    /// A chunk with the content of this key.
    Chunk(K),
    /// Zeros, in a run of any length.
    Zeros,
}

/// The contents of the files of a tree, by their keys.
pub(crate) struct Stored<K> {
    /// The bundles, with their numbers; in the order of the numbers after [`finish`](Self::finish).
    pub bundles: Vec<(u32, K)>,
    /// The pieces of large files; in their order after [`finish`](Self::finish).
    pub pieces: Vec<CutPiece<K>>,
    /// The places of the small files.
    pub small: Vec<PlacedFile>,
    /// Files that changed while they were read, in the state in which they were read.
    pub fresh: Vec<(NodeId, Fresh)>,
}

impl<K> Default for Stored<K> {
    fn default() -> Self {
        Stored {
            bundles: Vec::new(),
            pieces: Vec::new(),
            small: Vec::new(),
            fresh: Vec::new(),
        }
    }
}

impl<K> Stored<K> {
    /// Sorts the bundles and the pieces, and removes pieces of attempts that do not count.
    pub fn finish(mut self, small: Vec<PlacedFile>, read_again: ReadAgain) -> Self {
        self.pieces.retain(|piece| {
            let counts = read_again.get(&piece.position.node);
            piece.position.attempt == counts.map_or(0, |(attempt, _)| *attempt)
        });
        self.pieces.sort_unstable_by_key(|piece| piece.position);
        self.bundles.sort_unstable_by_key(|&(number, _)| number);
        self.small = small;
        let fresh = read_again.into_iter();
        self.fresh = fresh.map(|(node, (_, fresh))| (node, fresh)).collect();
        self.fresh.sort_unstable_by_key(|(node, _)| *node);
        self
    }

    /// Returns the key of the bundle that a small file is in.
    pub fn bundle(&self, file: &PlacedFile) -> &K {
        let (number, content) = &self.bundles[file.bundle as usize];
        debug_assert_eq!(*number, file.bundle);
        content
    }
}
