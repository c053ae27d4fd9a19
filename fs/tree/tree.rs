// SPDX-License-Identifier: GPL-2.0

//! The tree of an image, whatever the version of its format.
//!
//! A call for a node, or with a place, of another image is an [`EUCLEAN`].

use super::{
    attributes::{Attributes, Child, Entry},
    v3,
};
use crate::{
    base::fault::{Fault, FaultSite},
    fill::{content::Content, extent_map::ExtentMap},
    vfs::prelude::*,
};
use core::ops::ControlFlow;
use puzzlefs_schema::{Digest, Locator};

/// The tree of an image.
pub(crate) enum Tree {
    V3(v3::Tree),
}

/// The place of a node in the metadata of its image.
#[derive(Clone, Copy)]
pub(crate) enum Place {
    V3(Locator),
}

/// A node, as far as it is kept while its inode is in memory.
pub(crate) enum Node {
    V3(v3::Node),
}

impl Node {
    /// Returns the content of a regular file.
    pub(crate) fn content(&self) -> Option<&Content> {
        match self {
            Self::V3(node) => node.content(),
        }
    }
}

impl Tree {
    /// Returns the digest that is the identity of the image: that of the metadata blob.
    pub(crate) fn digest(&self) -> &Digest {
        match self {
            Self::V3(tree) => tree.digest(),
        }
    }

    /// Returns the image, as faults name it.
    pub(crate) fn site(&self) -> FaultSite<'_> {
        FaultSite::image(self.digest())
    }

    /// Returns the number of inodes, or an upper bound.
    pub(crate) fn inode_count(&self) -> Result<u64, Fault> {
        match self {
            Self::V3(tree) => Ok(tree.metadata().inode_count()?),
        }
    }

    /// Returns the total size of all regular files in bytes.
    pub(crate) fn data_size(&self) -> Result<u64, Fault> {
        match self {
            Self::V3(tree) => Ok(tree.metadata().data_size()?),
        }
    }

    /// Returns the place of the node of a number; `None` if there is none, or it cannot be found.
    pub(crate) fn find(&self, ino: u64) -> Option<Place> {
        match self {
            Self::V3(tree) => tree.metadata().find(ino).ok().map(Place::V3),
        }
    }

    /// Reads the node of a number, whose place may be known already.
    ///
    /// # Errors
    ///
    /// Those of malformed metadata, also if there is no such node; [`ENOMEM`].
    pub(crate) fn read(&self, ino: u64, at: Option<Place>) -> Result<(Attributes, Node), Fault> {
        match self {
            Self::V3(tree) => {
                let at = at.map(|Place::V3(at)| at);
                let (attributes, node) = tree.read(ino, at)?;
                Ok((attributes, Node::V3(node)))
            }
        }
    }

    /// Returns the node of a name in a directory; `None` if the directory has no such entry.
    ///
    /// # Errors
    ///
    /// [`ENOTDIR`] and those of malformed metadata.
    pub(crate) fn lookup(&self, dir: &Node, name: &[u8]) -> Result<Option<Child<Place>>, Fault> {
        match (self, dir) {
            (Self::V3(tree), Node::V3(dir)) => {
                Ok(tree.lookup(dir, name)?.map(|child| child.map(Place::V3)))
            }
        }
    }

    /// Calls a function with each entry of a directory from a cursor on, until it returns `Break`.
    ///
    /// The cursor is 0, or that of an entry.
    ///
    /// # Errors
    ///
    /// As [`Self::lookup`].
    pub(crate) fn for_each(
        &self,
        dir: &Node,
        cursor: u64,
        give: impl FnMut(Entry<'_>) -> ControlFlow<()>,
    ) -> Result<(), Fault> {
        match (self, dir) {
            (Self::V3(tree), Node::V3(dir)) => tree.for_each(dir, cursor, give),
        }
    }

    /// Returns the directory that the directory of a number is in; `None` if it is in none.
    pub(crate) fn parent(&self, ino: u64, dir: &Node) -> Result<Option<Child<Place>>, Fault> {
        match (self, dir) {
            (Self::V3(tree), Node::V3(_)) => {
                Ok(tree.parent(ino)?.map(|parent| parent.map(Place::V3)))
            }
        }
    }

    /// Returns the map of a regular file.
    pub(crate) fn extent_map<'a>(&'a self, node: &'a Node) -> Option<ExtentMap<'a>> {
        match (self, node) {
            (Self::V3(tree), Node::V3(node)) => tree.extent_map(node),
        }
    }

    /// Calls a function with the value of an extended attribute; returns `None` if the node has
    /// none of that name. If `escaped`, the name is the escaped form of the attribute's.
    pub(crate) fn xattr<R>(
        &self,
        node: &Node,
        name: &[u8],
        escaped: bool,
        take: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>, Fault> {
        match (self, node) {
            (Self::V3(tree), Node::V3(node)) => tree.xattr(node, name, escaped, take),
        }
    }

    /// Calls a function with the name of each extended attribute, until it returns `Break`.
    pub(crate) fn for_each_xattr<B>(
        &self,
        node: &Node,
        give: impl FnMut(&[u8]) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, Fault> {
        match (self, node) {
            (Self::V3(tree), Node::V3(node)) => tree.for_each_xattr(node, give),
        }
    }
}
