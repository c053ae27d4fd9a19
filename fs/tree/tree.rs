// SPDX-License-Identifier: GPL-2.0

//! The tree of an image, whatever the version of its format.
//!
//! A call for a node, or with a place, of another image is an [`EUCLEAN`].

use super::{
    attributes::{Attributes, Child, Entry},
    v3, v4,
};
use crate::{
    base::fault::{Fault, FaultSite},
    fill::{content::Content, extent_map::ExtentMap},
    vfs::prelude::*,
};
use core::ops::ControlFlow;
use puzzlefs_schema::{Digest, Locator};

/// The fault of a node, or a place, of another image: a programming error.
const OTHER_IMAGE: Fault = Fault::Errno(EUCLEAN);

/// The tree of an image.
pub(crate) enum Tree {
    V3(v3::Tree),
    V4(v4::Tree),
}

/// The place of a node in the metadata of its image.
#[derive(Clone, Copy)]
pub(crate) enum Place {
    V3(Locator),
    V4(v4::Place),
}

/// A node, as far as it is kept while its inode is in memory.
pub(crate) enum Node {
    V3(v3::Node),
    V4(v4::Node),
}

impl Node {
    /// Returns the content of a regular file.
    pub(crate) fn content(&self) -> Option<&Content> {
        match self {
            Self::V3(node) => node.content(),
            Self::V4(node) => node.content(),
        }
    }
}

impl Tree {
    /// Returns the digest that is the identity of the image: that of the metadata blob, or
    /// of the root.
    pub(crate) fn digest(&self) -> &Digest {
        match self {
            Self::V3(tree) => tree.digest(),
            Self::V4(tree) => tree.digest(),
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
            Self::V4(tree) => Ok(tree.inode_count()),
        }
    }

    /// Returns the total size of all regular files in bytes.
    pub(crate) fn data_size(&self) -> Result<u64, Fault> {
        match self {
            Self::V3(tree) => Ok(tree.metadata().data_size()?),
            Self::V4(tree) => Ok(tree.data_size()),
        }
    }

    /// Returns the place of the node of a number; `None` if there is none.
    ///
    /// # Errors
    ///
    /// Those of version 4's chunks.
    pub(crate) fn find(&self, ino: u64) -> Result<Option<Place>, Fault> {
        Ok(match self {
            // In malformed metadata, there is none.
            Self::V3(tree) => tree.metadata().find(ino).ok().map(Place::V3),
            Self::V4(tree) => tree.find(ino)?.map(Place::V4),
        })
    }

    /// Reads the node of a number, whose place may be known already: from an entry of `dir`, if
    /// that is given.
    ///
    /// # Errors
    ///
    /// Those of malformed metadata, also if there is no such node; [`ENOMEM`].
    pub(crate) fn read(
        &self,
        ino: u64,
        at: Option<Place>,
        dir: Option<&Node>,
    ) -> Result<(Attributes, Node), Fault> {
        match (self, at) {
            (Self::V3(tree), Some(Place::V3(at))) => tree.read(ino, Some(at)).map(of_v3),
            (Self::V3(tree), None) => tree.read(ino, None).map(of_v3),
            (Self::V4(tree), Some(Place::V4(at))) => {
                let dir = match dir {
                    Some(Node::V4(dir)) => Some(dir),
                    _ => None,
                };
                tree.read(at, dir).map(of_v4)
            }
            (Self::V4(tree), None) => {
                let at = tree.find(ino)?.ok_or(OTHER_IMAGE)?;
                tree.read(at, None).map(of_v4)
            }
            _ => Err(OTHER_IMAGE),
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
            (Self::V4(tree), Node::V4(dir)) => {
                Ok(tree.lookup(dir, name)?.map(|child| child.map(Place::V4)))
            }
            _ => Err(OTHER_IMAGE),
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
            (Self::V4(tree), Node::V4(dir)) => tree.for_each(dir, cursor, give),
            _ => Err(OTHER_IMAGE),
        }
    }

    /// Returns the directory that the directory of a number is in; `None` if it is in none.
    pub(crate) fn parent(&self, ino: u64, dir: &Node) -> Result<Option<Child<Place>>, Fault> {
        match (self, dir) {
            (Self::V3(tree), Node::V3(_)) => {
                Ok(tree.parent(ino)?.map(|parent| parent.map(Place::V3)))
            }
            (Self::V4(tree), Node::V4(dir)) => Ok(Some(tree.parent(dir)?.map(Place::V4))),
            _ => Err(OTHER_IMAGE),
        }
    }

    /// Returns the map of a regular file.
    pub(crate) fn extent_map<'a>(&'a self, node: &'a Node) -> Option<ExtentMap<'a>> {
        match (self, node) {
            (Self::V3(tree), Node::V3(node)) => tree.extent_map(node),
            (Self::V4(_), Node::V4(node)) => node.extent_map(),
            _ => None,
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
            (Self::V4(tree), Node::V4(node)) => tree.xattr(node, name, escaped, take),
            _ => Err(OTHER_IMAGE),
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
            (Self::V4(tree), Node::V4(node)) => tree.for_each_xattr(node, give),
            _ => Err(OTHER_IMAGE),
        }
    }
}

fn of_v3((attributes, node): (Attributes, v3::Node)) -> (Attributes, Node) {
    (attributes, Node::V3(node))
}

fn of_v4((attributes, node): (Attributes, v4::Node)) -> (Attributes, Node) {
    (attributes, Node::V4(node))
}
