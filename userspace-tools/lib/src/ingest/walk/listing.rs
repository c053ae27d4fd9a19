// SPDX-License-Identifier: MIT OR Apache-2.0

//! Lists directories with several threads, ahead of the walk that numbers the inodes.
//!
//! A directory is listed after its parent, and in any order otherwise. The walk takes the listings in its own
//! order, so the result does not depend on the threads. They list at most [`ENTRIES_AHEAD`] entries that the
//! walk has not taken, unless it waits for one of them.
//!
//! Extended attributes are read by name in the working directory, because the alternative, a path through
//! `/proc/self/fd`, takes five times as long. Each thread therefore has a working directory of its own.

use crate::build::source::{self, Source};
use crate::error::{BuildError, Change, Error, Result};
use crate::model::rules::Rules;
use crate::model::tree::{FileState, Kind, Origin, Seen, Xattr};
use crate::sys::beneath::{open_beneath, path_of};
use crate::sys::parallel::lock;
use crate::sys::xattrs;
use nix::sched::{unshare, CloneFlags};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, FileType, OFlags, Stat};
use rustix::io::Errno;
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

/// The options of a walk.
pub(crate) struct WalkOptions<'a> {
    /// The paths that are left out, and the extended attributes that are read.
    pub rules: &'a Rules,
    /// Leave directories that are mount points empty.
    pub one_file_system: bool,
    /// The device and inode of a directory to leave empty: the store, if it is in the tree.
    pub store: Option<(u64, u64)>,
    /// Leave out files that cannot be read, and the contents of such directories.
    pub skip_unreadable: bool,
    /// Paths, from the root, that could not be read and are left out.
    pub unreadable: &'a HashSet<PathBuf>,
    /// The number of threads that list directories, at least one.
    pub jobs: usize,
}

/// The number of entries that are listed ahead of the walk.
const ENTRIES_AHEAD: usize = 1 << 16;

/// Identifies a directory that is listed.
pub(super) type DirectoryId = u64;

/// The root directory of the tree.
pub(super) const ROOT: DirectoryId = 0;

/// An entry of a directory.
pub(super) struct Listed {
    pub stat: Stat,
    /// A directory is empty.
    pub kind: Kind,
    pub xattrs: Vec<Xattr>,
    /// For a directory, whether it is listed.
    pub subdirectory: Subdirectory,
}

/// The use of an entry as a directory.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Subdirectory {
    /// It is none.
    None,
    /// It is or will be listed.
    Listed(DirectoryId),
    /// It is the store, which is left out.
    Store,
    /// It is on another filesystem and is left out.
    MountPoint,
}

/// The entries of a directory in byte order of their names, or their errors.
pub(super) type Listing = Vec<(Box<[u8]>, Result<Listed>)>;

/// The path of a directory.
struct Directory {
    /// None for the root, which has no name.
    parent: Option<Arc<Directory>>,
    name: Box<[u8]>,
}

impl Directory {
    /// The names that lead to it from the root.
    fn names(&self) -> Vec<&[u8]> {
        let mut names = Vec::new();
        let mut directory = self;
        while let Some(parent) = &directory.parent {
            names.push(&*directory.name);
            directory = parent;
        }
        names.reverse();
        names
    }

    /// Its path from the root.
    fn path(&self) -> PathBuf {
        let names = self.names();
        names.iter().map(|name| OsStr::from_bytes(name)).collect()
    }
}

/// Lists the directories of a tree.
pub(super) struct Lister<'a> {
    source: &'a Source,
    options: &'a WalkOptions<'a>,
    /// The device of the root directory.
    device: u64,
    state: Mutex<State>,
    /// Wakes the walk, which waits for a listing.
    listed: Condvar,
    /// Wakes threads that wait for directories to list.
    found: Condvar,
}

/// # Invariants
///
/// A directory is in `pending` until a thread takes it, and in `done` from the time when it was listed until
/// the walk takes the listing. `ahead` is the number of entries in `done`.
#[derive(Default)]
struct State {
    pending: HashMap<DirectoryId, Arc<Directory>>,
    /// The directories in the order of the walk, the next one last, with some that are not pending any more.
    order: Vec<DirectoryId>,
    done: HashMap<DirectoryId, Result<Listing>>,
    ahead: usize,
    /// The directory that the walk waits for.
    wanted: Option<DirectoryId>,
    last: DirectoryId,
    is_over: bool,
}

