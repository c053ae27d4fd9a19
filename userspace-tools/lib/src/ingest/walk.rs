// SPDX-License-Identifier: MIT OR Apache-2.0

//! Walks a source directory, and makes a [`Tree`].

use crate::build::source::{self, Source};
use crate::error::problems::{Problems, Remedy};
use crate::error::{BuildError, Change, Error, Result};
use crate::model::rules::Rules;
use crate::model::tree::{Entry, FileState, Kind, LeftOut, Node, NodeId, Origin, Seen, Tree};
use crate::sys::progress::Progress;
use crate::sys::xattrs;
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Stat};
use rustix::io::Errno;
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

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
}

/// The number of causes that are kept of unreadable paths.
const CAUSES: usize = 10;

impl LeftOut {
    /// Takes note of a path that cannot be read.
    pub fn add_unreadable(&mut self, path: PathBuf, cause: &Error) {
        self.unreadable.push(path);
        if self.unreadable_causes.len() < CAUSES {
            self.unreadable_causes.push(cause.to_string());
        }
    }
}

/// Walks a source directory.
///
/// Inodes are numbered directory by directory, depth first, each directory's entries together and
/// in byte order of their names. The numbers depend on the names alone, and the inodes of one
/// directory are neighbours in the image.
pub(crate) fn walk(
    source: &Source,
    options: &WalkOptions<'_>,
    progress: &Progress,
) -> Result<(Tree, LeftOut)> {
    let mut walker = Walker {
        source,
        options,
        progress,
        tree: Tree::default(),
        links: HashMap::new(),
        left_out: LeftOut::default(),
        problems: Problems::default(),
        proc_fd: rustix::fs::stat("/proc/self/fd").is_ok(),
    };
    walker.run()?;
    if !walker.problems.is_empty() {
        return Err(Error::Problems(Box::new(walker.problems)));
    }
    Ok((walker.tree, walker.left_out))
}

/// An entry of the tree.
struct Found {
    node: NodeId,
    stat: Stat,
}

struct Walker<'a> {
    source: &'a Source,
    options: &'a WalkOptions<'a>,
    progress: &'a Progress,
    tree: Tree,
    /// Inodes with several names, by device and number on the source.
    links: HashMap<(u64, u64), NodeId>,
    left_out: LeftOut,
    problems: Problems,
    /// True if `/proc/self/fd` exists. Extended attributes are then read relative to an open
    /// directory, otherwise by path.
    proc_fd: bool,
}

