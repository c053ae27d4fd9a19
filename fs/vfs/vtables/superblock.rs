// SPDX-License-Identifier: GPL-2.0

//! `super_operations`, and the beginning and end of a superblock.

use super::{export::ExportOps, inode, xattr};
use crate::vfs::{
    bindings,
    compat::prelude::*,
    filesystem::FileSystem,
    types::{drop_data, Dentry, SuperBlock, SuperParams, BLOCK_SIZE, MAX_STACK_DEPTH},
};
use core::{marker::PhantomData, ptr};
use kernel::{
    error::{from_result, to_result},
    ffi::{c_int, c_uint},
    seq_file::SeqFile,
};

/// The operation table of superblocks of the filesystem `T`.
struct Tables<T: FileSystem>(PhantomData<T>);

impl<T: FileSystem> Tables<T> {
    const OPS: bindings::super_operations = bindings::super_operations {
        alloc_inode: Some(inode::alloc::<T>),
        free_inode: Some(inode::free::<T>),
        evict_inode: Some(inode::evict::<T>),
        statfs: Some(statfs::<T>),
        show_options: Some(show_options::<T>),
        show_stats: Some(show_stats::<T>),
        ..pin_init::zeroed()
    };
}

/// Initialises a new superblock.
///
/// # Safety
///
/// To be called by `get_tree_nodev` for a context of this filesystem whose `s_fs_info` has
/// become the superblock's.
pub(super) unsafe extern "C" fn fill<T: FileSystem>(
    sb: *mut kernel::bindings::super_block,
    _fc: *mut bindings::fs_context,
) -> c_int {
    from_result(|| {
        // SAFETY: The VFS gives a valid new superblock, to which `sget_fc` has moved the
        // context's `s_fs_info`: what `get_tree` put there.
        let this = unsafe { SuperBlock::<T>::from_raw(sb) };
        let params = T::super_params(this.data());
        if params.stack_depth > MAX_STACK_DEPTH {
            return Err(ELOOP);
        }
        // SAFETY: Until this function returns, nobody else uses the superblock.
        unsafe { set_properties::<T>(sb, &params) }?;

        let root = T::root(this)?;
        if !root.is_directory() {
            return Err(ENOTDIR);
        }
        // SAFETY: The reference to the inode is given away: `d_make_root` takes it even when
        // it fails.
        let dentry = unsafe { bindings::d_make_root(root.into_raw()) };
        if dentry.is_null() {
            return Err(ENOMEM);
        }
        // SAFETY: `sb` is still ours alone.
        unsafe { (*sb).s_root = dentry };
        Ok(0)
    })
}

/// Sets the fields of a superblock, and makes its device info.
///
/// # Safety
///
/// `sb` must be a valid new superblock that nobody else uses.
unsafe fn set_properties<T: FileSystem>(
    sb: *mut bindings::super_block,
    params: &SuperParams,
) -> Result {
    // SAFETY: By the safety requirements. The tables are promoted to statics: they are constants of
    // function pointers.
    unsafe {
        (*sb).s_op = &Tables::<T>::OPS;
        (*sb).s_xattr = xattr::Handlers::<T>::LIST.as_ptr();
        (*sb).s_magic = T::MAGIC as usize;
        (*sb).s_flags |= (bindings::VFS_RS_SB_RDONLY
            | bindings::VFS_RS_SB_NOATIME
            | bindings::VFS_RS_SB_POSIXACL) as usize;
        (*sb).s_maxbytes = bindings::VFS_RS_MAX_LFS_FILESIZE;
        (*sb).s_blocksize = BLOCK_SIZE as usize;
        (*sb).s_blocksize_bits = BLOCK_SIZE.trailing_zeros() as u8;
        (*sb).s_time_gran = 1;
        (*sb).s_stack_depth = params.stack_depth;
        (*sb).s_export_op = ptr::from_ref(&ExportOps::<T>::OPS).cast();
        (*sb).s_uuid.b = params.uuid;
        (*sb).s_uuid_len = params.uuid.len() as u8;
    }
    // sysfs shows the device info under the number of the device that stat(2) shows, as it does
    // those of NFS and FUSE.
    // SAFETY: The superblock is valid and has no device info of its own yet. The format takes two
    // numbers.
    to_result(unsafe {
        let (major, minor) = device_numbers((*sb).s_dev);
        bindings::super_setup_bdi_name(sb, c"%u:%u".as_char_ptr().cast_mut(), major, minor)
    })?;
    // SAFETY: `super_setup_bdi_name` succeeded, so `s_bdi` is valid and this superblock's own.
    unsafe {
        let pages = params.readahead >> bindings::PAGE_SHIFT;
        (*(*sb).s_bdi).ra_pages = pages;
        (*(*sb).s_bdi).io_pages = pages;
    }
    Ok(())
}

