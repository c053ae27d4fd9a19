// SPDX-License-Identifier: MIT OR Apache-2.0

//! Answers the kernel's requests from the image, by the library's reader.
//!
//! The image does not change, so the kernel may cache every answer. Inode numbers are those of the
//! image, so any inode of a request can be found without a record of the inodes that the kernel knows.
//! The library's caches are bounded.
//!
//! # Locking
//!
//! One mutex, `ImageFs::state`, protects the caches and the blob that is open. It is not held while an
//! error is reported.

use crate::trace::Trace;
use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEntry, ReplyOpen, ReplyStatfs, ReplyXattr, Request,
};
use puzzlefs_lib::error::ImageError;
use puzzlefs_lib::tree::{FileData, ImageTree, InodeLink, Place, TreeInode};
use puzzlefs_lib::{Error, Result};
use puzzlefs_schema::image::{Entry, ImageMetadata};
use puzzlefs_schema::{overlay, Kind, ROOT_INO};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The time for which the kernel may cache an answer.
const TTL: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// The size of a block, as the kernel module reports it.
const BLOCK: u32 = 4096;
/// Number of names before a directory's entries: `.` and `..`.
const DOTS: u64 = 2;

/// An image as a filesystem.
pub(crate) struct ImageFs {
    tree: ImageTree<'static>,
    /// Escape the names of extended attributes that overlayfs claims.
    escape_overlay: bool,
    /// Gets each error for which the kernel gets an errno.
    report: Box<dyn Fn(&Error) + Send + Sync>,
    /// Gets each name that is looked up, and each range that is read.
    trace: Option<Trace>,
    state: Mutex<State>,
}

/// Caches between requests.
struct State {
    data: FileData,
    /// Content for the current read request.
    buffer: Vec<u8>,
    /// The parent of each directory that was looked up.
    parents: HashMap<u64, u64>,
}

