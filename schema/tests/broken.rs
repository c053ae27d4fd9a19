// SPDX-License-Identifier: MIT OR Apache-2.0

//! Each invariant of the format, broken alone, gives its own error, and names the inode.

use puzzlefs_schema::{Digest, Error, ErrorKind, Framing, Locator, Metadata, Part, MAX_FILE_SIZE};
use puzzlefs_test_support::*;

/// A small image in which everything is right.
fn good() -> Image {
    Image {
        layers: vec![vec![
            dir(1, &[("dev", 2), ("dir", 3), ("file", 4), ("link", 5)]),
            inode(2, Mode::Chr(4095, (1 << 20) - 1)),
            dir(3, &[]),
            Inode {
                nlink: 1,
                mtime: (-1, 999_999_999),
                size: 30,
                ..inode(4, Mode::File(vec![chunk(10), chunk(20)]))
            },
            Inode {
                target: b"to".to_vec(),
                xattrs: vec![(b"user.a".to_vec(), b"b".to_vec())],
                ..inode(5, Mode::Lnk)
            },
        ]],
        verity: vec![(vec![1; 32], vec![2; 32]), (vec![3; 32], vec![4; 32])],
        version: 3,
        data_size: 30,
    }
}

fn chunk(len: u64) -> Chunk {
    Chunk {
        len,
        ..Chunk::default()
    }
}

/// Reads everything, and stops at the first error.
fn read(metadata: Metadata<'_>) -> Result<(), Error> {
    metadata.check()?;
    metadata.check_order()?;
    for index in 0..metadata.verity_len()? {
        let (blob, verity) = metadata.verity_at(index)?;
        assert_eq!(metadata.verity(&blob)?, Some(verity));
    }
    for index in 0..metadata.layer_len(0)? {
        let inode = metadata.inode_at(Locator { layer: 0, index })?;
        inode.mtime()?;
        for xattr in inode.xattrs()? {
            let xattr = xattr?;
            assert_eq!(inode.xattrs()?.get(xattr.name)?, Some(xattr.value));
        }
        match inode.file_type() {
            puzzlefs_schema::FileType::File => {
                let extents = inode.extents()?;
                extents.index(&mut [])?;
                for item in extents.iter_from(0, 0) {
                    item?;
                }
            }
            puzzlefs_schema::FileType::Dir => {
                let parts = dir_parts(&metadata, inode.ino())?;
                for entry in list(&metadata.dir(&parts)?)? {
                    metadata.inode_at(entry.at)?;
                }
            }
            puzzlefs_schema::FileType::Symlink => {
                inode.symlink_target()?;
            }
            _ => (),
        }
    }
    Ok(())
}

/// Returns the error of reading an image after a change.
fn broken(change: impl FnOnce(&mut Image)) -> Option<(ErrorKind, Option<u64>)> {
    let mut image = good();
    change(&mut image);
    open(&image.build(None), read)
        .err()
        .map(|e| (e.kind(), e.ino()))
}

fn set_mode(ino: usize, mode: Mode) -> impl FnOnce(&mut Image) {
    move |image| image.layers[0][ino - 1].mode = mode
}

fn set_name(name: &[u8]) -> impl FnOnce(&mut Image) {
    let name = name.to_vec();
    move |image| match &mut image.layers[0][0].mode {
        Mode::Dir { entries, .. } => entries[3].0 = name,
        _ => unreachable!(),
    }
}

fn set_chunk(change: impl FnOnce(&mut Chunk)) -> impl FnOnce(&mut Image) {
    move |image| match &mut image.layers[0][3].mode {
        Mode::File(chunks) => change(&mut chunks[1]),
        _ => unreachable!(),
    }
}

fn set_xattr(name: &[u8], value: &[u8]) -> impl FnOnce(&mut Image) {
    let xattr = (name.to_vec(), value.to_vec());
    move |image| image.layers[0][4].xattrs[0] = xattr
}

#[test]
fn the_good_image_is_good() {
    assert_eq!(broken(|_| ()), None);
}

