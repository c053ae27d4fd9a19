// SPDX-License-Identifier: MIT OR Apache-2.0

//! The stores, the options and the result of a copy.

use crate::error::{CommandError, Result};
use crate::model::count::Count;
use crate::model::digest::Digest;
use crate::store::oci_layout::Store;
use crate::store::staging::{Placed, Staging};
use crate::sys::progress::Progress;

/// The result of a copy. Manifests count, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Blobs that the store did not have.
    pub new: Count,
    /// Blobs that it had.
    pub shared: Count,
    /// Packs of the manifests of which the store has the chunks, and not the pack itself. The images are
    /// not complete there.
    pub partial_packs: u64,
}

/// Options of a copy.
#[derive(Clone, Copy, Debug)]
pub struct CopyOptions {
    /// Blobs to copy at once.
    pub jobs: usize,
    /// Read the blobs that are there already, and replace those that are damaged.
    pub check: bool,
    /// Copy whole packs, also if the store has a part of their chunks.
    pub whole_packs: bool,
}

/// A copy from one store to another.
pub(super) struct Copy<'a> {
    pub from: &'a Store,
    pub to: &'a Store,
    pub staging: &'a Staging<'a>,
    pub options: CopyOptions,
    pub progress: &'a Progress,
}

impl Copied {
    pub(super) fn add(&mut self, placed: Placed, bytes: u64) {
        match placed {
            Placed::New => self.new.add(bytes),
            Placed::Shared => self.shared.add(bytes),
        }
    }
}

/// Removes a damaged blob of the store `to` if the store `from` has the intact one.
pub(super) fn remove_damaged(
    from: &Store,
    to: &Store,
    digest: &Digest,
    size: u64,
    buffer: &mut [u8],
) -> Result<()> {
    // One of another size is replaced without being read.
    if to.blob_size(digest)? != Some(size) || to.digest_of_blob(digest, buffer)? == *digest {
        return Ok(());
    }
    let found = from.digest_of_blob(digest, buffer)?;
    if found != *digest {
        let path = from.blob_path(digest);
        return Err(CommandError::DamagedInBoth { path, found }.into());
    }
    to.remove_blob(digest)
}
