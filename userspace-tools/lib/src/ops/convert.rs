// SPDX-License-Identifier: MIT OR Apache-2.0

//! From an image to an image of another version of the format.
//!
//! The contents of all files are written into one temporary file of the target's store, from which the
//! image is built as from an archive. The configuration and the annotations are kept, and so is the start-up
//! order, which only images of format 4 have.

use crate::build::build_options::{BuildOptions, OrderChoice};
use crate::build::builder::{Input, Summary};
use crate::build::packed;
use crate::build::source::{Source, SourceData};
use crate::error::{Error, Result};
use crate::image::file_data::{FileData, Piece};
use crate::image::image_tree::{ImageTree, TreeInode};
use crate::image::{config, config::CONFIG_MAX};
use crate::ingest::assembly::Assembly;
use crate::ingest::tar::{self, Member, MemberKind};
use crate::model::oci;
use crate::model::reference::Selector;
use crate::model::start_order::StartOrder;
use crate::model::tree::{LeftOut, Piece as TreePiece, Time};
use crate::model::version::Format;
use crate::store::chunks::update::adopt_packs_of;
use crate::store::oci_layout::{AnyRoot, Store};
use crate::store::staging::Staging;
use crate::sys::progress::Progress;
use puzzlefs_schema::Kind;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// Builds an image with the tree of another image. The options name the version of its format.
pub fn convert(
    from: &Store,
    selector: &Selector,
    to: &Store,
    options: &BuildOptions,
    progress: &Progress,
) -> Result<Summary> {
    packed::check_options(options)?;
    let root = from.any_root(selector)?;
    let staging = Staging::new(to)?.checking(options.check);
    if from.is_same(to)? {
        adopt_packs_of(to, &from.any_image(selector)?.manifest)?;
    }
    let image = ImageTree::new(from, &root)?;
    let mut converter = Converter {
        image: &image,
        progress,
        path: &staging.path,
        contents: Contents::new(&staging.path)?,
        data: FileData::checked(),
        assembly: Assembly::new(),
        names: HashMap::new(),
    };
    converter.add_all()?;
    let contents = converter.contents.finish(&staging.path)?;
    let tree = converter.assembly.finish(&options.rules);
    let kept = Kept::new(from, &root, selector)?;
    let mut options = options.clone();
    if options.config.original.is_none() {
        options.config.original = kept.config;
    }
    if let (Format::V4, OrderChoice::None, Some(order)) =
        (options.format, &options.order, kept.order)
    {
        options.order = OrderChoice::Given(order);
    }
    let source = Source {
        path: from.path().to_path_buf(),
        data: SourceData::Archive(contents, None),
    };
    let input = Input {
        annotations: kept.annotations,
        index_annotations: kept.index_annotations,
        ..Input::new(source, tree, LeftOut::default())
    };
    packed::store(input, to, &staging, &options, progress)
}

/// The parts of an image beside its tree, which the converted image keeps.
struct Kept {
    config: Option<serde_json::Map<String, serde_json::Value>>,
    order: Option<StartOrder>,
    annotations: BTreeMap<String, String>,
    index_annotations: BTreeMap<String, String>,
}

impl Kept {
    fn new(store: &Store, root: &AnyRoot, selector: &Selector) -> Result<Self> {
        let (manifest, _) = store.manifest(root.manifest_digest())?;
        let path = store.blob_path(root.manifest_digest());
        let descriptor = &manifest.config;
        let is_config = [oci::CONFIG, oci::DOCKER_CONFIG].contains(&&*descriptor.media_type);
        let config = if is_config {
            let digest = store.digest(descriptor, &path)?;
            let bytes = store.read_blob(&digest, CONFIG_MAX)?;
            Some(config::parse_original(store.blob_path(&digest), &bytes)?)
        } else {
            None
        };
        let order = store.start_order(root.manifest_digest(), &manifest)?;
        let mut annotations = manifest.annotations;
        annotations.remove(oci::ROOT);
        annotations.remove(oci::COMPRESSION);
        let mut index_annotations = match selector {
            Selector::Tag(tag) => store
                .index()?
                .find(tag)
                .map(|image| image.annotations.clone())
                .unwrap_or_default(),
            Selector::Manifest(_) => BTreeMap::new(),
        };
        index_annotations.remove(oci::REF_NAME);
        Ok(Kept {
            config,
            order,
            annotations,
            index_annotations,
        })
    }
}

