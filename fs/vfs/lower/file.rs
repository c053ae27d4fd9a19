// SPDX-License-Identifier: GPL-2.0

//! Regular files of the lower filesystem.

use super::{cached, credentials::CredentialGuard};
use crate::vfs::{bindings, compat::prelude::*};
use core::{mem::MaybeUninit, ptr::NonNull};
use kernel::{cred::Credential, fs::File, sync::aref::ARef};

/// A regular file of the lower filesystem, open for reading.
///
/// Reads send no fsnotify events.
///
/// # Invariants
///
/// `file` is a regular file that is open for reading and in no file descriptor table, so that
/// nobody uses its position. The alignment in `past_cache` is a power of two, at most
/// [`MAX_ALIGNMENT`].
#[derive(Clone)]
pub(crate) struct BackingFile {
    file: ARef<File>,
    /// The way in which the file is read without leaving pages in the page cache of the lower
    /// filesystem; `None` if there is none.
    past_cache: Option<PastCache>,
    /// Set if reads through that page cache can leave nothing there.
    drops_behind: bool,
}

impl BackingFile {
    /// Takes over a file, and finds out how it can be read.
    ///
    /// # Safety
    ///
    /// `file` must be a regular file, open for reading, that nobody else has a reference to and
    /// that is in no file descriptor table.
    pub(super) unsafe fn from_raw(file: NonNull<bindings::file>) -> Self {
        // SAFETY: The file is valid by the safety requirements.
        let (alignment, drops_behind) = unsafe {
            (
                direct_alignment(file.as_ptr()),
                (*(*file.as_ptr()).f_op).fop_flags & bindings::VFS_RS_FOP_DONTCACHE != 0,
            )
        };
        let past_cache = match alignment {
            Some(alignment) => Some(PastCache::Direct { alignment }),
            None => drops_behind.then_some(PastCache::DropBehind),
        };
        // INVARIANT: By the safety requirements, and the check in `direct_alignment`.
        Self {
            // SAFETY: By the safety requirements the reference is ours, and nobody uses the file's
            // position.
            file: unsafe { ARef::from_raw(file.cast::<File>()) },
            past_cache,
            drops_behind,
        }
    }

    /// Returns the C structure.
    pub(super) fn as_ptr(&self) -> *mut bindings::file {
        self.file.as_ptr()
    }

    /// Returns the credentials with which the file was opened.
    pub(super) fn credentials(&self) -> &Credential {
        self.file.cred()
    }

    /// Returns true if reads through the page cache can leave nothing there.
    pub(super) fn drops_behind(&self) -> bool {
        self.drops_behind
    }

    /// Returns the file's size, in bytes.
    pub(crate) fn size(&self) -> u64 {
        // SAFETY: By the type invariants the file is valid, and its inode with it.
        unsafe { bindings::vfs_rs_inode_size((*self.file.as_ptr()).f_inode) as u64 }
    }

    /// Returns the file's SHA-256 fs-verity digest, if it has one. The lower filesystem checks
    /// against it each page of the file that it reads.
    pub(crate) fn verity_digest(&self) -> Option<[u8; 32]> {
        let mut digest = [0; bindings::FS_VERITY_MAX_DIGEST_SIZE as usize];
        let mut algorithm = 0;
        // SAFETY: By the type invariants the file is valid and open, and its inode with it. The
        // digest has room for the largest one.
        let len = unsafe {
            let inode = (*self.file.as_ptr()).f_inode;
            bindings::vfs_rs_fsverity_get_digest(inode, digest.as_mut_ptr(), &mut algorithm)
        };
        if len != 32 || algorithm != bindings::hash_algo_HASH_ALGO_SHA256 {
            return None;
        }
        digest.first_chunk().copied()
    }

    /// Returns true if a read of any range leaves nothing in the page cache of the lower
    /// filesystem: it supports that, and has no pages of the file that a read should rather use.
    pub(crate) fn is_read_past_cache(&self) -> bool {
        self.is_range_read_past_cache(0, u64::MAX)
    }

    /// Returns true if a read of a range leaves nothing in the page cache of the lower filesystem:
    /// it supports that, and has no pages of the range that a read should rather use.
    pub(crate) fn is_range_read_past_cache(&self, offset: u64, len: u64) -> bool {
        self.past_cache_now(offset, len).is_some()
    }

    /// Returns true if a read of a range is done past the page cache of the lower filesystem.
    pub(crate) fn is_range_read_directly(&self, offset: u64, len: u64) -> bool {
        matches!(
            self.past_cache_now(offset, len),
            Some(PastCache::Direct { .. })
        )
    }

    /// Returns true if a read of a range is done through the page cache of the lower filesystem,
    /// and leaves nothing there.
    pub(crate) fn is_range_dropped_behind(&self, offset: u64, len: u64) -> bool {
        matches!(
            self.past_cache_now(offset, len),
            Some(PastCache::DropBehind)
        )
    }

    /// Returns the way in which a read of a range leaves nothing in that page cache now, if there
    /// is one.
    ///
    /// A read that drops pages behind uses those that are there, and leaves the ones that it did
    /// not bring. Without it, the pages that the lower filesystem has read ahead would stay.
    pub(super) fn past_cache_now(&self, offset: u64, len: u64) -> Option<PastCache> {
        let is_cached = || {
            // SAFETY: By the type invariants the file is valid and open.
            unsafe { cached::is_cached(self.file.as_ptr(), offset, len) }
        };
        self.past_cache.filter(|how| match how {
            PastCache::Direct { .. } => !is_cached(),
            PastCache::DropBehind => true,
        })
    }

