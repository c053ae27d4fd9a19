// SPDX-License-Identifier: GPL-2.0

//! The blob store: the directory `blobs/sha256` of an OCI image layout.

use super::{
    blob::Blob,
    chunk_index::ChunkIndex,
    fetches::FetchQueue,
    open_blobs::OpenBlobs,
    opener::{Open, Opener},
    opening::Opening,
};
use crate::{
    base::{fault::Fault, registry::InUse, statistics::Statistics},
    io::{pool::Workspaces, prefetch::Prefetch},
    vfs::{lower::Directory, prelude::*, ShrinkerRegistration, WorkQueue},
};
use kernel::{str::CStr, sync::Arc};
use puzzlefs_schema::Digest;

/// The directory of a store's blobs, and those that are open.
struct BlobFiles {
    directory: Arc<Directory>,
    open: Arc<OpenBlobs>,
    prefetch: Arc<Prefetch>,
}

impl BlobFiles {
    /// Opens a blob, and keeps it open.
    ///
    /// # Errors
    ///
    /// Those of [`Directory::open_file`].
    fn open(&self, digest: &Digest, wait: bool) -> Result<Arc<Blob>> {
        let file = self.directory.open_file(&digest.to_hex(), wait)?;
        let blob = Arc::new(Blob::new(file, digest, self.prefetch.clone()), GFP_KERNEL)?;
        self.open.insert(digest, &blob);
        Ok(blob)
    }
}

/// Opens blobs for readers that must not wait for locks.
impl Open for BlobFiles {
    type Name = Digest;
    type Opened = Arc<Blob>;

    fn open(&self, digest: &Digest) -> Result<Arc<Blob>> {
        self.open(digest, true)
    }
}

/// A blob store. All mounts of a store share it, so that a blob is opened once.
pub(crate) struct BlobStore {
    files: Arc<BlobFiles>,
    opener: Opener<BlobFiles>,
    index: ChunkIndex,
    fetches: InUse<FetchQueue>,
    workspaces: Arc<Workspaces>,
    /// Not the queue of readahead, which waits for workspaces.
    returns: WorkQueue,
    _open_shrinker: ShrinkerRegistration<OpenBlobs>,
    _workspaces_shrinker: ShrinkerRegistration<Workspaces>,
    /// Dropped last, and with it reads that are under way. If memory reclaim closed the last blob
    /// that refers to them, it would have to wait for the disk.
    _prefetch_shrinker: ShrinkerRegistration<Prefetch>,
}

impl BlobStore {
    /// Makes the store in the directory `root`, whose blobs are in `directory`. Messages name the
    /// store by `name`. Missing chunks are requested by `fetches`.
    pub(crate) fn new(
        root: Directory,
        directory: Arc<Directory>,
        name: &CStr,
        fetches: InUse<FetchQueue>,
    ) -> Result<Self> {
        let open = Arc::new(OpenBlobs::new()?, GFP_KERNEL)?;
        let prefetch = Prefetch::new()?;
        let workspaces = Workspaces::new()?;
        let files = BlobFiles {
            directory,
            open: open.clone(),
            prefetch: prefetch.clone(),
        };
        let files = Arc::new(files, GFP_KERNEL)?;
        Ok(Self {
            opener: Opener::new(files.clone())?,
            files,
            index: ChunkIndex::new(root, name)?,
            fetches,
            returns: WorkQueue::new(c"puzzlefs_returns")?,
            _open_shrinker: ShrinkerRegistration::new(c"puzzlefs-open-blobs", open)?,
            _workspaces_shrinker: ShrinkerRegistration::new(
                c"puzzlefs-workspaces",
                workspaces.clone(),
            )?,
            workspaces,
            _prefetch_shrinker: ShrinkerRegistration::new(c"puzzlefs-prefetch", prefetch)?,
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
        if let Some(blob) = self.files.open.get(digest) {
            // Counted when it is used: other callers do not read it yet.
            if how == Opening::Now {
                statistics.blobs_found_open.add(1);
            }
            return Ok(blob);
        }
        let opened = self.files.open(digest, false);
        if matches!(opened, Err(EAGAIN)) && how == Opening::Now {
            return Err(Fault::NotOpen);
        }
        statistics.blobs_opened.add(1);
        match opened {
            Err(EAGAIN) => Ok(self.opener.open(digest)?),
            opened => Ok(opened?),
        }
    }

    /// Opens the file of a blob anew: it may have been replaced since, or have got its fs-verity
    /// digest.
    ///
    /// # Errors
    ///
    /// Those of [`Self::open`].
    pub(crate) fn reopen(
        &self,
        digest: &Digest,
        how: Opening,
        statistics: &Statistics,
    ) -> Result<Arc<Blob>, Fault> {
        self.forget(digest);
        self.open(digest, how, statistics)
    }

    /// Returns a blob whose fs-verity digest the lower filesystem checks reads against.
    ///
    /// If the open `blob` has another one than expected, its file is opened anew.
    ///
    /// # Errors
    ///
    /// Those of [`Self::open`]; [`Fault::NoVerity`] if the blob has no fs-verity digest,
    /// [`Fault::Verity`] if it has another one than `expected`, or that is `None`.
    pub(crate) fn with_verity(
        &self,
        blob: Arc<Blob>,
        digest: &Digest,
        expected: Option<&Digest>,
        how: Opening,
        statistics: &Statistics,
    ) -> Result<Arc<Blob>, Fault> {
        let check = |blob: &Blob| match (blob.verity(), expected) {
            (None, _) => Err(Fault::NoVerity),
            (Some(digest), Some(expected)) if digest == expected => Ok(()),
            _ => Err(Fault::Verity),
        };
        if check(&blob).is_ok() {
            return Ok(blob);
        }
        let reopened = self.reopen(digest, how, statistics)?;
        check(&reopened)?;
        Ok(reopened)
    }

    /// Closes a blob that could not be read, so that its replacement is found the next time.
    pub(crate) fn forget(&self, digest: &Digest) {
        self.files.open.remove(digest);
    }

    /// Returns the requests for chunks that the store lacks.
    pub(super) fn fetches(&self) -> &FetchQueue {
        &self.fetches
    }

    /// Returns the chunk index.
    pub(super) fn index(&self) -> &ChunkIndex {
        &self.index
    }

    /// Returns the buffers and decoders of readers.
    pub(crate) fn workspaces(&self) -> &Arc<Workspaces> {
        &self.workspaces
    }

    /// Returns the work queue that takes workspaces back which killed tasks leave behind.
    pub(crate) fn workspace_returns(&self) -> &WorkQueue {
        &self.returns
    }

    /// Returns true if this is the store of a directory, opened with equal credentials.
    pub(crate) fn is_in(&self, directory: &Directory) -> bool {
        self.files.directory.is_same(directory)
    }

    /// Returns the number of filesystems that are stacked in the lower filesystem.
    pub(crate) fn stack_depth(&self) -> i32 {
        self.files.directory.stack_depth()
    }

    /// Returns the magic number of the lower filesystem.
    pub(crate) fn filesystem_magic(&self) -> usize {
        self.files.directory.filesystem_magic()
    }
}
