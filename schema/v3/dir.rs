// SPDX-License-Identifier: MIT OR Apache-2.0

//! Directories.
//!
//! The topmost layer that has the inode of a directory has its first part. If a part says so, it is
//! merged with the part of the next layer that has the same number. The parts are [`DirLayer`]s.
//!
//! Names are found by binary search. The entries of a part are usually sorted, but an image may be
//! malformed. The caller checks the order once, with [`DirLayer::order`], and makes an index of
//! unsorted entries with [`DirLayer::sort_index`]. A [`Part`] keeps the result. [`Dir`], the merged
//! directory, is made of the parts for each operation.

use super::{
    file_type::FileType,
    message::{element, Found, Locator, Metadata, View},
    names::Names,
};
use crate::{
    error::{Error, ErrorKind, Result},
    metadata_capnp::{dir_entry, inode, inode::mode},
    search::{partition_point, sort},
};
use capnp::struct_list;
use core::ops::{ControlFlow, Deref};

/// The entries of a part of a directory, and the reader of their names.
#[derive(Clone, Copy)]
struct Entries<'r> {
    list: struct_list::Reader<'r, dir_entry::Owned>,
    names: Names<'r>,
}

impl<'r> Entries<'r> {
    /// Opens the entries of the directory whose inode is at a place.
    fn open(view: &View<'r>, at: Locator) -> Result<Self> {
        match view.inode(at)?.get_mode().which() {
            Ok(mode::Dir(dir)) => Ok(Self {
                list: view.bounded(dir?.get_entries()?)?,
                names: view.names(),
            }),
            _ => Err(ErrorKind::NotADirectory.into()),
        }
    }

    fn len(self) -> u32 {
        self.list.len()
    }

    /// Returns the entry at a place, and checks its name.
    fn get(self, place: u32) -> Result<RawDirEntry<'r>> {
        let entry = element(self.list, place)?;
        Ok(RawDirEntry {
            name: self.names.checked(entry)?,
            ino: entry.get_ino(),
        })
    }

    /// Returns the name at a place unchecked, because comparisons accept malformed names.
    fn raw_name(self, place: u32) -> Result<&'r [u8]> {
        self.names.raw(element(self.list, place)?)
    }

    /// Returns all names in turn, and checks them.
    fn names(self) -> impl Iterator<Item = Result<&'r [u8]>> {
        let Self { list, names } = self;
        list.iter().map(move |entry| names.checked(entry))
    }
}

/// An entry of one layer's part of a directory. Its inode may be a whiteout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawDirEntry<'a> {
    /// The name: 1 to [`MAX_NAME_LEN`](crate::MAX_NAME_LEN) bytes, none of them `/` or NUL, and
    /// neither `.` nor `..`.
    pub name: &'a [u8],
    /// The number of the inode.
    pub ino: u64,
}

/// An entry of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirEntry<'a> {
    /// The name: 1 to [`MAX_NAME_LEN`](crate::MAX_NAME_LEN) bytes, none of them `/` or NUL, and
    /// neither `.` nor `..`.
    pub name: &'a [u8],
    /// The number of the inode.
    pub ino: u64,
    /// The place of the inode in the metadata.
    pub at: Locator,
    /// The type of the inode.
    pub file_type: FileType,
    /// The cursor that continues a listing after this entry. It is not 0.
    pub cursor: u64,
}

/// An entry that refers to a given inode, and its directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryOf<'a> {
    /// The number of the directory's inode.
    pub dir: u64,
    /// The entry's name, checked as those of a directory are.
    pub name: &'a [u8],
}

/// The order of the entries of one layer's part of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// In the order of their names, by bytes.
    Sorted,
    /// In another order, in which a lookup needs an index.
    Unsorted,
}

/// One layer's part of a directory.
#[derive(Clone, Copy, Debug)]
pub struct DirLayer<'a> {
    metadata: Metadata<'a>,
    at: Locator,
    ino: u64,
    len: u32,
    /// The number of entries of the parts over this one.
    above: usize,
    look_below: bool,
}

impl<'a> DirLayer<'a> {
    /// Reads the part of a directory whose inode is at a place.
    pub(crate) fn read(
        metadata: Metadata<'a>,
        view: &View<'_>,
        at: Locator,
        inode: inode::Reader<'_>,
    ) -> Result<Self> {
        let ino = inode.get_ino();
        let read = || {
            let Ok(mode::Dir(dir)) = inode.get_mode().which() else {
                return Err(ErrorKind::NotADirectory.into());
            };
            let dir = dir?;
            Ok(Self {
                metadata,
                at,
                ino,
                len: view.bounded(dir.get_entries()?)?.len(),
                above: 0,
                look_below: dir.get_look_below(),
            })
        };
        read().map_err(|e: Error| e.of(ino))
    }

