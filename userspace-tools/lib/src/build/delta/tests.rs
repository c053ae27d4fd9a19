// SPDX-License-Identifier: MIT OR Apache-2.0

//! Images of two layers, compared with images of the same tree that have one.

use super::*;
use crate::build::build_options::BuildOptions;
use crate::build::builder::{Input, Stack, Summary};
use crate::build::layout::Layout;
use crate::build::source::SourceData;
use crate::ingest::assembly::Assembly;
use crate::ingest::tar::{FileData, Member, MemberKind};
use crate::model::reference::Selector;
use crate::model::rules::Rules;
use crate::model::tree::{LeftOut, Piece, Time, Xattr};
use crate::store::staging::Staging;
use proptest::collection::btree_map;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use tempfile::TempDir;

/// The bytes that files are ranges of.
const POOL: u64 = 64 << 10;

/// An entry of a tree: its type, and what differs between versions of it.
#[derive(Clone, Debug)]
struct Spec {
    kind: SpecKind,
    permissions: u16,
    uid: u32,
    mtime: Time,
    xattrs: Vec<Xattr>,
}

#[derive(Clone, Debug)]
enum SpecKind {
    Directory,
    /// A range of the pool.
    File(u64, u64),
    Symlink(u8),
    Device(u32),
    Fifo,
    /// Another name of an entry, if it is one that can have any.
    HardLink(String),
}

/// A tree by the paths of its entries.
type Specs = BTreeMap<String, Spec>;

/// Paths of few names, so that two trees share most of them.
fn paths() -> impl Strategy<Value = String> {
    proptest::collection::vec("[ab]", 1..4).prop_map(|names| names.join("/"))
}

fn specs() -> impl Strategy<Value = Specs> {
    let kind = prop_oneof![
        3 => Just(SpecKind::Directory),
        3 => (0..4u64, 0..5u64).prop_map(|(at, length)| SpecKind::File(at * 5000, length * 4000)),
        1 => (0..3u8).prop_map(SpecKind::Symlink),
        1 => (0..3u32).prop_map(SpecKind::Device),
        1 => Just(SpecKind::Fifo),
        2 => paths().prop_map(SpecKind::HardLink),
    ];
    let xattr = (0..2u8, 0..2u8);
    let xattr = xattr
        .prop_map(|(name, value)| (vec![b'u', b's', b'e', b'r', b'.', b'a' + name], vec![value]));
    let spec = (kind, 0..2u16, 0..2u32, 0..2i64, proptest::option::of(xattr));
    let spec = spec.prop_map(|(kind, permissions, uid, seconds, xattr)| Spec {
        kind,
        permissions: 0o640 + permissions,
        uid,
        mtime: Time {
            seconds,
            nanoseconds: 5,
        },
        xattrs: xattr.into_iter().collect(),
    });
    btree_map(paths(), spec, 0..12)
}

/// A change of one entry between two versions of a tree.
#[derive(Clone, Copy, Debug)]
enum Change {
    Keep,
    Remove,
    Permissions,
    Owner,
    Time,
    Xattrs,
    /// Other contents of the same size, or another target or device.
    Content,
    /// Another name of the first file.
    Link,
}

/// Versions of one tree, each made from the one before by changes, removals and additions.
fn versions(count: usize) -> impl Strategy<Value = Vec<Specs>> {
    use Change::{Content, Keep, Link, Owner, Permissions, Remove, Time, Xattrs};
    let others = [Remove, Permissions, Owner, Time, Xattrs, Content, Link];
    let change = prop_oneof![7 => Just(Keep), 5 => proptest::sample::select(others.to_vec())];
    let changes = proptest::collection::vec(change, 14);
    let additions = prop_oneof![2 => Just(Specs::new()), 1 => specs()];
    let steps = proptest::collection::vec((changes, additions), count - 1);
    (specs(), steps).prop_map(|(first, steps)| {
        let mut versions = vec![first];
        for (changes, additions) in steps {
            let mut next = additions;
            let last = &versions[versions.len() - 1];
            let file = last
                .iter()
                .find(|(_, spec)| matches!(spec.kind, SpecKind::File(..)));
            let file = file.map(|(path, _)| path.clone()).unwrap_or_default();
            for ((path, spec), change) in last.iter().zip(changes.iter().cycle()) {
                if let Some(spec) = changed(spec.clone(), *change, &file) {
                    next.insert(path.clone(), spec);
                }
            }
            versions.push(next);
        }
        versions
    })
}

