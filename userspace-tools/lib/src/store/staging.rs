// SPDX-License-Identifier: MIT OR Apache-2.0

//! Writing blobs into a store. The page of [`store`](crate::store) explains the steps.

use crate::error::{Error, Result};
use crate::model::digest::Digest;
use crate::model::limits::READ_SIZE;
use crate::store::locks::UseLock;
use crate::store::locks::PRIVATE;
use crate::store::oci_layout::Store;
use crate::sys::parallel;
use crate::sys::pause::{self, Point};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use std::fs::{self, File};
use std::io::Write;
use std::mem;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use tempfile::NamedTempFile;

const PREFIX: &str = "staging-";
/// The number of staged bytes after which [`Staging::put`] commits. The limit bounds the work that a
/// killed builder of a large image repeats.
const COMMIT_BYTES: u64 = 1 << 30;
/// The number of staged blobs after which [`Staging::put`] commits.
const COMMIT_BLOBS: usize = 20_000;

/// Blobs on their way into a store. Dropping it discards the blobs that are not committed.
pub(crate) struct Staging<'a> {
    store: &'a Store,
    pub(crate) path: PathBuf,
    directory: OwnedFd,
    /// Blobs of the store are compared with their digests before they are shared.
    check: bool,
    pending: Mutex<Pending>,
    /// Keeps garbage collection off: no blob that is found or put is removed before the tag is set.
    /// `None` if the caller has the lock.
    _in_use: Option<UseLock>,
}

/// Blobs that are written, but neither durable nor visible.
#[derive(Default)]
struct Pending {
    blobs: Vec<(Digest, u64)>,
    bytes: u64,
}

/// The outcome of putting a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placed {
    /// It was not in the store.
    New,
    /// It was there, with the same size.
    Shared,
}

/// A blob's contents.
#[derive(Clone, Copy)]
pub(crate) enum Content<'a> {
    /// These bytes, one piece after the other.
    Bytes(&'a [&'a [u8]]),
    /// This number of zeros. They take no space if the filesystem of the store has holes.
    Zeros(u64),
}

impl Content<'_> {
    fn size(&self) -> u64 {
        match self {
            Content::Bytes(pieces) => pieces.iter().map(|piece| piece.len() as u64).sum(),
            Content::Zeros(size) => *size,
        }
    }
}

impl<'a> Staging<'a> {
    /// Removes the directories of dead builders, and creates one for this builder. Fails if the index
    /// is one that no tag could be set in.
    pub fn new(store: &'a Store) -> Result<Self> {
        store.known_index()?;
        let in_use = UseLock::shared(store.locked())?;
        Self::with_lock(store, Some(in_use))
    }

    /// Does the same for a caller that has the lock, shared or exclusive, and keeps it.
    pub fn under(store: &'a Store, _lock: &'a UseLock) -> Result<Self> {
        Self::with_lock(store, None)
    }

    fn with_lock(store: &'a Store, in_use: Option<UseLock>) -> Result<Self> {
        let private = store.path.join(PRIVATE);
        remove_stale(&private);
        loop {
            let path = tempfile::Builder::new()
                .prefix(PREFIX)
                .tempdir_in(&private)
                .map_err(Error::io(&private, "create a directory in"))?
                .keep();
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let directory = match rustix::fs::open(&path, flags, Mode::empty()) {
                Ok(directory) => directory,
                // Another builder thought it stale before it was locked.
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(Error::io(path, "open")(errno)),
            };
            rustix::fs::flock(&directory, FlockOperation::LockExclusive)
                .map_err(Error::io(&path, "lock"))?;
            let linked = rustix::fs::fstat(&directory).is_ok_and(|stat| stat.st_nlink > 0);
            if linked && path.exists() {
                pause::at(Point::Staging);
                return Ok(Staging {
                    store,
                    path,
                    directory,
                    check: false,
                    pending: Mutex::default(),
                    _in_use: in_use,
                });
            }
        }
    }

    /// Returns the same staging, which replaces damaged blobs of the store if `check` is set.
    pub fn checking(mut self, check: bool) -> Self {
        self.check = check;
        self
    }

    /// Writes a blob unless the store has it. `digest` is the SHA-256 of the contents. A caller puts
    /// each blob once.
    pub fn put(&self, digest: &Digest, content: Content<'_>) -> Result<Placed> {
        self.put_with(digest, content.size(), |file, path| {
            match content {
                Content::Bytes(pieces) => pieces.iter().try_for_each(|piece| file.write_all(piece)),
                Content::Zeros(size) => file.set_len(size),
            }
            .map_err(Error::io(path, "write"))
        })
    }

