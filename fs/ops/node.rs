// SPDX-License-Identifier: GPL-2.0

//! The private data of inodes.

use super::{fs_type::PuzzleFs, image::Image};
use crate::{
    base::fault::FaultSite,
    fill::{content::Content, reader::FileReader},
    vfs::INode,
};

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
    inode.data().content()
}

/// Returns the reader of a regular file.
pub(super) fn reader(inode: &INode<PuzzleFs>) -> Option<FileReader<'_>> {
    let dev = inode.superblock().device();
    image(inode).reader(dev, inode.ino(), inode.data())
}
