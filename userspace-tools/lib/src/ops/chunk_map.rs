// SPDX-License-Identifier: MIT OR Apache-2.0

//! Describes the chunks of an image of format 4, and where a store has them.

use crate::error::Result;
use crate::image::chunk_walk::{ChunkKind, ChunkWalk};
use crate::image::image_tree::{ImageTree, TreeInode};
use crate::image::store_chunks::StoreChunks;
use crate::image::v3::reader::Counts;
use crate::model::count::Count;
use crate::model::digest::Digest;
use crate::store::chunks::index::Location;
use puzzlefs_schema::image::Versions;
use puzzlefs_schema::v4::{
    ChunkRef, Content, Extent, ExtentData, Inode, MetadataChunk, MetadataError, Node, Tree,
};
use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;

/// The place of a chunk in a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkPlace {
    /// At an offset of a pack.
    Pack {
        /// The digest of the pack.
        pack: Digest,
        /// The offset in bytes.
        offset: u64,
    },
    /// In a file of its own.
    Loose,
    /// The store does not have it.
    Missing,
}

/// Chunks, each counted once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChunkCount {
    /// The chunks, and their bytes as they are stored.
    pub stored: Count,
    /// The bytes of their contents.
    pub content_bytes: u64,
}

/// The chunks of an image.
#[derive(Clone, Debug, Default)]
pub struct ChunkMap {
    /// The numbers of inodes, entries and extents. There are no layers.
    pub counts: Counts,
    /// The number of blocks.
    pub blocks: u64,
    /// The chunks of the metadata: root, block lists, blocks, list blocks.
    pub metadata: ChunkCount,
    /// The other chunks: data of files, and large values of extended attributes.
    pub data: ChunkCount,
    /// The chunks in each pack.
    pub packs: BTreeMap<Digest, Count>,
    /// The chunks in files of their own.
    pub loose: Count,
    /// The chunks that the store does not have.
    pub missing: Count,
}

/// An extent of a file.
#[derive(Clone, Copy, Debug)]
pub struct PlacedExtent {
    /// Its offset in the file.
    pub offset: u64,
    /// Its length.
    pub bytes: u64,
    /// Its data; none for a hole.
    pub chunk: Option<PlacedChunk>,
}

/// A chunk with data of a file.
#[derive(Clone, Copy, Debug)]
pub struct PlacedChunk {
    /// The digest.
    pub digest: Digest,
    /// The offset of the file's data in the content.
    pub offset: u32,
    /// The number of stored bytes.
    pub stored_bytes: u32,
    /// The number of bytes of content.
    pub content_bytes: u32,
    /// The place.
    pub place: ChunkPlace,
}

/// Reads all metadata of an image, and finds all its chunks.
pub fn chunk_map(tree: &Tree<StoreChunks<'_>>) -> Result<ChunkMap> {
    let mut map = ChunkMap::default();
    map.count_inodes(tree)?;
    let reader = tree.source().reader();
    let mut seen = HashSet::new();
    let mut chunks = Vec::new();
    let root = Digest::from(*tree.root_chunk().chunk().digest());
    ChunkWalk::new(reader).image(&root, |chunk, kind| {
        if seen.insert(*chunk) {
            chunks.push((*chunk, kind));
        }
    })?;
    for (chunk, kind) in chunks {
        let part = match kind {
            ChunkKind::Metadata => &mut map.metadata,
            ChunkKind::Data => &mut map.data,
        };
        let bytes = u64::from(chunk.stored_len());
        part.stored.add(bytes);
        part.content_bytes += u64::from(chunk.content_len());
        let count = match place(tree, &chunk)? {
            ChunkPlace::Pack { pack, .. } => map.packs.entry(pack).or_default(),
            ChunkPlace::Loose => &mut map.loose,
            ChunkPlace::Missing => &mut map.missing,
        };
        count.add(bytes);
    }
    Ok(map)
}

/// Returns the extents of a regular file of an image of format 4, with the places of their chunks; none
/// for other types and formats.
pub fn placed_extents(tree: &ImageTree<'_>, file: &TreeInode) -> Result<Vec<PlacedExtent>> {
    let (Versions::V4(tree), Versions::V4(file)) = (tree.metadata(), file) else {
        return Ok(Vec::new());
    };
    let mut extents = Vec::new();
    if let Content::File(_) | Content::LongFile(_) = tree.content(file)? {
        let _ = tree.for_each_extent(file, 0, |extent| {
            extents.push(extent);
            ControlFlow::<()>::Continue(())
        })?;
    }
    extents
        .into_iter()
        .map(|extent| placed(tree, &extent))
        .collect()
}

fn placed(tree: &Tree<StoreChunks<'_>>, extent: &Extent) -> Result<PlacedExtent> {
    let chunk = match &extent.data {
        ExtentData::Hole => None,
        ExtentData::Chunk { chunk, offset } => Some(PlacedChunk {
            digest: Digest::from(*chunk.digest()),
            offset: *offset,
            stored_bytes: chunk.stored_len(),
            content_bytes: chunk.content_len(),
            place: place(tree, chunk)?,
        }),
    };
    Ok(PlacedExtent {
        offset: extent.start,
        bytes: extent.end - extent.start,
        chunk,
    })
}

/// Finds a chunk.
fn place(tree: &Tree<StoreChunks<'_>>, chunk: &ChunkRef) -> Result<ChunkPlace> {
    let found = tree
        .source()
        .reader()
        .find(&Digest::from(*chunk.digest()))?;
    Ok(match found {
        Some(Location::Pack { pack, offset, .. }) => ChunkPlace::Pack { pack, offset },
        Some(Location::Loose { .. }) => ChunkPlace::Loose,
        None => ChunkPlace::Missing,
    })
}

impl ChunkMap {
    /// Counts the inodes of all blocks.
    fn count_inodes(&mut self, tree: &Tree<StoreChunks<'_>>) -> Result<()> {
        let mut blocks = 0;
        let _ = tree.for_each_block(|_| {
            blocks += 1;
            ControlFlow::<()>::Continue(())
        })?;
        self.blocks = u64::from(blocks);
        for block in 0..blocks {
            let first = tree.open(Node { block, slot: 0 }, None)?;
            let inodes = tree.block(&first)?;
            for slot in 0..=u16::MAX {
                if u32::from(slot) >= inodes.len() {
                    break;
                }
                let inode = inodes.inode(slot).map_err(|e| tree.broken(&first, e))?;
                self.count(&inode).map_err(|e| tree.broken(&first, e))?;
            }
        }
        Ok(())
    }

    fn count(&mut self, inode: &Inode<'_>) -> Result<(), MetadataError> {
        let counts = &mut self.counts;
        counts.inodes += 1;
        match inode.content()? {
            Content::Directory(entries) => {
                counts.directories += 1;
                counts.entries += u64::from(entries.len());
            }
            Content::LongDirectory(parts) => {
                counts.directories += 1;
                counts.entries += u64::from(parts.count());
            }
            Content::File(extents) => {
                counts.files += 1;
                counts.chunks += u64::from(extents.len());
            }
            Content::LongFile(parts) => {
                counts.files += 1;
                counts.chunks += u64::from(parts.count());
            }
            Content::Symlink(_) => counts.symlinks += 1,
            Content::Device { .. } | Content::None => counts.special += 1,
        }
        // Sizes add up to at most 2^63 in an image that states their sum rightly.
        counts.bytes = counts.bytes.saturating_add(inode.size());
        Ok(())
    }
}