#[test]
fn the_image() {
    let is = |kind| Some((kind, None));
    assert_eq!(broken(|i| i.version = 2), is(ErrorKind::Version(2)));
    assert_eq!(broken(|i| i.version = 4), is(ErrorKind::Version(4)));
    assert_eq!(broken(|i| i.layers.clear()), is(ErrorKind::NoLayers));
    assert_eq!(
        broken(|i| i.layers = vec![i.layers[0].clone(); 257]),
        is(ErrorKind::TooManyLayers)
    );
    assert_eq!(
        broken(|i| i.data_size = MAX_FILE_SIZE + 1),
        is(ErrorKind::DataSize)
    );
    assert_eq!(
        broken(|i| drop(i.layers[0].remove(0))),
        is(ErrorKind::NoRoot)
    );
    assert_eq!(broken(set_mode(1, Mode::Wht)), is(ErrorKind::NoRoot));
    assert_eq!(
        broken(set_mode(1, Mode::Sock)),
        is(ErrorKind::RootNotADirectory)
    );
    assert_eq!(broken(|i| i.verity.swap(0, 1)), is(ErrorKind::VerityOrder));
    assert_eq!(
        broken(|i| i.verity[1] = i.verity[0].clone()),
        is(ErrorKind::VerityOrder)
    );
    for len in [0, 31, 33] {
        assert_eq!(
            broken(|i| i.verity[0].0 = vec![0; len]),
            is(ErrorKind::DigestLength)
        );
        assert_eq!(
            broken(|i| i.verity[0].1 = vec![0; len]),
            is(ErrorKind::DigestLength)
        );
    }
    assert_eq!(
        broken(|i| i.layers[0].swap(1, 2)),
        Some((ErrorKind::InodeOrder, Some(2)))
    );
    assert_eq!(
        broken(|i| i.layers[0][2].ino = 2),
        Some((ErrorKind::InodeOrder, Some(2)))
    );
}

#[test]
fn inodes() {
    assert_eq!(
        broken(|i| {
            let zero = inode(0, Mode::Fifo);
            i.layers[0].insert(0, zero);
        }),
        Some((ErrorKind::InodeNumber, None))
    );
    let is = |kind| Some((kind, Some(2)));
    for mode in [
        Mode::Chr(4096, 0),
        Mode::Chr(0, 1 << 20),
        Mode::Blk(4096, 0),
        Mode::Blk(1 << 32, 0),
        Mode::Blk(0, 1 << 20),
        Mode::Blk(0, u64::MAX),
    ] {
        assert_eq!(broken(set_mode(2, mode)), is(ErrorKind::DeviceNumber));
    }
    assert_eq!(broken(|i| i.layers[0][1].permissions = 0o7777), None);
    assert_eq!(
        broken(|i| i.layers[0][1].permissions = 0o10000),
        is(ErrorKind::Permissions)
    );
    assert_eq!(
        broken(|i| i.layers[0][3].mtime.1 = 1_000_000_000),
        Some((ErrorKind::Timestamp, Some(4)))
    );
    // Without a link count, the other extensions are not looked at.
    assert_eq!(
        broken(|i| {
            i.layers[0][3].mtime.1 = 1_000_000_000;
            i.layers[0][3].size = u64::MAX;
            i.layers[0][3].nlink = 0;
        }),
        None
    );
    for target in [&b""[..], b"a\0b", &[b'a'; 4096]] {
        assert_eq!(
            broken(|i| i.layers[0][4].target = target.to_vec()),
            Some((ErrorKind::SymlinkTarget, Some(5)))
        );
    }
    assert_eq!(broken(|i| i.layers[0][4].target = vec![b'a'; 4095]), None);
}

#[test]
fn a_kind_that_the_schema_does_not_have() {
    let mut image = good();
    image.layers[0].truncate(2);
    image.layers[0][0] = dir(1, &[("dev", 2)]);
    image.layers[0][1].mode = Mode::Wht;
    let mut bytes = image.build(None);
    // The number of the second inode and its tag, which becomes the first that is free.
    let inode = [2, 0, 0, 0, 0, 0, 0, 0, 8, 0];
    let mut windows = bytes.as_slice().windows(inode.len());
    let at = windows.position(|window| window == inode).unwrap();
    bytes.as_mut_slice()[at + 8] = 9;
    open(&bytes, |metadata| {
        let at = metadata.find(2).unwrap();
        let e = metadata.inode_at(at).unwrap_err();
        assert_eq!((e.kind(), e.ino()), (ErrorKind::UnknownKind, Some(2)));
        // It is listed all the same.
        let parts = dir_parts(&metadata, 1).unwrap();
        let listed = list(&metadata.dir(&parts).unwrap()).unwrap();
        assert_eq!(listed[0].file_type, puzzlefs_schema::FileType::Unknown);
    });
}

