// SPDX-License-Identifier: MIT OR Apache-2.0

//! Compares two images: their trees, path by path, and the chunks that they share.
//!
//! Of two images of format 4, each block is read once. Directories of which both images have the same
//! blocks are not compared.
//!
//! | module | content |
//! | --- | --- |
//! | `blocks` | the blocks that two images share |
//! | `pieces` | the chunks of files |

mod blocks;
mod pieces;

use crate::error::Result;
use crate::image::file_data::FileData;
use crate::image::image_tree::{Descent, ImageTree, InodeLink, NamedLink, TreeInode, Xattr};
use crate::model::count::Count;
use crate::model::digest::Digest;
use blocks::{Blocks, ChunkSets};
use pieces::{pieces, ChunkId};
use puzzlefs_schema::image::{ImageMetadata, Versions};
use puzzlefs_schema::{FileType, Kind, Locator, ROOT_INO};
use sha2::{Digest as _, Sha256};
use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::vec;

/// The kind of a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Only the new image has it.
    Added,
    /// Only the old image has it.
    Removed,
    /// Both have it, and it differs.
    Changed,
}

/// A path that differs.
#[derive(Clone, Debug)]
pub struct Difference<'a> {
    /// The path, from the root.
    pub path: &'a [u8],
    /// The kind of the difference.
    pub change: Change,
    /// The attributes that differ if both images have the path: `type`, `mode`, `owner`, `contents`, ...
    /// `links` means that an earlier path is the same file in one image, and another file in the other.
    pub what: Vec<&'static str>,
    /// For a regular file whose contents are new: its chunks, and those of them that the old image
    /// has anywhere.
    pub chunks: Option<Shared>,
}

/// Chunks, and those of them that something else has too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shared {
    /// All chunks. The bytes are of content, not as it is stored.
    pub all: Count,
    /// Those that are shared.
    pub shared: Count,
}

/// The sums of the differences between two images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Paths that only the new image has.
    pub added: u64,
    /// Paths that only the old image has.
    pub removed: u64,
    /// Paths that differ.
    pub changed: u64,
    /// The distinct chunks of the new image, and those that the old one has.
    pub chunks: Shared,
}

/// Calls a function with every path in which two images differ: a directory before its entries, in
/// byte order of the names.
pub fn diff<'s>(
    old: &ImageTree<'s>,
    new: &ImageTree<'s>,
    mut give: impl FnMut(&Difference<'_>) -> Result<()>,
) -> Result<Totals> {
    let (blocks, [old_chunks, new_chunks]) = read_chunks(old, new)?;
    let mut totals = Totals::default();
    for chunk in new_chunks {
        totals.chunks.add(chunk.len, old_chunks.contains(&chunk));
    }
    let mut walk = Walk {
        sides: [Side::new(old), Side::new(new)],
        chunks: old_chunks,
        blocks,
        counterparts: [HashMap::new(), HashMap::new()],
    };
    let roots = [Some(root(old)?), Some(root(new)?)];
    if walk.are_equal(roots) {
        return Ok(totals);
    }
    let mut path = Vec::new();
    let mut way: Vec<(vec::IntoIter<Pair>, usize)> = Vec::new();
    if let Some(difference) = walk.compare(b"/", roots)? {
        totals.count(difference.change);
        give(&difference)?;
    }
    let mut next = Some(roots);
    loop {
        if let Some(directories) = next.take() {
            walk.sides[1].descent.check_depth(way.len())?;
            way.push((walk.merge(directories)?.into_iter(), path.len()));
        }
        let Some((pairs, length)) = way.last_mut() else {
            return Ok(totals);
        };
        path.truncate(*length);
        let Some(pair) = pairs.next() else {
            way.pop();
            continue;
        };
        if walk.are_equal(pair.links) {
            continue;
        }
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(&pair.name);
        if let Some(difference) = walk.compare(&path, pair.links)? {
            totals.count(difference.change);
            give(&difference)?;
        }
        let directories = pair
            .links
            .map(|link| link.filter(|link| link.file_type == FileType::Dir));
        if directories.iter().any(Option::is_some) {
            next = Some(directories);
        }
    }
}

/// Returns the chunks of both images, and their blocks if both have format 4.
fn read_chunks<'s>(
    old: &ImageTree<'s>,
    new: &ImageTree<'s>,
) -> Result<(Option<Blocks>, ChunkSets)> {
    if let (Some(old), Some(new)) = (old.v4(), new.v4()) {
        let (blocks, chunks) = Blocks::read([old, new])?;
        return Ok((Some(blocks), chunks));
    }
    Ok((None, [all_chunks(old)?, all_chunks(new)?]))
}

