// SPDX-License-Identifier: MIT OR Apache-2.0

//! Makes trees of tar archives.
//!
//! The contents of an uncompressed archive in a regular file are read in place. Any other archive
//! can be read once, in its own order. Its contents are spooled to an unnamed file in the store,
//! which disappears with the builder.

use crate::build::build_options::BuildOptions;
use crate::build::source::{Source, SourceData};
use crate::error::{Error, IngestError, IngestFault, Result, TreeFault};
use crate::ingest::assembly::Assembly;
use crate::ingest::compression::{Decompressed, Format, Garbage, START};
use crate::ingest::tar::{Fault, FileData, Input, Member, MemberKind, Oddities, Reader};
use crate::model::limits::READ_SIZE;
use crate::model::tree::{Seen, Tree};
use crate::store::staging::Staging;
use crate::sys::progress::Progress;
use crate::sys::stoppable::Stoppable;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read, Seek};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A tree that an archive makes.
pub(crate) struct ArchiveTree {
    pub source: Source,
    pub tree: Tree,
    /// Remarks on the archive.
    pub remarks: Vec<String>,
}

/// Makes a tree of an archive; `-` is the standard input.
pub(crate) fn read(
    path: &Path,
    staging: &Staging<'_>,
    options: &BuildOptions,
    progress: &Progress,
) -> Result<ArchiveTree> {
    let archive = Archive::open(path, progress)?;
    let made = read_open(archive, staging, options, progress);
    made.map_err(|error| match error {
        Error::Ingest(IngestError::NoEnd { path, .. }) => {
            let may_ignore_zeros = true;
            IngestError::NoEnd {
                path,
                may_ignore_zeros,
            }
            .into()
        }
        error => error,
    })
}

fn read_open(
    archive: Archive,
    staging: &Staging<'_>,
    options: &BuildOptions,
    progress: &Progress,
) -> Result<ArchiveTree> {
    let mut assembly = Assembly::new();
    let path = archive.path.clone();
    let (data, mut remarks) = match archive.input {
        ArchiveInput::Plain(file) => {
            let stat = rustix::fs::fstat(&file).map_err(Error::io(&path, "examine"))?;
            let reader = Reader::new(PlainFile::new(file, &path)?);
            let mut reader = reader.ignoring_zeros(options.ignore_zeros);
            while let Some(mut member) = next(&mut reader, &path, progress)? {
                if let MemberKind::File(file) = &mut member.kind {
                    file.move_to(reader.data_position());
                }
                insert(&mut assembly, member, &path)?;
            }
            let remarks = finish(&mut reader, &path, progress)?;
            let file = reader.into_input().into_file();
            (SourceData::Archive(file, Some(Seen::of(&stat))), remarks)
        }
        ArchiveInput::Stream(stream) => {
            let spool = Spool::new(staging)?;
            let mut writer = spool.writer();
            let mut reader = Reader::new(stream).ignoring_zeros(options.ignore_zeros);
            while let Some(mut member) = next(&mut reader, &path, progress)? {
                if let MemberKind::File(file) = &mut member.kind {
                    writer.take(&mut reader, file, &path, progress)?;
                }
                insert(&mut assembly, member, &path)?;
            }
            let remarks = finish(&mut reader, &path, progress)?;
            (SourceData::Archive(spool.finish(), None), remarks)
        }
    };
    for remark in &mut remarks {
        if remark.ends_with(ANOTHER) {
            remark.push_str("; --ignore-zeros reads that, too");
        }
    }
    let tree = assembly.finish(&options.rules);
    Ok(ArchiveTree {
        source: Source { path, data },
        tree,
        remarks,
    })
}

/// The end of the remark on an archive that follows another one.
const ANOTHER: &str = "another archive begins there";

