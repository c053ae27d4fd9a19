// SPDX-License-Identifier: MIT OR Apache-2.0

//! Violated rules of metadata chunks.

use super::chunk::ChunkError;
use core::fmt;

/// The result of reading a metadata chunk.
pub(super) type Result<T> = core::result::Result<T, MetadataError>;

/// A list of a metadata message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ListName {
    /// Blocks or block lists.
    Children,
    /// Inodes.
    Inodes,
    /// Entries of directories.
    Entries,
    /// Extents of files.
    Extents,
    /// References to chunks.
    Chunks,
    /// Parts of long lists.
    Parts,
    /// Sets of extended attributes.
    Sets,
    /// Extended attributes.
    Attributes,
}

impl fmt::Display for ListName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Children => "child",
            Self::Inodes => "inode",
            Self::Entries => "entry",
            Self::Extents => "extent",
            Self::Chunks => "chunk",
            Self::Parts => "part",
            Self::Sets => "attribute set",
            Self::Attributes => "attribute",
        })
    }
}

/// A violated rule of a metadata chunk, and the element of the message that violates it.
///
/// It prints as a clause that begins with the element, if there is one: "inode 7 of the block: …".
/// Elements are counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetadataError {
    kind: MetadataErrorKind,
    element: Option<(ListName, u32)>,
}

impl MetadataError {
    /// Adds the element that the error is about, unless there is one already.
    pub(super) fn at(self, list: ListName, index: u32) -> Self {
        Self {
            kind: self.kind,
            element: self.element.or(Some((list, index))),
        }
    }

    /// The violated rule.
    pub const fn kind(&self) -> MetadataErrorKind {
        self.kind
    }

    /// The element that violates the rule: its list and its place there.
    pub const fn element(&self) -> Option<(ListName, u32)> {
        self.element
    }
}

impl From<MetadataErrorKind> for MetadataError {
    fn from(kind: MetadataErrorKind) -> Self {
        Self {
            kind,
            element: None,
        }
    }
}

impl From<ChunkError> for MetadataError {
    fn from(e: ChunkError) -> Self {
        MetadataErrorKind::Chunk(e).into()
    }
}

impl fmt::Display for MetadataError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((list, index)) = self.element {
            write!(f, "{list} {index}: ")?;
        }
        fmt::Display::fmt(&self.kind, f)
    }
}

impl core::error::Error for MetadataError {}

