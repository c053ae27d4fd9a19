// SPDX-License-Identifier: MIT OR Apache-2.0

//! Overlayfs' own markers inside an image, such as one that holds the storage of a container engine.
//!
//! An overlay would act on these markers rather than show them. Extended attributes can be escaped, so
//! that the overlay shows them: see [`puzzlefs_schema::overlay`]. A character device 0:0 cannot: every
//! overlay takes it for a whiteout. So an image with such a device has no overlay that shows its tree.

use crate::error::{MountError, Result};
use crate::image::image_tree::{ImageTree, InodeLink, Place, TreeInode};
use crate::store::oci_layout::{AnyRoot, Store};
use puzzlefs_schema::image::{ImageMetadata, Link, Versions};
use puzzlefs_schema::{overlay, FileType, Kind, Locator, ROOT_INO};
use std::collections::HashSet;
use std::ops::ControlFlow;
use std::path::Path;

/// The mount option that escapes the extended attributes that overlayfs claims.
pub const ESCAPE_OVERLAY: &str = "escape_overlay";

/// Returns true if an image in the store at `path` has to be mounted with [`ESCAPE_OVERLAY`] to be a
/// layer of an overlay.
///
/// The cost is one pass over the inodes. The tree is searched only if there is something to refuse.
///
/// # Errors
///
/// If no overlay can show the image's tree.
pub fn needs_escape(path: &Path, image: &AnyRoot) -> Result<bool> {
    let store = Store::open(path)?;
    let tree = ImageTree::new(&store, image)?;
    let markers = Markers::find(&tree)?;
    match markers.first_path(&tree)? {
        None => Ok(markers.escape),
        Some((path, what)) => Err(MountError::NoOverlay { path, what }.into()),
    }
}

/// The markers of an image.
#[derive(Default)]
struct Markers {
    /// Inodes that no overlay can show.
    refused: HashSet<Place>,
    /// There are attributes that have to be escaped.
    escape: bool,
}

impl Markers {
    fn find(tree: &ImageTree<'_>) -> Result<Self> {
        let mut markers = Markers::default();
        for_each_inode(tree, |link| {
            if markers.add(tree, &tree.open(&link)?)? {
                markers.refused.insert(link.place);
            }
            Ok(())
        })?;
        Ok(markers)
    }

    /// Takes note of an inode. Returns true if no overlay can show it.
    fn add(&mut self, tree: &ImageTree<'_>, inode: &TreeInode) -> Result<bool> {
        let mut refused = is_whiteout(tree.kind(inode)?);
        let _ = tree.metadata().for_each_xattr_name(inode, |name| {
            self.escape |= overlay::is_claimed(name);
            refused |= !overlay::can_escape(name);
            ControlFlow::<()>::Continue(())
        })?;
        Ok(refused)
    }

    /// The path of the first inode that no overlay can show, and the reason. An inode of a lower layer
    /// of the image can be hidden: then it has no path.
    fn first_path(&self, tree: &ImageTree<'_>) -> Result<Option<(Vec<u8>, &'static str)>> {
        if self.refused.is_empty() {
            return Ok(None);
        }
        let root = tree.root()?;
        let mut first = None;
        if self.refused.contains(&tree.link(&root).place) {
            first = Some((b"/".to_vec(), tree.link(&root)));
        }
        tree.visit(&root, |path, entry| {
            if first.is_none() && self.refused.contains(&entry.link.place) {
                first = Some(([b"/", path].concat(), entry.link));
            }
            Ok(())
        })?;
        let Some((path, link)) = first else {
            return Ok(None);
        };
        let what = if is_whiteout(tree.kind(&tree.open(&link)?)?) {
            "overlayfs hides a character device 0:0"
        } else {
            "overlayfs hides an extended attribute whose name is too long to be escaped"
        };
        Ok(Some((path, what)))
    }
}

/// Passes each inode of an image to a function: those of all layers in format 3.
fn for_each_inode(
    tree: &ImageTree<'_>,
    mut give: impl FnMut(InodeLink) -> Result<()>,
) -> Result<()> {
    let Some(reader) = tree.v3() else {
        for ino in ROOT_INO..=tree.metadata().inode_count()? {
            match tree.metadata().find(ino)? {
                Some(link) => give(link)?,
                None => break,
            }
        }
        return Ok(());
    };
    let metadata = reader.metadata();
    for layer in 0..reader.checked(metadata.layers())? {
        for index in 0..reader.checked(metadata.layer_len(layer))? {
            let at = Locator { layer, index };
            give(Link {
                ino: reader.checked(metadata.inode_at(at))?.ino(),
                file_type: FileType::Unknown,
                place: Versions::V3(at),
            })?;
        }
    }
    Ok(())
}

/// Returns true if overlayfs takes an inode for a whiteout.
fn is_whiteout(kind: Kind) -> bool {
    matches!(kind, Kind::Chr { major: 0, minor: 0 })
}
