// SPDX-License-Identifier: MIT OR Apache-2.0

//! The difference between a tree and an image: a layer on top of the image's own.
//!
//! An inode keeps its number if one of its paths leads to the same type in both. An equal inode is
//! not in the layer. A directory of both is in the layer with the names that differ; readers merge
//! it with the one below. A removed name has a whiteout.

use crate::build::contents::Contents;
use crate::build::source::Source;
use crate::error::{BuildError, Error, Result};
use crate::image::v3::reader::{Blobs, ImageReader};
use crate::image::v3::visit::Descent;
use crate::model::extent::{Extent, Extents};
use crate::model::tree::{FileState, Kind, Node, NodeId, Tree};
use crate::store::oci_layout::Store;
use crate::sys::parallel::{self, into_inner, lock};
use crate::sys::progress::Progress;
use puzzlefs_schema::{self as schema, DirEntry, FileType, Inode, Locator, ROOT_INO};
use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;

/// The image that a delta is built on.
pub(crate) struct Base<'s> {
    pub reader: ImageReader<'s>,
    /// Files that are known to be in it, by inode number, if it was made from the same source as
    /// the tree.
    known: HashMap<u64, FileState>,
}

/// An entry of a directory in the layer: the name, and the inode's number.
pub(crate) type DeltaEntry = (Box<[u8]>, u64);

/// The difference between a tree and its base.
pub(crate) struct Delta {
    /// The inode number of each node.
    pub numbers: Vec<u64>,
    /// The inode of the base that has the same number, for each node that has one.
    below: Vec<Option<Locator>>,
    /// For each directory of both, the names that differ.
    pub changes: HashMap<NodeId, Vec<DeltaEntry>>,
    /// The numbers of inodes that were removed.
    whiteouts: BTreeSet<u64>,
}

/// A layer to encode on top of those of another image.
pub(crate) struct TopLayer<'a> {
    pub base: &'a Base<'a>,
    pub delta: &'a Delta,
    /// The inodes of the layer, ascending by number; a whiteout has no node.
    pub inodes: Vec<(u64, Option<NodeId>)>,
}

/// A tree compared with its base.
pub(crate) struct OnBase<'s> {
    base: Base<'s>,
    delta: Delta,
    /// For each node, true if it is a file with the same contents in the base.
    pub same: Vec<bool>,
}

impl<'s> OnBase<'s> {
    /// Compares a tree, its contents too, with a base.
    pub fn new(
        base: Base<'s>,
        source: &Source,
        tree: &Tree,
        progress: &Progress,
        jobs: usize,
    ) -> Result<Self> {
        let delta = Delta::new(&base, tree)?;
        let same = delta.same_contents(&base, source, tree, progress, jobs)?;
        Ok(OnBase { base, delta, same })
    }

    /// The inode number of each node.
    pub fn into_numbers(self) -> Vec<u64> {
        self.delta.numbers
    }

    /// Returns the layer. Its files whose contents are those of the base get the extents of the
    /// base.
    pub fn top(&self, tree: &Tree, contents: &mut Contents) -> Result<TopLayer<'_>> {
        let OnBase { base, delta, same } = self;
        let inodes = delta.inodes(base, tree, same)?;
        for &(_, node) in &inodes {
            let Some(node) = node.map(|node| node as usize) else {
                continue;
            };
            if let (true, Some(at)) = (same[node], delta.below[node]) {
                contents.extents[node] = Extents::Many(base.extents(at)?);
            }
        }
        Ok(TopLayer {
            base,
            delta,
            inodes,
        })
    }
}

impl<'s> Base<'s> {
    /// An image, and those of its files whose contents the tree's source is known to have.
    pub fn new(
        store: &Store,
        reader: ImageReader<'s>,
        known: HashMap<u64, FileState>,
    ) -> Result<Self> {
        let layers = reader.checked(reader.metadata().layers())?;
        if layers >= schema::MAX_LAYERS {
            let store = store.path().to_path_buf();
            return Err(BuildError::TooManyLayers { store, layers }.into());
        }
        reader.checked(reader.metadata().check_order())?;
        Ok(Base { reader, known })
    }

    /// Returns the largest inode number of all layers.
    fn last_number(&self) -> Result<u64> {
        let metadata = self.reader.metadata();
        let find = || {
            let mut last = ROOT_INO;
            for layer in 0..metadata.layers()? {
                // They ascend.
                if let Some(index) = metadata.layer_len(layer)?.checked_sub(1) {
                    last = last.max(metadata.inode_at(Locator { layer, index })?.ino());
                }
            }
            Ok(last)
        };
        self.reader.checked(find())
    }

