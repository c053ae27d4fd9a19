// SPDX-License-Identifier: MIT OR Apache-2.0

//! Opening files beneath a directory, at any depth, and never outside of it.

use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::path::PathBuf;

/// The longest path handed to the kernel at once; it takes 4,095 bytes.
const PATH_PIECE: usize = 4000;

/// Opens what `names` lead to from `root`, without following any symbolic link, in as many steps
/// as their length takes. No names open the root anew.
pub(crate) fn open_beneath(
    root: &OwnedFd,
    names: &[impl AsRef<[u8]>],
    flags: OFlags,
) -> Result<OwnedFd, Errno> {
    if names.is_empty() {
        return open_step(root.as_fd(), b".", flags);
    }
    let mut base: Option<OwnedFd> = None;
    let mut piece = Vec::new();
    for (at, name) in names.iter().enumerate() {
        if !piece.is_empty() {
            piece.push(b'/');
        }
        piece.extend_from_slice(name.as_ref());
        let last = at + 1 == names.len();
        if last || piece.len() + 1 + names[at + 1].as_ref().len() > PATH_PIECE {
            let from = base.as_ref().map_or(root.as_fd(), |base| base.as_fd());
            let step = if last {
                flags
            } else {
                OFlags::PATH | OFlags::DIRECTORY
            };
            base = Some(open_step(from, &piece, step)?);
            piece.clear();
        }
    }
    base.ok_or(Errno::NOENT)
}

/// Returns a path that leads to an open file, for calls that take no descriptor.
pub(crate) fn path_of(file: impl AsFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_fd().as_raw_fd()))
}

/// Opens a path beneath `from` without following any symbolic link.
fn open_step(from: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    loop {
        match rustix::fs::openat2(from, path, flags, Mode::empty(), resolve) {
            // A rename elsewhere in the tree raced with the look-up.
            Err(Errno::AGAIN | Errno::INTR) => continue,
            result => return result,
        }
    }
}
