// SPDX-License-Identifier: MIT OR Apache-2.0

//! Encodes a tree and the extents of its files as a metadata blob.

use crate::build::contents::Contents;
use crate::build::delta::{Base, Delta, TopLayer};
use crate::error::{BuildError, Error, Result};
use crate::image::encoding::{At, Message, Size, TooLarge};
use crate::model::digest::Digest;
use crate::model::extent::Extent;
use crate::model::limits::LIST_MAX;
use crate::model::tree::{Kind, NodeId, Tree};
use capnp::message::ReaderOptions;
use puzzlefs_schema::metadata_capnp as wire;
use std::collections::{BTreeMap, HashSet};
use std::path::Path;

/// The version of the published format.
const MANIFEST_VERSION: u64 = 3;

/// The sizes of the structures, as the schema's compiler lays them out.
const ROOTFS: Size = size(2, 2);
const INODE_VECTOR: Size = size(0, 1);
const INODE: Size = size(6, 2);
const DEVICE: Size = size(2, 0);
const DIR_ENTRY: Size = size(1, 1);
const FILE_CHUNK: Size = size(1, 1);
const XATTR: Size = size(0, 2);
const VERITY_DATA: Size = size(0, 2);

const fn size(data: usize, pointers: usize) -> Size {
    Size { data, pointers }
}

/// Encodes an image, of one layer if it is not on top of others. `store` is for messages only.
///
/// Everything is in one segment: the array of inodes, then what belongs to each inode, in the
/// order of their numbers, so that neighbours in the tree are neighbours in the blob. A digest, a
/// name or a value that is there already is not put in again; and a structure ends, as the encoding
/// allows, with the last word that is not the default.
pub(crate) fn encode(
    tree: &Tree,
    contents: &Contents,
    top: Option<&TopLayer<'_>>,
    store: &Path,
) -> Result<Vec<u8>> {
    let too_large = |what| {
        let store = store.to_path_buf();
        Error::from(BuildError::MetadataTooLarge { store, what })
    };
    if tree.nodes.len() > LIST_MAX {
        return Err(too_large("too many inodes"));
    }
    if contents.blobs.len() > LIST_MAX {
        return Err(too_large("too many blobs"));
    }
    let below = top.map_or(0, |top| top.base.reader.bytes().len() / 8);
    let words = words(tree, contents).saturating_add(below);
    let segment = |TooLarge| too_large("more than 4 GiB");
    let (mut message, rootfs) = Message::new(ROOTFS, words).map_err(segment)?;
    message.set(rootfs, MANIFEST_VERSION);
    message.set(rootfs + 1, tree.data_size());
    let mut verities: BTreeMap<Digest, Digest> = BTreeMap::new();
    let metadatas = rootfs + ROOTFS.data;
    let layer = match top {
        None => message.list(metadatas, 1, INODE_VECTOR).map_err(segment)?,
        Some(top) => copy_below(top.base, &mut message, metadatas, &mut verities, &segment)?,
    };
    let alone: Vec<_>;
    let list = match top {
        Some(top) => &top.inodes,
        None => {
            let ids = 0..tree.nodes.len() as NodeId;
            alone = ids.map(|id| (number(id, None), Some(id))).collect();
            &alone
        }
    };
    let inodes = message.list(layer, list.len(), INODE).map_err(segment)?;
    for (at, &(ino, node)) in list.iter().enumerate() {
        let at = inodes + at * INODE.words();
        match node {
            Some(id) => {
                let delta = top.map(|top| top.delta);
                encode_node(&mut message, at, ino, id, tree, contents, delta)
            }
            None => {
                let whiteout = Inode {
                    ino,
                    mode: Mode::Whiteout,
                    ..Inode::default()
                };
                whiteout.put(&mut message, at).map(drop)
            }
        }
        .map_err(segment)?;
    }
    verities.extend(
        contents
            .blobs
            .iter()
            .map(|(digest, blob)| (*digest, blob.verity)),
    );
    let list = message
        .list(metadatas + 1, verities.len(), VERITY_DATA)
        .map_err(segment)?;
    for (at, (digest, value)) in verities.iter().enumerate() {
        let at = list + at * VERITY_DATA.words();
        message.data(at, digest.as_bytes()).map_err(segment)?;
        message.data(at + 1, value.as_bytes()).map_err(segment)?;
    }
    Ok(message.finish())
}

