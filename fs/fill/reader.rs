// SPDX-License-Identifier: GPL-2.0

//! The reader of a regular file of a mounted image.

use super::{content::Content, extent_map::ExtentMap};
use crate::{
    base::{
        fault::{Fault, FaultSite},
        range::ByteRange,
        trace::TracedRequest,
        verify::Verify,
    },
    codec::context::ReadContext,
    store::{
        blob::Blob,
        blob_store::BlobStore,
        chunks::{ChunkQuery, OpenChunk},
        opening::Opening,
    },
    vfs::FolioRun,
};
use kernel::{sync::Arc, time::Msecs};
use puzzlefs_schema::{v4::ChunkRef, Digest};

/// A regular file, and all that it takes to read it.
pub(crate) struct FileReader<'a> {
    pub(crate) content: &'a Content,
    pub(crate) map: ExtentMap<'a>,
    pub(crate) verify: Verify,
    /// The time that a reader waits for a chunk that the store lacks, if it does.
    pub(crate) fetch: Option<Msecs>,
    pub(crate) store: &'a BlobStore,
    pub(crate) context: ReadContext<'a>,
    /// The inode, and the device number of the mount.
    pub(crate) ino: u64,
    pub(crate) dev: u32,
    /// The inode, as faults name it.
    pub(crate) site: FaultSite<'a>,
}

impl FileReader<'_> {
    /// Returns a request for a run of folios, as events name it.
    #[inline(always)]
    pub(super) fn traced(&self, run: &FolioRun<'_>) -> TracedRequest {
        TracedRequest {
            dev: self.dev,
            ino: self.ino,
            range: ByteRange {
                offset: run.start(),
                len: run.end() - run.start(),
            },
        }
    }

    /// Returns true if blobs of version 3 are verified as a whole.
    pub(super) fn verifies_blobs(&self) -> bool {
        self.verify == Verify::Digest
    }

    /// Returns true if the digests of chunks of version 4 are checked.
    pub(super) fn verifies_chunks(&self) -> bool {
        self.verify != Verify::None
    }

    /// Opens a blob of the file, or finds it open. If fs-verity is to verify it, it does.
    pub(crate) fn open_blob(&self, digest: &Digest, how: Opening) -> Result<Arc<Blob>, Fault> {
        if let Some(blob) = self.content.pins().and_then(|pins| pins.find(digest)) {
            if how == Opening::Now {
                self.context.statistics.blobs_found_open.add(1);
            }
            return Ok(blob);
        }
        self.open_in_store(digest, how)
    }

    /// Opens a blob of the store, or finds it open. If fs-verity is to verify it, it does.
    pub(crate) fn open_in_store(&self, digest: &Digest, how: Opening) -> Result<Arc<Blob>, Fault> {
        let statistics = self.context.statistics;
        let blob = self.store.open(digest, how, statistics)?;
        if self.verify != Verify::FsVerity {
            return Ok(blob);
        }
        let ExtentMap::Version3 { metadata, .. } = self.map else {
            return Err(Fault::NoVerity);
        };
        let expected = metadata.verity(digest).map_err(|e| {
            self.site.whole_image().report(e);
            Fault::NoVerity
        })?;
        self.store
            .with_verity(blob, digest, expected.as_ref(), how, statistics)
    }

    /// Finds a chunk of the file and opens its file, or finds it open. If fs-verity is to verify
    /// that, it does.
    pub(crate) fn open_chunk(&self, chunk: &ChunkRef, how: Opening) -> Result<OpenChunk, Fault> {
        let query = self.query(chunk, how);
        let has_verity =
            |open: &OpenChunk| self.verify != Verify::FsVerity || open.blob.verity().is_some();
        let open = if how == Opening::Now && self.fetch.is_some() {
            match self.store.open_or_request(&query) {
                // The task waits for it when it holds no folio locks.
                Err(Fault::NoChunk) => return Err(Fault::NotOpen),
                opened => opened?,
            }
        } else {
            self.store.open_chunk(&query)?
        };
        if has_verity(&open) {
            return Ok(open);
        }
        // The file may have been replaced since, or have got its fs-verity digest.
        self.forget(open.blob.digest());
        let reopened = self.store.open_chunk(&query)?;
        if has_verity(&reopened) {
            Ok(reopened)
        } else {
            Err(Fault::NoVerity)
        }
    }

    /// Waits until a chunk that the store lacks has been fetched.
    ///
    /// # Errors
    ///
    /// [`Fault::NoChunk`] if the mount does not wait for chunks; those of [`BlobStore::fetch`].
    pub(super) fn fetch(&self, chunk: &ChunkRef) -> Result<(), Fault> {
        let timeout = self.fetch.ok_or(Fault::NoChunk)?;
        self.store
            .fetch(&self.query(chunk, Opening::Waiting), timeout)
    }

    fn query<'q>(&'q self, chunk: &'q ChunkRef, how: Opening) -> ChunkQuery<'q> {
        let mut query = ChunkQuery::new(chunk, how, self.context.statistics);
        query.pins = self.content.pins();
        query
    }

    /// Closes a file of the store, so that another one can take its place.
    fn forget(&self, file: &Digest) {
        self.store.forget(file);
        if let Some(pins) = self.content.pins() {
            pins.forget(file);
        }
    }

    /// Counts and logs that a blob cannot be read, unless the task only gave up, and closes it.
    pub(super) fn complain(&self, blob: &Digest, offset: u64, fault: Fault) {
        self.complain_at(self.site.offset(offset).blob(blob), Some(blob), fault);
    }

    /// Counts and logs that a chunk cannot be read, unless the task only gave up, and closes the
    /// file that it lies in.
    pub(super) fn complain_chunk(
        &self,
        chunk: &Digest,
        file: Option<&Digest>,
        offset: u64,
        fault: Fault,
    ) {
        self.complain_at(self.site.offset(offset).chunk(chunk), file, fault);
    }

    fn complain_at(&self, site: FaultSite<'_>, file: Option<&Digest>, fault: Fault) {
        if fault.is_interruption() {
            return;
        }
        self.context.statistics.read_errors.add(1);
        if fault.is_verification() {
            self.context.statistics.verification_failures.add(1);
        }
        // Another file may take the place of this one, unless the fault is not the file's.
        if let Some(file) = file.filter(|_| fault.passing().is_none()) {
            self.forget(file);
        }
        site.log(fault);
    }
}
