// SPDX-License-Identifier: MIT OR Apache-2.0

//! Parts of long lists.

use super::{
    chunk::ChunkRef,
    chunks::Chunks,
    error::{ListName, MetadataError, MetadataErrorKind as Kind, Result},
    message::{Element, Elements, Strings},
    names::is_name,
    words::{halves, words},
};

/// A part, as it stands in a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct StoredPart {
    first_offset: u64,
    chunk: u32,
    count: u32,
    name_offset: u32,
    name_len: u8,
}

impl Element for StoredPart {
    const LIST: ListName = ListName::Parts;
    const WORDS: u32 = 3;

    #[inline]
    fn read(bytes: &[u8]) -> Option<Self> {
        let [first_offset, chunk, name] = words(bytes)?;
        let (chunk, count) = halves(chunk);
        let (name_offset, name_len) = halves(name);
        Some(Self {
            first_offset,
            chunk,
            count,
            name_offset,
            name_len: name_len as u8,
        })
    }
}

/// Returns the chunks of parts: list blocks.
pub(super) fn part_chunks<'a>(
    parts: Elements<'a, StoredPart>,
    chunks: Chunks<'a>,
) -> impl Iterator<Item = ChunkRef> + 'a {
    parts
        .iter()
        .filter_map(move |part| chunks.get(part.chunk).ok())
}

/// The bounds of a list's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bounds<'a> {
    /// Entries of a directory.
    Names {
        /// The name of the first entry; `None` if nothing states it.
        first: Option<&'a [u8]>,
        /// A name that is greater than those of all entries; `None` if there is no limit.
        before: Option<&'a [u8]>,
    },
    /// Extents of a file.
    Offsets {
        /// The start of the first extent.
        start: u64,
        /// The end of the last extent.
        end: u64,
    },
}

/// A part of a long list: a reference to a list block, and its contents as they must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part<'a> {
    /// The list block.
    pub chunk: ChunkRef,
    /// The number of entries or extents in it, or in all list blocks below it: not 0.
    pub count: u32,
    /// The bounds of these elements.
    pub bounds: Bounds<'a>,
    /// The level that the list block must be below.
    pub level: u8,
}

/// The parts of a long list, in order.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    parts: Elements<'a, StoredPart>,
    chunks: Chunks<'a>,
    strings: Strings<'a>,
    bounds: Bounds<'a>,
    level: u8,
}

impl<'a> Parts<'a> {
    pub(super) fn new(
        parts: Elements<'a, StoredPart>,
        chunks: Chunks<'a>,
        strings: Strings<'a>,
        bounds: Bounds<'a>,
        level: u8,
    ) -> Self {
        Self {
            parts,
            chunks,
            strings,
            bounds,
            level,
        }
    }

    /// The number of parts.
    pub fn len(&self) -> u32 {
        self.parts.len()
    }

    /// Returns true if there are no parts, which a checked list has.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of elements in all parts.
    ///
    /// Cost: the number of parts.
    pub fn count(&self) -> u32 {
        // A check has added them up.
        self.parts
            .iter()
            .fold(0, |sum: u32, part| sum.saturating_add(part.count))
    }

