// SPDX-License-Identifier: MIT OR Apache-2.0

//! The files of a container image, in a directory or a tar archive.
//!
//! A path in an archive has the meaning that it would have if the archive were extracted as a root
//! filesystem. Members replace earlier ones of their path, a hard link names the file that its
//! target is at that moment, and symbolic links are followed. No path of the archive is looked up
//! on the host.

use crate::build::source::Source;
use crate::error::{ContainerFault, Error, Result};
use crate::ingest::archive::{self, archive_error, Archive, ArchiveInput, PlainFile, Spool};
use crate::ingest::assembly::Assembly;
use crate::ingest::tar::{FileData, Input, Member, MemberKind, Reader};
use crate::model::digest::Digest;
use crate::model::tree::Piece;
use crate::model::tree::{Kind, Origin, Tree};
use crate::store::staging::Staging;
use crate::sys::beneath::open_beneath;
use crate::sys::parallel;
use crate::sys::progress::Progress;
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{self, Read};
use std::mem;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// The largest number of members of an archive.
const MEMBERS_MAX: u64 = 1 << 20;
/// The largest size of holes in the sparse files of an archive, in bytes, because they are read as
/// zeros.
const HOLES_MAX: u64 = 64 << 30;

/// The files of a container image.
pub(crate) struct Container {
    /// The path that messages show.
    pub path: PathBuf,
    files: Files,
    /// Remarks on the archive.
    pub remarks: Vec<String>,
}

enum Files {
    Directory(OwnedFd),
    /// The file that holds the contents, and the tree of the members.
    Archive(Arc<File>, Box<Assembly>),
}

impl Container {
    /// Opens a directory or an archive; `-` is one on the standard input.
    pub fn open(path: &Path, staging: &Staging<'_>, progress: &Progress) -> Result<Self> {
        if path != Path::new("-") && path.is_dir() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let root =
                rustix::fs::open(path, flags, Mode::empty()).map_err(Error::io(path, "open"))?;
            return Ok(Container {
                path: path.to_path_buf(),
                files: Files::Directory(root),
                remarks: Vec::new(),
            });
        }
        let archive = Archive::open(path, progress)?;
        let path = archive.path;
        let mut tree = Listing::default();
        let file = match archive.input {
            ArchiveInput::Plain(file) => {
                let mut reader = Reader::new(PlainFile::new(file, &path)?);
                tree.read(&mut reader, &path, progress, |reader, data| {
                    data.move_to(reader.data_position());
                    Ok(())
                })?;
                reader.into_input().into_file()
            }
            ArchiveInput::Stream(stream) => {
                let spool = Spool::new(staging)?;
                let mut writer = spool.writer();
                let mut reader = Reader::new(stream);
                tree.read(&mut reader, &path, progress, |reader, data| {
                    writer.take(reader, data, &path, progress)
                })?;
                spool.finish()
            }
        };
        Ok(Container {
            path,
            files: Files::Archive(Arc::new(file), Box::new(tree.assembly)),
            remarks: tree.remarks,
        })
    }

    /// Opens a file by its path, and returns its size; `None` if it does not exist.
    pub fn file(&self, name: &str) -> Result<Option<(Box<dyn Read + Send>, u64)>> {
        let name = name.as_bytes();
        match &self.files {
            Files::Directory(root) => {
                let flags = OFlags::RDONLY | OFlags::NONBLOCK;
                let names: Vec<&[u8]> = name.split(|&byte| byte == b'/').collect();
                let file = match open_beneath(root, &names, flags) {
                    Ok(file) => File::from(file),
                    Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
                    Err(errno) => return Err(self.file_error(name, errno.into())),
                };
                let metadata = file.metadata();
                let metadata = metadata.map_err(|error| self.file_error(name, error))?;
                if !metadata.is_file() {
                    let error = io::Error::other("not a regular file");
                    return Err(self.file_error(name, error));
                }
                Ok(Some((Box::new(file), metadata.len())))
            }
            Files::Archive(archive, tree) => {
                let state = tree
                    .file(name)
                    .map_err(|fault| archive::member_error(&self.path, name.to_vec(), fault))?;
                let Some(state) = state else {
                    return Ok(None);
                };
                let Origin::Archive(pieces) = &state.origin else {
                    return Ok(None);
                };
                let file = PackedFile {
                    archive: Arc::clone(archive),
                    pieces: pieces.clone(),
                    at: 0,
                    size: state.size,
                };
                Ok(Some((Box::new(file), state.size)))
            }
        }
    }

    /// Reads a small file; `None` if it does not exist.
    pub fn read(&self, name: &str, max: u64) -> Result<Option<Vec<u8>>> {
        let Some((file, size)) = self.file(name)? else {
            return Ok(None);
        };
        if size > max {
            let name = name.to_owned();
            let fault = ContainerFault::TooLarge { name, size, max };
            return Err(archive_error(&self.path, fault));
        }
        let mut bytes = Vec::new();
        file.take(max)
            .read_to_end(&mut bytes)
            .map_err(|error| self.file_error(name.as_bytes(), error))?;
        Ok(Some(bytes))
    }

    fn file_error(&self, name: &[u8], error: io::Error) -> Error {
        let path = self.path.join(String::from_utf8_lossy(name).as_ref());
        Error::io(path, "read")(error)
    }
}

