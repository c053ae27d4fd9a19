// SPDX-License-Identifier: GPL-2.0

//! PuzzleFS: a read-only filesystem that mounts OCI image layouts of content-addressed chunks.
//!
//! Data flows one way: mount parameters ([`ops`]), the store and its blobs ([`store`]),
//! the image's metadata ([`tree`]), inodes ([`ops`]), their extents, and
//! folios of the page cache ([`fill`]), which files of equal contents share. The
//! metadata is parsed by the crate `puzzlefs_schema`, which userspace compiles too; the kernel's
//! objects are behind the safe interfaces of [`vfs`] and [`ports`], where all of the module's
//! `unsafe` is.

#![deny(unsafe_code)]

use core::ops::Range;
use kernel::{seq_file::SeqFile, str::CStr, sync::Arc};
use vfs::prelude::*;
use vfs::{
    DirEmitter, FileSystem, FileSystemType, FolioRun, INode, INodeRef, Param, ParamOutcome,
    ReadFolios, Registration, SharedMappings, StatFs, SuperBlock, SuperParams, WorkQueue,
    XattrLister,
};

mod base;
mod codec;
mod fill;
mod io;
#[cfg(vfs_misuse)]
mod misuse;
mod ops;
#[allow(unsafe_code)]
mod ports;
mod store;
mod tree;
#[allow(unsafe_code)]
mod vfs;

use fill::file;
use ops::{dir, image, inode, options, sharing, superblock, verity, xattr};
use store::blob_store;

module! {
    type: PuzzleFsModule,
    name: "puzzlefs",
    authors: ["The PuzzleFS authors"],
    description: "PuzzleFS: mounts OCI image layouts of content-addressed chunks",
    license: "GPL",
    alias: ["fs-puzzlefs"],
}

/// The module.
type PuzzleFsModule = Registration<PuzzleFs>;

/// The filesystem.
struct PuzzleFs;

type MountContext = vfs::MountContext<PuzzleFs>;

impl FileSystemType for PuzzleFs {
    const NAME: &'static CStr = c"puzzlefs";
    const PAGES_NAME: &'static CStr = c"puzzlefs_pages";
    const MAGIC: u32 = superblock::MAGIC;

    type Shared = blob_store::Stores;
    type Params = options::Options;
    type SuperData = image::Image;
    type INodeData = inode::Node;
}

impl ReadFolios for PuzzleFs {
    fn read_folios(inode: &INode<Self>, run: &mut FolioRun<'_>) {
        file::read(inode, run)
    }

    fn prepare(inode: &INode<Self>, range: &Range<u64>) -> Result {
        file::prepare(inode, range)
    }

    fn read_extent(inode: &INode<Self>, range: &Range<u64>) -> Range<u64> {
        file::extent(inode, range).unwrap_or_else(|| range.clone())
    }

    fn readahead_queue(sb: &SuperBlock<Self>) -> Option<&WorkQueue> {
        Some(sb.data().store().readahead())
    }
}

impl FileSystem for PuzzleFs {
    fn load() -> Result<Arc<blob_store::Stores>> {
        ports::sha256::choose()?;
        blob_store::Stores::new()
    }

    fn parse_param(
        params: &mut options::Options,
        context: &MountContext,
        param: &Param<'_>,
    ) -> Result<ParamOutcome> {
        params.parse(context, param)
    }

    fn mount(
        params: &mut options::Options,
        context: &mut MountContext,
        stores: &Arc<blob_store::Stores>,
    ) -> Result<image::Image> {
        image::Image::open(params, context, stores)
    }

    fn remount(
        params: &mut options::Options,
        context: &MountContext,
        image: &image::Image,
    ) -> Result {
        params.check_remount(context, image)
    }

    fn shared_mappings(image: &image::Image) -> Option<Arc<SharedMappings<Self>>> {
        image
            .shares_pages()
            .then(|| image.store().mappings().clone())
    }

    fn super_params(image: &image::Image) -> SuperParams {
        superblock::params(image)
    }

    fn root(sb: &SuperBlock<Self>) -> Result<INodeRef<'_, Self>> {
        inode::get(sb, puzzlefs_schema::ROOT_INO, None)
    }

    fn lookup<'a>(dir: &'a INode<Self>, name: &[u8]) -> Result<Option<INodeRef<'a, Self>>> {
        dir::lookup(dir, name)
    }

    fn inode_by_number(sb: &SuperBlock<Self>, ino: u64) -> Result<INodeRef<'_, Self>> {
        inode::by_number(sb, ino)
    }

    fn parent(dir: &INode<Self>) -> Result<INodeRef<'_, Self>> {
        dir::parent(dir)
    }

    fn read_dir(dir: &INode<Self>, emitter: &mut DirEmitter<'_>) -> Result {
        dir::read(dir, emitter)
    }

    fn share_pages(inode: &INode<Self>) -> Result {
        sharing::share(inode)
    }

    fn open(inode: &INode<Self>) -> Result<bool> {
        let has_pinned = file::open(inode)?;
        if has_pinned {
            verity::note(inode);
        }
        Ok(has_pinned)
    }

    fn release(inode: &INode<Self>) {
        file::release(inode)
    }

    fn verity_digest(inode: &INode<Self>) -> Result<Option<[u8; 32]>> {
        verity::digest(inode)
    }

    fn has_verity(inode: &INode<Self>) -> bool {
        verity::is_known(inode)
    }

    fn get_xattr<'a>(inode: &'a INode<Self>, name: &[u8]) -> Result<Option<&'a [u8]>> {
        xattr::get(inode, name)
    }

    fn list_xattrs(inode: &INode<Self>, lister: &mut XattrLister<'_>) -> Result {
        xattr::list(inode, lister)
    }

    fn statfs(sb: &SuperBlock<Self>) -> Result<StatFs> {
        superblock::statfs(sb.data())
    }

    fn show_options(sb: &SuperBlock<Self>, seq: &SeqFile) -> Result {
        superblock::show_options(sb.data(), seq);
        Ok(())
    }

    fn show_stats(sb: &SuperBlock<Self>, seq: &SeqFile) -> Result {
        sb.data().statistics().show(seq);
        Ok(())
    }
}
