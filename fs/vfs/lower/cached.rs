// SPDX-License-Identifier: GPL-2.0

//! Reads through the page cache of the lower filesystem.
//!
//! Locks: a caller has folios locked, and in a page fault `mmap_lock` as well. The holder of a
//! file's lock (`i_rwsem`) can wait for either, to copy from or to user memory: a write, FIEMAP, a
//! read. Many filesystems take this lock in `->read_iter()` (XFS, NFS and other network
//! filesystems), so that a read sees all of a write or nothing of it. Files whose contents are
//! verified, or do not change, do not need this.
//!
//! A page fault has the same problem, and therefore never takes a file's lock: `filemap_fault()`
//! reads the page cache by `->read_folio()` and `->readahead()`. Files are read like this here.
//! FUSE and GFS2 are read by `->read_iter()`, because their page faults do more than that; neither
//! has the lock of the file while it copies from user memory.

use super::open::has_flag;
use crate::vfs::{bindings, compat::prelude::*};
use core::{
    mem::MaybeUninit,
    ptr::{self, NonNull},
};
use kernel::{
    error::{from_err_ptr, to_result},
    ffi::{c_int, c_uint},
    page::PAGE_SIZE,
};

/// Reads into memory; returns how much was read. `drops_behind` leaves no pages behind.
///
/// # Safety
///
/// `file` must be valid and open for reading. `memory` must be of the kernel's allocators, valid
/// for writes of `len` bytes, and used by nobody else.
pub(super) unsafe fn read_buffer(
    file: *mut bindings::file,
    memory: *mut u8,
    len: usize,
    offset: i64,
    drops_behind: bool,
) -> Result<usize> {
    let vector = bindings::kvec {
        iov_base: memory.cast(),
        iov_len: len,
    };
    let mut iter = MaybeUninit::uninit();
    let flags = if drops_behind {
        bindings::VFS_RS_IOCB_DONTCACHE
    } else {
        0
    };
    // SAFETY: The file is valid by the safety requirements, and so is the memory that the vector
    // describes. The vector outlives the iterator.
    unsafe {
        bindings::iov_iter_kvec(iter.as_mut_ptr(), bindings::ITER_DEST, &vector, 1, len);
        let read = read_iter(file, iter.as_mut_ptr(), offset, flags);
        was_read(memory, len);
        read
    }
}

/// Reads into parts of pages; returns how much was read.
///
/// # Safety
///
/// `file` must be valid and open for reading. The first `count` of `vectors` must describe `len`
/// bytes that may be written.
pub(super) unsafe fn read_vectors(
    file: *mut bindings::file,
    vectors: *const bindings::bio_vec,
    count: usize,
    len: usize,
    offset: i64,
) -> Result<usize> {
    let mut iter = MaybeUninit::uninit();
    // SAFETY: The file and the vectors are valid by the safety requirements. The vectors outlive
    // the iterator.
    unsafe {
        bindings::iov_iter_bvec(iter.as_mut_ptr(), bindings::ITER_DEST, vectors, count, len);
        read_iter(file, iter.as_mut_ptr(), offset, 0)
    }
}

/// Starts to read a range into the page cache.
///
/// # Safety
///
/// `file` must be valid and open for reading.
pub(super) unsafe fn will_need(file: *mut bindings::file, offset: i64, len: i64) {
    let advice = bindings::POSIX_FADV_WILLNEED as c_int;
    // SAFETY: The file is valid by the safety requirements, and keeps the mapping.
    unsafe {
        if let Some(mapping) = real_mapping(file) {
            read_ahead(mapping, offset, usize::try_from(len).unwrap_or(0));
        } else if is_read_by_folio(file) {
            // An error shows when the range is read.
            let _ = bindings::generic_fadvise(file, offset, len, advice);
        } else {
            let _ = bindings::vfs_fadvise(file, offset, len, advice);
        }
    }
}