    /// Does the same for contents of a known size, which a function writes to a file.
    pub fn put_with(
        &self,
        digest: &Digest,
        size: u64,
        write: impl FnOnce(&mut File, &Path) -> Result<()>,
    ) -> Result<Placed> {
        if self.has(digest, size)? {
            return Ok(Placed::Shared);
        }
        let path = self.path.join(digest.to_hex());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
        let file = rustix::fs::openat(
            &self.directory,
            digest.to_hex(),
            flags | OFlags::NOFOLLOW,
            Mode::from_raw_mode(0o644),
        )
        .map_err(Error::io(&path, "create"))?;
        pause::at(Point::Created);
        write(&mut File::from(file), &path)?;
        pause::at(Point::Written);
        let full = {
            let mut pending = self.pending();
            pending.blobs.push((*digest, size));
            pending.bytes += size;
            pending.bytes >= COMMIT_BYTES || pending.blobs.len() >= COMMIT_BLOBS
        };
        if full {
            self.commit()?;
        }
        Ok(Placed::New)
    }

    /// Returns true if the store has a blob. Removes a damaged one if blobs are checked.
    fn has(&self, digest: &Digest, size: u64) -> Result<bool> {
        if self.store.blob_size(digest)? != Some(size) {
            return Ok(false);
        }
        if !self.check || self.store.digest_of_blob(digest, &mut vec![0; READ_SIZE])? == *digest {
            return Ok(true);
        }
        self.store.remove_blob(digest)?;
        Ok(false)
    }

    /// Creates a file in [`path`](Self::path), whose digest is not known yet.
    pub fn create_file(&self) -> Result<NamedTempFile> {
        let file = NamedTempFile::new_in(&self.path);
        let file = file.map_err(Error::io(&self.path, "create a file in"))?;
        pause::at(Point::Created);
        Ok(file)
    }

    /// Puts a file that [`create_file`](Self::create_file) has created, unless the store has the blob.
    pub fn put_file(&self, file: NamedTempFile, digest: &Digest, size: u64) -> Result<Placed> {
        if self.has(digest, size)? {
            return Ok(Placed::Shared);
        }
        let path = self.path.join(digest.to_hex());
        let mode = fs::Permissions::from_mode(0o644);
        file.as_file()
            .set_permissions(mode)
            .map_err(Error::io(&path, "set the permissions of"))?;
        file.persist(&path)
            .map_err(|error| Error::io(&path, "rename a blob to")(error.error))?;
        pause::at(Point::Written);
        let mut pending = self.pending();
        pending.blobs.push((*digest, size));
        pending.bytes += size;
        Ok(Placed::New)
    }

    /// Writes the staged blobs to the disk, which leaves little work to [`Staging::commit`].
    pub fn flush(&self) -> Result<()> {
        let target = self.store.path.join("blobs/sha256");
        rustix::fs::syncfs(&self.directory).map_err(Error::io(&target, "sync the blobs in"))
    }

    /// Makes all staged blobs durable, and then visible under their final names.
    pub fn commit(&self) -> Result<()> {
        let Pending { blobs, .. } = mem::take(&mut *self.pending());
        if blobs.is_empty() {
            return Ok(());
        }
        let target = self.store.path.join("blobs/sha256");
        self.flush()?;
        pause::at(Point::Synced);
        for (digest, size) in blobs {
            self.publish(&digest, size).map_err(|errno| {
                Error::io(self.store.blob_path(&digest), "rename a blob to")(errno)
            })?;
            pause::at(Point::Named);
        }
        rustix::fs::fsync(&self.store.blobs).map_err(Error::io(&target, "sync"))?;
        pause::at(Point::Committed);
        Ok(())
    }

    /// Gives a blob its final name. A blob that another builder has put meanwhile stays, because it may
    /// be open, mapped or sealed by fs-verity. A blob of another size is replaced.
    fn publish(&self, digest: &Digest, size: u64) -> Result<(), Errno> {
        let name = digest.to_hex();
        let (from, to) = (&self.directory, &self.store.blobs);
        match rustix::fs::renameat_with(from, &name, to, &name, RenameFlags::NOREPLACE) {
            Ok(()) => return Ok(()),
            // EINVAL: a filesystem without RENAME_NOREPLACE.
            Err(Errno::EXIST | Errno::INVAL | Errno::NOSYS) => {}
            Err(errno) => return Err(errno),
        }
        match rustix::fs::statat(to, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if stat.st_size as u64 == size => {
                rustix::fs::unlinkat(from, &name, AtFlags::empty())
            }
            Ok(_) | Err(Errno::NOENT) => rustix::fs::renameat(from, &name, to, &name),
            Err(errno) => Err(errno),
        }
    }