    /// Returns the place of the directory's inode in the metadata.
    pub fn locator(&self) -> Locator {
        self.at
    }

    /// Returns the number of the directory's inode.
    pub fn ino(&self) -> u64 {
        self.ino
    }

    /// Returns the number of entries.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Returns true if there are no entries.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the part that is merged under this one; `None` if there is none.
    ///
    /// It is the inode of the same number in the next layer that has one, if this part asks for it
    /// and if the inode is a directory. Each part is in a lower layer than the one before, so that
    /// there are at most as many parts as layers.
    ///
    /// Cost: that of [`Metadata::find`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::ListTooLong`] if all parts so far have more entries than the message can hold,
    /// because they are the same list; and those of the encoding.
    pub fn below(&self) -> Result<Option<Self>> {
        if !self.look_below {
            return Ok(None);
        }
        self.metadata
            .read(|view| {
                let layer = self.at.layer.saturating_add(1);
                let Some((at, inode)) = view.find_from(layer, self.ino)? else {
                    return Ok(None);
                };
                if FileType::of(inode) != FileType::Dir {
                    return Ok(None);
                }
                let part = Self {
                    above: self.above.saturating_add(self.len()),
                    ..Self::read(self.metadata, view, at, inode)?
                };
                if part.above.saturating_add(part.len()) > view.words() {
                    return Err(ErrorKind::ListTooLong.into());
                }
                Ok(Some(part))
            })
            .map_err(|e| e.of(self.ino))
    }

    /// Returns the entry at a place.
    ///
    /// Cost: the length of the name.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NoSuchPlace`], [`ErrorKind::Name`], and those of the encoding.
    pub fn entry(&self, index: usize) -> Result<RawDirEntry<'a>> {
        let index = u32::try_from(index).map_err(|_| ErrorKind::NoSuchPlace)?;
        self.entries(|entries| {
            let entry = entries.get(index)?;
            Ok(RawDirEntry {
                name: self.metadata.keep(entry.name)?,
                ..entry
            })
        })
    }

    /// Determines the order of the entries, and checks all names.
    ///
    /// Cost: the number of entries and the total length of their names.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Name`], [`ErrorKind::DuplicateName`] if two consecutive names are equal, and
    /// those of the encoding. [`sort_index`](Self::sort_index) finds other duplicates in unsorted
    /// entries.
    pub fn order(&self) -> Result<Order> {
        self.entries(|entries| {
            let mut order = Order::Sorted;
            // No name is empty, so that each is greater.
            let mut last: &[u8] = &[];
            let mut pace = self.metadata.pace();
            for name in entries.names() {
                pace.step()?;
                let name = name?;
                match last.cmp(name) {
                    core::cmp::Ordering::Less => (),
                    core::cmp::Ordering::Equal => return Err(ErrorKind::DuplicateName.into()),
                    core::cmp::Ordering::Greater => order = Order::Unsorted,
                }
                last = name;
            }
            Ok(order)
        })
    }

    /// Makes an index: the places of the entries, in the order of their names.
    ///
    /// Cost: for *n* entries, *n* log *n* comparisons of names.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::IndexLength`] if the index is not as long as there are entries,
    /// [`ErrorKind::Name`], [`ErrorKind::DuplicateName`], and those of the encoding.
    pub fn sort_index(&self, index: &mut [u32]) -> Result<()> {
        if index.len() != self.len() {
            return Err(Error::new(ErrorKind::IndexLength).of(self.ino));
        }
        self.entries(|entries| {
            let mut pace = self.metadata.pace();
            for name in entries.names() {
                pace.step()?;
                name?;
            }
            for (place, slot) in (0..).zip(index.iter_mut()) {
                *slot = place;
            }
            // All names have been read without an error before.
            let name = |place| entries.raw_name(place).unwrap_or_default();
            sort(index, |a, b| {
                pace.step()?;
                Ok(name(a) < name(b))
            })?;
            for pair in index.windows(2) {
                if let &[a, b] = pair {
                    pace.step()?;
                    if name(a) == name(b) {
                        return Err(ErrorKind::DuplicateName.into());
                    }
                }
            }
            Ok(())
        })
    }

    /// Opens the list of entries for one operation.
    fn entries<T>(&self, operation: impl FnOnce(Entries<'_>) -> Result<T>) -> Result<T> {
        self.metadata
            .read(|view| operation(Entries::open(view, self.at)?))
            .map_err(|e| e.of(self.ino))
    }
}

