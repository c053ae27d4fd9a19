// SPDX-License-Identifier: MIT OR Apache-2.0

//! Images that are built are read back equal.

use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use puzzlefs_schema::{Digest, ErrorKind, Kind, Metadata, Timestamp};
use puzzlefs_test_support::*;

fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => vec(any::<u8>(), 1..12),
        1 => vec(any::<u8>(), 250..=255),
    ]
    .prop_map(|mut name| {
        for byte in &mut name {
            if *byte == 0 || *byte == b'/' {
                *byte = b'x';
            }
        }
        if name == b"." || name == b".." {
            name.push(b'x');
        }
        name
    })
}

fn xattr() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    (
        prop_oneof![Just("user."), Just("trusted."), Just("security.")],
        vec(1..=255u8, 1..20),
        vec(any::<u8>(), 0..40),
    )
        .prop_map(|(prefix, name, value)| ([prefix.as_bytes(), &name].concat(), value))
}

fn chunk() -> impl Strategy<Value = Chunk> {
    (
        any::<[u8; 32]>(),
        any::<u32>(),
        any::<bool>(),
        1..1u64 << 40,
    )
        .prop_map(|(digest, offset, compressed, len)| Chunk {
            digest: digest.to_vec(),
            offset: offset.into(),
            compressed,
            len,
        })
}

/// A mode, and the target where it is a symbolic link.
fn mode() -> impl Strategy<Value = (Mode, Vec<u8>)> {
    let plain = prop_oneof![
        Just(Mode::Fifo),
        Just(Mode::Sock),
        Just(Mode::Unknown),
        Just(Mode::Wht),
        (0..1u64 << 12, 0..1u64 << 20).prop_map(|(major, minor)| Mode::Chr(major, minor)),
        (0..1u64 << 12, 0..1u64 << 20).prop_map(|(major, minor)| Mode::Blk(major, minor)),
        vec(chunk(), 0..8).prop_map(Mode::File),
        (btree_map(name(), 1..30u64, 0..8), any::<bool>()).prop_map(|(entries, look_below)| {
            Mode::Dir {
                entries: entries.into_iter().collect(),
                look_below,
            }
        }),
    ];
    prop_oneof![
        8 => plain.prop_map(|mode| (mode, Vec::new())),
        1 => vec(1..=255u8, 1..300).prop_map(|target| (Mode::Lnk, target)),
    ]
}

prop_compose! {
    fn any_inode()(
        (mode, target) in mode(),
        uid in any::<u32>(),
        gid in any::<u32>(),
        permissions in 0..=0o7777u16,
        xattrs in vec(xattr(), 0..4),
        mtime in (any::<i64>(), 0..1_000_000_000u32),
        nlink in prop_oneof![Just(0), any::<u32>()],
    ) -> Inode {
        let size = match &mode {
            Mode::File(chunks) => chunks.iter().map(|chunk| chunk.len).sum(),
            _ => 0,
        };
        Inode { ino: 0, mode, uid, gid, permissions, xattrs, target, mtime, size, nlink }
    }
}

/// A layer, its inodes numbered without gaps or with some.
fn layer() -> impl Strategy<Value = Vec<Inode>> {
    let numbers = prop_oneof![
        (1..20u64, 0..20u64).prop_map(|(first, len)| (first..first + len).collect()),
        btree_set(1..30u64, 0..20),
        btree_set(1..=u64::MAX, 0..20),
    ];
    numbers.prop_flat_map(|numbers| {
        vec(any_inode(), numbers.len()).prop_map(move |mut inodes| {
            for (inode, ino) in inodes.iter_mut().zip(&numbers) {
                inode.ino = *ino;
            }
            inodes
        })
    })
}

prop_compose! {
    fn any_image()(
        layers in vec(layer(), 0..5),
        verity in btree_map(any::<[u8; 32]>(), any::<[u8; 32]>(), 0..20),
        data_size in 0..=i64::MAX as u64,
    ) -> Image {
        Image {
            layers,
            verity: verity.into_iter().map(|(k, v)| (k.to_vec(), v.to_vec())).collect(),
            version: 3,
            data_size,
        }
    }
}

