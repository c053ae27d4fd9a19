// SPDX-License-Identifier: MIT OR Apache-2.0

//! Reads everything of an image of format 4. Checks the cost of each call, and that what several calls
//! say of an image is the same. For tests and for fuzzers.

use super::chunks::{Chunk, Chunks, TreeError};
use puzzlefs_schema::image::{ImageMetadata, Link};
use puzzlefs_schema::steps::count;
use puzzlefs_schema::v4::{
    Content, ExtentData, InodeType, LoadedInode, Node, Tree, LIST_LEVELS, MAX_METADATA_CONTENT,
};
use puzzlefs_schema::{FileType, ROOT_INO};
use std::collections::BTreeSet;
use std::ops::ControlFlow;

/// The steps of a search through children, lists, or a block list with its children.
const SEARCH: u64 = 64;

/// The list blocks from an inode to an element.
const LEVELS: u64 = LIST_LEVELS as u64;

/// The parts of a list block, of 24 bytes each, and as many of an inode.
const PARTS: u64 = MAX_METADATA_CONTENT as u64 / 24;

/// What was read of an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub inodes: u64,
    pub entries: u64,
    pub extents: u64,
    pub xattrs: u64,
}

/// An image whose calls are measured.
struct Walk<'c> {
    chunks: &'c Chunks,
    tree: Tree<&'c Chunks>,
    /// The number of elements that may still be read.
    budget: u64,
    totals: Totals,
    /// The numbers of inodes that were found.
    seen: BTreeSet<u64>,
    waiting: Vec<Link<Node>>,
    first_error: Option<TreeError>,
}

/// Reads an image, up to so many elements and inodes. Returns the first error of any inode; the others
/// are read all the same.
pub fn walk_tree(chunks: &Chunks, budget: u64) -> Result<Totals, TreeError> {
    let tree = Tree::new(chunks, chunks.root()?)?;
    let mut walk = Walk {
        chunks,
        tree,
        budget,
        totals: Totals::default(),
        seen: BTreeSet::from([ROOT_INO]),
        waiting: Vec::new(),
        first_error: None,
    };
    let root = walk.cost(2, 2 * SEARCH, |tree| tree.root())?;
    assert_eq!(root.ino(), ROOT_INO);
    walk.waiting.push(Link {
        ino: ROOT_INO,
        file_type: FileType::Dir,
        place: Node::ROOT,
    });
    while let Some(link) = walk.waiting.pop() {
        if let Err(e) = walk.inode(&link) {
            walk.first_error.get_or_insert(e);
        }
    }
    walk.numbers();
    match walk.first_error {
        None => Ok(walk.totals),
        Some(e) => Err(e),
    }
}

