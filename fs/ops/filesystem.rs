// SPDX-License-Identifier: GPL-2.0

//! The operations that the VFS calls.

use super::{
    dir,
    fetcher::Fetcher,
    file,
    fs_type::{MountContext, PuzzleFs, MAGIC},
    image::Image,
    inode,
    options::Options,
    sharing,
    stores::Stores,
    superblock, verity, xattr,
};
use crate::{
    tree::Node,
    vfs::{
        prelude::*, DirEmitter, FileSystem, FileSystemType, FolioRun, INode, INodeRef, Param,
        ParamOutcome, ReadFolios, SharedMappings, StatFs, SuperBlock, SuperParams, WorkQueue,
        XattrLister,
    },
};
use core::ops::Range;
use kernel::{seq_file::SeqFile, str::CStr, sync::Arc};

impl FileSystemType for PuzzleFs {
    const NAME: &'static CStr = c"puzzlefs";
    const PAGES_NAME: &'static CStr = c"puzzlefs_pages";
    const MAGIC: u32 = MAGIC;

    type Shared = Stores;
    type Device = Fetcher;
    type Params = Options;
    type SuperData = Image;
    type INodeData = Node;
}

impl ReadFolios for PuzzleFs {
    fn read_folios(inode: &INode<Self>, run: &mut FolioRun<'_>) {
        file::read(inode, run)
    }

    fn prepare(inode: &INode<Self>, range: &Range<u64>) -> Result {
        file::prepare(inode, range)
    }

    fn can_read_ahead(inode: &INode<Self>, range: &Range<u64>) -> bool {
        file::is_local(inode, range)
    }

    fn read_extent(inode: &INode<Self>, range: &Range<u64>) -> Range<u64> {
        file::extent(inode, range)
    }

    fn readahead_queue(sb: &SuperBlock<Self>) -> Option<&WorkQueue> {
        Some(&sb.data().store().readahead)
    }
}

impl FileSystem for PuzzleFs {
    fn load() -> Result<Arc<Stores>> {
        Stores::new()
    }

    fn open_device(stores: &Arc<Stores>) -> Result<Fetcher> {
        Ok(Fetcher::new(stores.clone()))
    }

    fn read_device(fetcher: &Fetcher, bytes: &mut [u8], wait: bool) -> Result<usize> {
        fetcher.read(bytes, wait)
    }

    fn write_device(fetcher: &Fetcher, bytes: &[u8]) -> Result<usize> {
        fetcher.write(bytes)
    }

    fn parse_param(
        params: &mut Options,
        context: &MountContext,
        param: &Param<'_>,
    ) -> Result<ParamOutcome> {
        params.parse(context, param)
    }

    fn mount(
        params: &mut Options,
        context: &mut MountContext,
        stores: &Arc<Stores>,
    ) -> Result<Image> {
        Image::open(params, context, stores)
    }

    fn remount(params: &mut Options, context: &MountContext, image: &Image) -> Result {
        params.check_remount(context, image.settings())
    }

    fn shared_mappings(image: &Image) -> Option<Arc<SharedMappings<Self>>> {
        let mappings = &image.store().mappings;
        image.settings().share.then(|| mappings.clone())
    }

    fn super_params(image: &Image) -> SuperParams {
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

    fn map_executable(inode: &INode<Self>) {
        file::prefetch(inode)
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

    fn get_xattr<R>(
        inode: &INode<Self>,
        name: &[u8],
        take: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>> {
        xattr::get(inode, name, take)
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