fn compare_inode(metadata: &Metadata<'_>, model: &Inode, read: puzzlefs_schema::Inode<'_>) {
    assert_eq!(read.ino(), model.ino);
    assert_eq!(read.uid(), model.uid);
    assert_eq!(read.gid(), model.gid);
    assert_eq!(read.permissions(), model.permissions);
    assert_eq!(read.file_type(), model.file_type());
    let extension = model.nlink != 0;
    assert_eq!(read.nlink(), extension.then_some(model.nlink));
    let mtime = match extension {
        true => Timestamp {
            seconds: model.mtime.0,
            nanoseconds: model.mtime.1,
        },
        false => Timestamp::default(),
    };
    assert_eq!(read.mtime(), Ok(mtime));
    compare_xattrs(model, &read);
    compare_kind(model, &read);
    compare_file(model, &read);
    compare_dir(metadata, model, &read);
}

fn compare_xattrs(model: &Inode, read: &puzzlefs_schema::Inode<'_>) {
    let xattrs = read.xattrs().unwrap();
    let got: Vec<_> = xattrs
        .iter()
        .map(|xattr| xattr.map(|xattr| (xattr.name.to_vec(), xattr.value.to_vec())))
        .collect::<Result<_, _>>()
        .unwrap();
    assert_eq!(got, model.xattrs);
    assert_eq!(xattrs.len(), model.xattrs.len());
    assert_eq!(read.has_xattrs(), Ok(!model.xattrs.is_empty()));
    for (name, _) in &model.xattrs {
        let first = model.xattrs.iter().find(|(other, _)| other == name);
        assert_eq!(
            xattrs.get(name).unwrap().map(<[u8]>::to_vec),
            first.map(|(_, value)| value.clone())
        );
    }
    assert_eq!(xattrs.get(b"user."), Ok(None));
}

fn compare_kind(model: &Inode, read: &puzzlefs_schema::Inode<'_>) {
    match &model.mode {
        Mode::Chr(major, minor) => assert_eq!(
            read.kind(),
            Kind::Chr {
                major: *major as u32,
                minor: *minor as u32
            }
        ),
        Mode::Blk(major, minor) => assert_eq!(
            read.kind(),
            Kind::Blk {
                major: *major as u32,
                minor: *minor as u32
            }
        ),
        Mode::Lnk => assert_eq!(read.symlink_target().unwrap(), model.target),
        _ => assert_eq!(
            read.symlink_target().unwrap_err().kind(),
            ErrorKind::NotASymlink
        ),
    }
}

fn compare_file(model: &Inode, read: &puzzlefs_schema::Inode<'_>) {
    let Mode::File(chunks) = &model.mode else {
        assert_eq!(read.extents().unwrap_err().kind(), ErrorKind::NotAFile);
        assert_eq!(read.declared_size(), Ok(None));
        return;
    };
    let extents = read.extents().unwrap();
    assert_eq!(extents.len(), chunks.len());
    assert_eq!(extents.index(&mut []), Ok(model.size));
    let declared = (model.nlink != 0).then_some(model.size);
    assert_eq!(read.declared_size(), Ok(declared));
    let mut start = 0;
    let mut read = extents.iter_from(0, 0);
    for (index, chunk) in chunks.iter().enumerate() {
        let expected = puzzlefs_schema::Chunk {
            blob: Digest::from_slice(&chunk.digest).unwrap(),
            blob_offset: chunk.offset,
            len: chunk.len,
            compressed: chunk.compressed,
        };
        assert_eq!(extents.get(index), Ok(expected));
        assert_eq!(read.next(), Some(Ok((start, expected))));
        start += chunk.len;
    }
    assert_eq!(read.next(), None);
    assert_eq!(
        extents.get(chunks.len()).unwrap_err().kind(),
        ErrorKind::NoSuchPlace
    );
}

