// SPDX-License-Identifier: MIT OR Apache-2.0

//! What can be wrong with an image's metadata.

use core::{fmt, num::NonZeroU64};

/// The result of reading metadata.
pub type Result<T> = core::result::Result<T, Error>;

/// What is wrong with an image's metadata, and with which inode of it.
///
/// It prints as a sentence, which begins with the inode's number where that is known. Whoever has
/// another way to name the inode prints [`Error::kind`] instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    ino: Option<NonZeroU64>,
}

impl Error {
    pub(crate) const fn new(kind: ErrorKind) -> Self {
        Self { kind, ino: None }
    }

    /// Says which inode the error is about, unless that is known already.
    pub(crate) fn of(self, ino: u64) -> Self {
        Self {
            kind: self.kind,
            ino: self.ino.or(NonZeroU64::new(ino)),
        }
    }

    /// What is wrong.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The number of the inode that it is wrong with, if it is about an inode of known number.
    pub fn ino(&self) -> Option<u64> {
        self.ino.map(NonZeroU64::get)
    }
}

impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Self {
        Self::new(kind)
    }
}

impl From<capnp::Error> for Error {
    fn from(e: capnp::Error) -> Self {
        use capnp::ErrorKind as Capnp;
        Self::new(match e.kind {
            Capnp::MessageContainsOutOfBoundsPointer
            | Capnp::InvalidSegmentId(_)
            | Capnp::InlineCompositeListsElementsOverrunItsWordCount => ErrorKind::OutOfBounds,
            Capnp::NestingLimitExceeded
            | Capnp::MessageIsTooDeeplyNested
            | Capnp::MessageIsTooDeeplyNestedOrContainsCycles => ErrorKind::TooDeep,
            Capnp::UnalignedSegment => ErrorKind::Misaligned,
            _ => ErrorKind::WrongType,
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(ino) = self.ino {
            write!(f, "inode {ino}: ")?;
        }
        fmt::Display::fmt(&self.kind, f)
    }
}

impl core::error::Error for Error {}

/// What can be wrong with an image's metadata, or with what is asked of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    // The framing of the message.
    /// The blob ends before the message does.
    Truncated,
    /// The blob goes on after the message.
    TrailingBytes,
    /// The message has more segments than [`Framing::MAX_SEGMENTS`](crate::Framing::MAX_SEGMENTS).
    TooManySegments,
    /// The bytes do not begin at an address that is a multiple of eight: a mistake of the program,
    /// not of the image.
    Misaligned,
    /// The bytes are not those that the framing was made of: a mistake of the program.
    OtherBytes,

    // The encoding.
    /// A pointer leads out of the message.
    OutOfBounds,
    /// A pointer is not of the type that the schema gives it.
    WrongType,
    /// The message is nested more deeply than the schema allows.
    TooDeep,
    /// A list has more elements than the message could hold.
    ListTooLong,

    // The image.
    /// The image is of another version than [`MANIFEST_VERSION`](crate::MANIFEST_VERSION).
    Version(u64),
    /// The image has no layers.
    NoLayers,
    /// The image has more layers than [`MAX_LAYERS`](crate::MAX_LAYERS).
    TooManyLayers,
    /// The image has no root directory.
    NoRoot,
    /// The root of the image is not a directory.
    RootNotADirectory,
    /// The total size of the files is beyond what can be expressed.
    DataSize,
    /// The inodes of a layer are not in ascending order.
    InodeOrder,
    /// The fs-verity digests are not in ascending order.
    VerityOrder,

    // Inodes.
    /// There is no inode of the number asked for.
    NotFound,
    /// The inode asked for has been removed by an upper layer.
    Whiteout,
    /// There is nothing at the place asked for: a mistake of the program.
    NoSuchPlace,
    /// An inode has the number 0.
    InodeNumber,
    /// An inode is of a kind that the format does not have.
    UnknownKind,
    /// A device number is larger than the kernel's.
    DeviceNumber,
    /// The permissions have more than twelve bits.
    Permissions,
    /// The nanoseconds of a time are a second or more.
    Timestamp,

    // What only some kinds of inode have.
    /// The inode is not a regular file.
    NotAFile,
    /// The inode is not a directory.
    NotADirectory,
    /// The inode is not a symbolic link.
    NotASymlink,
    /// The target of a symbolic link is empty, too long, or contains NUL.
    SymlinkTarget,

    // Files.
    /// A chunk is empty.
    EmptyChunk,
    /// A file is larger than [`MAX_FILE_SIZE`](crate::MAX_FILE_SIZE).
    FileTooLarge,
    /// A file's chunks do not add up to the size that is declared.
    SizeMismatch,
    /// A chunk's end in its blob is beyond what can be expressed.
    BlobRange,
    /// A digest does not have 32 bytes.
    DigestLength,

    // Directories.
    /// A name in a directory is empty, too long, `.` or `..`, or contains `/` or NUL.
    Name,
    /// A directory has a name twice.
    DuplicateName,
    /// A directory has an entry whose inode does not exist. The error's inode is that one.
    DanglingEntry,
    /// The index of a directory is not of its length: a mistake of the program.
    IndexLength,

    // Extended attributes.
    /// The name of an extended attribute is too long, contains NUL, or has no namespace.
    XattrName,
    /// The value of an extended attribute is too long.
    XattrValue,

    // The caller.
    /// What the metadata was [made interruptible](crate::Metadata::interruptible) with did not want
    /// to go on.
    Interrupted,

    // Text.
    /// A text is not the lower-case hexadecimal form of a digest.
    HexDigest,
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match *self {
            Self::Truncated => "the metadata ends early",
            Self::TrailingBytes => "the metadata is followed by other bytes",
            Self::TooManySegments => "the metadata is in more than 512 segments",
            Self::Misaligned => "the metadata is not aligned to eight bytes in memory",
            Self::OtherBytes => "the metadata is not what it was when it was opened",
            Self::OutOfBounds => "a pointer leads out of the metadata",
            Self::WrongType => "a pointer in the metadata is not of the expected type",
            Self::TooDeep => "the metadata is nested too deeply",
            Self::ListTooLong => "a list is longer than the metadata could hold",
            Self::Version(version) => {
                return write!(
                    f,
                    "the image is of format version {version}, only version {} is known",
                    crate::limits::MANIFEST_VERSION
                );
            }
            Self::NoLayers => "the image has no layers",
            Self::TooManyLayers => "the image has more than 256 layers",
            Self::NoRoot => "the image has no root directory",
            Self::RootNotADirectory => "the root of the image is not a directory",
            Self::DataSize => "the total size of the files is out of range",
            Self::InodeOrder => "the inodes of a layer are not in ascending order",
            Self::VerityOrder => "the fs-verity digests are not in ascending order",
            Self::NotFound => "there is no such inode",
            Self::Whiteout => "the inode is removed by an upper layer",
            Self::NoSuchPlace => "there is nothing at this place in the metadata",
            Self::InodeNumber => "an inode has the number 0",
            Self::UnknownKind => "the inode is of an unknown kind",
            Self::DeviceNumber => "the device number is out of range",
            Self::Permissions => "the permissions have unknown bits",
            Self::Timestamp => "the nanoseconds of the modification time are out of range",
            Self::NotAFile => "the inode is not a regular file",
            Self::NotADirectory => "the inode is not a directory",
            Self::NotASymlink => "the inode is not a symbolic link",
            Self::SymlinkTarget => "the symbolic link's target is malformed",
            Self::EmptyChunk => "a chunk of the file is empty",
            Self::FileTooLarge => "the file's size is out of range",
            Self::SizeMismatch => "the file's chunks do not add up to its size",
            Self::BlobRange => "a chunk of the file ends out of range",
            Self::DigestLength => "a digest does not have 32 bytes",
            Self::Name => "a name in the directory is malformed",
            Self::DuplicateName => "the directory has a name twice",
            Self::DanglingEntry => "a directory names the inode, which does not exist",
            Self::IndexLength => "the directory's index is not of its length",
            Self::XattrName => "the name of an extended attribute is malformed",
            Self::XattrValue => "the value of an extended attribute is too long",
            Self::Interrupted => "interrupted",
            Self::HexDigest => "not a digest: 64 digits 0-9 and a-f are expected",
        };
        f.write_str(text)
    }
}
