// SPDX-License-Identifier: MIT OR Apache-2.0

//! A model of an image: builds messages, and predicts what a reader finds.

use crate::bytes::Bytes;
use capnp::message::{AllocationStrategy, Builder, HeapAllocator};
use puzzlefs_schema::metadata_capnp::{inode, rootfs};
use puzzlefs_schema::{ErrorKind, FileType};
use std::collections::BTreeMap;

/// A model of an image, also of one that no builder would make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    pub layers: Vec<Vec<Inode>>,
    pub verity: Vec<(Vec<u8>, Vec<u8>)>,
    pub version: u64,
    pub data_size: u64,
}

impl Default for Image {
    fn default() -> Self {
        Self {
            layers: Vec::new(),
            verity: Vec::new(),
            version: 3,
            data_size: 0,
        }
    }
}

/// A model of an inode.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Inode {
    pub ino: u64,
    pub mode: Mode,
    pub uid: u32,
    pub gid: u32,
    pub permissions: u16,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub target: Vec<u8>,
    pub mtime: (i64, u32),
    pub size: u64,
    pub nlink: u32,
}

/// The type of an inode, and the data that only this type has.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Mode {
    #[default]
    Unknown,
    Fifo,
    Chr(u64, u64),
    Dir {
        entries: Vec<(Vec<u8>, u64)>,
        look_below: bool,
    },
    Blk(u64, u64),
    File(Vec<Chunk>),
    Lnk,
    Sock,
    Wht,
}

/// A piece of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    pub digest: Vec<u8>,
    pub offset: u64,
    pub compressed: bool,
    pub len: u64,
}

impl Default for Chunk {
    fn default() -> Self {
        Self {
            digest: vec![7; 32],
            offset: 0,
            compressed: false,
            len: 1,
        }
    }
}

/// A directory of these entries.
pub fn dir(ino: u64, entries: &[(&str, u64)]) -> Inode {
    Inode {
        ino,
        mode: Mode::Dir {
            entries: entries
                .iter()
                .map(|(name, ino)| (name.as_bytes().to_vec(), *ino))
                .collect(),
            look_below: false,
        },
        ..Inode::default()
    }
}

/// Merges a directory with those of the layers below.
pub fn look_below(mut inode: Inode) -> Inode {
    if let Mode::Dir { look_below, .. } = &mut inode.mode {
        *look_below = true;
    }
    inode
}

/// An inode of a type, without anything else.
pub fn inode(ino: u64, mode: Mode) -> Inode {
    Inode {
        ino,
        mode,
        ..Inode::default()
    }
}

/// An image of one layer.
pub fn image(inodes: Vec<Inode>) -> Image {
    Image {
        layers: vec![inodes],
        ..Image::default()
    }
}

/// An image with something of every kind, in as few words as possible.
pub fn everything() -> Image {
    let chunk = |byte, len| Chunk {
        digest: vec![byte; 32],
        offset: 5,
        compressed: byte == 2,
        len,
    };
    Image {
        layers: vec![
            vec![
                look_below(dir(1, &[("gone", 6), ("new", 7), ("dir", 3)])),
                look_below(dir(3, &[("z", 7), ("y", 6)])),
                inode(6, Mode::Wht),
                inode(7, Mode::File(vec![chunk(1, 10), chunk(2, 3), chunk(1, 7)])),
            ],
            vec![
                dir(1, &[("chr", 2), ("dir", 3), ("gone", 6), ("link", 5)]),
                inode(2, Mode::Chr(1, 3)),
                dir(3, &[("a", 2), ("b", 4), ("z", 2)]),
                inode(4, Mode::Blk(8, 1)),
                Inode {
                    target: b"target".to_vec(),
                    xattrs: vec![(b"user.a".to_vec(), b"b".to_vec())],
                    ..inode(5, Mode::Lnk)
                },
                Inode {
                    nlink: 1,
                    size: 4,
                    mtime: (1, 2),
                    ..inode(6, Mode::File(vec![chunk(1, 4)]))
                },
            ],
        ],
        verity: vec![(vec![1; 32], vec![2; 32]), (vec![2; 32], vec![4; 32])],
        ..Image::default()
    }
}

impl Image {
    /// Builds the message, in segments of at least so many words, or as the builder likes.
    pub fn build(&self, segment: Option<u32>) -> Bytes {
        let allocator = match segment {
            None => HeapAllocator::new(),
            Some(words) => HeapAllocator::new()
                .first_segment_words(words)
                .allocation_strategy(AllocationStrategy::FixedSize),
        };
        let mut message = Builder::new(allocator);
        self.fill(message.init_root());
        Bytes::new(&capnp::serialize::write_message_to_words(&message))
    }

    fn fill(&self, mut root: rootfs::Builder<'_>) {
        root.set_manifest_version(self.version);
        root.set_data_size(self.data_size);
        let mut layers = root.reborrow().init_metadatas(self.layers.len() as u32);
        for (i, layer) in (0..).zip(&self.layers) {
            let mut inodes = layers.reborrow().get(i).init_inodes(layer.len() as u32);
            for (i, inode) in (0..).zip(layer) {
                inode.fill(inodes.reborrow().get(i));
            }
        }
        let mut verity = root.init_fs_verity_data(self.verity.len() as u32);
        for (i, (digest, value)) in (0..).zip(&self.verity) {
            let mut data = verity.reborrow().get(i);
            data.set_digest(digest);
            data.set_verity(value);
        }
    }