impl State {
    /// Takes a directory to list: the one that the walk waits for, or else the next one of the walk.
    fn take(&mut self) -> Option<(DirectoryId, Arc<Directory>)> {
        let wanted = self.wanted;
        if let Some((id, directory)) = wanted.and_then(|id| self.pending.remove_entry(&id)) {
            return Some((id, directory));
        }
        if self.ahead >= ENTRIES_AHEAD && wanted.is_none() {
            return None;
        }
        loop {
            let id = self.order.pop()?;
            if let Some(directory) = self.pending.remove(&id) {
                return Some((id, directory));
            }
        }
    }
}

impl<'a> Lister<'a> {
    /// Prepares to list the directories of a tree, whose root directory is on this device.
    pub fn new(source: &'a Source, options: &'a WalkOptions<'a>, device: u64) -> Self {
        let root = Arc::new(Directory {
            parent: None,
            name: Box::default(),
        });
        Lister {
            source,
            options,
            device,
            state: Mutex::new(State {
                pending: HashMap::from([(ROOT, root)]),
                order: vec![ROOT],
                ..State::default()
            }),
            listed: Condvar::new(),
            found: Condvar::new(),
        }
    }

    /// Does `walk`, which takes listings, while threads make them.
    pub fn beside<T>(&self, walk: impl FnOnce() -> T) -> T {
        thread::scope(|scope| {
            for _ in 0..self.options.jobs.max(1) {
                scope.spawn(|| self.run());
            }
            let _stop = Stop(self);
            walk()
        })
    }