    fn inode(&self, at: Locator) -> Result<Inode<'_>> {
        self.reader.checked(self.reader.metadata().inode_at(at))
    }

    /// Returns the extents of a file.
    fn extents(&self, at: Locator) -> Result<Vec<Extent>> {
        let extents = self.reader.checked(self.inode(at)?.extents())?;
        let extents = extents.iter_from(0, 0).map(|extent| {
            let (_, chunk) = self.reader.checked(extent)?;
            Ok(Extent::from(chunk))
        });
        extents.collect()
    }
}

/// A directory of both, and its entries in the base.
struct Pair<'r> {
    directory: NodeId,
    below: Vec<DirEntry<'r>>,
}

impl Delta {
    /// Compares the names of a tree with those of an image.
    fn new(base: &Base<'_>, tree: &Tree) -> Result<Self> {
        let mut next = base.last_number()?;
        let mut delta = Delta {
            numbers: vec![0; tree.nodes.len()],
            below: vec![None; tree.nodes.len()],
            changes: HashMap::new(),
            whiteouts: BTreeSet::new(),
        };
        let pairs = delta.pair(base, tree)?;
        let mut fresh = || {
            next = next.checked_add(1).ok_or_else(|| {
                let what = "an inode of the base has the largest number, so that none can be added";
                base.reader.malformed_by(what)
            })?;
            Ok::<u64, Error>(next)
        };
        for number in delta.numbers.iter_mut().filter(|number| **number == 0) {
            *number = fresh()?;
        }
        let kept: BTreeSet<u64> = delta.numbers.iter().copied().collect();
        // A whiteout for removed names of inodes that have other names.
        let mut nothing = None;
        for Pair { directory, below } in pairs {
            let Kind::Directory(entries) = &tree.nodes[directory as usize].kind else {
                continue;
            };
            let mut changes: Vec<DeltaEntry> = Vec::new();
            let old: HashMap<&[u8], u64> = below.iter().map(|old| (old.name, old.ino)).collect();
            for entry in entries {
                let number = delta.numbers[entry.node as usize];
                if old.get(&*entry.name) != Some(&number) {
                    changes.push((entry.name.clone(), number));
                }
            }
            for old in &below {
                let is_kept = kept.contains(&old.ino);
                if !is_kept {
                    delta.whiteouts.insert(old.ino);
                }
                let name = |entry: &crate::model::tree::Entry| (*entry.name).cmp(old.name);
                if entries.binary_search_by(name).is_ok() {
                    continue;
                }
                let number = match (is_kept, nothing) {
                    (false, _) => old.ino,
                    (true, Some(nothing)) => nothing,
                    (true, None) => *nothing.insert(fresh()?),
                };
                delta.whiteouts.insert(number);
                changes.push((old.name.into(), number));
            }
            changes.sort_unstable();
            delta.changes.insert(directory, changes);
        }
        Ok(delta)
    }

    /// Finds the nodes that keep the number of an inode of the base.
    fn pair<'r>(&mut self, base: &'r Base<'_>, tree: &Tree) -> Result<Vec<Pair<'r>>> {
        let root = base.reader.metadata().find(ROOT_INO);
        let root = base.reader.checked(root)?;
        self.numbers[0] = ROOT_INO;
        self.below[0] = Some(root);
        let mut taken = BTreeSet::from([ROOT_INO]);
        let mut pairs = Vec::new();
        let mut descent = Descent::new(&base.reader);
        let mut pending = vec![(0, root)];
        while let Some((directory, at)) = pending.pop() {
            let below = descent.enter(at)?;
            if let Kind::Directory(entries) = &tree.nodes[directory as usize].kind {
                for entry in entries {
                    let old = below.binary_search_by(|old| old.name.cmp(&entry.name));
                    let Ok(old) = old.map(|at| &below[at]) else {
                        continue;
                    };
                    let node = entry.node as usize;
                    let is_same = file_type(&tree.nodes[node].kind) == old.file_type;
                    if self.numbers[node] == 0 && is_same && taken.insert(old.ino) {
                        self.numbers[node] = old.ino;
                        self.below[node] = Some(old.at);
                        if old.file_type == FileType::Dir {
                            pending.push((entry.node, old.at));
                        }
                    }
                }
            }
            pairs.push(Pair { directory, below });
        }
        Ok(pairs)
    }

