// SPDX-License-Identifier: MIT OR Apache-2.0

//! Chunks that have arrived, on their way into the store.

use super::queue::ArrivedChunk;
use crate::error::{is_full, Error, Result};
use crate::store::chunks::update::{add_packs, NewPack};
use crate::store::chunks::writer::{PackSeries, PACK_ALIGNMENT};
use crate::store::oci_layout::Store;
use crate::store::staging::{Content, Staging};
use rustix::io::Errno;

/// The most chunks that become files of their own. More of them become a pack, which takes a change of the
/// chunk index.
const LOOSE_MAX: usize = 16;

/// Puts chunks into a store, durably. The store is locked against `gc` only meanwhile.
pub(super) fn commit(store: &Store, chunks: &[ArrivedChunk]) -> Result<()> {
    let staging = Staging::new(store)?;
    if chunks.len() <= LOOSE_MAX {
        for (digest, stored) in chunks {
            staging.put(digest, Content::Bytes(&[stored]))?;
        }
        return staging.commit();
    }
    let mut series = PackSeries::new(&staging);
    for (digest, stored) in chunks {
        series.add(digest, stored, PACK_ALIGNMENT)?;
    }
    let packs: Vec<NewPack> = series.finish()?.into_iter().map(|(pack, _)| pack).collect();
    staging.commit()?;
    add_packs(store, &packs)
}

/// Returns the error number of a failure, for the answer to a request.
pub(super) fn errno(error: &Error) -> Errno {
    match error.system_cause() {
        Some(cause) if is_full(cause) => Errno::NOSPC,
        _ => Errno::IO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::ErrorKind;

    #[test]
    fn a_full_disk_has_a_number_of_its_own() {
        let of = |kind: ErrorKind| errno(&Error::io("/s", "write")(std::io::Error::from(kind)));
        assert_eq!(of(ErrorKind::StorageFull), Errno::NOSPC);
        assert_eq!(of(ErrorKind::QuotaExceeded), Errno::NOSPC);
        assert_eq!(of(ErrorKind::NotFound), Errno::IO);
        assert_eq!(errno(&Error::Remote("broken".into())), Errno::IO);
    }
}