/// Reads the bytes behind the last member of an archive, and returns the remarks on all of it.
pub(crate) fn finish<I: Input>(
    reader: &mut Reader<I>,
    path: &Path,
    progress: &Progress,
) -> Result<Vec<String>> {
    let mut buffer = vec![0; READ_SIZE];
    loop {
        progress.check()?;
        let count = reader.read_rest(&mut buffer);
        if count.map_err(|fault| fault_error(fault, path))? == 0 {
            break;
        }
    }
    let shown = path.display();
    let odd = reader.oddities();
    let mut remarks = Vec::new();
    if let Some((name, kind)) = &odd.unknown {
        let name = String::from_utf8_lossy(name);
        let kind = kind.escape_ascii();
        let more = match odd.unknown_count {
            1 => String::new(),
            count => format!(" ({count} such members in all)"),
        };
        remarks.push(format!(
            "{shown}: {name}: unknown type flag '{kind}', taken as a regular file{more}"
        ));
    }
    if odd.lone_zero {
        remarks.push(format!(
            "{shown}: one zero block marks the end instead of two; the archive may be truncated"
        ));
    }
    if odd.ignored > 0 {
        let Oddities {
            ignored,
            ignored_at,
            ..
        } = odd;
        let what = if odd.another {
            ANOTHER
        } else {
            "no archive begins there"
        };
        remarks.push(format!(
            "{shown}: ignored {ignored} bytes behind the end of the archive, at byte \
             {ignored_at}: {what}"
        ));
    }
    let garbage = reader.garbage();
    if garbage > 0 {
        remarks.push(format!(
            "{shown}: ignored {garbage} bytes of garbage behind the compressed data"
        ));
    }
    Ok(remarks)
}

/// Reads the next member of an archive, and counts it as found.
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

/// Reads the next member of an archive whose members are not those of the tree.
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
    let name = member.path.clone();
    let inserted = assembly.insert(member);
    inserted.map_err(|fault| member_error(path, name, fault))
}

/// Returns the error for a member that cannot be put into the tree.
pub(crate) fn member_error(path: &Path, member: Vec<u8>, fault: TreeFault) -> Error {
    archive_error(path, IngestFault::Member { member, fault })
}

/// Returns the error for an archive or a container image with this fault.
pub(crate) fn archive_error(path: &Path, fault: impl Into<IngestFault>) -> Error {
    IngestError::Unreadable {
        path: path.to_path_buf(),
        fault: fault.into(),
    }
    .into()
}

fn fault_error(fault: Fault, path: &Path) -> Error {
    match fault {
        Fault::Io(cause) => Error::io(path, "read the archive")(cause),
        Fault::NoEnd => IngestError::NoEnd {
            path: path.to_path_buf(),
            may_ignore_zeros: false,
        }
        .into(),
        Fault::Malformed(malformed) => archive_error(path, malformed),
    }
}

/// The contents of files, in a file of the builder's directory. Several threads can add contents.
pub(crate) struct Spool {
    file: File,
    path: PathBuf,
    /// The end of the places that are taken.
    end: AtomicU64,
}

impl Spool {
    /// Creates an empty spool.
    pub fn new(staging: &Staging<'_>) -> Result<Self> {
        let path = staging.path.clone();
        let file = tempfile::tempfile_in(&path).map_err(Error::io(
            &path,
            "create a file for an archive's contents in",
        ))?;
        Ok(Spool {
            file,
            path,
            end: AtomicU64::new(0),
        })
    }

    /// Returns a writer for one thread.
    pub fn writer(&self) -> SpoolWriter<'_> {
        SpoolWriter {
            spool: self,
            buffer: vec![0; READ_SIZE],
        }
    }

    /// Returns another handle of the file, with the data so far.
    pub fn contents(&self) -> Result<File> {
        self.file
            .try_clone()
            .map_err(Error::io(&self.path, "reopen a file in"))
    }

    /// Returns the file.
    pub fn finish(self) -> File {
        self.file
    }
}

/// Adds contents to a [`Spool`].
pub(crate) struct SpoolWriter<'s> {
    spool: &'s Spool,
    buffer: Vec<u8>,
}

