// SPDX-License-Identifier: MIT OR Apache-2.0

//! Attributes of inodes.

use crate::{timestamp::Timestamp, v4::InodeType};

/// The number of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Device {
    /// The major number, of 12 bits.
    pub major: u32,
    /// The minor number, of 20 bits.
    pub minor: u32,
}

/// The attributes of an inode, as in `struct stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The type.
    pub inode_type: InodeType,
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
    /// The number of a device; 0 for other types.
    pub device: Device,
}