/// Returns true if there are pages of a range of the file's data. Those of fs-verity, behind the
/// end, do not count.
///
/// # Safety
///
/// `file` must be valid and open.
pub(super) unsafe fn is_cached(file: *mut bindings::file, offset: u64, len: u64) -> bool {
    // SAFETY: The file is valid by the safety requirements, and so is its mapping. The number of
    // pages may change meanwhile.
    unsafe {
        let mapping = (*file).f_mapping;
        let size = bindings::vfs_rs_inode_size((*mapping).host);
        let start = i64::try_from(offset).unwrap_or(i64::MAX);
        let end = i64::try_from(offset.saturating_add(len)).unwrap_or(i64::MAX);
        let end = end.min(size);
        ptr::addr_of!((*mapping).nrpages).read_volatile() != 0
            && start < end
            && bindings::filemap_range_has_page(mapping, start, end - 1)
    }
}

/// Makes the caches of the processor see memory that a device has written.
///
/// # Safety
///
/// `memory` must be valid for `len` bytes.
pub(super) unsafe fn was_read(memory: *mut u8, len: usize) {
    // The device wrote to the pages, perhaps behind the cache of addresses of `vmalloc`.
    // SAFETY: The memory is valid by the safety requirements.
    unsafe {
        if bindings::is_vmalloc_addr(memory.cast()) {
            bindings::vfs_rs_invalidate_kernel_vmap_range(memory.cast(), len as c_int);
        }
    }
}

/// Reads a file without taking its lock, unless its filesystem needs `->read_iter()`.
///
/// # Safety
///
/// `file` must be valid and open for reading, and `iter` valid.
unsafe fn read_iter(
    file: *mut bindings::file,
    iter: *mut bindings::iov_iter,
    offset: i64,
    flags: c_uint,
) -> Result<usize> {
    let mut request = MaybeUninit::<bindings::kiocb>::uninit();
    // SAFETY: The file and the iterator are valid by the safety requirements. The request is
    // initialised here, and synchronous: nobody uses it after the call.
    let read = unsafe {
        bindings::vfs_rs_init_sync_kiocb(request.as_mut_ptr(), file);
        let request = request.assume_init_mut();
        request.ki_pos = offset;
        request.ki_flags |= flags as c_int;
        let mapping = real_mapping(file);
        if mapping.is_none() && !is_read_by_folio(file) {
            bindings::vfs_iocb_iter_read(file, request, iter)
        } else {
            let len = bindings::vfs_rs_iov_iter_count(iter);
            to_result(bindings::rw_verify_area(
                bindings::READ as c_int,
                file,
                &request.ki_pos,
                len,
            ))?;
            match mapping {
                Some(mapping) => return read_mapping(mapping, request.ki_pos, iter),
                None => bindings::filemap_read(request, iter, 0),
            }
        }
    };
    to_result(read.min(0) as c_int)?;
    Ok(read as usize)
}

/// Returns true if a file may be read by `->read_folio()` alone: see the module's documentation.
///
/// # Safety
///
/// `file` must be valid and open.
unsafe fn is_read_by_folio(file: *mut bindings::file) -> bool {
    // SAFETY: The file is valid by the safety requirements, and so are its mapping, inode and
    // superblock.
    let (has_read_folio, magic) = unsafe {
        (
            (*(*(*file).f_mapping).a_ops).read_folio.is_some(),
            (*(*(*file).f_inode).i_sb).s_magic,
        )
    };
    has_read_folio
        && magic != bindings::FUSE_SUPER_MAGIC as usize
        && magic != bindings::GFS2_MAGIC as usize
}

/// Returns the page cache of the file that an overlay's file stands for, or `None` if
/// `->read_iter()` is used. A filesystem without a disk may need an open file of its own to read a
/// folio.
///
/// # Safety
///
/// `file` must be valid and open; it keeps the mapping.
unsafe fn real_mapping(file: *mut bindings::file) -> Option<NonNull<bindings::address_space>> {
    // SAFETY: The file is valid by the safety requirements, and so are its dentry, the inode that
    // this stands for, and the latter's superblock and mapping.
    unsafe {
        let dentry = (*bindings::vfs_rs_file_path(file)).dentry;
        if !has_flag(dentry, bindings::dentry_flags_DCACHE_OP_REAL) {
            return None;
        }
        let inode = bindings::vfs_rs_d_real_inode(dentry);
        let mapping = (*inode).i_mapping;
        if (*(*inode).i_sb).s_bdev.is_null() || (*(*mapping).a_ops).read_folio.is_none() {
            return None;
        }
        NonNull::new(mapping)
    }
}

