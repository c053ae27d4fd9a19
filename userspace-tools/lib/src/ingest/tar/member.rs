// SPDX-License-Identifier: MIT OR Apache-2.0

//! The members of an archive.

use crate::model::acl;
use crate::model::limits::MEMBER_COST;
use crate::model::tree::{Piece, Time, Xattr};

/// A member of an archive.
#[derive(Debug)]
pub(crate) struct Member {
    /// The path as the archive has it.
    pub path: Vec<u8>,
    pub kind: MemberKind,
    pub permissions: u16,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Time,
    /// The extended attributes that belong to a tree, in byte order of their names.
    pub xattrs: Vec<Xattr>,
}

impl Member {
    /// Makes the mode and the access control list agree, as the kernel does when a list is set:
    /// some programs write another mode than `ls` shows, and some write lists that only repeat it.
    pub(super) fn settle_acl(&mut self) {
        if matches!(self.kind, MemberKind::Symlink(_)) {
            return;
        }
        let mut xattrs = self.xattrs.iter();
        let at = xattrs.position(|(name, _)| name == acl::ACCESS);
        let mode = at.and_then(|at| Some((at, acl::mode(&self.xattrs[at].1)?)));
        if let Some((at, (bits, more))) = mode {
            self.permissions = self.permissions & 0o7000 | bits;
            if !more {
                self.xattrs.remove(at);
            }
        }
    }

    /// Returns about the memory that it takes, in bytes.
    pub fn memory(&self) -> u64 {
        let xattrs = self.xattrs.iter();
        let xattrs = xattrs.map(|(name, value)| name.len() + value.len());
        let kind = match &self.kind {
            MemberKind::File(data) => size_of_val(&data.pieces[..]),
            MemberKind::HardLink(target) | MemberKind::Symlink(target) => target.len(),
            _ => 0,
        };
        MEMBER_COST + (self.path.len() + xattrs.sum::<usize>() + kind) as u64
    }
}

/// The type of a member, and the data of the type.
#[derive(Debug)]
pub(crate) enum MemberKind {
    File(FileData),
    /// Another name of the member of this path.
    HardLink(Vec<u8>),
    Symlink(Vec<u8>),
    Directory,
    Fifo,
    /// No archive has it; images do.
    Socket,
    CharDevice(u32, u32),
    BlockDevice(u32, u32),
}

/// A regular file, perhaps sparse.
#[derive(Debug, Default)]
pub(crate) struct FileData {
    pub size: u64,
    /// The ranges that the archive has, ascending; the rest is zeros.
    pub pieces: Vec<Piece>,
}

impl FileData {
    /// Moves the pieces to where the data of the member begins.
    pub fn move_to(&mut self, offset: u64) {
        for piece in &mut self.pieces {
            piece.offset += offset;
        }
    }
}
