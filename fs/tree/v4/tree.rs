// SPDX-License-Identifier: GPL-2.0

//! The tree of an image of version 4.

use super::{
    chunk_cache::ShrinkableChunks,
    node::{FileNode, Node},
    source::{check, ImageChunks, Source, Trees},
};
use crate::{
    base::{fault::Fault, registry::InUse, statistics::Statistics},
    fill::content::Content,
    store::{blob_store::BlobStore, opening::Opening},
    tree::attributes::{link_target, Attributes, Child, Entry, NodeType},
    vfs::prelude::*,
};
use core::ops::ControlFlow;
use kernel::{sync::Arc, time::Msecs};
use puzzlefs_schema::{
    overlay,
    v4::{
        self, ChunkRef, ChunkSource, Content as InodeContent, InodeType, RootLayout, Target, Value,
    },
    Digest, FileType,
};

/// The tree of an image of version 4.
pub(crate) struct Tree {
    trees: Arc<Trees>,
}

/// The place of a node.
#[derive(Clone, Copy)]
pub(crate) enum Place {
    /// The place of a number.
    Node(v4::Node),
    /// The place and the type that a directory states.
    Target(Target),
}

impl Tree {
    /// Makes the tree of a root: the reference to it, and its verified content. `fetch` is the time
    /// that a task waits for a chunk that the store lacks, if it does.
    ///
    /// # Errors
    ///
    /// Those of a malformed root; [`ENOMEM`].
    pub(crate) fn open(
        cache: InUse<ShrinkableChunks>,
        blobs: Arc<BlobStore>,
        statistics: Arc<Statistics>,
        fetch: Option<Msecs>,
        (chunk, bytes): (ChunkRef, KVVec<u8>),
    ) -> Result<Self, Fault> {
        let root = cache.cache().get_or_load(&chunk, Opening::Waiting, || {
            // Not a block, which would be as valid.
            RootLayout::check(&bytes)?;
            check(chunk, bytes)
        })?;
        let chunks = ImageChunks {
            cache,
            blobs,
            statistics,
            fetch,
            root: *chunk.digest(),
        };
        Ok(Self {
            trees: Trees::new(chunks, root)?,
        })
    }

    fn tree(&self) -> &v4::Tree<Source> {
        self.trees.of(Opening::Waiting)
    }

    /// Returns the digest of the root.
    pub(in crate::tree) fn digest(&self) -> &Digest {
        self.tree().source().root()
    }

    /// Returns the number of inodes.
    pub(in crate::tree) fn inode_count(&self) -> u64 {
        self.tree().layout().inode_count()
    }

    /// Returns the total size of all regular files in bytes.
    pub(in crate::tree) fn data_size(&self) -> u64 {
        self.tree().layout().data_size()
    }

    /// Returns the place of the node of a number; `None` if there is none.
    pub(in crate::tree) fn find(&self, ino: u64) -> Result<Option<Place>, Fault> {
        Ok(self.tree().find(ino)?.map(Place::Node))
    }

    /// Reads the node at a place, which may be that of an entry of `dir`.
    pub(in crate::tree) fn read(
        &self,
        at: Place,
        dir: Option<&Node>,
    ) -> Result<(Attributes, Node), Fault> {
        let loaded = match (at, dir) {
            (Place::Target(target), Some(dir)) => self.tree().open_in(dir.loaded(), &target)?,
            (Place::Target(target), None) => {
                self.tree().open(target.node, Some(target.inode_type))?
            }
            (Place::Node(node), _) => self.tree().open(node, None)?,
        };
        let inode = self.tree().inode(&loaded)?;
        let broken = |e| self.tree().broken(&loaded, e);
        let (node_type, size) = match inode.content().map_err(broken)? {
            InodeContent::File(_) | InodeContent::LongFile(_) => (NodeType::Regular, inode.size()),
            InodeContent::Directory(entries) => (NodeType::Directory, entries.len().into()),
            InodeContent::LongDirectory(parts) => (NodeType::Directory, parts.count().into()),
            InodeContent::Symlink(target) => {
                (NodeType::Symlink(link_target(target)?), target.len() as u64)
            }
            InodeContent::Device { major, minor } => {
                let node_type = match inode.inode_type() {
                    InodeType::CharDevice => NodeType::CharDevice { major, minor },
                    _ => NodeType::BlockDevice { major, minor },
                };
                (node_type, 0)
            }
            InodeContent::None => match inode.inode_type() {
                InodeType::Fifo => (NodeType::Fifo, 0),
                _ => (NodeType::Socket, 0),
            },
        };
        let attributes = Attributes {
            node_type,
            permissions: inode.mode() & 0o7777,
            uid: inode.uid(),
            gid: inode.gid(),
            links: inode.links(),
            size,
            mtime: inode.mtime(),
            has_xattrs: !inode.attributes().map_err(broken)?.is_empty(),
        };
        let node = match inode.inode_type() {
            InodeType::File => Node::File(FileNode {
                loaded,
                trees: self.trees.clone(),
                content: Content::new(size),
            }),
            InodeType::Directory => Node::Directory {
                loaded,
                entries: size,
            },
            _ => Node::Other(loaded),
        };
        Ok((attributes, node))
    }

