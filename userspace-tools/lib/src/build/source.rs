// SPDX-License-Identifier: MIT OR Apache-2.0

//! The source of a build: reads the contents of files that other processes may change.
//!
//! In a directory, files are opened by their path beneath the open root, and no symbolic link is
//! followed. A process that writes to the tree can therefore not lead the builder elsewhere. The
//! contents of an archive are ranges of one file.

use crate::error::{BuildError, Change, Error, Result};
use crate::model::rules::XattrSelection;
use crate::model::tree::{FileState, Fresh, NodeId, Origin, Piece, Seen, Time, Tree};
use crate::sys::beneath::{open_beneath, path_of};
use crate::sys::pause::{self, Point};
use crate::sys::xattrs;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, SeekFrom, Stat};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::File;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The source of a build.
pub(crate) struct Source {
    /// The path that messages show.
    pub path: PathBuf,
    pub data: SourceData,
}

/// The place of the contents of files.
pub(crate) enum SourceData {
    /// In the files of this open directory.
    Directory(OwnedFd),
    /// In this file, with its state at the start if it is not the builder's own.
    Archive(File, Option<Seen>),
}

impl Source {
    /// Opens a directory.
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty()).map_err(Error::io(
            path,
            "open the directory or archive to build from",
        ))?;
        Ok(Source {
            path: path.to_path_buf(),
            data: SourceData::Directory(root),
        })
    }

    /// Returns the path of a node that messages show.
    pub fn display_path(&self, tree: &Tree, node: NodeId) -> PathBuf {
        self.path.join(tree.path(node))
    }

    /// Opens a directory of the tree.
    pub fn open_directory(&self, tree: &Tree, node: NodeId) -> Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        self.open_node(tree, node, flags)
            .map_err(|errno| self.open_error(self.display_path(tree, node), errno))
    }

    /// The open root directory; none if the source is an archive.
    pub fn root(&self) -> Option<&OwnedFd> {
        match &self.data {
            SourceData::Directory(root) => Some(root),
            SourceData::Archive(..) => None,
        }
    }

    /// Opens a regular file of the tree, and checks that it is the one that was found.
    pub fn open_file<'a>(
        &'a self,
        tree: &'a Tree,
        node: NodeId,
        state: &'a FileState,
    ) -> Result<OpenFile<'a>> {
        let data = match (&self.data, &state.origin) {
            (SourceData::Archive(file, seen), Origin::Archive(pieces)) => Data::Pieces {
                file,
                seen: seen.as_ref(),
                pieces,
            },
            (_, Origin::Directory(seen)) => Data::Whole {
                file: self.open_regular(tree, node)?,
                seen,
            },
            (SourceData::Directory(_), Origin::Archive(_)) => {
                unreachable!("a directory's files are not an archive's")
            }
        };
        let file = OpenFile {
            source: self,
            tree,
            node,
            size: state.size,
            data,
        };
        file.check_unchanged()?;
        Ok(file)
    }

    fn open_regular(&self, tree: &Tree, node: NodeId) -> Result<OwnedFd> {
        // A file replaced by a FIFO must not block. O_NOATIME is for owners only.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        self.open_node(tree, node, flags | OFlags::NOATIME)
            .or_else(|errno| match errno {
                Errno::PERM => self.open_node(tree, node, flags),
                errno => Err(errno),
            })
            .map_err(|errno| self.open_error(self.display_path(tree, node), errno))
    }

    fn open_node(&self, tree: &Tree, node: NodeId, flags: OFlags) -> Result<OwnedFd, Errno> {
        match &self.data {
            SourceData::Directory(root) => open_beneath(root, &tree.names(node), flags),
            SourceData::Archive(..) => Err(Errno::NOTDIR),
        }
    }

    fn changed(&self, tree: &Tree, node: NodeId, change: impl Into<Change>) -> Error {
        BuildError::Changed {
            path: self.display_path(tree, node),
            change: change.into(),
        }
        .into()
    }

    /// Returns the error of a path that cannot be opened.
    pub fn open_error(&self, path: PathBuf, errno: Errno) -> Error {
        let change = match errno {
            Errno::NOENT => Change::Vanished,
            // A process moved it after it was found.
            Errno::XDEV => Change::Moved,
            Errno::NOTDIR | Errno::LOOP => Change::OtherType,
            errno => return Error::io(path, "open")(errno),
        };
        BuildError::Changed { path, change }.into()
    }
}

/// A regular file of a source, open.
pub(crate) struct OpenFile<'a> {
    source: &'a Source,
    tree: &'a Tree,
    node: NodeId,
    size: u64,
    data: Data<'a>,
}

enum Data<'a> {
    Whole {
        file: OwnedFd,
        seen: &'a Seen,
    },
    Pieces {
        file: &'a File,
        seen: Option<&'a Seen>,
        pieces: &'a [Piece],
    },
}