impl Walk<'_> {
    /// Runs a call, and checks how many chunks it loads, and how many steps it takes apart from checks of
    /// chunks.
    fn cost<T>(&self, loads: u64, steps: u64, call: impl FnOnce(&Tree<&Chunks>) -> T) -> T {
        let before = (self.chunks.loads(), self.chunks.check_steps());
        let (taken, result) = count(|| call(&self.tree));
        let loaded = self.chunks.loads() - before.0;
        let taken = taken - (self.chunks.check_steps() - before.1);
        assert!(loaded <= loads, "{loaded} chunks loaded, expected {loads}");
        assert!(taken <= steps, "{taken} steps, expected {steps}");
        result
    }

    /// Takes so many elements of the budget, or what is left of it.
    fn take(&mut self) -> bool {
        let is_left = self.budget > 0;
        self.budget = self.budget.saturating_sub(1);
        is_left
    }

    /// Numbers outside of the image.
    fn numbers(&self) {
        let count = self.tree.layout().inode_count();
        for ino in [0, count + 1, u64::MAX] {
            assert_eq!(self.tree.find(ino), Ok(None));
        }
    }

    fn inode(&mut self, link: &Link<Node>) -> Result<(), TreeError> {
        self.take();
        let inode = self.cost(2, 2 * SEARCH, |tree| ImageMetadata::open(tree, link))?;
        assert_eq!((inode.ino(), inode.node()), (link.ino, link.place));
        let found = self.cost(1, SEARCH, |tree| tree.find(link.ino))?;
        assert_eq!(found, Some(link.place));
        let ino = self.cost(1, SEARCH, |tree| tree.ino(link.place))?;
        assert_eq!(ino, link.ino);
        let stat = self.cost(0, PARTS + SEARCH, |tree| tree.stat(&inode))?;
        assert_eq!(link.file_type, stat.file_type());
        self.totals.inodes += 1;
        self.xattrs(&inode)?;
        match stat.file_type() {
            FileType::Dir => {
                self.parent(&inode)?;
                self.directory(&inode, stat.size)
            }
            FileType::File => self.file(&inode, stat.size),
            FileType::Symlink => {
                let target = self.cost(0, SEARCH, |tree| {
                    tree.symlink_target(&inode).map(<[u8]>::len)
                });
                assert_eq!(target, Ok(stat.size as usize));
                Ok(())
            }
            _ => {
                assert!(matches!(
                    self.tree.content(&inode),
                    Ok(Content::Device { .. } | Content::None)
                ));
                Ok(())
            }
        }
    }

    fn parent(&mut self, directory: &LoadedInode<Chunk>) -> Result<(), TreeError> {
        let parent = self.cost(3, 3 * SEARCH, |tree| tree.parent(directory))?;
        assert_eq!(self.tree.inode(&parent)?.inode_type(), InodeType::Directory);
        assert_eq!(self.tree.find(parent.ino())?, Some(parent.node()));
        Ok(())
    }

    /// Lists a directory, and looks each name up.
    fn directory(&mut self, directory: &LoadedInode<Chunk>, size: u64) -> Result<(), TreeError> {
        let mut entries: Vec<(Vec<u8>, Link<Node>)> = Vec::new();
        let budget = self.budget;
        let loads = |given: u64| 1 + (LEVELS + 1) * (given + 1);
        let given = budget.min(size) + 1;
        let listed = self.cost(
            loads(given),
            LEVELS * PARTS + SEARCH * (given + 1),
            |tree| {
                ImageMetadata::for_each_entry(tree, directory, 0, |entry| {
                    let is_ascending = entries
                        .last()
                        .is_none_or(|last| last.0.as_slice() < entry.name);
                    assert!(is_ascending, "names are in order across list blocks");
                    entries.push((entry.name.to_vec(), entry.link));
                    assert_eq!(entry.cursor, entries.len() as u64);
                    if entries.len() as u64 >= budget {
                        ControlFlow::Break(())
                    } else {
                        ControlFlow::Continue(())
                    }
                })
            },
        );
        if listed == Ok(ControlFlow::Continue(())) {
            assert_eq!(entries.len() as u64, size);
        }
        self.totals.entries += entries.len() as u64;
        for (cursor, (name, link)) in (0..).zip(&entries) {
            if !self.take() {
                break;
            }
            let found = self.cost(1 + LEVELS, 2 * SEARCH * LEVELS, |tree| {
                ImageMetadata::lookup(tree, directory, name)
            });
            assert_eq!(found, Ok(Some(*link)));
            self.resume(directory, cursor, name, link);
            // A name that no entry has: there is none between a name and the same with a 0.
            let missing = [name.as_slice(), b"\0"].concat();
            assert_eq!(self.tree.lookup(directory, &missing), Ok(None));
            if self.seen.insert(link.ino) {
                self.waiting.push(*link);
            }
        }
        let _ = self.tree.lookup(directory, b"");
        assert_eq!(self.tree.entry_count(directory), Ok(size));
        for beyond in [size, u64::from(u32::MAX) + 1, u64::MAX] {
            let rest = self
                .tree
                .for_each_entry(directory, beyond, |_| ControlFlow::Break(()));
            assert_eq!(rest, Ok(ControlFlow::Continue(())));
        }
        listed.map(|_| ())
    }

    /// Lists one entry from a cursor on.
    fn resume(&self, directory: &LoadedInode<Chunk>, cursor: u64, name: &[u8], link: &Link<Node>) {
        let next = self.cost(1 + LEVELS, LEVELS * PARTS + SEARCH, |tree| {
            ImageMetadata::for_each_entry(tree, directory, cursor, |entry| {
                assert_eq!((entry.name, entry.link), (name, *link));
                ControlFlow::Break(entry.cursor)
            })
        });
        assert_eq!(next, Ok(ControlFlow::Break(cursor + 1)));
    }

    /// Reads the extents of a file.
    fn file(&mut self, file: &LoadedInode<Chunk>, size: u64) -> Result<(), TreeError> {
        let mut extents = Vec::new();
        let budget = self.budget;
        let (given, walked) = {
            let mut end = 0;
            let walked = self.tree.for_each_extent(file, 0, |extent| {
                assert_eq!(extent.start, end);
                assert!(extent.start < extent.end);
                if let ExtentData::Chunk { chunk, offset } = extent.data {
                    let room = u64::from(chunk.content_len() - offset);
                    assert!(extent.end - extent.start <= room);
                }
                end = extent.end;
                extents.push(extent);
                if extents.len() as u64 >= budget {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            });
            (end, walked)
        };
        assert!(given <= size);
        if walked == Ok(ControlFlow::Continue(())) {
            assert_eq!(given, size);
        }
        self.totals.extents += extents.len() as u64;
        for extent in &extents {
            if !self.take() {
                break;
            }
            for offset in [extent.start, extent.end - 1] {
                let found = self.cost(LEVELS, SEARCH * LEVELS, |tree| {
                    tree.for_each_extent(file, offset, ControlFlow::Break)
                });
                assert_eq!(found, Ok(ControlFlow::Break(*extent)));
            }
        }
        for beyond in [size, u64::MAX] {
            let found = self.tree.for_each_extent(file, beyond, ControlFlow::Break);
            assert_eq!(found, Ok(ControlFlow::Continue(())));
        }
        walked.map(|_| ())
    }

    /// Reads the extended attributes of an inode.
    fn xattrs(&mut self, inode: &LoadedInode<Chunk>) -> Result<(), TreeError> {
        let mut names = Vec::new();
        let _ = self.tree.for_each_xattr_name(inode, |name| {
            names.push(name.to_vec());
            ControlFlow::<()>::Continue(())
        })?;
        assert_eq!(self.tree.has_xattrs(inode), Ok(!names.is_empty()));
        let mut position = 0;
        let given = self.tree.for_each_xattr(inode, |name, value| {
            assert_eq!(names[position], name);
            position += 1;
            let (head, tail) = name.split_at(name.len() / 2);
            for parts in [[name, b""], [head, tail]] {
                let found = self.cost(1, SEARCH, |tree| {
                    tree.xattr(inode, parts, |found| found == value)
                });
                assert_eq!(found, Ok(Some(true)));
            }
            for parts in [[name, b"\0"], [head, b""]] {
                let found = self.tree.xattr(inode, parts, |_| ());
                let is_other = names.contains(&parts.concat());
                assert_eq!(found.map(|found| found.is_some()), Ok(is_other));
            }
            if position as u64 >= self.budget {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        self.totals.xattrs += position as u64;
        self.budget = self.budget.saturating_sub(position as u64);
        given.map(|_| ())
    }
}