/// Splits the kernel's representation of a device number into the major and the minor number.
fn device_numbers(number: bindings::dev_t) -> (c_uint, c_uint) {
    (
        number >> bindings::MINORBITS,
        number & ((1 << bindings::MINORBITS) - 1),
    )
}

/// Shuts a superblock down.
///
/// # Safety
///
/// To be called by the VFS as `file_system_type.kill_sb` of a `Registration<T>`.
pub(super) unsafe extern "C" fn kill<T: FileSystem>(sb: *mut bindings::super_block) {
    // No file is open any more, and therefore no more work begins. The work under way gives its
    // inodes back. Without private data, the superblock was never filled.
    // SAFETY: The VFS gives a valid superblock, whose data is taken back below.
    unsafe {
        if !(*sb).s_fs_info.is_null() {
            SuperBlock::<T>::from_raw(sb).pending().wait();
        }
    }
    // SAFETY: The VFS calls this once, when the last reference to an active superblock is gone.
    unsafe { bindings::kill_anon_super(sb) };
    // SAFETY: `kill_anon_super` has evicted the inodes, so nobody can borrow the data any more.
    unsafe {
        let data = (*sb).s_fs_info;
        (*sb).s_fs_info = ptr::null_mut();
        drop_data::<T>(data);
    }
}

/// Reports the sizes of a filesystem: `super_operations.statfs`.
///
/// # Safety
///
/// To be called by the VFS for a dentry of the filesystem `T`.
unsafe extern "C" fn statfs<T: FileSystem>(
    dentry: *mut bindings::dentry,
    out: *mut kernel::bindings::kstatfs,
) -> c_int {
    from_result(|| {
        // SAFETY: The VFS gives a valid dentry of a superblock of this filesystem.
        let dentry = unsafe { Dentry::<T>::from_raw(dentry) };
        let stat = T::statfs(dentry.superblock())?;
        let out = out.cast::<bindings::kstatfs>();
        // SAFETY: The VFS gives a valid structure to fill, which it has zeroed.
        unsafe {
            (*out).f_type = T::MAGIC as isize;
            (*out).f_bsize = BLOCK_SIZE as isize;
            (*out).f_frsize = BLOCK_SIZE as isize;
            (*out).f_blocks = stat.bytes.div_ceil(u64::from(BLOCK_SIZE));
            (*out).f_files = stat.files;
            (*out).f_fsid.val = [stat.id[0] as c_int, stat.id[1] as c_int];
            (*out).f_namelen = bindings::NAME_MAX as isize;
        }
        Ok(0)
    })
}

/// Shows the mount options: `super_operations.show_options`.
///
/// # Safety
///
/// To be called by the VFS for a dentry of the filesystem `T`.
unsafe extern "C" fn show_options<T: FileSystem>(
    seq: *mut bindings::seq_file,
    root: *mut bindings::dentry,
) -> c_int {
    from_result(|| {
        // SAFETY: The VFS gives a valid dentry of a superblock of this filesystem, and a
        // sequence file that only this task uses.
        let (root, seq) = unsafe { (Dentry::<T>::from_raw(root), SeqFile::from_raw(seq)) };
        T::show_options(root.superblock(), seq)?;
        Ok(0)
    })
}

/// Shows statistics: `super_operations.show_stats`.
///
/// # Safety
///
/// To be called by the VFS for a dentry of the filesystem `T`.
unsafe extern "C" fn show_stats<T: FileSystem>(
    seq: *mut bindings::seq_file,
    root: *mut bindings::dentry,
) -> c_int {
    from_result(|| {
        // SAFETY: The VFS gives a valid dentry of a superblock of this filesystem, and a sequence
        // file that only this task uses.
        let (root, seq) = unsafe { (Dentry::<T>::from_raw(root), SeqFile::from_raw(seq)) };
        T::show_stats(root.superblock(), seq)?;
        Ok(0)
    })
}
