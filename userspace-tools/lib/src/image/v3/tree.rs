// SPDX-License-Identifier: MIT OR Apache-2.0

//! The tree of an image of format 3, as one of any format.

use crate::error::{Error, Result};
use crate::image::v3::reader::{ImageReader, Parts};
use crate::sys::parallel::lock;
use puzzlefs_schema::image::{Entry, ImageMetadata, Link, Stat};
use puzzlefs_schema::{DirEntry, ErrorKind, FileType, Kind, Locator, Xattrs, ROOT_INO};
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

/// The largest number of directories that are kept prepared for lookups.
const DIRECTORIES_MAX: usize = 4096;
/// The largest number of files with an index of their chunks.
const TABLES_MAX: usize = 256;
/// The largest number of entries of such an index, and the smallest number of chunks for each.
const TABLE_MAX: usize = 4096;
const TABLE_STEP: usize = 16;

/// The tree of an image of format 3.
///
/// It keeps directories prepared for lookups, and indexes of files. Both are bounded by a number, and
/// directories by the size of the metadata.
pub struct V3Tree<'s> {
    reader: ImageReader<'s>,
    directories: Mutex<Directories>,
    /// Indexes of files' chunks.
    tables: Mutex<HashMap<Locator, Arc<[u64]>>>,
}

/// Directories that are prepared for lookups.
#[derive(Default)]
struct Directories {
    parts: HashMap<Locator, Arc<Parts>>,
    /// The number of entries in all of them.
    weight: usize,
}

/// An inode of an image of format 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct V3Inode {
    at: Locator,
    ino: u64,
}

impl V3Inode {
    /// The place of the inode in the metadata.
    pub fn place(&self) -> Locator {
        self.at
    }
}

impl<'s> V3Tree<'s> {
    /// The tree of an image.
    pub(crate) fn new(reader: ImageReader<'s>) -> Self {
        V3Tree {
            reader,
            directories: Mutex::default(),
            tables: Mutex::default(),
        }
    }

    /// The reader of the image.
    pub fn reader(&self) -> &ImageReader<'s> {
        &self.reader
    }

    /// Returns the parts that the layers have of a directory.
    fn parts(&self, at: Locator) -> Result<Arc<Parts>> {
        if let Some(parts) = lock(&self.directories).parts.get(&at) {
            return Ok(Arc::clone(parts));
        }
        let parts = Arc::new(self.reader.parts(at)?);
        let weight = parts.iter().map(|part| part.len()).sum();
        let mut directories = lock(&self.directories);
        // In a hostile image, directories may share entries: their sum can exceed the metadata.
        let new_weight = directories.weight.saturating_add(weight);
        if directories.parts.len() >= DIRECTORIES_MAX || new_weight > self.reader.entries_max() {
            *directories = Directories::default();
        }
        directories.weight = directories.weight.saturating_add(weight);
        directories.parts.insert(at, Arc::clone(&parts));
        Ok(parts)
    }

    /// Returns the index of a file's chunks, which finds one without a linear search.
    pub(crate) fn table(&self, file: &V3Inode) -> Result<Arc<[u64]>> {
        if let Some(table) = lock(&self.tables).get(&file.at) {
            return Ok(Arc::clone(table));
        }
        let extents = self.inode(file.at)?.extents();
        let extents = self.reader.checked(extents)?;
        let mut table = vec![0; (extents.len() / TABLE_STEP).min(TABLE_MAX)];
        self.reader.checked(extents.index(&mut table))?;
        let table: Arc<[u64]> = table.into();
        let mut tables = lock(&self.tables);
        if tables.len() >= TABLES_MAX {
            tables.clear();
        }
        tables.insert(file.at, Arc::clone(&table));
        Ok(table)
    }

    /// Returns the type of an inode, and reads nothing else of it.
    pub(crate) fn kind(&self, inode: &V3Inode) -> Result<Kind> {
        Ok(self.inode(inode.at)?.kind())
    }

    fn inode(&self, at: Locator) -> Result<puzzlefs_schema::Inode<'_>> {
        self.reader.checked(self.reader.metadata().inode_at(at))
    }

    /// Returns the sum of the entries of a directory's parts, which the kernel module reports as its
    /// size.
    fn entry_count(&self, inode: &puzzlefs_schema::Inode<'_>) -> Result<u64> {
        let count = || {
            let mut entries: u64 = 0;
            let mut layer = Some(inode.dir()?);
            while let Some(part) = layer {
                entries = entries.saturating_add(part.len() as u64);
                layer = part.below()?;
            }
            Ok(entries)
        };
        self.reader.checked(count())
    }

    fn xattrs(&self, inode: &V3Inode) -> Result<Xattrs<'_>> {
        let xattrs = self.inode(inode.at)?.xattrs();
        self.reader.checked(xattrs)
    }

    /// Returns the directory of a number if the entry of a name there leads to an inode. A layer above
    /// can hide the entry.
    fn directory_of(&self, directory: u64, name: &[u8], ino: u64) -> Result<Option<Link<Locator>>> {
        let Some(link) = self.find(directory)? else {
            return Ok(None);
        };
        let found = self.lookup(&self.open(&link)?, name)?;
        Ok(found.filter(|found| found.ino == ino).map(|_| link))
    }
}