/// The tree of an archive's members.
struct Listing {
    assembly: Assembly,
    members: u64,
    holes: u64,
    /// Hard links in front of their targets.
    early_links: Vec<Member>,
    remarks: Vec<String>,
}

impl Default for Listing {
    fn default() -> Self {
        Listing {
            assembly: Assembly::new(),
            members: 0,
            holes: 0,
            early_links: Vec::new(),
            remarks: Vec::new(),
        }
    }
}

impl Listing {
    /// Adds all members; `place` sets the place of each file's data.
    fn read<I: Input>(
        &mut self,
        reader: &mut Reader<I>,
        path: &Path,
        progress: &Progress,
        mut place: impl FnMut(&mut Reader<I>, &mut FileData) -> Result<()>,
    ) -> Result<()> {
        while let Some(mut member) = archive::next_uncounted(reader, path, progress)? {
            self.members += 1;
            if self.members > MEMBERS_MAX {
                let fault = ContainerFault::TooManyMembers { max: MEMBERS_MAX };
                return Err(archive_error(path, fault));
            }
            if let MemberKind::File(data) = &mut member.kind {
                let stored = data.pieces.iter().map(|piece| piece.length).sum();
                self.holes = self.holes.saturating_add(data.size.saturating_sub(stored));
                if self.holes > HOLES_MAX {
                    let fault = ContainerFault::TooManyHoles { max: HOLES_MAX };
                    return Err(archive_error(path, fault));
                }
                place(reader, data)?;
            }
            self.insert(member, path)?;
        }
        for link in mem::take(&mut self.early_links) {
            archive::insert(&mut self.assembly, link, path)?;
        }
        self.remarks = archive::finish(reader, path, progress)?;
        Ok(())
    }

    fn insert(&mut self, mut member: Member, path: &Path) -> Result<()> {
        member.path = normal(&member.path);
        if let MemberKind::HardLink(target) = &mut member.kind {
            *target = normal(target);
            if !self.assembly.has(target) {
                self.early_links.push(member);
                return Ok(());
            }
        }
        // The root may have any mode, and unused members any type.
        archive::insert(&mut self.assembly, member, path)
    }
}

/// Returns a path without `.` and `..`, from the root of the archive.
fn normal(path: &[u8]) -> Vec<u8> {
    let mut names: Vec<&[u8]> = Vec::new();
    for name in path.split(|&byte| byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => {
                names.pop();
            }
            name => names.push(name),
        }
    }
    names.join(&b'/')
}

