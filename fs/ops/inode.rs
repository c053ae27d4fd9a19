// SPDX-License-Identifier: GPL-2.0

//! Inodes: from the image's metadata to the VFS.

use crate::vfs::prelude::*;
use crate::{
    fill::file::Content,
    ops::dir::Directory,
    ops::image::Image,
    vfs::{CachedINode, INodeKind, INodeParams, INodeRef, SuperBlock},
    PuzzleFs,
};
use kernel::{
    alloc::AllocError,
    str::{CStr, CString},
};
use puzzlefs_schema::{Kind, Locator};

/// The private data of an inode.
pub(crate) struct Node {
    /// Where the inode stands in the metadata.
    pub(crate) at: Locator,
    /// What only inodes of its kind have.
    pub(crate) body: Body,
}

/// What only inodes of a kind have.
pub(crate) enum Body {
    /// A regular file's contents.
    File(Content),
    /// A directory's entries.
    Directory(Directory),
    /// Nothing more.
    Other,
}

/// Why an inode cannot be made.
pub(crate) enum Malformed {
    /// The metadata is not as it has to be.
    Metadata(puzzlefs_schema::Error),
    /// There is no memory.
    NoMemory,
}

impl Malformed {
    /// Logs what is wrong, if it is the image, and gives the error for whoever asked for the inode.
    fn report(self, image: &Image, ino: u64) -> Error {
        match self {
            Self::Metadata(e) => image.report(Some(ino), e),
            Self::NoMemory => ENOMEM,
        }
    }
}

impl From<puzzlefs_schema::Error> for Malformed {
    fn from(e: puzzlefs_schema::Error) -> Self {
        Self::Metadata(e)
    }
}

impl From<AllocError> for Malformed {
    fn from(_: AllocError) -> Self {
        Self::NoMemory
    }
}

/// Gives the inode of a number, whose place in the metadata may be known already.
///
/// # Errors
///
/// [`EUCLEAN`] if the metadata has no such inode or it is malformed.
pub(crate) fn get(
    sb: &SuperBlock<PuzzleFs>,
    ino: u64,
    at: Option<Locator>,
) -> Result<INodeRef<'_, PuzzleFs>> {
    let new = match sb.get_inode(ino)? {
        CachedINode::Cached(inode) => return Ok(inode),
        CachedINode::New(new) => new,
    };
    let image = sb.data();
    let metadata = image.metadata();
    let malformed = |e| image.report(Some(ino), e);

    let at = match at {
        Some(at) => at,
        None => metadata.find(ino).map_err(malformed)?,
    };
    let inode = metadata.inode_at(at).map_err(malformed)?;

    let mut size = 0;
    let mut body = Body::Other;
    let kind = match inode.kind() {
        Kind::File => {
            let content = Content::new(&inode).map_err(|e| e.report(image, ino))?;
            size = content.size();
            body = Body::File(content);
            INodeKind::Regular
        }
        Kind::Dir => {
            let directory = Directory::new(&metadata, at).map_err(|e| e.report(image, ino))?;
            size = directory.len();
            body = Body::Directory(directory);
            INodeKind::Directory
        }
        Kind::Symlink => {
            let target = inode.symlink_target().map_err(malformed)?;
            size = target.len() as u64;
            INodeKind::Symlink(c_string(target)?)
        }
        Kind::Chr { major, minor } => INodeKind::CharDevice { major, minor },
        Kind::Blk { major, minor } => INodeKind::BlockDevice { major, minor },
        Kind::Fifo => INodeKind::Fifo,
        Kind::Sock => INodeKind::Socket,
        Kind::Whiteout | Kind::Unknown => {
            image.log(ino, fmt!("it is of no kind that a directory can name"));
            return Err(EUCLEAN);
        }
    };

    let mtime = inode.mtime().map_err(malformed)?;
    new.init(INodeParams {
        kind,
        permissions: inode.permissions(),
        uid: inode.uid(),
        gid: inode.gid(),
        // A plain version 3 image does not say. To tools that walk trees, one link to a directory
        // means "unknown".
        nlink: inode.nlink().unwrap_or(1),
        size,
        mtime: (mtime.seconds, mtime.nanoseconds),
        may_have_acl: inode.has_xattrs().map_err(malformed)?,
        data: Node { at, body },
    })
}

/// Gives the inode of a number that is in a file handle.
///
/// # Errors
///
/// [`ESTALE`] if the image has no such inode, or one that nothing can name; [`EUCLEAN`] if it is
/// malformed.
pub(crate) fn by_number(sb: &SuperBlock<PuzzleFs>, ino: u64) -> Result<INodeRef<'_, PuzzleFs>> {
    let at = sb.data().metadata().find(ino).map_err(|_| ESTALE)?;
    get(sb, ino, Some(at))
}

/// The target of a symbolic link, as the VFS wants it.
fn c_string(target: &[u8]) -> Result<CString> {
    let mut bytes = KVec::with_capacity(target.len() + 1, GFP_KERNEL)?;
    bytes.extend_from_slice(target, GFP_KERNEL)?;
    bytes.push(0, GFP_KERNEL)?;
    let target = CStr::from_bytes_with_nul(&bytes).map_err(|_| EUCLEAN)?;
    Ok(CString::try_from(target)?)
}
