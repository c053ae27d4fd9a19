// SPDX-License-Identifier: MIT OR Apache-2.0

//! The tree of an image of any format.

use crate::error::{Error, ImageError, PathFault, Result};
use crate::image::file_data::{FileData, Piece};
use crate::image::store_chunks::{MetadataBlock, StoreChunks};
use crate::image::v3::reader::ImageReader;
use crate::image::v3::tree::{V3Inode, V3Tree};
use crate::image::v3::visit::DescentLimit;
use crate::model::path_walk::{LastLink, PathWalk, Step, Stop};
use crate::store::oci_layout::{AnyRoot, Store};
use puzzlefs_schema::image::{ImageMetadata, Link, Stat, Versions};
use puzzlefs_schema::v4::{LoadedInode, Node, Tree};
use puzzlefs_schema::{FileType, Kind, Locator};
use std::borrow::Cow;
use std::ffi::OsStr;
use std::ops::{ControlFlow, Range};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::vec;

/// The most directories on the way from the root of a visit down: more than a path has names.
const DEPTH_MAX: usize = 1 << 14;

/// The metadata of an image of any format.
pub type Metadata<'s> = Versions<V3Tree<'s>, Tree<StoreChunks<'s>>>;

/// The place of an inode.
pub type Place = Versions<Locator, Node>;

/// A reference to an inode.
pub type InodeLink = Link<Place>;

/// An open inode. One of format 4 keeps its metadata block in memory.
pub type TreeInode = Versions<V3Inode, LoadedInode<MetadataBlock>>;

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedLink {
    /// The name.
    pub name: Arc<[u8]>,
    /// The inode.
    pub link: InodeLink,
}

/// An extended attribute: its name, and its value.
pub type Xattr = (Vec<u8>, Vec<u8>);

/// The tree of an image of a store, with the data of its files.
pub struct ImageTree<'s> {
    metadata: Metadata<'s>,
}

impl<'s> ImageTree<'s> {
    /// Opens an image of a store. Its metadata is compared with its digest: at once in format 3, block
    /// by block in format 4.
    pub fn new(store: &'s Store, root: &AnyRoot) -> Result<Self> {
        let metadata = match root {
            AnyRoot::V3(root) => Versions::V3(V3Tree::new(ImageReader::new(store, root)?)),
            AnyRoot::V4(root) => Versions::V4(StoreChunks::new(store)?.open_tree(&root.root)?),
        };
        Ok(ImageTree { metadata })
    }

