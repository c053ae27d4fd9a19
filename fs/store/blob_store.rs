// SPDX-License-Identifier: GPL-2.0

//! The blob store: the directory `blobs/sha256` of an OCI image layout.

use super::{blob::Blob, open_blobs::OpenBlobs, opener::Opener};
use crate::{
    base::{fault::Fault, statistics::Statistics},
    io::pool::Workspaces,
    vfs::{lower::Directory, prelude::*, ShrinkerRegistration, WorkQueue},
};
use kernel::sync::Arc;
use puzzlefs_schema::Digest;

/// The patience of a caller that has a blob opened.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opening {
    /// The caller has folios locked, and does not wait.
    Now,
    /// The caller waits, until it is killed and for a limited time.
    Waiting,
}

/// A blob store. All mounts of a store share it, so that a blob is opened once.
pub(crate) struct BlobStore {
    directory: Arc<Directory>,
    open: Arc<OpenBlobs>,
    opener: Opener,
    workspaces: Arc<Workspaces>,
    /// Not the queue of readahead, which waits for workspaces.
    returns: WorkQueue,
    _open_shrinker: ShrinkerRegistration<OpenBlobs>,
    _workspaces_shrinker: ShrinkerRegistration<Workspaces>,
}

impl BlobStore {
    /// Makes the store of a directory.
    pub(crate) fn new(directory: Arc<Directory>) -> Result<Self> {
        let open = Arc::new(OpenBlobs::new()?, GFP_KERNEL)?;
        let workspaces = Workspaces::new()?;
        Ok(Self {
            opener: Opener::new(directory.clone(), open.clone())?,
            directory,
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
            // Counted when it is used: other callers do not read it yet.
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
        self.open.remove(digest);
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
        self.directory.is_same(directory)
    }

    /// Returns the number of filesystems that are stacked in the lower filesystem.
    pub(crate) fn stack_depth(&self) -> i32 {
        self.directory.stack_depth()
    }

    /// Returns the magic number of the lower filesystem.
    pub(crate) fn filesystem_magic(&self) -> usize {
        self.directory.filesystem_magic()
    }
}
