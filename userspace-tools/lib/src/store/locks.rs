// SPDX-License-Identifier: MIT OR Apache-2.0

//! The locks of a store. The page of [`store`](crate::store) lists their holders.

use crate::error::{Error, Result, StoreError};
use crate::model::digest::Digest;
use crate::sys::progress::Progress;
use rustix::fd::OwnedFd;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// The directory of the store for locks and unfinished work.
pub(crate) const PRIVATE: &str = ".puzzlefs";
const GC_LOCK: &str = "gc.lock";
/// The time between two attempts to take a lock that is held while data is transferred.
const PATIENCE: Duration = Duration::from_millis(100);

/// The directory of a store, and its path for messages.
#[derive(Clone, Copy)]
pub(crate) struct LockedStore<'a> {
    pub path: &'a Path,
    pub root: &'a OwnedFd,
}

/// The lock between builders, which rely on blobs, and `gc`, which removes blobs. Dropping it unlocks.
pub(crate) struct UseLock {
    _lock: OwnedFd,
}

impl UseLock {
    /// Waits for a running `gc`, and keeps others from starting. Any number of processes can hold it.
    pub fn shared(store: LockedStore<'_>) -> Result<Self> {
        Self::take(store, FlockOperation::LockShared).map(|(lock, _)| lock)
    }

    /// Takes the lock exclusively. If others hold it, calls `wait`, which returns true to wait for them.
    /// Otherwise the result is `None`.
    pub fn alone(store: LockedStore<'_>, wait: impl FnOnce() -> bool) -> Result<Option<Self>> {
        let (lock, taken) = Self::take(store, FlockOperation::NonBlockingLockExclusive)?;
        if taken {
            return Ok(Some(lock));
        }
        if !wait() {
            return Ok(None);
        }
        Self::take(store, FlockOperation::LockExclusive).map(|(lock, _)| Some(lock))
    }

    fn take(store: LockedStore<'_>, how: FlockOperation) -> Result<(Self, bool)> {
        let private = make_private(store.path, store.root)?;
        let lock = open_lock(store.path, &private, GC_LOCK)?;
        let taken = match rustix::io::retry_on_intr(|| rustix::fs::flock(&lock, how)) {
            Ok(()) => true,
            Err(Errno::WOULDBLOCK) => false,
            Err(errno) => {
                let path = lock_path(store.path, GC_LOCK);
                return Err(Error::io(path, "take the lock")(errno));
            }
        };
        Ok((UseLock { _lock: lock }, taken))
    }
}

/// The lock between fetches of one image, so that the second one finds the data of the first. Dropping it
/// unlocks.
pub(crate) struct FetchLock {
    _lock: OwnedFd,
}

impl FetchLock {
    /// Waits until no other process fetches the image with this manifest, or until a request to stop.
    ///
    /// The lock's file belongs to all images whose digests begin with the same byte. It stays, so that no
    /// process locks a removed one.
    pub fn take(
        store: LockedStore<'_>,
        manifest: &Digest,
        progress: &Progress,
    ) -> Result<FetchLock> {
        let [first, ..] = manifest.as_bytes();
        let name = format!("fetch-{first:02x}.lock");
        let private = make_private(store.path, store.root)?;
        let lock = open_lock(store.path, &private, &name)?;
        loop {
            match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(FetchLock { _lock: lock }),
                Err(Errno::WOULDBLOCK | Errno::INTR) => {}
                Err(errno) => {
                    let path = lock_path(store.path, &name);
                    return Err(Error::io(path, "take the lock")(errno));
                }
            }
            progress.check()?;
            thread::sleep(PATIENCE);
        }
    }
}

/// The lock of the process that serves the requests of a store. Dropping it unlocks.
pub(crate) struct ServeLock {
    _lock: OwnedFd,
}

/// The name of the lock of [`ServeLock`].
const SERVE_LOCK: &str = "fetcher.lock";

impl ServeLock {
    /// Takes the lock, unless another process holds it.
    pub fn take(store: LockedStore<'_>) -> Result<Option<Self>> {
        let private = make_private(store.path, store.root)?;
        let lock = open_lock(store.path, &private, SERVE_LOCK)?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(ServeLock { _lock: lock })),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => {
                let path = lock_path(store.path, SERVE_LOCK);
                Err(Error::io(path, "take the lock")(errno))
            }
        }
    }
}

/// The path of a lock of the store at `path`, for messages.
pub(crate) fn lock_path(path: &Path, name: &str) -> PathBuf {
    path.join(PRIVATE).join(name)
}

/// Opens a lock file in the private directory of the store at `path`, and creates it if needed.
pub(crate) fn open_lock(path: &Path, private: &OwnedFd, name: &str) -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let flags = flags | OFlags::NONBLOCK;
    rustix::fs::openat(private, name, flags, Mode::from_raw_mode(0o644))
        .map_err(Error::io(lock_path(path, name), "open the lock"))
}

/// Opens the private directory of the store at `path`, and creates it if it does not exist.
pub(crate) fn make_private(path: &Path, root: &OwnedFd) -> Result<OwnedFd> {
    let private = path.join(PRIVATE);
    match rustix::fs::mkdirat(root, PRIVATE, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => open_own(root, &private, PRIVATE),
        Err(errno) => Err(Error::io(private, "create")(errno)),
    }
}

/// Opens a directory of a store that must not be a symbolic link.
pub(crate) fn open_own(parent: &OwnedFd, path: &Path, name: &str) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    match rustix::fs::openat(parent, name, flags, Mode::empty()) {
        Err(Errno::NOTDIR | Errno::LOOP) => {
            let path = path.into();
            Err(StoreError::NotFollowed { path }.into())
        }
        result => result.map_err(|errno| Error::io(path, "open")(errno)),
    }
}
