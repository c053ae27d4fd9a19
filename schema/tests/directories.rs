// SPDX-License-Identifier: MIT OR Apache-2.0

//! Directories that are merged over layers are what a plain model says.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use puzzlefs_schema::{DirEntry, Error, ErrorKind, Metadata, Order, Part};
use puzzlefs_test_support::*;
use std::{collections::BTreeMap, ops::ControlFlow};

/// Numbers are few, so that layers meet.
const INODES: u64 = 8;

/// Names are few as well.
fn name() -> impl Strategy<Value = Vec<u8>> {
    vec(b'a'..=b'd', 1..3)
}

fn mode() -> impl Strategy<Value = Mode> {
    let entries = btree_map(name(), 1..=INODES + 1, 0..10)
        .prop_map(|entries| entries.into_iter().collect::<Vec<_>>())
        .prop_shuffle();
    let sorted = btree_map(name(), 1..=INODES, 0..10)
        .prop_map(|entries| entries.into_iter().collect::<Vec<_>>());
    prop_oneof![
        6 => (prop_oneof![entries, sorted], prop::bool::weighted(0.8)).prop_map(
            |(entries, look_below)| Mode::Dir { entries, look_below }
        ),
        1 => Just(Mode::Fifo),
        1 => Just(Mode::Wht),
    ]
}

fn image() -> impl Strategy<Value = Image> {
    let layer = btree_map(1..=INODES, mode(), 0..=INODES as usize).prop_map(|inodes| {
        inodes
            .into_iter()
            .map(|(ino, mode)| inode(ino, mode))
            .collect()
    });
    vec(layer, 1..7).prop_map(|layers| Image {
        layers,
        ..Image::default()
    })
}

/// All entries for an inode, in all layers.
fn entries_of(image: &Image, wanted: u64) -> Vec<(u64, Vec<u8>)> {
    let layers = image.layers.iter().flatten();
    layers
        .filter_map(|inode| match &inode.mode {
            Mode::Dir { entries, .. } => Some((inode.ino, entries)),
            _ => None,
        })
        .flat_map(|(dir, entries)| entries.iter().map(move |(name, ino)| (dir, name, *ino)))
        .filter(|(_, _, ino)| *ino == wanted)
        .map(|(dir, name, _)| (dir, name.clone()))
        .collect()
}

