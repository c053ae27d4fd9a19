// SPDX-License-Identifier: MIT OR Apache-2.0

//! The encoding of messages: the stream framing, the root struct, and its lists.
//!
//! The messages of format 4 are so plain that the Cap'n Proto library is not needed to read them:
//! one segment, one struct, and lists of data at known places. See
//! <https://capnproto.org/encoding.html>.

use super::{
    error::{ListName, MetadataErrorKind as Kind, Result},
    limits::{MAX_METADATA_CONTENT, VERSION},
    words::{halves, u32_at, u64_at, WORD},
};
use crate::{search::partition_point_of, steps::step};
use core::marker::PhantomData;

/// The length of the segment table, in bytes.
const TABLE: usize = 8;

/// A type of element of a list, whose fields are all data.
pub(super) trait Element: Sized {
    /// The list's name.
    const LIST: ListName;

    /// The number of words of an element.
    const WORDS: u32;

    /// Reads an element from its bytes.
    fn read(bytes: &[u8]) -> Option<Self>;
}

/// The place of a list of structs in a message.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct List {
    /// The start of the first element, in bytes.
    start: u32,
    /// The number of elements.
    count: u32,
    /// The length of an element, in bytes.
    stride: u32,
}

impl List {
    /// The number of elements.
    pub(super) fn len(&self) -> u32 {
        self.count
    }

    /// The place of an element in the message; `None` if there are not so many.
    #[inline]
    pub(super) fn place(&self, index: u32) -> Option<usize> {
        if index >= self.count {
            return None;
        }
        (index as usize)
            .checked_mul(self.stride as usize)?
            .checked_add(self.start as usize)
    }

    /// The elements in the bytes of the message.
    #[inline]
    pub(super) fn of<'a, T: Element>(&self, bytes: &'a [u8]) -> Elements<'a, T> {
        Elements {
            bytes: bytes.get(self.start as usize..).unwrap_or_default(),
            first: 0,
            count: self.count,
            stride: self.stride,
            element: PhantomData,
        }
    }
}

/// A range of a list's elements.
#[derive(Debug)]
pub(super) struct Elements<'a, T> {
    /// The message from the beginning of the list on.
    bytes: &'a [u8],
    first: u32,
    count: u32,
    stride: u32,
    element: PhantomData<fn() -> T>,
}

impl<T> Clone for Elements<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Elements<'_, T> {}

impl<'a, T: Element> Elements<'a, T> {
    /// The number of elements.
    #[inline]
    pub(super) fn len(&self) -> u32 {
        self.count
    }

    /// The place in the whole list of an element of this range.
    pub(super) fn place(&self, index: u32) -> u32 {
        self.first.saturating_add(index)
    }

    /// Reads an element.
    ///
    /// Cost: constant.
    #[inline]
    pub(super) fn get(&self, index: u32) -> Option<T> {
        step();
        if index >= self.count {
            return None;
        }
        let at = (self.first as usize).checked_add(index as usize)?;
        T::read(self.bytes.get(at.checked_mul(self.stride as usize)?..)?)
    }

    /// Reads an element that was there when the message was checked.
    #[inline]
    pub(super) fn known(&self, index: u32) -> Result<T> {
        self.get(index).ok_or(Kind::Misuse.into())
    }

    /// The elements, one after the other.
    pub(super) fn iter(self) -> impl Iterator<Item = T> + 'a
    where
        T: 'a,
    {
        (0..self.count).map_while(move |index| self.get(index))
    }

    /// A range of the elements.
    pub(super) fn range(&self, first: u32, count: u32) -> Option<Self> {
        if first.checked_add(count)? > self.count {
            return None;
        }
        Some(Self {
            first: self.first.checked_add(first)?,
            count,
            ..*self
        })
    }

    /// Finds the first element for which `before` does not hold, if it holds for those before it.
    ///
    /// Cost: at most 1 + log2 of the number of elements.
    pub(super) fn partition_point(&self, mut before: impl FnMut(T) -> Result<bool>) -> Result<u32> {
        partition_point_of(self.count, |index| before(self.known(index)?))
    }
}

/// The bytes in a message that its strings lie in.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pool {
    start: u32,
    len: u32,
}

impl Pool {
    /// The pool in the bytes of the message.
    #[inline]
    pub(super) fn of<'a>(&self, bytes: &'a [u8]) -> Strings<'a> {
        let end = self.start.saturating_add(self.len) as usize;
        Strings(bytes.get(self.start as usize..end).unwrap_or_default())
    }
}

