// SPDX-License-Identifier: MIT OR Apache-2.0

//! The source directory: opening what is in it, whatever happens around it.
//!
//! Files are opened by their path beneath an open root directory and no symbolic link is ever
//! followed, so that a tree that others write to cannot lead the builder elsewhere.

use crate::beneath::open_beneath;
use crate::error::{Error, Result};
use crate::tree::{FileState, NodeId, Time, Tree};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags, Stat};
use rustix::io::Errno;
use std::path::{Path, PathBuf};

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
        open_beneath(&self.root, &tree.names(node), flags)
            .map_err(|errno| self.open_error(tree, node, errno))
    }

    /// Opens a regular file of the tree and makes sure that it is the one that was walked.
    pub fn open_file(&self, tree: &Tree, node: NodeId, state: &FileState) -> Result<OwnedFd> {
        let names = tree.names(node);
        // A file replaced by a FIFO must not block. O_NOATIME is for owners only.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = open_beneath(&self.root, &names, flags | OFlags::NOATIME)
            .or_else(|errno| match errno {
                Errno::PERM => open_beneath(&self.root, &names, flags),
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
            // It was found in the tree and was elsewhere a moment later.
            Errno::XDEV => self.changed(tree, node, "it was moved out of the tree"),
            Errno::NOTDIR | Errno::LOOP => self.changed(tree, node, "its type is another"),
            errno => Error::io(self.display_path(tree, node), "open it")(errno),
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
