// SPDX-License-Identifier: GPL-2.0

//! Ranges of bytes.

/// A range of bytes: of a blob as it is stored, or of its content.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct ByteRange {
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

impl ByteRange {
    /// Returns the range of the first `len` bytes.
    pub(crate) fn first(len: u64) -> Self {
        Self { offset: 0, len }
    }

    /// Returns the offset behind the last byte.
    pub(crate) fn end(self) -> u64 {
        self.offset.saturating_add(self.len)
    }

    /// Returns the offset of another range inside this one, if it is inside.
    pub(crate) fn place_of(self, other: Self) -> Option<usize> {
        let place = other.offset.checked_sub(self.offset)?;
        (other.end() <= self.end()).then(|| usize::try_from(place).ok())?
    }

    /// Returns the range from the start of this one to the end of another one, if that begins at
    /// most `gap` bytes behind this one.
    pub(crate) fn joined(self, next: Self, gap: u64) -> Option<Self> {
        let between = next.offset.checked_sub(self.end())?;
        (between <= gap).then_some(Self {
            offset: self.offset,
            len: next.end().saturating_sub(self.offset),
        })
    }

    /// Returns the range that follows the first `len` bytes of this one.
    pub(crate) fn after(self, len: u64) -> Self {
        Self {
            offset: self.offset.saturating_add(len),
            len: self.len.saturating_sub(len),
        }
    }
}
