// SPDX-License-Identifier: GPL-2.0

//! An image: the metadata blob of one mount, and the store that its data is in.

use crate::vfs::prelude::*;
use crate::{
    base::fault::Fault,
    base::message::Show,
    base::registry::InUse,
    base::statistics::Statistics,
    ops::options::{Options, Verify},
    ops::superblock,
    store::blob::Blob,
    store::blob_store::{BlobStore, Opening, Stores},
    tree::metadata_blob::{self, MetadataBlob},
    vfs::{error_ratelimited, relax, MAX_STACK_DEPTH},
    MountContext,
};
use kernel::{fmt, sync::Arc};
use puzzlefs_schema::{Digest, ErrorKind, Metadata};

/// A mounted image.
pub(crate) struct Image {
    metadata: InUse<MetadataBlob>,
    store: InUse<BlobStore>,
    rootfs_verity: Option<Digest>,
    verify: Verify,
    share: bool,
    escape_overlay: bool,
    statistics: Statistics,
}

impl Image {
    /// Opens the image that the mount options name, and checks its metadata blob against the digest
    /// that is its name.
    pub(crate) fn open(
        options: &Options,
        context: &mut MountContext,
        stores: &Stores,
    ) -> Result<Self> {
        options.settle_source(context)?;
        let rootfs = options.rootfs(context)?;
        let store = stores.open(Options::store(context)?, context)?;
        if store.filesystem_magic() == superblock::MAGIC as usize {
            context.error(fmt!("the store must not itself be on PuzzleFS"));
            return Err(ELOOP);
        }
        if superblock::stack_depth(&store) > MAX_STACK_DEPTH {
            context.error(fmt!(
                "the store is on too many filesystems stacked on each other"
            ));
            return Err(ELOOP);
        }

        let unusable = |what, e| metadata_blob::explain(context, &rootfs, what, e);
        // Opened as it is now, whether its contents are in memory or not, for `rootfs_verity`.
        let blob = store
            .reopen(&rootfs, Opening::Waiting, &Statistics::default())
            .map_err(|e| {
                let what = match e.error() {
                    EOPNOTSUPP => "its filesystem uses DAX for it, which is not supported",
                    _ => "cannot be opened",
                };
                unusable(what, e.error())
            })?;
        let rootfs_verity = options.rootfs_verity();
        if rootfs_verity.is_some() && rootfs_verity.as_ref() != blob.verity() {
            return Err(unusable(
                "it has not the fs-verity digest of rootfs_verity",
                EBADMSG,
            ));
        }
        let metadata = store.metadata().get_or_make(
            |metadata| *metadata.digest() == rootfs,
            || MetadataBlob::read(&blob, &rootfs, context),
        )?;
        Ok(Self {
            metadata,
            store,
            rootfs_verity,
            verify: options.verify(),
            share: options.share(),
            escape_overlay: options.escape_overlay(),
            statistics: Statistics::default(),
        })
    }

    /// The image's metadata.
    ///
    /// What goes through a list of it lets others run meanwhile, and ends if the task is being
    /// killed.
    pub(crate) fn metadata(&self) -> Metadata<'_> {
        self.metadata.metadata().interruptible(|| relax().is_ok())
    }

    /// The fs-verity digest that the metadata blob was required to have.
    pub(crate) fn rootfs_verity(&self) -> Option<Digest> {
        self.rootfs_verity
    }

    /// How data blobs are verified.
    pub(crate) fn verify(&self) -> Verify {
        self.verify
    }

    /// Whether files share their pages with those of other mounts of the store.
    pub(crate) fn shares_pages(&self) -> bool {
        self.share
    }

    /// Returns true if the names of extended attributes that overlayfs claims are escaped.
    pub(crate) fn escapes_overlay(&self) -> bool {
        self.escape_overlay
    }

    /// Opens a data blob. If fs-verity is to verify it, it does.
    pub(crate) fn open_blob(&self, digest: &Digest, how: Opening) -> Result<Arc<Blob>, Fault> {
        let blob = self.store.open(digest, how, &self.statistics)?;
        if self.verify != Verify::FsVerity {
            return Ok(blob);
        }
        let expected = self.metadata().verity(digest).map_err(|e| {
            self.report(None, e);
            Fault::NoVerity
        })?;
        let check = |blob: &Blob| match (blob.verity(), &expected) {
            (None, _) => Err(Fault::NoVerity),
            (Some(digest), Some(expected)) if digest == expected => Ok(()),
            _ => Err(Fault::Verity),
        };
        if check(&blob).is_ok() {
            return Ok(blob);
        }
        let blob = self.store.reopen(digest, how, &self.statistics)?;
        check(&blob)?;
        Ok(blob)
    }

    /// The store that the image's data is in.
    pub(crate) fn store(&self) -> &BlobStore {
        &self.store
    }

    /// What the mount has done.
    pub(crate) fn statistics(&self) -> &Statistics {
        &self.statistics
    }

    /// The digest of the metadata blob.
    pub(crate) fn rootfs(&self) -> &Digest {
        self.metadata.digest()
    }

    /// Logs that the metadata is malformed, in what it says of an inode if one is named, and gives
    /// the error for whoever asked for it.
    pub(crate) fn report(&self, ino: Option<u64>, e: puzzlefs_schema::Error) -> Error {
        if e.kind() == ErrorKind::Interrupted {
            return EINTR;
        }
        match e.ino().or(ino) {
            Some(ino) => self.log(ino, fmt!("{}", Show(e.kind()))),
            None => error_ratelimited(fmt!("image {}: {}", Show(self.rootfs()), Show(e.kind()))),
        }
        EUCLEAN
    }

    /// Logs what is wrong with an inode.
    pub(crate) fn log(&self, ino: u64, message: fmt::Arguments<'_>) {
        error_ratelimited(fmt!("image {} inode {ino}: {message}", Show(self.rootfs())));
    }
}
