// SPDX-License-Identifier: GPL-2.0

//! Directories.

use super::{
    fs_type::PuzzleFs,
    inode,
    node::{image, site},
};
use crate::{
    tree::{attributes::Child, Place},
    vfs::{prelude::*, DirEmitter, DirEntryType, INode, INodeRef},
};
use core::ops::ControlFlow;
use puzzlefs_schema::FileType;

/// Looks up a name; `None` if the directory has no such entry.
pub(super) fn lookup<'a>(
    dir: &'a INode<PuzzleFs>,
    name: &[u8],
) -> Result<Option<INodeRef<'a, PuzzleFs>>> {
    let found = image(dir).tree().lookup(dir.data(), name);
    match found.map_err(|fault| site(dir).report(fault))? {
        Some(child) => inode::of_entry(dir, &child).map(Some),
        None => Ok(None),
    }
}

/// Returns the directory that a directory is in.
///
/// # Errors
///
/// [`ESTALE`] if the directory is in none.
pub(super) fn parent(dir: &INode<PuzzleFs>) -> Result<INodeRef<'_, PuzzleFs>> {
    let parent = find_parent(dir)?;
    inode::get(dir.superblock(), parent.ino, Some(parent.at))
}

// Not inlined, so that the parent is read without its variables on the stack.
#[inline(never)]
fn find_parent(dir: &INode<PuzzleFs>) -> Result<Child<Place>> {
    let found = image(dir).tree().parent(dir.ino(), dir.data());
    let parent = found.map_err(|fault| site(dir).report(fault))?;
    parent.ok_or(ESTALE)
}

/// Emits entries, from the emitter's position on.
pub(super) fn read(dir: &INode<PuzzleFs>, emitter: &mut DirEmitter<'_>) -> Result {
    let position = emitter.position();
    let read = image(dir).tree().for_each(dir.data(), position, |entry| {
        let kind = entry_type(entry.file_type);
        if emitter.emit(entry.name, entry.ino, kind, entry.cursor) {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    });
    read.map_err(|fault| site(dir).report(fault))
}

fn entry_type(file_type: FileType) -> DirEntryType {
    match file_type {
        FileType::File => DirEntryType::Regular,
        FileType::Dir => DirEntryType::Directory,
        FileType::Symlink => DirEntryType::Symlink,
        FileType::Chr => DirEntryType::CharDevice,
        FileType::Blk => DirEntryType::BlockDevice,
        FileType::Fifo => DirEntryType::Fifo,
        FileType::Sock => DirEntryType::Socket,
        FileType::Whiteout | FileType::Unknown => DirEntryType::Unknown,
    }
}