impl SpoolWriter<'_> {
    /// Adds the data of a reader's member, and notes its place.
    pub fn take<I: Input>(
        &mut self,
        reader: &mut Reader<I>,
        file: &mut FileData,
        path: &Path,
        progress: &Progress,
    ) -> Result<()> {
        let spool = self.spool;
        let size = file.pieces.iter().map(|piece| piece.length).sum();
        let mut at = spool.end.fetch_add(size, Relaxed);
        file.move_to(at);
        loop {
            progress.check()?;
            let count = reader
                .read(&mut self.buffer)
                .map_err(|fault| fault_error(fault, path))?;
            if count == 0 {
                return Ok(());
            }
            spool
                .file
                .write_all_at(&self.buffer[..count], at)
                .map_err(Error::io(&spool.path, "write an archive's contents to"))?;
            at += count as u64;
        }
    }
}

/// An open archive.
pub(crate) struct Archive {
    /// The path that messages show.
    pub path: PathBuf,
    pub input: ArchiveInput,
}

/// The access to an archive.
pub(crate) enum ArchiveInput {
    /// Uncompressed, in a regular file.
    Plain(File),
    /// From beginning to end.
    Stream(Stream),
}

impl Archive {
    /// Opens an archive, and detects its compression.
    pub fn open(path: &Path, progress: &Progress) -> Result<Self> {
        if path == Path::new("-") {
            let path = PathBuf::from("standard input");
            let stdin = Stoppable::stdin(progress).map_err(Error::io(&path, "read"))?;
            let stream = Stream::new(stdin, &path)?;
            let input = ArchiveInput::Stream(stream);
            return Ok(Archive { path, input });
        }
        let mut file = Stoppable::open(path).map_err(Error::io(
            path,
            "open the directory or archive to build from",
        ))?;
        let regular = file.metadata().is_ok_and(|metadata| metadata.is_file());
        let mut start = Vec::new();
        if regular {
            (&mut file)
                .take(START as u64)
                .read_to_end(&mut start)
                .and_then(|_| file.rewind())
                .map_err(Error::io(path, "read the archive"))?;
        }
        let input = if regular && format(&start, path)? == Format::None {
            ArchiveInput::Plain(file)
        } else {
            ArchiveInput::Stream(Stream::new(Stoppable::new(file, progress), path)?)
        };
        Ok(Archive {
            path: path.to_path_buf(),
            input,
        })
    }
}

/// An uncompressed archive in a regular file, in which data is skipped without reading.
pub(crate) struct PlainFile {
    file: BufReader<File>,
    size: u64,
}

impl PlainFile {
    /// Reads a file from its beginning. `path` is for messages only.
    pub fn new(file: File, path: &Path) -> Result<Self> {
        let metadata = file.metadata().map_err(Error::io(path, "examine"))?;
        Ok(PlainFile {
            size: metadata.len(),
            file: BufReader::with_capacity(READ_SIZE, file),
        })
    }

    /// Returns the file, to be read otherwise.
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
pub(crate) struct Stream {
    contents: Box<dyn BufRead + Send>,
    garbage: Garbage,
}

impl Stream {
    /// Reads an archive, compressed or not. `path` is for messages only.
    pub fn new(input: impl Read + Send + 'static, path: &Path) -> Result<Self> {
        Self::counting(input, Garbage::default(), path)
    }

    /// Does the same, and counts garbage with this counter.
    pub fn counting(
        mut input: impl Read + Send + 'static,
        garbage: Garbage,
        path: &Path,
    ) -> Result<Self> {
        let fail = |error| Error::io(path, "read the archive")(error);
        let mut start = Vec::new();
        (&mut input)
            .take(START as u64)
            .read_to_end(&mut start)
            .map_err(fail)?;
        let format = format(&start, path)?;
        if format == Format::None {
            let contents = Cursor::new(start).chain(input);
            return Ok(Stream {
                contents: Box::new(BufReader::with_capacity(READ_SIZE, contents)),
                garbage,
            });
        }
        let contents = Decompressed::new(format, start, input, garbage.clone()).map_err(fail)?;
        Ok(Stream {
            garbage,
            contents: Box::new(BufReader::with_capacity(READ_SIZE, contents)),
        })
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.contents.read(buffer)
    }
}

impl Input for Stream {
    fn garbage(&self) -> u64 {
        self.garbage.bytes()
    }
}

fn format(start: &[u8], path: &Path) -> Result<Format> {
    Format::detect(start).map_err(|fault| archive_error(path, fault))
}