impl Walker<'_> {
    fn run(&mut self) -> Result<()> {
        let root = self.source.open_directory(&self.tree, 0)?;
        let stat = rustix::fs::fstat(&root).map_err(Error::io(&self.source.path, "examine"))?;
        let device = stat.st_dev;
        if self.options.store == Some((device, stat.st_ino)) {
            let path = self.source.path.clone();
            return Err(BuildError::SourceIsStore { path }.into());
        }
        let node = self.node(&root, b".", &stat, (0, 0))?;
        self.tree.nodes.push(node);
        drop(root);
        // Directories still to be read, the next one last.
        let mut pending: Vec<NodeId> = vec![0];
        while let Some(directory) = pending.pop() {
            self.progress.check()?;
            match self.directory(directory, device) {
                Ok(subdirectories) => pending.extend(subdirectories.iter().rev()),
                // The root itself cannot be left out.
                Err(error) if directory == 0 => return Err(error),
                Err(error) => self.problem(self.tree.path(directory), error)?,
            }
        }
        Ok(())
    }

    /// Reads one directory: makes a node of each entry, and returns the subdirectories to read.
    fn directory(&mut self, directory: NodeId, root_device: u64) -> Result<Vec<NodeId>> {
        let fd = self.source.open_directory(&self.tree, directory)?;
        let path = self.source.display_path(&self.tree, directory);
        let mut names: Vec<Box<[u8]>> = Vec::new();
        let entries = rustix::fs::Dir::read_from(&fd).map_err(Error::io(&path, "list"))?;
        for entry in entries {
            let entry = entry.map_err(Error::io(&path, "list"))?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            match self.excludes(directory, &fd, name, entry.file_type()) {
                Ok(true) => {}
                Ok(false) => names.push(name.into()),
                Err(error) => self.problem(self.path_of(directory, name), error)?,
            }
        }
        names.sort_unstable();

        let mut entries: Vec<Entry> = Vec::with_capacity(names.len());
        let mut subdirectories = Vec::new();
        let mut children: u32 = 0;
        for name in names {
            let place = (directory, entries.len() as u32);
            let found = match self.entry(&fd, &name, place) {
                Ok(Some(found)) => found,
                Ok(None) => continue,
                Err(error) => {
                    self.problem(self.path_of(directory, &name), error)?;
                    continue;
                }
            };
            let Found { node, stat } = found;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                children += 1;
                if self.is_entered(directory, &name, &stat, root_device) {
                    subdirectories.push(node);
                }
            }
            entries.push(Entry { name, node });
            self.progress.found_entry();
        }
        let node = &mut self.tree.nodes[directory as usize];
        node.kind = Kind::Directory(entries);
        node.nlink = children.saturating_add(2);
        Ok(subdirectories)
    }

    /// Finds or makes the node of a name in an open directory. Returns `None` if it is left out.
    fn entry(&mut self, fd: &OwnedFd, name: &[u8], place: (NodeId, u32)) -> Result<Option<Found>> {
        let directory = place.0;
        if !self.options.unreadable.is_empty() {
            let path = self.path_of(directory, name);
            if self.options.unreadable.contains(&path) {
                return Ok(None);
            }
        }
        let stat = rustix::fs::statat(fd, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| self.entry_error(directory, name, errno))?;
        let file_type = FileType::from_raw_mode(stat.st_mode);
        let has_links = file_type != FileType::Directory && stat.st_nlink > 1;
        let key = (stat.st_dev, stat.st_ino);
        let known = self.links.get(&key).copied().filter(|_| has_links);
        if let Some(node) = known {
            self.tree.nodes[node as usize].nlink += 1;
            return Ok(Some(Found { node, stat }));
        }
        if self.options.skip_unreadable && file_type == FileType::RegularFile {
            source::check_readable(fd, name)
                .map_err(|errno| self.entry_error(directory, name, errno))?;
        }
        let id = self.next_id(directory, name)?;
        let node = self.node(fd, name, &stat, place)?;
        self.tree.nodes.push(node);
        if has_links {
            self.links.insert(key, id);
        }
        Ok(Some(Found { node: id, stat }))
    }

    /// Takes note of a path that cannot be walked.
    fn problem(&mut self, path: PathBuf, error: Error) -> Result<()> {
        match error {
            Error::System(_) if self.options.skip_unreadable => {
                self.left_out.add_unreadable(path, &error);
                Ok(())
            }
            error if error.is_change() => self.problems.add(error, Remedy::Walk),
            Error::System(_) => self.problems.add(error, Remedy::LeaveOut(path)),
            error => self.problems.add(error, Remedy::None),
        }
    }

    /// Returns the path of a name in a directory, from the root.
    fn path_of(&self, directory: NodeId, name: &[u8]) -> PathBuf {
        self.tree.path(directory).join(OsStr::from_bytes(name))
    }

    /// Returns true if the rules leave an entry out.
    fn excludes(
        &self,
        directory: NodeId,
        fd: &OwnedFd,
        name: &[u8],
        listed: FileType,
    ) -> Result<bool> {
        let rules = self.options.rules;
        if rules.exclude.is_empty() {
            return Ok(false);
        }
        let mut kind = listed;
        // Not every filesystem lists the types of entries.
        if kind == FileType::Unknown {
            let stat = rustix::fs::statat(fd, name, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|errno| self.entry_error(directory, name, errno))?;
            kind = FileType::from_raw_mode(stat.st_mode);
        }
        let path = self.tree.path(directory).join(OsStr::from_bytes(name));
        let path = path.as_os_str().as_bytes();
        Ok(rules.excludes(path, kind == FileType::Directory))
    }

    /// Returns true if the walk goes into a subdirectory, and otherwise takes note of it.
    fn is_entered(
        &mut self,
        directory: NodeId,
        name: &[u8],
        stat: &Stat,
        root_device: u64,
    ) -> bool {
        let path = || self.source.path.join(self.path_of(directory, name));
        if self.options.store == Some((stat.st_dev, stat.st_ino)) {
            self.left_out.store = Some(path());
            return false;
        }
        if self.options.one_file_system && stat.st_dev != root_device {
            let path = path();
            self.left_out.mount_points.push(path);
            return false;
        }
        true
    }

    fn next_id(&self, directory: NodeId, name: &[u8]) -> Result<NodeId> {
        NodeId::try_from(self.tree.nodes.len())
            .map_err(|_| self.entry_error(directory, name, Errno::OVERFLOW))
    }

    /// Makes the node of the entry `name` of an open directory.
    fn node(
        &mut self,
        fd: &OwnedFd,
        name: &[u8],
        stat: &Stat,
        first_name: (NodeId, u32),
    ) -> Result<Node> {
        let fail = |errno| self.entry_error(first_name.0, name, errno);
        let kind = kind(fd, name, stat).map_err(fail)?;
        if let Kind::File(state) = &kind {
            self.progress.found_bytes(state.size);
        }
        // A directory that is not entered stays empty.
        let nlink = match kind {
            Kind::Directory(_) => 2,
            _ => 1,
        };
        let path = self.xattr_path(fd, first_name.0, name);
        Ok(Node {
            kind,
            permissions: (stat.st_mode & 0o7777) as u16,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: source::mtime(stat),
            nlink,
            xattrs: xattrs::read(&path, &self.options.rules.xattrs).map_err(fail)?,
            first_name,
        })
    }

    /// Returns a path by which the extended attributes of an entry of an open directory are read.
    fn xattr_path(&self, fd: &OwnedFd, directory: NodeId, name: &[u8]) -> Vec<u8> {
        let mut path = if self.proc_fd {
            format!("/proc/self/fd/{}/", fd.as_raw_fd()).into_bytes()
        } else {
            let directory = self.source.display_path(&self.tree, directory);
            let mut path = directory.as_os_str().as_bytes().to_vec();
            path.push(b'/');
            path
        };
        path.extend_from_slice(name);
        path
    }

    fn entry_error(&self, directory: NodeId, name: &[u8], errno: Errno) -> Error {
        let mut path = self.source.path.clone();
        if !self.tree.nodes.is_empty() {
            path = self.source.display_path(&self.tree, directory);
        }
        if name != b"." {
            path.push(OsStr::from_bytes(name));
        }
        match errno {
            Errno::NOENT => BuildError::Changed {
                path,
                change: Change::Vanished,
            }
            .into(),
            errno => Error::io(path, "examine")(errno),
        }
    }
}

/// Returns the type of an entry of an open directory; a directory is empty.
fn kind(fd: &OwnedFd, name: &[u8], stat: &Stat) -> Result<Kind, Errno> {
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