impl ImageFs {
    /// Makes a filesystem of an image. `data` decides how data is verified.
    pub(crate) fn new(
        tree: ImageTree<'static>,
        data: FileData,
        escape_overlay: bool,
        trace: Option<Trace>,
        report: impl Fn(&Error) + Send + Sync + 'static,
    ) -> Self {
        ImageFs {
            tree,
            escape_overlay,
            report: Box::new(report),
            trace,
            state: Mutex::new(State {
                data,
                buffer: Vec::new(),
                parents: HashMap::new(),
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn inode(&self, ino: INodeNo) -> Result<TreeInode> {
        self.tree.open_number(ino.0)
    }

    fn find(&self, parent: INodeNo, name: &OsStr) -> Result<Option<FileAttr>> {
        let directory = self.inode(parent)?;
        match self.tree.lookup(&directory, name.as_bytes())? {
            Some(link) => self.entry(parent, &link).map(Some),
            None => Ok(None),
        }
    }

    /// Returns the attributes of a directory's entry.
    fn entry(&self, parent: INodeNo, link: &InodeLink) -> Result<FileAttr> {
        let attributes = self.attributes(&self.tree.open(link)?)?;
        if attributes.kind == FileType::Directory {
            self.state().parents.insert(link.ino, parent.0);
        }
        Ok(attributes)
    }

    fn attributes(&self, inode: &TreeInode) -> Result<FileAttr> {
        let stat = self.tree.stat(inode)?;
        let ino = self.tree.ino(inode);
        let (size, mut device) = (stat.size, 0);
        let kind = match stat.kind {
            Kind::File => FileType::RegularFile,
            Kind::Dir => FileType::Directory,
            Kind::Symlink => FileType::Symlink,
            Kind::Chr { major, minor } => {
                device = device_number(major, minor);
                FileType::CharDevice
            }
            Kind::Blk { major, minor } => {
                device = device_number(major, minor);
                FileType::BlockDevice
            }
            Kind::Fifo => FileType::NamedPipe,
            Kind::Sock => FileType::Socket,
            Kind::Whiteout | Kind::Unknown => {
                let what = format!("inode {ino}: its type cannot occur in a directory");
                return Err(self.tree.malformed_by(what));
            }
        };
        let mtime = time(stat.mtime.seconds, stat.mtime.nanoseconds);
        let blocks = match kind {
            FileType::RegularFile => size.div_ceil(512),
            _ => 0,
        };
        Ok(FileAttr {
            ino: INodeNo(ino),
            size,
            blocks,
            atime: mtime,
            mtime,
            ctime: mtime,
            crtime: UNIX_EPOCH,
            kind,
            perm: stat.permissions,
            // The kernel module has the same default for images without link counts.
            nlink: stat.links.unwrap_or(1),
            uid: stat.uid,
            gid: stat.gid,
            rdev: device,
            blksize: BLOCK,
            flags: 0,
        })
    }

    /// Passes a directory's entries from an offset on to `add`, each with the offset after it, until
    /// `add` returns true because it has no room.
    fn list(
        &self,
        ino: INodeNo,
        offset: u64,
        mut add: impl FnMut(Listed<'_, '_>, u64) -> bool,
    ) -> Result<()> {
        let parent = self.state().parents.get(&ino.0).copied();
        let dots = [
            (&b"."[..], ino),
            (b"..", INodeNo(parent.unwrap_or(ROOT_INO))),
        ];
        for (at, (name, ino)) in (1..).zip(dots) {
            if offset < at && add(Listed::Dot(name, ino), at) {
                return Ok(());
            }
        }
        let directory = self.inode(ino)?;
        let cursor = offset.saturating_sub(DOTS);
        let listed = self
            .tree
            .metadata()
            .for_each_entry(&directory, cursor, |entry| {
                if add(Listed::Entry(&entry), entry.cursor.saturating_add(DOTS)) {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            });
        listed.map(|_| ())
    }

    /// Returns the value of an extended attribute; `None` if the inode has none of this name.
    fn xattr(&self, ino: INodeNo, name: &OsStr) -> Result<Option<Vec<u8>>> {
        let parts = if self.escape_overlay {
            overlay::unescape(name.as_bytes())
        } else {
            Some([name.as_bytes(), b""])
        };
        let Some(parts) = parts else {
            return Ok(None);
        };
        let inode = self.inode(ino)?;
        self.tree.metadata().xattr(&inode, parts, <[u8]>::to_vec)
    }

    /// Returns the names of an inode's extended attributes, each followed by a NUL. Only root gets
    /// names of attributes that only root can read.
    fn xattr_names(&self, ino: INodeNo, root: bool) -> Result<Vec<u8>> {
        let mut names = Vec::new();
        let inode = self.inode(ino)?;
        let _ = self.tree.metadata().for_each_xattr_name(&inode, |name| {
            let is_shown = root || !name.starts_with(b"trusted.");
            if is_shown && !self.escape_overlay {
                names.extend_from_slice(name);
                names.push(0);
            } else if is_shown && overlay::can_escape(name) {
                names.extend(overlay::escape(name).concat());
                names.push(0);
            }
            ControlFlow::<()>::Continue(())
        })?;
        Ok(names)
    }

    /// Reports an error, and returns its errno. A malformed image has the kernel module's errno.
    fn errno(&self, error: &Error) -> Errno {
        (self.report)(error);
        match error {
            Error::Image(
                ImageError::Malformed { .. }
                | ImageError::MalformedChunk { .. }
                | ImageError::Inconsistent { .. },
            ) => Errno::from_i32(rustix::io::Errno::UCLEAN.raw_os_error()),
            _ => Errno::EIO,
        }
    }
}

/// One line of a directory's list.
enum Listed<'e, 'a> {
    /// `.` or `..`.
    Dot(&'e [u8], INodeNo),
    /// An entry.
    Entry(&'e Entry<'a, Place>),
}

impl Filesystem for ImageFs {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        if self.trace.is_some() {
            // The trace needs each lookup, and reads of no more than a process uses. Readahead is rounded
            // down to pages, so one byte is none.
            let _ = config.set_max_readahead(1);
            let capability = InitFlags::FUSE_CACHE_SYMLINKS | InitFlags::FUSE_POSIX_ACL;
            let _ = config.add_capabilities(capability);
            return Ok(());
        }
        // An older kernel may lack some of these. The filesystem works without them.
        for capability in [
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_CACHE_SYMLINKS,
            InitFlags::FUSE_POSIX_ACL,
        ] {
            let _ = config.add_capabilities(capability);
        }
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name.len() > NAME_MAX as usize {
            return reply.error(Errno::ENAMETOOLONG);
        }
        match self.find(parent, name) {
            Ok(Some(attributes)) => {
                if let Some(trace) = &self.trace {
                    trace.looked_up(parent.0, name, attributes.ino.0);
                }
                reply.entry(&TTL, &attributes, Generation(0));
            }
            // Inode number 0 makes the kernel cache that the name does not exist.
            Ok(None) => reply.entry(&TTL, &no_attributes(FileType::RegularFile), Generation(0)),
            Err(error) => reply.error(self.errno(&error)),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.inode(ino).and_then(|inode| self.attributes(&inode)) {
            Ok(attributes) => reply.attr(&TTL, &attributes),
            Err(error) => reply.error(self.errno(&error)),
        }
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        let target = self
            .inode(ino)
            .and_then(|inode| Ok(self.tree.symlink_target(&inode)?.to_vec()));
        match target {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(self.errno(&error)),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        match flags.acc_mode() {
            fuser::OpenAccMode::O_RDONLY => {
                reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
            }
            _ => reply.error(Errno::EROFS),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        if let Some(trace) = &self.trace {
            trace.read(ino.0, offset, size.into());
        }
        let read = || {
            let file = self.inode(ino)?;
            let mut state = self.state();
            let State { data, buffer, .. } = &mut *state;
            buffer.clear();
            let range = offset..offset.saturating_add(size.into());
            self.tree.read_range(&file, range, data, |piece| {
                buffer.extend_from_slice(piece);
                Ok(())
            })?;
            Ok(state)
        };
        match read() {
            Ok(state) => reply.data(&state.buffer),
            Err(error) => reply.error(self.errno(&error)),
        }
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let flags = FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_CACHE_DIR;
        reply.opened(FileHandle(0), flags);
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let listed = self.list(ino, offset, |listed, next| match listed {
            Listed::Dot(name, ino) => {
                reply.add(ino, next, FileType::Directory, OsStr::from_bytes(name))
            }
            Listed::Entry(entry) => {
                let name = OsStr::from_bytes(entry.name);
                reply.add(INodeNo(entry.link.ino), next, type_of(entry), name)
            }
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(self.errno(&error)),
        }
    }

    fn readdirplus(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let listed = self.list(ino, offset, |listed, next| {
            let unknown = |ino, kind| FileAttr {
                ino,
                ..no_attributes(kind)
            };
            let (name, attributes, valid) = match listed {
                // The kernel uses only the name and the type of these two.
                Listed::Dot(name, ino) => (name, unknown(ino, FileType::Directory), TTL),
                Listed::Entry(entry) => match self.entry(ino, &entry.link) {
                    Ok(attributes) => (entry.name, attributes, TTL),
                    // A malformed inode must not end the list. The kernel uses the name, and looks it
                    // up before it uses the rest, because that is not valid for any time.
                    Err(_) => {
                        let attributes = unknown(INodeNo(entry.link.ino), type_of(entry));
                        (entry.name, attributes, Duration::ZERO)
                    }
                },
            };
            let name = OsStr::from_bytes(name);
            reply.add(
                attributes.ino,
                next,
                name,
                &valid,
                &attributes,
                Generation(0),
            )
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(self.errno(&error)),
        }
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let metadata = self.tree.metadata();
        let sizes = metadata
            .data_size()
            .and_then(|bytes| Ok((bytes, metadata.inode_count()?)));
        match sizes {
            Ok((bytes, files)) => {
                let blocks = bytes.div_ceil(BLOCK.into());
                reply.statfs(blocks, 0, 0, files, 0, BLOCK, NAME_MAX, BLOCK);
            }
            Err(error) => reply.error(self.errno(&error)),
        }
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        match self.xattr(ino, name) {
            Ok(Some(value)) => sized(&value, size, reply),
            Ok(None) => reply.error(Errno::ENODATA),
            Err(error) => reply.error(self.errno(&error)),
        }
    }

    fn listxattr(&self, request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        match self.xattr_names(ino, request.uid() == 0) {
            Ok(names) => sized(&names, size, reply),
            Err(error) => reply.error(self.errno(&error)),
        }
    }
}

/// Maximum length of a name, which `statfs` reports.
const NAME_MAX: u32 = puzzlefs_schema::MAX_NAME_LEN as u32;

/// Replies with bytes if they fit, or with their size if the caller asks for it by no room.
fn sized(bytes: &[u8], room: u32, reply: ReplyXattr) {
    match u32::try_from(bytes.len()) {
        Ok(size) if room == 0 => reply.size(size),
        Ok(size) if size <= room => reply.data(bytes),
        _ => reply.error(Errno::ERANGE),
    }
}

/// Returns attributes for an entry whose inode is malformed or of no interest to the kernel.
fn no_attributes(kind: FileType) -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: BLOCK,
        flags: 0,
    }
}

fn type_of(entry: &Entry<'_, Place>) -> FileType {
    use puzzlefs_schema::FileType as Type;
    match entry.link.file_type {
        Type::Dir => FileType::Directory,
        Type::Symlink => FileType::Symlink,
        Type::Chr => FileType::CharDevice,
        Type::Blk => FileType::BlockDevice,
        Type::Fifo => FileType::NamedPipe,
        Type::Sock => FileType::Socket,
        // FUSE has no value for an unknown type.
        Type::File | Type::Whiteout | Type::Unknown => FileType::RegularFile,
    }
}

/// Encodes a device's number as the kernel's `new_encode_dev` does.
fn device_number(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

fn time(seconds: i64, nanoseconds: u32) -> SystemTime {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let time = if seconds < 0 {
        UNIX_EPOCH.checked_sub(whole)
    } else {
        UNIX_EPOCH.checked_add(whole)
    };
    time.and_then(|time| time.checked_add(Duration::from_nanos(nanoseconds.into())))
        .unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers() {
        assert_eq!(device_number(1, 3), 0x103);
        assert_eq!(device_number(0xfff, 0xf_ffff), 0xffff_ffff);
        assert_eq!(device_number(8, 0x100), 0x10_0800);
    }

    #[test]
    fn times() {
        assert_eq!(time(0, 0), UNIX_EPOCH);
        assert_eq!(time(-1, 999_999_999), UNIX_EPOCH - Duration::from_nanos(1));
        assert_eq!(time(5, 7), UNIX_EPOCH + Duration::new(5, 7));
    }
}