/// The kinds of inodes, by their numbers on the wire.
#[derive(Clone, Copy, Default)]
enum Mode {
    #[default]
    Unknown = 0,
    Fifo = 1,
    CharDevice = 2,
    Directory = 3,
    BlockDevice = 4,
    File = 5,
    Symlink = 6,
    Socket = 7,
    Whiteout = 8,
}

/// What an inode has that is not elsewhere.
#[derive(Default)]
struct Inode {
    ino: u64,
    mode: Mode,
    uid: u32,
    gid: u32,
    permissions: u16,
    mtime_seconds: i64,
    mtime_nanoseconds: u32,
    size: u64,
    nlink: u32,
}

/// The pointers of an inode.
struct Pointers {
    /// To what the mode has.
    mode: At,
    additional: At,
}

impl Inode {
    /// Fills in an inode of the list.
    fn put(&self, message: &mut Message, at: At) -> Result<Pointers, TooLarge> {
        let pair = |low: u32, high: u32| u64::from(low) | (u64::from(high) << 32);
        let mode = self.mode as u32 | (u32::from(self.permissions) << 16);
        let words = [
            self.ino,
            pair(mode, self.uid),
            pair(self.gid, self.mtime_nanoseconds),
            self.mtime_seconds as u64,
            self.size,
            self.nlink.into(),
        ];
        for (word, value) in (at..).zip(words) {
            message.set(word, value);
        }
        Ok(Pointers {
            mode: at + INODE.data,
            additional: at + INODE.data + 1,
        })
    }
}

/// Puts the layers of another image beneath a place for one, which is returned, and takes its
/// fs-verity digests.
///
/// What this schema does not know is not taken along.
fn copy_below(
    base: &Base<'_>,
    message: &mut Message,
    metadatas: At,
    verities: &mut BTreeMap<Digest, Digest>,
    segment: &impl Fn(TooLarge) -> Error,
) -> Result<At> {
    let mut bytes = base.reader.bytes();
    // What is bounded is counted below.
    let options = ReaderOptions {
        traversal_limit_in_words: None,
        ..ReaderOptions::new()
    };
    let malformed = |error: capnp::Error| base.reader.malformed_by(error.to_string());
    let below = capnp::serialize::read_message_from_flat_slice(&mut bytes, options);
    let below = below.map_err(malformed)?;
    let below = below.get_root::<wire::rootfs::Reader<'_>>();
    let below = below.and_then(|root| root.get_metadatas());
    let below = below.map_err(malformed)?;
    let mut copy = Copy {
        message,
        left: base.reader.bytes().len() / 8,
        seen: HashSet::new(),
    };
    let len = below.len() as usize + 1;
    let layers = copy.list(metadatas, len, INODE_VECTOR);
    let layers = layers.map_err(|error| error.explain(base, segment))?;
    for (at, layer) in (layers + 1..).zip(below) {
        copy.layer(at, layer)
            .map_err(|error| error.explain(base, segment))?;
    }
    let metadata = base.reader.metadata();
    for index in 0..base.reader.checked(metadata.verity_len())? {
        let (blob, verity) = base.reader.checked(metadata.verity_at(index))?;
        verities.insert(Digest(*blob.as_bytes()), Digest(*verity.as_bytes()));
    }
    Ok(layers)
}

/// Why an image cannot be copied.
enum CopyError {
    Malformed(capnp::Error),
    /// The same things in many places.
    Repeats,
    TooLarge,
}

impl From<capnp::Error> for CopyError {
    fn from(error: capnp::Error) -> Self {
        CopyError::Malformed(error)
    }
}

impl From<capnp::NotInSchema> for CopyError {
    fn from(kind: capnp::NotInSchema) -> Self {
        CopyError::Malformed(kind.into())
    }
}

