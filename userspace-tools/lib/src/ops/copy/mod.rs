// SPDX-License-Identifier: MIT OR Apache-2.0

//! Copies images from one store to another: only the blobs that are missing there.
//!
//! Blobs are verified while they are copied. As in a build, they are staged, made durable and renamed,
//! and the tags are set at the end.
//!
//! | module | content |
//! | --- | --- |
//! | `packs` | copies the chunks of images of format 4 |
//! | `context` | the stores, the options and the result of a copy |

mod context;
mod packs;

use self::context::{remove_damaged, Copy};
pub use self::context::{Copied, CopyOptions};
use crate::error::{Damage, Error, Result, StoreError};
use crate::model::digest::Digest;
use crate::model::limits::{MANIFEST_MAX, READ_SIZE};
use crate::model::oci::{self, Descriptor};
use crate::model::reference::Selector;
use crate::store::chunks::recipes::keep_recipe;
use crate::store::chunks::update::add_packs;
use crate::store::oci_layout::{AnyImage, Store};
use crate::store::staging::{Content, Placed, Staging};
use crate::sys::parallel::{self, into_inner, lock};
use crate::sys::progress::Progress;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;

/// Copies an image of the store `from` into the store `to`, and sets the tag.
pub fn copy(
    from: &Store,
    image: &AnyImage,
    to: &Store,
    tag: &str,
    options: CopyOptions,
    progress: &Progress,
) -> Result<Copied> {
    copy_images(from, &[(tag.to_owned(), image)], to, options, progress)
}

/// The PuzzleFS images of a store that have tags.
#[derive(Debug, Default)]
pub struct Tagged {
    /// Each tag and its image, by tag.
    pub images: Vec<(String, AnyImage)>,
    /// The tags of images of other formats.
    pub others: Vec<String>,
}

impl Tagged {
    /// Finds the images of a store.
    ///
    /// # Errors
    ///
    /// If a manifest cannot be read, because its format is then unknown.
    pub fn of(store: &Store) -> Result<Self> {
        let index = store.known_index()?;
        let mut tagged = Tagged::default();
        for tag in index.tags() {
            let descriptor = index.find(&tag);
            let is_manifest = descriptor.is_some_and(|found| found.media_type == oci::MANIFEST);
            let digest = descriptor.and_then(|found| Digest::from_oci(&found.digest));
            let is_image = match digest.filter(|_| is_manifest) {
                Some(digest) => store.manifest(&digest)?.0.is_puzzlefs(),
                None => false,
            };
            if is_image {
                let image = store.any_image(&Selector::Tag(tag.clone()))?;
                tagged.images.push((tag, image));
            } else {
                tagged.others.push(tag);
            }
        }
        Ok(tagged)
    }
}

/// Copies images of the store `from` into the store `to`, each under its tag. All tags are set at
/// once, after all blobs.
pub fn copy_all(
    from: &Store,
    images: &Tagged,
    to: &Store,
    options: CopyOptions,
    progress: &Progress,
) -> Result<Copied> {
    let images: Vec<_> = images
        .images
        .iter()
        .map(|(tag, image)| (tag.clone(), image))
        .collect();
    copy_images(from, &images, to, options, progress)
}

fn copy_images(
    from: &Store,
    images: &[(String, &AnyImage)],
    to: &Store,
    options: CopyOptions,
    progress: &Progress,
) -> Result<Copied> {
    let staging = Staging::new(to)?;
    let copy = Copy {
        from,
        to,
        staging: &staging,
        options,
        progress,
    };
    let mut copied = copy.blobs(&blobs_of(from, images)?)?;
    let sizes = copy.manifests(images, &mut copied)?;
    let packs = packs::copy(&copy, images, &mut copied)?;
    progress.check()?;
    staging.commit()?;
    add_packs(to, &packs.new)?;
    for (pack, recipe) in &packs.recipes {
        keep_recipe(to, pack, recipe)?;
    }
    to.change_index(|index| {
        for (tag, image) in images {
            let digest = *image.root.manifest_digest();
            let size = sizes.get(&digest).copied().unwrap_or_default();
            let manifest = Descriptor::new(oci::MANIFEST, digest, size);
            let manifest = manifest
                .annotated_for_index(&image.annotations)
                .map_err(|cause| StoreError::Annotations {
                    store: to.path().into(),
                    tag: tag.clone(),
                    cause,
                })?;
            index.set_tag(tag, manifest);
        }
        Ok(())
    })?;
    Ok(copied)
}

