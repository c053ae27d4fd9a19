// SPDX-License-Identifier: MIT OR Apache-2.0

//! The source directory: opening what is in it, whatever happens around it.
//!
//! Files are opened by their path beneath an open root directory and no symbolic link is ever
//! followed, so that a tree that others write to cannot lead the builder elsewhere.

use crate::error::{Error, Result};
use crate::tree::{FileState, NodeId, Time, Tree};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use std::path::{Path, PathBuf};

/// The longest path handed to the kernel at once; it takes 4,095 bytes.
const PATH_PIECE: usize = 4000;

/// An open source directory.
pub(crate) struct Source {
    pub path: PathBuf,
    root: OwnedFd,
}

impl Source {
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty())
            .map_err(Error::io(path, "open the directory to build from"))?;
        Ok(Source {
            path: path.to_path_buf(),
            root,
        })
    }

    /// The path of a node as messages show it.
    pub fn display_path(&self, tree: &Tree, node: NodeId) -> PathBuf {
        self.path.join(tree.path(node))
    }

    /// Opens a directory of the tree.
    pub fn open_directory(&self, tree: &Tree, node: NodeId) -> Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        self.open_beneath(&tree.names(node), flags)
            .map_err(|errno| self.open_error(tree, node, errno))
    }

    /// Opens a regular file of the tree and makes sure that it is the one that was walked.
    pub fn open_file(&self, tree: &Tree, node: NodeId, state: &FileState) -> Result<OwnedFd> {
        let names = tree.names(node);
        // A file replaced by a FIFO must not block. O_NOATIME is for owners only.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = self
            .open_beneath(&names, flags | OFlags::NOATIME)
            .or_else(|errno| match errno {
                Errno::PERM => self.open_beneath(&names, flags),
                errno => Err(errno),
            })
            .map_err(|errno| self.open_error(tree, node, errno))?;
        self.check_unchanged(tree, node, state, &file)?;
        Ok(file)
    }

    /// Fails where an open file no longer looks as it did when the tree was walked.
    pub fn check_unchanged(
        &self,
        tree: &Tree,
        node: NodeId,
        state: &FileState,
        file: &OwnedFd,
    ) -> Result<()> {
        let stat = rustix::fs::fstat(file)
            .map_err(Error::io(self.display_path(tree, node), "examine it"))?;
        match state.difference(&file_state(&stat)) {
            None => Ok(()),
            Some(what) => Err(self.changed(tree, node, what)),
        }
    }

    pub fn changed(&self, tree: &Tree, node: NodeId, what: impl Into<String>) -> Error {
        Error::Changed {
            path: self.display_path(tree, node),
            what: what.into(),
        }
    }

    fn open_error(&self, tree: &Tree, node: NodeId, errno: Errno) -> Error {
        match errno {
            Errno::NOENT => self.changed(tree, node, "it vanished"),
            Errno::NOTDIR | Errno::LOOP => self.changed(tree, node, "its type is another"),
            errno => Error::io(self.display_path(tree, node), "open it")(errno),
        }
    }

    /// Opens `names` beneath the root, in as many steps as their length takes.
    fn open_beneath(&self, names: &[&[u8]], flags: OFlags) -> Result<OwnedFd, Errno> {
        if names.is_empty() {
            return open_step(self.root.as_fd(), b".", flags);
        }
        let mut base: Option<OwnedFd> = None;
        let mut piece = Vec::new();
        for (at, name) in names.iter().enumerate() {
            if !piece.is_empty() {
                piece.push(b'/');
            }
            piece.extend_from_slice(name);
            let last = at + 1 == names.len();
            if last || piece.len() + 1 + names[at + 1].len() > PATH_PIECE {
                let from = base.as_ref().map_or(self.root.as_fd(), |base| base.as_fd());
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

/// What identifies a regular file and its contents.
pub(crate) fn file_state(stat: &Stat) -> FileState {
    FileState {
        size: stat.st_size as u64,
        device: stat.st_dev,
        inode: stat.st_ino,
        mtime: mtime(stat),
        ctime: Time {
            seconds: stat.st_ctime,
            nanoseconds: stat.st_ctime_nsec as u32,
        },
    }
}

/// The modification time.
pub(crate) fn mtime(stat: &Stat) -> Time {
    Time {
        seconds: stat.st_mtime,
        nanoseconds: stat.st_mtime_nsec as u32,
    }
}