    /// The part at a position; `None` if there are not so many.
    ///
    /// Cost: constant.
    ///
    /// # Errors
    ///
    /// [`MetadataErrorKind::Misuse`](super::MetadataErrorKind::Misuse).
    pub fn get(&self, position: u32) -> Result<Option<Part<'a>>> {
        if position >= self.len() {
            return Ok(None);
        }
        let part = self.parts.known(position)?;
        let next = position
            .checked_add(1)
            .and_then(|next| self.parts.get(next));
        let bounds = match self.bounds {
            Bounds::Names { before, .. } => Bounds::Names {
                first: Some(self.name(&part)?),
                before: match next {
                    Some(next) => Some(self.name(&next)?),
                    None => before,
                },
            },
            Bounds::Offsets { end, .. } => Bounds::Offsets {
                start: part.first_offset,
                end: next.map_or(end, |next| next.first_offset),
            },
        };
        Ok(Some(Part {
            chunk: self.chunks.get(part.chunk).map_err(|_| Kind::Misuse)?,
            count: part.count,
            bounds,
            level: self.level,
        }))
    }

    /// Finds the part of a directory that has the entry of a name, if any has, and its position.
    ///
    /// Cost: at most 5 + log2 of the number of parts.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get); so, too, if the parts are those of a file.
    pub fn find_name(&self, name: &[u8]) -> Result<Option<(u32, Part<'a>)>> {
        let Bounds::Names { .. } = self.bounds else {
            return Err(Kind::Misuse.into());
        };
        let after = self
            .parts
            .partition_point(|part| Ok(self.name(&part)? <= name))?;
        self.before(after)
    }

    /// Finds the part of a file that has the extent which contains an offset, and its position.
    ///
    /// Cost: at most 5 + log2 of the number of parts.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get); so, too, if the parts are those of a directory.
    pub fn find_offset(&self, offset: u64) -> Result<Option<(u32, Part<'a>)>> {
        let Bounds::Offsets { end, .. } = self.bounds else {
            return Err(Kind::Misuse.into());
        };
        if offset >= end {
            return Ok(None);
        }
        let after = self
            .parts
            .partition_point(|part| Ok(part.first_offset <= offset))?;
        self.before(after)
    }

    /// Finds the part that has the element of a number, counted over all parts, its position, and
    /// the number of elements in the parts before it.
    ///
    /// Cost: the number of parts.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn find_element(&self, number: u32) -> Result<Option<(u32, u32, Part<'a>)>> {
        let mut start: u32 = 0;
        for (position, part) in (0..).zip(self.parts.iter()) {
            let end = start.saturating_add(part.count);
            if number < end {
                return Ok(self.get(position)?.map(|part| (position, start, part)));
            }
            start = end;
        }
        Ok(None)
    }

    fn before(&self, after: u32) -> Result<Option<(u32, Part<'a>)>> {
        let Some(position) = after.checked_sub(1) else {
            return Ok(None);
        };
        Ok(self.get(position)?.map(|part| (position, part)))
    }

    #[inline]
    fn name(&self, part: &StoredPart) -> Result<&'a [u8]> {
        self.strings.known(part.name_offset, part.name_len.into())
    }

    /// Checks all parts. Returns the number of elements in them.
    pub(super) fn check(&self) -> Result<u32> {
        if self.is_empty() {
            return Err(Kind::NoParts.into());
        }
        let mut count: u32 = 0;
        let mut before = None;
        for (index, part) in (0..).zip(self.parts.iter()) {
            let check = || {
                self.check_part(&part, before)?;
                count.checked_add(part.count).ok_or(Kind::PartCount.into())
            };
            count = check()
                .map_err(|e: MetadataError| e.at(ListName::Parts, self.parts.place(index)))?;
            before = Some(part);
        }
        Ok(count)
    }

    /// Checks a part.
    fn check_part(&self, part: &StoredPart, before: Option<StoredPart>) -> Result<()> {
        self.chunks.get(part.chunk)?.check_metadata()?;
        if part.count == 0 {
            return Err(Kind::EmptyPart.into());
        }
        match self.bounds {
            Bounds::Names { .. } => {
                if part.first_offset != 0 {
                    return Err(Kind::UnusedField.into());
                }
                let name = self.checked_name(part)?;
                match before {
                    Some(before) if self.name(&before)? >= name => Err(Kind::PartOrder.into()),
                    _ => Ok(()),
                }
            }
            Bounds::Offsets { .. } => {
                if part.name_offset != 0 || part.name_len != 0 {
                    return Err(Kind::UnusedField.into());
                }
                match before {
                    Some(before) if before.first_offset >= part.first_offset => {
                        Err(Kind::PartOrder.into())
                    }
                    _ => Ok(()),
                }
            }
        }
    }

    fn checked_name(&self, part: &StoredPart) -> Result<&'a [u8]> {
        let name = self
            .strings
            .get(part.name_offset, part.name_len.into())
            .ok_or(Kind::Range)?;
        if !is_name(name) {
            return Err(Kind::Name.into());
        }
        Ok(name)
    }

    /// Checks where the parts begin and end, as the reference to them states it.
    ///
    /// Cost: constant.
    pub(super) fn check_bounds(&self) -> Result<()> {
        let first = self.parts.known(0)?;
        let last = self.parts.known(self.len().saturating_sub(1))?;
        let (is_first, is_before) = match self.bounds {
            Bounds::Names {
                first: name,
                before,
            } => {
                let (first, last) = (self.name(&first)?, self.name(&last)?);
                (
                    name.is_none_or(|name| name == first),
                    before.is_none_or(|before| last < before),
                )
            }
            Bounds::Offsets { start, end } => {
                (first.first_offset == start, last.first_offset < end)
            }
        };
        if !is_first {
            return Err(Kind::ListFirstMismatch.into());
        }
        if !is_before {
            return Err(Kind::ListEndMismatch.into());
        }
        Ok(())
    }
}
