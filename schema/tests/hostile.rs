// SPDX-License-Identifier: MIT OR Apache-2.0

//! Malformed messages cause no panic, and no operation costs more than its documentation allows.

// Pointers are put together of fields that are shifted, so often that it reads better bare.
#![allow(clippy::precedence)]

use proptest::collection::vec;
use proptest::prelude::*;
use puzzlefs_schema::{steps::count, ErrorKind, Framing, Metadata, ROOT_INO};
use puzzlefs_test_support::{dir_parts, everything, list, walk, Bytes};

/// Makes a message of one segment of its words.
fn message(words: &[u64]) -> Bytes {
    let table = (words.len() as u64) << 32;
    Bytes::from_words(&[&[table], words].concat())
}

/// The images that malformed messages are made from.
fn originals() -> Vec<Bytes> {
    let image = everything();
    [None, Some(50), Some(2)]
        .into_iter()
        .map(|segment| image.build(segment))
        .collect()
}

#[test]
fn originals_are_walked() {
    for original in originals() {
        let framing = Framing::parse(original.as_slice()).unwrap();
        let metadata = Metadata::new(&framing, original.as_slice());
        metadata.check().unwrap();
        assert_eq!(metadata.find(ROOT_INO).unwrap().layer, 0);
        walk(&original).unwrap();
    }
    let segments = |i: usize| {
        Framing::parse(originals()[i].as_slice())
            .unwrap()
            .segments()
    };
    assert_eq!(segments(0), 1);
    assert!(segments(1) > 2);
    // Beyond what is kept of the table.
    assert!(segments(2) > 40, "{}", segments(2));
}

#[test]
fn truncated() {
    for original in originals() {
        let bytes = original.as_slice();
        for len in 0..bytes.len() {
            let e = Framing::parse(Bytes::new(&bytes[..len]).as_slice()).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Truncated, "{len} bytes");
        }
        for more in [1, 7, 8, 16] {
            let longer = Bytes::new(&[bytes, &vec![0; more]].concat());
            let e = Framing::parse(longer.as_slice()).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::TrailingBytes, "{more} more bytes");
        }
    }
    // With a segment table that agrees.
    let words: Vec<u64> = originals()[0].as_slice()[8..]
        .chunks(8)
        .map(|word| u64::from_le_bytes(word.try_into().unwrap()))
        .collect();
    for len in 0..words.len() {
        let problems = walk(&message(&words[..len])).unwrap();
        assert!(problems > 0, "{len} words");
    }
}

#[test]
fn every_byte_changed() {
    for original in originals() {
        for at in 0..original.as_slice().len() {
            for change in [1 << (at % 8), 0xff, 0x80] {
                let mut bytes = original.clone();
                bytes.as_mut_slice()[at] ^= change;
                let _ = walk(&bytes);
            }
        }
    }
}

/// Words that a reader of messages interprets.
fn word() -> impl Strategy<Value = u64> {
    let small = || prop_oneof![0..8u64, 0..200u64];
    let offset = || (-40..200i64).prop_map(|offset| (offset as u64) << 2 & 0xffff_fffc);
    prop_oneof![
        any::<u64>(),
        Just(0),
        Just(u64::MAX),
        small(),
        // Structs.
        (offset(), 0..8u64, 0..4u64)
            .prop_map(|(offset, data, ptrs)| offset | data << 32 | ptrs << 48),
        // Lists, some of them endless.
        (offset(), 0..8u64, prop_oneof![small(), Just((1 << 29) - 1)])
            .prop_map(|(offset, size, len)| offset | 1 | size << 32 | len << 35),
        // Far pointers.
        (any::<bool>(), small(), small())
            .prop_map(|(double, at, segment)| at << 3 | (double as u64) << 2 | 2 | segment << 32),
        // Tags of lists.
        (small(), 0..8u64, 0..4u64)
            .prop_map(|(len, data, ptrs)| len << 2 | data << 32 | ptrs << 48),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn words_changed(
        original in 0..3usize,
        changes in vec((any::<prop::sample::Index>(), word()), 1..6),
    ) {
        let mut bytes = originals().swap_remove(original);
        for (index, word) in changes {
            let at = index.index(bytes.as_slice().len() / 8) * 8;
            bytes.as_mut_slice()[at..at + 8].copy_from_slice(&word.to_le_bytes());
        }
        let _ = walk(&bytes);
    }

    #[test]
    fn words_moved(
        original in 0..3usize,
        moves in vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..6),
    ) {
        let mut bytes = originals().swap_remove(original);
        let words = bytes.as_slice().len() / 8;
        for (from, to) in moves {
            let (from, to) = (from.index(words) * 8, to.index(words) * 8);
            bytes.as_mut_slice().copy_within(from..from + 8, to);
        }
        let _ = walk(&bytes);
    }

    #[test]
    fn words_made_up(words in vec(word(), 0..60)) {
        let _ = walk(&message(&words));
    }

    #[test]
    fn segment_tables_made_up(bytes in vec(prop_oneof![Just(0), Just(1), any::<u8>()], 0..200)) {
        let _ = walk(&Bytes::new(&bytes));
    }
}

