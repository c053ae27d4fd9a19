// SPDX-License-Identifier: MIT OR Apache-2.0

//! From an image to a directory.
//!
//! No path of an image is resolved: everything is made by one name in a directory that was made
//! before, opened without following symbolic links.

use crate::acl;
use crate::beneath::open_beneath;
use crate::contents::Extent;
use crate::error::{Error, Result};
use crate::message::printable;
use crate::pause::{self, Point};
use crate::progress::Progress;
use crate::reader::{Blobs, ImageReader};
use crate::store::{Image, Store};
use crate::visit::Descent;
use puzzlefs_schema::{Inode, Kind, Locator, Timestamp, ROOT_INO};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, CWD};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// What was extracted.
#[derive(Debug, Default)]
pub struct Extracted {
    /// The names made.
    pub entries: u64,
    /// The bytes of regular files, each inode once.
    pub bytes: u64,
    /// Inodes whose owner could not be set, for want of privilege.
    pub not_owned: u64,
    /// Names of devices that were left out, for want of privilege.
    pub no_devices: u64,
    /// Inodes without extended attributes that this user may not set, or the filesystem does not
    /// take there.
    pub no_xattrs: u64,
    /// The first of these attributes, and why it was left out.
    pub first_no_xattr: Option<Error>,
}

/// Extracts an image into a directory, which is made if it is not there and must be empty.
///
/// As root, everything is as in the image. Others get their own files, and what they may not set
/// (owners, `trusted.` and `security.` attributes) or make (devices) is left out and counted; with an
/// owner go the set-uid and set-gid bits: whose the program was to run as is not who has it now.
/// Attributes that the filesystem does not take are left out and counted for everybody.
///
/// What an interrupted extraction made so far stays.
pub fn extract(
    store: &Store,
    image: &Image,
    target: &Path,
    progress: &Progress,
) -> Result<Extracted> {
    let reader = ImageReader::new(store, image)?;
    std::fs::create_dir_all(target).map_err(Error::io(target, "make it"))?;
    let mut entries = std::fs::read_dir(target).map_err(Error::io(target, "list it"))?;
    if entries.next().is_some() {
        return Err(Error::store(target, "not empty; give a new directory"));
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = fs::open(target, flags, Mode::empty()).map_err(Error::io(target, "open it"))?;
    // What it has got from the directory that it is in, all that is made in it would get, too.
    let proc_path = format!("/proc/self/fd/{}", root.as_raw_fd());
    for list in ["system.posix_acl_default", "system.posix_acl_access"] {
        match fs::removexattr(&proc_path, list) {
            // A filesystem without them.
            Ok(()) | Err(Errno::NODATA | Errno::NOTSUP) => {}
            Err(errno) => {
                return Err(Error::io(target, "remove its access control list")(errno));
            }
        }
    }
    let mut extractor = Extractor {
        reader: &reader,
        progress,
        target,
        root,
        privileged: rustix::process::geteuid().is_root(),
        blobs: Blobs::checked(),
        made: Extracted::default(),
    };
    extractor.run().map_err(Error::outside_stores)?;
    Ok(extractor.made)
}

struct Extractor<'a> {
    reader: &'a ImageReader<'a>,
    progress: &'a Progress,
    target: &'a Path,
    root: OwnedFd,
    privileged: bool,
    blobs: Blobs,
    made: Extracted,
}

/// What attributes are set of.
#[derive(Clone, Copy)]
enum Place<'a> {
    /// A directory: what it has got already may forbid to look a name up in it.
    Open(BorrowedFd<'a>),
    /// A name in a directory; a symlink itself.
    Entry(BorrowedFd<'a>, &'a [u8]),
}

impl Place<'_> {
    fn set_owner(self, uid: Uid, gid: Gid) -> Result<(), Errno> {
        match self {
            Place::Open(fd) => fs::fchown(fd, Some(uid), Some(gid)),
            Place::Entry(directory, name) => {
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                fs::chownat(directory, name, Some(uid), Some(gid), flags)
            }
        }
    }

    fn set_xattr(self, name: &[u8], value: &[u8]) -> Result<(), Errno> {
        let flags = fs::XattrFlags::empty();
        match self {
            Place::Open(fd) => fs::fsetxattr(fd, name, value, flags),
            Place::Entry(directory, entry) => {
                let mut path = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
                path.extend_from_slice(entry);
                fs::lsetxattr(path, name, value, flags)
            }
        }
    }

    /// Not of a symlink.
    fn set_mode(self, mode: Mode) -> Result<(), Errno> {
        match self {
            Place::Open(fd) => fs::fchmod(fd, mode),
            Place::Entry(directory, name) => fs::chmodat(directory, name, mode, AtFlags::empty()),
        }
    }

    fn set_times(self, times: &Timestamps) -> Result<(), Errno> {
        match self {
            Place::Open(fd) => fs::futimens(fd, times),
            Place::Entry(directory, name) => {
                fs::utimensat(directory, name, times, AtFlags::SYMLINK_NOFOLLOW)
            }
        }
    }
}

