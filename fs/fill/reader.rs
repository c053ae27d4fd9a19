// SPDX-License-Identifier: GPL-2.0

//! The reader of a regular file of a mounted image.

use super::content::Content;
use crate::{
    base::{
        fault::{Fault, FaultSite},
        verify::Verify,
    },
    codec::context::ReadContext,
    store::{blob::Blob, blob_store::BlobStore, opening::Opening},
};
use kernel::sync::Arc;
use puzzlefs_schema::{Digest, Extents, Metadata};

/// A regular file, and all that it takes to read it.
pub(crate) struct FileReader<'a> {
    pub(crate) content: &'a Content,
    pub(crate) metadata: Metadata<'a>,
    pub(crate) verify: Verify,
    pub(crate) store: &'a BlobStore,
    pub(crate) context: ReadContext<'a>,
    /// The inode, as faults name it.
    pub(crate) site: FaultSite<'a>,
}

impl<'a> FileReader<'a> {
    /// Returns the chunks of the file.
    pub(crate) fn extents(&self) -> Extents<'a> {
        self.content.extents(&self.metadata)
    }

    /// Returns true if blobs are verified as a whole.
    pub(crate) fn verifies_blobs(&self) -> bool {
        self.verify == Verify::Digest
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
        let expected = self.metadata.verity(digest).map_err(|e| {
            self.site.whole_image().report(e);
            Fault::NoVerity
        })?;
        self.store
            .with_verity(blob, digest, expected.as_ref(), how, statistics)
    }

    /// Counts and logs that a blob cannot be read, unless the task only gave up, and closes it.
    pub(super) fn complain(&self, blob: &Digest, offset: u64, fault: Fault) {
        if fault.is_interruption() {
            return;
        }
        self.context.statistics.read_errors.add(1);
        if fault.is_verification() {
            self.context.statistics.verification_failures.add(1);
        }
        // Another file may take the blob's place, unless the fault is not the blob's.
        if fault.passing().is_none() {
            self.store.forget(blob);
            if let Some(pins) = self.content.pins() {
                pins.forget(blob);
            }
        }
        self.site.offset(offset).blob(blob).log(fault);
    }
}
