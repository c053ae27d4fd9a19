// SPDX-License-Identifier: MIT OR Apache-2.0

//! Inodes.

use super::{
    attributes::{Attributes, StoredAttribute, StoredSet},
    chunks::{Chunks, StoredRef},
    directory::{Entries, InodeRef, StoredEntry},
    error::{ListName, MetadataError, MetadataErrorKind as Kind, Result},
    extents::{BoundsError, Extents, StoredExtent},
    inode_type::InodeType,
    limits::LIST_LEVELS,
    message::{Element, Elements, List, Message, Pool, Strings},
    names::is_target,
    parts::{Bounds, Parts, StoredPart},
    words::{halves, words},
};
use crate::{limits::MAX_FILE_SIZE, timestamp::Timestamp};

/// An inode, as it stands in a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct StoredInode {
    mode: u16,
    pub(super) long: bool,
    links: u32,
    uid: u32,
    gid: u32,
    mtime_seconds: i64,
    mtime_nanoseconds: u32,
    set: u32,
    pub(super) size: u64,
    first: u32,
    pub(super) count: u32,
    parent_distance: i32,
    parent_slot: u16,
}

impl Element for StoredInode {
    const LIST: ListName = ListName::Inodes;
    const WORDS: u32 = 7;

    #[inline]
    fn read(bytes: &[u8]) -> Option<Self> {
        let [mode, owner, mtime_seconds, mtime, size, range, parent] = words(bytes)?;
        let (flags, links) = halves(mode);
        let (uid, gid) = halves(owner);
        let (mtime_nanoseconds, set) = halves(mtime);
        let (first, count) = halves(range);
        let (parent_distance, parent_slot) = halves(parent);
        Some(Self {
            mode: flags as u16,
            long: flags & (1 << 16) != 0,
            links,
            uid,
            gid,
            mtime_seconds: mtime_seconds as i64,
            mtime_nanoseconds,
            set,
            size,
            first,
            count,
            parent_distance: parent_distance as i32,
            parent_slot: parent_slot as u16,
        })
    }
}

impl StoredInode {
    pub(super) fn inode_type(&self) -> Option<InodeType> {
        InodeType::from_code((self.mode >> 12) as u8)
    }
}

/// The places of the lists that the inodes of a block refer to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Places {
    entries: List,
    extents: List,
    chunks: List,
    parts: List,
    sets: List,
    attributes: List,
    pool: Pool,
}

impl Places {
    /// Finds the lists of a block, behind its inodes.
    pub(super) fn find(block: &Message<'_>, inodes: List) -> Result<Self> {
        let places = Self {
            entries: block.list::<StoredEntry>(1)?,
            extents: block.list::<StoredExtent>(2)?,
            chunks: block.list::<StoredRef>(3)?,
            parts: block.list::<StoredPart>(4)?,
            sets: block.list::<StoredSet>(5)?,
            attributes: block.list::<StoredAttribute>(6)?,
            pool: block.pool(7)?,
        };
        let lists = [
            inodes,
            places.entries,
            places.extents,
            places.chunks,
            places.parts,
            places.sets,
            places.attributes,
        ];
        block.check_order(&lists, places.pool)?;
        Ok(places)
    }

    /// The chunks that the block refers to.
    pub(super) fn chunks<'a>(&self, bytes: &'a [u8]) -> Chunks<'a> {
        Chunks::new(self.chunks.of(bytes))
    }

    /// The parts of its long lists.
    pub(super) fn parts<'a>(&self, bytes: &'a [u8]) -> Elements<'a, StoredPart> {
        self.parts.of(bytes)
    }
}

/// The lists that the inodes of a block refer to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lists<'a> {
    places: &'a Places,
    bytes: &'a [u8],
}

impl<'a> Lists<'a> {
    /// Makes the lists of their places and the bytes of the block.
    pub(super) fn new(places: &'a Places, bytes: &'a [u8]) -> Self {
        Self { places, bytes }
    }