/// The set-uid and set-gid bits.
const SET_ID: u16 = 0o6000;

/// The names that lead to something from the root.
type Names<'a> = Vec<&'a [u8]>;

impl<'a> Extractor<'a> {
    fn run(&mut self) -> Result<()> {
        let root = self.reader.checked(self.reader.metadata().find(ROOT_INO))?;
        // Directories get their attributes last, children before parents: what is made in them
        // moves their times, and they may be read-only.
        let mut directories: Vec<(Names<'a>, Locator)> = Vec::new();
        let mut pending: Vec<(Names<'a>, Locator)> = vec![(Vec::new(), root)];
        let mut descent = Descent::new(self.reader);
        let mut links: HashMap<u64, Names<'a>> = HashMap::new();
        while let Some((names, at)) = pending.pop() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            let directory = open_beneath(&self.root, &names, flags)
                .map_err(|errno| self.error(&names, "open it", errno))?;
            for entry in descent.enter(at)? {
                self.progress.check()?;
                self.progress.found_entry();
                let mut path = names.clone();
                path.push(entry.name);
                let inode = self
                    .reader
                    .checked(self.reader.metadata().inode_at(entry.at))?;
                self.made.entries += 1;
                if inode.kind() == Kind::Dir {
                    fs::mkdirat(&directory, entry.name, Mode::RWXU)
                        .map_err(|errno| self.error(&path, "make the directory", errno))?;
                    pending.push((path, entry.at));
                } else if let Some(first) = links.get(&entry.ino) {
                    self.link(first, &directory, entry.name)
                        .map_err(|errno| self.error(&path, "link it", errno))?;
                } else {
                    let made = self.make(&path, &directory, entry.name, &inode)?;
                    if made && inode.nlink() != Some(1) {
                        links.insert(entry.ino, path);
                    }
                }
                pause::at(Point::Extracted);
            }
            directories.push((names, at));
        }
        for (names, at) in directories.into_iter().rev() {
            let inode = self.reader.checked(self.reader.metadata().inode_at(at))?;
            let fd = open_beneath(&self.root, &names, OFlags::RDONLY | OFlags::DIRECTORY)
                .map_err(|errno| self.error(&names, "open it", errno))?;
            self.attributes(&names, Place::Open(fd.as_fd()), &inode)?;
        }
        Ok(())
    }

    fn link(&self, first: &[&[u8]], directory: &OwnedFd, name: &[u8]) -> Result<(), Errno> {
        let file = open_beneath(&self.root, first, OFlags::PATH)?;
        let file = format!("/proc/self/fd/{}", file.as_raw_fd());
        fs::linkat(CWD, file, directory, name, AtFlags::SYMLINK_FOLLOW)
    }

    /// Makes anything but a directory, and says whether it did.
    fn make(
        &mut self,
        path: &[&[u8]],
        directory: &OwnedFd,
        name: &[u8],
        inode: &Inode<'_>,
    ) -> Result<bool> {
        let node = |kind: FileType, device: u64| {
            fs::mknodat(directory, name, kind, Mode::RUSR | Mode::WUSR, device)
        };
        let result = match inode.kind() {
            Kind::File => {
                self.file(path, directory, name, inode)?;
                return Ok(true);
            }
            Kind::Symlink => {
                let target = self.reader.checked(inode.symlink_target())?;
                fs::symlinkat(target, directory, name)
            }
            Kind::Fifo => node(FileType::Fifo, 0),
            Kind::Sock => node(FileType::Socket, 0),
            Kind::Chr { major, minor } => {
                node(FileType::CharacterDevice, fs::makedev(major, minor))
            }
            Kind::Blk { major, minor } => node(FileType::BlockDevice, fs::makedev(major, minor)),
            Kind::Dir | Kind::Whiteout | Kind::Unknown => {
                let what = "the image says nothing of its type";
                return Err(Error::store(self.path(path), what));
            }
        };
        let is_device = matches!(inode.kind(), Kind::Chr { .. } | Kind::Blk { .. });
        if result == Err(Errno::PERM) && is_device && !self.privileged {
            self.made.no_devices += 1;
            return Ok(false);
        }
        result.map_err(|errno| self.error(path, "make it", errno))?;
        self.attributes(path, Place::Entry(directory.as_fd(), name), inode)?;
        Ok(true)
    }

    fn file(
        &mut self,
        path: &[&[u8]],
        directory: &OwnedFd,
        name: &[u8],
        inode: &Inode<'_>,
    ) -> Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = fs::openat(directory, name, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|errno| self.error(path, "make it", errno))?;
        let file = File::from(file);
        let full_path = self.path(path);
        let mut at = 0;
        // A hole is many references to one chunk of zeros, which is read once.
        let mut zeros = None;
        let progress = self.progress;
        for extent in self.reader.checked(inode.extents())?.iter_from(0, 0) {
            let (_, chunk) = self.reader.checked(extent)?;
            let extent = Extent::from(chunk);
            if zeros == Some(extent) {
                at += extent.length;
                continue;
            }
            let mut is_zero = true;
            self.reader.read_extent(&extent, &mut self.blobs, |bytes| {
                progress.check()?;
                // Zeros stay holes.
                if bytes.iter().any(|&byte| byte != 0) {
                    is_zero = false;
                    file.write_all_at(bytes, at)
                        .map_err(Error::io(&full_path, "write it"))?;
                }
                at += bytes.len() as u64;
                Ok(())
            })?;
            if is_zero {
                zeros = Some(extent);
            }
        }
        file.set_len(at)
            .map_err(Error::io(&full_path, "set its size"))?;
        self.made.bytes += at;
        drop(file);
        self.attributes(path, Place::Entry(directory.as_fd(), name), inode)
    }