/// A file whose data is in the file of an archive, perhaps sparse.
struct PackedFile {
    archive: Arc<File>,
    pieces: Box<[Piece]>,
    at: u64,
    size: u64,
}

impl Read for PackedFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = (self.size - self.at).min(buffer.len() as u64) as usize;
        let buffer = &mut buffer[..length];
        let next = self
            .pieces
            .partition_point(|piece| piece.at + piece.length <= self.at);
        let count = match self.pieces.get(next) {
            Some(piece) if piece.at <= self.at => {
                let within = self.at - piece.at;
                let length = (piece.length - within).min(buffer.len() as u64) as usize;
                let count = self
                    .archive
                    .read_at(&mut buffer[..length], piece.offset + within)?;
                if count == 0 && length > 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                count
            }
            hole => {
                let end = hole.map_or(self.size, |piece| piece.at);
                let length = (end - self.at).min(buffer.len() as u64) as usize;
                buffer[..length].fill(0);
                length
            }
        };
        self.at += count as u64;
        Ok(count)
    }
}

/// Returns the name of a kind of container image if a tree holds the files of one instead of a root
/// filesystem.
pub(crate) fn kind_of(source: &Source, tree: &Tree) -> Option<&'static str> {
    let root = tree.nodes.first()?;
    let Kind::Directory(entries) = &root.kind else {
        return None;
    };
    let entry = |name: &[u8]| {
        let entry = entries.iter().find(|entry| *entry.name == *name)?;
        Some((entry.node, tree.nodes.get(entry.node as usize)?))
    };
    let is_directory =
        |name| entry(name).is_some_and(|(_, node)| matches!(node.kind, Kind::Directory(_)));
    let is_file = |name| entry(name).is_some_and(|(_, node)| matches!(node.kind, Kind::File(_)));
    if is_file(b"oci-layout") && is_directory(b"blobs") {
        return Some("a container image in an OCI image layout");
    }
    let (id, node) = entry(b"manifest.json")?;
    let Kind::File(state) = &node.kind else {
        return None;
    };
    // The manifest of 'docker save' lists images with their configurations.
    let mut bytes = vec![0; state.size.min(SAVED_MANIFEST_MAX) as usize];
    let file = source.open_file(tree, id, state).ok()?;
    file.read(0, &mut bytes).ok()?;
    let images: Vec<Saved> = serde_json::from_slice(&bytes).ok()?;
    let first = images.first()?;
    let config = first
        .config
        .split('/')
        .find(|part| !part.is_empty() && *part != ".")?;
    entry(config.as_bytes())?;
    Some("a container image that 'docker save' wrote")
}

/// The largest manifest of 'docker save' that [`kind_of`] recognises.
const SAVED_MANIFEST_MAX: u64 = 1 << 20;

/// An image in a manifest of 'docker save'.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(rename = "Layers")]
    _layers: Option<Vec<String>>,
}

/// The digest and the size of data that was read.
#[derive(Clone, Default)]
pub(crate) struct Witness(Arc<Mutex<(Sha256, u64)>>);

impl Witness {
    /// Returns a reader that this witness observes.
    pub fn watch<R: Read>(&self, input: R) -> Watched<R> {
        Watched {
            input,
            witness: self.clone(),
        }
    }

    /// Adds data that was read.
    pub fn add(&self, data: &[u8]) {
        let mut seen = parallel::lock(&self.0);
        seen.0.update(data);
        seen.1 += data.len() as u64;
    }

    /// Returns the digest and the size of all data so far.
    pub fn seen(&self) -> (Digest, u64) {
        let seen = parallel::lock(&self.0);
        (Digest(seen.0.clone().finalize().into()), seen.1)
    }
}

/// A reader that a [`Witness`] observes.
pub(crate) struct Watched<R> {
    input: R,
    witness: Witness,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.witness.add(&buffer[..count]);
        Ok(count)
    }
}

impl<I: Input> Input for Watched<I> {
    fn garbage(&self) -> u64 {
        self.input.garbage()
    }
}
