// SPDX-License-Identifier: GPL-2.0

//! Superblocks: properties, statistics and options of a mount.

use super::image::Image;
use crate::{
    base::{fault::Fault, limits::READAHEAD, message::Show, verify::Verify},
    vfs::{prelude::*, StatFs, SuperParams},
};
use kernel::{seq_file::SeqFile, seq_print};

/// Returns the properties of a superblock.
pub(super) fn params(image: &Image) -> SuperParams {
    SuperParams {
        stack_depth: image.store().stack_depth(),
        readahead: READAHEAD,
        uuid: *image.rootfs().as_bytes().first_chunk().unwrap_or(&[0; 16]),
    }
}

/// Returns the result of `statfs(2)`: the total size of files, of which nothing is free, and an
/// identity made of the metadata's digest.
pub(super) fn statfs(image: &Image) -> Result<StatFs> {
    let tree = image.tree();
    let malformed = |fault: Fault| image.site().report(fault);
    let [a, b, c, d, e, f, g, h, ..] = *image.rootfs().as_bytes();
    Ok(StatFs {
        bytes: tree.data_size().map_err(malformed)?,
        files: tree.inode_count().map_err(malformed)?,
        id: [
            u32::from_le_bytes([a, b, c, d]),
            u32::from_le_bytes([e, f, g, h]),
        ],
    })
}

/// Prints the mount options, as they can be given to mount(8) again.
pub(super) fn show_options(image: &Image, seq: &SeqFile) {
    let settings = image.settings();
    seq_print!(seq, ",rootfs={}", Show(settings.rootfs));
    if let Some(digest) = settings.rootfs_verity {
        seq_print!(seq, ",rootfs_verity={}", Show(digest));
    }
    if settings.verify != Verify::None {
        seq_print!(seq, ",verify={}", settings.verify.name());
    }
    if let Some(timeout) = settings.fetch {
        seq_print!(seq, ",fetch=wait,fetch_timeout={}", timeout / 1000);
    }
    if !settings.share {
        seq_print!(seq, ",noshare");
    }
    if settings.escape_overlay {
        seq_print!(seq, ",escape_overlay");
    }
}