/// Returns the link of an entry.
fn link(entry: &DirEntry<'_>) -> Link<Locator> {
    Link {
        ino: entry.ino,
        file_type: entry.file_type,
        place: entry.at,
    }
}

impl ImageMetadata for V3Tree<'_> {
    type Error = Error;
    type Place = Locator;
    type Inode = V3Inode;

    fn inode_count(&self) -> Result<u64> {
        self.reader.checked(self.reader.metadata().inode_count())
    }

    fn data_size(&self) -> Result<u64> {
        self.reader.checked(self.reader.metadata().data_size())
    }

    fn root(&self) -> Result<V3Inode> {
        let at = self.reader.checked(self.reader.metadata().find(ROOT_INO))?;
        Ok(V3Inode { at, ino: ROOT_INO })
    }

    fn find(&self, ino: u64) -> Result<Option<Link<Locator>>> {
        let found = match self.reader.metadata().find(ino) {
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Whiteout) => None,
            found => Some(self.reader.checked(found)?),
        };
        Ok(found.map(|place| Link {
            ino,
            file_type: FileType::Unknown,
            place,
        }))
    }

    fn open(&self, link: &Link<Locator>) -> Result<V3Inode> {
        Ok(V3Inode {
            at: link.place,
            ino: self.inode(link.place)?.ino(),
        })
    }

    fn ino(&self, inode: &V3Inode) -> u64 {
        inode.ino
    }

    fn stat(&self, inode: &V3Inode) -> Result<Stat> {
        let inode = self.inode(inode.at)?;
        let size = match inode.kind() {
            Kind::File => self.reader.file_size(&inode)?,
            Kind::Dir => self.entry_count(&inode)?,
            Kind::Symlink => self.reader.checked(inode.symlink_target())?.len() as u64,
            _ => 0,
        };
        Ok(Stat {
            kind: inode.kind(),
            permissions: inode.permissions(),
            uid: inode.uid(),
            gid: inode.gid(),
            mtime: self.reader.checked(inode.mtime())?,
            links: inode.nlink(),
            size,
        })
    }

    fn lookup(&self, directory: &V3Inode, name: &[u8]) -> Result<Option<Link<Locator>>> {
        let parts = self.parts(directory.at)?;
        let metadata = self.reader.metadata();
        let found = metadata.dir(&parts).and_then(|dir| dir.lookup(name));
        Ok(self.reader.checked(found)?.as_ref().map(link))
    }

    fn for_each_entry<B>(
        &self,
        directory: &V3Inode,
        cursor: u64,
        mut give: impl FnMut(Entry<'_, Locator>) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>> {
        let parts = self.parts(directory.at)?;
        let metadata = self.reader.metadata();
        let listed = metadata.dir(&parts).and_then(|dir| {
            dir.for_each(cursor, |entry| {
                give(Entry {
                    name: entry.name,
                    link: link(&entry),
                    cursor: entry.cursor,
                })
            })
        });
        self.reader.checked(listed)
    }

    /// Directories do not state their parents, so that all are searched.
    fn parent(&self, directory: &V3Inode) -> Result<Option<Link<Locator>>> {
        if directory.ino == ROOT_INO {
            return self.find(ROOT_INO);
        }
        let metadata = self.reader.metadata();
        // A well-formed image has one entry per layer that names the directory.
        let mut tries = self.reader.checked(metadata.layers())?;
        let found = metadata.for_each_entry_of(directory.ino, |entry| {
            tries = tries.saturating_sub(1);
            match self.directory_of(entry.dir, entry.name, directory.ino) {
                Ok(None) if tries > 0 => ControlFlow::Continue(()),
                found => ControlFlow::Break(found),
            }
        });
        match self.reader.checked(found)? {
            ControlFlow::Break(found) => found,
            ControlFlow::Continue(()) => Ok(None),
        }
    }

    fn symlink_target<'a>(&'a self, inode: &'a V3Inode) -> Result<&'a [u8]> {
        let target = self.inode(inode.at)?.symlink_target();
        self.reader.checked(target)
    }

    fn has_xattrs(&self, inode: &V3Inode) -> Result<bool> {
        Ok(!self.xattrs(inode)?.is_empty())
    }

    fn for_each_xattr_name<B>(
        &self,
        inode: &V3Inode,
        mut give: impl FnMut(&[u8]) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>> {
        self.for_each_xattr(inode, |name, _| give(name))
    }

    fn for_each_xattr<B>(
        &self,
        inode: &V3Inode,
        mut give: impl FnMut(&[u8], &[u8]) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>> {
        for xattr in self.xattrs(inode)? {
            let xattr = self.reader.checked(xattr)?;
            if let broken @ ControlFlow::Break(_) = give(xattr.name, xattr.value) {
                return Ok(broken);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn xattr<T>(
        &self,
        inode: &V3Inode,
        [head, tail]: [&[u8]; 2],
        read: impl FnOnce(&[u8]) -> T,
    ) -> Result<Option<T>> {
        let xattrs = self.xattrs(inode)?;
        let value = xattrs.get_parts([head, tail]);
        Ok(self.reader.checked(value)?.map(read))
    }

    fn other_image(&self) -> Error {
        self.reader.malformed_by("the inode is of another image")
    }
}