impl From<TooLarge> for CopyError {
    fn from(_: TooLarge) -> Self {
        CopyError::TooLarge
    }
}

impl CopyError {
    fn explain(self, base: &Base<'_>, segment: &impl Fn(TooLarge) -> Error) -> Error {
        match self {
            CopyError::Malformed(error) => base.reader.malformed_by(error.to_string()),
            CopyError::Repeats => base.reader.malformed_by("it has more than it has room for"),
            CopyError::TooLarge => segment(TooLarge),
        }
    }
}

/// Copies layers to a message.
///
/// A message may have the same list in many places, and would then grow by being copied: no more
/// elements are copied, and no more words of data that is seen for the first time, than the message
/// has words.
struct Copy<'m> {
    message: &'m mut Message,
    left: usize,
    /// The addresses and lengths of the data that was copied.
    seen: HashSet<(usize, usize)>,
}

impl Copy<'_> {
    fn take(&mut self, words: usize) -> Result<(), CopyError> {
        self.left = self.left.checked_sub(words).ok_or(CopyError::Repeats)?;
        Ok(())
    }

    fn list(&mut self, pointer: At, len: usize, size: Size) -> Result<At, CopyError> {
        self.take(len)?;
        Ok(self.message.list(pointer, len, size)?)
    }

    fn data(&mut self, pointer: At, data: &[u8]) -> Result<(), CopyError> {
        if self.seen.insert((data.as_ptr() as usize, data.len())) {
            self.take(data.len().div_ceil(8))?;
        }
        Ok(self.message.data(pointer, data)?)
    }

    fn layer(&mut self, at: At, layer: wire::inode_vector::Reader<'_>) -> Result<(), CopyError> {
        let inodes = layer.get_inodes()?;
        let list = self.list(at, inodes.len() as usize, INODE)?;
        for (at, inode) in inodes.iter().enumerate() {
            self.inode(list + at * INODE.words(), inode)?;
        }
        Ok(())
    }

    fn inode(&mut self, at: At, inode: wire::inode::Reader<'_>) -> Result<(), CopyError> {
        use wire::inode::mode::Which;
        let which = inode.get_mode().which()?;
        let copy = Inode {
            ino: inode.get_ino(),
            mode: match which {
                Which::Unknown(()) => Mode::Unknown,
                Which::Fifo(()) => Mode::Fifo,
                Which::Chr(_) => Mode::CharDevice,
                Which::Dir(_) => Mode::Directory,
                Which::Blk(_) => Mode::BlockDevice,
                Which::File(_) => Mode::File,
                Which::Lnk(()) => Mode::Symlink,
                Which::Sock(()) => Mode::Socket,
                Which::Wht(()) => Mode::Whiteout,
            },
            uid: inode.get_uid(),
            gid: inode.get_gid(),
            permissions: inode.get_permissions(),
            mtime_seconds: inode.get_mtime_seconds(),
            mtime_nanoseconds: inode.get_mtime_nanoseconds(),
            size: inode.get_size(),
            nlink: inode.get_nlink(),
        };
        let to = copy.put(self.message, at)?;
        match which {
            Which::Chr(device) => {
                let device = device?;
                put_device(
                    self.message,
                    to.mode,
                    device.get_major(),
                    device.get_minor(),
                )?;
            }
            Which::Blk(device) => {
                let device = device?;
                put_device(
                    self.message,
                    to.mode,
                    device.get_major(),
                    device.get_minor(),
                )?;
            }
            Which::Dir(dir) => {
                let dir = dir?;
                let entries = dir.get_entries()?;
                let len = entries.len() as usize;
                self.take(len)?;
                let list = put_dir(self.message, to.mode, len, dir.get_look_below())?;
                for (at, entry) in entries.iter().enumerate() {
                    let at = list + at * DIR_ENTRY.words();
                    self.message.set(at, entry.get_ino());
                    self.data(at + 1, entry.get_name()?)?;
                }
            }
            Which::File(chunks) => {
                let chunks = chunks?;
                let list = self.list(to.mode, chunks.len() as usize, FILE_CHUNK)?;
                for (at, chunk) in chunks.iter().enumerate() {
                    let at = list + at * FILE_CHUNK.words();
                    let blob = chunk.get_blob()?;
                    let (offset, compressed) = (blob.get_offset(), blob.get_compressed());
                    let digest = put_chunk(self.message, at, chunk.get_len(), offset, compressed)?;
                    self.data(digest, blob.get_digest()?)?;
                }
            }
            _ => {}
        }
        let additional = inode.get_additional()?;
        let xattrs = additional.get_xattrs()?;
        let target = additional.get_symlink_target()?;
        let to = put_additional(
            self.message,
            to.additional,
            !xattrs.is_empty(),
            !target.is_empty(),
        )?;
        if let Some(to) = to.target {
            self.data(to, target)?;
        }
        if let Some(to) = to.xattrs {
            let list = self.list(to, xattrs.len() as usize, XATTR)?;
            for (at, xattr) in xattrs.iter().enumerate() {
                let at = list + at * XATTR.words();
                self.data(at, xattr.get_key()?)?;
                self.data(at + 1, xattr.get_val()?)?;
            }
        }
        Ok(())
    }
}

