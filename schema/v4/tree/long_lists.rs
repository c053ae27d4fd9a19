// SPDX-License-Identifier: MIT OR Apache-2.0

//! Walks through long lists.

use super::{
    super::{
        error::MetadataError,
        list_block::ListElements,
        parts::{Part, Parts},
    },
    loading::{malformed, read_list},
    source::ChunkSource,
};
use core::ops::ControlFlow;

/// The element that a walk begins with.
#[derive(Clone, Copy)]
pub(super) enum Begin<'a> {
    /// The first element.
    First,
    /// The element of a number, counted over the whole list.
    Element(u32),
    /// The entry that has a name, if any has.
    Name(&'a [u8]),
    /// The extent that contains an offset.
    Offset(u64),
}

impl Begin<'_> {
    /// Finds the part that has the element: its position, and the number of elements before it,
    /// which only a search by number knows.
    fn find(self, parts: &Parts<'_>) -> Result<Option<(u32, u32)>, MetadataError> {
        Ok(match self {
            Self::First => Some((0, 0)),
            Self::Element(number) => parts
                .find_element(number)?
                .map(|(position, before, _)| (position, before)),
            Self::Name(name) => parts.find_name(name)?.map(|(position, _)| (position, 0)),
            Self::Offset(offset) => parts
                .find_offset(offset)?
                .map(|(position, _)| (position, 0)),
        })
    }

    /// The same element, counted from the beginning of its part.
    fn after(self, before: u32) -> Self {
        match self {
            Self::Element(number) => Self::Element(number.saturating_sub(before)),
            other => other,
        }
    }
}

/// List blocks without parts, in order. A leaf is given with the element that the walk begins with,
/// and with the chunk that it lies in.
pub(super) trait Leaves<S: ChunkSource> {
    /// The result of a walk that ends early.
    type Break;

    /// Takes a leaf. Before it, `before` elements were passed over or given.
    fn leaf(
        &mut self,
        chunk: &S::Chunk,
        elements: ListElements<'_>,
        from: Begin<'_>,
        before: u32,
    ) -> Result<ControlFlow<Self::Break>, S::Error>;
}

/// Gives the leaves of a long list, which lies in `chunk`, from an element on. `before` elements come
/// before the list.
///
/// Recursion: at most three levels, because the level of a list block is lower than that of its parent.
///
/// Cost: one loaded chunk for each leaf and for each list block with parts on the way to it.
pub(super) fn walk<S: ChunkSource, L: Leaves<S>>(
    source: &S,
    chunk: &S::Chunk,
    parts: &Parts<'_>,
    from: Begin<'_>,
    before: u32,
    leaves: &mut L,
) -> Result<ControlFlow<L::Break>, S::Error> {
    let broken = |e| malformed(source, chunk, e);
    let Some((first, passed)) = from.find(parts).map_err(broken)? else {
        return Ok(ControlFlow::Continue(()));
    };
    let mut from = from.after(passed);
    let mut before = before.saturating_add(passed);
    for position in first..parts.len() {
        let Some(part) = parts.get(position).map_err(broken)? else {
            break;
        };
        if let broken @ ControlFlow::Break(_) = walk_part(source, &part, from, before, leaves)? {
            return Ok(broken);
        }
        from = Begin::First;
        before = before.saturating_add(part.count);
    }
    Ok(ControlFlow::Continue(()))
}

/// Gives the leaves of a part.
fn walk_part<S: ChunkSource, L: Leaves<S>>(
    source: &S,
    part: &Part<'_>,
    from: Begin<'_>,
    before: u32,
    leaves: &mut L,
) -> Result<ControlFlow<L::Break>, S::Error> {
    let chunk = source.load(&part.chunk)?;
    match read_list(source, &chunk, part)? {
        ListElements::Parts(parts) => walk(source, &chunk, &parts, from, before, leaves),
        elements => leaves.leaf(&chunk, elements, from, before),
    }
}
