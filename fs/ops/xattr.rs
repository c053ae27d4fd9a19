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
use core::ops::ControlFlow;
use puzzlefs_schema::overlay;

/// Calls a function with the value of an attribute; `None` if the inode has none of that name.
pub(super) fn get<R>(
    inode: &INode<PuzzleFs>,
    name: &[u8],
    take: impl FnOnce(&[u8]) -> R,
) -> Result<Option<R>> {
    let image = image(inode);
    let escaped = image.settings().escape_overlay;
    image
        .tree()
        .xattr(inode.data(), name, escaped, take)
        .map_err(|fault| site(inode).report(fault))
}

/// Lists the names of all attributes.
pub(super) fn list(inode: &INode<PuzzleFs>, lister: &mut XattrLister<'_>) -> Result {
    let image = image(inode);
    let escaped = image.settings().escape_overlay;
    let listed = image.tree().for_each_xattr(inode.data(), |name| {
        let added = if !escaped {
            lister.add(&[name])
        } else if overlay::can_escape(name) {
            lister.add(&overlay::escape(name))
        } else {
            Ok(())
        };
        match added {
            Ok(()) => ControlFlow::Continue(()),
            Err(e) => ControlFlow::Break(e),
        }
    });
    match listed.map_err(|fault| site(inode).report(fault))? {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(e) => Err(e),
    }
}
