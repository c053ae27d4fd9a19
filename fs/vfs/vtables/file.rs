// SPDX-License-Identifier: GPL-2.0

//! `file_operations` of regular files.
//!
//! A file's pages may belong to a shared mapping, whose internal mount has another readahead than
//! the file's own superblock. The VFS initialises `f_ra` from the mapping; it is set again before
//! the first read and after `fadvise(2)`.
//!
//! No lock protects `f_ra` and the marks in `private_data`: tasks that share an open file may set
//! them at once, to the same values.

use super::attributes;
use crate::vfs::{bindings, filesystem::FileSystem, types::INode};
use core::{marker::PhantomData, ptr};
use kernel::{
    error::{from_result, to_result},
    ffi::{c_int, c_uint},
};

/// The operation table of regular files of the filesystem `T`.
pub(super) struct Tables<T: FileSystem>(PhantomData<T>);

impl<T: FileSystem> Tables<T> {
    pub(super) const OPS: bindings::file_operations = bindings::file_operations {
        open: Some(open::<T>),
        release: Some(release::<T>),
        llseek: Some(bindings::generic_file_llseek),
        read_iter: Some(read),
        mmap_prepare: Some(map::<T>),
        #[cfg(CONFIG_TRANSPARENT_HUGEPAGE)]
        get_unmapped_area: Some(bindings::thp_get_unmapped_area),
        splice_read: Some(splice),
        fadvise: Some(advise),
        unlocked_ioctl: Some(attributes::control::<T>),
        #[cfg(CONFIG_COMPAT)]
        compat_ioctl: Some(attributes::control::<T>),
        fsync: Some(bindings::noop_fsync),
        setlease: Some(bindings::generic_setlease),
        ..pin_init::zeroed()
    };
}

/// Opens a regular file: `file_operations.open`.
///
/// # Safety
///
/// To be called by the VFS for a regular file's inode of the filesystem `T`.
pub(super) unsafe extern "C" fn open<T: FileSystem>(
    inode: *mut bindings::inode,
    file: *mut bindings::file,
) -> c_int {
    from_result(|| {
        // SAFETY: The VFS gives a valid inode of this filesystem, which stays during the call.
        let this = unsafe { INode::<T>::from_raw(inode) };
        if !this.shares_pages() {
            T::share_pages(this)?;
        }
        // SAFETY: Only this task opens the file. The mapping stays as long as the inode.
        to_result(unsafe {
            (*file).f_mapping = (*inode).i_mapping;
            // Reads from the page cache never block if they are asked not to.
            (*file).f_mode |= bindings::VFS_RS_FMODE_NOWAIT;
            bindings::generic_file_open(inode, file)
        })?;
        let mut marks = TO_PREPARE;
        if T::open(this)? {
            marks |= TO_RELEASE;
        }
        // SAFETY: Only this task opens the file.
        unsafe { (*file).private_data = ptr::without_provenance_mut(marks) };
        Ok(0)
    })
}

/// Closes a regular file: `file_operations.release`.
///
/// # Safety
///
/// To be called by the VFS for a file that [`open`] has opened.
unsafe extern "C" fn release<T: FileSystem>(
    inode: *mut bindings::inode,
    file: *mut bindings::file,
) -> c_int {
    // SAFETY: The VFS gives a valid file, and a valid inode of this filesystem.
    unsafe {
        if (*file).private_data.addr() & TO_RELEASE != 0 {
            T::release(INode::<T>::from_raw(inode));
        }
    }
    0
}

/// Sets the readahead of a file to that of its own superblock, before the first read.
///
/// # Safety
///
/// `file` must be a valid open file of a filesystem of ours.
unsafe fn prepare(file: *mut bindings::file) {
    // Several tasks may be here. Those that are not the first may read less or more ahead this
    // time.
    // SAFETY: The file is valid by the safety requirements. All tasks write the same marks.
    unsafe {
        let state = ptr::addr_of_mut!((*file).private_data);
        let marks = state.read_volatile().addr();
        if marks & TO_PREPARE != 0 {
            set_readahead(file, |pages| pages);
            state.write_volatile(ptr::without_provenance_mut(marks & !TO_PREPARE));
        }
    }
}

