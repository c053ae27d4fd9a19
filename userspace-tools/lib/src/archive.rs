// SPDX-License-Identifier: MIT OR Apache-2.0

//! From a tar archive to a tree.
//!
//! The contents of an archive that is a plain file are read where they are. Those of any other
//! come once and in one order, and are needed in another: they are spooled into a file without a
//! name in the store, which is gone with its builder.

use crate::assembly::Assembly;
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::rules::Rules;
use crate::source::{Source, SourceData};
use crate::staging::Staging;
use crate::stoppable::Stoppable;
use crate::tar::{Fault, FileData, Input, Member, MemberKind, Reader};
use crate::tree::{Seen, Tree};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read, Seek, Write};
use std::path::{Path, PathBuf};

/// The size of a read.
const BUFFER: usize = 256 << 10;
/// As much of the beginning as tells how an archive is compressed.
const MAGIC: usize = 8;

/// Makes a tree of an archive; `-` is the standard input.
pub(crate) fn read(
    path: &Path,
    staging: &Staging<'_>,
    rules: &Rules,
    progress: &Progress,
) -> Result<(Source, Tree)> {
    let archive = Archive::open(path, progress)?;
    let mut assembly = Assembly::new();
    let path = archive.path.clone();
    let data = match archive.input {
        ArchiveInput::Plain(file) => {
            let stat = rustix::fs::fstat(&file).map_err(Error::io(&path, "examine it"))?;
            let mut reader = Reader::new(PlainFile::new(file, &path)?);
            while let Some(mut member) = next(&mut reader, &path, progress)? {
                if let MemberKind::File(file) = &mut member.kind {
                    file.move_to(reader.data_position());
                }
                insert(&mut assembly, member, &path)?;
            }
            let file = reader.into_input().into_file();
            SourceData::Archive(file, Some(Seen::of(&stat)))
        }
        ArchiveInput::Stream(stream) => {
            let mut spool = Spool::new(staging)?;
            let mut reader = Reader::new(stream);
            while let Some(mut member) = next(&mut reader, &path, progress)? {
                if let MemberKind::File(file) = &mut member.kind {
                    spool.take(&mut reader, file, &path, progress)?;
                }
                insert(&mut assembly, member, &path)?;
            }
            SourceData::Archive(spool.finish(), None)
        }
    };
    let tree = assembly.finish(rules);
    Ok((Source { path, data }, tree))
}

/// The next member of an archive; it is counted as found.
pub(crate) fn next<I: Input>(
    reader: &mut Reader<I>,
    path: &Path,
    progress: &Progress,
) -> Result<Option<Member>> {
    let member = next_uncounted(reader, path, progress)?;
    if let Some(member) = &member {
        progress.found_entry();
        if let MemberKind::File(file) = &member.kind {
            progress.found_bytes(file.size);
        }
    }
    Ok(member)
}

/// The next member of an archive that is not itself of the tree.
pub(crate) fn next_uncounted<I: Input>(
    reader: &mut Reader<I>,
    path: &Path,
    progress: &Progress,
) -> Result<Option<Member>> {
    progress.check()?;
    reader.next().map_err(|fault| fault_error(fault, path))
}

/// Puts a member into the tree.
pub(crate) fn insert(assembly: &mut Assembly, member: Member, path: &Path) -> Result<()> {
    let name = String::from_utf8_lossy(&member.path).into_owned();
    assembly
        .insert(member)
        .map_err(|what| archive_error(path, format!("{name}: {what}")))
}

pub(crate) fn archive_error(path: &Path, what: impl Into<String>) -> Error {
    Error::Archive {
        path: path.to_path_buf(),
        what: what.into(),
    }
}

fn fault_error(fault: Fault, path: &Path) -> Error {
    match fault {
        Fault::Io(cause) => Error::io(path, "read the archive")(cause),
        Fault::Malformed(what) => archive_error(path, what),
    }
}

/// The contents of files, one after the other.
pub(crate) struct Spool {
    file: File,
    path: PathBuf,
    size: u64,
    buffer: Vec<u8>,
}

impl Spool {
    /// A new one, in the builder's directory.
    pub fn new(staging: &Staging<'_>) -> Result<Self> {
        let path = staging.path.clone();
        let file = tempfile::tempfile_in(&path).map_err(Error::io(
            &path,
            "make a file for an archive's contents in it",
        ))?;
        Ok(Spool {
            file,
            path,
            size: 0,
            buffer: vec![0; BUFFER],
        })
    }

    /// Takes the data of a reader's member, and notes where it is.
    pub fn take<I: Input>(
        &mut self,
        reader: &mut Reader<I>,
        file: &mut FileData,
        path: &Path,
        progress: &Progress,
    ) -> Result<()> {
        file.move_to(self.size);
        loop {
            progress.check()?;
            let count = reader
                .read(&mut self.buffer)
                .map_err(|fault| fault_error(fault, path))?;
            if count == 0 {
                return Ok(());
            }
            self.file
                .write_all(&self.buffer[..count])
                .map_err(Error::io(&self.path, "write an archive's contents to it"))?;
            self.size += count as u64;
        }
    }