    /// The metadata, with all operations on inodes.
    pub fn metadata(&self) -> &Metadata<'s> {
        &self.metadata
    }

    /// The reader of an image of format 3.
    pub fn v3(&self) -> Option<&ImageReader<'s>> {
        match &self.metadata {
            Versions::V3(tree) => Some(tree.reader()),
            Versions::V4(_) => None,
        }
    }

    /// The tree of blocks of an image of format 4.
    pub fn v4(&self) -> Option<&Tree<StoreChunks<'s>>> {
        match &self.metadata {
            Versions::V3(_) => None,
            Versions::V4(tree) => Some(tree),
        }
    }

    /// Opens the root directory.
    pub fn root(&self) -> Result<TreeInode> {
        self.metadata.root()
    }

    /// Opens an inode.
    pub fn open(&self, link: &InodeLink) -> Result<TreeInode> {
        self.metadata.open(link)
    }

    /// Opens the inode of a number.
    pub fn open_number(&self, ino: u64) -> Result<TreeInode> {
        match self.metadata.find(ino)? {
            Some(link) => self.open(&link),
            None => Err(self.malformed_by(format!("there is no inode {ino}"))),
        }
    }

    /// Returns the reference to an open inode. It takes less memory.
    pub fn link(&self, inode: &TreeInode) -> InodeLink {
        Link {
            ino: self.ino(inode),
            file_type: FileType::Unknown,
            place: match inode {
                Versions::V3(inode) => Versions::V3(inode.place()),
                Versions::V4(inode) => Versions::V4(inode.node()),
            },
        }
    }

    /// Returns the attributes of an inode.
    pub fn stat(&self, inode: &TreeInode) -> Result<Stat> {
        self.metadata.stat(inode)
    }

    /// Returns the type of an inode, and the number of a device.
    pub fn kind(&self, inode: &TreeInode) -> Result<Kind> {
        match (&self.metadata, inode) {
            (Versions::V3(tree), Versions::V3(inode)) => tree.kind(inode),
            (metadata, inode) => Ok(metadata.stat(inode)?.kind),
        }
    }

    /// Returns the number of an inode.
    pub fn ino(&self, inode: &TreeInode) -> u64 {
        self.metadata.ino(inode)
    }

    /// Returns the target of a symbolic link.
    pub fn symlink_target<'a>(&'a self, inode: &'a TreeInode) -> Result<&'a [u8]> {
        self.metadata.symlink_target(inode)
    }

    /// Returns the extended attributes of an inode: in the order of the image, which ascends in format 4.
    pub fn xattrs(&self, inode: &TreeInode) -> Result<Vec<Xattr>> {
        let mut xattrs = Vec::new();
        let _ = self.metadata.for_each_xattr(inode, |name, value| {
            xattrs.push((name.to_vec(), value.to_vec()));
            ControlFlow::<()>::Continue(())
        })?;
        Ok(xattrs)
    }

    /// Returns the entries of a directory, in byte order of their names.
    pub fn entries(&self, directory: &TreeInode) -> Result<Vec<NamedLink>> {
        let mut entries = Vec::new();
        let _ = self.metadata.for_each_entry(directory, 0, |entry| {
            entries.push(NamedLink {
                name: entry.name.into(),
                link: entry.link,
            });
            ControlFlow::<()>::Continue(())
        })?;
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// Returns the entry of a name in a directory; `None` if there is none.
    pub fn lookup(&self, directory: &TreeInode, name: &[u8]) -> Result<Option<InodeLink>> {
        self.metadata.lookup(directory, name)
    }

    /// Opens the inode of a path from the image's root, with or without a `/` in front.
    ///
    /// The path is resolved in the metadata alone: a symbolic link leads to another place of the image,
    /// never out of it, and `..` of the root is the root.
    pub fn resolve(&self, path: &[u8], last: LastLink) -> Result<TreeInode> {
        let fail = |fault| {
            let path = PathBuf::from(OsStr::from_bytes(path));
            Error::from(ImageError::Path { path, fault })
        };
        let Some(root) = self.metadata.find(puzzlefs_schema::ROOT_INO)? else {
            return self.root();
        };
        let mut walk = PathWalk::new(root, path.split(|&byte| byte == b'/'));
        let stop = walk.advance(|directory, name, is_last| {
            let Some(link) = self.lookup(&self.open(&directory)?, name)? else {
                return Ok(Step::Missing);
            };
            let keep = is_last && last == LastLink::Keep;
            match link.file_type {
                FileType::Dir => Ok(Step::Directory(link)),
                FileType::Symlink if !keep => {
                    let target = self.symlink_target(&self.open(&link)?)?.to_vec();
                    Ok(Step::Link(Cow::Owned(target)))
                }
                _ => Ok::<_, Error>(Step::Other(link)),
            }
        })?;
        match stop {
            Stop::Directory(link) => self.open(&link),
            Stop::Other(link, _) if walk.is_done() => self.open(&link),
            Stop::Other(..) => Err(fail(PathFault::NotADirectory)),
            Stop::Missing(_) => Err(fail(PathFault::NotFound)),
            Stop::TooManyLinks => Err(fail(PathFault::TooManyLinks)),
        }
    }

    /// Passes the contents of a file, in order and in pieces, to a function.
    pub fn read_file(
        &self,
        file: &TreeInode,
        data: &mut FileData,
        give: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        self.read_range(file, 0..u64::MAX, data, give)
    }

    /// Passes the contents of a range of a file, in order and in pieces, to a function.
    pub fn read_range(
        &self,
        file: &TreeInode,
        range: Range<u64>,
        data: &mut FileData,
        mut give: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        self.read_pieces(file, range, data, |piece| match piece {
            Piece::Data(bytes) => give(bytes),
            Piece::Hole(length) => give_zeros(length, &mut give),
        })
    }

    /// Passes the contents of a range of a file, in order and in pieces, to a function. Zeros that are not
    /// stored are holes.
    pub fn read_pieces(
        &self,
        file: &TreeInode,
        range: Range<u64>,
        data: &mut FileData,
        give: impl FnMut(Piece<'_>) -> Result<()>,
    ) -> Result<()> {
        match (&self.metadata, file) {
            (Versions::V3(tree), Versions::V3(file)) => data.read_v3(tree, file, range, give),
            (Versions::V4(tree), Versions::V4(file)) => data.read_v4(tree, file, range, give),
            (metadata, _) => Err(metadata.other_image()),
        }
    }

    /// Fails if fs-verity must check the blobs of an image and does not check its metadata blob. A root of
    /// format 4 was compared with its digest.
    pub fn check_root(&self, data: &FileData, root: &AnyRoot) -> Result<()> {
        match (&self.metadata, root) {
            (Versions::V3(tree), AnyRoot::V3(root)) => data.blobs().check_root(tree.reader(), root),
            _ => Ok(()),
        }
    }

    /// Passes each entry beneath a directory to a function, with its path from there. A directory comes
    /// before its entries, and names come in byte order.
    ///
    /// Memory is taken by the way down and the numbers of the directories. A directory in two places is
    /// an error, because it could contain itself.
    pub fn visit(
        &self,
        directory: &TreeInode,
        mut give: impl FnMut(&[u8], &NamedLink) -> Result<()>,
    ) -> Result<()> {
        let mut descent = Descent::new(self);
        let mut path: Vec<u8> = Vec::new();
        // For each directory on the way down: its remaining entries, and the length of its path.
        let mut way: Vec<(vec::IntoIter<NamedLink>, usize)> = Vec::new();
        way.push((descent.enter(directory)?.into_iter(), 0));
        while let Some((entries, length)) = way.last_mut() {
            path.truncate(*length);
            let Some(entry) = entries.next() else {
                way.pop();
                continue;
            };
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(&entry.name);
            give(&path, &entry)?;
            if entry.link.file_type == FileType::Dir {
                descent.check_depth(way.len())?;
                let entries = descent.enter(&self.open(&entry.link)?)?;
                way.push((entries.into_iter(), path.len()));
            }
        }
        Ok(())
    }

    /// Returns an error about the metadata as a whole.
    pub fn malformed_by(&self, what: impl Into<String>) -> Error {
        match &self.metadata {
            Versions::V3(tree) => tree.reader().malformed_by(what),
            Versions::V4(tree) => tree.source().inconsistent(what.into()),
        }
    }
}

/// Passes zeros to a function, in pieces.
fn give_zeros(mut length: u64, give: &mut impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    while length > 0 {
        let piece = length.min(ZEROS.len() as u64);
        give(&ZEROS[..piece as usize])?;
        length -= piece;
    }
    Ok(())
}

/// A bounded way through the directories of an untrusted image: it enters each directory once. In format
/// 3 it sees no more entries than the metadata has space for. In format 4, where copies of a directory
/// share their blocks, it does not go too far down.
pub(crate) struct Descent<'t, 's> {
    tree: &'t ImageTree<'s>,
    limit: DescentLimit,
}

impl<'t, 's> Descent<'t, 's> {
    pub fn new(tree: &'t ImageTree<'s>) -> Self {
        let entries = tree.v3().map_or(usize::MAX, ImageReader::entries_max);
        Descent {
            tree,
            limit: DescentLimit::new(entries),
        }
    }

    /// Enters a directory, and returns its entries.
    pub fn enter(&mut self, directory: &TreeInode) -> Result<Vec<NamedLink>> {
        let ino = self.tree.ino(directory);
        let malformed = |rule: String| self.tree.malformed_by(rule);
        self.limit.enter(ino).map_err(malformed)?;
        let entries = self.tree.entries(directory)?;
        self.limit.count(entries.len()).map_err(malformed)?;
        Ok(entries)
    }

    /// Fails if a directory is too far down. In format 3, the number of entries is a limit.
    pub fn check_depth(&self, depth: usize) -> Result<()> {
        if depth >= DEPTH_MAX && self.tree.v4().is_some() {
            let what = format!("its directories have more than {DEPTH_MAX} levels");
            return Err(self.tree.malformed_by(what));
        }
        Ok(())
    }
}
