// SPDX-License-Identifier: MIT OR Apache-2.0

//! Replacing the files of a store's own directory: never half a file.

use crate::error::{Error, Result};
use crate::model::limits::INDEX_MAX;
use crate::store::locks::{lock_path, make_private, open_lock};
use crate::sys::pause::{self, Point};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

const INDEX_LOCK: &str = "index.lock";
pub(crate) const INDEX: &str = "index.json";
/// The number of attempts at a change of the index. Another attempt is needed if another tool has
/// replaced the index.
pub(crate) const ATTEMPTS: usize = 10;

/// The lock for writing the files in the store's own directory.
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
        let lock = open_lock(path, &private, INDEX_LOCK)?;
        rustix::io::retry_on_intr(|| rustix::fs::flock(&lock, FlockOperation::LockExclusive))
            .map_err(Error::io(lock_path(path, INDEX_LOCK), "take the lock"))?;
        Ok(WriteLock {
            path,
            root,
            private,
            _lock: lock,
        })
    }

    /// Replaces a file as a whole. A reader sees the old one or the new one, also after a crash.
    pub fn replace_file(&self, name: &str, contents: &[u8]) -> Result<()> {
        let temporary = format!("{name}.new");
        let replace = || {
            self.write(&temporary, contents)?;
            rustix::fs::renameat(&self.private, &temporary, self.root, name)?;
            Ok(())
        };
        self.finish(name, &temporary, replace())
    }

    /// Replaces the index that reads `before`, as a whole. Returns false, and leaves the index as it is,
    /// if that is another one by now.
    pub fn exchange_index(&self, before: Option<&[u8]>, contents: &[u8]) -> Result<bool> {
        let temporary = format!("{INDEX}.new");
        let replace = || {
            self.write(&temporary, contents)?;
            pause::at(Point::Replacing);
            let replaced = match before {
                Some(before) => self.exchange(&temporary, before, contents)?,
                None => self.rename_to_none(&temporary)?,
            };
            pause::at(Point::Replaced);
            Ok(replaced)
        };
        let replaced = replace();
        // The old index, or the new one that is of no use.
        let _ = rustix::fs::unlinkat(&self.private, &temporary, AtFlags::empty());
        self.finish(INDEX, &temporary, replaced)
    }

    /// Exchanges the index with the file `temporary`, which reads `contents`, if the index reads `before`.
    fn exchange(&self, temporary: &str, before: &[u8], contents: &[u8]) -> io::Result<bool> {
        let swap = || {
            let (from, to) = (&self.private, self.root);
            rustix::fs::renameat_with(from, temporary, to, INDEX, RenameFlags::EXCHANGE)
        };
        match swap() {
            Ok(()) => {}
            // Another tool has removed it.
            Err(Errno::NOENT) => return Ok(false),
            // The filesystem cannot exchange. A change by another tool between these two lines is lost.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                let unchanged = read(self.root, INDEX)? == before;
                if unchanged {
                    rustix::fs::renameat(&self.private, temporary, self.root, INDEX)?;
                }
                return Ok(unchanged);
            }
            Err(errno) => return Err(errno.into()),
        }
        if read(&self.private, temporary)? == before {
            return Ok(true);
        }
        // Put back the index of the other tool. If what comes out is not the one that we placed, it is
        // newer, and put back in its turn.
        let mut placed = contents.to_vec();
        for _ in 0..ATTEMPTS {
            let other = read(&self.private, temporary)?;
            swap()?;
            if read(&self.private, temporary)? == placed {
                break;
            }
            placed = other;
        }
        Ok(false)
    }

    /// Gives the file `temporary` the name of the index, if there is no index.
    fn rename_to_none(&self, temporary: &str) -> io::Result<bool> {
        let (from, to) = (&self.private, self.root);
        match rustix::fs::renameat_with(from, temporary, to, INDEX, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                rustix::fs::renameat(from, temporary, to, INDEX)?;
                Ok(true)
            }
            Err(errno) => Err(errno.into()),
        }
    }

    /// Writes a file of the private directory, durably.
    fn write(&self, temporary: &str, contents: &[u8]) -> io::Result<()> {
        // The lock is held, so an existing file is one of a dead writer. It is replaced and not
        // overwritten, because it may be a hard link to another file.
        match rustix::fs::unlinkat(&self.private, temporary, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o644);
        let file = rustix::fs::openat(&self.private, temporary, flags, mode)?;
        let mut file = File::from(file);
        file.write_all(contents)?;
        file.sync_all()
    }

    /// Makes a replaced file durable, or explains why it was not replaced.
    fn finish<T>(&self, name: &str, temporary: &str, replaced: io::Result<T>) -> Result<T> {
        let result = replaced.map_err(|cause| {
            // On a full disk it would take room for nothing.
            let _ = rustix::fs::unlinkat(&self.private, temporary, AtFlags::empty());
            Error::io(self.path.join(name), "write")(cause)
        })?;
        rustix::fs::fsync(self.root).map_err(Error::io(self.path, "sync"))?;
        Ok(result)
    }
}

/// Reads a file up to the largest size of an index.
fn read(directory: &OwnedFd, name: &str) -> io::Result<Vec<u8>> {
    // What is no regular file must not block.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = rustix::fs::openat(directory, name, flags, Mode::empty())?;
    let mut text = Vec::new();
    File::from(file).take(INDEX_MAX).read_to_end(&mut text)?;
    Ok(text)
}