    /// Predicts the result of `Metadata::find`: the layer and the inode.
    pub fn find(&self, ino: u64) -> Result<(usize, &Inode), ErrorKind> {
        for (layer, inodes) in self.layers.iter().enumerate() {
            if let Some(inode) = inodes.iter().rfind(|inode| inode.ino == ino) {
                return match inode.mode {
                    Mode::Wht => Err(ErrorKind::Whiteout),
                    _ => Ok((layer, inode)),
                };
            }
        }
        Err(ErrorKind::NotFound)
    }

    /// Predicts the entries of a directory: for each name the inode, or the error of reading it.
    pub fn list(&self, ino: u64) -> Result<BTreeMap<Vec<u8>, Result<u64, ErrorKind>>, ErrorKind> {
        let (top, inode) = self.find(ino)?;
        let mut seen = BTreeMap::new();
        let mut mode = &inode.mode;
        let mut below = self.layers[top + 1..].iter();
        loop {
            let Mode::Dir {
                entries,
                look_below,
            } = mode
            else {
                if seen.is_empty() && std::ptr::eq(mode, &inode.mode) {
                    return Err(ErrorKind::NotADirectory);
                }
                break;
            };
            for (name, ino) in entries {
                let entry = match self.find(*ino) {
                    Ok(_) => Some(Ok(*ino)),
                    Err(ErrorKind::Whiteout) => None,
                    Err(_) => Some(Err(ErrorKind::DanglingEntry)),
                };
                seen.entry(name.clone()).or_insert(entry);
            }
            if !look_below {
                break;
            }
            let Some(next) = below.find_map(|layer| layer.iter().rfind(|inode| inode.ino == ino))
            else {
                break;
            };
            mode = &next.mode;
        }
        Ok(seen
            .into_iter()
            .filter_map(|(name, entry)| Some((name, entry?)))
            .collect())
    }
}

impl Inode {
    fn fill(&self, mut to: inode::Builder<'_>) {
        to.set_ino(self.ino);
        to.set_uid(self.uid);
        to.set_gid(self.gid);
        to.set_permissions(self.permissions);
        to.set_mtime_seconds(self.mtime.0);
        to.set_mtime_nanoseconds(self.mtime.1);
        to.set_size(self.size);
        to.set_nlink(self.nlink);
        if !self.xattrs.is_empty() || !self.target.is_empty() {
            let mut additional = to.reborrow().init_additional();
            if !self.target.is_empty() {
                additional.set_symlink_target(&self.target);
            }
            let mut xattrs = additional.init_xattrs(self.xattrs.len() as u32);
            for (i, (key, val)) in (0..).zip(&self.xattrs) {
                let mut xattr = xattrs.reborrow().get(i);
                xattr.set_key(key);
                xattr.set_val(val);
            }
        }
        self.mode.fill(to.init_mode());
    }

    /// Returns the type that a reader finds.
    pub fn file_type(&self) -> FileType {
        match self.mode {
            Mode::Unknown => FileType::Unknown,
            Mode::Fifo => FileType::Fifo,
            Mode::Chr(..) => FileType::Chr,
            Mode::Dir { .. } => FileType::Dir,
            Mode::Blk(..) => FileType::Blk,
            Mode::File(_) => FileType::File,
            Mode::Lnk => FileType::Symlink,
            Mode::Sock => FileType::Sock,
            Mode::Wht => FileType::Whiteout,
        }
    }
}

impl Mode {
    fn fill(&self, mut to: inode::mode::Builder<'_>) {
        match self {
            Mode::Unknown => to.set_unknown(()),
            Mode::Fifo => to.set_fifo(()),
            Mode::Chr(major, minor) => {
                let mut chr = to.init_chr();
                chr.set_major(*major);
                chr.set_minor(*minor);
            }
            Mode::Dir {
                entries,
                look_below,
            } => {
                let mut dir = to.init_dir();
                dir.set_look_below(*look_below);
                let mut list = dir.init_entries(entries.len() as u32);
                for (i, (name, ino)) in (0..).zip(entries) {
                    let mut entry = list.reborrow().get(i);
                    entry.set_name(name);
                    entry.set_ino(*ino);
                }
            }
            Mode::Blk(major, minor) => {
                let mut blk = to.init_blk();
                blk.set_major(*major);
                blk.set_minor(*minor);
            }
            Mode::File(chunks) => {
                let mut list = to.init_file(chunks.len() as u32);
                for (i, chunk) in (0..).zip(chunks) {
                    let mut to = list.reborrow().get(i);
                    to.set_len(chunk.len);
                    let mut blob = to.init_blob();
                    blob.set_digest(&chunk.digest);
                    blob.set_offset(chunk.offset);
                    blob.set_compressed(chunk.compressed);
                }
            }
            Mode::Lnk => to.set_lnk(()),
            Mode::Sock => to.set_sock(()),
            Mode::Wht => to.set_wht(()),
        }
    }
}