    /// The file, with all that was taken so far.
    pub fn contents(&self) -> Result<File> {
        self.file
            .try_clone()
            .map_err(Error::io(&self.path, "open a file in it once more"))
    }

    /// The file, with all that was taken.
    pub fn finish(self) -> File {
        self.file
    }
}

/// An open archive.
pub(crate) struct Archive {
    /// As messages show it.
    pub path: PathBuf,
    pub input: ArchiveInput,
}

/// How an archive can be read.
pub(crate) enum ArchiveInput {
    /// Uncompressed, in a regular file.
    Plain(File),
    /// From beginning to end.
    Stream(Stream),
}

impl Archive {
    /// Opens an archive and finds out how it is compressed.
    pub fn open(path: &Path, progress: &Progress) -> Result<Self> {
        if path == Path::new("-") {
            let path = PathBuf::from("standard input");
            let stdin = Stoppable::stdin(progress).map_err(Error::io(&path, "read it"))?;
            let stream = Stream::new(stdin, &path)?;
            let input = ArchiveInput::Stream(stream);
            return Ok(Archive { path, input });
        }
        let mut file = Stoppable::open(path).map_err(Error::io(
            path,
            "open the directory or archive to build from",
        ))?;
        let regular = file.metadata().is_ok_and(|metadata| metadata.is_file());
        let mut magic = Vec::new();
        if regular {
            (&mut file)
                .take(MAGIC as u64)
                .read_to_end(&mut magic)
                .and_then(|_| file.rewind())
                .map_err(Error::io(path, "read the archive"))?;
        }
        let input = match regular && compression(&magic, path)? == Compression::None {
            true => ArchiveInput::Plain(file),
            false => ArchiveInput::Stream(Stream::new(Stoppable::new(file, progress), path)?),
        };
        Ok(Archive {
            path: path.to_path_buf(),
            input,
        })
    }
}

/// An uncompressed archive in a regular file: data is not read to be passed over.
pub(crate) struct PlainFile {
    file: BufReader<File>,
    size: u64,
}

impl PlainFile {
    /// Reads a file from its beginning. `path` is for messages only.
    pub fn new(file: File, path: &Path) -> Result<Self> {
        let metadata = file.metadata().map_err(Error::io(path, "examine it"))?;
        Ok(PlainFile {
            size: metadata.len(),
            file: BufReader::with_capacity(BUFFER, file),
        })
    }

    /// The file, to be read otherwise.
    pub fn into_file(self) -> File {
        self.file.into_inner()
    }
}

impl Read for PlainFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer)
    }
}

impl Input for PlainFile {
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let end = self.file.stream_position()?.checked_add(bytes);
        match (end, i64::try_from(bytes)) {
            (Some(end), Ok(bytes)) if end <= self.size => self.file.seek_relative(bytes),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// An archive that can be read once, decompressed.
pub(crate) struct Stream(Box<dyn BufRead + Send>);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Stream {
    /// Reads an archive, compressed or not. `path` is for messages only.
    pub fn new(mut input: impl Read + Send + 'static, path: &Path) -> Result<Self> {
        let fail = |error| Error::io(path, "read the archive")(error);
        let mut magic = Vec::new();
        (&mut input)
            .take(MAGIC as u64)
            .read_to_end(&mut magic)
            .map_err(fail)?;
        let compression = compression(&magic, path)?;
        let input = BufReader::with_capacity(BUFFER, Cursor::new(magic).chain(input));
        Ok(Stream(match compression {
            Compression::None => Box::new(input),
            Compression::Gzip => {
                let decoder = flate2::bufread::MultiGzDecoder::new(input);
                Box::new(BufReader::with_capacity(BUFFER, decoder))
            }
            Compression::Zstd => {
                let decoder = zstd::Decoder::with_buffer(input).map_err(fail)?;
                Box::new(BufReader::with_capacity(BUFFER, decoder))
            }
        }))
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Input for Stream {}

fn compression(magic: &[u8], path: &Path) -> Result<Compression> {
    let others: [(&[u8], &str); 6] = [
        (b"\xfd7zXZ\0", "xz"),
        (b"BZh", "bzip2"),
        (b"\x04\x22\x4d\x18", "lz4"),
        (b"\x1f\x9d", "compress"),
        (b"LZIP", "lzip"),
        (b"\x89LZO", "lzop"),
    ];
    if magic.starts_with(b"\x1f\x8b") {
        return Ok(Compression::Gzip);
    }
    // The second is a frame to be skipped, which pzstd begins with.
    if let [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] = magic {
        return Ok(Compression::Zstd);
    }
    match others.iter().find(|(start, _)| magic.starts_with(start)) {
        None => Ok(Compression::None),
        Some((_, name)) => {
            let what = format!(
                "compressed with {name}; of compressed archives, those of gzip and zstd are read. \
                 Decompress it, and give it on the standard input as '-'"
            );
            Err(archive_error(path, what))
        }
    }
}