    /// Waits for the listing of a directory, and takes it. Each listing is taken once.
    pub fn listing(&self, id: DirectoryId) -> Result<Listing> {
        let mut state = lock(&self.state);
        loop {
            if let Some(listing) = state.done.remove(&id) {
                state.wanted = None;
                state.ahead -= listing.as_ref().map_or(0, Vec::len);
                self.found.notify_all();
                return listing;
            }
            // A thread has panicked, which ends the program.
            if state.is_over {
                return Err(Error::Interrupted);
            }
            state.wanted = Some(id);
            self.found.notify_one();
            let waited = self.listed.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Lists directories until the walk is over.
    fn run(&self) {
        // Only the working directory of this thread changes. In some containers this is not permitted.
        let has_own_directory = unshare(CloneFlags::CLONE_FS).is_ok();
        let stop = StopIfPanicking(self);
        let mut state = lock(&self.state);
        while !state.is_over {
            let Some((id, directory)) = state.take() else {
                let waited = self.found.wait(state);
                state = waited.unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(state);
            let listing = self.list(&directory, has_own_directory);
            state = lock(&self.state);
            self.add(&mut state, id, &directory, listing);
        }
        drop(state);
        drop(stop);
    }

    /// Adds a listing, and the subdirectories in it that are listed next.
    fn add(
        &self,
        state: &mut State,
        id: DirectoryId,
        directory: &Arc<Directory>,
        mut listing: Result<Listing>,
    ) {
        let start = state.order.len();
        for (name, entry) in listing.iter_mut().flatten() {
            let Ok(Listed { subdirectory, .. }) = entry else {
                continue;
            };
            if let Subdirectory::Listed(id) = subdirectory {
                state.last += 1;
                *id = state.last;
                let child = Directory {
                    parent: Some(Arc::clone(directory)),
                    name: name.clone(),
                };
                state.pending.insert(*id, Arc::new(child));
                state.order.push(*id);
            }
        }
        // INVARIANT: the first of them is the next one of the walk.
        state.order[start..].reverse();
        state.ahead += listing.as_ref().map_or(0, Vec::len);
        state.done.insert(id, listing);
        if state.wanted == Some(id) {
            self.listed.notify_one();
        }
        if state.order.len() > start {
            self.found.notify_all();
        }
    }

    /// Lists a directory. The IDs of its subdirectories are not set.
    fn list(&self, directory: &Directory, has_own_directory: bool) -> Result<Listing> {
        let path = || self.source.path.join(directory.path());
        let opened = self.open(directory);
        let fd = opened.map_err(|errno| self.source.open_error(path(), errno))?;
        let mut names: Vec<(Box<[u8]>, Result<()>)> = Vec::new();
        let entries = rustix::fs::Dir::read_from(&fd).map_err(Error::io(path(), "list"))?;
        for entry in entries {
            let entry = entry.map_err(|errno| Error::io(path(), "list")(errno))?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            match self.leaves_out(directory, &fd, name, entry.file_type()) {
                Ok(true) => {}
                Ok(false) => names.push((name.into(), Ok(()))),
                Err(error) => names.push((name.into(), Err(error))),
            }
        }
        names.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let by_name = has_own_directory && rustix::process::fchdir(&fd).is_ok();
        let xattr_directory = if by_name {
            Vec::new()
        } else {
            xattr_directory(&fd, path)
        };
        let listed = names.into_iter().map(|(name, result)| {
            let entry = result.and_then(|()| {
                self.entry(&fd, &xattr_directory, &name)
                    .map_err(|errno| entry_error(path().join(OsStr::from_bytes(&name)), errno))
            });
            (name, entry)
        });
        Ok(listed.collect())
    }

    fn open(&self, directory: &Directory) -> Result<OwnedFd, Errno> {
        let root = self.source.root().ok_or(Errno::NOTDIR)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        open_beneath(root, &directory.names(), flags)
    }

    /// Returns true if the rules or the options leave an entry out.
    fn leaves_out(
        &self,
        directory: &Directory,
        fd: &OwnedFd,
        name: &[u8],
        listed: FileType,
    ) -> Result<bool> {
        let (rules, unreadable) = (self.options.rules, self.options.unreadable);
        if rules.exclude.is_empty() && unreadable.is_empty() {
            return Ok(false);
        }
        let path = directory.path().join(OsStr::from_bytes(name));
        if unreadable.contains(&path) {
            return Ok(true);
        }
        let mut kind = listed;
        // Not every filesystem lists the types of entries.
        if kind == FileType::Unknown {
            let stat = rustix::fs::statat(fd, name, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|errno| entry_error(self.source.path.join(&path), errno))?;
            kind = FileType::from_raw_mode(stat.st_mode);
        }
        let path = path.as_os_str().as_bytes();
        Ok(rules.excludes(path, kind == FileType::Directory))
    }

    /// Examines an entry of an open directory. `xattr_directory` is a path of the directory with a slash at
    /// its end, or empty if it is the working directory.
    fn entry(&self, fd: &OwnedFd, xattr_directory: &[u8], name: &[u8]) -> Result<Listed, Errno> {
        let stat = rustix::fs::statat(fd, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let file_type = FileType::from_raw_mode(stat.st_mode);
        if self.options.skip_unreadable && file_type == FileType::RegularFile {
            source::check_readable(fd, name)?;
        }
        let kind = kind(fd, name, &stat)?;
        let path = [xattr_directory, name].concat();
        let xattrs = xattrs::read(&path, &self.options.rules.xattrs)?;
        let subdirectory = if file_type != FileType::Directory {
            Subdirectory::None
        } else if self.options.store == Some((stat.st_dev, stat.st_ino)) {
            Subdirectory::Store
        } else if self.options.one_file_system && stat.st_dev != self.device {
            Subdirectory::MountPoint
        } else {
            Subdirectory::Listed(ROOT)
        };
        Ok(Listed {
            stat,
            kind,
            xattrs,
            subdirectory,
        })
    }

    fn stop(&self) {
        lock(&self.state).is_over = true;
        self.found.notify_all();
        self.listed.notify_all();
    }
}

/// Ends the threads when it is dropped.
struct Stop<'l, 'a>(&'l Lister<'a>);

impl Drop for Stop<'_, '_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Ends the walk, which would wait for a thread that has panicked.
struct StopIfPanicking<'l, 'a>(&'l Lister<'a>);

impl Drop for StopIfPanicking<'_, '_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.stop();
        }
    }
}

/// Returns a path of an open directory, with a slash at its end, by which extended attributes are read.
pub(super) fn xattr_directory(fd: &OwnedFd, path: impl FnOnce() -> PathBuf) -> Vec<u8> {
    let mut directory = path_of(fd);
    if rustix::fs::stat(&directory).is_err() {
        directory = path();
    }
    // For the slash.
    directory.push("");
    directory.into_os_string().into_vec()
}

/// Returns the error of an entry that cannot be examined.
pub(super) fn entry_error(path: PathBuf, errno: Errno) -> Error {
    match errno {
        Errno::NOENT => BuildError::Changed {
            path,
            change: Change::Vanished,
        }
        .into(),
        errno => Error::io(path, "examine")(errno),
    }
}

/// Returns the type of an entry of an open directory; a directory is empty.
pub(super) fn kind(fd: &OwnedFd, name: &[u8], stat: &Stat) -> Result<Kind, Errno> {
    let (major, minor) = (
        rustix::fs::major(stat.st_rdev),
        rustix::fs::minor(stat.st_rdev),
    );
    Ok(match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Kind::File(FileState {
            size: stat.st_size as u64,
            origin: Origin::Directory(Seen::of(stat)),
        }),
        FileType::Directory => Kind::Directory(Vec::new()),
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(fd, name, Vec::new())?;
            Kind::Symlink(target.into_bytes())
        }
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
        FileType::CharacterDevice => Kind::CharDevice(major, minor),
        FileType::BlockDevice => Kind::BlockDevice(major, minor),
        FileType::Unknown => return Err(Errno::INVAL),
    })
}