    /// Returns true if another open file is the same file, and not one that has taken its name.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        // SAFETY: By the type invariants both files are valid, and keep their inodes.
        unsafe { (*self.file.as_ptr()).f_inode == (*other.file.as_ptr()).f_inode }
    }

    /// Reads from the file's byte `offset` on through the page cache of the lower filesystem, until
    /// `memory` is full or the file ends. Returns how much was read.
    ///
    /// # Errors
    ///
    /// Those of reading the file.
    pub(crate) fn read_cached(&self, memory: &mut KVVec<u8>, offset: u64) -> Result<usize> {
        let start = i64::try_from(offset).map_err(|_| EFBIG)?;
        let _guard = CredentialGuard::new(self.file.cred());
        let mut done = 0;
        while let Some(rest) = memory.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let from = start.checked_add(done as i64).ok_or(EFBIG)?;
            // SAFETY: By the type invariants the file is open for reading. The memory is borrowed
            // mutably, and is of the kernel's allocators.
            let read = unsafe {
                let file = self.file.as_ptr();
                cached::read_buffer(file, rest.as_mut_ptr(), rest.len(), from, false)
            }?;
            if read == 0 {
                break;
            }
            done += read;
        }
        Ok(done)
    }

    /// Returns the file's present version.
    pub(crate) fn version(&self) -> Version {
        // SAFETY: By the type invariants the file is valid, and its inode with it.
        let inode = unsafe { (*self.file.as_ptr()).f_inode };
        // SAFETY: The file keeps its inode.
        let change_time = unsafe {
            (
                bindings::vfs_rs_inode_ctime_sec(inode),
                bindings::vfs_rs_inode_ctime_nsec(inode),
            )
        };
        Version {
            size: self.size(),
            change_time,
        }
    }

    /// Reads into folios through the page cache of the lower filesystem; returns how much was read.
    ///
    /// # Safety
    ///
    /// The first `count` of `vectors` must describe `len` bytes that may be written.
    pub(in crate::vfs) unsafe fn read_vectors(
        &self,
        vectors: *const bindings::bio_vec,
        count: usize,
        len: usize,
        offset: u64,
    ) -> Result<usize> {
        let offset = i64::try_from(offset).map_err(|_| EFBIG)?;
        let _guard = CredentialGuard::new(self.file.cred());
        // SAFETY: By the type invariants the file is open for reading. The vectors are valid by the
        // safety requirements.
        unsafe { cached::read_vectors(self.file.as_ptr(), vectors, count, len, offset) }
    }

    /// Drops the pages of the file that the lower filesystem has cached and nobody uses.
    ///
    /// Use it for a file with wrong contents: `->read_iter()` of a network filesystem would do so
    /// if the server has another version now.
    pub(crate) fn forget_cached(&self) {
        // SAFETY: `self` keeps the file, and its mapping with it. No pages are dropped that are in
        // use.
        unsafe {
            bindings::invalidate_mapping_pages((*self.file.as_ptr()).f_mapping, 0, usize::MAX)
        };
    }

    /// Starts to read a range into the page cache of the lower filesystem, without waiting for it.
    ///
    /// This is advice: an error shows when the range is read.
    pub(crate) fn will_need(&self, offset: u64, len: u64) {
        let (Ok(offset), Ok(len)) = (i64::try_from(offset), i64::try_from(len)) else {
            return;
        };
        let _guard = CredentialGuard::new(self.file.cred());
        // SAFETY: By the type invariants the file is open for reading.
        unsafe { cached::will_need(self.file.as_ptr(), offset, len) };
    }
}

/// Returns the alignment that offsets, lengths and memory must have for direct reads that wait for
/// no lock, or `None` if the file has no such reads.
///
/// # Safety
///
/// `file` must be valid and open.
unsafe fn direct_alignment(file: *mut bindings::file) -> Option<usize> {
    let needed = bindings::VFS_RS_FMODE_CAN_ODIRECT | bindings::VFS_RS_FMODE_NOWAIT;
    // SAFETY: The file is valid by the safety requirements.
    if unsafe { (*file).f_mode } & needed != needed {
        return None;
    }
    let mut stat = MaybeUninit::<bindings::kstat>::uninit();
    let (mask, flags) = (bindings::STATX_DIOALIGN, bindings::AT_STATX_DONT_SYNC);
    // SAFETY: The file is valid, and its path with it. `vfs_getattr` initialises the structure if
    // it succeeds.
    let stat = unsafe {
        let path = bindings::vfs_rs_file_path(file);
        if bindings::vfs_getattr(path, stat.as_mut_ptr(), mask, flags) != 0 {
            return None;
        }
        stat.assume_init_ref()
    };
    if stat.result_mask & mask == 0 {
        return None;
    }
    let alignment = stat.dio_mem_align.max(stat.dio_offset_align) as usize;
    (alignment.is_power_of_two() && alignment <= MAX_ALIGNMENT).then_some(alignment)
}

/// A way to read a file without leaving pages in a page cache.
#[derive(Clone, Copy)]
pub(super) enum PastCache {
    /// Reads past the page cache, without waiting for locks; offsets, lengths and memory must be
    /// aligned.
    Direct {
        /// The alignment, in bytes: a power of two, at most [`MAX_ALIGNMENT`].
        alignment: usize,
    },
    /// Reads through the page cache, and drops the pages afterwards, as for files with fs-verity.
    DropBehind,
}

/// The version of a file: another one after a write.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Version {
    size: u64,
    change_time: (i64, u32),
}

/// The maximum alignment that direct reads are used with, in bytes: the size of a page everywhere.
pub(super) const MAX_ALIGNMENT: usize = 4096;
