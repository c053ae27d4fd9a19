// SPDX-License-Identifier: GPL-2.0

//! The private data of inodes.

use super::{fs_type::PuzzleFs, image::Image};
use crate::{
    base::fault::FaultSite,
    fill::{content::Content, reader::FileReader},
    tree::merged_dir::MergedDir,
    vfs::INode,
};
use puzzlefs_schema::Locator;

/// The private data of an inode.
pub(crate) struct Node {
    /// The place of the inode in the metadata.
    pub(crate) at: Locator,
    pub(crate) body: Body,
}

/// The data that only inodes of one kind have.
pub(crate) enum Body {
    /// The content of a regular file.
    File(Content),
    /// The entries of a directory.
    Directory(MergedDir),
    /// Nothing more.
    Other,
}

/// Returns the image of an inode.
pub(super) fn image(inode: &INode<PuzzleFs>) -> &Image {
    inode.superblock().data()
}

/// Returns an inode, as faults name it.
pub(super) fn site(inode: &INode<PuzzleFs>) -> FaultSite<'_> {
    image(inode).site().inode(inode.ino())
}

/// Returns the content of a regular file.
pub(super) fn content(inode: &INode<PuzzleFs>) -> Option<&Content> {
    match &inode.data().body {
        Body::File(content) => Some(content),
        Body::Directory(_) | Body::Other => None,
    }
}

/// Returns the reader of a regular file.
pub(super) fn reader(inode: &INode<PuzzleFs>) -> Option<FileReader<'_>> {
    Some(image(inode).reader(inode.ino(), content(inode)?))
}
