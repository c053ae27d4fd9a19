// SPDX-License-Identifier: MIT OR Apache-2.0

//! A directory tree in memory: everything of it but the contents of files.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// A tree as an image will hold it. Node `i` has inode number `i + 1`; the root is node 0.
#[derive(Debug, Default)]
pub struct Tree {
    /// The inodes, in the order of their numbers.
    pub nodes: Vec<Node>,
}

/// The index of a node in [`Tree::nodes`].
pub type NodeId = u32;

/// An inode.
#[derive(Debug)]
pub struct Node {
    /// Its type, with the attributes of the type.
    pub kind: Kind,
    /// The twelve mode bits.
    pub permissions: u16,
    /// The owner.
    pub uid: u32,
    /// The owning group.
    pub gid: u32,
    /// The modification time.
    pub mtime: Time,
    /// The number of names within the tree; two and the subdirectories for a directory.
    pub nlink: u32,
    /// Extended attributes by full name, in byte order of the names.
    pub xattrs: Vec<Xattr>,
    /// The directory that holds the first name, and which of its entries that is.
    pub(crate) first_name: (NodeId, u32),
}

/// A range of a file, and its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Its offset in the file.
    pub at: u64,
    pub length: u64,
    /// Its offset in the data of its member; later, in the file that holds the contents.
    pub offset: u64,
}

/// A regular file that was looked at again because it has changed.
#[derive(Debug)]
pub(crate) struct Fresh {
    pub state: FileState,
    pub permissions: u16,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Time,
    pub xattrs: Vec<Xattr>,
}

/// The paths that a walk left out.
#[derive(Clone, Debug, Default)]
pub(crate) struct LeftOut {
    /// Directories on other filesystems.
    pub mount_points: Vec<PathBuf>,
    /// The store itself.
    pub store: Option<PathBuf>,
    /// Paths that cannot be read, from the root, with the first causes.
    pub unreadable: Vec<PathBuf>,
    /// The causes of the first of them.
    pub unreadable_causes: Vec<String>,
}

/// The full name of an extended attribute, and its value.
pub type Xattr = (Vec<u8>, Vec<u8>);

/// A point in time, as `struct timespec` has it: nanoseconds count forward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time {
    /// Seconds since the epoch.
    pub seconds: i64,
    /// 0 to 999,999,999.
    pub nanoseconds: u32,
}

/// The type of an inode.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A regular file.
    File(FileState),
    /// A directory, with its entries in byte order of the names.
    Directory(Vec<Entry>),
    /// A symbolic link and its target.
    Symlink(Vec<u8>),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device: major and minor number.
    CharDevice(u32, u32),
    /// A block device: major and minor number.
    BlockDevice(u32, u32),
}

/// A directory entry.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The name.
    pub name: Box<[u8]>,
    /// The inode.
    pub node: NodeId,
}

/// A regular file.
#[derive(Clone, Debug)]
pub struct FileState {
    /// The size in bytes.
    pub size: u64,
    pub(crate) origin: Origin,
}

/// The origin of a regular file's contents.
#[derive(Clone, Debug)]
pub(crate) enum Origin {
    /// A file of the directory that is built from.
    Directory(Seen),
    /// Ranges of one file that holds the contents of an archive, ascending; between them are zeros.
    Archive(Box<[Piece]>),
}

/// The state of a file when it was found. Contents that are read later belong to it only if the state
/// is still the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub size: u64,
    pub device: u64,
    pub inode: u64,
    pub mtime: Time,
    pub ctime: Time,
}

impl FileState {
    /// Returns true if this and `other` are the same ranges of one archive.
    pub(crate) fn is_same_piece(&self, other: &FileState) -> bool {
        match (&self.origin, &other.origin) {
            (Origin::Archive(one), Origin::Archive(another)) => {
                self.size == other.size && one == another
            }
            _ => false,
        }
    }
}

impl Seen {
    /// Returns the first difference of `now` from this state.
    pub fn difference(&self, now: &Seen) -> Option<Difference> {
        if (self.device, self.inode) != (now.device, now.inode) {
            Some(Difference::OtherFile)
        } else if self.size != now.size {
            Some(Difference::Size {
                before: self.size,
                now: now.size,
            })
        } else if self.mtime != now.mtime {
            Some(Difference::ModificationTime)
        } else if self.ctime != now.ctime {
            Some(Difference::ChangeTime)
        } else {
            None
        }
    }
}

/// A difference between two states of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// The name leads to another inode.
    OtherFile,
    /// The size.
    Size {
        /// The earlier size in bytes.
        before: u64,
        /// The later size in bytes.
        now: u64,
    },
    /// The modification time.
    ModificationTime,
    /// The change time.
    ChangeTime,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Difference::OtherFile => f.write_str("another file took its name"),
            Difference::Size { before, now } => write!(f, "its size went from {before} to {now}"),
            Difference::ModificationTime => f.write_str("its modification time moved"),
            Difference::ChangeTime => f.write_str("its change time moved"),
        }
    }
}

impl Node {
    /// Takes over the state of a regular file that was looked at again.
    pub(crate) fn refresh(&mut self, fresh: Fresh) {
        self.kind = Kind::File(fresh.state);
        self.permissions = fresh.permissions;
        self.uid = fresh.uid;
        self.gid = fresh.gid;
        self.mtime = fresh.mtime;
        self.xattrs = fresh.xattrs;
    }
}

impl Tree {
    /// The names that lead from the root to a node: one of its paths.
    pub(crate) fn names(&self, mut node: NodeId) -> Vec<&[u8]> {
        let mut names = Vec::new();
        while node != 0 {
            let (parent, entry) = self.nodes[node as usize].first_name;
            if let Kind::Directory(entries) = &self.nodes[parent as usize].kind {
                names.push(&*entries[entry as usize].name);
            }
            node = parent;
        }
        names.reverse();
        names
    }

    /// The sum of the sizes of all regular files, in bytes.
    pub fn data_size(&self) -> u64 {
        let sizes = self.nodes.iter().map(|node| match &node.kind {
            Kind::File(state) => state.size,
            _ => 0,
        });
        sizes.fold(0, u64::saturating_add)
    }

    /// One of the paths of a node, relative to the root.
    pub fn path(&self, node: NodeId) -> PathBuf {
        PathBuf::from(OsString::from_vec(self.names(node).join(&b'/')))
    }
}
