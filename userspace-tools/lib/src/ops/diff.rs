// SPDX-License-Identifier: MIT OR Apache-2.0

//! Compares two images: their trees, path by path, and the chunks that they share.

use crate::error::Result;
use crate::image::reader::{Blobs, ImageReader};
use crate::image::visit::Descent;
use crate::model::count::Count;
use crate::model::digest::Digest;
use puzzlefs_schema::{Chunk, DirEntry, FileType, Inode, Kind, Locator, ROOT_INO};
use sha2::{Digest as _, Sha256};
use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
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

/// A chunk as a unit of sharing.
type ChunkId = (puzzlefs_schema::Digest, u64, u64);

fn id(chunk: &Chunk) -> ChunkId {
    (chunk.blob, chunk.blob_offset, chunk.len)
}

/// Calls a function with every path in which two images differ: a directory before its entries, in
/// byte order of the names.
pub fn diff(
    old: &ImageReader<'_>,
    new: &ImageReader<'_>,
    mut give: impl FnMut(&Difference<'_>) -> Result<()>,
) -> Result<Totals> {
    let chunks = all_chunks(old)?;
    let mut totals = Totals::default();
    for chunk in all_chunks(new)? {
        totals.chunks.add(chunk.2, chunks.contains(&chunk));
    }
    let mut walk = Walk {
        sides: [Side::new(old)?, Side::new(new)?],
        chunks,
        counterparts: [HashMap::new(), HashMap::new()],
    };
    let roots = walk.sides.each_ref().map(|side| Some(side.root));
    let mut path = Vec::new();
    let mut way: Vec<(vec::IntoIter<Pair<'_>>, usize)> = Vec::new();
    if let Some(difference) = walk.compare(b"/", roots)? {
        totals.count(difference.change);
        give(&difference)?;
    }
    let mut next = Some(roots);
    loop {
        if let Some(directories) = next.take() {
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
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(pair.name);
        if let Some(difference) = walk.compare(&path, pair.at)? {
            totals.count(difference.change);
            give(&difference)?;
        }
        if pair.directories.iter().any(Option::is_some) {
            next = Some(pair.directories);
        }
    }
}

/// All distinct chunks of an image.
fn all_chunks(reader: &ImageReader<'_>) -> Result<HashSet<ChunkId>> {
    let collect = || {
        let metadata = reader.metadata();
        let mut chunks = HashSet::new();
        for layer in 0..metadata.layers()? {
            for index in 0..metadata.layer_len(layer)? {
                let inode = metadata.inode_at(Locator { layer, index })?;
                if inode.file_type() == FileType::File {
                    for extent in inode.extents()?.iter_from(0, 0) {
                        chunks.insert(id(&extent?.1));
                    }
                }
            }
        }
        Ok(chunks)
    };
    reader.checked(collect())
}

/// One of the two images.
struct Side<'r> {
    reader: &'r ImageReader<'r>,
    root: Locator,
    blobs: Blobs,
    descent: Descent<'r>,
}

/// A name that either image has in a directory, or both.
struct Pair<'r> {
    name: &'r [u8],
    at: [Option<Locator>; 2],
    /// Its place, if it is a directory.
    directories: [Option<Locator>; 2],
}

struct Walk<'r> {
    sides: [Side<'r>; 2],
    /// The chunks of the old image.
    chunks: HashSet<ChunkId>,
    /// The inode of the other image under the first path that an inode of this image has in both.
    counterparts: [HashMap<u64, u64>; 2],
}

impl<'r> Side<'r> {
    fn new(reader: &'r ImageReader<'r>) -> Result<Self> {
        Ok(Side {
            reader,
            root: reader.checked(reader.metadata().find(ROOT_INO))?,
            blobs: Blobs::default(),
            descent: Descent::new(reader),
        })
    }

    fn inode(&self, at: Locator) -> Result<Inode<'r>> {
        self.reader.checked(self.reader.metadata().inode_at(at))
    }

    /// Returns the entries of a directory, or none for any other file.
    fn entries(&mut self, at: Option<Locator>) -> Result<Vec<DirEntry<'r>>> {
        at.map_or(Ok(Vec::new()), |at| self.descent.enter(at))
    }

    /// The SHA-256 of a file's contents.
    fn contents(&mut self, at: Locator) -> Result<Digest> {
        let mut hasher = Sha256::new();
        self.reader.read_file(at, &mut self.blobs, |piece| {
            hasher.update(piece);
            Ok(())
        })?;
        Ok(Digest(hasher.finalize().into()))
    }
}

