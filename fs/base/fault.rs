// SPDX-License-Identifier: GPL-2.0

//! Faults: causes why an image or a blob cannot be read.
//!
//! [`Fault::errno`] alone turns a fault into the error that a caller gets, and [`FaultSite`] alone
//! logs one.

use super::{
    message::{ErrorName, Show},
    trace::TracedFault,
};
use crate::vfs::{error_ratelimited, prelude::*};
use kernel::{alloc::AllocError, fmt};
use puzzlefs_schema::{
    v4::{ChunkError, MetadataError},
    Digest, ErrorKind, SeekTableError,
};

/// A cause why a part of an image cannot be read.
#[derive(Clone, Copy)]
pub(crate) enum Fault {
    /// The lower filesystem gave an error, or there is no memory.
    Errno(Error),
    /// The blob is not open, and the caller must not wait until it is.
    NotOpen,
    /// The metadata is malformed, or reading it was interrupted.
    Metadata(puzzlefs_schema::Error),
    /// A metadata chunk is malformed.
    MetadataChunk(MetadataError),
    /// The fault was logged where it occurred.
    Reported(Error),
    /// A directory names an inode of a kind that cannot be there.
    InodeKind,
    /// The metadata blob cannot be used, with the error of the mount.
    MetadataBlob(Unusable, Error),
    /// The seek table is malformed.
    SeekTable(SeekTableError),
    /// The blob ends too early.
    TooShort,
    /// The blob is too large to be verified as a whole.
    TooLarge,
    /// The blob's digest is not its name.
    Digest,
    /// The lower filesystem does not verify the blob.
    NoVerity,
    /// The lower filesystem verifies the blob against another digest than the image's.
    Verity,
    /// A frame cannot be decompressed.
    Frame,
    /// A frame has another size than the seek table or the metadata says.
    FrameSize,
    /// A frame has another checksum than the seek table says.
    Checksum,
    /// The store does not have the chunk.
    NoChunk,
    /// The store does not have the chunk, and no fetcher has brought it.
    NotFetched(Error),
    /// The file of a loose chunk has another size than the chunk.
    ChunkSize,
    /// The extents of a file end before the file.
    NoExtent,
    /// A chunk violates a rule of the format.
    Chunk(ChunkError),
}

/// A cause why a metadata blob cannot be used.
#[derive(Clone, Copy)]
pub(crate) enum Unusable {
    /// It cannot be opened.
    Open,
    /// The lower filesystem uses DAX for it.
    Dax,
    /// It has another fs-verity digest than the mount requires.
    Verity,
    /// It is larger than [`MAX_METADATA`](super::limits::MAX_METADATA).
    TooLarge,
    /// There is no memory for it.
    Memory,
    /// The task is being killed.
    Interrupted,
    /// The lower filesystem gave an error.
    Read,
    /// It became smaller while it was read.
    Shrank,
    /// Its digest is not its name.
    Digest,
    /// It has no bytes.
    Empty,
    /// The mount requires its fs-verity digest, but the image has format 4.
    RootfsVerity,
}

impl Unusable {
    fn as_str(self) -> &'static str {
        match self {
            Self::Open => "cannot be opened",
            Self::Dax => "its filesystem uses DAX for it, which is not supported",
            Self::Verity => "it has not the fs-verity digest of rootfs_verity",
            Self::TooLarge => "larger than 1 GiB",
            Self::Memory => "no memory",
            Self::Interrupted => "interrupted",
            Self::Read => "cannot be read",
            Self::Shrank => "shrank while it was read",
            Self::Digest => "its contents have another digest",
            Self::Empty => "it is empty",
            Self::RootfsVerity => "rootfs_verity applies only to images of format 3; leave it out",
        }
    }
}

impl Fault {
    /// Returns the error that a caller gets.
    pub(crate) fn errno(self) -> Error {
        match self {
            Self::Errno(e) | Self::MetadataBlob(_, e) | Self::Reported(e) => e,
            Self::Metadata(e) if e.kind() == ErrorKind::Interrupted => EINTR,
            Self::Metadata(_) | Self::MetadataChunk(_) | Self::InodeKind => EUCLEAN,
            Self::NotOpen
            | Self::SeekTable(_)
            | Self::TooShort
            | Self::TooLarge
            | Self::Digest
            | Self::NoVerity
            | Self::Verity
            | Self::Frame
            | Self::FrameSize
            | Self::Checksum
            | Self::NoChunk
            | Self::NotFetched(_)
            | Self::ChunkSize => EIO,
            Self::Chunk(_) | Self::NoExtent => EUCLEAN,
        }
    }

    /// Returns true if the task gave up because it is being killed. Nothing is wrong then.
    pub(crate) fn is_interruption(&self) -> bool {
        let errno = self.errno();
        errno == EINTR || errno == ERESTARTSYS
    }

    /// Returns true if the task waited in vain for the blob to be opened.
    pub(crate) fn is_timeout(&self) -> bool {
        matches!(self, Self::Errno(e) if *e == EDEADLK)
    }

    /// Returns the error, if it says nothing about the image or the blob: the task gave up, or
    /// there is no memory.
    pub(crate) fn passing(&self) -> Option<Error> {
        let errno = self.errno();
        (self.is_interruption() || errno == ENOMEM).then_some(errno)
    }

    /// Returns true if the content contradicts the image or the blob's own checksums.
    pub(crate) fn is_verification(&self) -> bool {
        matches!(
            self,
            Self::Digest | Self::NoVerity | Self::Verity | Self::Checksum
        )
    }
}

impl From<Error> for Fault {
    fn from(e: Error) -> Self {
        Self::Errno(e)
    }
}

