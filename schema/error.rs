// SPDX-License-Identifier: MIT OR Apache-2.0

//! The errors of reading an image's metadata.

use core::{fmt, num::NonZeroU64};

/// The result of reading metadata.
pub type Result<T> = core::result::Result<T, Error>;

/// An error in an image's metadata, with the inode that it is about.
///
/// It prints as a sentence that begins with the inode's number, if that is known. Print
/// [`Error::kind`] to name the inode in another way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    ino: Option<NonZeroU64>,
}

impl Error {
    pub(crate) const fn new(kind: ErrorKind) -> Self {
        Self { kind, ino: None }
    }

    /// Sets the inode that the error is about, unless it is known already.
    pub(crate) fn of(self, ino: u64) -> Self {
        Self {
            kind: self.kind,
            ino: self.ino.or(NonZeroU64::new(ino)),
        }
    }

    /// Returns the kind of the error.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Returns the number of the inode that the error is about, if it is known.
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

/// The kinds of errors in an image's metadata, and in calls of its reader.
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
    /// The address of the bytes is not a multiple of eight. The caller is wrong, not the image.
    Misaligned,
    /// The framing was made of other bytes. The caller is wrong.
    OtherBytes,

    // The encoding.
    /// A pointer leads out of the message.
    OutOfBounds,
    /// A pointer is not of the type that the schema gives it.
    WrongType,
    /// The message is nested more deeply than the schema allows.
    TooDeep,
    /// A list has more elements than the message can hold.
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
    /// The total size of the files is out of range.
    DataSize,
    /// The inodes of a layer are not in ascending order.
    InodeOrder,
    /// The fs-verity digests are not in ascending order.
    VerityOrder,

    // Inodes.
    /// There is no inode of the number.
    NotFound,
    /// An upper layer has removed the inode.
    Whiteout,
    /// There is nothing at the place. The caller is wrong.
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

    // Properties of only some kinds of inodes.
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
    /// A chunk's end in its blob is out of range.
    BlobRange,
    /// A digest does not have 32 bytes.
    DigestLength,

    // Directories.
    /// A name in a directory is empty, too long, `.` or `..`, or contains `/` or NUL.
    Name,
    /// A directory has a name twice.
    DuplicateName,
    /// A directory has an entry whose inode does not exist. The error is about the missing inode.
    DanglingEntry,
    /// The index of a directory does not have its length. The caller is wrong.
    IndexLength,

    // Extended attributes.
    /// The name of an extended attribute is too long, contains NUL, or has no namespace.
    XattrName,
    /// The value of an extended attribute is too long.
    XattrValue,

    // The caller.
    /// The function of [`Metadata::interruptible`](crate::Metadata::interruptible) returned false.
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
            Self::OtherBytes => "the metadata has changed since it was opened",
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