#[test]
fn files() {
    let is = |kind| Some((kind, Some(4)));
    assert_eq!(broken(set_chunk(|c| c.len = 0)), is(ErrorKind::EmptyChunk));
    assert_eq!(
        broken(set_chunk(|c| c.len = 21)),
        is(ErrorKind::SizeMismatch)
    );
    assert_eq!(
        broken(|i| i.layers[0][3].size = 29),
        is(ErrorKind::SizeMismatch)
    );
    assert_eq!(
        broken(|i| i.layers[0][3].size = MAX_FILE_SIZE + 1),
        is(ErrorKind::FileTooLarge)
    );
    for len in [MAX_FILE_SIZE - 9, MAX_FILE_SIZE, u64::MAX - 9, u64::MAX] {
        assert_eq!(
            broken(set_chunk(|c| c.len = len)),
            is(ErrorKind::FileTooLarge)
        );
    }
    let largest = |i: &mut Image| {
        i.layers[0][3].size = MAX_FILE_SIZE;
        set_chunk(|c| c.len = MAX_FILE_SIZE - 10)(i);
    };
    assert_eq!(broken(largest), None);
    assert_eq!(
        broken(set_chunk(|c| c.offset = u64::MAX - 19)),
        is(ErrorKind::BlobRange)
    );
    assert_eq!(broken(set_chunk(|c| c.offset = u64::MAX - 20)), None);
    for len in [0, 31, 33] {
        assert_eq!(
            broken(set_chunk(|c| c.digest = vec![0; len])),
            is(ErrorKind::DigestLength)
        );
    }
}

#[test]
fn directories() {
    let is = |kind| Some((kind, Some(1)));
    for name in [
        &b""[..],
        b".",
        b"..",
        b"/",
        b"a/b",
        b"a\0",
        b"\0",
        &[b'x'; 256],
    ] {
        assert_eq!(broken(set_name(name)), is(ErrorKind::Name));
    }
    for name in [&b"..."[..], b".x", b"\xff\x01", b"a", &[b'x'; 255]] {
        assert_eq!(broken(set_name(name)), None);
    }
    // In a row, and not.
    assert_eq!(broken(set_name(b"file")), is(ErrorKind::DuplicateName));
    assert_eq!(broken(set_name(b"dev")), is(ErrorKind::DuplicateName));
    // The error is about the inode that is missing; but 0 is no inode's number.
    for (ino, about) in [(0, 1), (6, 6), (u64::MAX, u64::MAX)] {
        assert_eq!(
            broken(|i| i.layers[0][0] = dir(1, &[("a", ino)])),
            Some((ErrorKind::DanglingEntry, Some(about)))
        );
    }
}

#[test]
fn another_version_may_have_anything_else() {
    let mut bytes = good().build(None);
    // After the segment table and the pointer to the root: the version, and behind the two words
    // of numbers the pointer to the layers, which becomes a capability.
    bytes.as_mut_slice()[16] = 4;
    bytes.as_mut_slice()[32..40].copy_from_slice(&[3, 0, 0, 0, 0, 0, 0, 0]);
    open(&bytes, |metadata| {
        let e = metadata.check().unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Version(4));
    });
}

#[test]
fn number_0_is_no_inodes() {
    let zero = vec![inode(0, Mode::Fifo), dir(1, &[("a", 0)])];
    open(&image(zero).build(None), |metadata| {
        let e = metadata.find(0).unwrap_err();
        assert_eq!((e.kind(), e.ino()), (ErrorKind::NotFound, None));
        let parts = dir_parts(&metadata, 1).unwrap();
        let e = metadata.dir(&parts).unwrap().lookup(b"a").unwrap_err();
        assert_eq!((e.kind(), e.ino()), (ErrorKind::DanglingEntry, Some(1)));
    });
}

