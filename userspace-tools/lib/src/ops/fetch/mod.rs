// SPDX-License-Identifier: MIT OR Apache-2.0

//! Fetches images from sources that are not trusted: only what the store lacks.
//!
//! | step | content |
//! | --- | --- |
//! | plan | reads the index of each pack that the store lacks, and compares it with the store's chunk index |
//! | transfer | fetches blobs, whole packs and ranges of packs, several at once |
//! | check | follows the image from its root: every chunk exists, and all metadata is well-formed |
//! | tag | sets the tag |
//!
//! Each chunk is compared with its digest before it enters the store, and each blob, too. Data
//! that has arrived stays in the store if a later step fails or the process is killed, so another attempt
//! fetches the rest. `puzzlefs gc` removes it.
//!
//! [`prepare`] makes an image that can be mounted before its data has arrived, and a [`Service`] then fetches
//! chunks when the kernel module requests them.
//!
//! | module | content |
//! | --- | --- |
//! | `control` | the socket by which other processes talk to a fetcher |
//! | `serve` | fetches chunks on request, and the rest in the background |
//! | `status` | counts the chunks of images that are there |
//! | `whole_metadata` | brings the metadata that a prepared image lacks |
//! | `lazy` | prepares an image whose chunks are fetched later |
//! | `packs` | fetches packs |
//! | `arrived` | brings data that has arrived into the store |
//! | `metadata` | fetches the metadata of an image that is prepared |
//! | `commit` | puts chunks that have arrived on demand into the store |
//! | `whole` | checks that all chunks of an image are there |
//! | `pack_index` | reads the index of a pack |
//! | `manifest` | reads the manifest |
//! | `cutter` | cuts a stream into chunks |
//! | `plan` | the ranges of a pack that are requested |
//! | `pauses` | the pauses after failures |
//! | `source` | the source of blobs |

mod arrived;
mod commit;
mod control;
mod cutter;
mod lazy;
mod manifest;
mod metadata;
mod pack_index;
mod packs;
mod pauses;
mod plan;
mod serve;
mod source;
mod status;
#[cfg(test)]
mod tests;
mod whole;
mod whole_metadata;

use self::arrived::Arrived;
pub use self::control::{
    Conversation, FetcherReply, FetcherRequest, FetcherSocket, FetcherStatus, LastError,
    SIGN_OF_LIFE,
};
pub use self::lazy::{prepare, LazyImage, LazyOptions};
use self::manifest::RemoteManifest;
pub use self::pauses::RetryPauses;
pub use self::serve::{Claim, Expected, Served, Service, ServiceStatus};
pub use self::source::{BlobSource, FetchOptions, ImageSource, RemoteBlob};
pub use self::status::{fetch_status, ImageStatus};
use self::whole::check_whole;
pub use self::whole_metadata::fetch_metadata;
use crate::error::Result;
use crate::model::count::Count;
use crate::model::digest::Digest;
use crate::model::oci::{self, Descriptor};
pub use crate::store::fetches::{parse_rate, Completion, FetchRecord};
use crate::store::locks::FetchLock;
use crate::store::oci_layout::Store;
use crate::store::staging::{Content, Placed, Staging};
use crate::sys::progress::Progress;

/// The result of a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// The digest of the manifest.
    pub manifest: Digest,
    /// Blobs that the store did not have. Packs of single chunks count, too.
    pub new: Count,
    /// Blobs that it had.
    pub shared: Count,
    /// Packs of the manifest of which the store has the chunks, and not the pack itself.
    pub partial_packs: u64,
}

/// Fetches an image with this manifest into a store, and sets the tag.
///
/// # Errors
///
/// If the manifest is not that of a PuzzleFS image, or the source does not have the image as the manifest
/// says. The tag then stays as it was.
pub fn fetch(
    source: &dyn BlobSource,
    manifest: &[u8],
    to: &Store,
    tag: &str,
    options: FetchOptions,
    progress: &Progress,
) -> Result<Fetched> {
    let image = RemoteManifest::parse(manifest)?;
    let staging = Staging::new(to)?;
    let _alone = FetchLock::take(to.locked(), &image.digest, progress)?;
    // Without an index, `gc` could not remove the remains of a failed fetch.
    if to.written_index()?.is_none() {
        to.change_index(|_| Ok(()))?;
    }
    let arrived = Arrived::new(to, &staging);
    let transfer = packs::Transfer::new(source, &arrived, options, progress)?;
    let size = manifest.len() as u64;
    // Packs are not needed if the store has all chunks, from an earlier fetch or from other images.
    let is_whole = image
        .root
        .is_some_and(|root| check_whole(to, &root).is_ok());
    let transferred = transfer.run(&image, is_whole);
    // Also after an error: what has arrived stays.
    let kept = arrived.finish();
    let partial_packs = transferred?;
    let (mut new, mut shared) = kept?;
    if let Some(root) = &image.root {
        check_whole(to, root)?;
    }
    progress.check()?;
    match staging.put(&image.digest, Content::Bytes(&[manifest]))? {
        Placed::New => new.add(size),
        Placed::Shared => shared.add(size),
    }
    staging.commit()?;
    to.set_tag(tag, Descriptor::new(oci::MANIFEST, image.digest, size))?;
    Ok(Fetched {
        manifest: image.digest,
        new,
        shared,
        partial_packs,
    })
}

/// Returns the blobs of an image of format 4, if the store has all of its chunks.
pub(crate) fn whole_image(store: &Store, manifest: &Digest) -> Result<Option<Count>> {
    if store.blob_size(manifest)?.is_none() {
        return Ok(None);
    }
    let image = RemoteManifest::parse(&store.manifest(manifest)?.1)?;
    let Some(root) = &image.root else {
        return Ok(None);
    };
    check_whole(store, root)?;
    let mut blobs = Count::default();
    for blob in image.blobs.iter().chain(&image.packs) {
        blobs.add(blob.size);
    }
    Ok(Some(blobs))
}
