// SPDX-License-Identifier: MIT OR Apache-2.0

//! The directories of the chunk index and of recipes, and the lock of the index's writers.

use crate::error::{Error, Result, StoreError};
use crate::store::locks::{lock_path, make_private, open_lock, open_own, PRIVATE};
use crate::store::oci_layout::Store;
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Dir, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The name of the directory of the chunk index, in the private directory of a store.
pub(crate) const CHUNKS: &str = "chunks";
/// The name of the directory of recipes.
pub(super) const RECIPES: &str = "recipes";
const LOCK: &str = "chunks.lock";

/// The lock of the writers of a chunk index. Dropping it unlocks.
///
/// It is taken after `gc.lock` and before `index.lock`.
pub(super) struct ChunkLock {
    _lock: OwnedFd,
}

impl ChunkLock {
    /// Waits for the lock.
    pub fn take(store: &Store) -> Result<Self> {
        let private = make_private(&store.path, &store.root)?;
        let lock = open_lock(&store.path, &private, LOCK)?;
        rustix::io::retry_on_intr(|| rustix::fs::flock(&lock, FlockOperation::LockExclusive))
            .map_err(Error::io(lock_path(&store.path, LOCK), "take the lock"))?;
        Ok(ChunkLock { _lock: lock })
    }
}

/// An open directory in the private directory of a store.
pub(crate) struct PrivateDirectory {
    path: PathBuf,
    directory: OwnedFd,
}

impl PrivateDirectory {
    /// Opens the directory, or returns `None` if the store has none.
    pub fn open(store: &Store, name: &str) -> Result<Option<Self>> {
        let private = store.path.join(PRIVATE);
        let Some(parent) = existing(open_own(&store.root, &private, PRIVATE))? else {
            return Ok(None);
        };
        let path = private.join(name);
        let directory = existing(open_own(&parent, &path, name))?;
        Ok(directory.map(|directory| PrivateDirectory { path, directory }))
    }

    /// Opens the directory, and creates it if the store has none.
    pub fn create(store: &Store, name: &str) -> Result<Self> {
        let private = make_private(&store.path, &store.root)?;
        let path = store.path.join(PRIVATE).join(name);
        match rustix::fs::mkdirat(&private, name, Mode::from_raw_mode(0o755)) {
            Ok(()) => {
                let sync = |directory: &OwnedFd, path: &Path| {
                    rustix::fs::fsync(directory).map_err(Error::io(path, "sync"))
                };
                sync(&private, &store.path.join(PRIVATE))?;
                sync(&store.root, &store.path)?;
            }
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(Error::io(path, "create")(errno)),
        }
        let directory = open_own(&private, &path, name)?;
        Ok(PrivateDirectory { path, directory })
    }

    /// The path of a file, for messages.
    pub fn file_path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Opens a file, which must be a regular one, if it exists.
    pub fn open_file(&self, name: &str) -> Result<Option<File>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = match rustix::fs::openat(&self.directory, name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => {
                let path = self.file_path(name);
                return Err(StoreError::NotARegularFile { path }.into());
            }
            Err(errno) => return Err(Error::io(self.file_path(name), "open")(errno)),
        };
        let metadata = file
            .metadata()
            .map_err(Error::io(self.file_path(name), "examine"))?;
        if !metadata.is_file() {
            let path = self.file_path(name);
            return Err(StoreError::NotARegularFile { path }.into());
        }
        Ok(Some(file))
    }

    /// Returns true if `file`, which is open, still has the name.
    pub fn is_named(&self, file: &File, name: &str) -> bool {
        let Ok(named) = rustix::fs::statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW) else {
            return false;
        };
        let Ok(open) = rustix::fs::fstat(file) else {
            return false;
        };
        (named.st_dev, named.st_ino) == (open.st_dev, open.st_ino)
    }

    /// Writes a new file, durably except for its name. A file with that name is removed first.
    pub fn write_file(&self, name: &str, contents: &[u8]) -> Result<()> {
        let write = || -> io::Result<()> {
            self.unlink(name)?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let mode = Mode::from_raw_mode(0o644);
            let mut file = File::from(rustix::fs::openat(&self.directory, name, flags, mode)?);
            file.write_all(contents)?;
            file.sync_all()
        };
        write().map_err(|cause| {
            // On a full disk it would take room for nothing.
            let _ = self.unlink(name);
            Error::io(self.file_path(name), "write")(cause)
        })
    }

    /// Replaces a file, durably except for its name. `new` begins the name of the unfinished one.
    pub fn replace_file(&self, new: &str, name: &str, contents: &[u8]) -> Result<()> {
        // Threads and other processes replace files meanwhile.
        let new = format!("{new}-{}-{name}", std::process::id());
        self.write_file(&new, contents)?;
        self.rename_file(&new, name)
    }

    /// Renames a file.
    pub fn rename_file(&self, from: &str, to: &str) -> Result<()> {
        rustix::fs::renameat(&self.directory, from, &self.directory, to)
            .map_err(Error::io(self.file_path(to), "write"))
    }

    /// Moves a file to another directory, unless that has a file of the name.
    pub fn move_file(&self, from: &str, directory: &OwnedFd, to: &str) -> Result<(), Errno> {
        use rustix::fs::RenameFlags;
        let flags = RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(&self.directory, from, directory, to, flags) {
            Err(Errno::EXIST) => self.unlink(from),
            // A filesystem without RENAME_NOREPLACE.
            Err(Errno::INVAL | Errno::NOSYS) => {
                rustix::fs::renameat(&self.directory, from, directory, to)
            }
            result => result,
        }
    }

    /// Removes a file, if it exists.
    pub fn remove_file(&self, name: &str) -> Result<()> {
        self.unlink(name)
            .map_err(Error::io(self.file_path(name), "remove"))
    }

    fn unlink(&self, name: &str) -> Result<(), Errno> {
        match rustix::fs::unlinkat(&self.directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// Makes the names of the files durable.
    pub fn sync(&self) -> Result<()> {
        rustix::fs::fsync(&self.directory).map_err(Error::io(&self.path, "sync"))
    }

    /// Lists the names that are text. A name that is not is none of ours.
    pub fn names(&self) -> Result<Vec<String>> {
        let fail = || Error::io(&self.path, "list");
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.directory).map_err(fail())? {
            let entry = entry.map_err(fail())?;
            match entry.file_name().to_str() {
                Ok("." | "..") | Err(_) => {}
                Ok(name) => names.push(name.to_owned()),
            }
        }
        Ok(names)
    }
}

/// Returns `None` for an error that says that a file does not exist.
fn existing<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}
