// SPDX-License-Identifier: MIT OR Apache-2.0

//! Blocks.

use crate::build::blocks::extent::FileExtent;
use crate::build::blocks::lists::{range_from, Lists};
use crate::build::blocks::long_list::{Divider, Part};
use crate::build::blocks::plan::{self, Plan};
use crate::build::blocks::records::{self, InodeFields, Range};
use crate::build::blocks::sizes;
use crate::build::blocks::stored::{self, StoredChunk};
use crate::error::Result;
use crate::model::chunk::ChunkEncoder;
use crate::model::tree::{Entry, Kind, NodeId, Tree, Xattr};
use puzzlefs_schema::v4::{
    BlockLayout, InodeRef, ListName, MetadataError, MetadataErrorKind, MAX_INLINE_VALUE,
};
use std::collections::HashMap;

/// The tree whose blocks are encoded.
#[derive(Clone, Copy)]
pub(super) struct Source<'t> {
    pub tree: &'t Tree,
    pub extents: &'t [Vec<FileExtent>],
    pub plan: &'t Plan,
    pub encoder: &'t ChunkEncoder,
}

/// An encoded block.
pub(super) struct EncodedBlock {
    pub block: StoredChunk,
    /// The number of inodes.
    pub inodes: u32,
    /// List blocks.
    pub lists: Vec<StoredChunk>,
    /// Large values of attributes.
    pub values: Vec<StoredChunk>,
}

/// Encodes a block.
pub(super) fn encode(source: Source<'_>, number: u32) -> Result<EncodedBlock> {
    let nodes = source.plan.block(number);
    let mut encoder = Encoder {
        source,
        number,
        lists: Lists::default(),
        sets: HashMap::new(),
        list_blocks: Vec::new(),
        values: Vec::new(),
    };
    for node in nodes {
        encoder.inode(*node)?;
    }
    let content = encoder
        .lists
        .block()
        .map_err(|_| MetadataErrorKind::MessageTooLarge.into())
        .and_then(|content| BlockLayout::check(&content).map(|_| content))
        .map_err(|cause| stored::refused(source.tree, culprit(nodes, cause), cause))?;
    Ok(EncodedBlock {
        block: StoredChunk::message(content, source.encoder)?,
        inodes: nodes.len() as u32,
        lists: encoder.list_blocks,
        values: encoder.values,
    })
}

/// Returns the inode that an error is about, or the first of the block.
fn culprit(nodes: &[NodeId], cause: MetadataError) -> NodeId {
    let slot = match cause.element() {
        Some((ListName::Inodes, slot)) => slot as usize,
        _ => 0,
    };
    nodes.get(slot).or(nodes.first()).copied().unwrap_or(0)
}

/// A block that is being encoded.
struct Encoder<'t> {
    source: Source<'t>,
    number: u32,
    lists: Lists<'t>,
    /// 1 plus the number of each set of attributes.
    sets: HashMap<&'t [Xattr], u32>,
    list_blocks: Vec<StoredChunk>,
    values: Vec<StoredChunk>,
}

impl<'t> Encoder<'t> {
    fn inode(&mut self, node: NodeId) -> Result<()> {
        let source = self.source;
        let inode = &source.tree.nodes[node as usize];
        let mut parent = InodeRef {
            distance: 0,
            slot: 0,
        };
        let (range, long) = match &inode.kind {
            Kind::Directory(entries) => {
                let directory = source.plan.parent(node);
                parent = source.plan.reference(self.number, directory);
                self.directory(node, entries)?
            }
            Kind::File(_) => self.file(node, &source.extents[node as usize])?,
            Kind::Symlink(target) => (self.lists.string(target), false),
            _ => (Range::default(), false),
        };
        let fields = InodeFields {
            range,
            long,
            set: self.set(&inode.xattrs)?,
            parent,
        };
        self.lists.inodes.push(records::inode(inode, &fields));
        Ok(())
    }

    /// Adds the entries of a directory, or the parts of a long one.
    fn directory(&mut self, node: NodeId, entries: &'t [Entry]) -> Result<(Range, bool)> {
        let Source { tree, plan, .. } = self.source;
        if plan::entries_size(entries) > sizes::LIST_INLINE {
            let number = self.number;
            let parts = self.divider(node).entries(entries, plan, number)?;
            return Ok((self.parts(&parts), true));
        }
        let first = self.lists.entries.len();
        for entry in entries {
            let inode_type = records::inode_type(&tree.nodes[entry.node as usize]);
            let inode = plan.reference(self.number, entry.node);
            self.lists.entry(&entry.name, inode_type, inode);
        }
        Ok((range_from(first, &self.lists.entries), false))
    }

    /// Adds the extents of a file, or the parts of a long one.
    fn file(&mut self, node: NodeId, extents: &[FileExtent]) -> Result<(Range, bool)> {
        if plan::extents_size(extents) > sizes::LIST_INLINE {
            let parts = self.divider(node).extents(extents)?;
            return Ok((self.parts(&parts), true));
        }
        let first = self.lists.extents.len();
        for extent in extents {
            self.lists.extent(extent);
        }
        Ok((range_from(first, &self.lists.extents), false))
    }

    fn divider(&mut self, node: NodeId) -> Divider<'t, '_> {
        Divider {
            tree: self.source.tree,
            encoder: self.source.encoder,
            node,
            chunks: &mut self.list_blocks,
        }
    }

    fn parts(&mut self, parts: &[Part<'t>]) -> Range {
        let first = self.lists.parts.len();
        for part in parts {
            part.add(&mut self.lists);
        }
        range_from(first, &self.lists.parts)
    }

    /// Returns 1 plus the number of a set of attributes, which is added if it is missing; 0 for no
    /// attributes.
    fn set(&mut self, xattrs: &'t [Xattr]) -> Result<u32> {
        if xattrs.is_empty() {
            return Ok(0);
        }
        if let Some(number) = self.sets.get(xattrs) {
            return Ok(*number);
        }
        let first = self.lists.attributes.len();
        for (name, value) in xattrs {
            let name = self.lists.string(name);
            let value = self.value(value)?;
            self.lists.attributes.push(records::attribute(name, value));
        }
        let range = range_from(first, &self.lists.attributes);
        self.lists.sets.push(records::set(range));
        let number = self.lists.sets.len() as u32;
        self.sets.insert(xattrs, number);
        Ok(number)
    }

    /// Returns the place of a value in the pool, or the number of its chunk instead of the place.
    fn value(&mut self, value: &'t [u8]) -> Result<Range> {
        if value.len() <= MAX_INLINE_VALUE as usize {
            return Ok(self.lists.string(value));
        }
        let stored = StoredChunk::new(value.to_vec(), self.source.encoder)?;
        let number = self.lists.chunk(&stored.chunk);
        self.values.push(stored);
        Ok(Range {
            first: number,
            count: value.len() as u32,
        })
    }
}
