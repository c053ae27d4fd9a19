// SPDX-License-Identifier: GPL-2.0

//! Directories.

use super::{
    fs_type::PuzzleFs,
    inode,
    node::{image, site, Body},
};
use crate::{
    tree::merged_dir::MergedDir,
    vfs::{prelude::*, DirEmitter, DirEntryType, INode, INodeRef},
};
use core::ops::ControlFlow;
use puzzlefs_schema::FileType;

fn merged_dir(dir: &INode<PuzzleFs>) -> Result<&MergedDir> {
    match &dir.data().body {
        Body::Directory(merged) => Ok(merged),
        Body::File(_) | Body::Other => Err(ENOTDIR),
    }
}

/// Looks up a name; `None` if the directory has no such entry.
pub(super) fn lookup<'a>(
    dir: &'a INode<PuzzleFs>,
    name: &[u8],
) -> Result<Option<INodeRef<'a, PuzzleFs>>> {
    let found = merged_dir(dir)?
        .lookup(&image(dir).metadata(), name)
        .map_err(|e| site(dir).report(e))?;
    match found {
        Some(entry) => inode::get(dir.superblock(), entry.ino, Some(entry.at)).map(Some),
        None => Ok(None),
    }
}

/// Returns the directory that a directory is in.
///
/// Directories do not say: all are looked through. That is done for a file handle of a directory
/// which the dentry cache has lost.
///
/// # Errors
///
/// [`ESTALE`] if the directory is in none.
pub(super) fn parent(dir: &INode<PuzzleFs>) -> Result<INodeRef<'_, PuzzleFs>> {
    let metadata = image(dir).metadata();
    let malformed = |e: puzzlefs_schema::Error| site(dir).report(e);
    // A well-formed image has one entry per layer that names it.
    let mut tries = metadata.layers().map_err(malformed)?;
    let found = metadata
        .for_each_entry_of(dir.ino(), |entry| {
            let parent = inode::by_number(dir.superblock(), entry.dir).ok();
            // The entry may be hidden by a layer above.
            let found = parent.filter(|parent| {
                matches!(lookup(parent, entry.name), Ok(Some(child)) if child.ino() == dir.ino())
            });
            tries = tries.saturating_sub(1);
            if found.is_some() || tries == 0 {
                ControlFlow::Break(found)
            } else {
                ControlFlow::Continue(())
            }
        })
        .map_err(malformed)?;
    match found {
        ControlFlow::Break(Some(parent)) => Ok(parent),
        _ => Err(ESTALE),
    }
}

/// Emits entries, from the emitter's position on.
pub(super) fn read(dir: &INode<PuzzleFs>, emitter: &mut DirEmitter<'_>) -> Result {
    let merged = merged_dir(dir)?;
    // Iteration ends early if there is no more room.
    let _ = merged
        .for_each(&image(dir).metadata(), emitter.position(), |entry| {
            let kind = entry_type(entry.file_type);
            if emitter.emit(entry.name, entry.ino, kind, entry.cursor) {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })
        .map_err(|e| site(dir).report(e))?;
    Ok(())
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
