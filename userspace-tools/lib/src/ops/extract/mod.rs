// SPDX-License-Identifier: MIT OR Apache-2.0

//! From an image to a directory.
//!
//! No path of an image is resolved: everything is made by one name in a directory that was made
//! before, opened without following symbolic links.

mod refusal;

pub use refusal::{Refusal, RefusalKind, Refusals};

use crate::error::{is_full, CommandError, Error, Result};
use crate::image::file_data::{FileData, Piece};
use crate::image::image_tree::{Descent, ImageTree, InodeLink, TreeInode};
use crate::model::acl;
use crate::model::message::printable;
use crate::model::path_walk::LastLink;
use crate::store::oci_layout::{AnyRoot, Store};
use crate::sys::beneath::{open_beneath, path_of};
use crate::sys::pause::{self, Point};
use crate::sys::progress::Progress;
use puzzlefs_schema::image::Stat as Attributes;
use puzzlefs_schema::{Kind, Timestamp};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{
    self, AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, CWD,
};
use rustix::io::Errno;
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The result of an extraction.
#[derive(Debug, Default)]
pub struct Extracted {
    /// The number of names made.
    pub entries: u64,
    /// The bytes of regular files, each inode once.
    pub bytes: u64,
    /// The number of inodes that lack an extended attribute or an access control list.
    pub no_xattrs: u64,
    /// Everything that the target refused.
    pub refusals: Refusals,
}

/// Extracts an image, or the part of it at `path`, into a directory, which is made if it does not
/// exist and must be empty.
///
/// If `path` names a directory, its contents go into the target, and the target gets its attributes.
/// Any other file is put into the target under its own name.
///
/// Root gets everything as it is in the image. An ordinary user owns the extracted files. If the owner
/// of a file cannot be set, its set-uid and set-gid bits are dropped, because the program would run as
/// another user than the image says. If the target refuses anything else, that is counted in
/// [`Extracted::refusals`], and the extraction goes on.
///
/// # Errors
///
/// The extraction ends early if the target's filesystem is full, if the image cannot be read, or if it
/// is interrupted. The files that were made by then stay.
pub fn extract(
    store: &Store,
    image: &AnyRoot,
    path: Option<&[u8]>,
    target: &Path,
    progress: &Progress,
) -> Result<Extracted> {
    let tree = ImageTree::new(store, image)?;
    let path = path.unwrap_or_default();
    let from = tree.resolve(path, LastLink::Keep)?;
    std::fs::create_dir_all(target).map_err(Error::io(target, "create"))?;
    let mut entries = std::fs::read_dir(target).map_err(Error::io(target, "list"))?;
    if entries.next().is_some() {
        let path = target.into();
        return Err(CommandError::TargetNotEmpty { path }.into());
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = fs::open(target, flags, Mode::empty()).map_err(Error::io(target, "open"))?;
    let mut extractor = Extractor {
        image: &tree,
        progress,
        target,
        root,
        privileged: rustix::process::geteuid().is_root(),
        data: FileData::checked(),
        links: HashMap::new(),
        made: Extracted::default(),
    };
    extractor.remove_inherited_lists();
    extractor.run(&from, path).map_err(Error::outside_stores)?;
    Ok(extractor.made)
}

struct Extractor<'a> {
    image: &'a ImageTree<'a>,
    progress: &'a Progress,
    target: &'a Path,
    root: OwnedFd,
    privileged: bool,
    data: FileData,
    /// The latest name that was made of each inode with several names.
    links: HashMap<u64, Names>,
    made: Extracted,
}

