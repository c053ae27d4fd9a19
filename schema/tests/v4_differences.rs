// SPDX-License-Identifier: MIT OR Apache-2.0

//! Fields that are stored as differences: values come back, and regular lists have few differences.

use puzzlefs_schema::v4::{restore_values, store_differences, Layout};
use puzzlefs_test_support::v4::{self, Random};

/// A block with a directory of `count` small files in one chunk and of a large file, whose inodes follow
/// the directory.
fn regular_block(count: u16) -> v4::Block {
    const SIZE: u64 = 100;
    let mut block = v4::block();
    block.bytes.clear();
    block.entries.clear();
    block.extents.clear();
    block.parts.clear();
    block.sets.clear();
    block.attributes.clear();
    let chunk = |number: u8, content| v4::Chunk {
        digest: [number; 32],
        stored: content,
        content,
    };
    block.chunks = vec![chunk(1, 60_000), chunk(2, 4096), chunk(3, 5000)];
    block.inodes = vec![v4::Inode {
        count: u32::from(count) + 1,
        ..v4::inode(v4::DIR)
    }];
    for number in 0..=count {
        let name = format!("{number:04}");
        block.entries.push(v4::Entry {
            name: (block.bytes.len() as u32, name.len() as u8),
            inode_type: v4::FILE,
            slot: number + 1,
            distance: 0,
        });
        block.bytes.extend(name.as_bytes());
    }
    for number in 0..count {
        block.extents.push(v4::Extent {
            offset: 0,
            chunk: 0,
            chunk_offset: u32::from(number) * SIZE as u32,
        });
        block.inodes.push(v4::Inode {
            size: SIZE,
            first: number.into(),
            count: 1,
            ..v4::inode(v4::FILE)
        });
    }
    for (offset, chunk) in [(0, 1), (4096, 2)] {
        block.extents.push(v4::Extent {
            offset,
            chunk,
            chunk_offset: 0,
        });
    }
    block.inodes.push(v4::Inode {
        size: 9096,
        first: count.into(),
        count: 2,
        ..v4::inode(v4::FILE)
    });
    block
}

/// The same block with all differences that are not 0 written out.
fn regular_differences(count: u16) -> v4::Block {
    let mut block = regular_block(count);
    for inode in &mut block.inodes {
        inode.first = 0;
    }
    for entry in &mut block.entries {
        entry.name.0 = 0;
        entry.slot = 1;
    }
    for extent in &mut block.extents {
        extent.offset = 0;
        extent.chunk = 0;
        extent.chunk_offset = 0;
    }
    // The chunks of the large file follow each other.
    for extent in &mut block.extents[usize::from(count)..] {
        extent.chunk = 1;
    }
    block
}

#[test]
fn regular_lists_have_few_differences() {
    let values = regular_block(300).build();
    let mut content = values.clone();
    store_differences(&mut content);
    assert!(content == regular_differences(300).build());
    Layout::restore(&mut content).unwrap();
    assert!(content == values);
}

/// Values of every kind of message come back, whatever they are.
#[test]
fn values_come_back() {
    let originals = [
        v4::root().build(),
        v4::block_list().build(),
        v4::block().build(),
        regular_block(20).build(),
        v4::entry_list().build(),
        v4::extent_list().build(),
        v4::part_list().build(),
    ];
    let mut random = Random(7);
    let (mut checked, mut changed) = (0, 0);
    for original in originals {
        for _ in 0..2000 {
            let mut values = original.clone();
            v4::change_word(&mut values, &mut random);
            if Layout::check(&values).is_err() {
                continue;
            }
            let mut content = values.clone();
            store_differences(&mut content);
            changed += u32::from(content != values);
            restore_values(&mut content);
            assert!(content == values);
            checked += 1;
        }
    }
    assert!(checked > 1000 && changed > 500, "{checked}, {changed}");
}

/// Bytes without a message, and lists that overlap: nothing panics, and the length stays.
#[test]
fn anything_can_be_restored() {
    let original = regular_block(20).build();
    for len in 0..original.len() {
        let mut content = original[..len].to_vec();
        restore_values(&mut content);
        assert!(content == original[..len], "{len} bytes");
    }
    let mut random = Random(8);
    for _ in 0..5000 {
        let mut content = original.clone();
        for _ in 0..=random.below(4) {
            v4::change_word(&mut content, &mut random);
        }
        restore_values(&mut content);
        assert_eq!(content.len(), original.len());
    }
}
