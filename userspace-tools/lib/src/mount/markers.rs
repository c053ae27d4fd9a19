// SPDX-License-Identifier: MIT OR Apache-2.0

//! Overlayfs' own markers inside an image, such as one that holds the storage of a container engine.
//!
//! An overlay would act on these markers rather than show them. Extended attributes can be escaped, so
//! that the overlay shows them: see [`puzzlefs_schema::overlay`]. A character device 0:0 cannot: every
//! overlay takes it for a whiteout. So an image with such a device has no overlay that shows its tree.

use crate::error::{MountError, Result};
use crate::image::reader::ImageReader;
use crate::store::oci_layout::{ImageRoot, Store};
use puzzlefs_schema::{overlay, Inode, Kind, Locator};
use std::collections::HashSet;
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
pub fn needs_escape(path: &Path, image: &ImageRoot) -> Result<bool> {
    let store = Store::open(path)?;
    let reader = ImageReader::new(&store, image)?;
    let markers = Markers::find(&reader)?;
    match markers.first_path(&reader)? {
        None => Ok(markers.escape),
        Some((path, what)) => Err(MountError::NoOverlay { path, what }.into()),
    }
}

/// The markers of an image.
#[derive(Default)]
struct Markers {
    /// Inodes that no overlay can show.
    refused: HashSet<Locator>,
    /// There are attributes that have to be escaped.
    escape: bool,
}

impl Markers {
    fn find(reader: &ImageReader<'_>) -> Result<Self> {
        let metadata = reader.metadata();
        let mut markers = Markers::default();
        for layer in 0..reader.checked(metadata.layers())? {
            for index in 0..reader.checked(metadata.layer_len(layer))? {
                let at = Locator { layer, index };
                let inode = reader.checked(metadata.inode_at(at))?;
                if reader.checked(markers.add(&inode))? {
                    markers.refused.insert(at);
                }
            }
        }
        Ok(markers)
    }

    /// Takes note of an inode. Returns true if no overlay can show it.
    fn add(&mut self, inode: &Inode<'_>) -> puzzlefs_schema::Result<bool> {
        let mut refused = is_whiteout(inode);
        for xattr in inode.xattrs()?.iter() {
            let name = xattr?.name;
            self.escape |= overlay::is_claimed(name);
            refused |= !overlay::can_escape(name);
        }
        Ok(refused)
    }

    /// The path of the first inode that no overlay can show, and the reason. An inode of a lower layer
    /// of the image can be hidden: then it has no path.
    fn first_path(&self, reader: &ImageReader<'_>) -> Result<Option<(Vec<u8>, &'static str)>> {
        if self.refused.is_empty() {
            return Ok(None);
        }
        let metadata = reader.metadata();
        let root = reader.checked(metadata.find(puzzlefs_schema::ROOT_INO))?;
        let mut first = None;
        if self.refused.contains(&root) {
            first = Some((b"/".to_vec(), root));
        }
        reader.visit(root, |path, entry| {
            if first.is_none() && self.refused.contains(&entry.at) {
                first = Some(([b"/", path].concat(), entry.at));
            }
            Ok(())
        })?;
        let Some((path, at)) = first else {
            return Ok(None);
        };
        let what = if is_whiteout(&reader.checked(metadata.inode_at(at))?) {
            "overlayfs hides a character device 0:0"
        } else {
            "overlayfs hides an extended attribute whose name is too long to be escaped"
        };
        Ok(Some((path, what)))
    }
}

/// Returns true if overlayfs takes an inode for a whiteout.
fn is_whiteout(inode: &Inode<'_>) -> bool {
    matches!(inode.kind(), Kind::Chr { major: 0, minor: 0 })
}