/// The kept state of one layer's part of a directory, from which the directory is read.
///
/// `I` holds an index: a vector or a slice. With a wrong index, or a part of another image,
/// operations return errors or do not find names.
#[derive(Clone, Copy, Debug)]
pub struct Part<I> {
    at: Locator,
    ino: u64,
    len: u32,
    index: Option<I>,
}

impl<I: Deref<Target = [u32]>> Part<I> {
    /// Makes a part.
    ///
    /// The index is that of [`DirLayer::sort_index`], or `None` if [`DirLayer::order`] returned
    /// [`Order::Sorted`].
    pub fn new(layer: &DirLayer<'_>, index: Option<I>) -> Self {
        Self {
            at: layer.at,
            ino: layer.ino,
            len: layer.len,
            index,
        }
    }

    /// Returns the place of the directory's inode in the metadata.
    pub fn locator(&self) -> Locator {
        self.at
    }

    /// Returns the number of entries.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Returns true if there are no entries.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Finds the entry of a name, and its place.
    fn search<'r>(
        &self,
        entries: Entries<'r>,
        wanted: &[u8],
    ) -> Result<Option<(u32, RawDirEntry<'r>)>> {
        let place = |nth: u32| match &self.index {
            None => Ok(nth),
            Some(index) => match index.get(nth as usize) {
                Some(&place) => Ok(place),
                None => Err(Error::new(ErrorKind::IndexLength)),
            },
        };
        let nth = partition_point(entries.len(), |nth| {
            Ok(entries.raw_name(place(nth)?)? < wanted)
        })?;
        if nth >= entries.len() {
            return Ok(None);
        }
        let place = place(nth)?;
        let entry = entries.get(place)?;
        Ok((entry.name == wanted).then_some((place, entry)))
    }
}

/// A directory, merged from the parts of its layers, the topmost first.
///
/// A name in an upper part hides it in all lower ones. An entry whose inode is a whiteout hides its
/// name and is not listed.
#[derive(Debug)]
pub struct Dir<'a, 'p, I> {
    metadata: Metadata<'a>,
    parts: &'p [Part<I>],
}

impl<I> Clone for Dir<'_, '_, I> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<I> Copy for Dir<'_, '_, I> {}

impl<'a, 'p, I: Deref<Target = [u32]>> Dir<'a, 'p, I> {
    pub(crate) fn new(metadata: Metadata<'a>, parts: &'p [Part<I>]) -> Result<Self> {
        let dir = Self { metadata, parts };
        // The parts may be the same list.
        if dir.len() > metadata.words() as u64 {
            return Err(dir.named(ErrorKind::ListTooLong.into()));
        }
        Ok(dir)
    }

    /// Returns the number of entries in all parts, hidden ones included. It is the cursor at the
    /// end.
    ///
    /// Cost: the number of parts.
    pub fn len(&self) -> u64 {
        self.parts
            .iter()
            .fold(0, |sum, part| sum.saturating_add(part.len.into()))
    }

