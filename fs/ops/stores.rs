// SPDX-License-Identifier: GPL-2.0

//! The stores in use, which mounts share.

use super::fs_type::{MountContext, PuzzleFs};
use crate::{
    base::{
        limits::{max_readers, READAHEAD},
        message::{ErrorName, Text},
        registry::{InUse, Registry},
    },
    codec::frame_cache::{FrameCache, ShrinkableFrames},
    store::{blob_store::BlobStore, fetches::FetchQueue},
    tree::{v3::metadata_blob::MetadataBlob, v4::ShrinkableChunks},
    vfs::{lower::Directory, prelude::*, SharedMappings, WorkQueue},
};
use kernel::{str::CStr, sync::Arc};

/// A store, and all that its mounts share.
pub(crate) struct MountedStore {
    pub(crate) blobs: Arc<BlobStore>,
    /// The page caches that files of equal content share.
    pub(crate) mappings: Arc<SharedMappings<PuzzleFs>>,
    /// The metadata of mounted images.
    pub(crate) metadata: Arc<Registry<MetadataBlob>>,
    /// The work queue that fills readahead. Other stores have their own, so that a disk that does
    /// not answer delays only its own readers.
    pub(crate) readahead: WorkQueue,
    frames: InUse<ShrinkableFrames>,
}

impl MountedStore {
    /// Returns the cache of decompressed frames, which all stores share.
    pub(crate) fn frames(&self) -> &FrameCache {
        self.frames.cache()
    }

    /// Returns the number of filesystems that a mount of an image in the store is stacked on.
    pub(crate) fn stack_depth(&self) -> i32 {
        self.blobs.stack_depth() + 1
    }
}

/// All stores in use.
pub(crate) struct Stores {
    stores: Arc<Registry<MountedStore>>,
    /// The one cache of frames, which exists while there are stores.
    frames: Arc<Registry<ShrinkableFrames>>,
    /// The one cache of metadata chunks, which exists while images of format 4 are mounted.
    chunks: Arc<Registry<ShrinkableChunks>>,
    /// The requests for missing chunks of stores that are mounted or have a fetcher.
    fetches: Arc<Registry<FetchQueue>>,
}

impl Stores {
    /// Makes an empty set.
    pub(crate) fn new() -> Result<Arc<Self>> {
        let this = Self {
            stores: Registry::new()?,
            frames: Registry::new()?,
            chunks: Registry::new()?,
            fetches: Registry::new()?,
        };
        Ok(Arc::new(this, GFP_KERNEL)?)
    }

    /// Returns the cache of metadata chunks.
    pub(super) fn chunks(&self) -> Result<InUse<ShrinkableChunks>> {
        self.chunks.get_or_make(|_| true, ShrinkableChunks::new)
    }

    /// Returns the requests for the chunks of the store whose blobs are in a directory.
    fn fetches_of(&self, blobs: &Arc<Directory>) -> Result<InUse<FetchQueue>> {
        self.fetches.get_or_make(
            |queue| queue.is_of(blobs),
            || FetchQueue::new(blobs.clone()),
        )
    }

    /// Returns the requests for the chunks of the store at a path of the current task.
    pub(super) fn fetches(&self, path: &CStr) -> Result<InUse<FetchQueue>> {
        let root = Directory::open_own(path)?;
        let blobs = root.open_directory(c"blobs")?.open_directory(c"sha256")?;
        self.fetches_of(&Arc::new(blobs, GFP_KERNEL)?)
    }

    /// Opens the store in a directory, or finds it in use by another mount.
    pub(crate) fn open(&self, path: &CStr, context: &MountContext) -> Result<InUse<MountedStore>> {
        let (root, directory) = open_directories(path, context)?;
        let directory = Arc::new(directory, GFP_KERNEL)?;
        self.stores.get_or_make(
            |store| store.blobs.is_in(&directory),
            || {
                let frames = self
                    .frames
                    .get_or_make(|_| true, || ShrinkableFrames::new(max_readers()))?;
                let mappings = Arc::new(SharedMappings::new(context, READAHEAD)?, GFP_KERNEL)?;
                let fetches = self.fetches_of(&directory)?;
                let blobs = BlobStore::new(root, directory.clone(), path, fetches)?;
                let store = MountedStore {
                    blobs: Arc::new(blobs, GFP_KERNEL)?,
                    mappings,
                    metadata: Registry::new()?,
                    readahead: WorkQueue::new(c"puzzlefs")?,
                    frames,
                };
                Ok(Arc::new(store, GFP_KERNEL)?)
            },
        )
    }
}

/// Opens the directory of a store, and `blobs/sha256` in it, with the mounter's credentials.
fn open_directories(path: &CStr, context: &MountContext) -> Result<(Directory, Directory)> {
    let explain = |below: &str, e: Error| {
        let cause = match e {
            ENOENT | ENOTDIR if !below.is_empty() => "not an OCI image layout: ",
            _ => "",
        };
        context.error(fmt!("{}{below}: {cause}{}", Text(path), ErrorName(e)));
        e
    };
    let root = Directory::open(path, context.credentials()).map_err(|e| explain("", e))?;
    let blobs = root
        .open_directory(c"blobs")
        .map_err(|e| explain("/blobs", e))?
        .open_directory(c"sha256")
        .map_err(|e| explain("/blobs/sha256", e))?;
    Ok((root, blobs))
}
