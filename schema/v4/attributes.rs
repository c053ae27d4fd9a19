// SPDX-License-Identifier: MIT OR Apache-2.0

//! Extended attributes.

use super::{
    chunk::ChunkRef,
    chunks::Chunks,
    error::{ListName, MetadataError, MetadataErrorKind as Kind, Result},
    limits::MAX_INLINE_VALUE,
    message::{Element, Elements, Strings},
    names::is_attribute_name,
    words::{halves, words},
};
use crate::limits::MAX_XATTR_VALUE_LEN;
use core::cmp::Ordering;

/// A set of attributes, as it stands in a message: a range of the attributes.
#[derive(Clone, Copy, Debug)]
pub(super) struct StoredSet {
    pub(super) first: u32,
    pub(super) count: u32,
}

impl Element for StoredSet {
    const LIST: ListName = ListName::Sets;
    const WORDS: u32 = 1;

    #[inline]
    fn read(bytes: &[u8]) -> Option<Self> {
        let [range] = words(bytes)?;
        let (first, count) = halves(range);
        Some(Self { first, count })
    }
}

/// An attribute, as it stands in a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct StoredAttribute {
    name_offset: u32,
    name_len: u8,
    value_len: u32,
    value: u32,
}

impl Element for StoredAttribute {
    const LIST: ListName = ListName::Attributes;
    const WORDS: u32 = 2;

    #[inline]
    fn read(bytes: &[u8]) -> Option<Self> {
        let [name, value] = words(bytes)?;
        let (name_offset, name_len) = halves(name);
        let (value_len, value) = halves(value);
        Some(Self {
            name_offset,
            name_len: name_len as u8,
            value_len,
            value,
        })
    }
}

/// The value of an extended attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// The value, at most [`MAX_INLINE_VALUE`] bytes.
    Inline(&'a [u8]),
    /// A longer value: the content of a chunk.
    Chunk(ChunkRef),
}

/// An extended attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// The name, including the prefix of its namespace.
    pub name: &'a [u8],
    /// The value.
    pub value: Value<'a>,
}

/// The extended attributes of an inode, ascending by name.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    attributes: Elements<'a, StoredAttribute>,
    chunks: Chunks<'a>,
    strings: Strings<'a>,
}

impl<'a> Attributes<'a> {
    pub(super) fn new(
        attributes: Elements<'a, StoredAttribute>,
        chunks: Chunks<'a>,
        strings: Strings<'a>,
    ) -> Self {
        Self {
            attributes,
            chunks,
            strings,
        }
    }

    /// The number of attributes.
    pub fn len(&self) -> u32 {
        self.attributes.len()
    }

    /// Returns true if there are no attributes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The attribute at a position; `None` if there are not so many.
    ///
    /// Cost: constant.
    ///
    /// # Errors
    ///
    /// [`MetadataErrorKind::Misuse`](super::MetadataErrorKind::Misuse).
    pub fn get(&self, position: u32) -> Result<Option<Attribute<'a>>> {
        if position >= self.len() {
            return Ok(None);
        }
        let attribute = self.attributes.known(position)?;
        let value = if attribute.value_len > MAX_INLINE_VALUE {
            let chunk = self.chunks.get(attribute.value);
            Value::Chunk(chunk.map_err(|_| Kind::Misuse)?)
        } else {
            Value::Inline(self.strings.known(attribute.value, attribute.value_len)?)
        };
        Ok(Some(Attribute {
            name: self.name(&attribute)?,
            value,
        }))
    }

    /// Finds the value of the attribute of a name.
    ///
    /// Cost: at most 3 + log2 of the number of attributes.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn find(&self, name: &[u8]) -> Result<Option<Value<'a>>> {
        self.find_by(|found| found.cmp(name))
    }

    /// Finds the value of the attribute of a name that is in two parts, as
    /// [`overlay::unescape`](crate::overlay::unescape) returns it.
    ///
    /// Cost and errors: as [`find`](Self::find).
    pub fn find_parts(&self, [head, tail]: [&[u8]; 2]) -> Result<Option<Value<'a>>> {
        self.find_by(|found| {
            let (beginning, rest) = found.split_at(found.len().min(head.len()));
            beginning.cmp(head).then(rest.cmp(tail))
        })
    }

    /// Finds the value of the attribute whose name `compare` calls equal to the wanted one.
    fn find_by(&self, compare: impl Fn(&[u8]) -> Ordering) -> Result<Option<Value<'a>>> {
        let position = self
            .attributes
            .partition_point(|attribute| Ok(compare(self.name(&attribute)?).is_lt()))?;
        let found = self.get(position)?;
        let found = found.filter(|found| compare(found.name).is_eq());
        Ok(found.map(|found| found.value))
    }

    #[inline]
    fn name(&self, attribute: &StoredAttribute) -> Result<&'a [u8]> {
        self.strings
            .known(attribute.name_offset, attribute.name_len.into())
    }

    /// Checks all attributes.
    pub(super) fn check(&self) -> Result<()> {
        let mut before: &[u8] = b"";
        for (index, attribute) in (0..).zip(self.attributes.iter()) {
            before = self
                .check_attribute(&attribute, before)
                .map_err(|e: MetadataError| {
                    e.at(ListName::Attributes, self.attributes.place(index))
                })?;
        }
        Ok(())
    }

    /// Checks an attribute. Returns its name.
    fn check_attribute(&self, attribute: &StoredAttribute, before: &[u8]) -> Result<&'a [u8]> {
        let name = self
            .strings
            .get(attribute.name_offset, attribute.name_len.into())
            .ok_or(Kind::Range)?;
        if !is_attribute_name(name) {
            return Err(Kind::AttributeName.into());
        }
        if name <= before {
            return Err(Kind::AttributeOrder.into());
        }
        let len = attribute.value_len;
        if len as usize > MAX_XATTR_VALUE_LEN {
            return Err(Kind::ValueLength.into());
        }
        if len > MAX_INLINE_VALUE {
            if self.chunks.content_len(attribute.value)? != len {
                return Err(Kind::ValueChunk.into());
            }
        } else if self.strings.get(attribute.value, len).is_none() {
            return Err(Kind::Range.into());
        }
        Ok(name)
    }
}