/// The strings of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Strings<'a>(&'a [u8]);

impl<'a> Strings<'a> {
    /// A range of the pool.
    #[inline]
    pub(super) fn get(&self, offset: u32, len: u32) -> Option<&'a [u8]> {
        self.0
            .get(offset as usize..(offset as usize).checked_add(len as usize)?)
    }

    /// A range that lay in the pool when the message was checked.
    #[inline]
    pub(super) fn known(&self, offset: u32, len: u32) -> Result<&'a [u8]> {
        self.get(offset, len).ok_or(Kind::Misuse.into())
    }
}

/// A kind of message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MessageKind {
    Root = 1,
    BlockList = 2,
    Block = 3,
    ListBlock = 4,
}

impl MessageKind {
    fn from_code(code: u16) -> Option<Self> {
        Some(match code {
            1 => Self::Root,
            2 => Self::BlockList,
            3 => Self::Block,
            4 => Self::ListBlock,
            _ => return None,
        })
    }
}

/// A message whose root struct is found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a> {
    /// All bytes, at most [`MAX_METADATA_CONTENT`].
    bytes: &'a [u8],
    /// The start of the root struct's data.
    data: usize,
    /// The start of its pointers.
    pointers: usize,
    /// The number of pointers.
    pointer_count: usize,
}

impl<'a> Message<'a> {
    /// Reads the framing and the root pointer of a message, which is all of `bytes`. The root struct
    /// has at least so many words of data.
    pub(super) fn parse(bytes: &'a [u8], kind: MessageKind, data_words: usize) -> Result<Self> {
        let message = Self::open(bytes, data_words)?;
        message.check_kind(kind)?;
        Ok(message)
    }

    /// Returns the kind of a message.
    pub(super) fn kind_of(bytes: &'a [u8]) -> Result<MessageKind> {
        let kind = Self::open(bytes, 1)?.kind()?;
        MessageKind::from_code(kind).ok_or(Kind::MessageKind(kind).into())
    }

    /// Reads a message of any kind.
    fn open(bytes: &'a [u8], data_words: usize) -> Result<Self> {
        if bytes.len() > MAX_METADATA_CONTENT as usize {
            return Err(Kind::MessageTooLarge.into());
        }
        let (Some(other_segments), Some(words)) = (u32_at(bytes, 0), u32_at(bytes, 4)) else {
            return Err(Kind::Truncated.into());
        };
        if other_segments != 0 {
            return Err(Kind::Segments.into());
        }
        let end = (words as usize).saturating_mul(WORD).saturating_add(TABLE);
        if end > bytes.len() {
            return Err(Kind::Truncated.into());
        }
        if end < bytes.len() {
            return Err(Kind::TrailingBytes.into());
        }

        let pointer = u64_at(bytes, TABLE).ok_or(Kind::Truncated)?;
        if pointer & 3 != 0 {
            return Err(Kind::PointerType.into());
        }
        let data = target(TABLE, pointer).ok_or(Kind::OutOfBounds)?;
        let size = StructSize::of(pointer);
        if size.data < data_words {
            return Err(Kind::StructSize.into());
        }
        let pointers = data.saturating_add(size.data.saturating_mul(WORD));
        let message = Self {
            bytes,
            data,
            pointers,
            pointer_count: size.pointers,
        };
        let end = pointers.saturating_add(size.pointers.saturating_mul(WORD));
        if bytes.get(data..end).is_none() {
            return Err(Kind::OutOfBounds.into());
        }
        Ok(message)
    }

    /// Checks the version and reads the kind, which the root structs of all messages begin with.
    fn kind(&self) -> Result<u16> {
        let (identity, _) = halves(self.data(0)?);
        let (version, kind) = (identity as u16, (identity >> 16) as u16);
        if version != VERSION {
            return Err(Kind::Version(version).into());
        }
        Ok(kind)
    }

    /// Checks the version and the kind.
    fn check_kind(&self, expected: MessageKind) -> Result<()> {
        let kind = self.kind()?;
        if kind != expected as u16 {
            return Err(Kind::MessageKind(kind).into());
        }
        Ok(())
    }

    /// A word of the root struct's data.
    pub(super) fn data(&self, word: usize) -> Result<u64> {
        u64_at(
            self.bytes,
            self.data.saturating_add(word.saturating_mul(WORD)),
        )
        .ok_or(Kind::StructSize.into())
    }