    fn chunks(&self) -> Chunks<'a> {
        Chunks::new(self.places.chunks.of(self.bytes))
    }

    fn sets(&self) -> Elements<'a, StoredSet> {
        self.places.sets.of(self.bytes)
    }

    fn strings(&self) -> Strings<'a> {
        self.places.pool.of(self.bytes)
    }

    fn entries(&self, inode: &StoredInode) -> Option<Entries<'a>> {
        let entries = self.places.entries.of(self.bytes);
        let entries = entries.range(inode.first, inode.count)?;
        Some(Entries::new(entries, self.strings()))
    }

    fn extents(&self, inode: &StoredInode) -> Option<Extents<'a>> {
        let extents = self.places.extents.of(self.bytes);
        let extents = extents.range(inode.first, inode.count)?;
        Some(Extents::new(extents, self.chunks(), inode.size))
    }

    fn parts(&self, inode: &StoredInode, bounds: Bounds<'a>) -> Option<Parts<'a>> {
        let parts = self.places.parts.of(self.bytes);
        let parts = parts.range(inode.first, inode.count)?;
        let (chunks, strings) = (self.chunks(), self.strings());
        Some(Parts::new(parts, chunks, strings, bounds, LIST_LEVELS))
    }

    fn attributes(&self, set: &StoredSet) -> Option<Attributes<'a>> {
        let attributes = self.places.attributes.of(self.bytes);
        let attributes = attributes.range(set.first, set.count)?;
        Some(Attributes::new(attributes, self.chunks(), self.strings()))
    }
}

/// The content of an inode.
#[derive(Clone, Copy, Debug)]
pub enum Content<'a> {
    /// The entries of a directory.
    Directory(Entries<'a>),
    /// The entries of a directory, in list blocks.
    LongDirectory(Parts<'a>),
    /// The extents of a regular file.
    File(Extents<'a>),
    /// The extents of a regular file, in list blocks.
    LongFile(Parts<'a>),
    /// The target of a symbolic link.
    Symlink(&'a [u8]),
    /// A device.
    Device {
        /// The major number, which has 12 bits.
        major: u32,
        /// The minor number, which has 20 bits.
        minor: u32,
    },
    /// A named pipe or a socket.
    None,
}

/// The bounds of a directory: none.
const ALL_NAMES: Bounds<'_> = Bounds::Names {
    first: None,
    before: None,
};

/// An inode of a checked block.
#[derive(Clone, Copy, Debug)]
pub struct Inode<'a> {
    stored: StoredInode,
    inode_type: InodeType,
    lists: Lists<'a>,
}

impl<'a> Inode<'a> {
    /// Reads an inode of a checked block.
    #[inline]
    pub(super) fn read(stored: StoredInode, lists: Lists<'a>) -> Result<Self> {
        Ok(Self {
            stored,
            inode_type: stored.inode_type().ok_or(Kind::Misuse)?,
            lists,
        })
    }

    /// The type.
    #[inline]
    pub fn inode_type(&self) -> InodeType {
        self.inode_type
    }

    /// The type and the permissions, as in `st_mode`.
    #[inline]
    pub fn mode(&self) -> u16 {
        self.stored.mode
    }

    /// The number of links: not 0.
    #[inline]
    pub fn links(&self) -> u32 {
        self.stored.links
    }

    /// The owner.
    #[inline]
    pub fn uid(&self) -> u32 {
        self.stored.uid
    }

    /// The group.
    #[inline]
    pub fn gid(&self) -> u32 {
        self.stored.gid
    }

    /// The time of the last modification.
    #[inline]
    pub fn mtime(&self) -> Timestamp {
        Timestamp {
            seconds: self.stored.mtime_seconds,
            nanoseconds: self.stored.mtime_nanoseconds,
        }
    }

    /// The size of a regular file in bytes; 0 for other types.
    #[inline]
    pub fn size(&self) -> u64 {
        match self.inode_type {
            InodeType::File => self.stored.size,
            _ => 0,
        }
    }

    /// The parent of a directory, which is the directory itself for the root; `None` for other
    /// types.
    pub fn parent(&self) -> Option<InodeRef> {
        match self.inode_type {
            InodeType::Directory => Some(InodeRef {
                distance: self.stored.parent_distance,
                slot: self.stored.parent_slot,
            }),
            _ => None,
        }
    }

    /// The content.
    ///
    /// Cost: constant.
    ///
    /// # Errors
    ///
    /// [`MetadataErrorKind::Misuse`](super::MetadataErrorKind::Misuse).
    #[inline]
    pub fn content(&self) -> Result<Content<'a>> {
        let (stored, lists) = (&self.stored, &self.lists);
        let content = match self.inode_type {
            InodeType::Directory if stored.long => {
                lists.parts(stored, ALL_NAMES).map(Content::LongDirectory)
            }
            InodeType::Directory => lists.entries(stored).map(Content::Directory),
            InodeType::File if stored.long => lists
                .parts(stored, file_bounds(stored))
                .map(Content::LongFile),
            InodeType::File => lists.extents(stored).map(Content::File),
            InodeType::Symlink => lists
                .strings()
                .get(stored.first, stored.count)
                .map(Content::Symlink),
            InodeType::CharDevice | InodeType::BlockDevice => Some(Content::Device {
                major: (stored.size >> 20) as u32,
                minor: stored.size as u32 & 0xf_ffff,
            }),
            InodeType::Fifo | InodeType::Socket => Some(Content::None),
        };
        content.ok_or(Kind::Misuse.into())
    }

    /// The extended attributes.
    ///
    /// Cost: constant.
    ///
    /// # Errors
    ///
    /// [`MetadataErrorKind::Misuse`](super::MetadataErrorKind::Misuse).
    #[inline]
    pub fn attributes(&self) -> Result<Attributes<'a>> {
        let set = match self.stored.set.checked_sub(1) {
            Some(number) => self.lists.sets().known(number)?,
            None => StoredSet { first: 0, count: 0 },
        };
        self.lists.attributes(&set).ok_or(Kind::Misuse.into())
    }
}