impl From<AllocError> for Fault {
    fn from(_: AllocError) -> Self {
        Self::Errno(ENOMEM)
    }
}

impl From<puzzlefs_schema::Error> for Fault {
    fn from(e: puzzlefs_schema::Error) -> Self {
        Self::Metadata(e)
    }
}

impl From<MetadataError> for Fault {
    fn from(e: MetadataError) -> Self {
        Self::MetadataChunk(e)
    }
}

impl From<SeekTableError> for Fault {
    fn from(e: SeekTableError) -> Self {
        Self::SeekTable(e)
    }
}

impl From<ChunkError> for Fault {
    fn from(e: ChunkError) -> Self {
        Self::Chunk(e)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Errno(e) | Self::Reported(e) => return fmt::Display::fmt(&ErrorName(*e), f),
            Self::NotOpen => "it is not open",
            Self::Metadata(e) => return core::fmt::Display::fmt(e, f),
            Self::MetadataChunk(e) => return core::fmt::Display::fmt(e, f),
            Self::InodeKind => "it is of no kind that a directory can name",
            Self::MetadataBlob(cause, e) => {
                return f.write_fmt(fmt!("{}: {}", cause.as_str(), ErrorName(*e)))
            }
            Self::SeekTable(e) => return core::fmt::Display::fmt(e, f),
            Self::TooShort => "it ends too early",
            Self::TooLarge => "it is too large to be verified",
            Self::Digest => "its contents have another digest",
            Self::NoVerity => "fs-verity is not enabled on it",
            Self::Verity => "its fs-verity digest is not the image's",
            Self::Frame => "a frame cannot be decompressed",
            Self::FrameSize => "a frame has another size than the image says",
            Self::Checksum => "a frame has another checksum than the seek table says",
            Self::NoChunk => "the store does not have it",
            Self::NotFetched(e) => {
                return f.write_fmt(fmt!("it was not fetched: {}", ErrorName(*e)))
            }
            Self::ChunkSize => "its file has another size",
            Self::NoExtent => "the extents end before the file",
            Self::Chunk(e) => return core::fmt::Display::fmt(e, f),
        })
    }
}

/// The image, the inode and the blob or chunk that a fault is about, as far as they are known.
#[derive(Clone, Copy)]
pub(crate) struct FaultSite<'a> {
    /// The digest of the image's metadata blob.
    image: &'a Digest,
    ino: Option<u64>,
    /// The offset in the file, in bytes.
    offset: Option<u64>,
    /// `blob` or `chunk`, and its digest.
    stored: Option<(&'static str, &'a Digest)>,
}

impl<'a> FaultSite<'a> {
    /// Returns the site of a fault of an image as a whole.
    pub(crate) fn image(image: &'a Digest) -> Self {
        Self {
            image,
            ino: None,
            offset: None,
            stored: None,
        }
    }

    /// Returns the site of a fault of the same image as a whole.
    pub(crate) fn whole_image(self) -> Self {
        Self::image(self.image)
    }

    /// Adds the inode.
    pub(crate) fn inode(self, ino: u64) -> Self {
        Self {
            ino: Some(ino),
            ..self
        }
    }

    /// Adds the offset in the file.
    pub(crate) fn offset(self, offset: u64) -> Self {
        Self {
            offset: Some(offset),
            ..self
        }
    }

    /// Adds the blob.
    pub(crate) fn blob(self, blob: &'a Digest) -> Self {
        Self {
            stored: Some(("blob", blob)),
            ..self
        }
    }

    /// Adds the chunk.
    pub(crate) fn chunk(self, chunk: &'a Digest) -> Self {
        Self {
            stored: Some(("chunk", chunk)),
            ..self
        }
    }

    /// Logs a fault that says something about the image or a blob, and returns its error.
    pub(crate) fn report(self, fault: impl Into<Fault>) -> Error {
        let fault = fault.into();
        if fault.passing().is_none() {
            self.log(fault);
        }
        fault.errno()
    }

    /// Returns a fault as events have it.
    fn traced(&self, fault: Fault) -> TracedFault<'a> {
        TracedFault {
            image: self.image,
            ino: self.ino,
            offset: self.offset,
            stored: self.stored.map(|(_, digest)| digest),
            errno: fault.errno(),
        }
    }

    /// Logs a fault in one line, unless it is logged already or too many lines were logged lately.
    pub(crate) fn log(self, fault: Fault) {
        if matches!(fault, Fault::Reported(_)) {
            return;
        }
        // The line names the inode itself, which the metadata's error may know better.
        let known = match fault {
            Fault::Metadata(e) => e.ino(),
            _ => None,
        };
        let site = Self {
            ino: known.or(self.ino),
            ..self
        };
        site.traced(fault).occurred(Cause(fault));
        error_ratelimited(fmt!("{}", FaultLine(site, fault)));
    }
}

/// The line that is logged of a fault.
struct FaultLine<'a>(FaultSite<'a>, Fault);

impl fmt::Display for FaultLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(site, fault) = self;
        f.write_fmt(fmt!("image {}", Show(site.image)))?;
        if let Some(ino) = site.ino {
            f.write_fmt(fmt!(" inode {ino}"))?;
        }
        if let Some(offset) = site.offset {
            f.write_fmt(fmt!(": offset {offset}"))?;
        }
        if let Some((kind, digest)) = site.stored {
            f.write_fmt(fmt!(": {kind} {}", Show(digest)))?;
        }
        f.write_fmt(fmt!(": {}", Cause(*fault)))
    }
}

/// The cause of a fault, without the inode.
struct Cause(Fault);

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Fault::Metadata(e) => f.write_fmt(fmt!("{}", Show(e.kind()))),
            fault => f.write_fmt(fmt!("{fault}")),
        }
    }
}
