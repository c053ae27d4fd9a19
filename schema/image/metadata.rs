// SPDX-License-Identifier: MIT OR Apache-2.0

//! The trait above all versions.

use super::stat::Stat;
use crate::v3::FileType;
use core::ops::ControlFlow;

/// A reference to an inode: one of a directory entry, or of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link<P> {
    /// The number of the inode: not 0.
    pub ino: u64,
    /// The type that a directory entry states; [`FileType::Unknown`] if nothing states it.
    pub file_type: FileType,
    /// The place of the inode.
    pub place: P,
}

/// An entry of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a, P> {
    /// The name: 1 to [`MAX_NAME_LEN`](crate::MAX_NAME_LEN) bytes, none of them `/` or NUL, and neither
    /// `.` nor `..`.
    pub name: &'a [u8],
    /// The inode.
    pub link: Link<P>,
    /// The cursor that continues a listing after this entry. It is not 0.
    pub cursor: u64,
}

/// The metadata of an image.
///
/// Every operation can read from the store, and fail with its errors.
pub trait ImageMetadata {
    /// An error of the image or of the store.
    type Error;

    /// The place of an inode, by which it is opened faster than by its number.
    type Place: Copy;

    /// An open inode: everything of it that is kept between operations.
    type Inode;

    /// The number of inodes, or an upper bound of it.
    fn inode_count(&self) -> Result<u64, Self::Error>;

    /// The sum of the sizes of all regular files in bytes, each inode once, as the builder states it.
    fn data_size(&self) -> Result<u64, Self::Error>;

    /// Opens the root directory, whose number is [`ROOT_INO`](crate::ROOT_INO).
    fn root(&self) -> Result<Self::Inode, Self::Error>;

    /// Finds the inode of a number; `None` if there is none.
    fn find(&self, ino: u64) -> Result<Option<Link<Self::Place>>, Self::Error>;

    /// Opens an inode, and checks that it has the type that the link states.
    ///
    /// A caller that has the inode open already must compare the types itself.
    fn open(&self, link: &Link<Self::Place>) -> Result<Self::Inode, Self::Error>;

    /// The number of an inode.
    fn ino(&self, inode: &Self::Inode) -> u64;

    /// The attributes of an inode.
    fn stat(&self, inode: &Self::Inode) -> Result<Stat, Self::Error>;

    /// Finds the entry of a name; `None` if the directory has none.
    fn lookup(
        &self,
        directory: &Self::Inode,
        name: &[u8],
    ) -> Result<Option<Link<Self::Place>>, Self::Error>;

    /// Gives the entries of a directory from a cursor on, until `give` returns `Break`. The cursor 0 is
    /// the beginning; other cursors are those of entries.
    fn for_each_entry<B>(
        &self,
        directory: &Self::Inode,
        cursor: u64,
        give: impl FnMut(Entry<'_, Self::Place>) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, Self::Error>;

    /// Finds the parent of a directory, which is the directory itself for the root; `None` if no
    /// directory has it.
    fn parent(&self, directory: &Self::Inode) -> Result<Option<Link<Self::Place>>, Self::Error>;

    /// The target of a symbolic link: 1 to [`MAX_SYMLINK_LEN`](crate::MAX_SYMLINK_LEN) bytes, none of
    /// them NUL.
    fn symlink_target<'a>(&'a self, inode: &'a Self::Inode) -> Result<&'a [u8], Self::Error>;

    /// Returns true if an inode has extended attributes.
    fn has_xattrs(&self, inode: &Self::Inode) -> Result<bool, Self::Error>;

    /// Gives the names of the extended attributes, until `give` returns `Break`.
    fn for_each_xattr_name<B>(
        &self,
        inode: &Self::Inode,
        give: impl FnMut(&[u8]) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, Self::Error>;

    /// Gives the names and the values of the extended attributes, until `give` returns `Break`.
    fn for_each_xattr<B>(
        &self,
        inode: &Self::Inode,
        give: impl FnMut(&[u8], &[u8]) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, Self::Error>;

    /// Passes the value of an extended attribute to `read`; `None` if there is none of that name. The
    /// name is in two parts, as [`overlay::unescape`](crate::overlay::unescape) returns it.
    fn xattr<T>(
        &self,
        inode: &Self::Inode,
        name: [&[u8]; 2],
        read: impl FnOnce(&[u8]) -> T,
    ) -> Result<Option<T>, Self::Error>;

    /// The error for an inode, or a place, of another image: a programming error.
    fn other_image(&self) -> Self::Error;
}
