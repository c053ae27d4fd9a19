// SPDX-License-Identifier: GPL-2.0

//! An image: the metadata blob of one mount, in memory, and the store that its data is in.

use crate::{
    blob::{Blob, Fault},
    blob_store::{StoreHandle, Stores},
    message::{ErrorName, Show},
    options::{Options, Verify},
    ports::sha256::{Digest as _, Sha256},
    statistics::Statistics,
    superblock,
    vfs::{backing::ReadBuffer, error_ratelimited, MountContext, MAX_STACK_DEPTH},
};
use kernel::{fmt, prelude::*, sync::Arc};
use puzzlefs_schema::{Digest, Framing, Metadata};

/// The largest metadata blob that is mounted, in bytes. An image of a million files has some 250 MB
/// of metadata; it is held in memory while it is mounted.
const MAX_METADATA: u64 = 1 << 30;

/// How much of the metadata is read and hashed at a time, in bytes.
const READ_SIZE: usize = 1 << 20;

/// A mounted image.
pub(crate) struct Image {
    store: StoreHandle,
    bytes: KVVec<u8>,
    framing: Framing,
    rootfs: Digest,
    rootfs_verity: Option<Digest>,
    verify: Verify,
    statistics: Statistics,
}

impl Image {
    /// Opens the image that the mount options name, and checks its metadata blob against the digest
    /// that is its name.
    pub(crate) fn open(
        options: &Options,
        context: &mut MountContext,
        stores: &Arc<Stores>,
    ) -> Result<Self> {
        options.settle_source(context)?;
        let rootfs = options.rootfs(context)?;
        let store = StoreHandle::open(stores, Options::store(context)?, context)?;
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

        let bytes =
            read_metadata(&store, &rootfs, options.rootfs_verity()).map_err(|(what, e)| {
                context.error(fmt!(
                    "metadata blob {}: {what}: {}",
                    Show(rootfs),
                    ErrorName(e)
                ));
                e
            })?;
        let framing = Framing::parse(&bytes).map_err(|e| {
            context.error(fmt!("metadata blob {}: {}", Show(rootfs), Show(e)));
            EUCLEAN
        })?;
        Metadata::new(&framing, &bytes).check().map_err(|e| {
            context.error(fmt!("metadata blob {}: {}", Show(rootfs), Show(e)));
            EUCLEAN
        })?;
        Ok(Self {
            store,
            bytes,
            framing,
            rootfs,
            rootfs_verity: options.rootfs_verity(),
            verify: options.verify(),
            statistics: Statistics::default(),
        })
    }

    /// The image's metadata.
    pub(crate) fn metadata(&self) -> Metadata<'_> {
        Metadata::new(&self.framing, &self.bytes)
    }

    /// The fs-verity digest that the metadata blob was required to have.
    pub(crate) fn rootfs_verity(&self) -> Option<Digest> {
        self.rootfs_verity
    }

    /// How data blobs are verified.
    pub(crate) fn verify(&self) -> Verify {
        self.verify
    }

    /// Opens a data blob. If fs-verity is to verify it, it does.
    pub(crate) fn open_blob(&self, digest: &Digest) -> Result<Arc<Blob>, Fault> {
        let blob = self.store.open(digest, &self.statistics)?;
        if self.verify == Verify::FsVerity {
            let expected = self.metadata().verity(digest).map_err(|e| {
                self.report(None, e);
                Fault::NoVerity
            })?;
            match (blob.verity(), expected) {
                (None, _) => return Err(Fault::NoVerity),
                (Some(digest), Some(expected)) if *digest == expected => (),
                _ => return Err(Fault::Verity),
            }
        }
        Ok(blob)
    }

    /// The store that the image's data is in.
    pub(crate) fn store(&self) -> &StoreHandle {
        &self.store
    }

    /// What the mount has done.
    pub(crate) fn statistics(&self) -> &Statistics {
        &self.statistics
    }

    /// The digest of the metadata blob.
    pub(crate) fn rootfs(&self) -> &Digest {
        &self.rootfs
    }

    /// Logs that the metadata is malformed, in what it says of an inode if one is named, and gives
    /// the error for whoever asked for it.
    pub(crate) fn report(&self, ino: Option<u64>, e: puzzlefs_schema::Error) -> Error {
        match e.ino().or(ino) {
            Some(ino) => self.log(ino, fmt!("{}", Show(e.kind()))),
            None => error_ratelimited(fmt!("image {}: {}", Show(self.rootfs), Show(e.kind()))),
        }
        EUCLEAN
    }

    /// Logs what is wrong with an inode.
    pub(crate) fn log(&self, ino: u64, message: fmt::Arguments<'_>) {
        error_ratelimited(fmt!("image {} inode {ino}: {message}", Show(self.rootfs)));
    }
}

/// Reads a metadata blob and checks its digest.
///
/// Memory is taken for the size that the file has, which is bounded.
fn read_metadata(
    store: &StoreHandle,
    rootfs: &Digest,
    verity: Option<Digest>,
) -> Result<KVVec<u8>, (&'static str, Error)> {
    let blob = store
        .open(rootfs, &Statistics::default())
        .map_err(|e| ("cannot be opened", e))?;
    if verity.is_some() && verity.as_ref() != blob.verity() {
        return Err(("it has not the fs-verity digest of rootfs_verity", EBADMSG));
    }
    let file = blob.file();
    let size = file.size();
    if size > MAX_METADATA {
        return Err(("larger than 1 GiB", EFBIG));
    }
    let size = usize::try_from(size).map_err(|_| ("too large", EFBIG))?;
    let no_memory = |_| ("no memory", ENOMEM);
    let mut bytes = KVVec::new();
    bytes
        .resize(size, 0, GFP_KERNEL | __GFP_NOWARN)
        .map_err(no_memory)?;

    let mut buffer = ReadBuffer::new(READ_SIZE).map_err(|e| ("no memory", e))?;
    let mut hash = Sha256::new();
    let mut offset = 0;
    while offset < size {
        let len = READ_SIZE.min(size - offset);
        let place = file
            .read_to(&mut buffer, offset as u64, len)
            .map_err(|e| ("cannot be read", e))?;
        let end = offset + place.len();
        let (Some(part), Some(read)) = (bytes.get_mut(offset..end), buffer.get(place)) else {
            break;
        };
        if read.is_empty() {
            return Err(("shrank while it was read", EIO));
        }
        part.copy_from_slice(read);
        hash.update(read);
        offset = end;
    }
    if hash.finalize()[..] != rootfs.as_bytes()[..] {
        return Err(("its contents have another digest", EBADMSG));
    }
    if bytes.is_empty() {
        return Err(("it is empty", EUCLEAN));
    }
    Ok(bytes)
}