/// The bounds of a file.
fn file_bounds(inode: &StoredInode) -> Bounds<'static> {
    Bounds::Offsets {
        start: 0,
        end: inode.size,
    }
}

/// Checks the inodes and the attribute sets of a block.
///
/// The ranges of a list follow each other, so that each element is checked once.
pub(super) struct Checker<'a> {
    lists: Lists<'a>,
    /// The elements that lie in ranges, from the first one on.
    entries: u32,
    extents: u32,
    parts: u32,
    attributes: u32,
}

impl<'a> Checker<'a> {
    /// Starts to check a block.
    pub(super) fn new(lists: Lists<'a>) -> Self {
        Self {
            lists,
            entries: 0,
            extents: 0,
            parts: 0,
            attributes: 0,
        }
    }

    /// Checks the chunks, the sets, and these inodes: all that a block has.
    pub(super) fn check(mut self, inodes: Elements<'a, StoredInode>) -> Result<()> {
        self.lists.chunks().check()?;
        for (index, set) in (0..).zip(self.lists.sets().iter()) {
            self.check_set(&set)
                .map_err(|e| e.at(ListName::Sets, index))?;
        }
        for (index, inode) in (0..).zip(inodes.iter()) {
            self.check_inode(&inode)
                .map_err(|e| e.at(ListName::Inodes, index))?;
        }
        let places = self.lists.places;
        check_used::<StoredEntry>(self.entries, places.entries)?;
        check_used::<StoredExtent>(self.extents, places.extents)?;
        check_used::<StoredPart>(self.parts, places.parts)?;
        check_used::<StoredAttribute>(self.attributes, places.attributes)
    }

    fn check_set(&mut self, set: &StoredSet) -> Result<()> {
        if set.count == 0 {
            return Err(Kind::EmptySet.into());
        }
        let attributes = self.lists.attributes(set).ok_or(Kind::Range)?;
        follow(&mut self.attributes, set.first, set.count)?;
        attributes.check()
    }

