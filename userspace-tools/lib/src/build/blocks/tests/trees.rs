// SPDX-License-Identifier: MIT OR Apache-2.0

//! Makes trees.

use super::image::File;
use super::*;
use crate::build::blocks::records;
use crate::model::tree::{Entry, FileState, Node, Origin, Tree, Xattr};
use proptest::collection::vec;
use puzzlefs_schema::v4::MAX_CHUNK_CONTENT;
use std::collections::BTreeMap;

/// Returns a chunk of the largest size, for a number.
pub(super) fn chunk(number: u32) -> ChunkRef {
    let digest = Digest::of(&number.to_le_bytes());
    ChunkRef::new(digest.into(), 1000, MAX_CHUNK_CONTENT).unwrap()
}

/// The length of an extent, and its chunk with the offset there, or none for a hole.
pub(super) type Extent = (u64, Option<(ChunkRef, u32)>);

/// A tree in the making, and the extents of its files.
pub(super) struct TreeBuilder {
    pub tree: Tree,
    pub extents: Vec<Vec<FileExtent>>,
}

/// An inode of a random tree.
#[derive(Clone, Debug)]
pub(super) struct Seed {
    /// Chooses the directory, and the target of a hard link.
    parent: usize,
    name: Vec<u8>,
    kind: SeedKind,
    permissions: u16,
    uid: u32,
    time: (i64, u32),
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

#[derive(Clone, Debug)]
enum SeedKind {
    Directory,
    File(Vec<Extent>),
    HardLink,
    Other(Kind),
}

/// Random trees.
pub(super) fn seeds() -> impl Strategy<Value = Vec<Seed>> {
    vec(seed(), 0..200)
}

fn seed() -> impl Strategy<Value = Seed> {
    let name = prop_oneof![
        4 => vec(b'a'..b'd', 1..4),
        1 => vec(prop_oneof![1u8..b'.', 128u8..=255], 1..=255),
    ];
    let value = prop_oneof![
        8 => vec(any::<u8>(), 0..4),
        1 => (1000usize..3000).prop_map(|size| vec![9; size]),
    ];
    let xattr_name = vec(b'a'..b'c', 1..3).prop_map(|name| [&b"user."[..], &name].concat());
    let xattrs = prop_oneof![
        3 => Just(BTreeMap::new()),
        1 => proptest::collection::btree_map(xattr_name, value, 0..3),
    ];
    let time = (any::<i64>(), 0u32..1_000_000_000);
    (
        any::<usize>(),
        name,
        kind(),
        0u16..=0o7777,
        any::<u32>(),
        time,
        xattrs,
    )
        .prop_map(
            |(parent, name, kind, permissions, uid, time, xattrs)| Seed {
                parent,
                name,
                kind,
                permissions,
                uid,
                time,
                xattrs,
            },
        )
}

fn kind() -> impl Strategy<Value = SeedKind> {
    let data = prop_oneof![
        3 => (0u32..30, 0u32..1000).prop_map(|(number, offset)| Some((chunk(number), offset))),
        1 => Just(None),
    ];
    let extents = prop_oneof![
        8 => vec((1u64..100_000, data.clone()), 0..5),
        1 => vec((1u64..100_000, data), 500..1000),
    ];
    prop_oneof![
        4 => Just(SeedKind::Directory),
        4 => extents.prop_map(SeedKind::File),
        2 => Just(SeedKind::HardLink),
        2 => vec(1u8.., 1..100).prop_map(|target| SeedKind::Other(Kind::Symlink(target))),
        1 => (0u32..1 << 12, 0u32..1 << 20)
            .prop_map(|(major, minor)| SeedKind::Other(Kind::CharDevice(major, minor))),
        1 => (0u32..1 << 12, 0u32..1 << 20)
            .prop_map(|(major, minor)| SeedKind::Other(Kind::BlockDevice(major, minor))),
        1 => Just(SeedKind::Other(Kind::Fifo)),
        1 => Just(SeedKind::Other(Kind::Socket)),
    ]
}

impl TreeBuilder {
    /// A tree with an empty root.
    pub fn new() -> Self {
        let mut builder = TreeBuilder {
            tree: Tree::default(),
            extents: Vec::new(),
        };
        builder.node(Kind::Directory(Vec::new()), (0, 0));
        builder
    }

    /// Makes a random tree.
    pub fn from_seeds(seeds: &[Seed]) -> Self {
        let mut builder = TreeBuilder::new();
        for seed in seeds {
            builder.plant(seed);
        }
        builder.finish();
        builder
    }

    fn plant(&mut self, seed: &Seed) {
        let nodes = self.tree.nodes.iter().zip(0..);
        let (directories, others): (Vec<_>, Vec<_>) =
            nodes.partition(|(node, _)| matches!(node.kind, Kind::Directory(_)));
        let parent = directories[seed.parent % directories.len()];
        let Kind::Directory(entries) = &parent.0.kind else {
            return;
        };
        if entries.iter().any(|entry| *entry.name == *seed.name) {
            return;
        }
        let parent = parent.1;
        let others: Vec<NodeId> = others.iter().map(|(_, id)| *id).collect();
        let node = match &seed.kind {
            SeedKind::HardLink if others.is_empty() => return,
            SeedKind::HardLink => {
                let node = others[seed.parent % others.len()];
                return self.entry(parent, &seed.name, node);
            }
            SeedKind::Directory => self.directory(parent, &seed.name),
            SeedKind::File(extents) => self.file(parent, &seed.name, extents),
            SeedKind::Other(kind) => {
                let node = self.node(kind.clone(), (parent, 0));
                self.entry(parent, &seed.name, node);
                node
            }
        };
        let node = &mut self.tree.nodes[node as usize];
        node.permissions = seed.permissions;
        (node.uid, node.gid) = (seed.uid, !seed.uid);
        (node.mtime.seconds, node.mtime.nanoseconds) = seed.time;
        node.xattrs = seed.xattrs.clone().into_iter().collect();
    }

