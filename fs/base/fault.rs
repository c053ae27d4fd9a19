// SPDX-License-Identifier: GPL-2.0

//! Why a part of a blob cannot be read.

use crate::base::message::ErrorName;
use crate::vfs::prelude::*;

/// Why a part of a blob cannot be read.
#[derive(Clone, Copy)]
pub(crate) enum Fault {
    /// The filesystem below gave an error, or there is no memory.
    Error(Error),
    /// The blob is not open, and the caller must not wait until it is.
    NotOpen,
    /// The seek table is malformed.
    SeekTable(puzzlefs_schema::SeekTableError),
    /// The blob ends too early.
    TooShort,
    /// The blob is too large to be verified as a whole.
    TooLarge,
    /// The blob's digest is not its name.
    Digest,
    /// The filesystem below does not verify the blob.
    NoVerity,
    /// The filesystem below verifies the blob against another digest than the image's.
    Verity,
    /// A frame cannot be decompressed.
    Frame,
    /// A frame has another size than the seek table says.
    FrameSize,
    /// A frame has another checksum than the seek table says.
    Checksum,
}

impl Fault {
    /// Whether the task gave up reading because it is being killed: nothing is wrong then.
    pub(crate) fn is_interruption(&self) -> bool {
        matches!(self, Self::Error(e) if *e == EINTR || *e == ERESTARTSYS)
    }

    /// Whether the task waited in vain for the blob to be opened.
    pub(crate) fn is_timeout(&self) -> bool {
        matches!(self, Self::Error(e) if *e == EDEADLK)
    }

    /// The error that a caller gets.
    pub(crate) fn error(self) -> Error {
        match self {
            Self::Error(e) => e,
            _ => EIO,
        }
    }

    /// The error, if it tells nothing of the blob: the task gave up, or there is no memory.
    pub(crate) fn passing(&self) -> Option<Error> {
        match self {
            Self::Error(e) if self.is_interruption() || *e == ENOMEM => Some(*e),
            _ => None,
        }
    }

    /// Whether what was read is not what the image, or the blob's own checksums, want.
    pub(crate) fn is_verification(&self) -> bool {
        matches!(
            self,
            Self::Digest | Self::NoVerity | Self::Verity | Self::Checksum
        )
    }
}

impl From<Error> for Fault {
    fn from(e: Error) -> Self {
        Self::Error(e)
    }
}

impl From<kernel::alloc::AllocError> for Fault {
    fn from(e: kernel::alloc::AllocError) -> Self {
        Self::Error(e.into())
    }
}

impl From<puzzlefs_schema::SeekTableError> for Fault {
    fn from(e: puzzlefs_schema::SeekTableError) -> Self {
        Self::SeekTable(e)
    }
}

impl kernel::fmt::Display for Fault {
    fn fmt(&self, f: &mut kernel::fmt::Formatter<'_>) -> kernel::fmt::Result {
        f.write_str(match self {
            Self::Error(e) => return kernel::fmt::Display::fmt(&ErrorName(*e), f),
            Self::NotOpen => "it is not open",
            Self::SeekTable(e) => return core::fmt::Display::fmt(e, f),
            Self::TooShort => "it ends too early",
            Self::TooLarge => "it is too large to be verified",
            Self::Digest => "its contents have another digest",
            Self::NoVerity => "fs-verity is not enabled on it",
            Self::Verity => "its fs-verity digest is not the image's",
            Self::Frame => "a frame cannot be decompressed",
            Self::FrameSize => "a frame has another size than the seek table says",
            Self::Checksum => "a frame has another checksum than the seek table says",
        })
    }
}
