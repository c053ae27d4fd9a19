// SPDX-License-Identifier: GPL-2.0

//! Nodes of version 3.

use super::merged_dir::MergedDir;
use crate::fill::content::{ChunkTable, Content};
use puzzlefs_schema::Locator;

/// A node of version 3, as far as it is kept while its inode is in memory.
pub(crate) struct Node {
    /// The place of the node in the metadata.
    pub(super) at: Locator,
    pub(super) body: Body,
}

impl Node {
    /// Returns the content of a regular file.
    pub(in crate::tree) fn content(&self) -> Option<&Content> {
        match &self.body {
            Body::File(content, _) => Some(content),
            Body::Directory(_) | Body::Other => None,
        }
    }

    /// Returns the chunks of a regular file.
    pub(super) fn chunks(&self) -> Option<&ChunkTable> {
        match &self.body {
            Body::File(_, chunks) => Some(chunks),
            Body::Directory(_) | Body::Other => None,
        }
    }
}

/// The data that only nodes of one type have.
pub(super) enum Body {
    /// The content of a regular file, and its chunks.
    File(Content, ChunkTable),
    /// The entries of a directory.
    Directory(MergedDir),
    /// Nothing more.
    Other,
}
