// SPDX-License-Identifier: GPL-2.0

//! Directories.

use crate::vfs::prelude::*;
use crate::{
    ops::inode::{self, Body, Malformed},
    vfs::{DirEmitter, DirEntryType, INode, INodeRef},
    PuzzleFs,
};
use core::ops::ControlFlow;
use puzzlefs_schema::{Dir, DirLayer, FileType, Locator, Metadata, Order, Part};

/// The parts that a directory is merged of, one of each layer that has it, the topmost first.
///
/// Whether a part's entries stand in the order of their names is found out once, when the inode is
/// made. Where they do not, an index is kept.
pub(crate) struct Directory {
    parts: KVec<Part<KVVec<u32>>>,
}

impl Directory {
    /// Reads a directory's entries once, to check them and their order.
    pub(crate) fn new(metadata: &Metadata<'_>, at: Locator) -> Result<Self, Malformed> {
        let mut parts = KVec::new();
        let mut layer = Some(metadata.dir_at(at)?);
        while let Some(part) = layer {
            parts.push(Part::new(&part, index(&part)?), GFP_KERNEL)?;
            layer = part.below()?;
        }
        Ok(Self { parts })
    }

    /// The number of entries in all parts.
    pub(crate) fn len(&self) -> u64 {
        self.parts
            .iter()
            .fold(0, |sum, part| sum.saturating_add(part.len() as u64))
    }

    fn merged<'a, 'p>(
        &'p self,
        metadata: &Metadata<'a>,
    ) -> Result<Dir<'a, 'p, KVVec<u32>>, puzzlefs_schema::Error> {
        metadata.dir(&self.parts)
    }
}

/// The index that a part of a directory needs to be searched, if it needs one.
fn index(part: &DirLayer<'_>) -> Result<Option<KVVec<u32>>, Malformed> {
    match part.order()? {
        Order::Sorted => Ok(None),
        Order::Unsorted => {
            // The image says how large it is: whoever looks into the directory pays for it.
            let mut index = KVVec::zeroed(part.len(), GFP_KERNEL_ACCOUNT)?;
            part.sort_index(&mut index)?;
            Ok(Some(index))
        }
    }
}

/// Looks up a name; `None` if the directory has no such entry.
pub(crate) fn lookup<'a>(
    dir: &'a INode<PuzzleFs>,
    name: &[u8],
) -> Result<Option<INodeRef<'a, PuzzleFs>>> {
    let Body::Directory(directory) = &dir.data().body else {
        return Err(ENOTDIR);
    };
    let image = dir.superblock().data();
    let found = directory
        .merged(&image.metadata())
        .and_then(|merged| merged.lookup(name))
        .map_err(|e| image.report(Some(dir.ino()), e))?;
    match found {
        Some(entry) => inode::get(dir.superblock(), entry.ino, Some(entry.at)).map(Some),
        None => Ok(None),
    }
}

/// Gives the directory that a directory is in.
///
/// Directories do not say: all are looked through. That is done for a file handle of a directory
/// which the dentry cache has lost.
///
/// # Errors
///
/// [`ESTALE`] if the directory is in none.
pub(crate) fn parent(dir: &INode<PuzzleFs>) -> Result<INodeRef<'_, PuzzleFs>> {
    let sb = dir.superblock();
    let image = sb.data();
    let metadata = image.metadata();
    let malformed = |e| image.report(Some(dir.ino()), e);
    // A well-formed image has one a layer that names it.
    let mut tries = metadata.layers().map_err(malformed)?;
    let found = metadata
        .for_each_entry_of(dir.ino(), |entry| {
            let parent = inode::by_number(sb, entry.dir).ok();
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
pub(crate) fn read(dir: &INode<PuzzleFs>, emitter: &mut DirEmitter<'_>) -> Result {
    let Body::Directory(directory) = &dir.data().body else {
        return Err(ENOTDIR);
    };
    let image = dir.superblock().data();
    // Iteration ends early if there is no more room.
    let _ = directory
        .merged(&image.metadata())
        .and_then(|merged| {
            merged.for_each(emitter.position(), |entry| {
                let kind = entry_type(entry.file_type);
                if emitter.emit(entry.name, entry.ino, kind, entry.cursor) {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            })
        })
        .map_err(|e| image.report(Some(dir.ino()), e))?;
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