    /// The place and the value of a pointer of the root struct; `None` if it is null.
    fn pointer(&self, index: usize) -> Option<(usize, u64)> {
        if index >= self.pointer_count {
            return None;
        }
        let at = self.pointers.saturating_add(index.saturating_mul(WORD));
        u64_at(self.bytes, at)
            .filter(|&pointer| pointer != 0)
            .map(|pointer| (at, pointer))
    }

    /// Finds a list of structs. A null pointer is an empty list.
    pub(super) fn list<T: Element>(&self, index: usize) -> Result<List> {
        const COMPOSITE: u32 = 7;
        let Some((at, pointer)) = self.pointer(index) else {
            return Ok(List::default());
        };
        let len = list_len(pointer, COMPOSITE)?;
        // In front of the elements stands a word that describes them.
        let tag_at = target(at, pointer).ok_or(Kind::OutOfBounds)?;
        let start = tag_at.saturating_add(WORD);
        let end = start.saturating_add((len as usize).saturating_mul(WORD));
        let tag = u64_at(self.bytes, tag_at).ok_or(Kind::OutOfBounds)?;
        if self.bytes.get(start..end).is_none() {
            return Err(Kind::OutOfBounds.into());
        }
        if tag & 3 != 0 {
            return Err(Kind::PointerType.into());
        }
        let count = (tag as u32) >> 2;
        let size = StructSize::of(tag);
        if size.pointers != 0 {
            return Err(Kind::PointersInList.into());
        }
        if size.data < T::WORDS as usize {
            return Err(Kind::StructSize.into());
        }
        if u64::from(count).checked_mul(size.data as u64) != Some(len.into()) {
            return Err(Kind::ListLength.into());
        }
        Ok(List {
            start: start as u32,
            count,
            stride: size.data.saturating_mul(WORD) as u32,
        })
    }

    /// Checks that lists lie behind the root struct in this order, and the pool behind them.
    pub(super) fn check_order(&self, lists: &[List], pool: Pool) -> Result<()> {
        let pointers = self.pointer_count.saturating_mul(WORD);
        let mut end = self.pointers.saturating_add(pointers);
        // Null pointers have no place.
        for list in lists.iter().filter(|list| list.stride != 0) {
            // The word in front of the elements belongs to the list.
            if (list.start as usize) < end.saturating_add(WORD) {
                return Err(Kind::ListOrder.into());
            }
            let len = (list.count as usize).saturating_mul(list.stride as usize);
            end = (list.start as usize).saturating_add(len);
        }
        if pool.len != 0 && (pool.start as usize) < end {
            return Err(Kind::ListOrder.into());
        }
        Ok(())
    }

    /// Finds the pool. A null pointer is an empty one.
    pub(super) fn pool(&self, index: usize) -> Result<Pool> {
        const BYTES: u32 = 2;
        let Some((at, pointer)) = self.pointer(index) else {
            return Ok(Pool::default());
        };
        let len = list_len(pointer, BYTES)?;
        let start = target(at, pointer).ok_or(Kind::OutOfBounds)?;
        let end = start.saturating_add(len as usize);
        if self.bytes.get(start..end).is_none() {
            return Err(Kind::OutOfBounds.into());
        }
        Ok(Pool {
            start: start as u32,
            len,
        })
    }
}

/// The size of a struct, in words.
struct StructSize {
    data: usize,
    pointers: usize,
}

impl StructSize {
    /// The size that a pointer or a tag states, from the lowest bit on: two bits of type, 30 of
    /// offset or count, 16 of data size, and 16 of pointer count.
    fn of(pointer: u64) -> Self {
        let (_, sizes) = halves(pointer);
        Self {
            data: usize::from(sizes as u16),
            pointers: usize::from((sizes >> 16) as u16),
        }
    }
}

/// Finds the target of a pointer at `at`: the distance is in words, from the pointer's end. The
/// segment table is not part of the segment.
fn target(at: usize, pointer: u64) -> Option<usize> {
    let distance = (pointer as i32 >> 2) as isize;
    at.checked_add(WORD)?
        .checked_add_signed(distance.checked_mul(WORD as isize)?)
        .filter(|&target| target >= TABLE)
}

/// Returns the number of elements of the list that a pointer leads to, or of words if the elements
/// are structs. `size` is the code of the elements' size.
fn list_len(pointer: u64, size: u32) -> Result<u32> {
    const LIST: u64 = 1;
    let (_, upper) = halves(pointer);
    if pointer & 3 != LIST || upper & 7 != size {
        return Err(Kind::PointerType.into());
    }
    Ok(upper >> 3)
}
