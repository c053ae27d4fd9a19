// SPDX-License-Identifier: GPL-2.0

//! Superblocks: what a mount says of itself.

use crate::vfs::prelude::*;
use crate::{
    base::message::Show,
    ops::image::Image,
    ops::options::Verify,
    store::blob_store::BlobStore,
    vfs::{StatFs, SuperParams},
};
use kernel::{seq_file::SeqFile, seq_print};

/// The number that `statfs(2)` gives as the filesystem's type: "PZFS".
pub(crate) const MAGIC: u32 = 0x505a_4653;

/// How far to read ahead at the most, in bytes: several chunks, so that their blobs are read
/// together.
pub(crate) const READAHEAD: usize = 512 * 1024;

/// The properties of a superblock.
pub(crate) fn params(image: &Image) -> SuperParams {
    SuperParams {
        stack_depth: stack_depth(image.store()),
        readahead: READAHEAD,
        uuid: *image.rootfs().as_bytes().first_chunk().unwrap_or(&[0; 16]),
    }
}

/// How many filesystems a mount of an image in a store is stacked on.
pub(crate) fn stack_depth(store: &BlobStore) -> i32 {
    store.stack_depth() + 1
}

/// What `statfs(2)` reports: the files' total size, of which nothing is free, and an identity made
/// of the metadata's digest.
pub(crate) fn statfs(image: &Image) -> Result<StatFs> {
    let metadata = image.metadata();
    let [a, b, c, d, e, f, g, h, ..] = *image.rootfs().as_bytes();
    Ok(StatFs {
        bytes: metadata.data_size().map_err(|e| image.report(None, e))?,
        files: metadata.inode_count().map_err(|e| image.report(None, e))?,
        id: [
            u32::from_le_bytes([a, b, c, d]),
            u32::from_le_bytes([e, f, g, h]),
        ],
    })
}

/// The mount options, as they can be given to mount(8) again.
pub(crate) fn show_options(image: &Image, seq: &SeqFile) {
    seq_print!(seq, ",rootfs={}", Show(image.rootfs()));
    if let Some(digest) = image.rootfs_verity() {
        seq_print!(seq, ",rootfs_verity={}", Show(digest));
    }
    if image.verify() != Verify::None {
        seq_print!(seq, ",verify={}", image.verify().name());
    }
    if !image.shares_pages() {
        seq_print!(seq, ",noshare");
    }
    if image.escapes_overlay() {
        seq_print!(seq, ",escape_overlay");
    }
}
