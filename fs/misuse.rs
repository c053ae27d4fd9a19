// SPDX-License-Identifier: GPL-2.0

//! Uses of [`vfs`](crate::vfs) that no compiler may accept. `make check` compiles this file
//! (`qemu-test/build-module --misuse`) and expects one error for each function.

use crate::{
    ops::{inode, PuzzleFs},
    vfs::{prelude::*, INode, INodeRef, MountContext, SharedMappings, SharingKey, SuperBlock},
};
use puzzlefs_schema::ROOT_INO;

/// An inode would outlive its superblock.
pub(crate) fn keep_inode(sb: &SuperBlock<PuzzleFs>) -> Result<INodeRef<'static, PuzzleFs>> {
    inode::get(sb, ROOT_INO, None)
}

/// The reference that keeps the inode is dropped.
pub(crate) fn keep_borrow(sb: &SuperBlock<PuzzleFs>) -> Result<&INode<PuzzleFs>> {
    Ok(&*inode::get(sb, ROOT_INO, None)?)
}

/// A registration does not outlive its mount.
pub(crate) fn keep_context(
    context: &MountContext<PuzzleFs>,
) -> Result<&'static MountContext<PuzzleFs>> {
    Ok(context)
}

/// The superblock would not keep the page caches that its inode uses.
pub(crate) fn share_with_anything(
    mappings: &SharedMappings<PuzzleFs>,
    inode: &INode<PuzzleFs>,
    key: &SharingKey,
) -> Result<usize> {
    mappings.share(inode, key)
}
