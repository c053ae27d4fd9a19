// SPDX-License-Identifier: MIT OR Apache-2.0

//! Faults of tar archives, with their places.

use crate::model::acl::AclFault;
use std::fmt;

/// A fault of a tar archive, with its place.
#[derive(Debug, PartialEq, Eq)]
pub struct MalformedTar {
    /// The place of the fault.
    pub place: TarPlace,
    /// The fault.
    pub fault: TarFault,
}

impl fmt::Display for MalformedTar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            TarPlace::Archive => {}
            TarPlace::Member(name) => write!(f, "{}: ", String::from_utf8_lossy(name))?,
            TarPlace::GlobalHeader { at } => {
                write!(f, "{}, at byte {at}: ", Extension::GlobalHeader)?;
            }
        }
        self.fault.fmt(f)
    }
}

impl std::error::Error for MalformedTar {}

/// The part of a tar archive that has a fault.
#[derive(Debug, PartialEq, Eq)]
pub enum TarPlace {
    /// The archive as a whole.
    Archive,
    /// The member of this path.
    Member(Vec<u8>),
    /// A PAX header for all members that follow.
    GlobalHeader {
        /// The position of the header in the archive.
        at: u64,
    },
}

/// A fault of a tar archive.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TarFault {
    /// The first header is damaged.
    #[error("neither a directory nor a tar archive, or damaged at its beginning")]
    NotTar,
    /// The file ends in its first header.
    #[error("too short for a tar archive: truncated, or another format")]
    TooShort,
    /// The archive ends in a header or in the data of a member.
    #[error("it is truncated")]
    Truncated,
    /// A header does not match its checksum.
    #[error("the header before byte {end}{} is damaged", Behind(.behind))]
    Header {
        /// The position of the byte that follows the header.
        end: u64,
        /// The path of the member before it; empty if there is none.
        behind: Vec<u8>,
    },
    /// A number of a header is negative.
    #[error("a header has a negative number")]
    NegativeNumber,
    /// A number of a header is malformed, or does not fit into 64 bits.
    #[error("a header has a malformed number")]
    HeaderNumber,
    /// The number of a device has more bits than on Linux.
    #[error("{major}:{minor} is not a valid device number")]
    Device {
        /// The major number.
        major: u64,
        /// The minor number.
        minor: u64,
    },
    /// A user or group ID has more than 32 bits, or is the invalid one.
    #[error("{0} is not a valid user or group ID")]
    Id(u64),
    /// The member is the continuation of one in another volume.
    #[error("begins in another volume; join the volumes first")]
    OtherVolume,
    /// The data of a member is larger than a file of an image.
    #[error("larger than the largest file, 8 EiB")]
    FileTooLarge,
    /// A header that describes members is larger than the limit.
    #[error("{extension} of {size} bytes; {max} are allowed")]
    ExtensionTooLarge {
        /// The header.
        extension: Extension,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        max: u64,
    },
    /// The records of all global PAX headers together are larger than the limit.
    #[error("too many records in global PAX headers")]
    TooManyRecords,
    /// The records of a PAX header are malformed.
    #[error("a PAX header is damaged")]
    PaxHeader,
    /// A number of a PAX header is malformed, or does not fit into 64 bits.
    #[error("a PAX header has a malformed number")]
    PaxNumber,
    /// A path of a PAX header is longer than the limit.
    #[error("a name is too long")]
    NameTooLong,
    /// A time of a PAX header is not a number of seconds. Holds the beginning of its text.
    #[error("'{}' is not a time in seconds", String::from_utf8_lossy(.0))]
    Time(Vec<u8>),
    /// A time of a PAX header does not fit into 64 bits.
    #[error("a time is out of range")]
    TimeRange,
    /// The name or the value of an extended attribute is encoded wrongly.
    #[error("an extended attribute is malformed")]
    Xattr,
    /// An extended attribute is larger than one of an image, or its name has a zero byte.
    #[error("an extended attribute is too large")]
    XattrTooLarge,
    /// An access control list cannot be converted.
    #[error("{0}")]
    Acl(#[from] AclFault),
    /// A sparse file is malformed.
    #[error("sparse file {0}")]
    Sparse(#[from] SparseFault),
}

/// A header that describes the members behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extension {
    /// A PAX header of one member.
    Header,
    /// A PAX header for all members that follow.
    GlobalHeader,
    /// GNU's header with a long path, or with a long target of a link.
    LongName,
}

impl fmt::Display for Extension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Extension::Header => "a PAX header",
            Extension::GlobalHeader => "a global PAX header",
            Extension::LongName => "a name",
        })
    }
}

/// A fault of the map of a sparse file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SparseFault {
    /// The version of the map is not known.
    #[error("of an unknown version")]
    Version,
    /// The size of the file is not given.
    #[error("without its size")]
    NoSize,
    /// The map has more pieces than the limit.
    #[error("in too many pieces")]
    TooManyPieces,
    /// The data ends within the map.
    #[error("with an unfinished map")]
    UnfinishedMap,
    /// The map has a line that is too long.
    #[error("with a malformed map")]
    MalformedMap,
    /// The map ends behind the offset of a piece.
    #[error("with half a piece")]
    HalfPiece,
    /// The pieces are not in ascending order.
    #[error("with pieces that overlap or are out of order")]
    Order,
    /// A piece ends behind the file.
    #[error("with a piece beyond its end")]
    BeyondEnd,
    /// The data has another size than the pieces together.
    #[error("with more or less data than its pieces have")]
    DataSize,
}

/// The member before a damaged header, in a message.
struct Behind<'a>(&'a [u8]);

impl fmt::Display for Behind<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            b"" => Ok(()),
            name => write!(f, ", behind '{}',", String::from_utf8_lossy(name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_begin_with_the_place() {
        let message = |place, fault| MalformedTar { place, fault }.to_string();
        let name = || b"dir/file".to_vec();
        for (place, fault, wanted) in [
            (TarPlace::Archive, TarFault::Truncated, "it is truncated"),
            (
                TarPlace::Member(name()),
                TarFault::from(SparseFault::HalfPiece),
                "dir/file: sparse file with half a piece",
            ),
            (
                TarPlace::GlobalHeader { at: 1024 },
                TarFault::PaxHeader,
                "a global PAX header, at byte 1024: a PAX header is damaged",
            ),
            (
                TarPlace::Archive,
                TarFault::Header {
                    end: 512,
                    behind: Vec::new(),
                },
                "the header before byte 512 is damaged",
            ),
            (
                TarPlace::Archive,
                TarFault::Header {
                    end: 1536,
                    behind: name(),
                },
                "the header before byte 1536, behind 'dir/file', is damaged",
            ),
        ] {
            assert_eq!(message(place, fault), wanted);
        }
    }
}
