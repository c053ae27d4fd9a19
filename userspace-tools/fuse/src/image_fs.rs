// SPDX-License-Identifier: MIT OR Apache-2.0

//! Answers the kernel's requests from the image, by the library's reader.
//!
//! The image does not change, so the kernel may cache every answer. Inode numbers are those of the
//! image, so any inode of a request can be found without a record of the inodes that the kernel knows.
//! Caches are bounded by a number, or by the size of the metadata.
//!
//! # Locking
//!
//! One mutex, `ImageFs::state`, protects the caches and the blob that is open. It is not held while an
//! error is reported.

use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEntry, ReplyOpen, ReplyStatfs, ReplyXattr, Request,
};
use puzzlefs_lib::error::ImageError;
use puzzlefs_lib::reader::{Blobs, ImageReader, Parts};
use puzzlefs_lib::{Error, Result};
use puzzlefs_schema::{overlay, DirEntry, Inode, Kind, Locator, ROOT_INO};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The time for which the kernel may cache an answer.
const TTL: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// The size of a block, as the kernel module reports it.
const BLOCK: u32 = 4096;
/// Maximum number of files with an index of their chunks.
const TABLES_MAX: usize = 256;
/// Maximum number of entries of such an index, and minimum number of chunks per entry.
const TABLE_MAX: usize = 4096;
const TABLE_STEP: usize = 16;
/// Maximum number of directories that are kept prepared for lookups.
const DIRS_MAX: usize = 4096;
/// Number of names before a directory's entries: `.` and `..`.
const DOTS: u64 = 2;

/// An image as a filesystem.
pub(crate) struct ImageFs {
    reader: ImageReader<'static>,
    /// Escape the names of extended attributes that overlayfs claims.
    escape_overlay: bool,
    /// Gets each error for which the kernel gets an errno.
    report: Box<dyn Fn(&Error) + Send + Sync>,
    state: Mutex<State>,
}

/// Caches between requests.
struct State {
    blobs: Blobs,
    /// Content for the current read request.
    buffer: Vec<u8>,
    /// Indexes of files' chunks, by inode number.
    tables: HashMap<u64, Arc<[u64]>>,
    /// Parts of directories in the layers, by inode number.
    dirs: HashMap<u64, Arc<Parts>>,
    /// Number of entries in all of `dirs`.
    dirs_weight: usize,
    /// The parent of each directory that was looked up.
    parents: HashMap<u64, u64>,
}

