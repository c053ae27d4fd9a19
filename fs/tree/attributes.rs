// SPDX-License-Identifier: GPL-2.0

//! The attributes of nodes, and the entries of directories, without the VFS.

use crate::vfs::prelude::*;
use kernel::str::{CStr, CString};
use puzzlefs_schema::{FileType, Timestamp};

/// The type of a node, with the data that only this type has.
pub(crate) enum NodeType {
    Regular,
    Directory,
    Symlink(CString),
    CharDevice { major: u32, minor: u32 },
    BlockDevice { major: u32, minor: u32 },
    Fifo,
    Socket,
}

/// The attributes of a node, which the VFS keeps.
pub(crate) struct Attributes {
    pub(crate) node_type: NodeType,
    /// The lower twelve bits of the mode.
    pub(crate) permissions: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) links: u32,
    pub(crate) size: u64,
    pub(crate) mtime: Timestamp,
    pub(crate) has_xattrs: bool,
}

/// A node that a directory refers to, and its place in the metadata.
#[derive(Clone, Copy)]
pub(crate) struct Child<P> {
    /// The number of the inode.
    pub(crate) ino: u64,
    pub(crate) at: P,
}

impl<P> Child<P> {
    /// Converts the place.
    pub(super) fn map<Q>(self, convert: impl FnOnce(P) -> Q) -> Child<Q> {
        Child {
            ino: self.ino,
            at: convert(self.at),
        }
    }
}

/// An entry of a directory.
#[derive(Clone, Copy)]
pub(crate) struct Entry<'a> {
    pub(crate) name: &'a [u8],
    /// The number of the inode.
    pub(crate) ino: u64,
    pub(crate) file_type: FileType,
    /// The position behind the entry, at which a listing continues: not 0.
    pub(crate) cursor: u64,
}

/// Returns the target of a symbolic link, as the VFS needs it.
pub(super) fn link_target(target: &[u8]) -> Result<CString> {
    let mut bytes = KVec::with_capacity(target.len() + 1, GFP_KERNEL)?;
    bytes.extend_from_slice(target, GFP_KERNEL)?;
    bytes.push(0, GFP_KERNEL)?;
    let target = CStr::from_bytes_with_nul(&bytes).map_err(|_| EUCLEAN)?;
    Ok(CString::try_from(target)?)
}