/// The inode number of a node.
fn number(node: NodeId, delta: Option<&Delta>) -> u64 {
    match delta {
        None => u64::from(node) + 1,
        Some(delta) => delta.numbers[node as usize],
    }
}

/// Encodes one inode.
fn encode_node(
    message: &mut Message,
    at: At,
    ino: u64,
    id: NodeId,
    tree: &Tree,
    contents: &Contents,
    delta: Option<&Delta>,
) -> Result<(), TooLarge> {
    let node = &tree.nodes[id as usize];
    let inode = Inode {
        ino,
        mode: match &node.kind {
            Kind::File(_) => Mode::File,
            Kind::Directory(_) => Mode::Directory,
            Kind::Symlink(_) => Mode::Symlink,
            Kind::Fifo => Mode::Fifo,
            Kind::Socket => Mode::Socket,
            Kind::CharDevice(..) => Mode::CharDevice,
            Kind::BlockDevice(..) => Mode::BlockDevice,
        },
        uid: node.uid,
        gid: node.gid,
        permissions: node.permissions,
        mtime_seconds: node.mtime.seconds,
        mtime_nanoseconds: node.mtime.nanoseconds,
        size: match &node.kind {
            Kind::File(state) => state.size,
            _ => 0,
        },
        nlink: node.nlink,
    };
    let to = inode.put(message, at)?;
    match &node.kind {
        Kind::File(_) => put_extents(message, to.mode, &contents.extents[id as usize])?,
        Kind::Directory(entries) => match delta.and_then(|delta| delta.changes.get(&id)) {
            Some(changes) => {
                let changes = changes.iter().map(|(name, ino)| (&**name, *ino));
                put_entries(message, to.mode, changes, true)?;
            }
            None => {
                let entries = entries.iter();
                let entries = entries.map(|entry| (&*entry.name, number(entry.node, delta)));
                put_entries(message, to.mode, entries, false)?;
            }
        },
        &Kind::CharDevice(major, minor) | &Kind::BlockDevice(major, minor) => {
            put_device(message, to.mode, major.into(), minor.into())?;
        }
        Kind::Symlink(_) | Kind::Fifo | Kind::Socket => {}
    }
    let target = match &node.kind {
        Kind::Symlink(target) => &target[..],
        _ => &[],
    };
    let has_xattrs = !node.xattrs.is_empty();
    let to = put_additional(message, to.additional, has_xattrs, !target.is_empty())?;
    if let Some(to) = to.target {
        message.data(to, target)?;
    }
    if let Some(to) = to.xattrs {
        let list = message.list(to, node.xattrs.len(), XATTR)?;
        for (at, (key, value)) in node.xattrs.iter().enumerate() {
            let at = list + at * XATTR.words();
            message.data(at, key)?;
            message.data(at + 1, value)?;
        }
    }
    Ok(())
}

