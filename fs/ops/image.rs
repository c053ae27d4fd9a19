// SPDX-License-Identifier: GPL-2.0

//! A mounted image: its metadata, and the store that its data is in.

use super::{
    fs_type::{MountContext, MAGIC},
    options::{Options, Settings},
    stores::{MountedStore, Stores},
};
use crate::{
    base::{
        fault::{Fault, FaultSite, Unusable},
        message::Show,
        registry::InUse,
        statistics::Statistics,
    },
    codec::{context::ReadContext, metadata},
    fill::reader::FileReader,
    store::{chunks::ChunkQuery, opening::Opening},
    tree::{
        v3::{self, metadata_blob::MetadataBlob},
        v4, Node, Tree,
    },
    vfs::{prelude::*, MAX_STACK_DEPTH},
};
use kernel::sync::Arc;
use puzzlefs_schema::{Digest, ErrorKind};

/// A mounted image.
pub(crate) struct Image {
    tree: Tree,
    store: InUse<MountedStore>,
    settings: Settings,
    statistics: Arc<Statistics>,
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
        let settings = options.settings(context)?;
        let store = stores.open(Options::store(context)?, context)?;
        check_stacking(&store, context)?;
        let statistics = Arc::new(Statistics::default(), GFP_KERNEL)?;
        let tree = open_tree(&store, stores, &settings, &statistics)
            .map_err(|fault| explain(context, &settings.rootfs, fault))?;
        Ok(Self {
            tree,
            store,
            settings,
            statistics,
        })
    }

    /// Returns the tree of the image.
    pub(crate) fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Returns the settings of the mount.
    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Returns the store that the image's data is in.
    pub(crate) fn store(&self) -> &MountedStore {
        &self.store
    }

    /// Returns the counters of the mount.
    pub(crate) fn statistics(&self) -> &Statistics {
        &self.statistics
    }

    /// Returns the digest that is the identity of the image.
    pub(crate) fn rootfs(&self) -> &Digest {
        self.tree.digest()
    }

    /// Returns the image, as faults name it.
    pub(crate) fn site(&self) -> FaultSite<'_> {
        self.tree.site()
    }

    /// Returns the reader of a regular file, in the mount of a device number.
    pub(crate) fn reader<'a>(
        &'a self,
        dev: u32,
        ino: u64,
        node: &'a Node,
    ) -> Option<FileReader<'a>> {
        let store = &self.store.blobs;
        Some(FileReader {
            content: node.content()?,
            map: self.tree.extent_map(node)?,
            verify: self.settings.verify,
            fetch: self.settings.fetch,
            store,
            context: ReadContext {
                workspaces: store.workspaces(),
                returns: store.workspace_returns(),
                frames: self.store.frames(),
                statistics: &self.statistics,
            },
            ino,
            dev,
            site: self.site().inode(ino),
        })
    }
}

/// Checks that a mount may be stacked on the filesystem of a store.
fn check_stacking(store: &MountedStore, context: &MountContext) -> Result {
    if store.blobs.filesystem_magic() == MAGIC as usize {
        context.error(fmt!("the store must not itself be on PuzzleFS"));
        return Err(ELOOP);
    }
    if store.stack_depth() > MAX_STACK_DEPTH {
        context.error(fmt!(
            "the store is on too many filesystems stacked on each other"
        ));
        return Err(ELOOP);
    }
    Ok(())
}

/// Opens the tree of an image. Its version follows from the blob or the chunk that has the digest.
fn open_tree(
    store: &MountedStore,
    stores: &Stores,
    settings: &Settings,
    statistics: &Arc<Statistics>,
) -> Result<Tree, Fault> {
    match open_metadata(store, settings) {
        Ok(metadata) => Ok(Tree::V3(v3::Tree::new(metadata))),
        Err(of_v3) if may_be_root(&of_v3) => {
            let opened = open_root(store, stores, settings, statistics);
            opened.map_err(|fault| match fault {
                Fault::NoChunk => of_v3,
                fault => fault,
            })
        }
        Err(fault) => Err(fault),
    }
}

/// Returns true if a digest that is not a metadata blob's, with this fault, can be a root's: no
/// file has that name, or it begins as the root of an image of version 4.
fn may_be_root(fault: &Fault) -> bool {
    match fault {
        Fault::MetadataBlob(Unusable::Open, e) => *e == ENOENT,
        Fault::Metadata(e) => match e.kind() {
            // The magic number of a zstd frame, taken for a number of segments.
            ErrorKind::TooManySegments => true,
            // The kind of the message, which the word has from version 4 on.
            ErrorKind::Version(version) => version >> 16 != 0,
            _ => false,
        },
        _ => false,
    }
}

/// Opens the tree of an image of version 4.
fn open_root(
    store: &MountedStore,
    stores: &Stores,
    settings: &Settings,
    statistics: &Arc<Statistics>,
) -> Result<Tree, Fault> {
    let rootfs = &settings.rootfs;
    let read = || metadata::read_root(&store.blobs, rootfs, statistics);
    let root = match (read(), settings.fetch) {
        (Err(Fault::NoChunk), Some(timeout)) => {
            let query = ChunkQuery::root(rootfs, Opening::Waiting, statistics);
            store.blobs.fetch(&query, timeout)?;
            read()?
        }
        (root, _) => root?,
    };
    if settings.rootfs_verity.is_some() {
        return Err(Fault::MetadataBlob(Unusable::RootfsVerity, EINVAL));
    }
    let cache = stores.chunks()?;
    let tree = v4::Tree::open(
        cache,
        store.blobs.clone(),
        statistics.clone(),
        settings.fetch,
        root,
    )?;
    Ok(Tree::V4(tree))
}

/// Opens a metadata blob, and reads it unless a mounted image has it.
fn open_metadata(store: &MountedStore, settings: &Settings) -> Result<InUse<MetadataBlob>, Fault> {
    let rootfs = &settings.rootfs;
    // Opened anew even if its contents are in memory, because `rootfs_verity` is about the file.
    let blob = store
        .blobs
        .reopen(rootfs, Opening::Waiting, &Statistics::default())
        .map_err(|fault| {
            let cause = match fault.errno() {
                EOPNOTSUPP => Unusable::Dax,
                _ => Unusable::Open,
            };
            Fault::MetadataBlob(cause, fault.errno())
        })?;
    if settings.rootfs_verity.is_some() && settings.rootfs_verity.as_ref() != blob.verity() {
        return Err(Fault::MetadataBlob(Unusable::Verity, EBADMSG));
    }
    store.metadata.get_or_make(
        |metadata| metadata.digest() == rootfs,
        || MetadataBlob::read(&blob, rootfs),
    )
}

/// Explains to the mounter why an image cannot be used, and returns the error of the mount.
fn explain(context: &MountContext, digest: &Digest, fault: Fault) -> Error {
    let (object, is_explained) = match fault {
        Fault::MetadataBlob(..) | Fault::Metadata(_) => ("metadata blob", !fault.is_interruption()),
        Fault::Reported(_) => ("root", false),
        // If there is no memory, that says nothing about the image.
        fault => ("root", fault.passing().is_none()),
    };
    if is_explained {
        context.error(fmt!("{object} {}: {fault}", Show(digest)));
    }
    fault.errno()
}