fn compare_dir(metadata: &Metadata<'_>, model: &Inode, read: &puzzlefs_schema::Inode<'_>) {
    let Mode::Dir { entries, .. } = &model.mode else {
        let e = metadata.dir_at(read.locator()).unwrap_err();
        assert_eq!(
            (e.kind(), e.ino()),
            (ErrorKind::NotADirectory, Some(model.ino))
        );
        return;
    };
    let dir = read.dir().unwrap();
    assert_eq!((dir.ino(), dir.len()), (model.ino, entries.len()));
    for (index, (name, ino)) in entries.iter().enumerate() {
        let entry = dir.entry(index).unwrap();
        assert_eq!((entry.name, entry.ino), (&name[..], *ino));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn reads_what_was_built(image in any_image(), segment in prop_oneof![
        Just(None),
        (40..400u32).prop_map(Some),
    ]) {
        let bytes = image.build(segment);
        open(&bytes, |metadata| {
            assert_eq!(metadata.layers(), Ok(image.layers.len() as u32));
            assert_eq!(metadata.data_size(), Ok(image.data_size));
            assert_eq!(
                metadata.inode_count(),
                Ok(image.layers.iter().map(|layer| layer.len() as u64).sum())
            );
            metadata.check_order().unwrap();
            for (layer, inodes) in (0..).zip(&image.layers) {
                assert_eq!(metadata.layer_len(layer), Ok(inodes.len() as u32));
                for (index, inode) in (0..).zip(inodes) {
                    let at = puzzlefs_schema::Locator { layer, index };
                    compare_inode(&metadata, inode, metadata.inode_at(at).unwrap());
                }
            }
            let numbers = image.layers.iter().flatten().map(|inode| inode.ino);
            for ino in numbers.flat_map(|ino| [ino, ino - 1, ino.saturating_add(1)]).chain(0..40) {
                match image.find(ino) {
                    Ok((layer, inode)) => {
                        let at = metadata.find(ino).unwrap();
                        assert_eq!(at.layer, layer as u32);
                        compare_inode(&metadata, inode, metadata.inode_at(at).unwrap());
                    }
                    Err(kind) => {
                        let e = metadata.find(ino).unwrap_err();
                        assert_eq!(e.kind(), kind);
                        assert_eq!(e.ino(), (ino != 0).then_some(ino));
                    }
                }
            }
            assert_eq!(metadata.verity_len(), Ok(image.verity.len() as u32));
            for (index, (blob, verity)) in (0..).zip(&image.verity) {
                let blob = Digest::from_slice(blob).unwrap();
                let verity = Digest::from_slice(verity).unwrap();
                assert_eq!(metadata.verity(&blob), Ok(Some(verity)));
                assert_eq!(metadata.verity_at(index), Ok((blob, verity)));
                let mut other = *blob.as_bytes();
                other[31] ^= 1;
                assert_eq!(metadata.verity(&Digest::new(other)), Ok(None));
            }
        });
    }

    #[test]
    fn hex_digests(bytes in any::<[u8; 32]>()) {
        let digest = Digest::new(bytes);
        let hex = digest.to_string();
        assert_eq!(hex.as_bytes(), digest.to_hex());
        for (byte, pair) in bytes.iter().zip(hex.as_bytes().chunks(2)) {
            assert_eq!(format!("{byte:02x}").as_bytes(), pair);
        }
        assert_eq!(Digest::from_hex(hex.as_bytes()), Ok(digest));
    }
}

#[test]
fn other_spellings_of_digests_are_refused() {
    let hex = Digest::new([0xae; 32]).to_string();
    for other in [
        hex.to_uppercase(),
        hex[1..].to_owned(),
        format!("{hex}0"),
        hex.replacen('a', "g", 1),
        hex.replacen('a', "/", 1),
        hex.replacen('a', ":", 1),
        hex.replacen('a', "`", 1),
        String::new(),
    ] {
        let e = Digest::from_hex(other.as_bytes()).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::HexDigest);
    }
}
