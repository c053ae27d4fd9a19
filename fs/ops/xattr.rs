// SPDX-License-Identifier: GPL-2.0

//! Extended attributes.
//!
//! The image holds full names. The VFS decides who may see which; POSIX ACLs are attributes like
//! others here. If the mount is to be a layer of an overlay, names that overlayfs claims are
//! escaped.

use crate::vfs::prelude::*;
use crate::{
    vfs::{INode, XattrLister},
    PuzzleFs,
};
use puzzlefs_schema::overlay;

/// The value of an attribute; `None` if the inode has none of that name.
pub(crate) fn get<'a>(inode: &'a INode<PuzzleFs>, name: &[u8]) -> Result<Option<&'a [u8]>> {
    let image = inode.superblock().data();
    let value = (|| {
        let xattrs = image.metadata().inode_at(inode.data().at)?.xattrs()?;
        if image.escapes_overlay() {
            xattrs.get_escaped(name)
        } else {
            xattrs.get(name)
        }
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
        let name = xattr.map_err(malformed)?.name;
        if !image.escapes_overlay() {
            lister.add(&[name])?;
        } else if overlay::can_escape(name) {
            lister.add(&overlay::escape(name))?;
        }
    }
    Ok(())
}
