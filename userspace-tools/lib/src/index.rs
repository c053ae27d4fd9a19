// SPDX-License-Identifier: MIT OR Apache-2.0

//! Changing `index.json`: one writer at a time, and never half a file.

use crate::error::{Error, Result};
use crate::oci::{Descriptor, Index};
use crate::pause::{self, Point};
use crate::store::{self, Store};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The directory of the store for locks and unfinished work.
pub(crate) const PRIVATE: &str = ".puzzlefs";
const LOCK: &str = "index.lock";

impl Store {
    /// Puts a manifest under a tag, in the place of what the tag named before.
    ///
    /// The manifest and everything it names must be durable already. Other tags stay, those that
    /// another builder sets at the same time included.
    pub(crate) fn set_tag(&self, tag: &str, manifest: Descriptor) -> Result<()> {
        self.change_index(|index| {
            index.set_tag(tag, manifest);
            Ok(())
        })
    }

    /// Replaces the index by what a function makes of it, while nobody else does.
    pub(crate) fn change_index<T>(
        &self,
        change: impl FnOnce(&mut Index) -> Result<T>,
    ) -> Result<T> {
        let lock = WriteLock::take(&self.path, &self.root)?;
        let mut index = self.known_index()?;
        pause::at(Point::Locked);
        let result = change(&mut index)?;
        let path = self.path.join("index.json");
        let text = serde_json::to_vec(&index)
            .map_err(|error| Error::store(&path, format!("cannot be written as JSON: {error}")))?;
        lock.replace_file("index.json", &text)?;
        Ok(result)
    }
}

/// The right to write the files in the store's own directory: one process at a time has it.
pub(crate) struct WriteLock<'a> {
    path: &'a Path,
    root: &'a OwnedFd,
    private: OwnedFd,
    _lock: OwnedFd,
}

impl<'a> WriteLock<'a> {
    /// Waits for the lock of the store at `path`.
    pub fn take(path: &'a Path, root: &'a OwnedFd) -> Result<Self> {
        let private = make_private(path, root)?;
        let lock = open_lock(path, &private, LOCK)?;
        rustix::io::retry_on_intr(|| rustix::fs::flock(&lock, FlockOperation::LockExclusive))
            .map_err(Error::io(lock_path(path, LOCK), "take the lock"))?;
        Ok(WriteLock {
            path,
            root,
            private,
            _lock: lock,
        })
    }

    /// Replaces a file as a whole: a reader, or a crash, sees the old one or the new one.
    pub fn replace_file(&self, name: &str, contents: &[u8]) -> Result<()> {
        // Nobody else writes it while the lock is held, so what is there is a dead writer's. It is
        // not written to: it might be another name of somebody's file.
        let temporary = format!("{name}.new");
        let write = || -> std::io::Result<()> {
            match rustix::fs::unlinkat(&self.private, &temporary, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno.into()),
            }
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let mode = Mode::from_raw_mode(0o644);
            let file = rustix::fs::openat(&self.private, &temporary, flags, mode)?;
            let mut file = File::from(file);
            file.write_all(contents)?;
            file.sync_all()?;
            pause::at(Point::Replacing);
            rustix::fs::renameat(&self.private, &temporary, self.root, name)?;
            pause::at(Point::Replaced);
            Ok(())
        };
        write().map_err(|cause| {
            // On a full disk it would take room for nothing.
            let _ = rustix::fs::unlinkat(&self.private, &temporary, AtFlags::empty());
            Error::io(self.path.join(name), "write it")(cause)
        })?;
        rustix::fs::fsync(self.root).map_err(Error::io(self.path, "sync it"))
    }
}

/// The path of a lock of the store at `path`, for messages.
pub(crate) fn lock_path(path: &Path, name: &str) -> PathBuf {
    path.join(PRIVATE).join(name)
}

/// Opens a file in the private directory of the store at `path` that is there to be locked.
pub(crate) fn open_lock(path: &Path, private: &OwnedFd, name: &str) -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let flags = flags | OFlags::NONBLOCK;
    rustix::fs::openat(private, name, flags, Mode::from_raw_mode(0o644))
        .map_err(Error::io(lock_path(path, name), "open the lock"))
}

/// Opens the private directory of the store at `path`, which is made where it is not there yet.
pub(crate) fn make_private(path: &Path, root: &OwnedFd) -> Result<OwnedFd> {
    let private = path.join(PRIVATE);
    match rustix::fs::mkdirat(root, PRIVATE, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => store::open_own(root, &private, PRIVATE),
        Err(errno) => Err(Error::io(private, "make it")(errno)),
    }
}