/// Returns all distinct chunks of an image.
fn all_chunks(tree: &ImageTree<'_>) -> Result<HashSet<ChunkId>> {
    let Some(reader) = tree.v3() else {
        let blocks = tree.v4().map(blocks::chunks);
        return blocks.unwrap_or_else(|| Ok(HashSet::new()));
    };
    let collect = || {
        let metadata = reader.metadata();
        let mut chunks = HashSet::new();
        for layer in 0..metadata.layers()? {
            for index in 0..metadata.layer_len(layer)? {
                let inode = metadata.inode_at(Locator { layer, index })?;
                if inode.file_type() == FileType::File {
                    for extent in inode.extents()?.iter_from(0, 0) {
                        chunks.insert(ChunkId::from(&extent?.1));
                    }
                }
            }
        }
        Ok(chunks)
    };
    reader.checked(collect())
}

/// Returns a link to the root directory.
fn root(tree: &ImageTree<'_>) -> Result<InodeLink> {
    let found = tree.metadata().find(ROOT_INO)?;
    let root = found.ok_or_else(|| tree.malformed_by("it has no root"))?;
    Ok(InodeLink {
        file_type: FileType::Dir,
        ..root
    })
}

/// One of the two images.
struct Side<'t, 's> {
    tree: &'t ImageTree<'s>,
    data: FileData,
    descent: Descent<'t, 's>,
}

/// A name that either image has in a directory, or both.
struct Pair {
    name: Arc<[u8]>,
    links: [Option<InodeLink>; 2],
}

struct Walk<'t, 's> {
    sides: [Side<'t, 's>; 2],
    /// The chunks of the old image.
    chunks: HashSet<ChunkId>,
    blocks: Option<Blocks>,
    /// The inode of the other image under the first path that an inode of this image has in both.
    counterparts: [HashMap<u64, u64>; 2],
}

impl<'t, 's> Side<'t, 's> {
    fn new(tree: &'t ImageTree<'s>) -> Self {
        Side {
            tree,
            data: FileData::default(),
            descent: Descent::new(tree),
        }
    }

    /// Returns the entries of a directory, or none for any other file.
    fn entries(&mut self, link: Option<InodeLink>) -> Result<Vec<NamedLink>> {
        match link {
            Some(link) => self.descent.enter(&self.tree.open(&link)?),
            None => Ok(Vec::new()),
        }
    }

    /// Returns the SHA-256 of a file's contents.
    fn contents(&mut self, file: &TreeInode) -> Result<Digest> {
        let mut hasher = Sha256::new();
        self.tree.read_file(file, &mut self.data, |piece| {
            hasher.update(piece);
            Ok(())
        })?;
        Ok(Digest(hasher.finalize().into()))
    }
}

impl Walk<'_, '_> {
    /// Returns true if two inodes are known to be equal, with all inodes beneath them.
    fn are_equal(&mut self, links: [Option<InodeLink>; 2]) -> bool {
        let places = links.map(|link| link.map(|link| link.place));
        match (&mut self.blocks, places) {
            (Some(blocks), [Some(Versions::V4(old)), Some(Versions::V4(new))]) => {
                blocks.are_equal(old, new)
            }
            _ => false,
        }
    }