fn names(entries: &[DirEntry<'_>]) -> BTreeMap<Vec<u8>, u64> {
    let names: BTreeMap<_, _> = entries
        .iter()
        .map(|entry| (entry.name.to_vec(), entry.ino))
        .collect();
    assert_eq!(names.len(), entries.len(), "a name is listed twice");
    names
}

/// Compares a directory with the model.
fn compare(metadata: &Metadata<'_>, image: &Image, ino: u64) {
    let expected = match image.list(ino) {
        Ok(expected) => expected,
        Err(kind) => {
            assert_eq!(dir_parts(metadata, ino).unwrap_err().kind(), kind);
            return;
        }
    };
    let parts = dir_parts(metadata, ino).unwrap();
    let dir = metadata.dir(&parts).unwrap();

    for name in [&b"nothing"[..], b"", b"aaa", b"\xff"] {
        assert_eq!(dir.lookup(name), Ok(None));
    }
    for first in b'a'..=b'd' {
        for name in [vec![first], vec![first, b'a'], vec![first, b'd']] {
            match (dir.lookup(&name), expected.get(&name)) {
                (Ok(Some(entry)), Some(Ok(ino))) => {
                    assert_eq!((entry.name, entry.ino), (&name[..], *ino));
                    assert_eq!(metadata.find(*ino), Ok(entry.at));
                    let inode = metadata.inode_at(entry.at).unwrap();
                    assert_eq!(inode.file_type(), entry.file_type);
                }
                (Ok(None), None) => (),
                (Err(e), Some(Err(kind))) => assert_eq!(e.kind(), *kind),
                (read, model) => panic!("{name:?} is {read:?}, not {model:?}"),
            }
        }
    }

    let listed = list(&dir);
    if expected.values().any(Result::is_err) {
        assert_eq!(listed.unwrap_err().kind(), ErrorKind::DanglingEntry);
        return;
    }
    let listed = listed.unwrap();
    let expected: BTreeMap<_, _> = expected
        .into_iter()
        .map(|(name, ino)| (name, ino.unwrap()))
        .collect();
    assert_eq!(names(&listed), expected);

    // One by one, from each cursor, and as a lookup gives it, it is the same.
    let mut cursor = 0;
    let mut rest = &listed[..];
    while let Some(entry) = dir.next(cursor).unwrap() {
        assert_eq!(entry, rest[0]);
        assert!(entry.cursor > cursor && entry.cursor <= dir.len());
        assert_eq!(dir.lookup(entry.name), Ok(Some(entry)));
        cursor = entry.cursor;
        rest = &rest[1..];
    }
    assert!(rest.is_empty());
    for cursor in [dir.len(), dir.len() + 1, 1 << 32, u64::MAX] {
        assert_eq!(dir.next(cursor), Ok(None));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn merged_directories(image in image(), segment in prop_oneof![
        Just(None),
        (30..100u32).prop_map(Some),
    ]) {
        let bytes = image.build(segment);
        open(&bytes, |metadata| {
            for ino in 1..=INODES {
                compare(&metadata, &image, ino);

                let mut found = Vec::new();
                let ended = metadata.for_each_entry_of(ino, |entry| {
                    found.push((entry.dir, entry.name.to_vec()));
                    ControlFlow::<()>::Continue(())
                });
                assert_eq!(ended, Ok(ControlFlow::Continue(())));
                assert_eq!(found, entries_of(&image, ino));
            }
            let root = match image.find(1) {
                Ok((_, inode)) => match inode.mode {
                    Mode::Dir { .. } => Ok(()),
                    _ => Err(ErrorKind::RootNotADirectory),
                },
                Err(_) => Err(ErrorKind::NoRoot),
            };
            assert_eq!(metadata.check().map_err(|e| e.kind()), root);
        });
    }

    #[test]
    fn indexes(entries in btree_map(
            vec(any::<u8>().prop_filter("", |b| *b != 0 && *b != b'/'), 3..6), 2..3u64, 0..80)
        .prop_map(|entries| entries.into_iter().collect::<Vec<_>>())
        .prop_shuffle())
    {
        let mut root = dir(1, &[]);
        let sorted = entries.is_sorted();
        root.mode = Mode::Dir { entries: entries.clone(), look_below: false };
        let bytes = puzzlefs_test_support::image(vec![root, inode(2, Mode::Fifo)]).build(None);
        open(&bytes, |metadata| {
            let root = metadata.dir_at(metadata.find(1).unwrap()).unwrap();
            assert_eq!(root.order(), Ok(if sorted { Order::Sorted } else { Order::Unsorted }));
            let mut index = vec![u32::MAX; entries.len()];
            root.sort_index(&mut index).unwrap();
            let mut expected: Vec<_> = (0..entries.len() as u32).collect();
            expected.sort_by_key(|i| &entries[*i as usize].0);
            assert_eq!(index, expected);

            let parts = [Part::new(&root, Some(index))];
            let dir = metadata.dir(&parts).unwrap();
            for (place, (name, _)) in (1..).zip(&entries) {
                assert_eq!(dir.lookup(name).unwrap().unwrap().cursor, place);
            }
            // What stands in the metadata stays in its order.
            let listed = list(&dir).unwrap();
            assert!(listed.iter().map(|entry| entry.name).eq(entries.iter().map(|(name, _)| name)));
        });
    }
}

fn list_root(image: &Image) -> Result<Vec<String>, Error> {
    open(&image.build(None), |metadata| {
        metadata.check()?;
        let parts = dir_parts(&metadata, 1)?;
        let entries = list(&metadata.dir(&parts)?)?;
        Ok(entries
            .iter()
            .map(|entry| String::from_utf8(entry.name.to_vec()).unwrap())
            .collect())
    })
}

#[test]
fn whiteouts_hide() {
    let image = Image {
        layers: vec![
            vec![
                look_below(dir(1, &[("b", 3), ("d", 5)])),
                inode(3, Mode::Wht),
                inode(5, Mode::Sock),
            ],
            vec![
                dir(1, &[("a", 2), ("b", 3), ("c", 4)]),
                inode(2, Mode::Fifo),
                inode(3, Mode::Fifo),
                inode(4, Mode::Fifo),
            ],
        ],
        ..Image::default()
    };
    assert_eq!(list_root(&image).unwrap(), ["d", "a", "c"]);
}

#[test]
fn a_whiteout_and_then_the_inode_is_the_inode() {
    // So the reference builder writes it when one of several links goes.
    let image = image_of(vec![
        dir(1, &[("gone", 2), ("stays", 2)]),
        inode(2, Mode::Wht),
        inode(2, Mode::Fifo),
        inode(3, Mode::Fifo),
    ]);
    assert_eq!(list_root(&image).unwrap(), ["gone", "stays"]);
}

#[test]
fn merging_ends_where_the_lower_directory_was_replaced() {
    let lower = dir(1, &[("below", 2)]);
    for between in [inode(1, Mode::Wht), inode(1, Mode::Fifo)] {
        let image = Image {
            layers: vec![
                vec![look_below(dir(1, &[("above", 2)])), inode(2, Mode::Fifo)],
                vec![between],
                vec![lower.clone()],
            ],
            ..Image::default()
        };
        assert_eq!(list_root(&image).unwrap(), ["above"]);
    }
    // A layer that has nothing of the directory is passed over.
    let image = Image {
        layers: vec![
            vec![look_below(dir(1, &[("above", 2)])), inode(2, Mode::Fifo)],
            vec![inode(7, Mode::Fifo)],
            vec![lower],
        ],
        ..Image::default()
    };
    assert_eq!(list_root(&image).unwrap(), ["above", "below"]);
}

#[test]
fn as_many_layers_as_are_allowed() {
    let layers = (0..256)
        .map(|layer| {
            let name = format!("{layer:03}");
            vec![
                look_below(dir(1, &[(&name, 2), ("same", 2)])),
                inode(2, Mode::Fifo),
            ]
        })
        .collect();
    let mut image = Image {
        layers,
        ..Image::default()
    };
    let names = list_root(&image).unwrap();
    assert_eq!(names.len(), 257);
    image.layers.push(vec![dir(1, &[])]);
    assert_eq!(
        list_root(&image).unwrap_err().kind(),
        ErrorKind::TooManyLayers
    );
}

fn image_of(inodes: Vec<Inode>) -> Image {
    puzzlefs_test_support::image(inodes)
}

#[test]
fn what_takes_long_can_be_interrupted() {
    const ENTRIES: u64 = 3000;
    // Backwards: an index is needed.
    let entries = (0..ENTRIES).rev();
    let mut root = dir(1, &[]);
    root.mode = Mode::Dir {
        entries: entries
            .map(|n| (format!("{n:05}").into_bytes(), 2))
            .collect(),
        look_below: false,
    };
    let chunks = vec![Chunk::default(); ENTRIES as usize];
    let mut file = inode(2, Mode::File(chunks));
    file.xattrs = vec![(b"user.same".to_vec(), Vec::new()); ENTRIES as usize];
    let image = image_of(vec![root, file]);
    let everything = |metadata: Metadata<'_>, asked: Metadata<'_>| {
        let root = asked.dir_at(metadata.find(1).unwrap()).unwrap();
        let file = asked.inode_at(metadata.find(2).unwrap()).unwrap();
        let mut index = vec![0; ENTRIES as usize];
        let order = root.order().map(drop);
        let sorted = root.sort_index(&mut index);
        let parts = [Part::new(&root, Some(index))];
        let listed = asked
            .dir(&parts)
            .unwrap()
            .for_each(0, |_| ControlFlow::<()>::Continue(()));
        let xattrs = file.xattrs().unwrap();
        let named = asked.for_each_entry_of(7, |_| ControlFlow::<()>::Continue(()));
        [
            order,
            sorted,
            listed.map(drop),
            named.map(drop),
            file.extents().unwrap().index(&mut []).map(drop),
            xattrs.get(b"user.other").map(drop),
            xattrs.iter().try_for_each(|xattr| xattr.map(drop)),
        ]
    };
    open(&image.build(None), |metadata| {
        for result in everything(metadata, metadata.interruptible(|| false)) {
            assert_eq!(result.map_err(|e| e.kind()), Err(ErrorKind::Interrupted));
        }
        for result in everything(metadata, metadata.interruptible(|| true)) {
            assert_eq!(result, Ok(()));
        }
    });
}
