// SPDX-License-Identifier: MIT OR Apache-2.0

//! Types and attributes of inodes.

use crate::{
    timestamp::Timestamp,
    v3::{FileType, Kind},
    v4::InodeType,
};

/// The attributes of an inode, as in `struct stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The type, and the number of a device.
    pub kind: Kind,
    /// The lower twelve bits of the mode. No others are set.
    pub permissions: u16,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The time of the last modification. The nanoseconds are less than a second.
    pub mtime: Timestamp,
    /// The number of links, which is not 0; `None` if the image does not state it.
    pub links: Option<u32>,
    /// The size of a regular file, or the length of a symbolic link's target, in bytes; the number of
    /// entries of a directory; otherwise 0.
    pub size: u64,
}

impl Stat {
    /// The type.
    pub fn file_type(&self) -> FileType {
        self.kind.file_type()
    }
}

impl From<InodeType> for FileType {
    fn from(inode_type: InodeType) -> Self {
        match inode_type {
            InodeType::Fifo => Self::Fifo,
            InodeType::CharDevice => Self::Chr,
            InodeType::Directory => Self::Dir,
            InodeType::BlockDevice => Self::Blk,
            InodeType::File => Self::File,
            InodeType::Symlink => Self::Symlink,
            InodeType::Socket => Self::Sock,
        }
    }
}