/// A violated rule of a metadata chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MetadataErrorKind {
    // The message.
    /// The message is larger than [`MAX_METADATA_CONTENT`](super::MAX_METADATA_CONTENT).
    MessageTooLarge,
    /// The chunk ends before its message does.
    Truncated,
    /// Bytes follow the message.
    TrailingBytes,
    /// The message has more than one segment.
    Segments,
    /// A pointer leads out of the message.
    OutOfBounds,
    /// A pointer has another type than the schema gives it.
    PointerType,
    /// A struct is smaller than the schema makes it.
    StructSize,
    /// The elements of a list have pointers.
    PointersInList,
    /// The length of a list of structs differs from the length of its elements.
    ListLength,
    /// The lists of a block or a list block overlap, or lie in another order than their pointers.
    ListOrder,
    /// The message has another version than [`VERSION`](super::VERSION).
    Version(u16),
    /// The message has another kind than the reference to it requires.
    MessageKind(u16),

    // Roots and block lists.
    /// The level of a root is not 0 or 1.
    RootLevel,
    /// A root or a block list has no children, or more than [`MAX_CHILDREN`](super::MAX_CHILDREN).
    ChildCount,
    /// A child has no inodes, more inodes than its blocks can have, or an impossible number of
    /// blocks.
    ChildSize,
    /// The children of a root do not have as many inodes as the root states.
    InodeCount,
    /// The data of an image has more than [`MAX_FILE_SIZE`](crate::MAX_FILE_SIZE) bytes.
    DataSize,
    /// A block or a block list has other numbers of inodes or blocks than its parent states.
    ChildMismatch,

    // Blocks.
    /// A block has no inodes, or more than [`MAX_BLOCK_INODES`](super::MAX_BLOCK_INODES).
    BlockInodes,
    /// A range does not lie in its list or in the pool.
    Range,
    /// A range does not begin where the range of the element before ends.
    RangeOrder,
    /// Elements of the list lie in no range.
    Unused,
    /// The lengths of a chunk reference are invalid.
    Chunk(ChunkError),
    /// A chunk number is not smaller than the number of chunks.
    ChunkNumber,

    // Inodes.
    /// The type of an inode is not one of seven.
    InodeType,
    /// The link count of an inode is 0.
    Links,
    /// The nanoseconds of a time are a second or more.
    Nanoseconds,
    /// The number of an attribute set is larger than the number of sets.
    SetNumber,
    /// A field that the type of the inode does not use is not 0.
    UnusedField,
    /// The inode is marked long, but is neither a directory nor a regular file.
    LongType,
    /// A device number is larger than 2^32 - 1: 12 bits for the major, 20 for the minor number.
    DeviceNumber,
    /// The target of a symbolic link is empty, too long, or contains NUL.
    SymlinkTarget,

    // Directories.
    /// A name is empty, `.` or `..`, or contains `/` or NUL.
    Name,
    /// The names of a directory do not ascend strictly.
    NameOrder,
    /// The type of an entry is not one of seven.
    EntryType,

    // Files.
    /// A file is larger than [`MAX_FILE_SIZE`](crate::MAX_FILE_SIZE).
    FileSize,
    /// A file that has a size has no extents, or the other way round.
    ExtentCount,
    /// The first extent of a file does not begin at 0.
    FirstExtent,
    /// The offsets of extents do not ascend strictly.
    ExtentOrder,
    /// An extent begins at or after the end of its file.
    LastExtent,
    /// An extent exceeds the content of its chunk.
    ExtentContent,
    /// A hole has an offset in a chunk.
    HoleOffset,

    // Extended attributes.
    /// The name of an attribute has no namespace, or contains NUL.
    AttributeName,
    /// The names of an attribute set do not ascend strictly.
    AttributeOrder,
    /// The value of an attribute has more than
    /// [`MAX_XATTR_VALUE_LEN`](crate::MAX_XATTR_VALUE_LEN) bytes.
    ValueLength,
    /// The chunk of a value has another content length than the value.
    ValueChunk,
    /// A set has no attributes.
    EmptySet,

    // Long lists.
    /// A long list has no parts.
    NoParts,
    /// A part has no elements.
    EmptyPart,
    /// The first names or offsets of parts do not ascend strictly.
    PartOrder,
    /// A long list has more elements than can be expressed.
    PartCount,
    /// A list block belongs to neither a directory nor a regular file.
    ListType,
    /// The level of a list block is 3 or more, or its lists are not those of its type and level.
    ListLevel,

    // References between chunks.
    /// A list block belongs to an inode of another type than the reference to it.
    ListTypeMismatch,
    /// The level of a list block is not lower than that of the reference to it.
    ListLevelMismatch,
    /// A list block has another number of elements than the reference to it states.
    ListCountMismatch,
    /// A list block begins with another name or offset than the reference to it states.
    ListFirstMismatch,
    /// The elements of a list block do not end before those of the next one begin.
    ListEndMismatch,
    /// A block does not have the inode that an entry or a parent refers to.
    NoSuchInode,
    /// The inode has another type than the entry that refers to it.
    TypeMismatch,
    /// The parent of a directory is not a directory.
    ParentType,
    /// The first inode of an image is not a directory.
    RootType,

    // The caller.
    /// The bytes are not those that were checked, or the inode has another type: a programming
    /// error.
    Misuse,
}

