// SPDX-License-Identifier: MIT OR Apache-2.0

//! Images of version 4.

use super::{
    metadata::{Entry, ImageMetadata, Link},
    stat::Stat,
};
use crate::{
    v3::{FileType, Kind},
    v4::{
        ChunkSource, Content, InodeType, LoadedInode, MetadataChunk, MetadataErrorKind as Rule,
        Node, Target, Tree, Value,
    },
};
use core::ops::ControlFlow;

impl From<Target> for Link<Node> {
    fn from(target: Target) -> Self {
        Self {
            ino: target.ino,
            file_type: target.inode_type.into(),
            place: target.node,
        }
    }
}

impl<S: ChunkSource> ImageMetadata for Tree<S> {
    type Error = S::Error;
    type Place = Node;
    type Inode = LoadedInode<S::Chunk>;

    fn inode_count(&self) -> Result<u64, S::Error> {
        Ok(self.layout().inode_count())
    }

    fn data_size(&self) -> Result<u64, S::Error> {
        Ok(self.layout().data_size())
    }

    fn root(&self) -> Result<Self::Inode, S::Error> {
        Self::root(self)
    }

    fn find(&self, ino: u64) -> Result<Option<Link<Node>>, S::Error> {
        let found = Self::find(self, ino)?;
        Ok(found.map(|place| Link {
            ino,
            file_type: FileType::Unknown,
            place,
        }))
    }

    fn open(&self, link: &Link<Node>) -> Result<Self::Inode, S::Error> {
        let inode = Self::open(self, link.place, None)?;
        let is_expected = link.file_type == FileType::Unknown
            || link.file_type == self.inode(&inode)?.inode_type().into();
        if !is_expected {
            return Err(self.broken(&inode, Rule::TypeMismatch));
        }
        Ok(inode)
    }

    fn ino(&self, inode: &Self::Inode) -> u64 {
        inode.ino()
    }

    fn stat(&self, loaded: &Self::Inode) -> Result<Stat, S::Error> {
        let inode = self.inode(loaded)?;
        let (kind, size) = match self.content(loaded)? {
            Content::File(_) | Content::LongFile(_) => (Kind::File, inode.size()),
            Content::Directory(_) | Content::LongDirectory(_) => {
                (Kind::Dir, self.entry_count(loaded)?)
            }
            Content::Symlink(target) => (Kind::Symlink, target.len() as u64),
            Content::Device { major, minor } if inode.inode_type() == InodeType::CharDevice => {
                (Kind::Chr { major, minor }, 0)
            }
            Content::Device { major, minor } => (Kind::Blk { major, minor }, 0),
            Content::None if inode.inode_type() == InodeType::Fifo => (Kind::Fifo, 0),
            Content::None => (Kind::Sock, 0),
        };
        Ok(Stat {
            kind,
            permissions: inode.mode() & 0o7777,
            uid: inode.uid(),
            gid: inode.gid(),
            mtime: inode.mtime(),
            links: Some(inode.links()),
            size,
        })
    }

    fn lookup(&self, directory: &Self::Inode, name: &[u8]) -> Result<Option<Link<Node>>, S::Error> {
        Ok(Self::lookup(self, directory, name)?.map(Link::from))
    }

    fn for_each_entry<B>(
        &self,
        directory: &Self::Inode,
        cursor: u64,
        mut give: impl FnMut(Entry<'_, Node>) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, S::Error> {
        Self::for_each_entry(self, directory, cursor, |entry| {
            give(Entry {
                name: entry.name,
                link: entry.to.into(),
                cursor: entry.cursor,
            })
        })
    }

    fn parent(&self, directory: &Self::Inode) -> Result<Option<Link<Node>>, S::Error> {
        let parent = Self::parent(self, directory)?;
        Ok(Some(Link {
            ino: parent.ino(),
            file_type: FileType::Dir,
            place: parent.node(),
        }))
    }

    fn symlink_target<'a>(&'a self, inode: &'a Self::Inode) -> Result<&'a [u8], S::Error> {
        match self.content(inode)? {
            Content::Symlink(target) => Ok(target),
            _ => Err(self.broken(inode, Rule::Misuse)),
        }
    }

    fn has_xattrs(&self, inode: &Self::Inode) -> Result<bool, S::Error> {
        Ok(!self.attributes(inode)?.is_empty())
    }

    fn for_each_xattr_name<B>(
        &self,
        inode: &Self::Inode,
        mut give: impl FnMut(&[u8]) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, S::Error> {
        each_attribute(self, inode, |name, _| Ok(give(name)))
    }

    fn for_each_xattr<B>(
        &self,
        inode: &Self::Inode,
        mut give: impl FnMut(&[u8], &[u8]) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, S::Error> {
        each_attribute(self, inode, |name, value| {
            with_value(self, value, |value| give(name, value))
        })
    }

    fn xattr<T>(
        &self,
        inode: &Self::Inode,
        [head, tail]: [&[u8]; 2],
        read: impl FnOnce(&[u8]) -> T,
    ) -> Result<Option<T>, S::Error> {
        let value = self
            .attributes(inode)?
            .find_parts([head, tail])
            .map_err(|e| self.broken(inode, e))?;
        value.map(|value| with_value(self, value, read)).transpose()
    }

    fn other_image(&self) -> S::Error {
        let chunk = self.root_chunk().chunk();
        self.source().malformed(chunk, Rule::Misuse.into())
    }
}

/// Gives the extended attributes of an inode, until `give` returns `Break`.
fn each_attribute<S: ChunkSource, B>(
    tree: &Tree<S>,
    inode: &LoadedInode<S::Chunk>,
    mut give: impl FnMut(&[u8], Value<'_>) -> Result<ControlFlow<B>, S::Error>,
) -> Result<ControlFlow<B>, S::Error> {
    let attributes = tree.attributes(inode)?;
    for position in 0..attributes.len() {
        let attribute = attributes
            .get(position)
            .and_then(|attribute| attribute.ok_or(Rule::Misuse.into()))
            .map_err(|e| tree.broken(inode, e))?;
        if let broken @ ControlFlow::Break(_) = give(attribute.name, attribute.value)? {
            return Ok(broken);
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// Passes the value of an attribute to `read`.
fn with_value<S: ChunkSource, T>(
    tree: &Tree<S>,
    value: Value<'_>,
    read: impl FnOnce(&[u8]) -> T,
) -> Result<T, S::Error> {
    match value {
        Value::Inline(value) => Ok(read(value)),
        Value::Chunk(chunk) => Ok(read(&tree.source().content(&chunk)?)),
    }
}
