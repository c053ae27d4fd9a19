// SPDX-License-Identifier: MIT OR Apache-2.0

//! Entries of directories.

use super::{
    error::{ListName, MetadataError, MetadataErrorKind as Kind, Result},
    inode_type::InodeType,
    message::{Element, Elements, Strings},
    names::is_name,
    words::{halves, words},
};

/// An entry, as it stands in a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct StoredEntry {
    name_offset: u32,
    name_len: u8,
    inode_type: u8,
    slot: u16,
    distance: i32,
}

impl Element for StoredEntry {
    const LIST: ListName = ListName::Entries;
    const WORDS: u32 = 2;

    #[inline]
    fn read(bytes: &[u8]) -> Option<Self> {
        let [name, place] = words(bytes)?;
        let (name_offset, rest) = halves(name);
        let [name_len, inode_type, slot @ ..] = rest.to_le_bytes();
        Some(Self {
            name_offset,
            name_len,
            inode_type,
            slot: u16::from_le_bytes(slot),
            distance: halves(place).0 as i32,
        })
    }
}

/// A reference from a block to an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InodeRef {
    /// The number of the inode's block, less the number of the block with the reference.
    pub distance: i32,
    /// The inode's place in its block.
    pub slot: u16,
}

impl InodeRef {
    /// The number of the inode's block; `None` if there is none of such a number.
    #[inline]
    pub fn block(&self, from: u64) -> Option<u64> {
        from.checked_add_signed(self.distance.into())
    }
}

/// An entry of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The name.
    pub name: &'a [u8],
    /// The type that the inode must have; see [`Block::target`](super::Block::target).
    pub inode_type: InodeType,
    /// The inode. The distance is from the block of the directory, also if the entry lies in a list
    /// block.
    pub inode: InodeRef,
}

/// The entries of a directory, or of a part of one, ascending by name.
#[derive(Clone, Copy, Debug)]
pub struct Entries<'a> {
    entries: Elements<'a, StoredEntry>,
    strings: Strings<'a>,
}

impl<'a> Entries<'a> {
    pub(super) fn new(entries: Elements<'a, StoredEntry>, strings: Strings<'a>) -> Self {
        Self { entries, strings }
    }

    /// The number of entries.
    #[inline]
    pub fn len(&self) -> u32 {
        self.entries.len()
    }

    /// Returns true if there are no entries.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entry at a position; `None` if there are not so many.
    ///
    /// Cost: constant.
    ///
    /// # Errors
    ///
    /// [`MetadataErrorKind::Misuse`](super::MetadataErrorKind::Misuse).
    #[inline]
    pub fn get(&self, position: u32) -> Result<Option<Entry<'a>>> {
        if position >= self.len() {
            return Ok(None);
        }
        let entry = self.entries.known(position)?;
        Ok(Some(Entry {
            name: self.name(&entry)?,
            inode_type: InodeType::from_code(entry.inode_type).ok_or(Kind::Misuse)?,
            inode: InodeRef {
                distance: entry.distance,
                slot: entry.slot,
            },
        }))
    }

    /// Finds the entry of a name, and its position.
    ///
    /// Cost: at most 2 + log2 of the number of entries.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn find(&self, name: &[u8]) -> Result<Option<(u32, Entry<'a>)>> {
        let position = self
            .entries
            .partition_point(|entry| Ok(self.name(&entry)? < name))?;
        let found = self.get(position)?.filter(|entry| entry.name == name);
        Ok(found.map(|entry| (position, entry)))
    }

    /// Checks all entries.
    pub(super) fn check(&self) -> Result<()> {
        let mut before: &[u8] = b"";
        for (index, entry) in (0..).zip(self.entries.iter()) {
            before = self
                .check_entry(&entry, before)
                .map_err(|e: MetadataError| e.at(ListName::Entries, self.entries.place(index)))?;
        }
        Ok(())
    }

    /// Checks an entry. Returns its name.
    fn check_entry(&self, entry: &StoredEntry, before: &[u8]) -> Result<&'a [u8]> {
        let name = self
            .strings
            .get(entry.name_offset, entry.name_len.into())
            .ok_or(Kind::Range)?;
        if !is_name(name) {
            return Err(Kind::Name.into());
        }
        if name <= before {
            return Err(Kind::NameOrder.into());
        }
        if InodeType::from_code(entry.inode_type).is_none() {
            return Err(Kind::EntryType.into());
        }
        Ok(name)
    }

    #[inline]
    fn name(&self, entry: &StoredEntry) -> Result<&'a [u8]> {
        self.strings.known(entry.name_offset, entry.name_len.into())
    }
}
