// SPDX-License-Identifier: GPL-2.0

//! The blob store: the directory `blobs/sha256` of an OCI image layout, and the blobs open in it.
//!
//! All mounts of one store share one [`BlobStore`], so that a blob is opened once. Open blobs are
//! kept in [`OpenBlobs`].

use crate::vfs::prelude::*;
use crate::{
    base::fault::Fault,
    base::message::{ErrorName, Text},
    base::registry::{InUse, Registry},
    base::statistics::Statistics,
    codec::frame_cache::ShrinkableFrames,
    io::workspace::{readers, Workspaces},
    ops::superblock::READAHEAD,
    store::blob::Blob,
    store::open_blobs::OpenBlobs,
    store::opener::Opener,
    tree::metadata_blob::MetadataBlob,
    vfs::{backing::Directory, SharedMappings, ShrinkerRegistration, WorkQueue},
    MountContext, PuzzleFs,
};
use kernel::{str::CStr, sync::Arc};
use puzzlefs_schema::Digest;

/// How far a caller goes to have a blob opened.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opening {
    /// The caller has folios locked, and does not wait.
    Now,
    /// The caller waits, until it is killed and for a limited time.
    Waiting,
}

/// A blob store.
pub(crate) struct BlobStore {
    directory: Arc<Directory>,
    open: Arc<OpenBlobs>,
    opener: Opener,
    workspaces: Arc<Workspaces>,
    mappings: Arc<SharedMappings<PuzzleFs>>,
    metadata: Arc<Registry<MetadataBlob>>,
    /// The store's own: should its disk not answer, others are not kept waiting.
    readahead: WorkQueue,
    /// Another one, because what is read ahead waits for workspaces.
    returns: WorkQueue,
    _open_shrinker: ShrinkerRegistration<OpenBlobs>,
    _workspaces_shrinker: ShrinkerRegistration<Workspaces>,
}

impl BlobStore {
    fn new(
        directory: Arc<Directory>,
        workspaces: Arc<Workspaces>,
        mappings: Arc<SharedMappings<PuzzleFs>>,
    ) -> Result<Self> {
        let open = Arc::new(OpenBlobs::new()?, GFP_KERNEL)?;
        Ok(Self {
            opener: Opener::new(directory.clone(), open.clone())?,
            directory,
            mappings,
            metadata: Registry::new()?,
            readahead: WorkQueue::new(c"puzzlefs")?,
            returns: WorkQueue::new(c"puzzlefs_returns")?,
            _open_shrinker: ShrinkerRegistration::new(c"puzzlefs-open-blobs", open.clone())?,
            _workspaces_shrinker: ShrinkerRegistration::new(
                c"puzzlefs-workspaces",
                workspaces.clone(),
            )?,
            open,
            workspaces,
        })
    }

    /// Opens a blob, or finds it open.
    ///
    /// # Errors
    ///
    /// [`Fault::NotOpen`] if the blob is not open and the caller does not wait as long as it takes
    /// to open it. [`ENOENT`] if the store has no such blob, [`EINVAL`] if there is something else
    /// than a regular file in its place, and those of opening a file; [`EDEADLK`] if that takes too
    /// long.
    pub(crate) fn open(
        &self,
        digest: &Digest,
        how: Opening,
        statistics: &Statistics,
    ) -> Result<Arc<Blob>, Fault> {
        if let Some(blob) = self.open.get(digest) {
            // Others do not read it yet.
            if how == Opening::Now {
                statistics.blobs_found_open.add(1);
            }
            return Ok(blob);
        }
        let file = match self.directory.open_file(&digest.to_hex(), false) {
            Err(EAGAIN) if how == Opening::Now => return Err(Fault::NotOpen),
            Err(EAGAIN) => {
                statistics.blobs_opened.add(1);
                return Ok(self.opener.open(digest)?);
            }
            file => {
                statistics.blobs_opened.add(1);
                file?
            }
        };
        let blob = Arc::new(Blob::new(file), GFP_KERNEL)?;
        self.open.insert(digest, &blob);
        Ok(blob)
    }

    /// Opens a blob that may be open as it was before: it may have been put right since, by another
    /// file in its place, or have got its fs-verity digest.
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub(crate) fn reopen(
        &self,
        digest: &Digest,
        how: Opening,
        statistics: &Statistics,
    ) -> Result<Arc<Blob>, Fault> {
        self.forget(digest);
        self.open(digest, how, statistics)
    }

    /// Closes a blob that could not be read: should it be put right by another file in its place,
    /// that one is to be found the next time.
    pub(crate) fn forget(&self, digest: &Digest) {
        self.open.remove(digest);
    }

    /// What readers of the store's blobs work with.
    pub(crate) fn workspaces(&self) -> &Arc<Workspaces> {
        &self.workspaces
    }

    /// Where workspaces come back that killed tasks leave behind.
    pub(crate) fn workspace_returns(&self) -> &WorkQueue {
        &self.returns
    }

    /// The page caches that files of equal contents share, in whatever image of the store.
    pub(crate) fn mappings(&self) -> &Arc<SharedMappings<PuzzleFs>> {
        &self.mappings
    }

    /// Where is read ahead of those who do not wait for it yet.
    pub(crate) fn readahead(&self) -> &WorkQueue {
        &self.readahead
    }

    /// The metadata of the store's images that are mounted.
    pub(crate) fn metadata(&self) -> &Arc<Registry<MetadataBlob>> {
        &self.metadata
    }

    /// How many filesystems are stacked in the one that the store is on.
    pub(crate) fn stack_depth(&self) -> i32 {
        self.directory.stack_depth()
    }

    /// The magic number of the filesystem that the store is on.
    pub(crate) fn filesystem_magic(&self) -> usize {
        self.directory.filesystem_magic()
    }
}

/// All the stores in use, and what they have in common.
pub(crate) struct Stores {
    stores: Arc<Registry<BlobStore>>,
    /// All stores share one cache of frames, which exists while there are any.
    frames: Arc<Registry<ShrinkableFrames>>,
}

impl Stores {
    pub(crate) fn new() -> Result<Arc<Self>> {
        let this = Self {
            stores: Registry::new()?,
            frames: Registry::new()?,
        };
        Ok(Arc::new(this, GFP_KERNEL)?)
    }

    /// Opens the store in a directory, or finds it in use by another mount.
    pub(crate) fn open(&self, path: &CStr, context: &MountContext) -> Result<InUse<BlobStore>> {
        let explain = |below: &str, e: Error| {
            let what = match e {
                ENOENT | ENOTDIR if !below.is_empty() => "not an OCI image layout: ",
                _ => "",
            };
            context.error(fmt!("{}{below}: {what}{}", Text(path), ErrorName(e)));
            e
        };
        let directory = Directory::open(path, context.credentials())
            .map_err(|e| explain("", e))?
            .open_directory(c"blobs")
            .map_err(|e| explain("/blobs", e))?
            .open_directory(c"sha256")
            .map_err(|e| explain("/blobs/sha256", e))?;
        let directory = Arc::new(directory, GFP_KERNEL)?;
        self.stores.get_or_make(
            |store| store.directory.is_same(&directory),
            || {
                let frames = self
                    .frames
                    .get_or_make(|_| true, || ShrinkableFrames::new(readers()))?;
                let workspaces = Workspaces::new(frames)?;
                let mappings = Arc::new(SharedMappings::new(context, READAHEAD)?, GFP_KERNEL)?;
                let store = BlobStore::new(directory.clone(), workspaces, mappings)?;
                Ok(Arc::new(store, GFP_KERNEL)?)
            },
        )
    }
}
