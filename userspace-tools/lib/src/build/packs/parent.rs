// SPDX-License-Identifier: MIT OR Apache-2.0

//! The chunks of an earlier image, the *parent*, for contents that are the same as there.
//!
//! Decompressing is several times faster than compressing. For each content, the builder looks at the
//! chunk that the parent has at the same place of the same file. It reads the chunk, compares it with its
//! digest, decompresses it, and compares the contents byte by byte. So neither the metadata of the parent
//! nor any time or table is trusted, and a wrong parent only costs time.
//!
//! The same tree and options give the same image without a parent. A chunk of the parent is therefore used
//! only if the parent's manifest states the compression of this build: the level and the release of zstd.

use crate::build::build_options::{BuildOptions, ParentChoice};
use crate::build::contents::Provenance;
use crate::error::{Error, Result};
use crate::image::store_chunks::{MetadataBlock, StoreChunks};
use crate::model::count::Count;
use crate::model::digest::Digest;
use crate::model::oci;
use crate::model::reference::Selector;
use crate::model::tree::{Kind, NodeId, Tree as SourceTree};
use crate::store::oci_layout::{AnyRoot, Store};
use crate::sys::parallel::{into_inner, lock};
use puzzlefs_schema::v4::{
    ChunkRef, Encoding, Extent, ExtentData, InodeType, LoadedInode, Node, Tree,
};
use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Mutex;

/// The distance in bytes, and the number of extents, that a chunk is searched within if an insertion or a
/// removal has moved it.
const NEARBY_BYTES: u64 = 8 << 20;
const NEARBY_EXTENTS: usize = 256;

/// The parent of an image that is built.
pub(crate) struct Parent<'s> {
    /// For messages.
    name: String,
    tree: Tree<StoreChunks<'s>>,
    /// For each node of the tree that is built, the regular file of the parent with the same path.
    files: Vec<Option<Node>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    reused: Count,
    /// The chunks that could not be read.
    unreadable: HashSet<Digest>,
    /// The number of faults of metadata.
    faults: u64,
    first_fault: Option<Error>,
}

impl<'s> Parent<'s> {
    /// Opens the parent that the options name. Returns none if it cannot be used; a remark explains that
    /// unless it is the usual case.
    pub fn choose(
        store: &'s Store,
        options: &BuildOptions,
        tree: &SourceTree,
        compression: &str,
        remarks: &mut Vec<String>,
    ) -> Result<Option<Self>> {
        let Some(selector) = options.parent_image(store)? else {
            return Ok(None);
        };
        let is_named = options.parent != ParentChoice::Tagged;
        let unusable = match Self::open(store, &selector, tree, compression) {
            Ok(Opened::Parent(parent)) => return Ok(Some(*parent)),
            Err(error) if is_named => return Err(error),
            Err(error) => Some(error.to_string()),
            Ok(Opened::Other(reason)) => (is_named || reason.is_some()).then(|| {
                let reason = reason.unwrap_or("it has no compressed chunks".to_owned());
                format!("{reason}, not {compression}")
            }),
        };
        remarks.extend(unusable.map(|reason| {
            format!("parent {selector}: {reason}; all contents are compressed again")
        }));
        Ok(None)
    }

