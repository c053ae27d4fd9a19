// SPDX-License-Identifier: MIT OR Apache-2.0

//! The segments of a message as `capnp` sees them.

use crate::v3::Segments;
use crate::{metadata_capnp::rootfs, Error, ErrorKind, Framing, Metadata};
use puzzlefs_test_support::{everything, Bytes};

#[test]
fn deep_nesting() {
    // The deepest that the schema has is within the limit; what lies deeper is never looked at.
    let bytes = everything().build(None);
    let framing = Framing::parse(bytes.as_slice()).unwrap();
    let metadata = Metadata::new(&framing, bytes.as_slice());
    let file = metadata.inode_at(metadata.find(7).unwrap()).unwrap();
    file.extents().unwrap().get(0).unwrap();
    let shallow = |nesting_limit| {
        let segments = Segments::new(&framing, bytes.as_slice());
        let options = capnp::message::ReaderOptions {
            traversal_limit_in_words: None,
            nesting_limit,
        };
        let message = capnp::message::Reader::new(segments, options);
        let root: rootfs::Reader<'_> = message.get_root()?;
        Ok::<_, Error>(root.get_metadatas()?.len())
    };
    assert_eq!(shallow(2), Ok(2));
    assert_eq!(shallow(1).unwrap_err().kind(), ErrorKind::TooDeep);
}

#[test]
fn segments_are_where_they_should_be() {
    use capnp::message::ReaderSegments;
    for count in [1, 2, 31, 32, 33, 63, 64, 65, 100, 511, 512] {
        let sizes: Vec<u32> = (0..count).map(|i| (i * 7) % 5).collect();
        let mut table: Vec<u32> = vec![count - 1];
        table.extend(&sizes);
        if table.len() % 2 == 1 {
            table.push(0);
        }
        let mut bytes: Vec<u8> = table.iter().flat_map(|n| n.to_le_bytes()).collect();
        let mut segments = Vec::new();
        for (i, size) in (0..count).zip(&sizes) {
            let segment: Vec<u8> = (0..size * 8).map(|byte| (i + byte) as u8).collect();
            bytes.extend(&segment);
            segments.push(segment);
        }
        let bytes = Bytes::new(&bytes);
        let framing = Framing::parse(bytes.as_slice()).unwrap();
        let read = Segments::new(&framing, bytes.as_slice());
        assert_eq!(read.len(), segments.len());
        for (i, segment) in (0..).zip(&segments) {
            assert_eq!(read.get_segment(i), Some(&segment[..]), "{i} of {count}");
        }
        assert_eq!(read.get_segment(count), None);
        assert_eq!(read.get_segment(u32::MAX), None);
    }
}