impl OpenFile<'_> {
    /// Fails if the file has changed since it was found.
    pub fn check_unchanged(&self) -> Result<()> {
        let (file, seen) = match &self.data {
            Data::Whole { file, seen } => (file.as_fd(), *seen),
            Data::Pieces { file, seen, .. } => match seen {
                Some(seen) => (file.as_fd(), *seen),
                None => return Ok(()),
            },
        };
        let stat = rustix::fs::fstat(file).map_err(|errno| self.error("examine", errno))?;
        match seen.difference(&Seen::of(&stat)) {
            None => Ok(()),
            Some(difference) => Err(self.source.changed(self.tree, self.node, difference)),
        }
    }

    /// Returns the next range, from `at` on, that is not known to be zeros. It is empty, at the end
    /// of the file, if there is none.
    pub fn next_data(&self, at: u64) -> Result<Range<u64>> {
        match &self.data {
            Data::Whole { file, .. } => self.next_data_of(file, at),
            Data::Pieces { pieces, .. } => {
                let next = pieces.partition_point(|piece| piece.at + piece.length <= at);
                Ok(match pieces.get(next) {
                    Some(piece) => piece.at.max(at)..piece.at + piece.length,
                    None => self.size..self.size,
                })
            }
        }
    }

    fn next_data_of(&self, file: &OwnedFd, at: u64) -> Result<Range<u64>> {
        let data = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(data) => data,
            // A hole up to the end.
            Err(Errno::NXIO) => return Ok(self.size..self.size),
            // Its filesystem does not support SEEK_DATA.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(at..self.size),
            Err(errno) => return Err(self.error("seek in", errno)),
        };
        match rustix::fs::seek(file, SeekFrom::Hole(data)) {
            Ok(hole) => Ok(data..hole),
            // It was truncated just now; reading it will fail.
            Err(Errno::NXIO) => Ok(data..self.size),
            Err(errno) => Err(self.error("seek in", errno)),
        }
    }

    /// Fills `buffer` with the content of the file from `at` on.
    pub fn read(&self, at: u64, buffer: &mut [u8]) -> Result<()> {
        match &self.data {
            Data::Whole { file, .. } => self.read_from(file.as_fd(), at, buffer),
            Data::Pieces { file, pieces, .. } => {
                let end = at + buffer.len() as u64;
                let mut filled = at;
                let first = pieces.partition_point(|piece| piece.at + piece.length <= at);
                for piece in &pieces[first..] {
                    let wanted = piece.at.max(at)..(piece.at + piece.length).min(end);
                    if wanted.is_empty() {
                        break;
                    }
                    let range = (wanted.start - at) as usize..(wanted.end - at) as usize;
                    buffer[(filled - at) as usize..range.start].fill(0);
                    let offset = piece.offset + (wanted.start - piece.at);
                    self.read_from(file.as_fd(), offset, &mut buffer[range])?;
                    filled = wanted.end;
                }
                buffer[(filled - at) as usize..].fill(0);
                Ok(())
            }
        }
    }

    fn read_from(&self, file: BorrowedFd<'_>, at: u64, buffer: &mut [u8]) -> Result<()> {
        let mut done = 0;
        while done < buffer.len() {
            match rustix::io::pread(file, &mut buffer[done..], at + done as u64) {
                Ok(0) => {
                    let change = Change::EndedAfter(at + done as u64);
                    return Err(self.source.changed(self.tree, self.node, change));
                }
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(self.error("read", errno)),
            }
        }
        pause::at(Point::Read);
        Ok(())
    }

    fn error(&self, action: &'static str, errno: Errno) -> Error {
        let path = self.source.display_path(self.tree, self.node);
        Error::io(path, action)(errno)
    }
}

/// Checks that this process may read a regular file.
pub(crate) fn check_readable(directory: &OwnedFd, name: &[u8]) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW;
    rustix::fs::openat(directory, name, flags | OFlags::CLOEXEC, Mode::empty()).map(drop)
}

impl Source {
    /// Examines a regular file of a directory again.
    pub fn look_again(&self, tree: &Tree, node: NodeId, xattrs: &XattrSelection) -> Result<Fresh> {
        let fail = |errno| self.open_error(self.display_path(tree, node), errno);
        let names = tree.names(node);
        let SourceData::Directory(root) = &self.data else {
            return Err(fail(Errno::NOTDIR));
        };
        let (name, parents) = names.split_last().ok_or_else(|| fail(Errno::NOTDIR))?;
        let directory = open_beneath(root, parents, OFlags::RDONLY | OFlags::DIRECTORY);
        let directory = directory.map_err(fail)?;
        let stat = rustix::fs::statat(&directory, *name, AtFlags::SYMLINK_NOFOLLOW);
        let stat = stat.map_err(fail)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(fail(Errno::LOOP));
        }
        let path = path_of(&directory).join(OsStr::from_bytes(name));
        let xattrs = xattrs::read(path.as_os_str().as_bytes(), xattrs).map_err(|errno| {
            let path = self.display_path(tree, node);
            Error::io(path, "read the extended attributes of")(errno)
        })?;
        Ok(Fresh {
            state: FileState {
                size: stat.st_size as u64,
                origin: Origin::Directory(Seen::of(&stat)),
            },
            permissions: (stat.st_mode & 0o7777) as u16,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: mtime(&stat),
            xattrs,
        })
    }
}

impl Seen {
    /// Returns the attributes that identify a regular file and its contents.
    pub fn of(stat: &Stat) -> Self {
        Seen {
            size: stat.st_size as u64,
            device: stat.st_dev,
            inode: stat.st_ino,
            mtime: mtime(stat),
            ctime: Time {
                seconds: stat.st_ctime,
                nanoseconds: stat.st_ctime_nsec as u32,
            },
        }
    }
}

/// Returns the modification time.
pub(crate) fn mtime(stat: &Stat) -> Time {
    Time {
        seconds: stat.st_mtime,
        nanoseconds: stat.st_mtime_nsec as u32,
    }
}
