// SPDX-License-Identifier: MIT OR Apache-2.0

//! Malformed metadata chunks: nothing panics, no call costs more than its documentation allows, and
//! the Cap'n Proto library reads the same from a chunk that passes the checks.

use puzzlefs_schema::v4::MetadataErrorKind as Kind;
use puzzlefs_test_support::v4::walk::{
    walk_block, walk_block_list, walk_list_block, walk_root, Walk,
};
use puzzlefs_test_support::v4::{self, Random};

/// Each kind of message, and the walk through it.
fn originals() -> Vec<(Vec<u8>, Walk)> {
    vec![
        (v4::root().build(), walk_root),
        (v4::long_root().build(), walk_root),
        (v4::block_list().build(), walk_block_list),
        (v4::block().build(), walk_block),
        (v4::entry_list().build(), walk_list_block),
        (v4::extent_list().build(), walk_list_block),
        (v4::part_list().build(), walk_list_block),
        (v4::file_part_list().build(), walk_list_block),
    ]
}

#[test]
fn originals_are_walked() {
    for (bytes, walk) in originals() {
        walk(&bytes).unwrap();
    }
}

#[test]
fn truncated() {
    for (bytes, walk) in originals() {
        for len in 0..bytes.len() {
            let e = walk(&bytes[..len]).unwrap_err();
            assert_eq!(e.kind(), Kind::Truncated, "{len} bytes");
        }
        for more in [1, 8] {
            let longer = [bytes.as_slice(), &vec![0; more]].concat();
            let e = walk(&longer).unwrap_err();
            assert_eq!(e.kind(), Kind::TrailingBytes);
        }
        // With a segment table that agrees.
        for words in 0..bytes.len() / 8 - 1 {
            let mut shorter = bytes[..8 + words * 8].to_vec();
            shorter[4..8].copy_from_slice(&(words as u32).to_le_bytes());
            assert!(walk(&shorter).is_err(), "{words} words");
        }
    }
}

#[test]
fn every_byte_changed() {
    for (original, walk) in originals() {
        let mut accepted = 0;
        for at in 0..original.len() {
            for change in [1 << (at % 8), 0xff, 0x80] {
                let mut bytes = original.clone();
                bytes[at] ^= change;
                accepted += u32::from(walk(&bytes).is_ok());
            }
        }
        // Digests, owners and times have no rules.
        assert!(accepted > 0);
    }
}

/// Changes a few words.
fn mutate(bytes: &mut [u8], random: &mut Random) {
    for _ in 0..=random.below(4) {
        v4::change_word(bytes, random);
    }
}

#[test]
fn mutated() {
    let mut random = Random(4);
    for (original, walk) in originals() {
        let mut accepted = 0;
        for _ in 0..20_000 {
            let mut bytes = original.clone();
            mutate(&mut bytes, &mut random);
            accepted += u32::from(walk(&bytes).is_ok());
        }
        assert!(accepted > 100, "{accepted} mutants pass the checks");
    }
}

/// A block that is as expensive as its size allows: many links with one long target, and many names
/// in one string.
#[test]
fn the_cost_of_a_check_has_a_bound() {
    let mut block = v4::Block {
        version: 4,
        kind: 3,
        bytes: vec![b'a'; 4095],
        ..v4::Block::default()
    };
    block.inodes = vec![
        v4::Inode {
            count: 4095,
            ..v4::inode(v4::SYMLINK)
        };
        4000
    ];
    walk_block(&block.build()).unwrap();
    // Every range is all of the entries, which would be checked once for each directory.
    block.bytes.clear();
    for number in 0..1800 {
        let name = format!("{number:04}");
        block.entries.push(v4::Entry {
            name: (block.bytes.len() as u32, 4),
            inode_type: v4::FIFO,
            ..v4::Entry::default()
        });
        block.bytes.extend(name.as_bytes());
    }
    block.inodes = vec![
        v4::Inode {
            count: 1800,
            ..v4::inode(v4::DIR)
        };
        3000
    ];
    let e = walk_block(&block.build()).unwrap_err();
    assert_eq!(e.kind(), Kind::RangeOrder);
}
