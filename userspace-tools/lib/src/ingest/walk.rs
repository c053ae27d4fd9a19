// SPDX-License-Identifier: MIT OR Apache-2.0

//! Walks a source directory, and makes a [`Tree`].
//!
//! | module | content |
//! | --- | --- |
//! | `listing` | lists directories ahead of the walk |

mod listing;

use crate::build::source::{self, Source};
use crate::error::problems::{Problems, Remedy};
use crate::error::{BuildError, Error, Result};
use crate::model::tree::{Entry, Kind, LeftOut, Node, NodeId, Tree, Xattr};
use crate::sys::progress::Progress;
use crate::sys::xattrs;
pub(crate) use listing::WalkOptions;
use listing::{DirectoryId, Listed, Lister, Subdirectory};
use rustix::fs::{FileType, Stat};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

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
    };
    walker.run()?;
    if !walker.problems.is_empty() {
        return Err(Error::Problems(Box::new(walker.problems)));
    }
    Ok((walker.tree, walker.left_out))
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
        let fail = |errno| listing::entry_error(self.source.path.clone(), errno);
        let kind = listing::kind(&root, b".", &stat).map_err(fail)?;
        let mut path = listing::xattr_directory(&root, || self.source.path.clone());
        path.push(b'.');
        let xattrs = xattrs::read(&path, &self.options.rules.xattrs).map_err(fail)?;
        self.tree.nodes.push(node(kind, &stat, xattrs, (0, 0)));
        drop(root);
        let lister = Lister::new(self.source, self.options, device);
        lister.beside(|| self.directories(&lister))
    }

    /// Takes the listings of all directories.
    fn directories(&mut self, lister: &Lister<'_>) -> Result<()> {
        // Directories still to be read, the next one last.
        let mut pending: Vec<(NodeId, DirectoryId)> = vec![(0, listing::ROOT)];
        while let Some((directory, id)) = pending.pop() {
            self.progress.check()?;
            let listed = lister.listing(id);
            match listed.and_then(|listing| self.directory(directory, listing)) {
                Ok(subdirectories) => pending.extend(subdirectories.iter().rev()),
                // The root itself cannot be left out.
                Err(error) if directory == 0 => return Err(error),
                Err(error) => self.problem(self.tree.path(directory), error)?,
            }
        }
        Ok(())
    }

    /// Makes a node of each entry of a directory, and returns the subdirectories to read.
    fn directory(
        &mut self,
        directory: NodeId,
        listing: listing::Listing,
    ) -> Result<Vec<(NodeId, DirectoryId)>> {
        let mut entries: Vec<Entry> = Vec::with_capacity(listing.len());
        let mut subdirectories = Vec::new();
        let mut children: u32 = 0;
        for (name, listed) in listing {
            let listed = match listed {
                Ok(listed) => listed,
                Err(error) => {
                    self.problem(self.path_of(directory, &name), error)?;
                    continue;
                }
            };
            children += u32::from(listed.subdirectory != Subdirectory::None);
            let path = || self.source.path.join(self.path_of(directory, &name));
            match listed.subdirectory {
                Subdirectory::None | Subdirectory::Listed(_) => {}
                Subdirectory::Store => self.left_out.store = Some(path()),
                Subdirectory::MountPoint => {
                    let path = path();
                    self.left_out.mount_points.push(path);
                }
            }
            let subdirectory = listed.subdirectory;
            let node = self.entry(&name, listed, (directory, entries.len() as u32))?;
            if let Subdirectory::Listed(id) = subdirectory {
                subdirectories.push((node, id));
            }
            entries.push(Entry { name, node });
            self.progress.found_entry();
        }
        let node = &mut self.tree.nodes[directory as usize];
        node.kind = Kind::Directory(entries);
        node.nlink = children.saturating_add(2);
        Ok(subdirectories)
    }

    /// Finds or makes the node of an entry.
    fn entry(&mut self, name: &[u8], listed: Listed, place: (NodeId, u32)) -> Result<NodeId> {
        let Listed {
            stat, kind, xattrs, ..
        } = listed;
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let has_links = !is_directory && stat.st_nlink > 1;
        let key = (stat.st_dev, stat.st_ino);
        if let Some(node) = self.links.get(&key).copied().filter(|_| has_links) {
            self.tree.nodes[node as usize].nlink += 1;
            return Ok(node);
        }
        if let Kind::File(state) = &kind {
            self.progress.found_bytes(state.size);
        }
        let id = self.next_id(place.0, name)?;
        self.tree.nodes.push(node(kind, &stat, xattrs, place));
        if has_links {
            self.links.insert(key, id);
        }
        Ok(id)
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

    fn next_id(&self, directory: NodeId, name: &[u8]) -> Result<NodeId> {
        NodeId::try_from(self.tree.nodes.len()).map_err(|_| {
            let path = self.source.path.join(self.path_of(directory, name));
            listing::entry_error(path, Errno::OVERFLOW)
        })
    }
}

/// Makes a node. A directory that is not entered stays empty.
fn node(kind: Kind, stat: &Stat, xattrs: Vec<Xattr>, first_name: (NodeId, u32)) -> Node {
    let nlink = match kind {
        Kind::Directory(_) => 2,
        _ => 1,
    };
    Node {
        kind,
        permissions: (stat.st_mode & 0o7777) as u16,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: source::mtime(stat),
        nlink,
        xattrs,
        first_name,
    }
}
