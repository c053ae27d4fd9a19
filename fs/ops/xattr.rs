// SPDX-License-Identifier: GPL-2.0

//! Extended attributes.
//!
//! The image holds full names. The VFS decides which a task may see. POSIX ACLs are attributes like
//! others here. If the mount is a layer of an overlay, names that overlayfs claims are escaped.

use super::{
    fs_type::PuzzleFs,
    node::{image, site},
};
use crate::vfs::{prelude::*, INode, XattrLister};
use puzzlefs_schema::overlay;

/// Returns the value of an attribute; `None` if the inode has none of that name.
pub(super) fn get<'a>(inode: &'a INode<PuzzleFs>, name: &[u8]) -> Result<Option<&'a [u8]>> {
    let image = image(inode);
    let value = (|| {
        let xattrs = image.metadata().inode_at(inode.data().at)?.xattrs()?;
        if image.settings().escape_overlay {
            xattrs.get_escaped(name)
        } else {
            xattrs.get(name)
        }
    })();
    value.map_err(|e: puzzlefs_schema::Error| site(inode).report(e))
}

/// Lists the names of all attributes.
pub(super) fn list(inode: &INode<PuzzleFs>, lister: &mut XattrLister<'_>) -> Result {
    let image = image(inode);
    let malformed = |e: puzzlefs_schema::Error| site(inode).report(e);
    let metadata = image.metadata();
    let xattrs = metadata
        .inode_at(inode.data().at)
        .and_then(|inode| inode.xattrs())
        .map_err(malformed)?;
    for xattr in xattrs.iter() {
        let name = xattr.map_err(malformed)?.name;
        if !image.settings().escape_overlay {
            lister.add(&[name])?;
        } else if overlay::can_escape(name) {
            lister.add(&overlay::escape(name))?;
        }
    }
    Ok(())
}