    /// Returns true if there are no entries in any part.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Finds the entry of a name; `None` if there is none.
    ///
    /// Cost: for each part a binary search, and that of [`Metadata::find`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Name`] and [`ErrorKind::DanglingEntry`] for entries on the way,
    /// [`ErrorKind::IndexLength`], and those of the encoding.
    pub fn lookup(&self, name: &[u8]) -> Result<Option<DirEntry<'a>>> {
        self.read(|view| {
            let mut base: u64 = 0;
            for part in self.parts {
                let entries = Entries::open(view, part.at)?;
                if let Some((place, entry)) = part.search(entries, name)? {
                    return self.entry(view, entry, base.saturating_add(place.into()));
                }
                base = base.saturating_add(part.len.into());
            }
            Ok(None)
        })
    }

    /// Returns the first entry at or after a cursor; `None` at the end.
    ///
    /// The cursor is 0 for the first entry, and then that of the last entry. It stays valid when
    /// the image is opened again. Any other number is some place, or the end.
    ///
    /// Cost: see [`for_each`](Self::for_each).
    ///
    /// # Errors
    ///
    /// As in [`lookup`](Self::lookup).
    pub fn next(&self, cursor: u64) -> Result<Option<DirEntry<'a>>> {
        Ok(match self.for_each(cursor, ControlFlow::Break)? {
            ControlFlow::Break(entry) => Some(entry),
            ControlFlow::Continue(()) => None,
        })
    }

    /// Passes all entries from a cursor on to a function, until it returns `Break`.
    ///
    /// Each name is passed once. The names of one part keep their order.
    ///
    /// Cost: for each entry from the cursor on, hidden ones included, that of [`Metadata::find`];
    /// and for each part above the entry's a binary search.
    ///
    /// # Errors
    ///
    /// As in [`lookup`](Self::lookup).
    pub fn for_each<B>(
        &self,
        cursor: u64,
        mut give: impl FnMut(DirEntry<'a>) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>> {
        // A listing calls once more at the end of the directory.
        if cursor >= self.len() {
            return Ok(ControlFlow::Continue(()));
        }
        self.read(|view| {
            let mut base: u64 = 0;
            let mut pace = self.metadata.pace();
            for (nth, part) in self.parts.iter().enumerate() {
                let above = self.parts.get(..nth).unwrap_or_default();
                let first = cursor.saturating_sub(base);
                if first < part.len.into() {
                    let entries = Entries::open(view, part.at)?;
                    let first = u32::try_from(first).unwrap_or(part.len);
                    for place in first..part.len {
                        pace.step()?;
                        let entry = entries.get(place)?;
                        if hidden(view, above, entry.name)? {
                            continue;
                        }
                        let place = base.saturating_add(place.into());
                        let Some(entry) = self.entry(view, entry, place)? else {
                            continue;
                        };
                        if let ControlFlow::Break(with) = give(entry) {
                            return Ok(ControlFlow::Break(with));
                        }
                    }
                }
                base = base.saturating_add(part.len.into());
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    /// Returns the entry at a place, counted through all parts; `None` if its inode is a whiteout.
    fn entry(
        &self,
        view: &View<'_>,
        entry: RawDirEntry<'_>,
        place: u64,
    ) -> Result<Option<DirEntry<'a>>> {
        match view.find(entry.ino)? {
            Found::Whiteout => Ok(None),
            Found::Nothing => Err(Error::new(ErrorKind::DanglingEntry).of(entry.ino)),
            Found::At(at, file_type) => Ok(Some(DirEntry {
                name: self.metadata.keep(entry.name)?,
                ino: entry.ino,
                at,
                file_type,
                cursor: place.saturating_add(1),
            })),
        }
    }

    fn read<T>(&self, operation: impl FnOnce(&View<'_>) -> Result<T>) -> Result<T> {
        self.metadata.read(operation).map_err(|e| self.named(e))
    }

    /// Sets the inode of an error to this directory, unless it has another one.
    fn named(&self, e: Error) -> Error {
        match self.parts.first() {
            Some(part) => e.of(part.ino),
            None => e,
        }
    }
}

/// Passes all entries of an inode to a function: see [`Metadata::for_each_entry_of`].
pub(crate) fn for_each_entry_of<'a, B>(
    metadata: &Metadata<'a>,
    ino: u64,
    mut give: impl FnMut(EntryOf<'a>) -> ControlFlow<B>,
) -> Result<ControlFlow<B>> {
    metadata.read(|view| {
        // Directories that share one list would cost more than the length of the message.
        let mut left = view.words();
        let mut pace = metadata.pace();
        for layer in 0..view.layers()? {
            for inode in view.inodes(layer)?.iter() {
                pace.step()?;
                let Ok(mode::Dir(dir)) = inode.get_mode().which() else {
                    continue;
                };
                let entries = view.bounded(dir?.get_entries()?)?;
                left = left
                    .checked_sub(entries.len() as usize)
                    .ok_or(ErrorKind::ListTooLong)?;
                for entry in entries.iter() {
                    pace.step()?;
                    if entry.get_ino() != ino {
                        continue;
                    }
                    let found = EntryOf {
                        dir: inode.get_ino(),
                        name: metadata.keep(view.names().checked(entry)?)?,
                    };
                    if let ControlFlow::Break(with) = give(found) {
                        return Ok(ControlFlow::Break(with));
                    }
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    })
}

/// Returns true if any of some parts has a name.
fn hidden<I: Deref<Target = [u32]>>(
    view: &View<'_>,
    parts: &[Part<I>],
    name: &[u8],
) -> Result<bool> {
    for part in parts {
        let entries = Entries::open(view, part.at)?;
        if part.search(entries, name)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}