fn changed(mut spec: Spec, change: Change, file: &str) -> Option<Spec> {
    match change {
        Change::Keep => {}
        Change::Remove => return None,
        Change::Permissions => spec.permissions ^= 0o111,
        Change::Owner => spec.uid += 1,
        Change::Time => spec.mtime.nanoseconds += 1,
        Change::Xattrs => spec.xattrs = vec![(b"user.changed".to_vec(), b"value".to_vec())],
        Change::Content => match &mut spec.kind {
            SpecKind::File(offset, _) => *offset = (*offset + 5000) % 20_000,
            SpecKind::Symlink(target) => *target += 1,
            SpecKind::Device(minor) => *minor += 1,
            _ => {}
        },
        Change::Link => spec.kind = SpecKind::HardLink(file.to_owned()),
    }
    Some(spec)
}

/// Makes a tree; entries that cannot be where they are, are left out.
fn tree(specs: &Specs) -> Tree {
    let mut assembly = Assembly::new();
    for (path, spec) in specs {
        let kind = match &spec.kind {
            SpecKind::Directory => MemberKind::Directory,
            &SpecKind::File(offset, length) => {
                let piece = Piece {
                    at: 0,
                    length,
                    offset,
                };
                MemberKind::File(FileData {
                    size: length,
                    pieces: if length > 0 { vec![piece] } else { vec![] },
                })
            }
            SpecKind::Symlink(target) => MemberKind::Symlink(vec![b'/', *target + b'a']),
            SpecKind::Device(minor) => MemberKind::CharDevice(1, *minor),
            SpecKind::Fifo => MemberKind::Fifo,
            SpecKind::HardLink(target) => MemberKind::HardLink(target.clone().into_bytes()),
        };
        let _ = assembly.insert(Member {
            path: path.clone().into_bytes(),
            kind,
            permissions: spec.permissions,
            uid: spec.uid,
            gid: 7,
            mtime: spec.mtime,
            xattrs: spec.xattrs.clone(),
        });
    }
    assembly.finish(&Rules::default())
}

