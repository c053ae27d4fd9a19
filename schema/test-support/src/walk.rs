// SPDX-License-Identifier: MIT OR Apache-2.0

//! Reads everything of a message, and checks the cost and the invariants of each call. For tests
//! and fuzzers.

use crate::bytes::Bytes;
use puzzlefs_schema::{
    steps::count, Digest, Error, FileType, Framing, Inode, Locator, Metadata, Part,
};
use std::ops::ControlFlow;

/// The largest number of steps to follow the pointers to a value: some ten pointers, each of which,
/// if it is far, takes several lookups of segments.
const FOLLOW: u64 = 100;

/// Calls all operations, and checks the cost and the invariants of each call.
struct Walk<'a> {
    metadata: Metadata<'a>,
    words: u64,
    layers: u64,
    log: u64,
    /// The number of calls until the walk stops, because the number of all calls has no bound.
    calls: u32,
    problems: u32,
}

impl<'a> Walk<'a> {
    fn all(framing: &'a Framing, bytes: &'a [u8]) -> u32 {
        let words = framing.words() as u64;
        let metadata = Metadata::new(framing, bytes);
        let mut walk = Walk {
            metadata,
            words,
            layers: metadata.layers().unwrap_or(0).into(),
            log: u64::from(words.ilog2()) + 2,
            calls: 3000,
            problems: 0,
        };
        walk.image();
        walk.problems
    }

    /// Calls an operation that may take so many steps.
    fn call<T>(&mut self, bound: u64, operation: impl FnOnce() -> Result<T, Error>) -> Option<T> {
        self.calls = self.calls.saturating_sub(1);
        let (steps, result) = count(operation);
        assert!(steps <= bound, "{steps} steps where {bound} are allowed");
        if result.is_err() {
            self.problems += 1;
        }
        result.ok()
    }

    /// Returns the largest cost of finding an inode.
    fn find(&self) -> u64 {
        self.layers * (self.log * 2 + FOLLOW) + FOLLOW
    }

    /// Returns the largest cost of finding a name in a part of a directory.
    fn search(&self) -> u64 {
        self.log * FOLLOW
    }

    fn image(&mut self) {
        let metadata = self.metadata;
        self.call(self.find() + self.layers * FOLLOW + FOLLOW, || {
            metadata.check()
        });
        self.call(FOLLOW, || metadata.data_size());
        self.call(FOLLOW + self.layers * FOLLOW, || metadata.inode_count());
        self.call(
            self.words * (self.layers + 1) * 20 + self.layers * FOLLOW,
            || metadata.check_order(),
        );
        let layers = self.call(FOLLOW, || metadata.layers()).unwrap_or(0);
        for layer in 0..layers {
            let len = self.call(FOLLOW, || metadata.layer_len(layer)).unwrap_or(0);
            assert!(u64::from(len) <= self.words);
            for index in (0..len).take(40).chain([len]) {
                let at = Locator { layer, index };
                if let Some(inode) = self.call(FOLLOW, || metadata.inode_at(at)) {
                    self.inode(inode);
                }
            }
        }
        for ino in [0, 2, 7] {
            self.call(
                self.words * (self.layers + 1) * 20 + self.layers * FOLLOW,
                || {
                    metadata.for_each_entry_of(ino, |entry| {
                        check_name(entry.name);
                        ControlFlow::<()>::Continue(())
                    })
                },
            );
        }
        for ino in (0..20).chain([u64::MAX]) {
            if let Some(at) = self.call(self.find(), || metadata.find(ino)) {
                if let Some(inode) = self.call(FOLLOW, || metadata.inode_at(at)) {
                    assert_eq!(inode.ino(), ino);
                    assert_ne!(inode.file_type(), FileType::Whiteout);
                }
            }
        }
        let len = self.call(FOLLOW, || metadata.verity_len()).unwrap_or(0);
        for index in (0..len).take(40) {
            if let Some((blob, _)) = self.call(FOLLOW, || metadata.verity_at(index)) {
                self.call(self.search(), || metadata.verity(&blob));
            }
        }
        self.call(self.search(), || metadata.verity(&Digest::new([2; 32])));
    }

