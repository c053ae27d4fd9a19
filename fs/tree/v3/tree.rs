// SPDX-License-Identifier: GPL-2.0

//! The tree of an image of version 3.

use super::{
    merged_dir::MergedDir,
    metadata_blob::MetadataBlob,
    node::{Body, Node},
};
use crate::{
    base::{fault::Fault, registry::InUse},
    fill::{content::Content, extent_map::ExtentMap},
    tree::attributes::{link_target, Attributes, Child, Entry, NodeType},
    vfs::prelude::*,
};
use core::ops::ControlFlow;
use puzzlefs_schema::{Digest, Inode, Kind, Locator, Metadata};

/// The tree of an image of version 3.
pub(crate) struct Tree {
    blob: InUse<MetadataBlob>,
}

impl Tree {
    /// Makes the tree of a metadata blob.
    pub(crate) fn new(blob: InUse<MetadataBlob>) -> Self {
        Self { blob }
    }

    /// Returns the digest of the metadata blob.
    pub(in crate::tree) fn digest(&self) -> &Digest {
        self.blob.digest()
    }

    /// Returns the metadata.
    pub(crate) fn metadata(&self) -> Metadata<'_> {
        self.blob.metadata()
    }

    /// Returns the map of a regular file.
    pub(in crate::tree) fn extent_map<'a>(&'a self, node: &'a Node) -> Option<ExtentMap<'a>> {
        Some(node.chunks()?.map(self.metadata()))
    }

    /// Reads the node of a number, whose place may be known already.
    pub(in crate::tree) fn read(
        &self,
        ino: u64,
        at: Option<Locator>,
    ) -> Result<(Attributes, Node), Fault> {
        let metadata = self.metadata();
        let at = match at {
            Some(at) => at,
            None => metadata.find(ino)?,
        };
        let inode = metadata.inode_at(at)?;
        let (node_type, size, body) = read_body(&metadata, &inode, at)?;
        let attributes = Attributes {
            node_type,
            permissions: inode.permissions(),
            uid: inode.uid(),
            gid: inode.gid(),
            // A plain version 3 image does not say. To tools that walk trees, one link to a
            // directory means "unknown".
            links: inode.nlink().unwrap_or(1),
            size,
            mtime: inode.mtime()?,
            has_xattrs: inode.has_xattrs()?,
        };
        Ok((attributes, Node { at, body }))
    }

    /// Returns the node of a name in a directory.
    pub(in crate::tree) fn lookup(
        &self,
        dir: &Node,
        name: &[u8],
    ) -> Result<Option<Child<Locator>>, Fault> {
        let found = merged_dir(dir)?.lookup(&self.metadata(), name)?;
        Ok(found.map(|entry| Child {
            ino: entry.ino,
            at: entry.at,
        }))
    }

    /// Calls a function with each entry of a directory from a cursor on, until it returns `Break`.
    pub(in crate::tree) fn for_each(
        &self,
        dir: &Node,
        cursor: u64,
        mut give: impl FnMut(Entry<'_>) -> ControlFlow<()>,
    ) -> Result<(), Fault> {
        // Iteration ends early if there is no more room.
        let _ = merged_dir(dir)?.for_each(&self.metadata(), cursor, |entry| {
            give(Entry {
                name: entry.name,
                ino: entry.ino,
                file_type: entry.file_type,
                cursor: entry.cursor,
            })
        })?;
        Ok(())
    }

    /// Returns the directory that a directory is in; `None` if it is in none.
    ///
    /// Directories do not say: all are looked through. That is done for a file handle of a
    /// directory which the dentry cache has lost.
    pub(in crate::tree) fn parent(&self, ino: u64) -> Result<Option<Child<Locator>>, Fault> {
        let metadata = self.metadata();
        // A well-formed image has one entry per layer that names it.
        let mut tries = metadata.layers()?;
        let found = metadata.for_each_entry_of(ino, |entry| {
            let found = self.visible_parent(ino, entry.dir, entry.name);
            tries = tries.saturating_sub(1);
            if found.is_some() || tries == 0 {
                ControlFlow::Break(found)
            } else {
                ControlFlow::Continue(())
            }
        })?;
        Ok(match found {
            ControlFlow::Break(found) => found,
            ControlFlow::Continue(()) => None,
        })
    }

    /// Returns the directory of an entry, unless the entry is hidden by a layer above.
    fn visible_parent(&self, ino: u64, dir: u64, name: &[u8]) -> Option<Child<Locator>> {
        let metadata = self.metadata();
        let at = metadata.find(dir).ok()?;
        let merged = MergedDir::new(&metadata, at).ok()?;
        let child = merged.lookup(&metadata, name).ok()??;
        (child.ino == ino).then_some(Child { ino: dir, at })
    }

    /// Calls a function with the value of an attribute; returns `None` if there is none of that
    /// name. If `escaped`, the name is the escaped form of the attribute's.
    pub(in crate::tree) fn xattr<R>(
        &self,
        node: &Node,
        name: &[u8],
        escaped: bool,
        take: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>, Fault> {
        let xattrs = self.metadata().inode_at(node.at)?.xattrs()?;
        let value = if escaped {
            xattrs.get_escaped(name)?
        } else {
            xattrs.get(name)?
        };
        Ok(value.map(take))
    }

    /// Calls a function with the name of each attribute, until it returns `Break`.
    pub(in crate::tree) fn for_each_xattr<B>(
        &self,
        node: &Node,
        mut give: impl FnMut(&[u8]) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, Fault> {
        for xattr in self.metadata().inode_at(node.at)?.xattrs()?.iter() {
            if let ControlFlow::Break(with) = give(xattr?.name) {
                return Ok(ControlFlow::Break(with));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// Returns the entries of a directory.
fn merged_dir(dir: &Node) -> Result<&MergedDir> {
    match &dir.body {
        Body::Directory(merged) => Ok(merged),
        Body::File(..) | Body::Other => Err(ENOTDIR),
    }
}

/// Reads the type and the size of a node, and the data that only its type has.
fn read_body(
    metadata: &Metadata<'_>,
    inode: &Inode<'_>,
    at: Locator,
) -> Result<(NodeType, u64, Body), Fault> {
    let node_type = match inode.kind() {
        Kind::File => {
            let (content, chunks) = Content::index(inode)?;
            return Ok((
                NodeType::Regular,
                content.size(),
                Body::File(content, chunks),
            ));
        }
        Kind::Dir => {
            let dir = MergedDir::new(metadata, at)?;
            return Ok((NodeType::Directory, dir.len(), Body::Directory(dir)));
        }
        Kind::Symlink => {
            let target = inode.symlink_target()?;
            let node_type = NodeType::Symlink(link_target(target)?);
            return Ok((node_type, target.len() as u64, Body::Other));
        }
        Kind::Chr { major, minor } => NodeType::CharDevice { major, minor },
        Kind::Blk { major, minor } => NodeType::BlockDevice { major, minor },
        Kind::Fifo => NodeType::Fifo,
        Kind::Sock => NodeType::Socket,
        Kind::Whiteout | Kind::Unknown => return Err(Fault::InodeKind),
    };
    Ok((node_type, 0, Body::Other))
}