#[test]
fn xattrs() {
    let is = |kind| Some((kind, Some(5)));
    let long = [&b"user."[..], &[b'x'; 250]].concat();
    let too_long = [&b"user."[..], &[b'x'; 251]].concat();
    for name in [
        &b""[..],
        b"user",
        b"user.",
        b".a",
        b".",
        b"user.a\0",
        &too_long,
    ] {
        assert_eq!(broken(set_xattr(name, b"")), is(ErrorKind::XattrName));
    }
    for name in [&b"user.a.b"[..], b"user..", b"system.x", &long] {
        assert_eq!(broken(set_xattr(name, b"")), None);
    }
    assert_eq!(broken(set_xattr(b"user.a", &[1; 65536])), None);
    assert_eq!(
        broken(set_xattr(b"user.a", &[1; 65537])),
        is(ErrorKind::XattrValue)
    );
}

#[test]
fn places_that_are_not_there() {
    let bytes = good().build(None);
    open(&bytes, |metadata| {
        for at in [
            Locator { layer: 0, index: 5 },
            Locator { layer: 1, index: 0 },
            Locator {
                layer: u32::MAX,
                index: u32::MAX,
            },
        ] {
            let e = metadata.inode_at(at).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::NoSuchPlace);
            let e = metadata.dir_at(at).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::NoSuchPlace);
        }
        assert_eq!(
            metadata.layer_len(1).unwrap_err().kind(),
            ErrorKind::NoSuchPlace
        );
        assert_eq!(
            metadata.verity_at(2).unwrap_err().kind(),
            ErrorKind::NoSuchPlace
        );
        let root = metadata.dir_at(metadata.find(1).unwrap()).unwrap();
        assert_eq!(root.entry(4).unwrap_err().kind(), ErrorKind::NoSuchPlace);
        assert_eq!(
            root.entry(usize::MAX).unwrap_err().kind(),
            ErrorKind::NoSuchPlace
        );
        for len in [0, 3, 5] {
            let e = root.sort_index(&mut vec![0; len]).unwrap_err();
            assert_eq!((e.kind(), e.ino()), (ErrorKind::IndexLength, Some(1)));
        }
        for (index, kind) in [
            (&[0u32, 1, 2][..], ErrorKind::IndexLength),
            (&[], ErrorKind::IndexLength),
            (&[9, 9, 9, 9], ErrorKind::NoSuchPlace),
        ] {
            let parts = [Part::new(&root, Some(index))];
            let dir = metadata.dir(&parts).unwrap();
            assert_eq!(dir.lookup(b"zzz").unwrap_err().kind(), kind);
        }
    });
}

/// Other bytes than the framing was made of.
#[test]
fn framing_of_other_bytes() {
    let bytes = good().build(None);
    let framing = Framing::parse(bytes.as_slice()).unwrap();
    let long = Bytes::new(&[bytes.as_slice(), &[0; 8]].concat());
    for other in [&[][..], &bytes.as_slice()[8..], long.as_slice()] {
        let metadata = Metadata::new(&framing, other);
        assert_eq!(metadata.check().unwrap_err().kind(), ErrorKind::OtherBytes);
        assert!(metadata.find(1).is_err());
    }
    let shifted = Bytes::new(&[&[0; 4], bytes.as_slice()].concat());
    let shifted = &shifted.as_slice()[4..];
    assert_eq!(
        Framing::parse(shifted).unwrap_err().kind(),
        ErrorKind::Misaligned
    );
    let metadata = Metadata::new(&framing, shifted);
    assert_eq!(metadata.check().unwrap_err().kind(), ErrorKind::Misaligned);
}

#[test]
fn errors_are_sentences() {
    let e = open(&good().build(None), |metadata| {
        metadata.find(9).unwrap_err()
    });
    assert_eq!(e.to_string(), "inode 9: there is no such inode");
    assert_eq!(e.kind().to_string(), "there is no such inode");
    let e = Digest::from_hex(b"").unwrap_err();
    assert_eq!(
        e.to_string(),
        "not a digest: 64 digits 0-9 and a-f are expected"
    );
    assert!(std::mem::size_of::<Error>() <= 24);
}