    /// Returns the node of a name in a directory.
    pub(in crate::tree) fn lookup(
        &self,
        dir: &Node,
        name: &[u8],
    ) -> Result<Option<Child<Place>>, Fault> {
        let found = self.tree().lookup(dir.loaded(), name)?;
        Ok(found.map(|target| Child {
            ino: target.ino,
            at: Place::Target(target),
        }))
    }

    /// Calls a function with each entry of a directory from a cursor on, until it returns `Break`.
    pub(in crate::tree) fn for_each(
        &self,
        dir: &Node,
        cursor: u64,
        mut give: impl FnMut(Entry<'_>) -> ControlFlow<()>,
    ) -> Result<(), Fault> {
        // Each listing ends with a call from the end on.
        if matches!(dir, Node::Directory { entries, .. } if cursor >= *entries) {
            return Ok(());
        }
        // Iteration ends early if there is no more room.
        let _ = self.tree().for_each_entry(dir.loaded(), cursor, |entry| {
            give(Entry {
                name: entry.name,
                ino: entry.to.ino,
                file_type: file_type(entry.to.inode_type),
                cursor: entry.cursor,
            })
        })?;
        Ok(())
    }

    /// Returns the directory that a directory is in.
    pub(in crate::tree) fn parent(&self, dir: &Node) -> Result<Child<Place>, Fault> {
        let parent = self.tree().parent(dir.loaded())?;
        Ok(Child {
            ino: parent.ino(),
            at: Place::Node(parent.node()),
        })
    }

    /// Calls a function with the value of an attribute; returns `None` if there is none of that
    /// name. If `escaped`, the name is the escaped form of the attribute's.
    pub(in crate::tree) fn xattr<R>(
        &self,
        node: &Node,
        name: &[u8],
        escaped: bool,
        take: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>, Fault> {
        let attributes = self.tree().attributes(node.loaded())?;
        let parts = if escaped {
            overlay::unescape(name)
        } else {
            Some([name, b""])
        };
        let Some(parts) = parts else {
            return Ok(None);
        };
        let found = attributes.find_parts(parts);
        match found.map_err(|e| self.tree().broken(node.loaded(), e))? {
            Some(Value::Inline(value)) => Ok(Some(take(value))),
            Some(Value::Chunk(chunk)) => {
                let value = self.tree().source().content(&chunk)?;
                Ok(Some(take(&value)))
            }
            None => Ok(None),
        }
    }

    /// Calls a function with the name of each attribute, until it returns `Break`.
    pub(in crate::tree) fn for_each_xattr<B>(
        &self,
        node: &Node,
        mut give: impl FnMut(&[u8]) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, Fault> {
        let attributes = self.tree().attributes(node.loaded())?;
        for position in 0..attributes.len() {
            let attribute = attributes.get(position);
            let Some(attribute) = attribute.map_err(|e| self.tree().broken(node.loaded(), e))?
            else {
                break;
            };
            if let ControlFlow::Break(with) = give(attribute.name) {
                return Ok(ControlFlow::Break(with));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

fn file_type(inode_type: InodeType) -> FileType {
    match inode_type {
        InodeType::File => FileType::File,
        InodeType::Directory => FileType::Dir,
        InodeType::Symlink => FileType::Symlink,
        InodeType::CharDevice => FileType::Chr,
        InodeType::BlockDevice => FileType::Blk,
        InodeType::Fifo => FileType::Fifo,
        InodeType::Socket => FileType::Sock,
    }
}
