// SPDX-License-Identifier: GPL-2.0

//! Inodes: from the image's metadata to the VFS.

use super::{
    fs_type::PuzzleFs,
    node::{Body, Node},
};
use crate::{
    base::fault::Fault,
    fill::content::Content,
    tree::merged_dir::MergedDir,
    vfs::{prelude::*, CachedINode, INodeKind, INodeParams, INodeRef, SuperBlock},
};
use kernel::str::{CStr, CString};
use puzzlefs_schema::{Inode, Kind, Locator, Metadata};

/// Returns the inode of a number, whose place in the metadata may be known already.
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
    let params = read(&image.metadata(), ino, at);
    new.init(params.map_err(|fault| image.site().inode(ino).report(fault))?)
}

/// Reads an inode from the metadata.
fn read(
    metadata: &Metadata<'_>,
    ino: u64,
    at: Option<Locator>,
) -> Result<INodeParams<Node>, Fault> {
    let at = match at {
        Some(at) => at,
        None => metadata.find(ino)?,
    };
    let inode = metadata.inode_at(at)?;
    let (kind, size, body) = read_body(metadata, &inode, at)?;
    let mtime = inode.mtime()?;
    Ok(INodeParams {
        kind,
        permissions: inode.permissions(),
        uid: inode.uid(),
        gid: inode.gid(),
        // A plain version 3 image does not say. To tools that walk trees, one link to a directory
        // means "unknown".
        nlink: inode.nlink().unwrap_or(1),
        size,
        mtime: (mtime.seconds, mtime.nanoseconds),
        may_have_acl: inode.has_xattrs()?,
        data: Node { at, body },
    })
}

/// Reads the kind and the size of an inode, and the data that only its kind has.
fn read_body(
    metadata: &Metadata<'_>,
    inode: &Inode<'_>,
    at: Locator,
) -> Result<(INodeKind, u64, Body), Fault> {
    let kind = match inode.kind() {
        Kind::File => {
            let content = Content::new(inode)?;
            return Ok((INodeKind::Regular, content.size(), Body::File(content)));
        }
        Kind::Dir => {
            let dir = MergedDir::new(metadata, at)?;
            return Ok((INodeKind::Directory, dir.len(), Body::Directory(dir)));
        }
        Kind::Symlink => {
            let target = inode.symlink_target()?;
            let kind = INodeKind::Symlink(c_string(target)?);
            return Ok((kind, target.len() as u64, Body::Other));
        }
        Kind::Chr { major, minor } => INodeKind::CharDevice { major, minor },
        Kind::Blk { major, minor } => INodeKind::BlockDevice { major, minor },
        Kind::Fifo => INodeKind::Fifo,
        Kind::Sock => INodeKind::Socket,
        Kind::Whiteout | Kind::Unknown => return Err(Fault::InodeKind),
    };
    Ok((kind, 0, Body::Other))
}

/// Returns the inode of a number that is in a file handle.
///
/// # Errors
///
/// [`ESTALE`] if the image has no such inode, or one that nothing can name; [`EUCLEAN`] if it is
/// malformed.
pub(super) fn by_number(sb: &SuperBlock<PuzzleFs>, ino: u64) -> Result<INodeRef<'_, PuzzleFs>> {
    let at = sb.data().metadata().find(ino).map_err(|_| ESTALE)?;
    get(sb, ino, Some(at))
}

/// Returns the target of a symbolic link, as the VFS needs it.
fn c_string(target: &[u8]) -> Result<CString> {
    let mut bytes = KVec::with_capacity(target.len() + 1, GFP_KERNEL)?;
    bytes.extend_from_slice(target, GFP_KERNEL)?;
    bytes.push(0, GFP_KERNEL)?;
    let target = CStr::from_bytes_with_nul(&bytes).map_err(|_| EUCLEAN)?;
    Ok(CString::try_from(target)?)
}
