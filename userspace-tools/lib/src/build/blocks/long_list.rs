// SPDX-License-Identifier: MIT OR Apache-2.0

//! List blocks, into which long lists are divided.

use crate::build::blocks::extent::FileExtent;
use crate::build::blocks::lists::Lists;
use crate::build::blocks::plan::{self, Plan};
use crate::build::blocks::records::{self, Range};
use crate::build::blocks::sizes::{self, divide};
use crate::build::blocks::stored::{self, StoredChunk};
use crate::error::Result;
use crate::model::chunk::ChunkEncoder;
use crate::model::tree::{Entry, NodeId, Tree};
use puzzlefs_schema::v4::{ChunkRef, InodeType, ListLayout, MetadataErrorKind};

/// A list block, as its parent refers to it.
pub(super) struct Part<'t> {
    chunk: ChunkRef,
    /// The number of entries or extents in it, or in all list blocks below it.
    count: usize,
    /// The offset of a file's first extent.
    offset: u64,
    /// The name of a directory's first entry.
    name: &'t [u8],
}

impl<'t> Part<'t> {
    /// Adds the part to a message.
    pub fn add(&self, lists: &mut Lists<'t>) {
        let chunk = lists.chunk(&self.chunk);
        let name = match self.name {
            b"" => Range::default(),
            name => lists.string(name),
        };
        // A list with more elements is refused by the check of the message before.
        let count = u32::try_from(self.count).unwrap_or(0);
        let part = records::part(self.offset, name, chunk, count);
        lists.parts.push(part);
    }
}

/// Divides the lists of one inode into list blocks.
pub(super) struct Divider<'t, 'a> {
    pub tree: &'t Tree,
    pub encoder: &'a ChunkEncoder,
    pub node: NodeId,
    /// Receives the list blocks in order.
    pub chunks: &'a mut Vec<StoredChunk>,
}

impl<'t> Divider<'t, '_> {
    /// Divides the entries of a directory, whose inode is in this block.
    pub fn entries(
        &mut self,
        entries: &'t [Entry],
        plan: &Plan,
        block: u32,
    ) -> Result<Vec<Part<'t>>> {
        let hash = |entry: &Entry| sizes::hash(&entry.name);
        let mut parts = Vec::new();
        for run in divide(entries, sizes::LIST_BLOCK, plan::entry_size, hash) {
            let mut lists = Lists::default();
            for entry in run {
                let inode_type = records::inode_type(&self.tree.nodes[entry.node as usize]);
                lists.entry(&entry.name, inode_type, plan.reference(block, entry.node));
            }
            parts.push(Part {
                chunk: self.list_block(lists, InodeType::Directory, 0)?,
                count: run.len(),
                offset: 0,
                name: &run[0].name,
            });
        }
        self.levels(parts, InodeType::Directory)
    }

    /// Divides the extents of a file.
    pub fn extents(&mut self, extents: &[FileExtent]) -> Result<Vec<Part<'t>>> {
        let hash = |extent: &FileExtent| extent.chunk().map_or(1, digest_hash);
        let mut parts = Vec::new();
        for run in divide(extents, sizes::LIST_BLOCK, plan::extent_size, hash) {
            let mut lists = Lists::default();
            for extent in run {
                lists.extent(extent);
            }
            parts.push(Part {
                chunk: self.list_block(lists, InodeType::File, 0)?,
                count: run.len(),
                offset: run[0].offset,
                name: b"",
            });
        }
        self.levels(parts, InodeType::File)
    }

    /// Divides parts until they fit into the block of the inode.
    fn levels(&mut self, mut parts: Vec<Part<'t>>, of: InodeType) -> Result<Vec<Part<'t>>> {
        let size = |part: &Part<'_>| plan::part_size(part.name);
        let mut level = 0;
        while parts.iter().map(size).sum::<usize>() > sizes::LIST_INLINE {
            level += 1;
            let mut above = Vec::new();
            let hash = |part: &Part<'_>| digest_hash(&part.chunk);
            for run in divide(&parts, sizes::LIST_BLOCK, size, hash) {
                let mut lists = Lists::default();
                for part in run {
                    part.add(&mut lists);
                }
                above.push(Part {
                    chunk: self.list_block(lists, of, level)?,
                    count: run.iter().map(|part| part.count).sum(),
                    offset: run[0].offset,
                    name: run[0].name,
                });
            }
            parts = above;
        }
        Ok(parts)
    }

    /// Encodes a list block.
    fn list_block(&mut self, lists: Lists<'t>, of: InodeType, level: u8) -> Result<ChunkRef> {
        let content = lists
            .list_block(of, level)
            .map_err(|_| MetadataErrorKind::MessageTooLarge.into())
            .and_then(|content| ListLayout::check(&content).map(|_| content))
            .map_err(|cause| stored::refused(self.tree, self.node, cause))?;
        let stored = StoredChunk::message(content, self.encoder)?;
        let chunk = stored.chunk;
        self.chunks.push(stored);
        Ok(chunk)
    }
}

/// Returns a number that a chunk's digest determines.
pub(super) fn digest_hash(chunk: &ChunkRef) -> u64 {
    let digest = chunk.digest().as_bytes().first_chunk();
    digest.map_or(0, |bytes| u64::from_le_bytes(*bytes))
}