    fn open(
        store: &'s Store,
        selector: &Selector,
        tree: &SourceTree,
        compression: &str,
    ) -> Result<Opened<'s>> {
        let image = store.any_image(selector)?;
        let AnyRoot::V4(root) = &image.root else {
            return Ok(Opened::Other(None));
        };
        match image.manifest.annotations.get(oci::COMPRESSION) {
            Some(stated) if stated == compression => {}
            stated => {
                let stated =
                    stated.map(|stated| format!("its chunks are compressed by {stated:?}"));
                return Ok(Opened::Other(stated));
            }
        }
        let mut parent = Parent {
            name: selector.to_string(),
            tree: StoreChunks::new(store)?.open_tree(&root.root)?,
            files: vec![None; tree.nodes.len()],
            state: Mutex::default(),
        };
        parent.find_files(tree);
        Ok(Opened::Parent(Box::new(parent)))
    }

    /// Finds the files of the parent that have the paths of files of a tree.
    ///
    /// Time is bounded by the number of names of the tree, whatever the parent claims.
    fn find_files(&mut self, tree: &SourceTree) {
        let mut pending: Vec<(NodeId, Node)> = vec![(0, Node::ROOT)];
        while let Some((node, directory)) = pending.pop() {
            if let Err(error) = self.find_files_in(tree, node, directory, &mut pending) {
                self.fault(error);
            }
        }
    }

    fn find_files_in(
        &mut self,
        tree: &SourceTree,
        node: NodeId,
        directory: Node,
        pending: &mut Vec<(NodeId, Node)>,
    ) -> Result<()> {
        let kind = |node: NodeId| tree.nodes.get(node as usize).map(|node| &node.kind);
        let Some(Kind::Directory(entries)) = kind(node) else {
            return Ok(());
        };
        let directory = self.tree.open(directory, Some(InodeType::Directory))?;
        for entry in entries {
            let Some(target) = self.tree.lookup(&directory, &entry.name)? else {
                continue;
            };
            match (kind(entry.node), target.inode_type) {
                (Some(Kind::Directory(_)), InodeType::Directory) => {
                    pending.push((entry.node, target.node));
                }
                (Some(Kind::File(_)), InodeType::File) => {
                    if let Some(file) = self.files.get_mut(entry.node as usize) {
                        *file = Some(target.node);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Returns the chunk of the parent with this content, if its place leads to it.
    pub fn find(&self, bytes: &[u8], from: &Provenance, buffer: &mut Vec<u8>) -> Option<ChunkRef> {
        let length = u32::try_from(bytes.len()).ok()?;
        let counterpart = match from {
            Provenance::File(node, offset) => self.chunk_at(*node, *offset, length),
            Provenance::Bundle { first_files, .. } => self.bundle_of(first_files, length),
        };
        let chunk = counterpart.unwrap_or_else(|error| {
            self.fault(error);
            None
        })?;
        let is_equal = match chunk.encoding() {
            Encoding::Raw => Digest::from(*chunk.digest()) == Digest::of(bytes),
            Encoding::Zstd => match self.tree.source().reader().read(&chunk, buffer) {
                Ok(()) => buffer == bytes,
                Err(error) => {
                    self.unreadable(&chunk, error);
                    false
                }
            },
        };
        is_equal.then_some(chunk)
    }

    /// Returns the chunk that the parent's file has at an offset, or near it, if it is of this length.
    fn chunk_at(&self, node: NodeId, offset: u64, length: u32) -> Result<Option<ChunkRef>> {
        let Some(file) = self.file(node)? else {
            return Ok(None);
        };
        let whole = |extent: &Extent| match extent.data {
            ExtentData::Chunk { chunk, offset: 0 } => {
                let is_whole = extent.end - extent.start == u64::from(length);
                (is_whole && chunk.content_len() == length).then_some(chunk)
            }
            _ => None,
        };
        let exact = self.tree.for_each_extent(&file, offset, |extent| {
            ControlFlow::Break(whole(&extent).filter(|_| extent.start == offset))
        })?;
        if let ControlFlow::Break(Some(chunk)) = exact {
            return Ok(Some(chunk));
        }
        let mut left = NEARBY_EXTENTS;
        let last = offset.saturating_add(NEARBY_BYTES);
        let first = offset.saturating_sub(NEARBY_BYTES);
        let nearby = self.tree.for_each_extent(&file, first, |extent| {
            left -= 1;
            match whole(&extent) {
                Some(chunk) => ControlFlow::Break(Some(chunk)),
                None if left == 0 || extent.start > last => ControlFlow::Break(None),
                None => ControlFlow::Continue(()),
            }
        })?;
        Ok(match nearby {
            ControlFlow::Break(chunk) => chunk,
            ControlFlow::Continue(()) => None,
        })
    }

    /// Returns the bundle of this length in which the parent has one of these files at the same offset.
    fn bundle_of(&self, files: &[(NodeId, u32)], length: u32) -> Result<Option<ChunkRef>> {
        for &(node, at) in files {
            let Some(file) = self.file(node)? else {
                continue;
            };
            let first = self.tree.for_each_extent(&file, 0, ControlFlow::Break)?;
            if let ControlFlow::Break(Extent {
                data: ExtentData::Chunk { chunk, offset },
                ..
            }) = first
            {
                if offset == at && chunk.content_len() == length {
                    return Ok(Some(chunk));
                }
            }
        }
        Ok(None)
    }

    /// Opens the file of the parent with the path of a node.
    fn file(&self, node: NodeId) -> Result<Option<LoadedInode<MetadataBlock>>> {
        let file = self.files.get(node as usize).copied().flatten();
        let file = file.map(|file| self.tree.open(file, Some(InodeType::File)));
        file.transpose()
    }

    /// Counts a chunk that is used.
    pub fn reused(&self, chunk: &ChunkRef) {
        lock(&self.state).reused.add(chunk.stored_len().into());
    }

    /// Returns true if the store has no intact copy of a chunk, as far as [`find`](Self::find) has met it.
    pub fn is_unreadable(&self, chunk: &ChunkRef) -> bool {
        let state = lock(&self.state);
        state.unreadable.contains(&Digest::from(*chunk.digest()))
    }

    fn unreadable(&self, chunk: &ChunkRef, error: Error) {
        let mut state = lock(&self.state);
        state.unreadable.insert(Digest::from(*chunk.digest()));
        state.first_fault.get_or_insert(error);
    }

    fn fault(&self, error: Error) {
        let mut state = lock(&self.state);
        state.faults += 1;
        state.first_fault.get_or_insert(error);
    }

    /// Returns the chunks that were used, and the number of faults. A remark has the first one.
    pub fn finish(self, remarks: &mut Vec<String>) -> (Count, u64) {
        let state = into_inner(self.state);
        let faults = state.faults + state.unreadable.len() as u64;
        remarks.extend(state.first_fault.map(|first| {
            let name = self.name;
            format!(
                "parent {name}: {faults} of its chunks cannot be read, \
                 and their contents are compressed again: {first}"
            )
        }));
        (state.reused, faults)
    }
}

/// The outcome of opening a parent.
enum Opened<'s> {
    Parent(Box<Parent<'s>>),
    /// It cannot be used, because of its compression if it states one.
    Other(Option<String>),
}
