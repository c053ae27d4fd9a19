// SPDX-License-Identifier: MIT OR Apache-2.0

//! Limits that several modules keep to.

/// The memory that a member takes beside its name and attributes, in bytes.
pub(crate) const MEMBER_COST: u64 = 256;

/// The most elements of a list, and the most words of a segment, are 2^29 - 1 on the wire. No
/// struct of a list has more than 16 words.
pub(crate) const LIST_MAX: usize = (1 << 29) / 16;

/// The largest `index.json` read, in bytes.
pub(crate) const INDEX_MAX: u64 = 64 << 20;

/// The largest manifest read, in bytes: about two million blobs.
pub(crate) const MANIFEST_MAX: u64 = 512 << 20;

/// The size of one read of a file or a blob, and of buffers for streams, in bytes.
pub(crate) const READ_SIZE: usize = 256 << 10;