/// Sets the readahead of a file to a function of that of its own superblock, in pages, as
/// `file_ra_state_init` and `fadvise` do with that of the mapping.
///
/// # Safety
///
/// `file` must be a valid open file of a filesystem of ours.
unsafe fn set_readahead(file: *mut bindings::file, of: impl FnOnce(c_uint) -> c_uint) {
    // SAFETY: The file is valid by the safety requirements, and its inode and superblock with it.
    // `f_ra` is a hint that may change at any time.
    unsafe {
        let info = (*(*(*file).f_inode).i_sb).s_bdi;
        bindings::vfs_rs_file_set_ra_pages(file, of((*info).ra_pages as c_uint));
    }
}

/// Reads: `file_operations.read_iter`.
///
/// # Safety
///
/// To be called by the VFS for a regular file of a filesystem of ours.
unsafe extern "C" fn read(iocb: *mut bindings::kiocb, to: *mut bindings::iov_iter) -> isize {
    // SAFETY: The VFS gives a valid request for an open file.
    unsafe {
        prepare((*iocb).ki_filp);
        bindings::generic_file_read_iter(iocb, to)
    }
}

/// Reads into a pipe: `file_operations.splice_read`.
///
/// # Safety
///
/// To be called by the VFS for a regular file of a filesystem of ours.
unsafe extern "C" fn splice(
    file: *mut bindings::file,
    position: *mut bindings::loff_t,
    pipe: *mut bindings::pipe_inode_info,
    len: usize,
    flags: c_uint,
) -> isize {
    // SAFETY: The VFS gives a valid open file and a pipe that is locked.
    unsafe {
        prepare(file);
        bindings::filemap_splice_read(file, position, pipe, len, flags)
    }
}

/// Maps into memory: `file_operations.mmap_prepare`.
///
/// # Safety
///
/// To be called by the VFS for a regular file of the filesystem `T`.
unsafe extern "C" fn map<T: FileSystem>(area: *mut bindings::vm_area_desc) -> c_int {
    // SAFETY: The VFS gives a valid description of a map of an open file, whose inode is one of
    // this filesystem.
    unsafe {
        let file = (*area).file;
        if bindings::vfs_rs_maps_executable(area) {
            T::map_executable(INode::<T>::from_raw((*file).f_inode));
        }
        prepare(file);
        set_readahead(file, around_faults);
        bindings::generic_file_readonly_mmap_prepare(area)
    }
}

/// Takes advice: `file_operations.fadvise`.
///
/// # Safety
///
/// To be called by the VFS for a regular file of a filesystem of ours.
unsafe extern "C" fn advise(
    file: *mut bindings::file,
    offset: bindings::loff_t,
    len: bindings::loff_t,
    advice: c_int,
) -> c_int {
    // SAFETY: The VFS gives a valid open file.
    unsafe {
        prepare(file);
        let result = bindings::generic_fadvise(file, offset, len, advice);
        // `generic_fadvise` has taken the readahead of the internal mount.
        match advice as c_uint {
            bindings::POSIX_FADV_NORMAL if result == 0 => set_readahead(file, |pages| pages),
            bindings::POSIX_FADV_SEQUENTIAL if result == 0 => {
                set_readahead(file, |pages| pages.wrapping_mul(2))
            }
            _ => {}
        }
        result
    }
}

/// Returns the number of pages that a fault brings in around its own, for a file whose readahead is
/// `pages`: a quarter, because faults seldom follow each other in a file, but not less than other
/// filesystems have (`VM_READAHEAD_PAGES`), nor more than `pages`.
fn around_faults(pages: c_uint) -> c_uint {
    const LEAST: c_uint = (128 << 10) >> bindings::PAGE_SHIFT;
    pages.min(LEAST.max(pages.div_ceil(4)))
}

/// A mark in `private_data` of an open file: nothing of it has been read yet.
const TO_PREPARE: usize = 1;

/// A mark in `private_data` of an open file: [`FileSystem::release`] is due for it.
const TO_RELEASE: usize = 2;