    /// Returns the names of a directory that either image has, or both.
    fn merge(&mut self, directories: [Option<InodeLink>; 2]) -> Result<Vec<Pair>> {
        let [old, new] = &mut self.sides;
        let mut old = old.entries(directories[0])?.into_iter().peekable();
        let mut new = new.entries(directories[1])?.into_iter().peekable();
        let mut pairs = Vec::new();
        loop {
            let order = match (old.peek(), new.peek()) {
                (None, None) => return Ok(pairs),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(old), Some(new)) => old.name.cmp(&new.name),
            };
            let entries = [
                old.next_if(|_| order.is_le()),
                new.next_if(|_| order.is_ge()),
            ];
            let links = entries
                .each_ref()
                .map(|entry| entry.as_ref().map(|entry| entry.link));
            let name = entries.into_iter().flatten().next().map(|entry| entry.name);
            pairs.push(Pair {
                name: name.unwrap_or_default(),
                links,
            });
        }
    }

    /// Reports the difference under a path.
    fn compare<'p>(
        &mut self,
        path: &'p [u8],
        links: [Option<InodeLink>; 2],
    ) -> Result<Option<Difference<'p>>> {
        let (change, what) = match links {
            [Some(old), Some(new)] => (Change::Changed, self.differences(&old, &new)?),
            [Some(_), None] => (Change::Removed, Vec::new()),
            [None, Some(_)] => (Change::Added, Vec::new()),
            [None, None] => return Ok(None),
        };
        if change == Change::Changed && what.is_empty() {
            return Ok(None);
        }
        let chunks = match links[1] {
            Some(new) if change == Change::Added || what.contains(&"contents") => {
                self.shared(&new)?
            }
            _ => None,
        };
        Ok(Some(Difference {
            path,
            change,
            what,
            chunks,
        }))
    }

    /// Returns the names of the attributes that differ between two inodes.
    fn differences(&mut self, old: &InodeLink, new: &InodeLink) -> Result<Vec<&'static str>> {
        let trees = self.sides.each_ref().map(|side| side.tree);
        let inodes = [trees[0].open(old)?, trees[1].open(new)?];
        let [old, new] = [trees[0].stat(&inodes[0])?, trees[1].stat(&inodes[1])?];
        let mut what = Vec::new();
        let mut note = |differs: bool, word: &'static str| {
            if differs {
                what.push(word);
            }
        };
        note(old.file_type() != new.file_type(), "type");
        note(old.permissions != new.permissions, "mode");
        note((old.uid, old.gid) != (new.uid, new.gid), "owner");
        note(old.mtime != new.mtime, "mtime");
        let attributes = [xattrs(trees[0], &inodes[0])?, xattrs(trees[1], &inodes[1])?];
        note(attributes[0] != attributes[1], "xattrs");
        match (old.kind, new.kind) {
            (Kind::File, Kind::File) => {
                let differ = old.size != new.size || self.contents_differ(&inodes)?;
                note(differ, "contents");
            }
            (Kind::Symlink, Kind::Symlink) => {
                let old = trees[0].symlink_target(&inodes[0])?;
                note(old != trees[1].symlink_target(&inodes[1])?, "target");
            }
            // Devices of one type and another number.
            (old_kind, new_kind) => {
                note(
                    old.file_type() == new.file_type() && old_kind != new_kind,
                    "device",
                );
            }
        }
        if [old, new].map(|stat| stat.file_type()) != [FileType::Dir; 2] {
            let numbers = [trees[0].ino(&inodes[0]), trees[1].ino(&inodes[1])];
            let [olds, news] = &mut self.counterparts;
            let firsts = [
                *olds.entry(numbers[0]).or_insert(numbers[1]),
                *news.entry(numbers[1]).or_insert(numbers[0]),
            ];
            if firsts != [numbers[1], numbers[0]] {
                what.push("links");
            }
        }
        Ok(what)
    }

    /// Returns true if two files of one size have different contents. Compares their chunks first, and
    /// reads both if these differ, because one image may be compressed.
    fn contents_differ(&mut self, files: &[TreeInode; 2]) -> Result<bool> {
        let [old, new] = &mut self.sides;
        if pieces(old.tree, &files[0])? == pieces(new.tree, &files[1])? {
            return Ok(false);
        }
        Ok(old.contents(&files[0])? != new.contents(&files[1])?)
    }

    /// Adds up the chunks of a new file that the old image has.
    fn shared(&self, link: &InodeLink) -> Result<Option<Shared>> {
        let tree = self.sides[1].tree;
        let inode = tree.open(link)?;
        if tree.stat(&inode)?.file_type() != FileType::File {
            return Ok(None);
        }
        let mut shared = Shared::default();
        for piece in pieces(tree, &inode)? {
            if let Some((chunk, _)) = piece.data {
                shared.add(piece.len, self.chunks.contains(&chunk));
            }
        }
        Ok(Some(shared))
    }
}

impl Shared {
    fn add(&mut self, bytes: u64, shared: bool) {
        self.all.add(bytes);
        if shared {
            self.shared.add(bytes);
        }
    }
}

impl Totals {
    fn count(&mut self, change: Change) {
        match change {
            Change::Added => self.added += 1,
            Change::Removed => self.removed += 1,
            Change::Changed => self.changed += 1,
        }
    }
}

/// Returns the extended attributes in the order of their names.
fn xattrs(tree: &ImageTree<'_>, inode: &TreeInode) -> Result<Vec<Xattr>> {
    let mut xattrs = tree.xattrs(inode)?;
    xattrs.sort_unstable();
    Ok(xattrs)
}