    fn inode(&mut self, inode: Inode<'a>) {
        if self.calls == 0 {
            return;
        }
        self.call(0, || inode.mtime());
        self.call(FOLLOW, || inode.has_xattrs());
        self.call(self.words * 20 + FOLLOW, || {
            inode.xattrs()?.get(b"security.none")
        });
        if let Some(xattrs) = self.call(FOLLOW, || inode.xattrs()) {
            for xattr in xattrs.iter().take(20).flatten() {
                assert!(xattr.name.len() <= 255 && xattr.value.len() <= 65536);
                assert!(xattr.name.contains(&b'.') && !xattr.name.contains(&0));
            }
        }
        if let Some(target) = self.call(FOLLOW, || inode.symlink_target()) {
            assert!((1..=4095).contains(&target.len()) && !target.contains(&0));
        }
        self.file(inode);
        if let Some(top) = self.call(FOLLOW, || inode.dir()) {
            assert_eq!(top.ino(), inode.ino());
            self.dir(inode);
        }
    }

    fn file(&mut self, inode: Inode<'a>) {
        let Some(extents) = self.call(FOLLOW, || inode.extents()) else {
            return;
        };
        let mut table = [0; 3];
        let len = extents.len() as u64;
        assert!(len <= self.words);
        let size = self.call(len + FOLLOW, || extents.index(&mut table));
        for offset in [0, 1, 9, 10, 1 << 40, u64::MAX] {
            let place = self.call(len.div_ceil(3) * 2 + FOLLOW, || {
                extents.seek(offset, &table)
            });
            let (Some((index, start)), Some(size)) = (place, size) else {
                continue;
            };
            assert!(start <= offset && start <= size);
            assert_eq!(index == extents.len(), offset >= size);
            if let Some(chunk) = self.call(FOLLOW, || extents.get(index)) {
                assert!(offset < start + chunk.len);
                assert!(chunk.blob_offset.checked_add(chunk.len).is_some());
            }
        }
        assert!(extents.iter_from(0, 0).take(50).count() <= extents.len());
    }

    fn dir(&mut self, inode: Inode<'a>) {
        let mut parts: Vec<Part<Vec<u32>>> = Vec::new();
        let mut layer = inode.dir().ok();
        while let Some(part) = layer {
            let len = part.len() as u64;
            assert!(len <= self.words);
            if let Some(entry) = self.call(FOLLOW, || part.entry(0)) {
                check_name(entry.name);
            }
            if self.call(len * 20 + FOLLOW, || part.order()).is_none() {
                return;
            }
            // Any part can have an index.
            let mut index = vec![0; part.len()];
            let sort = (len + 1) * (u64::from(part.len().max(1).ilog2()) + 4) * 40 + FOLLOW;
            if self.call(sort, || part.sort_index(&mut index)).is_none() {
                return;
            }
            parts.push(Part::new(&part, Some(index)));
            assert!(parts.len() as u64 <= self.layers);
            layer = self.call(self.find(), || part.below()).flatten();
        }
        let count = parts.len() as u64;
        let metadata = self.metadata;
        let Some(dir) = self.call(FOLLOW, || metadata.dir(&parts)) else {
            return;
        };
        assert!(dir.len() <= self.words);
        for name in [&b"gone"[..], b"z", b"", b"\xff"] {
            if let Some(Some(entry)) = self.call(
                count * (self.search() + FOLLOW) + self.find() + 2 * FOLLOW,
                || dir.lookup(name),
            ) {
                assert_eq!(entry.name, name);
            }
        }
        let each = self.find() + 2 * FOLLOW + count * (self.search() + FOLLOW);
        let mut names = Vec::new();
        self.call(dir.len() * each + count * FOLLOW + FOLLOW, || {
            dir.for_each(0, |entry| {
                names.push((entry.name, entry.cursor));
                ControlFlow::<()>::Continue(())
            })
        });
        for (name, _) in &names {
            check_name(name);
        }
        assert!(names.is_sorted_by(|a, b| a.1 < b.1));
        names.sort();
        names.dedup_by(|a, b| a.0 == b.0);
        assert!(names.len() as u64 <= dir.len());
    }
}

fn check_name(name: &[u8]) {
    assert!((1..=255).contains(&name.len()) && name != b"." && name != b"..");
    assert!(!name.contains(&0) && !name.contains(&b'/'));
}

/// Calls all operations on some bytes, if they are framed as a message, and counts the errors.
pub fn walk(bytes: &Bytes) -> Result<u32, Error> {
    let (steps, framing) = count(|| Framing::parse(bytes.as_slice()));
    assert_eq!(steps, 0);
    Ok(Walk::all(&framing?, bytes.as_slice()))
}