/// The object whose attributes are set.
#[derive(Clone, Copy)]
enum Place<'a> {
    /// An open directory or regular file. The permissions of a directory may forbid to look up names
    /// in it, so it is not named.
    Open(BorrowedFd<'a>),
    /// A name in a directory. It means a symbolic link itself.
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
                let path = path_of(directory).join(OsStr::from_bytes(entry));
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

    fn stat(self) -> Result<Stat, Errno> {
        match self {
            Place::Open(fd) => fs::fstat(fd),
            Place::Entry(directory, name) => fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW),
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
type Names = Vec<Arc<[u8]>>;

/// An inode of the image, and its attributes.
struct Source<'i> {
    inode: &'i TreeInode,
    attributes: Attributes,
}

/// The range of times, in seconds, that every filesystem can store: FAT begins with 1980, in an unknown
/// time zone, and older filesystems end in 2038.
const COMMON_TIMES: Range<i64> = 315_619_200..i32::MAX as i64;
/// The granularity of times on FAT, in seconds.
const TIME_GRANULARITY: u64 = 2;

impl Extractor<'_> {
    /// Removes the access control lists that the target inherited from its parent directory, because
    /// everything that is made in the target would inherit them too.
    fn remove_inherited_lists(&mut self) {
        let proc_path = path_of(&self.root);
        for list in [acl::DEFAULT, acl::ACCESS] {
            let Err(errno) = fs::removexattr(&proc_path, list) else {
                continue;
            };
            // Only the owner of a directory may remove a list, even if it has none.
            if fs::getxattr(&proc_path, list, &mut [0; 0]).is_ok() {
                let list = printable(list);
                let cause = || format!("cannot remove the inherited {list}: {errno}");
                self.refuse(RefusalKind::Acl, &[], cause);
            }
        }
    }

    fn source<'i>(&self, inode: &'i TreeInode) -> Result<Source<'i>> {
        Ok(Source {
            inode,
            attributes: self.image.stat(inode)?,
        })
    }

    fn run(&mut self, from: &TreeInode, path: &[u8]) -> Result<()> {
        let source = self.source(from)?;
        if source.attributes.kind == Kind::Dir {
            return self.tree(from);
        }
        let mut names = path.split(|&byte| byte == b'/').rev();
        let name = names.find(|name| !name.is_empty()).unwrap_or(path);
        let root = open_beneath(
            &self.root,
            &[] as &[&[u8]],
            OFlags::RDONLY | OFlags::DIRECTORY,
        )
        .map_err(|errno| self.error(&[], "open", errno))?;
        let name = NewName {
            path: &[name.into()],
            directory: &root,
        };
        self.make(name, &source)?;
        Ok(())
    }

    /// Extracts a directory of the image, with everything beneath it.
    fn tree(&mut self, from: &TreeInode) -> Result<()> {
        // Directories get their attributes last, children before parents: names that are made in them
        // change their times, and they may be read-only.
        let mut directories: Vec<(Names, InodeLink)> = Vec::new();
        let mut pending: Vec<(Names, InodeLink)> = vec![(Vec::new(), self.image.link(from))];
        let mut descent = Descent::new(self.image);
        while let Some((names, link)) = pending.pop() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            let directory = match open_beneath(&self.root, &names, flags) {
                Ok(directory) => directory,
                Err(errno) => {
                    let cause = || format!("cannot open it: {errno}");
                    self.refuse(RefusalKind::Directory, &names, cause);
                    continue;
                }
            };
            descent.check_depth(names.len())?;
            for entry in descent.enter(&self.image.open(&link)?)? {
                self.progress.check()?;
                self.progress.found_entry();
                let mut path = names.clone();
                path.push(Arc::clone(&entry.name));
                let inode = self.image.open(&entry.link)?;
                let source = self.source(&inode)?;
                if source.attributes.kind != Kind::Dir {
                    self.name(path, &directory, &source)?;
                } else if let Err(errno) = fs::mkdirat(&directory, &*entry.name, Mode::RWXU) {
                    self.not_made(RefusalKind::Directory, &path, errno)?;
                } else {
                    self.made.entries += 1;
                    pending.push((path, entry.link));
                }
                pause::at(Point::Extracted);
            }
            directories.push((names, link));
        }
        for (names, link) in directories.into_iter().rev() {
            match open_beneath(&self.root, &names, OFlags::RDONLY | OFlags::DIRECTORY) {
                Ok(fd) => {
                    let inode = self.image.open(&link)?;
                    let source = self.source(&inode)?;
                    self.attributes(&names, Place::Open(fd.as_fd()), &source)?;
                }
                Err(errno) => {
                    let cause = || format!("cannot open it: {errno}");
                    self.refuse(RefusalKind::Permissions, &names, cause);
                }
            }
        }
        Ok(())
    }

    /// Makes a name of an inode that is not a directory: a link, if another name was made before.
    fn name(&mut self, path: Names, directory: &OwnedFd, source: &Source<'_>) -> Result<()> {
        let ino = self.image.ino(source.inode);
        let new = NewName {
            path: &path,
            directory,
        };
        let not_linked = match self.links.get(&ino) {
            None => None,
            Some(first) => match self.link(first, directory, new.name()) {
                Ok(()) => {
                    self.made.entries += 1;
                    return Ok(());
                }
                Err(errno) => Some(errno),
            },
        };
        if let Some(errno) = not_linked.filter(|errno| self.is_full(*errno)) {
            return Err(self.error(&path, "link", errno));
        }
        let bytes = self.made.bytes;
        if !self.make(new, source)? {
            return Ok(());
        }
        if let Some(errno) = not_linked {
            self.made.bytes = bytes;
            self.refuse(RefusalKind::Link, &path, || {
                io::Error::from(errno).to_string()
            });
        }
        if source.attributes.links != Some(1) {
            // Further names are links to this one: an inode with too many links takes no more.
            self.links.insert(ino, path);
        }
        Ok(())
    }

    fn link(&self, first: &[Arc<[u8]>], directory: &OwnedFd, name: &[u8]) -> Result<(), Errno> {
        let file = open_beneath(&self.root, first, OFlags::PATH)?;
        fs::linkat(
            CWD,
            path_of(&file),
            directory,
            name,
            AtFlags::SYMLINK_FOLLOW,
        )
    }

    /// Makes anything but a directory. Returns false if the target refuses it.
    fn make(&mut self, new: NewName<'_>, source: &Source<'_>) -> Result<bool> {
        let NewName { path, directory } = new;
        let name = new.name();
        let node = |kind: FileType, device: u64| {
            fs::mknodat(directory, name, kind, Mode::RUSR | Mode::WUSR, device)
        };
        let (kind, result) = match source.attributes.kind {
            Kind::File => return self.file(new, source),
            Kind::Symlink => {
                let target = self.image.symlink_target(source.inode)?;
                let made = fs::symlinkat(target, directory, name);
                (RefusalKind::Symlink, made)
            }
            Kind::Fifo => (RefusalKind::Special, node(FileType::Fifo, 0)),
            Kind::Sock => (RefusalKind::Special, node(FileType::Socket, 0)),
            Kind::Chr { major, minor } => {
                let made = node(FileType::CharacterDevice, fs::makedev(major, minor));
                (RefusalKind::Device, made)
            }
            Kind::Blk { major, minor } => {
                let made = node(FileType::BlockDevice, fs::makedev(major, minor));
                (RefusalKind::Device, made)
            }
            Kind::Dir | Kind::Whiteout | Kind::Unknown => {
                let path = self.path(path);
                return Err(CommandError::UnknownFileType { path }.into());
            }
        };
        if let Err(errno) = result {
            self.not_made(kind, path, errno)?;
            return Ok(false);
        }
        self.made.entries += 1;
        self.attributes(path, Place::Entry(directory.as_fd(), name), source)?;
        Ok(true)
    }

    /// Makes a regular file. Returns false if the target refuses it.
    fn file(&mut self, new: NewName<'_>, source: &Source<'_>) -> Result<bool> {
        let NewName { path, directory } = new;
        let name = new.name();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = match fs::openat(directory, name, flags, Mode::RUSR | Mode::WUSR) {
            Ok(file) => File::from(file),
            Err(errno) => {
                self.not_made(RefusalKind::File, path, errno)?;
                return Ok(false);
            }
        };
        match self.contents(&file, source.inode)? {
            Written::All(size) => self.made.bytes += size,
            Written::Refused(action, cause) => {
                // Data that does not fit is never the fault of the one file.
                if is_full(&cause) {
                    return Err(Error::io(self.path(path), action)(cause));
                }
                // A part of a file would be taken for the file. If it cannot be removed, its owner
                // alone can read it.
                let _ = fs::unlinkat(directory, name, AtFlags::empty());
                self.refuse(RefusalKind::File, path, || {
                    format!("cannot {action} it: {cause}")
                });
                return Ok(false);
            }
        }
        self.made.entries += 1;
        self.attributes(path, Place::Open(file.as_fd()), source)?;
        Ok(true)
    }

    /// Writes the contents of a regular file.
    fn contents(&mut self, file: &File, inode: &TreeInode) -> Result<Written> {
        let mut at = 0;
        let mut refused = None;
        let progress = self.progress;
        let read = self
            .image
            .read_pieces(inode, 0..u64::MAX, &mut self.data, |piece| {
                progress.check()?;
                let bytes = match piece {
                    Piece::Data(bytes) => bytes,
                    Piece::Hole(length) => {
                        at += length;
                        return Ok(());
                    }
                };
                // Zeros stay holes.
                if bytes.iter().any(|&byte| byte != 0) {
                    if let Err(cause) = file.write_all_at(bytes, at) {
                        refused = Some(cause);
                        // Ends the read. The cause above is the one that counts.
                        return Err(Error::Interrupted);
                    }
                }
                at += bytes.len() as u64;
                Ok(())
            });
        if let Some(cause) = refused {
            return Ok(Written::Refused("write", cause));
        }
        read?;
        match file.set_len(at) {
            Ok(()) => Ok(Written::All(at)),
            Err(cause) => Ok(Written::Refused("resize", cause)),
        }
    }

    /// Sets owner, extended attributes, permissions and time. In this order: a change of owner
    /// clears set-uid bits and file capabilities, and an ACL changes the permissions.
    fn attributes(
        &mut self,
        path: &[Arc<[u8]>],
        place: Place<'_>,
        source: &Source<'_>,
    ) -> Result<()> {
        let attributes = &source.attributes;
        let mut permissions = attributes.permissions;
        let (uid, gid) = (Uid::from_raw(attributes.uid), Gid::from_raw(attributes.gid));
        if let Err(errno) = place.set_owner(uid, gid) {
            let kind = match errno {
                Errno::PERM if !self.privileged => RefusalKind::OwnerPrivilege,
                _ => RefusalKind::Owner,
            };
            self.refuse(kind, path, || io::Error::from(errno).to_string());
            if attributes.kind != Kind::Dir {
                permissions &= !SET_ID;
            }
        }
        permissions &= self.xattrs(path, place, source.inode)?;
        if attributes.kind != Kind::Symlink {
            self.permissions(path, place, permissions);
        }
        self.time(path, place, attributes.mtime);
        Ok(())
    }

    /// Sets extended attributes, and returns the permissions that the file can have without those
    /// that were refused.
    fn xattrs(&mut self, path: &[Arc<[u8]>], place: Place<'_>, inode: &TreeInode) -> Result<u16> {
        let mut permissions = 0o7777;
        // An inode counts once for each kind.
        let mut refused = BTreeMap::new();
        for (xattr_name, value) in self.image.xattrs(inode)? {
            let Err(errno) = place.set_xattr(&xattr_name, &value) else {
                continue;
            };
            let is_list = xattr_name == acl::ACCESS || xattr_name == acl::DEFAULT;
            let kind = match errno {
                Errno::PERM | Errno::ACCESS if !self.privileged => RefusalKind::XattrPrivilege,
                _ if is_list => RefusalKind::Acl,
                _ => RefusalKind::Xattr,
            };
            if xattr_name == acl::ACCESS {
                let bits = acl::mode_without(&value).unwrap_or_default();
                permissions &= 0o7000 | bits;
            }
            // ENOSPC means here that the attribute is too large, not that the filesystem is full.
            let name = printable(&xattr_name);
            let what = match errno {
                Errno::NOSPC | Errno::TOOBIG | Errno::RANGE => {
                    format!("{name} of {} bytes", value.len())
                }
                _ => name,
            };
            refused.entry(kind).or_insert((what, errno));
        }
        self.made.no_xattrs += u64::from(!refused.is_empty());
        for (kind, (what, errno)) in refused {
            let cause = || format!("{what}: {}", io::Error::from(errno));
            self.refuse(kind, path, cause);
        }
        Ok(permissions)
    }

    /// Sets the permissions. A filesystem that has none, such as FAT, ignores them without an error.
    fn permissions(&mut self, path: &[Arc<[u8]>], place: Place<'_>, wanted: u16) {
        const ACCESS: u32 = 0o777;
        let mode = Mode::from_raw_mode(wanted.into());
        match place.set_mode(mode).and_then(|()| place.stat()) {
            Ok(stat) if stat.st_mode & ACCESS == u32::from(wanted) & ACCESS => {}
            Ok(stat) => {
                let found = stat.st_mode & 0o7777;
                let cause = || format!("{wanted:04o}: it became {found:04o}");
                self.refuse(RefusalKind::Permissions, path, cause);
            }
            Err(errno) => {
                let cause = || format!("{wanted:04o}: {}", io::Error::from(errno));
                self.refuse(RefusalKind::Permissions, path, cause);
            }
        }
    }

    /// Sets the time. A filesystem stores a time that is out of its range as another one, without an
    /// error.
    fn time(&mut self, path: &[Arc<[u8]>], place: Place<'_>, time: Timestamp) {
        let Timestamp {
            seconds,
            nanoseconds,
        } = time;
        let time = Timespec {
            tv_sec: seconds,
            tv_nsec: nanoseconds.into(),
        };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        let set = place.set_times(&times).and_then(|()| {
            if COMMON_TIMES.contains(&seconds) {
                return Ok(seconds);
            }
            place.stat().map(|stat| stat.st_mtime)
        });
        let wanted = || crate::model::time::utc(seconds);
        match set {
            Ok(found) if found.abs_diff(seconds) <= TIME_GRANULARITY => {}
            Ok(found) => {
                let cause =
                    || format!("{}: it became {}", wanted(), crate::model::time::utc(found));
                self.refuse(RefusalKind::Time, path, cause);
            }
            Err(errno) => {
                let cause = || format!("{}: {}", wanted(), io::Error::from(errno));
                self.refuse(RefusalKind::Time, path, cause);
            }
        }
    }

    /// Counts a name that the target refuses, or fails if its filesystem is full.
    fn not_made(&mut self, kind: RefusalKind, path: &[Arc<[u8]>], errno: Errno) -> Result<()> {
        if self.is_full(errno) {
            return Err(self.error(path, "create", errno));
        }
        self.refuse(kind, path, || io::Error::from(errno).to_string());
        Ok(())
    }

    /// Returns true if a name was not made because the filesystem is full. ext4 also returns ENOSPC if
    /// only the index of a directory is full.
    fn is_full(&self, errno: Errno) -> bool {
        const ROOM: u64 = 1 << 20;
        const INODES: u64 = 16;
        let has_room = || {
            let stat = fs::fstatvfs(&self.root).ok()?;
            let blocks = if self.privileged {
                stat.f_bfree
            } else {
                stat.f_bavail
            };
            let room = blocks.saturating_mul(stat.f_frsize) >= ROOM;
            // A filesystem that makes inodes as needed counts none.
            Some(room && (stat.f_files == 0 || stat.f_favail >= INODES))
        };
        match errno {
            Errno::DQUOT => true,
            Errno::NOSPC => has_room() != Some(true),
            _ => false,
        }
    }

    fn refuse(&mut self, kind: RefusalKind, path: &[Arc<[u8]>], cause: impl FnOnce() -> String) {
        let target = self.target;
        let refusals = &mut self.made.refusals;
        refusals.add(kind, || path_beneath(target, path), cause);
    }

    fn path(&self, names: &[Arc<[u8]>]) -> PathBuf {
        path_beneath(self.target, names)
    }

    fn error(&self, names: &[Arc<[u8]>], action: &'static str, errno: Errno) -> Error {
        Error::io(self.path(names), action)(errno)
    }
}

/// A name to make in a directory.
#[derive(Clone, Copy)]
struct NewName<'n> {
    /// The names from the target on.
    path: &'n [Arc<[u8]>],
    directory: &'n OwnedFd,
}

impl<'n> NewName<'n> {
    /// The last name.
    fn name(&self) -> &'n [u8] {
        self.path.last().map_or(b"", |name| name)
    }
}

/// The outcome of writing the contents of a file.
enum Written {
    /// All of it, with its size in bytes.
    All(u64),
    /// The target refused an action.
    Refused(&'static str, io::Error),
}

fn path_beneath(target: &Path, names: &[Arc<[u8]>]) -> PathBuf {
    let mut path = target.to_path_buf();
    path.extend(names.iter().map(|name| OsStr::from_bytes(name)));
    path
}
