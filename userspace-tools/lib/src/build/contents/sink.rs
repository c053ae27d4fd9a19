// SPDX-License-Identifier: MIT OR Apache-2.0

//! The storage of contents, which differs between versions of the image format.

use crate::error::Result;
use crate::model::digest::Digest;
use crate::model::tree::NodeId;
use std::borrow::Cow;

/// The position of a piece of content in the order that does not depend on threads.
///
/// Unit 0 has the bundles of small files, by their numbers. Unit `n + 1` has the pieces of the large file
/// of number `n`, in the order in which they were cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Turn {
    pub unit: u32,
    /// 0 for the first piece of the unit, and so on.
    pub number: u32,
}

/// The files that a content was read from.
#[derive(Clone, Debug)]
pub(crate) enum Provenance {
    /// A large file, from this offset on.
    File(NodeId, u64),
    /// A bundle of small files.
    Bundle {
        /// The SHA-256 of the SHA-256 of each file, one after the other.
        digest: Digest,
        /// The first files, with their offsets in the bundle.
        first_files: Vec<(NodeId, u32)>,
    },
}

/// Stores the contents that several threads read.
pub(crate) trait ContentSink: Sync {
    /// State that each thread has for itself.
    type Local: Default;
    /// Identifies a content. Contents with one key are equal.
    type Key: Copy + Send;

    /// Stores a content, and returns its key. The same content can come several times, with several turns.
    fn store(
        &self,
        turn: Turn,
        bytes: Cow<'_, [u8]>,
        from: &Provenance,
        local: &mut Self::Local,
    ) -> Result<Self::Key>;

    /// Makes runs of zeros storable.
    fn store_zeros(&self, local: &mut Self::Local) -> Result<()>;

    /// Takes note that a unit has so many turns and no more.
    fn end_unit(&self, unit: u32, turns: u32) -> Result<()>;
}