/// Writes messages that no builder would write.
struct Raw(Vec<u64>);

/// The size of the elements of a list.
const VOID: u64 = 0;
const POINTER: u64 = 6;
const COMPOSITE: u64 = 7;

impl Raw {
    /// A Rootfs of version 3, to which pointers 3 (metadatas) and 4 (fsVerityData) belong.
    fn new() -> Self {
        let mut raw = Self(vec![0; 5]);
        raw.structure(0, 1, 2, 2);
        raw.0[1] = 3;
        raw
    }

    fn end(&self) -> usize {
        self.0.len()
    }

    fn grow(&mut self, words: usize) -> usize {
        let at = self.end();
        self.0.resize(at + words, 0);
        at
    }

    fn offset(at: usize, target: usize) -> u64 {
        let offset = target as i64 - at as i64 - 1;
        ((offset as u64) << 2) & 0xffff_fffc
    }

    fn structure(&mut self, at: usize, target: usize, data: u64, pointers: u64) {
        self.0[at] = Self::offset(at, target) | data << 32 | pointers << 48;
    }

    fn list(&mut self, at: usize, target: usize, size: u64, len: u64) {
        self.0[at] = Self::offset(at, target) | 1 | size << 32 | len << 35;
    }

    /// Appends a list of structs and points to it. Gives the place of its first element.
    fn structures(&mut self, at: usize, len: usize, data: usize, pointers: usize) -> usize {
        let target = self.grow(1 + len * (data + pointers));
        self.0[target] = (len as u64) << 2 | (data as u64) << 32 | (pointers as u64) << 48;
        self.list(at, target, COMPOSITE, (len * (data + pointers)) as u64);
        target + 1
    }

    /// Appends a layer of as many inodes, pointed to from `at`. Each has five words: its number, its
    /// mode and others, a third, the pointer of its mode, and the pointer to additional data.
    fn inodes(&mut self, at: usize, len: usize) -> usize {
        let first = self.structures(at, len, 3, 2);
        for i in 0..len {
            self.0[first + 5 * i] = i as u64 + 1;
        }
        first
    }

    fn bytes(&self) -> Bytes {
        message(&self.0)
    }

    fn check(&self) -> Result<(), ErrorKind> {
        let bytes = self.bytes();
        walk(&bytes).unwrap();
        let framing = Framing::parse(bytes.as_slice()).unwrap();
        let metadata = Metadata::new(&framing, bytes.as_slice());
        let (_, checked) = count(|| metadata.check());
        checked.map_err(|e| e.kind())
    }
}

/// The tags of modes.
const DIR: u64 = 3;
const FILE: u64 = 5;