/// Starts to read into a page cache, at most [`MAX_READAHEAD`] bytes.
///
/// # Safety
///
/// `mapping` must be valid, and have `->read_folio()`.
unsafe fn read_ahead(mapping: NonNull<bindings::address_space>, offset: i64, len: usize) {
    // SAFETY: The mapping is valid by the safety requirements, and its host with it.
    let size = unsafe { bindings::vfs_rs_inode_size((*mapping.as_ptr()).host) };
    let end = size.min(offset.saturating_add(len.min(MAX_READAHEAD) as i64));
    if offset < 0 || end <= offset {
        return;
    }
    let first = offset as u64 / PAGE_SIZE as u64;
    let last = (end - 1) as u64 / PAGE_SIZE as u64;
    let mut state = pin_init::zeroed::<bindings::file_ra_state>();
    let mut request = bindings::readahead_control {
        mapping: mapping.as_ptr(),
        ra: &mut state,
        _index: first as usize,
        ..pin_init::zeroed()
    };
    // SAFETY: The request is initialised as `DEFINE_READAHEAD` does it, without a file.
    unsafe { bindings::page_cache_ra_unbounded(&mut request, (last - first + 1) as usize, 0) };
}

/// Reads from a page cache; returns how much was read, which is less at the file's end or after an
/// error.
///
/// # Safety
///
/// `mapping` must be valid, and have `->read_folio()`. `iter` must be valid.
unsafe fn read_mapping(
    mapping: NonNull<bindings::address_space>,
    mut offset: i64,
    iter: *mut bindings::iov_iter,
) -> Result<usize> {
    let mut read = 0;
    loop {
        // SAFETY: The iterator is valid by the safety requirements.
        let wanted = unsafe { bindings::vfs_rs_iov_iter_count(iter) };
        // SAFETY: The mapping is valid by the safety requirements, and its host with it.
        let size = unsafe { bindings::vfs_rs_inode_size((*mapping.as_ptr()).host) };
        if wanted == 0 || offset >= size {
            return Ok(read);
        }
        // SAFETY: The mapping is valid by the safety requirements.
        let folio = match unsafe { get_folio(mapping, offset, wanted) } {
            Ok(folio) => folio,
            Err(_) if read > 0 => return Ok(read),
            Err(e) => return Err(e),
        };
        // SAFETY: `get_folio` gave a reference to the folio, which is up to date. The range is
        // inside it.
        let copied = unsafe {
            let folio_size = bindings::vfs_rs_folio_size(folio);
            let within = offset as usize & (folio_size - 1);
            let left = usize::try_from(size - offset).unwrap_or(usize::MAX);
            let len = (folio_size - within).min(wanted).min(left);
            let copied = bindings::vfs_rs_copy_folio_to_iter(folio, within, len, iter);
            bindings::vfs_rs_folio_put(folio);
            copied
        };
        if copied == 0 {
            return Ok(read);
        }
        read += copied;
        offset += copied as i64;
    }
}

/// Returns the folio at an offset, up to date and with a reference. Reads ahead if it is not there.
///
/// # Safety
///
/// `mapping` must be valid, and have `->read_folio()`.
unsafe fn get_folio(
    mapping: NonNull<bindings::address_space>,
    offset: i64,
    wanted: usize,
) -> Result<*mut bindings::folio> {
    let index = (offset as u64 / PAGE_SIZE as u64) as usize;
    // SAFETY: The mapping is valid by the safety requirements. The invalidation lock is released
    // again; with it held, no truncation can remove the folio while it is read.
    unsafe {
        match from_err_ptr(bindings::vfs_rs_filemap_get_folio(mapping.as_ptr(), index)) {
            Ok(folio) => bindings::vfs_rs_folio_put(folio),
            Err(_) => read_ahead(mapping, offset, wanted),
        }
        bindings::vfs_rs_filemap_invalidate_lock_shared(mapping.as_ptr());
        let folio = bindings::read_cache_folio(mapping.as_ptr(), index, None, ptr::null_mut());
        bindings::vfs_rs_filemap_invalidate_unlock_shared(mapping.as_ptr());
        from_err_ptr(folio)
    }
}

/// The maximum of one readahead, in bytes.
const MAX_READAHEAD: usize = bindings::SZ_2M as usize;