    fn node(&mut self, kind: Kind, first_name: (NodeId, u32)) -> NodeId {
        self.tree.nodes.push(Node {
            kind,
            permissions: 0o755,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
            nlink: 1,
            xattrs: Vec::new(),
            first_name,
        });
        self.extents.push(Vec::new());
        self.tree.nodes.len() as NodeId - 1
    }

    fn entry(&mut self, directory: NodeId, name: &[u8], node: NodeId) {
        let Kind::Directory(entries) = &mut self.tree.nodes[directory as usize].kind else {
            panic!("not a directory");
        };
        entries.push(Entry {
            name: name.into(),
            node,
        });
    }

    pub fn directory(&mut self, parent: NodeId, name: &[u8]) -> NodeId {
        let node = self.node(Kind::Directory(Vec::new()), (parent, 0));
        self.entry(parent, name, node);
        node
    }

    pub fn file(&mut self, parent: NodeId, name: &[u8], extents: &[Extent]) -> NodeId {
        let mut size = 0;
        let mut made = Vec::new();
        for (length, data) in extents {
            made.push(FileExtent {
                offset: size,
                data: match *data {
                    None => ExtentData::Hole,
                    Some((chunk, offset)) => ExtentData::Chunk { chunk, offset },
                },
            });
            size += length;
        }
        let origin = Origin::Archive(Box::default());
        let node = self.node(Kind::File(FileState { size, origin }), (parent, 0));
        self.extents[node as usize] = made;
        self.entry(parent, name, node);
        node
    }

    /// Sorts the directories, and sets the first names and the link counts.
    pub fn finish(&mut self) {
        let mut names = Vec::new();
        for (directory, node) in (0..).zip(&mut self.tree.nodes) {
            node.nlink = 0;
            let Kind::Directory(entries) = &mut node.kind else {
                continue;
            };
            entries.sort_by(|a, b| a.name.cmp(&b.name));
            names.extend(
                (0..)
                    .zip(entries)
                    .map(|(at, entry)| (entry.node, (directory, at))),
            );
        }
        for (node, place) in names {
            let node = &mut self.tree.nodes[node as usize];
            node.nlink += 1;
            node.first_name = place;
        }
        for node in &mut self.tree.nodes {
            if let Kind::Directory(_) = node.kind {
                node.nlink = 2;
            }
        }
    }

    /// Returns the same tree with other numbers of the nodes, the root's excepted.
    pub fn shuffled(&self, seed: u64) -> Self {
        let key = |id: NodeId| (id != 0, Digest::of(&(u64::from(id) ^ seed).to_le_bytes()));
        let mut order: Vec<NodeId> = (0..self.tree.nodes.len() as NodeId).collect();
        order.sort_by_key(|id| key(*id));
        let mut numbers = vec![0; order.len()];
        for (number, id) in (0..).zip(&order) {
            numbers[*id as usize] = number;
        }
        let mut shuffled = TreeBuilder {
            tree: Tree::default(),
            extents: Vec::new(),
        };
        for id in order {
            let old = &self.tree.nodes[id as usize];
            let mut kind = old.kind.clone();
            if let Kind::Directory(entries) = &mut kind {
                for entry in entries {
                    entry.node = numbers[entry.node as usize];
                }
            }
            let node = shuffled.node(kind, old.first_name) as usize;
            let node = &mut shuffled.tree.nodes[node];
            (node.permissions, node.mtime) = (old.permissions, old.mtime);
            (node.uid, node.gid, node.xattrs) = (old.uid, old.gid, old.xattrs.clone());
        }
        for (number, extents) in numbers.iter().zip(&self.extents) {
            shuffled.extents[*number as usize] = extents.clone();
        }
        shuffled.finish();
        shuffled
    }

    /// Returns everything about the tree by path.
    pub fn files(&self) -> BTreeMap<Vec<u8>, File> {
        let mut files = BTreeMap::new();
        let mut first: BTreeMap<NodeId, Vec<u8>> = BTreeMap::new();
        let mut pending = vec![(Vec::new(), 0)];
        while let Some((path, id)) = pending.pop() {
            let node = &self.tree.nodes[id as usize];
            // Of the names of an inode, the last one in the order of the walk.
            let other = first.insert(id, path.clone()).unwrap_or_default();
            let (mut data, mut device, mut target) = (Vec::new(), 0, Vec::new());
            match &node.kind {
                Kind::Directory(entries) => {
                    let paths = entries
                        .iter()
                        .map(|entry| ([&*path, b"/", &entry.name].concat(), entry.node));
                    pending.extend(paths);
                }
                Kind::File(_) => data.clone_from(&self.extents[id as usize]),
                Kind::CharDevice(major, minor) | Kind::BlockDevice(major, minor) => {
                    device = (major << 20) | minor;
                }
                Kind::Symlink(link) => target.clone_from(link),
                Kind::Fifo | Kind::Socket => {}
            }
            let kind = u16::from(records::inode_type(node).code());
            let xattrs: Vec<Xattr> = node.xattrs.clone();
            let file = File {
                mode: (kind << 12) | node.permissions,
                nlink: node.nlink,
                owner: (node.uid, node.gid),
                mtime: (node.mtime.seconds, node.mtime.nanoseconds),
                size: match &node.kind {
                    Kind::File(state) => state.size,
                    _ => 0,
                },
                device,
                target,
                extents: data,
                xattrs,
                other,
            };
            files.insert(path, file);
        }
        files
    }
}