    /// Returns for each node true if it is a file with the same contents in the base.
    fn same_contents(
        &self,
        base: &Base<'_>,
        source: &Source,
        tree: &Tree,
        progress: &Progress,
        jobs: usize,
    ) -> Result<Vec<bool>> {
        progress.start_reading();
        let known: Vec<_> = (0..)
            .zip(&self.below)
            .filter_map(|(node, below)| Some((node, (*below)?)))
            .collect();
        let same = Mutex::new(vec![false; tree.nodes.len()]);
        parallel::for_each(jobs, &known, Blobs::default, |blobs, &(node, at)| {
            progress.check()?;
            if is_same_file(base, at, source, tree, node, blobs)? {
                lock(&same)[node as usize] = true;
                if let Kind::File(state) = &tree.nodes[node as usize].kind {
                    progress.done_bytes(state.size);
                }
            }
            Ok(())
        })?;
        Ok(into_inner(same))
    }

    /// Returns the inodes of the layer, ascending by number; a whiteout has no node. `same` is the
    /// result of [`Delta::same_contents`].
    fn inodes(
        &self,
        base: &Base<'_>,
        tree: &Tree,
        same: &[bool],
    ) -> Result<Vec<(u64, Option<NodeId>)>> {
        let mut inodes: Vec<_> = self.whiteouts.iter().map(|&ino| (ino, None)).collect();
        for (id, node) in (0..).zip(&tree.nodes) {
            let kept = match self.below[id as usize] {
                None => false,
                Some(at) => {
                    let is_entered = self.changes.get(&id).is_none_or(Vec::is_empty);
                    is_entered && self.is_kept(base, at, node, same[id as usize])?
                }
            };
            if !kept {
                inodes.push((self.numbers[id as usize], Some(id)));
            }
        }
        inodes.sort_unstable();
        Ok(inodes)
    }

    /// Returns true if an inode of the base equals the node, except for the names of a directory.
    fn is_kept(&self, base: &Base<'_>, at: Locator, node: &Node, same: bool) -> Result<bool> {
        let inode = base.inode(at)?;
        let compare = || {
            let mtime = inode.mtime()?;
            let is_same = match (&node.kind, inode.kind()) {
                (Kind::File(_), _) => same,
                (Kind::Symlink(target), _) => inode.symlink_target()? == target,
                (&Kind::CharDevice(a, b), schema::Kind::Chr { major, minor })
                | (&Kind::BlockDevice(a, b), schema::Kind::Blk { major, minor }) => {
                    (a, b) == (major, minor)
                }
                _ => true,
            };
            let mut xattrs = Vec::new();
            for xattr in inode.xattrs()? {
                let xattr = xattr?;
                xattrs.push((xattr.name, xattr.value));
            }
            xattrs.sort_unstable();
            let wanted = node.xattrs.iter();
            let wanted = wanted.map(|(name, value)| (&name[..], &value[..]));
            Ok(is_same
                && inode.nlink() == Some(node.nlink)
                && inode.permissions() == node.permissions
                && (inode.uid(), inode.gid()) == (node.uid, node.gid)
                && (mtime.seconds, mtime.nanoseconds)
                    == (node.mtime.seconds, node.mtime.nanoseconds)
                && wanted.eq(xattrs))
        };
        base.reader.checked(compare())
    }
}

/// Returns true if a file of the tree has the contents of one of the base.
fn is_same_file(
    base: &Base<'_>,
    at: Locator,
    source: &Source,
    tree: &Tree,
    node: NodeId,
    blobs: &mut Blobs,
) -> Result<bool> {
    let Kind::File(state) = &tree.nodes[node as usize].kind else {
        return Ok(false);
    };
    let inode = base.inode(at)?;
    let known = base.known.get(&inode.ino());
    if known.is_some_and(|known| known.is_same_piece(state)) {
        return Ok(true);
    }
    if base.reader.file_size(&inode)? != state.size {
        return Ok(false);
    }
    let file = source.open_file(tree, node, state)?;
    let mut buffer = Vec::new();
    let (mut offset, mut same) = (0, true);
    for extent in base.extents(at)? {
        base.reader.read_extent(&extent, blobs, |piece| {
            buffer.resize(piece.len(), 0);
            if same {
                file.read(offset, &mut buffer)?;
                same = buffer == piece;
            }
            offset += piece.len() as u64;
            Ok(())
        })?;
        if !same {
            return Ok(false);
        }
    }
    file.check_unchanged()?;
    Ok(true)
}

fn file_type(kind: &Kind) -> FileType {
    match kind {
        Kind::File(_) => FileType::File,
        Kind::Directory(_) => FileType::Dir,
        Kind::Symlink(_) => FileType::Symlink,
        Kind::Fifo => FileType::Fifo,
        Kind::Socket => FileType::Sock,
        Kind::CharDevice(..) => FileType::Chr,
        Kind::BlockDevice(..) => FileType::Blk,
    }
}

#[cfg(test)]
mod tests;