#[test]
fn empty_lists_that_claim_to_be_long() {
    for len in [200, 1 << 20, (1 << 29) - 1] {
        // Layers of nothing.
        let mut raw = Raw::new();
        raw.list(3, 5, VOID, len);
        assert_eq!(raw.check(), Err(ErrorKind::ListTooLong));

        // Structs of no size: as many as a tag can say.
        let mut raw = Raw::new();
        raw.structures(3, 0, 0, 0);
        raw.0[5] = len << 2;
        assert_eq!(raw.check(), Err(ErrorKind::ListTooLong));

        // Inodes, entries, chunks, attributes, verity digests of nothing.
        let mut raw = Raw::new();
        let layer = raw.structures(3, 1, 0, 1);
        let end = raw.end();
        raw.list(layer, end, VOID, len);
        assert_eq!(raw.check(), Err(ErrorKind::ListTooLong));

        let mut raw = Raw::new();
        let layer = raw.structures(3, 1, 0, 1);
        let inode = raw.inodes(layer, 2);
        raw.0[inode + 1] = DIR;
        let dir = raw.grow(2);
        raw.structure(inode + 3, dir, 1, 1);
        raw.list(dir + 1, dir + 2, VOID, len);
        raw.0[inode + 5 + 1] = FILE;
        raw.list(inode + 5 + 3, dir + 2, VOID, len);
        let additional = raw.grow(2);
        raw.structure(inode + 5 + 4, additional, 0, 2);
        raw.list(additional, dir + 2, VOID, len);
        assert_eq!(raw.check(), Ok(()));
        let bytes = raw.bytes();
        let framing = Framing::parse(bytes.as_slice()).unwrap();
        let metadata = Metadata::new(&framing, bytes.as_slice());
        let root = metadata.inode_at(metadata.find(1).unwrap()).unwrap();
        let file = metadata.inode_at(metadata.find(2).unwrap()).unwrap();
        for e in [
            root.dir().unwrap_err(),
            file.extents().unwrap_err(),
            file.xattrs().unwrap_err(),
        ] {
            assert_eq!(e.kind(), ErrorKind::ListTooLong);
            assert!(e.ino().is_some());
        }

        raw.list(4, 5, VOID, len);
        assert_eq!(raw.check(), Err(ErrorKind::ListTooLong));
    }
}

#[test]
fn one_list_that_many_layers_point_to() {
    let build = |layers: usize, entries: usize| {
        let mut raw = Raw::new();
        let layer = raw.structures(3, layers, 0, 1);
        let inode = raw.inodes(layer, 2);
        raw.0[inode + 1] = DIR;
        let dir = raw.grow(2);
        raw.structure(inode + 3, dir, 1, 1);
        raw.0[dir] = 1;
        let entry = raw.structures(dir + 1, entries, 1, 1);
        for i in 0..entries {
            raw.0[entry + 2 * i] = 2;
            let name = raw.grow(1);
            raw.0[name] = u64::from_le_bytes(*b"aaaaaaaa") + (i as u64) * 0x0101;
            raw.list(entry + 2 * i + 1, name, 2, 8);
        }
        for i in 1..layers {
            raw.list(layer + i, inode - 1, COMPOSITE, 10);
        }
        raw
    };
    let list = |raw: &Raw| {
        assert_eq!(raw.check(), Ok(()));
        let bytes = raw.bytes();
        let framing = Framing::parse(bytes.as_slice()).unwrap();
        let metadata = Metadata::new(&framing, bytes.as_slice());
        let parts = dir_parts(&metadata, 1).map_err(|e| e.kind())?;
        let dir = metadata.dir(&parts).map_err(|e| e.kind())?;
        let listed = list(&dir).map_err(|e| e.kind())?;
        Ok((parts.len(), listed.len()))
    };
    assert_eq!(list(&build(2, 20)), Ok((2, 20)));
    assert_eq!(list(&build(256, 20)), Err(ErrorKind::ListTooLong));

    // On the way down, before each part's entries were gone through.
    let bytes = build(256, 20).bytes();
    let framing = Framing::parse(bytes.as_slice()).unwrap();
    let metadata = Metadata::new(&framing, bytes.as_slice());
    let mut part = metadata.dir_at(metadata.find(1).unwrap()).unwrap();
    let mut entries = part.len();
    let error = loop {
        match part.below() {
            Ok(below) => part = below.unwrap(),
            Err(e) => break e,
        }
        entries += part.len();
        assert!(entries <= bytes.as_slice().len() / 8);
    };
    assert_eq!(error.kind(), ErrorKind::ListTooLong);
}

#[test]
fn pointers_in_circles() {
    // The root, and its list, are themselves.
    for pointer in [0, 3, 4] {
        for (size, len) in [(POINTER, 1), (COMPOSITE, 2), (2, 8)] {
            for target in 0..5 {
                let mut raw = Raw::new();
                raw.list(pointer, target, size, len);
                assert!(raw.check().is_err());
                raw.structure(pointer, target, 1, 1);
                assert!(raw.check().is_err());
            }
        }
    }
    // Far pointers to themselves, to each other, and out.
    let far =
        |at: u64, segment: u64, double: bool| at << 3 | (double as u64) << 2 | 2 | segment << 32;
    for double in [false, true] {
        for segment in [0, 1, 2, u64::from(u32::MAX)] {
            for at in [0, 1, 2, 3, 4, 5, 6, (1 << 29) - 1] {
                for pointer in [0, 3, 4] {
                    let mut raw = Raw::new();
                    raw.0.extend([far(3, 0, double), far(5, 0, double), 0]);
                    raw.0[pointer] = far(at, segment, double);
                    let _ = raw.check();
                    let words = raw.0.len() as u64;
                    // The same as two segments.
                    let mut two = vec![1 | words << 32, words];
                    two.extend(&raw.0);
                    two.extend(&raw.0);
                    let _ = walk(&Bytes::from_words(&two)).unwrap();
                }
            }
        }
    }
    let mut raw = Raw::new();
    raw.0[0] = far(0, 0, false);
    assert_eq!(raw.check(), Err(ErrorKind::WrongType));
}

