// SPDX-License-Identifier: GPL-2.0

//! Inodes: from the image's tree to the VFS.

use super::fs_type::PuzzleFs;
use crate::{
    tree::{
        attributes::{Attributes, Child, NodeType},
        Node, Place,
    },
    vfs::{prelude::*, CachedINode, INode, INodeKind, INodeParams, INodeRef, SuperBlock},
};

/// Returns the inode of a number, whose place in the metadata may be known already.
///
/// # Errors
///
/// [`EUCLEAN`] if the metadata has no such inode or it is malformed.
pub(crate) fn get(
    sb: &SuperBlock<PuzzleFs>,
    ino: u64,
    at: Option<Place>,
) -> Result<INodeRef<'_, PuzzleFs>> {
    get_in(sb, ino, at, None)
}

/// Returns the inode of an entry of a directory.
///
/// # Errors
///
/// [`EUCLEAN`] if it is malformed.
pub(super) fn of_entry<'a>(
    dir: &'a INode<PuzzleFs>,
    entry: &Child<Place>,
) -> Result<INodeRef<'a, PuzzleFs>> {
    get_in(
        dir.superblock(),
        entry.ino,
        Some(entry.at),
        Some(dir.data()),
    )
}

fn get_in<'a>(
    sb: &'a SuperBlock<PuzzleFs>,
    ino: u64,
    at: Option<Place>,
    dir: Option<&Node>,
) -> Result<INodeRef<'a, PuzzleFs>> {
    let new = match sb.get_inode(ino)? {
        CachedINode::Cached(inode) => return Ok(inode),
        CachedINode::New(new) => new,
    };
    let image = sb.data();
    let read = image.tree().read(ino, at, dir);
    let (attributes, node) = read.map_err(|fault| image.site().inode(ino).report(fault))?;
    new.init(params(attributes, node))
}

/// Returns the properties that an inode is initialised with.
fn params(attributes: Attributes, node: Node) -> INodeParams<Node> {
    let kind = match attributes.node_type {
        NodeType::Regular => INodeKind::Regular,
        NodeType::Directory => INodeKind::Directory,
        NodeType::Symlink(target) => INodeKind::Symlink(target),
        NodeType::CharDevice { major, minor } => INodeKind::CharDevice { major, minor },
        NodeType::BlockDevice { major, minor } => INodeKind::BlockDevice { major, minor },
        NodeType::Fifo => INodeKind::Fifo,
        NodeType::Socket => INodeKind::Socket,
    };
    INodeParams {
        kind,
        permissions: attributes.permissions,
        uid: attributes.uid,
        gid: attributes.gid,
        nlink: attributes.links,
        size: attributes.size,
        mtime: (attributes.mtime.seconds, attributes.mtime.nanoseconds),
        may_have_acl: attributes.has_xattrs,
        data: node,
    }
}

/// Returns the inode of a number that is in a file handle.
///
/// # Errors
///
/// [`ESTALE`] if the image has no such inode, or one that nothing can name; [`EUCLEAN`] if it is
/// malformed.
pub(super) fn by_number(sb: &SuperBlock<PuzzleFs>, ino: u64) -> Result<INodeRef<'_, PuzzleFs>> {
    let image = sb.data();
    let found = image.tree().find(ino);
    let at = found.map_err(|fault| image.site().inode(ino).report(fault))?;
    let at = at.ok_or(ESTALE)?;
    get(sb, ino, Some(at))
}