    /// Sets owner, extended attributes, permissions and time. In this order: a change of owner
    /// takes set-uid bits and file capabilities away, and an ACL has a say in the permissions.
    fn attributes(&mut self, path: &[&[u8]], place: Place<'_>, inode: &Inode<'_>) -> Result<()> {
        let (uid, gid) = (Uid::from_raw(inode.uid()), Gid::from_raw(inode.gid()));
        let mut permissions = inode.permissions();
        match place.set_owner(uid, gid) {
            Ok(()) => {}
            Err(Errno::PERM) if !self.privileged => {
                self.made.not_owned += 1;
                if inode.kind() != Kind::Dir {
                    permissions &= !SET_ID;
                }
            }
            Err(errno) => return Err(self.error(path, "set its owner", errno)),
        }
        let mut all_set = true;
        for xattr in self.reader.checked(inode.xattrs())?.iter() {
            let xattr = self.reader.checked(xattr)?;
            match place.set_xattr(xattr.name, xattr.value) {
                Ok(()) => {}
                Err(errno @ (Errno::PERM | Errno::ACCESS | Errno::NOTSUP)) => {
                    all_set = false;
                    if xattr.name == acl::ACCESS {
                        let bits = acl::mode_without(xattr.value).unwrap_or_default();
                        permissions &= 0o7000 | bits;
                    }
                    if self.made.first_no_xattr.is_none() {
                        let what = format!("cannot set {}: {errno}", printable(xattr.name));
                        self.made.first_no_xattr = Some(Error::store(self.path(path), what));
                    }
                }
                Err(errno) => {
                    return Err(self.error(path, "set its extended attributes", errno));
                }
            }
        }
        self.made.no_xattrs += u64::from(!all_set);
        if inode.kind() != Kind::Symlink {
            let mode = Mode::from_raw_mode(permissions.into());
            place
                .set_mode(mode)
                .map_err(|errno| self.error(path, "set its permissions", errno))?;
        }
        let Timestamp {
            seconds,
            nanoseconds,
        } = self.reader.checked(inode.mtime())?;
        let time = Timespec {
            tv_sec: seconds,
            tv_nsec: nanoseconds.into(),
        };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        place
            .set_times(&times)
            .map_err(|errno| self.error(path, "set its times", errno))
    }

    fn path(&self, names: &[&[u8]]) -> PathBuf {
        let mut path = self.target.to_path_buf();
        path.extend(names.iter().map(|name| OsStr::from_bytes(name)));
        path
    }

    fn error(&self, names: &[&[u8]], action: &'static str, errno: Errno) -> Error {
        Error::io(self.path(names), action)(errno)
    }
}