#[test]
fn pointers_that_lead_out() {
    let mut raw = Raw::new();
    raw.structures(3, 1, 0, 1);
    let end = raw.end();
    for target in [end, end + 1, 1 << 20, (1 << 29) - 1] {
        let mut raw = Raw(raw.0.clone());
        raw.list(3, target, COMPOSITE, 1);
        assert_eq!(raw.check(), Err(ErrorKind::OutOfBounds));
        raw.structure(0, target, 2, 2);
        assert_eq!(raw.check(), Err(ErrorKind::OutOfBounds));
    }
    for len in [3, 4, 1 << 20, (1 << 29) - 1] {
        let mut raw = Raw(raw.0.clone());
        raw.list(3, end - 1, COMPOSITE, len);
        assert_eq!(raw.check(), Err(ErrorKind::OutOfBounds));
    }
    // More elements than the list has words for.
    let mut raw = Raw(raw.0.clone());
    raw.0[5] = 2 << 2 | 1 << 48;
    assert_eq!(raw.check(), Err(ErrorKind::OutOfBounds));
    // Another segment, of which there is none.
    raw.0[0] = 2 | 1 << 32;
    assert_eq!(raw.check(), Err(ErrorKind::OutOfBounds));
}

#[test]
fn pointers_of_other_types() {
    let mut raw = Raw::new();
    raw.structures(3, 1, 0, 1);
    raw.structures(4, 1, 0, 2);
    for pointer in [0, 3, 4] {
        for word in [3, 3 | 5 << 32, 7] {
            let mut raw = Raw(raw.0.clone());
            raw.0[pointer] = word;
            assert_eq!(raw.check(), Err(ErrorKind::WrongType));
        }
    }
    // A struct where a list is, and the other way round; a list of bits.
    let other = |pointer, change: fn(&mut Raw, usize)| {
        let mut raw = Raw(raw.0.clone());
        change(&mut raw, pointer);
        assert_eq!(raw.check(), Err(ErrorKind::WrongType));
    };
    other(0, |raw, at| raw.list(at, 5, COMPOSITE, 2));
    other(3, |raw, at| raw.structure(at, 5, 1, 1));
    other(3, |raw, at| raw.list(at, 5, 1, 64));
}

#[test]
fn segment_tables() {
    let parse = |words: &[u64]| {
        let bytes = Bytes::from_words(words);
        Framing::parse(bytes.as_slice())
            .map_err(|e| e.kind())
            .map(|framing| framing.segments())
    };
    assert_eq!(parse(&[]), Err(ErrorKind::Truncated));
    assert_eq!(parse(&[0]), Ok(1));
    assert_eq!(parse(&[0, 0]), Err(ErrorKind::TrailingBytes));
    assert_eq!(parse(&[1 << 32]), Err(ErrorKind::Truncated));
    assert_eq!(parse(&[1 << 32, 0]), Ok(1));
    assert_eq!(parse(&[0xffff_ffff << 32, 0]), Err(ErrorKind::Truncated));
    // Three segments: two words of table, then 1, 0 and 2 words.
    assert_eq!(parse(&[2 | 1 << 32, 2 << 32, 0, 0, 0]), Ok(3));
    assert_eq!(
        parse(&[2 | 1 << 32, 2 << 32, 0, 0]),
        Err(ErrorKind::Truncated)
    );
    assert_eq!(parse(&[0xffff_ffff]), Err(ErrorKind::TooManySegments));
    assert_eq!(parse(&[512]), Err(ErrorKind::TooManySegments));
    let mut table = vec![0; 257];
    table[0] = 511;
    assert_eq!(parse(&table), Ok(512));
    assert_eq!(parse(&table[..256]), Err(ErrorKind::Truncated));
    // Each claims to be as large as can be.
    table[1..].fill(u64::MAX);
    assert_eq!(parse(&table), Err(ErrorKind::Truncated));
}
