// SPDX-License-Identifier: MIT OR Apache-2.0

//! Writes images of format 4 for tests: every chunk of an image in one pack, or in loose chunks.

use crate::build::blocks::extent::ExtentData;
use crate::build::blocks::{encode, FileExtent};
use crate::model::chunk::ChunkEncoder;
use crate::model::digest::Digest;
use crate::model::oci::{self, Descriptor, Manifest};
use crate::model::tree::{Entry, FileState, Kind, Node, NodeId, Origin, Time, Tree};
use crate::store::chunks::tests::write_pack;
use crate::store::chunks::update::add_packs;
use crate::store::oci_layout::Store;
use puzzlefs_schema::v4::ChunkRef;
use std::collections::BTreeMap;
use std::fs;

/// An image in a store.
pub(crate) struct TestImage {
    pub manifest: Digest,
    pub config: Digest,
    pub root: Digest,
    pub pack: Digest,
    /// The digests of the metadata chunks, including the root, in order of position.
    pub metadata: Vec<Digest>,
    /// The digests of the data chunks.
    pub data: Vec<Digest>,
    /// The stored bytes of all chunks.
    pub chunks: BTreeMap<Digest, Vec<u8>>,
}

/// The content of a file.
fn content(file: &str) -> Vec<u8> {
    let mut content = format!("the content of {file} ").into_bytes();
    while content.len() < 3000 {
        content.extend(Digest::of(&content).as_bytes());
    }
    content
}

fn node(kind: Kind, first_name: (NodeId, u32)) -> Node {
    Node {
        nlink: if matches!(kind, Kind::Directory(_)) {
            2
        } else {
            1
        },
        kind,
        permissions: 0o755,
        uid: 0,
        gid: 0,
        mtime: Time::default(),
        xattrs: Vec::new(),
        first_name,
    }
}

/// Writes an image of files with these names, each of one chunk, and of one file of many extents. The
/// name of a file decides its content. Sets the tag.
pub(crate) fn write_image(store: &Store, tag: &str, files: &[String]) -> TestImage {
    let mut tree = Tree::default();
    let mut extents: Vec<Vec<FileExtent>> = vec![Vec::new()];
    tree.nodes.push(node(Kind::Directory(Vec::new()), (0, 0)));
    let mut entries = Vec::new();
    let mut data = Vec::new();
    let mut stored = BTreeMap::new();
    let mut sorted = files.to_vec();
    sorted.sort();
    for (at, name) in sorted.iter().enumerate() {
        let bytes = content(name);
        let len = bytes.len() as u32;
        let digest = Digest::of(&bytes);
        let chunk = ChunkRef::new(digest.into(), len, len).unwrap();
        let extent = |offset, chunk| FileExtent {
            offset,
            data: ExtentData::Chunk { chunk, offset: 0 },
        };
        // The first one is long enough for list blocks.
        let count = if at == 0 { 6000 } else { 1 };
        let all = (0..count).map(|number| extent(u64::from(len) * number, chunk));
        extents.push(all.collect());
        let state = FileState {
            size: u64::from(len) * count,
            origin: Origin::Archive(Box::default()),
        };
        let id = tree.nodes.len() as NodeId;
        tree.nodes.push(node(Kind::File(state), (0, at as u32)));
        entries.push(Entry {
            name: name.as_bytes().into(),
            node: id,
        });
        data.push(digest);
        stored.insert(digest, bytes);
    }
    tree.nodes[0].kind = Kind::Directory(entries);
    let encoded = encode(&tree, &extents, &[], &ChunkEncoder::new(Some(3)), 1).unwrap();
    let root = Digest::from(*encoded.root.chunk.digest());
    let mut metadata = Vec::new();
    for chunk in [encoded.root].into_iter().chain(encoded.chunks) {
        let digest = Digest::from(*chunk.chunk.digest());
        if stored.insert(digest, chunk.stored).is_none() {
            metadata.push(digest);
        }
    }
    let order: Vec<Vec<u8>> = metadata
        .iter()
        .chain(&data)
        .map(|digest| stored[digest].clone())
        .collect();
    let pack = write_pack(store, &order);
    let pack_digest = pack.digest;
    add_packs(store, &[pack]).unwrap();
    let (manifest, config) = write_manifest(store, tag, &root, &[pack_digest]);
    TestImage {
        manifest,
        config,
        root,
        pack: pack_digest,
        metadata,
        data,
        chunks: stored,
    }
}

/// Writes the manifest of an image, and sets the tag. Returns the digests of manifest and configuration.
pub(crate) fn write_manifest(
    store: &Store,
    tag: &str,
    root: &Digest,
    packs: &[Digest],
) -> (Digest, Digest) {
    let put = |bytes: &[u8]| {
        let digest = Digest::of(bytes);
        fs::write(store.blob_path(&digest), bytes).unwrap();
        (digest, bytes.len() as u64)
    };
    let diff_ids: Vec<String> = packs.iter().map(|pack| pack.to_oci()).collect();
    let config = serde_json::json!({
        "architecture": "amd64",
        "os": "linux",
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let (config, config_size) = put(&serde_json::to_vec(&config).unwrap());
    let layers = packs.iter().map(|pack| {
        let size = store.blob_size(pack).unwrap().unwrap_or_default();
        Descriptor::new(oci::PACK, *pack, size)
    });
    let mut manifest = Manifest::new(layers.collect());
    manifest.artifact_type = None;
    manifest.config = Descriptor::new(oci::CONFIG, config, config_size);
    manifest
        .annotations
        .insert(oci::ROOT.to_owned(), root.to_hex());
    let (manifest, size) = put(&manifest.to_json());
    store
        .set_tag(tag, Descriptor::new(oci::MANIFEST, manifest, size))
        .unwrap();
    (manifest, config)
}

/// Names of files: `prefix` and a number.
pub(crate) fn names(prefix: &str, count: u64) -> Vec<String> {
    (0..count)
        .map(|number| format!("{prefix}{number}"))
        .collect()
}