/// Collects the tree of an image.
struct Converter<'a, 's> {
    image: &'a ImageTree<'s>,
    progress: &'a Progress,
    /// The path of the file with the contents, for messages.
    path: &'a Path,
    contents: Contents,
    data: FileData,
    assembly: Assembly,
    /// The first name of each inode that is not a directory.
    names: HashMap<u64, Vec<u8>>,
}

impl Converter<'_, '_> {
    fn add_all(&mut self) -> Result<()> {
        let image = self.image;
        let root = image.root()?;
        self.add(b".", &root)?;
        image.visit(&root, |path, entry| {
            self.progress.check()?;
            self.progress.found_entry();
            self.add(path, &image.open(&entry.link)?)
        })
    }

    fn add(&mut self, path: &[u8], inode: &TreeInode) -> Result<()> {
        let stat = self.image.stat(inode)?;
        let kind = match stat.kind {
            Kind::Dir => MemberKind::Directory,
            kind => match self.names.get(&self.image.ino(inode)) {
                Some(first) => MemberKind::HardLink(first.clone()),
                None => {
                    self.names.insert(self.image.ino(inode), path.to_vec());
                    self.kind(kind, stat.size, inode)?
                }
            },
        };
        let member = Member {
            path: path.to_vec(),
            kind,
            permissions: stat.permissions,
            uid: stat.uid,
            gid: stat.gid,
            mtime: Time {
                seconds: stat.mtime.seconds,
                nanoseconds: stat.mtime.nanoseconds,
            },
            xattrs: self.image.xattrs(inode)?,
        };
        self.assembly.insert(member).map_err(|fault| {
            let path = String::from_utf8_lossy(path);
            self.image.malformed_by(format!("{path}: {fault}"))
        })
    }

    /// Returns the kind of a member that is not a directory, with its contents.
    fn kind(&mut self, kind: Kind, size: u64, inode: &TreeInode) -> Result<MemberKind> {
        Ok(match kind {
            Kind::File => MemberKind::File(self.file(size, inode)?),
            Kind::Symlink => MemberKind::Symlink(self.image.symlink_target(inode)?.to_vec()),
            Kind::Fifo => MemberKind::Fifo,
            Kind::Sock => MemberKind::Socket,
            Kind::Chr { major, minor } => MemberKind::CharDevice(major, minor),
            Kind::Blk { major, minor } => MemberKind::BlockDevice(major, minor),
            _ => {
                return Err(self
                    .image
                    .malformed_by("an inode has a type that no file has"))
            }
        })
    }

    /// Writes the contents of a file behind those of the files before it.
    fn file(&mut self, size: u64, inode: &TreeInode) -> Result<tar::FileData> {
        self.progress.found_bytes(size);
        let (path, contents) = (self.path, &mut self.contents);
        let mut pieces: Vec<TreePiece> = Vec::new();
        let mut at = 0;
        self.image
            .read_pieces(inode, 0..u64::MAX, &mut self.data, |piece| {
                let length = match piece {
                    Piece::Hole(length) => length,
                    Piece::Data(bytes) => {
                        let offset = contents.write(path, bytes)?;
                        let length = bytes.len() as u64;
                        match pieces.last_mut() {
                            Some(last) if last.at + last.length == at => last.length += length,
                            _ => pieces.push(TreePiece { at, length, offset }),
                        }
                        length
                    }
                };
                at += length;
                Ok(())
            })?;
        Ok(tar::FileData { size, pieces })
    }
}

/// The contents of files, one after the other, in a file without a name.
struct Contents {
    file: BufWriter<File>,
    end: u64,
}

impl Contents {
    fn new(directory: &Path) -> Result<Self> {
        let file = tempfile::tempfile_in(directory);
        let file = file.map_err(Error::io(directory, "create a file in"))?;
        Ok(Contents {
            file: BufWriter::with_capacity(1 << 20, file),
            end: 0,
        })
    }

    /// Writes bytes, and returns their offset.
    fn write(&mut self, path: &Path, bytes: &[u8]) -> Result<u64> {
        let offset = self.end;
        self.file
            .write_all(bytes)
            .map_err(Error::io(path, "write to a file in"))?;
        self.end += bytes.len() as u64;
        Ok(offset)
    }

    fn finish(self, path: &Path) -> Result<File> {
        let file = self.file.into_inner();
        file.map_err(|error| Error::io(path, "write to a file in")(error.into_error()))
    }
}