/// A store, and the file that all contents are in.
struct Fixture {
    directory: TempDir,
    store: Store,
    options: BuildOptions,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let pool: Vec<u8> = (0..POOL)
            .map(|at| (at * at / 251 + at / 5000) as u8)
            .collect();
        let mut file = File::create(directory.path().join("pool")).unwrap();
        file.write_all(&pool).unwrap();
        Fixture {
            store: Store::create(&directory.path().join("store")).unwrap(),
            options: BuildOptions {
                layout: Layout::of_average(8 << 10),
                jobs: 2,
                ..BuildOptions::new("image")
            },
            directory,
        }
    }

    fn source(&self) -> Source {
        let file = File::open(self.directory.path().join("pool")).unwrap();
        Source {
            path: Path::new("pool").to_path_buf(),
            data: SourceData::Archive(file, None),
        }
    }

    /// Builds an image of trees, one layer for each.
    fn build(&self, tag: &str, trees: &[&Specs], base: Option<&str>) -> Summary {
        let options = BuildOptions {
            tag: tag.to_owned(),
            base: base.map(str::to_owned),
            ..self.options.clone()
        };
        let (progress, source) = (Progress::default(), self.source());
        let staging = Staging::new(&self.store).unwrap();
        let mut stack = Stack::new(&self.store, &staging, &options, &progress).unwrap();
        let (last, before) = trees.split_last().unwrap();
        for specs in before {
            stack.push(&source, tree(specs)).unwrap();
        }
        let input = Input::new(source, tree(last), LeftOut::default());
        stack.finish(input).unwrap()
    }

    fn reader(&self, tag: &str) -> ImageReader<'_> {
        let image = self
            .store
            .image_root(&Selector::Tag(tag.to_owned()))
            .unwrap();
        ImageReader::new(&self.store, &image).unwrap()
    }

    /// Lists everything of an image but the numbers of inodes, of which only the equal ones count.
    fn list(&self, tag: &str) -> Vec<(String, String)> {
        let reader = self.reader(tag);
        let mut list = vec![];
        let mut first_names = HashMap::new();
        let mut blobs = Blobs::default();
        let root = reader.metadata().find(ROOT_INO).unwrap();
        list.push((String::new(), self.describe(&reader, root, &mut blobs)));
        reader
            .visit(root, |path, entry| {
                let path = String::from_utf8(path.to_vec()).unwrap();
                let first = first_names.entry(entry.ino).or_insert_with(|| path.clone());
                let text = self.describe(&reader, entry.at, &mut blobs);
                list.push((path, format!("{first}: {text}")));
                Ok(())
            })
            .unwrap();
        list
    }

    fn describe(&self, reader: &ImageReader<'_>, at: Locator, blobs: &mut Blobs) -> String {
        let inode = reader.metadata().inode_at(at).unwrap();
        let mtime = inode.mtime().unwrap();
        let mut xattrs: Vec<_> = inode
            .xattrs()
            .unwrap()
            .iter()
            .map(|xattr| xattr.map(|xattr| (xattr.name.to_vec(), xattr.value.to_vec())))
            .collect::<Result<_, _>>()
            .unwrap();
        xattrs.sort_unstable();
        let content = match inode.kind() {
            schema::Kind::File => {
                let mut content = Vec::new();
                let give = |piece: &[u8]| {
                    content.extend_from_slice(piece);
                    Ok(())
                };
                reader.read_file(at, blobs, give).unwrap();
                assert_eq!(reader.file_size(&inode).unwrap(), content.len() as u64);
                crate::model::digest::Digest::of(&content).to_hex()
            }
            schema::Kind::Symlink => inode.symlink_target().unwrap().escape_ascii().to_string(),
            kind => format!("{kind:?}"),
        };
        format!(
            "{:?} {:o} {} {} {:?} {}.{} {xattrs:?} {content}",
            inode.file_type(),
            inode.permissions(),
            inode.uid(),
            inode.gid(),
            inode.nlink(),
            mtime.seconds,
            mtime.nanoseconds,
        )
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// Layers, whether built at once or on the image of a tag, read as the last tree.
    #[test]
    fn layers_read_as_the_last_tree(versions in versions(3)) {
        let [first, second, third] = &versions[..] else {
            unreachable!()
        };
        let fixture = Fixture::new();
        fixture.build("one", &[third], None);
        fixture.build("three", &[first, second, third], None);
        fixture.build("base", &[first, second], None);
        fixture.build("on base", &[third], Some("base"));
        let wanted = fixture.list("one");
        prop_assert_eq!(&fixture.list("three"), &wanted);
        prop_assert_eq!(&fixture.list("on base"), &wanted);
        prop_assert_eq!(fixture.reader("three").metadata().layers().unwrap(), 3);
    }

    /// The layer of a tree that has not changed is empty.
    #[test]
    fn the_same_tree_is_an_empty_layer(specs in specs()) {
        let fixture = Fixture::new();
        let first = fixture.build("base", &[&specs], None);
        let second = fixture.build("same", &[&specs], Some("base"));
        let reader = fixture.reader("same");
        prop_assert_eq!(reader.metadata().layers().unwrap(), 2);
        prop_assert_eq!(reader.metadata().layer_len(0).unwrap(), 0);
        prop_assert_eq!((second.new.blobs, second.chunks), (0, 0));
        prop_assert_eq!(first.inodes, second.inodes);
    }
}
