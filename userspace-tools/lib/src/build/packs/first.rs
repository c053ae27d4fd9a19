// SPDX-License-Identifier: MIT OR Apache-2.0

//! The chunks that come first in the packs: those of a start-up order.

use crate::build::blocks::FileExtent;
use crate::build::packs::known::PackPlace;
use crate::model::start_order::{FileRange, StartOrder};
use crate::model::tree::{Kind, NodeId, Tree};
use puzzlefs_schema::v4::ChunkRef;
use std::collections::HashSet;
use std::ops::Range;

/// The files of a tree that a start-up order names.
#[derive(Debug, Default)]
pub(crate) struct FirstFiles {
    /// The inodes on the way to the ranges and at their ends, each once, in the order of their first use.
    pub nodes: Vec<NodeId>,
    /// The ranges of files, in order.
    ranges: Vec<(NodeId, Range<u64>)>,
    /// The number of ranges whose path the tree does not have.
    pub missing: usize,
}

impl FirstFiles {
    /// Finds the files of an order in a tree. Symbolic links are not followed.
    pub fn find(order: &StartOrder, tree: &Tree) -> Self {
        let mut first = FirstFiles::default();
        let mut seen = HashSet::new();
        for range in order.ranges() {
            let Some(way) = way(range, tree) else {
                first.missing += 1;
                continue;
            };
            if let Some(&last) = way.last() {
                let is_file = matches!(tree.nodes[last as usize].kind, Kind::File(_));
                if is_file && range.length > 0 {
                    first.ranges.push((last, range.offset..range.end()));
                }
            }
            let new = way.into_iter().filter(|node| seen.insert(*node));
            first.nodes.extend(new);
        }
        first
    }

    /// Returns the chunks of the ranges, each once. `extents` has the extents of each node.
    pub fn chunks(&self, extents: &[Vec<FileExtent>]) -> Vec<ChunkRef> {
        let mut seen = HashSet::new();
        let mut chunks = Vec::new();
        for (node, range) in &self.ranges {
            let extents = extents.get(*node as usize).map_or(&[][..], Vec::as_slice);
            let from = extents.partition_point(|extent| extent.offset <= range.start);
            let extents = extents[from.saturating_sub(1)..].iter();
            let extents = extents.take_while(|extent| extent.offset < range.end);
            let found = extents.filter_map(FileExtent::chunk);
            chunks.extend(found.filter(|chunk| seen.insert(**chunk)));
        }
        chunks
    }
}

/// Returns the inodes from the root to the path of a range; `None` if the tree does not have the path.
fn way(range: &FileRange, tree: &Tree) -> Option<Vec<NodeId>> {
    let mut way = vec![0];
    let mut here = 0;
    for name in range.names() {
        let Kind::Directory(entries) = &tree.nodes.get(here as usize)?.kind else {
            return None;
        };
        let found = entries.binary_search_by(|entry| (*entry.name).cmp(name));
        here = entries.get(found.ok()?)?.node;
        way.push(here);
    }
    Some(way)
}

/// Returns true if chunks at these places, read in turn, are mostly read forward: a rebuild then leaves them
/// where an earlier order has put them.
pub(super) fn is_sequential(places: &[PackPlace]) -> bool {
    let pairs = places.iter().zip(places.iter().skip(1));
    let jumps = pairs.filter(|(place, next)| !place.leads_to(next)).count();
    jumps * 10 <= places.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::packs::known::GAP;
    use crate::model::digest::Digest;

    #[test]
    fn few_jumps_are_sequential() {
        let place = |pack: &[u8], offset: u64| PackPlace {
            pack: Digest::of(pack),
            offset,
            stored_len: 1000,
        };
        let run =
            |pack: &[u8], from: u64| (0..20).map(|at| place(pack, from + at * 2000)).collect();
        let forward: Vec<PackPlace> = run(b"a", 0);
        assert!(is_sequential(&[]) && is_sequential(&forward[..1]) && is_sequential(&forward));
        let back: Vec<PackPlace> = forward.iter().rev().copied().collect();
        assert!(!is_sequential(&back));
        assert!(is_sequential(&[forward.clone(), run(b"b", 0)].concat()));
        let far: Vec<PackPlace> = (0..20).map(|at| place(b"a", at * 2 * GAP)).collect();
        assert!(!is_sequential(&far));
        let mixed = forward
            .iter()
            .zip(run(b"b", 0))
            .flat_map(|(a, b): (_, PackPlace)| [*a, b]);
        assert!(!is_sequential(&mixed.collect::<Vec<_>>()));
    }
}
