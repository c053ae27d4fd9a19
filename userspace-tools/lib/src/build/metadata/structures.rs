// SPDX-License-Identifier: MIT OR Apache-2.0

//! The structures of the metadata, as the schema's compiler lays them out.
//!
//! A structure ends, as the encoding allows, with the last word that is not the default.

use crate::image::encoding::{At, Message, Size, TooLarge};

pub(super) const ROOTFS: Size = size(2, 2);
pub(super) const INODE_VECTOR: Size = size(0, 1);
pub(super) const INODE: Size = size(6, 2);
pub(super) const DEVICE: Size = size(2, 0);
pub(super) const DIR_ENTRY: Size = size(1, 1);
pub(super) const FILE_CHUNK: Size = size(1, 1);
pub(super) const XATTR: Size = size(0, 2);
pub(super) const VERITY_DATA: Size = size(0, 2);

const fn size(data: usize, pointers: usize) -> Size {
    Size { data, pointers }
}

/// The kinds of inodes, by their numbers on the wire.
#[derive(Clone, Copy, Default)]
pub(super) enum Mode {
    #[default]
    Unknown = 0,
    Fifo = 1,
    CharDevice = 2,
    Directory = 3,
    BlockDevice = 4,
    File = 5,
    Symlink = 6,
    Socket = 7,
    Whiteout = 8,
}

/// The fixed part of an inode.
#[derive(Default)]
pub(super) struct InodeRecord {
    pub ino: u64,
    pub mode: Mode,
    pub uid: u32,
    pub gid: u32,
    pub permissions: u16,
    pub mtime_seconds: i64,
    pub mtime_nanoseconds: u32,
    pub size: u64,
    pub nlink: u32,
}

/// The places of an inode's pointers.
pub(super) struct Pointers {
    /// To the data of its type.
    pub mode: At,
    /// To an [`Additional`].
    pub additional: At,
}

impl InodeRecord {
    /// Fills in an inode of a list, and returns the places of its pointers.
    pub fn put(&self, message: &mut Message, at: At) -> Pointers {
        let pair = |low: u32, high: u32| u64::from(low) | (u64::from(high) << 32);
        let mode = self.mode as u32 | (u32::from(self.permissions) << 16);
        let words = [
            self.ino,
            pair(mode, self.uid),
            pair(self.gid, self.mtime_nanoseconds),
            self.mtime_seconds as u64,
            self.size,
            self.nlink.into(),
        ];
        for (word, value) in (at..).zip(words) {
            message.set(word, value);
        }
        Pointers {
            mode: at + INODE.data,
            additional: at + INODE.data + 1,
        }
    }
}

/// Adds the numbers of a device.
pub(super) fn put_device(
    message: &mut Message,
    at: At,
    major: u64,
    minor: u64,
) -> Result<(), TooLarge> {
    let device = message.structure(at, DEVICE)?;
    message.set(device, major);
    message.set(device + 1, minor);
    Ok(())
}

/// Adds a directory, and returns the place of its first entry.
pub(super) fn put_dir(
    message: &mut Message,
    at: At,
    entries: usize,
    look_below: bool,
) -> Result<At, TooLarge> {
    let data = usize::from(look_below);
    let dir = message.structure(at, size(data, 1))?;
    if look_below {
        message.set(dir, 1);
    }
    message.list(dir + data, entries, DIR_ENTRY)
}

/// Fills in a chunk of a list, except the digest. Returns the place of the pointer to the digest.
pub(super) fn put_chunk(
    message: &mut Message,
    at: At,
    length: u64,
    offset: u64,
    compressed: bool,
) -> Result<At, TooLarge> {
    message.set(at, length);
    let data = match (offset, compressed) {
        (0, false) => 0,
        (_, false) => 1,
        (_, true) => 2,
    };
    let blob = message.structure(at + FILE_CHUNK.data, size(data, 1))?;
    let values = [offset, compressed.into()];
    for (word, value) in (blob..).zip(&values[..data]) {
        message.set(word, *value);
    }
    Ok(blob + data)
}

/// The places of pointers that few inodes have.
pub(super) struct Additional {
    pub xattrs: Option<At>,
    pub target: Option<At>,
}

/// Adds room for extended attributes and the target of a symbolic link, if there are any.
pub(super) fn put_additional(
    message: &mut Message,
    at: At,
    xattrs: bool,
    target: bool,
) -> Result<Additional, TooLarge> {
    let pointers = if target { 2 } else { usize::from(xattrs) };
    if pointers == 0 {
        return Ok(Additional {
            xattrs: None,
            target: None,
        });
    }
    let additional = message.structure(at, size(0, pointers))?;
    Ok(Additional {
        xattrs: xattrs.then_some(additional),
        target: target.then_some(additional + 1),
    })
}
