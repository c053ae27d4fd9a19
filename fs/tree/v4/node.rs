// SPDX-License-Identifier: GPL-2.0

//! Nodes of version 4.
//!
//! A node keeps the block of its inode in memory. Directories are therefore searched, and the
//! extents of most files found, without a wait.

use super::{chunk_cache::ChunkHandle, source::Trees};
use crate::{
    base::fault::Fault,
    fill::{
        content::Content,
        extent_map::{ExtentMap, ExtentSource},
    },
    store::opening::Opening,
};
use core::ops::ControlFlow;
use kernel::sync::Arc;
use puzzlefs_schema::v4::{
    self, Bounds, ChunkRef, Content as InodeContent, Extent, ExtentData, MetadataErrorKind,
};

/// An inode, and its block.
pub(super) type LoadedInode = v4::LoadedInode<ChunkHandle>;

/// A node of version 4, as far as it is kept while its inode is in memory.
pub(crate) enum Node {
    /// A regular file.
    File(FileNode),
    /// A directory.
    Directory {
        loaded: LoadedInode,
        /// The number of entries.
        entries: u64,
    },
    /// A node of another type.
    Other(LoadedInode),
}

/// The node of a regular file.
pub(crate) struct FileNode {
    pub(super) loaded: LoadedInode,
    pub(super) trees: Arc<Trees>,
    pub(super) content: Content,
}

impl Node {
    /// Returns the inode and its block.
    pub(super) fn loaded(&self) -> &LoadedInode {
        match self {
            Self::File(file) => &file.loaded,
            Self::Directory { loaded, .. } | Self::Other(loaded) => loaded,
        }
    }

    /// Returns the content of a regular file.
    pub(in crate::tree) fn content(&self) -> Option<&Content> {
        match self {
            Self::File(file) => Some(&file.content),
            Self::Directory { .. } | Self::Other(_) => None,
        }
    }

    /// Returns the map of a regular file.
    pub(in crate::tree) fn extent_map(&self) -> Option<ExtentMap<'_>> {
        match self {
            Self::File(file) => Some(ExtentMap::Version4(file)),
            Self::Directory { .. } | Self::Other(_) => None,
        }
    }
}

impl ExtentSource for FileNode {
    fn for_each_extent(
        &self,
        offset: u64,
        how: Opening,
        give: &mut dyn FnMut(&Extent) -> ControlFlow<()>,
    ) -> Result<(), Fault> {
        let tree = self.trees.of(how);
        // The walk ends early if that is enough.
        let _ = tree.for_each_extent(&self.loaded, offset, |extent| give(&extent))?;
        Ok(())
    }

    fn identify(&self, give: &mut dyn FnMut(&[u8])) -> Result<(), Fault> {
        let tree = self.trees.of(Opening::Waiting);
        let broken = |e| tree.broken(&self.loaded, e);
        match tree.content(&self.loaded)? {
            InodeContent::File(extents) => {
                give(b"extents");
                for position in 0..extents.len() {
                    if let Some(extent) = extents.get(position).map_err(broken)? {
                        identify_extent(&extent, give);
                    }
                }
                Ok(())
            }
            InodeContent::LongFile(parts) => {
                give(b"parts");
                for position in 0..parts.len() {
                    let Some(part) = parts.get(position).map_err(broken)? else {
                        continue;
                    };
                    if let Bounds::Offsets { start, .. } = part.bounds {
                        give(&start.to_le_bytes());
                    }
                    give(&part.count.to_le_bytes());
                    identify_chunk(&part.chunk, give);
                }
                Ok(())
            }
            _ => Err(tree.broken(&self.loaded, MetadataErrorKind::Misuse)),
        }
    }
}

/// Gives everything that an extent consists of. It ends at the next one, or with the file.
fn identify_extent(extent: &Extent, give: &mut dyn FnMut(&[u8])) {
    give(&extent.start.to_le_bytes());
    match extent.data {
        ExtentData::Hole => give(&[0]),
        ExtentData::Chunk { chunk, offset } => {
            give(&[1]);
            identify_chunk(&chunk, give);
            give(&offset.to_le_bytes());
        }
    }
}

/// Gives everything that a reference to a chunk consists of.
fn identify_chunk(chunk: &ChunkRef, give: &mut dyn FnMut(&[u8])) {
    give(chunk.digest().as_bytes());
    give(&chunk.stored_len().to_le_bytes());
    give(&chunk.content_len().to_le_bytes());
}