impl ImageFs {
    /// Makes a filesystem of an image. `blobs` decides how data is verified.
    pub(crate) fn new(
        reader: ImageReader<'static>,
        blobs: Blobs,
        escape_overlay: bool,
        report: impl Fn(&Error) + Send + Sync + 'static,
    ) -> Self {
        ImageFs {
            reader,
            escape_overlay,
            report: Box::new(report),
            state: Mutex::new(State {
                blobs,
                buffer: Vec::new(),
                tables: HashMap::new(),
                dirs: HashMap::new(),
                dirs_weight: 0,
                parents: HashMap::new(),
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn locate(&self, ino: INodeNo) -> Result<Locator> {
        self.reader.checked(self.reader.metadata().find(ino.0))
    }

    fn inode(&self, ino: INodeNo) -> Result<Inode<'_>> {
        let at = self.locate(ino)?;
        self.reader.checked(self.reader.metadata().inode_at(at))
    }

    /// Returns the parts of a directory in the layers.
    fn parts(&self, ino: INodeNo) -> Result<Arc<Parts>> {
        if let Some(parts) = self.state().dirs.get(&ino.0) {
            return Ok(Arc::clone(parts));
        }
        let parts = Arc::new(self.reader.parts(self.locate(ino)?)?);
        let weight = parts.iter().map(|part| part.len()).sum();
        let mut state = self.state();
        // In a hostile image, directories may share entries: their sum can exceed the metadata.
        if state.dirs.len() >= DIRS_MAX
            || state.dirs_weight.saturating_add(weight) > self.reader.entries_max()
        {
            state.dirs.clear();
            state.dirs_weight = 0;
        }
        state.dirs_weight = state.dirs_weight.saturating_add(weight);
        state.dirs.insert(ino.0, Arc::clone(&parts));
        Ok(parts)
    }

    fn find(&self, parent: INodeNo, name: &OsStr) -> Result<Option<FileAttr>> {
        let parts = self.parts(parent)?;
        let metadata = self.reader.metadata();
        let found = metadata
            .dir(&parts)
            .and_then(|dir| dir.lookup(name.as_bytes()));
        match self.reader.checked(found)? {
            Some(entry) => self.entry(parent, &entry).map(Some),
            None => Ok(None),
        }
    }

    /// Returns the attributes of a directory's entry.
    fn entry(&self, parent: INodeNo, entry: &DirEntry<'_>) -> Result<FileAttr> {
        let inode = self.reader.metadata().inode_at(entry.at);
        let attributes = self.attributes(&self.reader.checked(inode)?)?;
        if attributes.kind == FileType::Directory {
            self.state().parents.insert(entry.ino, parent.0);
        }
        Ok(attributes)
    }

    fn attributes(&self, inode: &Inode<'_>) -> Result<FileAttr> {
        let mut size = 0;
        let mut device = 0;
        let kind = match inode.kind() {
            Kind::File => {
                size = self.reader.file_size(inode)?;
                FileType::RegularFile
            }
            Kind::Dir => {
                size = self.entries(inode)?;
                FileType::Directory
            }
            Kind::Symlink => {
                size = self.reader.checked(inode.symlink_target())?.len() as u64;
                FileType::Symlink
            }
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
                let what = format!(
                    "inode {}: its type cannot occur in a directory",
                    inode.ino()
                );
                return Err(self.reader.malformed_by(what));
            }
        };
        let mtime = self.reader.checked(inode.mtime())?;
        let mtime = time(mtime.seconds, mtime.nanoseconds);
        let blocks = match kind {
            FileType::RegularFile => size.div_ceil(512),
            _ => 0,
        };
        Ok(FileAttr {
            ino: INodeNo(inode.ino()),
            size,
            blocks,
            atime: mtime,
            mtime,
            ctime: mtime,
            crtime: UNIX_EPOCH,
            kind,
            perm: inode.permissions(),
            // The kernel module has the same default for images without link counts.
            nlink: inode.nlink().unwrap_or(1),
            uid: inode.uid(),
            gid: inode.gid(),
            rdev: device,
            blksize: BLOCK,
            flags: 0,
        })
    }

    /// Returns the sum of the entries of a directory's parts, which the kernel module reports as its
    /// size.
    fn entries(&self, inode: &Inode<'_>) -> Result<u64> {
        let count = || {
            let mut entries: u64 = 0;
            let mut layer = Some(inode.dir()?);
            while let Some(part) = layer {
                entries = entries.saturating_add(part.len() as u64);
                layer = part.below()?;
            }
            Ok(entries)
        };
        self.reader.checked(count())
    }

    /// Returns the index of a file's chunks, which finds one without a linear search.
    fn table(&self, ino: INodeNo) -> Result<Arc<[u64]>> {
        if let Some(table) = self.state().tables.get(&ino.0) {
            return Ok(Arc::clone(table));
        }
        let extents = self.reader.checked(self.inode(ino)?.extents())?;
        let mut table = vec![0; (extents.len() / TABLE_STEP).min(TABLE_MAX)];
        self.reader.checked(extents.index(&mut table))?;
        let table: Arc<[u64]> = table.into();
        let mut state = self.state();
        if state.tables.len() >= TABLES_MAX {
            state.tables.clear();
        }
        state.tables.insert(ino.0, Arc::clone(&table));
        Ok(table)
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
        let parts = self.parts(ino)?;
        let metadata = self.reader.metadata();
        let listed = metadata.dir(&parts).and_then(|dir| {
            dir.for_each(offset.saturating_sub(DOTS), |entry| {
                if add(Listed::Entry(&entry), entry.cursor.saturating_add(DOTS)) {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            })
        });
        self.reader.checked(listed).map(|_| ())
    }

    /// Returns the value of an extended attribute; `None` if the inode has none of this name.
    fn xattr(&self, ino: INodeNo, name: &OsStr) -> Result<Option<&[u8]>> {
        let xattrs = self.reader.checked(self.inode(ino)?.xattrs())?;
        let value = if self.escape_overlay {
            xattrs.get_escaped(name.as_bytes())
        } else {
            xattrs.get(name.as_bytes())
        };
        self.reader.checked(value)
    }

    /// Returns the names of an inode's extended attributes, each followed by a NUL. Only root gets
    /// names of attributes that only root can read.
    fn xattr_names(&self, ino: INodeNo, root: bool) -> Result<Vec<u8>> {
        let mut names = Vec::new();
        for xattr in self.reader.checked(self.inode(ino)?.xattrs())?.iter() {
            let name = self.reader.checked(xattr)?.name;
            if !root && name.starts_with(b"trusted.") {
                continue;
            }
            if !self.escape_overlay {
                names.extend_from_slice(name);
            } else if overlay::can_escape(name) {
                names.extend(overlay::escape(name).concat());
            } else {
                continue;
            }
            names.push(0);
        }
        Ok(names)
    }

    /// Reports an error, and returns its errno. A malformed image has the kernel module's errno.
    fn errno(&self, error: &Error) -> Errno {
        (self.report)(error);
        match error {
            Error::Image(ImageError::Malformed { .. } | ImageError::Inconsistent { .. }) => {
                Errno::from_i32(rustix::io::Errno::UCLEAN.raw_os_error())
            }
            _ => Errno::EIO,
        }
    }
}

/// One line of a directory's list.
enum Listed<'e, 'a> {
    /// `.` or `..`.
    Dot(&'e [u8], INodeNo),
    /// An entry.
    Entry(&'e DirEntry<'a>),
}

impl Filesystem for ImageFs {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
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
            Ok(Some(attributes)) => reply.entry(&TTL, &attributes, Generation(0)),
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
            .and_then(|inode| self.reader.checked(inode.symlink_target()));
        match target {
            Ok(target) => reply.data(target),
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
        let read = || {
            let (at, table) = (self.locate(ino)?, self.table(ino)?);
            let mut state = self.state();
            let State { blobs, buffer, .. } = &mut *state;
            buffer.clear();
            let range = offset..offset.saturating_add(size.into());
            self.reader.read_range(at, &table, range, blobs, |piece| {
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
                reply.add(INodeNo(entry.ino), next, type_of(entry), name)
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
                Listed::Entry(entry) => match self.entry(ino, entry) {
                    Ok(attributes) => (entry.name, attributes, TTL),
                    // A malformed inode must not end the list. The kernel uses the name, and looks it
                    // up before it uses the rest, because that is not valid for any time.
                    Err(_) => {
                        let attributes = unknown(INodeNo(entry.ino), type_of(entry));
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
        let metadata = self.reader.metadata();
        let sizes = metadata
            .data_size()
            .and_then(|bytes| Ok((bytes, metadata.inode_count()?)));
        match self.reader.checked(sizes) {
            Ok((bytes, files)) => {
                let blocks = bytes.div_ceil(BLOCK.into());
                reply.statfs(blocks, 0, 0, files, 0, BLOCK, NAME_MAX, BLOCK);
            }
            Err(error) => reply.error(self.errno(&error)),
        }
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        match self.xattr(ino, name) {
            Ok(Some(value)) => sized(value, size, reply),
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

fn type_of(entry: &DirEntry<'_>) -> FileType {
    use puzzlefs_schema::FileType as Type;
    match entry.file_type {
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
