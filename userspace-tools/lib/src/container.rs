// SPDX-License-Identifier: MIT OR Apache-2.0

//! The files of a container image: those of a directory, or of a tar archive.

use crate::archive::{self, archive_error, Archive, ArchiveInput, PlainFile, Spool};
use crate::beneath::open_beneath;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::parallel;
use crate::progress::Progress;
use crate::staging::Staging;
use crate::tar::{FileData, Input, MemberKind, Reader};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// The most files of an archive.
const FILES_MAX: usize = 1 << 20;
/// The most symbolic links from file to file in an archive.
const LINKS_MAX: usize = 8;

/// Where the files are.
pub(crate) struct Container {
    /// As messages show it.
    pub path: PathBuf,
    files: Files,
}

enum Files {
    Directory(OwnedFd),
    Archive(Arc<File>, HashMap<Vec<u8>, Packed>),
}

/// A file in an archive.
enum Packed {
    /// Where it begins, and its size.
    File(u64, u64),
    /// Another path, as it stands there.
    Symlink(Vec<u8>),
}

impl Container {
    /// Opens a directory or an archive; `-` is one on the standard input.
    pub fn open(path: &Path, staging: &Staging<'_>, progress: &Progress) -> Result<Self> {
        if path != Path::new("-") && path.is_dir() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let root =
                rustix::fs::open(path, flags, Mode::empty()).map_err(Error::io(path, "open it"))?;
            return Ok(Container {
                path: path.to_path_buf(),
                files: Files::Directory(root),
            });
        }
        let archive = Archive::open(path, progress)?;
        let path = archive.path;
        let mut files = HashMap::new();
        let file = match archive.input {
            ArchiveInput::Plain(file) => {
                let mut reader = Reader::new(PlainFile::new(file, &path)?);
                list(&mut reader, &path, progress, &mut files, |reader, _| {
                    Ok(reader.data_position())
                })?;
                reader.into_input().into_file()
            }
            ArchiveInput::Stream(stream) => {
                let mut spool = Spool::new(staging)?;
                let mut reader = Reader::new(stream);
                list(&mut reader, &path, progress, &mut files, |reader, data| {
                    spool.take(reader, data, &path, progress)?;
                    Ok(data.pieces.first().map_or(0, |piece| piece.offset))
                })?;
                spool.finish()
            }
        };
        Ok(Container {
            path,
            files: Files::Archive(Arc::new(file), files),
        })
    }

    /// Opens a file by its path, and says how large it is; none where there is none.
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
            Files::Archive(archive, files) => {
                let mut at = name.to_vec();
                for _ in 0..LINKS_MAX {
                    match files.get(&at) {
                        Some(&Packed::File(start, size)) => {
                            let file = Arc::clone(archive);
                            let range = FileRange {
                                file,
                                at: start,
                                left: size,
                            };
                            return Ok(Some((Box::new(range), size)));
                        }
                        Some(Packed::Symlink(target)) => {
                            let parent = at.iter().rposition(|&byte| byte == b'/');
                            let parent = &at[..parent.unwrap_or(0)];
                            at = normal(&[parent, target].join(&b'/'));
                        }
                        None => return Ok(None),
                    }
                }
                Ok(None)
            }
        }
    }

    /// Reads a small file; none where there is none.
    pub fn read(&self, name: &str, max: u64) -> Result<Option<Vec<u8>>> {
        let Some((file, size)) = self.file(name)? else {
            return Ok(None);
        };
        if size > max {
            let what = format!("{name} has {size} bytes, more than the {max} that are allowed");
            return Err(archive_error(&self.path, what));
        }
        let mut bytes = Vec::new();
        file.take(max)
            .read_to_end(&mut bytes)
            .map_err(|error| self.file_error(name.as_bytes(), error))?;
        Ok(Some(bytes))
    }

    fn file_error(&self, name: &[u8], error: io::Error) -> Error {
        let path = self.path.join(String::from_utf8_lossy(name).as_ref());
        Error::io(path, "read it")(error)
    }
}

/// Lists the files of an archive; `place` says where the data of each is.
fn list<I: Input>(
    reader: &mut Reader<I>,
    path: &Path,
    progress: &Progress,
    files: &mut HashMap<Vec<u8>, Packed>,
    mut place: impl FnMut(&mut Reader<I>, &mut FileData) -> Result<u64>,
) -> Result<()> {
    while let Some(member) = archive::next_uncounted(reader, path, progress)? {
        let packed = match member.kind {
            MemberKind::File(mut data) => {
                let size = data.size;
                // Nobody packs these files as sparse ones.
                if data.pieces.iter().map(|piece| piece.length).sum::<u64>() != size {
                    let name = String::from_utf8_lossy(&member.path).into_owned();
                    return Err(archive_error(path, format!("{name} is a sparse file")));
                }
                Packed::File(place(reader, &mut data)?, size)
            }
            MemberKind::Symlink(target) => Packed::Symlink(target),
            MemberKind::HardLink(target) => Packed::Symlink([b"/".as_slice(), &target].concat()),
            _ => continue,
        };
        files.insert(normal(&member.path), packed);
        if files.len() > FILES_MAX {
            let what = format!("more than {FILES_MAX} files; is this a container image?");
            return Err(archive_error(path, what));
        }
    }
    Ok(())
}

/// A path without `.` and `..`, from the root of the archive.
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

/// A range of a file that others read too.
struct FileRange {
    file: Arc<File>,
    at: u64,
    left: u64,
}

impl Read for FileRange {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.left.min(buffer.len() as u64) as usize;
        let count = self.file.read_at(&mut buffer[..length], self.at)?;
        self.at += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

/// What has been read of something, for whoever asks at the end.
#[derive(Clone, Default)]
pub(crate) struct Witness(Arc<Mutex<(Sha256, u64)>>);

impl Witness {
    /// Reads through this witness.
    pub fn watch<R: Read>(&self, input: R) -> Watched<R> {
        Watched {
            input,
            witness: self.clone(),
        }
    }

    /// The digest and the size of all that was read.
    pub fn seen(&self) -> (Digest, u64) {
        let seen = parallel::lock(&self.0);
        (Digest(seen.0.clone().finalize().into()), seen.1)
    }
}

/// Something that is read while a [`Witness`] looks on.
pub(crate) struct Watched<R> {
    input: R,
    witness: Witness,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        let mut seen = self.witness.0.lock();
        let seen = seen.as_deref_mut();
        if let Ok(seen) = seen {
            seen.0.update(&buffer[..count]);
            seen.1 += count as u64;
        }
        Ok(count)
    }
}

impl<R: Read> Input for Watched<R> {}