impl<'r> Walk<'r> {
    /// The names of a directory that either has, or both.
    fn merge(&mut self, at: [Option<Locator>; 2]) -> Result<Vec<Pair<'r>>> {
        let [old, new] = &mut self.sides;
        let mut old = old.entries(at[0])?.into_iter().peekable();
        let mut new = new.entries(at[1])?.into_iter().peekable();
        let mut pairs = Vec::new();
        loop {
            let order = match (old.peek(), new.peek()) {
                (None, None) => return Ok(pairs),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(old), Some(new)) => old.name.cmp(new.name),
            };
            let entries = [
                old.next_if(|_| order.is_le()),
                new.next_if(|_| order.is_ge()),
            ];
            let name = entries
                .iter()
                .flatten()
                .next()
                .map_or(&b""[..], |entry| entry.name);
            let directory = |entry: DirEntry<'_>| entry.file_type == FileType::Dir;
            pairs.push(Pair {
                name,
                at: entries.map(|entry| entry.map(|entry| entry.at)),
                directories: entries.map(|entry| {
                    entry
                        .filter(|entry| directory(*entry))
                        .map(|entry| entry.at)
                }),
            });
        }
    }

    /// Reports the difference under a path.
    fn compare<'p>(
        &mut self,
        path: &'p [u8],
        at: [Option<Locator>; 2],
    ) -> Result<Option<Difference<'p>>> {
        let (change, what) = match at {
            [Some(old), Some(new)] => (Change::Changed, self.differences(old, new)?),
            [Some(_), None] => (Change::Removed, Vec::new()),
            [None, Some(_)] => (Change::Added, Vec::new()),
            [None, None] => return Ok(None),
        };
        if change == Change::Changed && what.is_empty() {
            return Ok(None);
        }
        let chunks = match at[1] {
            Some(new) if change == Change::Added || what.contains(&"contents") => {
                self.shared(new)?
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
    fn differences(&mut self, old_at: Locator, new_at: Locator) -> Result<Vec<&'static str>> {
        let [old, new] = [self.sides[0].inode(old_at)?, self.sides[1].inode(new_at)?];
        let mut what = Vec::new();
        let mut note = |differs: bool, word: &'static str| {
            if differs {
                what.push(word);
            }
        };
        note(old.file_type() != new.file_type(), "type");
        note(old.permissions() != new.permissions(), "mode");
        note((old.uid(), old.gid()) != (new.uid(), new.gid()), "owner");
        let [old_reader, new_reader] = self.sides.each_ref().map(|side| side.reader);
        let times = [
            old_reader.checked(old.mtime())?,
            new_reader.checked(new.mtime())?,
        ];
        note(times[0] != times[1], "mtime");
        note(
            xattrs(old_reader, &old)? != xattrs(new_reader, &new)?,
            "xattrs",
        );
        match (old.kind(), new.kind()) {
            (Kind::File, Kind::File) => note(self.contents_differ(&old, &new)?, "contents"),
            (Kind::Symlink, Kind::Symlink) => {
                let targets = [
                    old_reader.checked(old.symlink_target())?,
                    new_reader.checked(new.symlink_target())?,
                ];
                note(targets[0] != targets[1], "target");
            }
            (old, new) => {
                // Devices of one type and another number.
                let same_type = what.first() != Some(&"type");
                if same_type && old != new {
                    what.push("device");
                }
            }
        }
        if [&old, &new].map(Inode::file_type) != [FileType::Dir; 2] {
            let inodes = [old.ino(), new.ino()];
            let [olds, news] = &mut self.counterparts;
            let firsts = [
                *olds.entry(inodes[0]).or_insert(inodes[1]),
                *news.entry(inodes[1]).or_insert(inodes[0]),
            ];
            if firsts != [inodes[1], inodes[0]] {
                what.push("links");
            }
        }
        Ok(what)
    }

    /// Returns true if two files have different contents. Compares their extents first, and reads both
    /// if these differ, because one image may be compressed.
    fn contents_differ(&mut self, old: &Inode<'r>, new: &Inode<'r>) -> Result<bool> {
        let [old_side, new_side] = &mut self.sides;
        if old_side.reader.file_size(old)? != new_side.reader.file_size(new)? {
            return Ok(true);
        }
        let extents = [
            old_side.reader.checked(old.extents())?,
            new_side.reader.checked(new.extents())?,
        ];
        if extents[0].iter_from(0, 0).eq(extents[1].iter_from(0, 0)) {
            return Ok(false);
        }
        Ok(old_side.contents(old.locator())? != new_side.contents(new.locator())?)
    }

    /// Adds up the chunks of a new file that the old image has.
    fn shared(&self, at: Locator) -> Result<Option<Shared>> {
        let side = &self.sides[1];
        let inode = side.inode(at)?;
        if inode.file_type() != FileType::File {
            return Ok(None);
        }
        let mut shared = Shared::default();
        for extent in side.reader.checked(inode.extents())?.iter_from(0, 0) {
            let (_, chunk) = side.reader.checked(extent)?;
            shared.add(chunk.len, self.chunks.contains(&id(&chunk)));
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

/// The extended attributes, in the order of their names.
fn xattrs<'r>(reader: &ImageReader<'_>, inode: &Inode<'r>) -> Result<Vec<(&'r [u8], &'r [u8])>> {
    let xattrs = reader.checked(inode.xattrs())?;
    let xattrs = xattrs
        .iter()
        .map(|xattr| xattr.map(|xattr| (xattr.name, xattr.value)));
    let mut xattrs: Vec<_> = reader.checked(xattrs.collect::<Result<_, _>>())?;
    xattrs.sort_unstable();
    Ok(xattrs)
}
