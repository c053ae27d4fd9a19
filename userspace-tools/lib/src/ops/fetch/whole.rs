// SPDX-License-Identifier: MIT OR Apache-2.0

//! The final check of a fetch.

use crate::error::{Error, FetchError, Result, StoreError};
use crate::image::chunk_walk::{ChunkKind, ChunkWalk};
use crate::model::digest::Digest;
use crate::store::chunks::reader::ChunkReader;
use crate::store::oci_layout::Store;

/// Fails if the store lacks a chunk of an image, or metadata is not well-formed.
pub(super) fn check_whole(store: &Store, root: &Digest) -> Result<()> {
    let reader = ChunkReader::of_index(store)?;
    let mut missing = Ok(());
    let walked = ChunkWalk::new(&reader).image(root, |chunk, kind| {
        let digest = Digest::from(*chunk.digest());
        if kind == ChunkKind::Data && missing.is_ok() {
            missing = match reader.find(&digest) {
                Ok(Some(_)) => Ok(()),
                Ok(None) => Err(FetchError::NotWhole { chunk: digest }.into()),
                Err(error) => Err(error),
            };
        }
    });
    match walked {
        Err(Error::Store(StoreError::ChunkMissing { digest, .. })) => {
            Err(FetchError::NotWhole { chunk: digest }.into())
        }
        Err(error) => Err(error),
        Ok(()) => missing,
    }
}
