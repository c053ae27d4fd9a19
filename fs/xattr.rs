// SPDX-License-Identifier: GPL-2.0

//! Extended attributes.
//!
//! The image holds full names. The VFS decides who may see which; POSIX ACLs are attributes like
//! others here.

use crate::vfs::prelude::*;
use crate::{
    vfs::{INode, XattrLister},
    PuzzleFs,
};

/// The value of an attribute; `None` if the inode has none of that name.
pub(crate) fn get<'a>(inode: &'a INode<PuzzleFs>, name: &[u8]) -> Result<Option<&'a [u8]>> {
    let image = inode.superblock().data();
    let value = (|| {
        image
            .metadata()
            .inode_at(inode.data().at)?
            .xattrs()?
            .get(name)
    })();
    value.map_err(|e| image.report(Some(inode.ino()), e))
}

/// Lists the names of all attributes.
pub(crate) fn list(inode: &INode<PuzzleFs>, lister: &mut XattrLister<'_>) -> Result {
    let image = inode.superblock().data();
    let malformed = |e| image.report(Some(inode.ino()), e);
    let metadata = image.metadata();
    let xattrs = metadata
        .inode_at(inode.data().at)
        .and_then(|inode| inode.xattrs())
        .map_err(malformed)?;
    for xattr in xattrs.iter() {
        lister.add(xattr.map_err(malformed)?.name)?;
    }
    Ok(())
}