    fn pending(&self) -> std::sync::MutexGuard<'_, Pending> {
        parallel::lock(&self.pending)
    }
}

impl Drop for Staging<'_> {
    fn drop(&mut self) {
        // What stays here is found stale by the next builder.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Removes the directories of dead builders, and returns their number. A directory that cannot be
/// removed stays, which does no harm.
pub(crate) fn remove_stale(private: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(private) else {
        return 0;
    };
    let mut removed = 0;
    for entry in entries.flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let Ok(directory) = rustix::fs::open(entry.path(), flags, Mode::empty()) else {
            continue;
        };
        if rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive).is_ok() {
            removed += u64::from(fs::remove_dir_all(entry.path()).is_ok());
        }
    }
    removed
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn store(scratch: &Path) -> Store {
        Store::create(&scratch.join("store")).unwrap()
    }

    fn put(staging: &Staging<'_>, bytes: &[u8]) -> (Digest, Placed) {
        let digest = Digest::of(bytes);
        let placed = staging.put(&digest, Content::Bytes(&[bytes])).unwrap();
        (digest, placed)
    }

    #[test]
    fn blobs_are_visible_after_the_commit() {
        let scratch = tempfile::tempdir().unwrap();
        let store = store(scratch.path());
        let staging = Staging::new(&store).unwrap();
        let (digest, placed) = put(&staging, b"contents");
        assert_eq!(placed, Placed::New);
        assert_eq!(store.blob_size(&digest).unwrap(), None);
        staging.commit().unwrap();
        assert_eq!(store.read_blob(&digest, 100).unwrap(), b"contents");
        assert_eq!(put(&staging, b"contents").1, Placed::Shared);
        // Without a commit, nothing stays.
        let (digest, _) = put(&staging, b"other");
        let path = staging.path.clone();
        drop(staging);
        assert!(!path.exists());
        assert_eq!(store.blob_size(&digest).unwrap(), None);
    }

    #[test]
    fn a_blob_of_another_builder_stays_unless_its_size_is_wrong() {
        let scratch = tempfile::tempdir().unwrap();
        let store = store(scratch.path());
        for (theirs, stays) in [(&b"contents"[..], true), (b"cont", false)] {
            let staging = Staging::new(&store).unwrap();
            let (digest, _) = put(&staging, b"contents");
            let path = store.blob_path(&digest);
            fs::write(&path, theirs).unwrap();
            let inode = fs::metadata(&path).unwrap().ino();
            staging.commit().unwrap();
            assert_eq!(fs::metadata(&path).unwrap().ino() == inode, stays);
            assert_eq!(store.read_blob(&digest, 100).unwrap(), b"contents");
            fs::remove_file(path).unwrap();
        }
    }

    #[test]
    fn damaged_blobs_are_replaced_if_asked_for() {
        let scratch = tempfile::tempdir().unwrap();
        let store = store(scratch.path());
        let digest = Digest::of(b"contents");
        fs::write(store.blob_path(&digest), b"damaged!").unwrap();
        for (check, wanted) in [(false, Placed::Shared), (true, Placed::New)] {
            let staging = Staging::new(&store).unwrap().checking(check);
            assert_eq!(put(&staging, b"contents").1, wanted);
            staging.commit().unwrap();
        }
        assert_eq!(store.read_blob(&digest, 100).unwrap(), b"contents");
    }

    #[test]
    fn directories_of_dead_builders_are_removed() {
        let scratch = tempfile::tempdir().unwrap();
        let store = store(scratch.path());
        let stale = store.path.join(PRIVATE).join("staging-dead");
        fs::create_dir(&stale).unwrap();
        fs::write(stale.join("blob"), b"x").unwrap();
        let alive = Staging::new(&store).unwrap();
        assert!(!stale.exists());
        let second = Staging::new(&store).unwrap();
        assert!(alive.path.exists() && second.path.exists());
        assert_eq!(remove_stale(&store.path.join(PRIVATE)), 0);
    }
}