    fn check_inode(&mut self, inode: &StoredInode) -> Result<()> {
        let inode_type = inode.inode_type().ok_or(Kind::InodeType)?;
        if inode.links == 0 {
            return Err(Kind::Links.into());
        }
        if inode.mtime_nanoseconds >= 1_000_000_000 {
            return Err(Kind::Nanoseconds.into());
        }
        if inode.set > self.lists.sets().len() {
            return Err(Kind::SetNumber.into());
        }
        let is_directory = inode_type == InodeType::Directory;
        if !is_directory && (inode.parent_distance != 0 || inode.parent_slot != 0) {
            return Err(Kind::UnusedField.into());
        }
        check_size(inode, inode_type)?;
        match inode_type {
            InodeType::Directory if inode.long => self.check_long(inode, ALL_NAMES),
            InodeType::Directory => self.check_directory(inode),
            InodeType::File if inode.long => self.check_long(inode, file_bounds(inode)),
            InodeType::File => self.check_file(inode),
            _ if inode.long => Err(Kind::LongType.into()),
            InodeType::Symlink => self.check_symlink(inode),
            _ if inode.first != 0 || inode.count != 0 => Err(Kind::UnusedField.into()),
            _ => Ok(()),
        }
    }

    fn check_directory(&mut self, inode: &StoredInode) -> Result<()> {
        let entries = self.lists.entries(inode).ok_or(Kind::Range)?;
        follow(&mut self.entries, inode.first, inode.count)?;
        entries.check()
    }

    fn check_file(&mut self, inode: &StoredInode) -> Result<()> {
        let extents = self.lists.extents(inode).ok_or(Kind::Range)?;
        follow(&mut self.extents, inode.first, inode.count)?;
        if extents.is_empty() != (inode.size == 0) {
            return Err(Kind::ExtentCount.into());
        }
        if extents.is_empty() {
            return Ok(());
        }
        extents.check()?;
        extents.check_bounds(0).map_err(|e| match e {
            BoundsError::Start => Kind::FirstExtent.into(),
            BoundsError::End(index) => {
                MetadataError::from(Kind::LastExtent).at(ListName::Extents, extents.place(index))
            }
            BoundsError::Content(e) => e,
        })
    }

    fn check_long(&mut self, inode: &StoredInode, bounds: Bounds<'a>) -> Result<()> {
        let parts = self.lists.parts(inode, bounds).ok_or(Kind::Range)?;
        follow(&mut self.parts, inode.first, inode.count)?;
        parts.check()?;
        parts.check_bounds().map_err(|e| match e.kind() {
            Kind::ListFirstMismatch => Kind::FirstExtent.into(),
            Kind::ListEndMismatch => Kind::LastExtent.into(),
            _ => e,
        })
    }

    fn check_symlink(&self, inode: &StoredInode) -> Result<()> {
        let target = self.lists.strings().get(inode.first, inode.count);
        if !is_target(target.ok_or(Kind::Range)?) {
            return Err(Kind::SymlinkTarget.into());
        }
        Ok(())
    }
}

/// Checks the size of a file, or the number of a device.
fn check_size(inode: &StoredInode, inode_type: InodeType) -> Result<()> {
    let (limit, kind) = match inode_type {
        InodeType::File => (MAX_FILE_SIZE, Kind::FileSize),
        InodeType::CharDevice | InodeType::BlockDevice => (u32::MAX.into(), Kind::DeviceNumber),
        _ => (0, Kind::UnusedField),
    };
    if inode.size > limit {
        return Err(kind.into());
    }
    Ok(())
}

/// Checks that a range follows the ranges before it, which end at `end`.
fn follow(end: &mut u32, first: u32, count: u32) -> Result<()> {
    if first != *end {
        return Err(Kind::RangeOrder.into());
    }
    *end = first.saturating_add(count);
    Ok(())
}

/// Checks that all elements of a list lie in ranges, which end at `end`.
fn check_used<T: Element>(end: u32, list: List) -> Result<()> {
    if end == list.len() {
        Ok(())
    } else {
        Err(MetadataError::from(Kind::Unused).at(T::LIST, end))
    }
}