/// Returns the blobs of images, except the manifests and packs, with their sizes.
fn blobs_of(store: &Store, images: &[(String, &AnyImage)]) -> Result<Vec<(Digest, u64)>> {
    let mut blobs = BTreeMap::new();
    for (_, image) in images {
        let manifest_path = store.blob_path(image.root.manifest_digest());
        let blobs_of_image = image.manifest.layers.iter().chain([&image.manifest.config]);
        for blob in blobs_of_image.filter(|blob| !blob.is_pack()) {
            blobs.insert(store.digest(blob, &manifest_path)?, blob.size);
        }
    }
    Ok(blobs.into_iter().collect())
}

impl Copy<'_> {
    /// Copies blobs, several at once.
    fn blobs(&self, blobs: &[(Digest, u64)]) -> Result<Copied> {
        let progress = self.progress;
        for (_, size) in blobs {
            progress.found_entry();
            progress.found_bytes(*size);
        }
        progress.start_reading();
        let copied = Mutex::new(Copied::default());
        parallel::for_each(
            self.options.jobs,
            blobs,
            || vec![0; READ_SIZE],
            |buffer, (digest, size)| {
                progress.check()?;
                if self.options.check {
                    remove_damaged(self.from, self.to, digest, *size, buffer)?;
                }
                let placed = copy_blob(self.from, digest, *size, self.staging, buffer)?;
                progress.done_bytes(*size);
                lock(&copied).add(placed, *size);
                Ok(())
            },
        )?;
        Ok(into_inner(copied))
    }

    /// Copies the manifests of images, adds them to `copied`, and returns their sizes.
    fn manifests(
        &self,
        images: &[(String, &AnyImage)],
        copied: &mut Copied,
    ) -> Result<BTreeMap<Digest, u64>> {
        let mut sizes = BTreeMap::new();
        let digests = images
            .iter()
            .map(|(_, image)| *image.root.manifest_digest());
        for digest in digests.collect::<BTreeSet<_>>() {
            self.progress.check()?;
            let manifest = self.from.read_blob(&digest, MANIFEST_MAX)?;
            let size = manifest.len() as u64;
            if self.options.check {
                remove_damaged(self.from, self.to, &digest, size, &mut vec![0; READ_SIZE])?;
            }
            let placed = self.staging.put(&digest, Content::Bytes(&[&manifest]))?;
            copied.add(placed, size);
            sizes.insert(digest, size);
        }
        Ok(sizes)
    }
}

/// Copies a blob if it is missing, and compares it with its digest.
fn copy_blob(
    from: &Store,
    digest: &Digest,
    size: u64,
    staging: &Staging<'_>,
    buffer: &mut [u8],
) -> Result<Placed> {
    staging.put_with(digest, size, |target, target_path| {
        let path = from.blob_path(digest);
        let mut source = from.open_blob(digest)?;
        let found = source
            .metadata()
            .map_err(Error::io(&path, "examine"))?
            .len();
        if found != size {
            let wanted = size;
            return Err(from.damaged(digest, Damage::Size { found, wanted }));
        }
        let found = copy_bytes(&mut source, &path, target, target_path, size, buffer)?;
        if found != *digest {
            return Err(from.damaged(digest, Damage::Contents(found)));
        }
        Ok(())
    })
}

/// Copies `size` bytes, with zeros as holes, and returns their digest.
fn copy_bytes(
    source: &mut File,
    path: &Path,
    target: &File,
    target_path: &Path,
    size: u64,
    buffer: &mut [u8],
) -> Result<Digest> {
    let mut hasher = Sha256::new();
    let mut at = 0;
    while at < size {
        let wanted = buffer.len().min((size - at) as usize);
        let piece = &mut buffer[..wanted];
        source
            .read_exact(piece)
            .map_err(Error::io(path, "read the blob"))?;
        hasher.update(&piece);
        if piece.iter().any(|&byte| byte != 0) {
            target
                .write_all_at(piece, at)
                .map_err(Error::io(target_path, "write"))?;
        }
        at += wanted as u64;
    }
    target
        .set_len(size)
        .map_err(Error::io(target_path, "resize"))?;
    Ok(Digest(hasher.finalize().into()))
}
