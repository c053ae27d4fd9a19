// SPDX-License-Identifier: MIT OR Apache-2.0

//! Chunks are found by their offset in the file.

use proptest::collection::vec;
use proptest::prelude::*;
use puzzlefs_test_support::*;
use std::ops::ControlFlow;

fn file(lens: &[u64]) -> Bytes {
    let chunks = lens
        .iter()
        .map(|&len| Chunk {
            len,
            ..Chunk::default()
        })
        .collect();
    image(vec![dir(1, &[]), inode(2, Mode::File(chunks))]).build(None)
}

/// The chunk that an offset is in, and where that begins.
fn seek(lens: &[u64], offset: u64) -> (usize, u64) {
    let mut start = 0;
    for (index, len) in lens.iter().enumerate() {
        if offset < start + len {
            return (index, start);
        }
        start += len;
    }
    (lens.len(), start)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn seeks(
        lens in prop_oneof![vec(1..5u64, 0..60), vec(1..1u64 << 40, 0..600)],
        entries in prop_oneof![0..20usize, 0..700usize],
        offsets in vec(any::<prop::sample::Index>(), 20),
    ) {
        let bytes = file(&lens);
        open(&bytes, |metadata| {
            let at = metadata.find(2).unwrap();
            let extents = metadata.inode_at(at).unwrap().extents().unwrap();
            let mut table = vec![17; entries];
            let size: u64 = lens.iter().sum();
            assert_eq!(extents.index(&mut table), Ok(size));
            assert_eq!(table.first(), (entries > 0).then_some(if lens.is_empty() { &u64::MAX } else { &0 }));

            let mut edges = vec![0, size, size + 1, u64::MAX];
            let mut start = 0;
            for len in lens.iter().take(60) {
                edges.extend([start, start + 1, start + len - 1]);
                start += len;
            }
            edges.extend(offsets.iter().map(|offset| offset.index(size as usize + 2) as u64));
            for offset in edges {
                let expected = seek(&lens, offset);
                assert_eq!(extents.seek(offset, &table), Ok(expected), "offset {offset}");
                let next = extents.iter_from(expected.0, expected.1).next();
                assert_eq!(next.map(|next| next.unwrap().0), (offset < size).then_some(expected.1));

                // From there on, of what was kept, the same chunks.
                let mut given = Vec::new();
                let end = metadata.extents(extents.list()).for_each_from(expected.0, |chunk| {
                    given.push(chunk);
                    if given.len() < 5 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
                });
                let left = lens.len() - expected.0;
                assert_eq!(end.unwrap().is_break(), left >= 5);
                let wanted = (expected.0..lens.len()).take(5).map(|index| extents.get(index).unwrap());
                assert_eq!(given, wanted.collect::<Vec<_>>());
            }
            // With a table of something else, any answer will do but a panic.
            for table in [&[][..], &[0], &[u64::MAX; 3], &[0; 300], &[5, 4, 3, 2, 1, 0]] {
                for offset in [0, 1, size / 2, size, u64::MAX] {
                    let _ = extents.seek(offset, table);
                }
            }
        });
    }
}

#[test]
fn iterators_end_after_an_error() {
    let bytes = file(&[1, 2, i64::MAX as u64, 4]);
    open(&bytes, |metadata| {
        let at = metadata.find(2).unwrap();
        let extents = metadata.inode_at(at).unwrap().extents().unwrap();
        let results: Vec<_> = extents.iter_from(0, 0).map(|item| item.is_ok()).collect();
        assert_eq!(results, [true, true, false]);
    });
}
