// SPDX-License-Identifier: MIT OR Apache-2.0

//! Extents: where the content of a file is.

use crate::model::digest::Digest;
use std::ops::Deref;
use std::slice;

/// A piece of a file: a range of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The blob.
    pub blob: Digest,
    /// The offset in the content of the blob.
    pub offset: u64,
    /// Its length in bytes.
    pub length: u64,
    /// The blob is compressed.
    pub compressed: bool,
}

impl From<puzzlefs_schema::Chunk> for Extent {
    fn from(chunk: puzzlefs_schema::Chunk) -> Self {
        Extent {
            blob: Digest(*chunk.blob.as_bytes()),
            offset: chunk.blob_offset,
            length: chunk.len,
            compressed: chunk.compressed,
        }
    }
}

/// The extents of a file, in order. Most files have one, which then takes no memory of its own.
#[derive(Clone, Debug)]
pub enum Extents {
    /// The only one.
    One(Extent),
    /// Any number of them.
    Many(Vec<Extent>),
}

impl Default for Extents {
    fn default() -> Self {
        Extents::Many(Vec::new())
    }
}

impl Extents {
    /// Adds an extent behind the others.
    pub(crate) fn push(&mut self, extent: Extent) {
        match self {
            Extents::One(first) => *self = Extents::Many(vec![*first, extent]),
            Extents::Many(extents) if extents.is_empty() => *self = Extents::One(extent),
            Extents::Many(extents) => extents.push(extent),
        }
    }
}

impl Deref for Extents {
    type Target = [Extent];

    fn deref(&self) -> &[Extent] {
        match self {
            Extents::One(extent) => slice::from_ref(extent),
            Extents::Many(extents) => extents,
        }
    }
}