impl fmt::Display for MetadataErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MessageTooLarge => "the metadata chunk is larger than 262144 bytes",
            Self::Truncated => "the metadata chunk ends early",
            Self::TrailingBytes => "bytes follow the metadata message",
            Self::Segments => "the metadata message has more than one segment",
            Self::OutOfBounds => "a pointer leads out of the message",
            Self::PointerType => "a pointer has a wrong type",
            Self::StructSize => "a struct of the message is too small",
            Self::PointersInList => "the elements of a list have pointers",
            Self::ListLength => "a list has another length than its elements",
            Self::ListOrder => "the lists of the message overlap or lie in another order",
            Self::Version(version) => {
                return write!(f, "the metadata has version {version}, expected 4")
            }
            Self::MessageKind(kind) => {
                return write!(
                    f,
                    "the metadata chunk is of another kind than its reference: {kind}"
                )
            }
            Self::RootLevel => "the level of the root is not 0 or 1",
            Self::ChildCount => "the number of children is not 1 to 1024",
            Self::ChildSize => "the number of inodes or blocks is impossible",
            Self::InodeCount => "the children have another number of inodes than the root states",
            Self::DataSize => "the size of the data is out of range",
            Self::ChildMismatch => {
                "the chunk has other numbers of inodes or blocks than its reference states"
            }
            Self::BlockInodes => "the number of inodes in the block is not 1 to 65536",
            Self::Range => "a range does not lie in its list",
            Self::RangeOrder => "a range does not begin where the one before ends",
            Self::Unused => "the elements from this one on belong to nothing",
            Self::Chunk(e) => return fmt::Display::fmt(e, f),
            Self::ChunkNumber => "the chunk number is out of range",
            Self::InodeType => "the type of the inode is unknown",
            Self::Links => "the link count is 0",
            Self::Nanoseconds => "the nanoseconds of the modification time are out of range",
            Self::SetNumber => "the number of the attribute set is out of range",
            Self::UnusedField => "a field that the type of the inode does not use is not 0",
            Self::LongType => "an inode without a list is marked long",
            Self::DeviceNumber => "the device number is out of range",
            Self::SymlinkTarget => "the target of the symbolic link is malformed",
            Self::Name => "the name is malformed",
            Self::NameOrder => "the name does not ascend",
            Self::EntryType => "the type of the entry is unknown",
            Self::FileSize => "the size of the file is out of range",
            Self::ExtentCount => "the file's extents and its size contradict each other",
            Self::FirstExtent => "the first extent does not begin at 0",
            Self::ExtentOrder => "the offset of the extent does not ascend",
            Self::LastExtent => "the extent begins after the end of its file",
            Self::ExtentContent => "the extent exceeds the content of its chunk",
            Self::HoleOffset => "the hole has an offset in a chunk",
            Self::AttributeName => "the name of the attribute is malformed",
            Self::AttributeOrder => "the name of the attribute does not ascend",
            Self::ValueLength => "the value of the attribute has more than 65536 bytes",
            Self::ValueChunk => "the chunk of the value has another content length than the value",
            Self::EmptySet => "the attribute set is empty",
            Self::NoParts => "the long list has no parts",
            Self::EmptyPart => "the part has no elements",
            Self::PartOrder => "the first element of the part does not ascend",
            Self::PartCount => "the long list has too many elements",
            Self::ListType => "the list block belongs to neither a directory nor a regular file",
            Self::ListLevel => "the lists of the list block do not match its level",
            Self::ListTypeMismatch => "the list block is one of another type of inode",
            Self::ListLevelMismatch => "the level of the list block is too high",
            Self::ListCountMismatch => {
                "the list block has another number of elements than its reference states"
            }
            Self::ListFirstMismatch => {
                "the list block begins with another element than its reference states"
            }
            Self::ListEndMismatch => "the list block overlaps the next one",
            Self::NoSuchInode => "the block does not have the inode that is referred to",
            Self::TypeMismatch => "the inode has another type than its directory entry",
            Self::ParentType => "the parent of the directory is not a directory",
            Self::RootType => "the first inode of the image is not a directory",
            Self::Misuse => "the bytes are not those that were checked",
        })
    }
}