fn put_device(message: &mut Message, at: At, major: u64, minor: u64) -> Result<(), TooLarge> {
    let device = message.structure(at, DEVICE)?;
    message.set(device, major);
    message.set(device + 1, minor);
    Ok(())
}

/// Puts in a directory, and returns the place of its first entry.
fn put_dir(
    message: &mut Message,
    at: At,
    entries: usize,
    look_below: bool,
) -> Result<At, TooLarge> {
    let data = usize::from(look_below);
    let dir = message.structure(at, size(data, 1))?;
    if look_below {
        message.set(dir, 1);
    }
    message.list(dir + data, entries, DIR_ENTRY)
}

fn put_entries<'e>(
    message: &mut Message,
    at: At,
    entries: impl ExactSizeIterator<Item = (&'e [u8], u64)>,
    look_below: bool,
) -> Result<(), TooLarge> {
    let list = put_dir(message, at, entries.len(), look_below)?;
    for (at, (name, ino)) in entries.enumerate() {
        let at = list + at * DIR_ENTRY.words();
        message.set(at, ino);
        message.data(at + 1, name)?;
    }
    Ok(())
}

fn put_extents(message: &mut Message, at: At, extents: &[Extent]) -> Result<(), TooLarge> {
    let list = message.list(at, extents.len(), FILE_CHUNK)?;
    for (at, extent) in extents.iter().enumerate() {
        let at = list + at * FILE_CHUNK.words();
        let (offset, compressed) = (extent.offset, extent.compressed);
        let digest = put_chunk(message, at, extent.length, offset, compressed)?;
        message.data(digest, extent.blob.as_bytes())?;
    }
    Ok(())
}

/// Fills in a chunk of a list, all but the digest, the place of the pointer to which is returned.
fn put_chunk(
    message: &mut Message,
    at: At,
    length: u64,
    offset: u64,
    compressed: bool,
) -> Result<At, TooLarge> {
    message.set(at, length);
    let data = match (offset, compressed) {
        (0, false) => 0,
        (_, false) => 1,
        (_, true) => 2,
    };
    let blob = message.structure(at + FILE_CHUNK.data, size(data, 1))?;
    let values = [offset, compressed.into()];
    for (word, value) in (blob..).zip(&values[..data]) {
        message.set(word, *value);
    }
    Ok(blob + data)
}

/// The pointers of what few inodes have.
struct Additional {
    xattrs: Option<At>,
    target: Option<At>,
}

/// Puts in room for it, if there is any.
fn put_additional(
    message: &mut Message,
    at: At,
    xattrs: bool,
    target: bool,
) -> Result<Additional, TooLarge> {
    let pointers = if target { 2 } else { usize::from(xattrs) };
    if pointers == 0 {
        return Ok(Additional {
            xattrs: None,
            target: None,
        });
    }
    let additional = message.structure(at, size(0, pointers))?;
    Ok(Additional {
        xattrs: xattrs.then_some(additional),
        target: target.then_some(additional + 1),
    })
}

/// The words that the encoding takes, or a few more: what is not used costs nothing.
fn words(tree: &Tree, contents: &Contents) -> usize {
    let data = |bytes: usize| bytes.div_ceil(8);
    let nodes = tree.nodes.iter().zip(&contents.extents);
    let nodes = nodes.map(|(node, extents)| {
        let xattrs = node.xattrs.iter();
        let xattrs = xattrs.map(|(key, value)| 4 + data(key.len()) + data(value.len()));
        let kind = match &node.kind {
            Kind::Directory(entries) => {
                let entries = entries.iter().map(|entry| 4 + data(entry.name.len()));
                4 + entries.sum::<usize>()
            }
            Kind::Symlink(target) => data(target.len()),
            _ => 4,
        };
        24 + xattrs.sum::<usize>() + kind + 12 * extents.len()
    });
    64 + nodes.sum::<usize>() + 12 * contents.blobs.len()
}
