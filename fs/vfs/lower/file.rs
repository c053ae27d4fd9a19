// SPDX-License-Identifier: GPL-2.0

//! The filesystem below: directories and files that a stacked filesystem reads.
//!
//! Everything is done with the mounter's credentials, never with those of the task that reads, so
//! the content of a mount does not depend on its readers' permissions.
//!
//! C headers: [`include/linux/namei.h`](srctree/include/linux/namei.h),
//! [`include/linux/fs.h`](srctree/include/linux/fs.h)

use crate::vfs::{bindings, compat::prelude::*};
use core::{mem::MaybeUninit, ops::Range, ptr::NonNull};
use kernel::{
    cred::Credential,
    error::{from_err_ptr, to_result},
    ffi::{c_int, c_uint},
    fs::File,
    str::CStr,
    sync::aref::ARef,
    types::NotThreadSafe,
};

/// The current task acts with other credentials until this is dropped.
struct CredentialGuard {
    old: *const bindings::cred,
    _not_send: NotThreadSafe,
}

impl CredentialGuard {
    fn new(credentials: &Credential) -> Self {
        Self {
            // SAFETY: The credentials are valid, and borrowed for longer than the guard is used in
            // this module: each caller keeps them alive beside it.
            old: unsafe { bindings::vfs_rs_override_creds(credentials.as_ptr()) },
            _not_send: NotThreadSafe,
        }
    }
}

impl Drop for CredentialGuard {
    fn drop(&mut self) {
        // SAFETY: `old` are the credentials that the same task had when the guard was made.
        unsafe { bindings::vfs_rs_revert_creds(self.old) };
    }
}

/// A directory of the filesystem below, and the credentials with which it is used.
///
/// # Invariants
///
/// `file` is an `O_PATH` file of a directory. Its credentials are those with which it is used.
pub(crate) struct Directory {
    file: ARef<File>,
}

impl Directory {
    /// Opens a directory by the name that the current task gives it, which may be of any form and
    /// lead through symbolic links.
    pub(crate) fn open(name: &CStr, credentials: &Credential) -> Result<Self> {
        let _guard = CredentialGuard::new(credentials);
        let mut path = MaybeUninit::<bindings::path>::uninit();
        let flags = bindings::VFS_RS_LOOKUP_FOLLOW | bindings::VFS_RS_LOOKUP_DIRECTORY;
        // SAFETY: The name is NUL-terminated; `path` is written if the call succeeds.
        to_result(unsafe { bindings::kern_path(name.as_char_ptr(), flags, path.as_mut_ptr()) })?;
        // SAFETY: `kern_path` has succeeded and initialised the path, whose references are ours
        // until they are given back here. The credentials are valid; opening takes references of
        // its own.
        let file = unsafe {
            let file = bindings::vfs_rs_open_directory(path.as_ptr().cast(), credentials.as_ptr());
            bindings::path_put(path.as_ptr());
            from_err_ptr(file)
        }?;
        // SAFETY: `vfs_rs_open_directory` has succeeded.
        unsafe { Self::from_raw(file) }
    }

    /// Opens a directory in this one. `name` is one component, and no symbolic link is followed.
    pub(crate) fn open_directory(&self, name: &CStr) -> Result<Self> {
        if name.to_bytes().contains(&b'/') {
            return Err(EINVAL);
        }
        let _guard = CredentialGuard::new(self.file.cred());
        let flags = bindings::O_PATH | bindings::O_DIRECTORY | bindings::O_NOFOLLOW;
        // SAFETY: By the type invariants the path is a directory's and valid; the name is
        // NUL-terminated.
        let file = unsafe {
            from_err_ptr(bindings::file_open_root(
                self.path(),
                name.as_char_ptr(),
                flags as c_int,
                0,
            ))
        }?;
        // SAFETY: `file_open_root` has succeeded with these flags.
        unsafe { Self::from_raw(file) }
    }

    /// # Safety
    ///
    /// `file` must be null or an `O_PATH` file of a directory that nobody else has a reference to.
    unsafe fn from_raw(file: *mut bindings::file) -> Result<Self> {
        let file = NonNull::new(file).ok_or(EIO)?;
        // INVARIANT: By the safety requirements.
        Ok(Self {
            // SAFETY: The caller gives us the reference. The file is in no file descriptor table,
            // so nobody uses its position.
            file: unsafe { ARef::from_raw(file.cast::<File>()) },
        })
    }

    /// Returns the directory's path.
    fn path(&self) -> *const bindings::path {
        // SAFETY: By the type invariants the file is valid.
        unsafe { bindings::vfs_rs_file_path(self.file.as_ptr()).cast() }
    }

    /// Opens a regular file in this directory for reading.
    ///
    /// `name` is one component. Nothing but a regular file is ever opened: no symbolic link is
    /// followed, and no device or pipe woken. No fsnotify event is sent, so that no listener can
    /// keep the reader waiting or deny the file.
    ///
    /// # Errors
    ///
    /// [`ENOENT`] if there is no such file, [`EINVAL`] if it is not a regular one, [`EACCES`] if
    /// the credentials do not allow to read it. Without `wait`, [`EAGAIN`] if the directory is
    /// locked or another process has a lease on the file. A caller that has folios or other locks
    /// must not wait, because the lock's holder may wait for one of these.
    pub(crate) fn open_file(&self, name: &[u8], wait: bool) -> Result<BackingFile> {
        let _guard = CredentialGuard::new(self.file.cred());
        let len = u32::try_from(name.len()).map_err(|_| ENAMETOOLONG)?;
        // SAFETY: By the type invariants the file is a directory's; the name is `len` bytes long.
        // Slashes and dots in it are an error. The guard has overridden the credentials.
        let file = unsafe {
            from_err_ptr(bindings::vfs_rs_open_backing(
                self.file.as_ptr(),
                name.as_ptr().cast(),
                len,
                wait,
            ))
        }?;
        let file = NonNull::new(file).ok_or(EIO)?;
        // SAFETY: The file is valid.
        let (alignment, drops_behind) = unsafe {
            (
                bindings::vfs_rs_direct_alignment(file.as_ptr()) as usize,
                bindings::vfs_rs_has_drop_behind(file.as_ptr()),
            )
        };
        let past_cache = if alignment.is_power_of_two() && alignment <= MAX_ALIGNMENT {
            Some(PastCache::Direct { alignment })
        } else {
            drops_behind.then_some(PastCache::DropBehind)
        };
        Ok(BackingFile {
            // SAFETY: The reference is ours; the file is in no file descriptor table, so nobody
            // uses its position.
            file: unsafe { ARef::from_raw(file.cast::<File>()) },
            past_cache,
            drops_behind,
        })
    }

    /// Returns the depth of stacked filesystems in the directory's one: 0 for a plain filesystem.
    pub(crate) fn stack_depth(&self) -> c_int {
        // SAFETY: By the type invariants the file is valid.
        unsafe { bindings::vfs_rs_file_stack_depth(self.file.as_ptr()) }
    }

    /// The magic number of the filesystem that the directory is on.
    pub(crate) fn filesystem_magic(&self) -> usize {
        // SAFETY: By the type invariants the path is valid, and a dentry's superblock with it.
        unsafe { (*(*(*self.path()).dentry).d_sb).s_magic }
    }

    /// Returns true if two directories are one, seen through one mount and with equal credentials.
    /// A file that may be opened through one may then be opened through the other.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let (mine, theirs) = (self.file.cred(), other.file.cred());
        // SAFETY: By the type invariants both paths are valid, as are both credentials.
        unsafe {
            (*self.path()).mnt == (*other.path()).mnt
                && (*self.path()).dentry == (*other.path()).dentry
                && mine.get_secid() == theirs.get_secid()
                && bindings::vfs_rs_equal_creds(mine.as_ptr(), theirs.as_ptr())
        }
    }
}

/// A regular file of the filesystem below, open for reading.
///
/// Reads go through the VFS's ordinary paths but send no fsnotify events.
#[derive(Clone)]
pub(crate) struct BackingFile {
    file: ARef<File>,
    /// The method to read the file without leaving pages in the page cache of the filesystem below;
    /// `None` if there is none.
    past_cache: Option<PastCache>,
    /// True if reads through that page cache can drop their pages.
    drops_behind: bool,
}

/// A method to read a file without leaving pages in a page cache.
#[derive(Clone, Copy)]
enum PastCache {
    /// Not through it, and without waiting for the locks of others; offsets, lengths and memory
    /// must be aligned.
    Direct { alignment: usize },
    /// Through it, and the pages that were read are dropped. Files with fs-verity are read so.
    DropBehind,
}

/// Direct reads that need a coarser alignment are not used: the size of a page everywhere.
const MAX_ALIGNMENT: usize = 4096;

/// Direct reads that are done at once.
///
/// # Invariants
///
/// `reads` is from `vfs_rs_reads_alloc`, and ours. If `in_flight` is set, reads were started with
/// it and have not been waited for.
struct DirectReads {
    reads: NonNull<bindings::vfs_rs_reads>,
    in_flight: bool,
}

// SAFETY: Another task than the one that started reads may wait for them, and free the memory.
unsafe impl Send for DirectReads {}
// SAFETY: A shared reference only gives results, which nobody writes then.
unsafe impl Sync for DirectReads {}

impl DirectReads {
    fn new() -> Result<Self> {
        // SAFETY: No requirements.
        let reads = NonNull::new(unsafe { bindings::vfs_rs_reads_alloc() }).ok_or(ENOMEM)?;
        // INVARIANT: The memory was just allocated.
        Ok(Self {
            reads,
            in_flight: false,
        })
    }

    /// Starts reads; none may be under way. They keep their files open.
    ///
    /// # Safety
    ///
    /// The files of the requests must be valid and open. Their buffers must be of the kernel's
    /// allocators, not overlap, and be used by nobody else until [`Self::wait`] or [`Self::finish`]
    /// says that the reads have ended.
    unsafe fn start(&mut self, requests: &[bindings::vfs_rs_read]) {
        let count = requests.len() as c_uint;
        // SAFETY: By the type invariants, nothing is under way: the structure may be used. The
        // requests are valid by the safety requirements; their files are those of the caller.
        unsafe { bindings::vfs_rs_reads_start(self.reads.as_ptr(), requests.as_ptr(), count) };
        // INVARIANT: They have just been started.
        self.in_flight = true;
    }

    /// Waits until the reads have ended; returns false if they have not, because the task is being
    /// killed.
    fn wait(&mut self) -> bool {
        self.wait_in_state(true)
    }

    /// Waits until the reads have ended.
    fn finish(&mut self) {
        // The kernel reports tasks that cannot be killed for a long time. A worker is none of them
        // in a killable wait, and waits as long.
        if !self.wait() {
            self.wait_in_state(false);
        }
    }

    fn wait_in_state(&mut self, killable: bool) -> bool {
        // SAFETY: By the type invariants the structure is valid, and the reads were started.
        if self.in_flight && !unsafe { bindings::vfs_rs_reads_wait(self.reads.as_ptr(), killable) }
        {
            return false;
        }
        // INVARIANT: They were waited for.
        self.in_flight = false;
        true
    }

    /// Returns how many bytes one of the reads has read, or its error, once all have ended.
    fn result(&self, index: usize) -> Result<usize> {
        if self.in_flight {
            return Err(EINTR);
        }
        // SAFETY: By the type invariants the structure is valid, and nobody writes to it.
        let result = unsafe { bindings::vfs_rs_reads_result(self.reads.as_ptr(), index as c_uint) };
        to_result(result.min(0) as c_int)?;
        Ok(result as usize)
    }
}

impl Drop for DirectReads {
    fn drop(&mut self) {
        self.finish();
        // SAFETY: By the type invariants the memory is ours; no read uses it any more.
        unsafe { bindings::vfs_rs_reads_free(self.reads.as_ptr()) };
    }
}

/// Memory that files are read to, of the kernel's allocators: direct reads can have their pages.
///
/// A task that is killed while it waits for direct reads leaves them behind, and with them the
/// buffer: until [`Self::settle`], it holds nothing and cannot be read to.
///
/// # Invariants
///
/// While `direct` has reads in flight, nobody uses `memory`.
pub(crate) struct ReadBuffer {
    /// Dropped first, because its drop waits for reads in flight.
    direct: DirectReads,
    memory: KVVec<u8>,
}

impl ReadBuffer {
    /// A buffer for reads of up to `len` bytes.
    pub(crate) fn new(len: usize) -> Result<Self> {
        // What surrounds the bytes that are wanted is read with them.
        let memory = KVVec::zeroed(len + 2 * MAX_ALIGNMENT, GFP_KERNEL)?;
        Ok(Self {
            direct: DirectReads::new()?,
            memory,
        })
    }

    /// Returns true if reads are under way that a task left behind.
    pub(crate) fn is_in_flight(&self) -> bool {
        self.direct.in_flight
    }

    /// Waits until no read is under way.
    pub(crate) fn settle(&mut self) {
        self.direct.finish();
    }

    /// Returns a part of the memory, unless there are reads under way or no such part.
    fn part(&mut self, place: Range<usize>) -> Option<&mut [u8]> {
        if self.direct.in_flight {
            return None;
        }
        self.memory.get_mut(place)
    }

    /// Returns the room in a buffer for a read of `len` bytes.
    fn room_for(len: usize) -> usize {
        (len + MAX_ALIGNMENT).next_multiple_of(MAX_ALIGNMENT)
    }

    /// Returns true if there is room for a read of `len` bytes from a place on.
    pub(crate) fn has_room(&self, at: usize, len: usize) -> bool {
        at.saturating_add(Self::room_for(len)) <= self.memory.len()
    }

    /// Returns the place for the next read, behind one that ends at a place.
    pub(crate) fn next_place(end: usize) -> usize {
        end.next_multiple_of(MAX_ALIGNMENT)
    }

    /// Does several reads at once, to places one behind the other from `at` on; `None` stands for
    /// no read. Those that there is no room for, or that are not done past the page cache of the
    /// filesystem below with one request, or fail, are left without a place.
    pub(crate) fn read_together(
        &mut self,
        mut at: usize,
        reads: &mut [Option<FileRead<'_>>; FileRead::MAX],
    ) {
        let mut requests: [bindings::vfs_rs_read; FileRead::MAX] = Default::default();
        let mut count = 0;
        let mut guard = None;
        for read in reads.iter_mut().flatten() {
            let Some((head, start, memory)) = read.prepare(self, at) else {
                continue;
            };
            let Some(request) = requests.get_mut(count) else {
                break;
            };
            *request = bindings::vfs_rs_read {
                file: read.file.file.as_ptr(),
                buffer: memory.as_mut_ptr().cast(),
                len: memory.len(),
                pos: start,
            };
            let place = at + head..at + head + read.len;
            at += memory.len().next_multiple_of(MAX_ALIGNMENT);
            read.state = ReadState::Asked {
                request: count,
                head,
                place,
            };
            guard.get_or_insert_with(|| CredentialGuard::new(read.file.file.cred()));
            count += 1;
        }
        let requests = requests.get(..count).unwrap_or(&[]);
        if !requests.is_empty() {
            // SAFETY: The requests are of valid open files, and of parts of the buffer's memory
            // that do not overlap, and are of the kernel's allocators. By the type invariants
            // nobody uses the memory until the reads have ended.
            unsafe { self.direct.start(requests) };
        }
        drop(guard);
        // If the task is being killed, there are no results.
        self.direct.wait();
        for read in reads.iter_mut().flatten() {
            let ReadState::Asked {
                request,
                head,
                place,
            } = &read.state
            else {
                continue;
            };
            let result = self.direct.result(*request);
            let done = result.is_ok_and(|result| result >= head + read.len);
            read.state = if done {
                ReadState::Done(place.clone())
            } else {
                ReadState::NotDone
            };
        }
    }

    /// Returns a part of the bytes that were read.
    pub(crate) fn get(&self, place: Range<usize>) -> Option<&[u8]> {
        if self.direct.in_flight {
            return None;
        }
        self.memory.get(place)
    }
}

/// A read of a part of a file, one of several that are done at once.
pub(crate) struct FileRead<'a> {
    file: &'a BackingFile,
    offset: u64,
    len: usize,
    state: ReadState,
}

enum ReadState {
    NotDone,
    Asked {
        request: usize,
        head: usize,
        place: Range<usize>,
    },
    /// With the place in the buffer.
    Done(Range<usize>),
}

impl<'a> FileRead<'a> {
    /// Maximum number of reads at once.
    pub(crate) const MAX: usize = bindings::VFS_RS_MAX_READS as usize;

    /// A read of `len` bytes from the file's byte `offset` on.
    pub(crate) fn new(file: &'a BackingFile, offset: u64, len: usize) -> Self {
        Self {
            file,
            offset,
            len,
            state: ReadState::NotDone,
        }
    }

    /// Returns the room in a buffer that the read takes, in bytes.
    pub(crate) fn room(&self) -> usize {
        ReadBuffer::room_for(self.len)
    }

    /// Returns the place of the bytes in the buffer, if all were read.
    pub(crate) fn place(&self) -> Option<Range<usize>> {
        match &self.state {
            ReadState::Done(place) => Some(place.clone()),
            _ => None,
        }
    }

    /// Returns the direct read to a buffer from a place on: the bytes before the wanted ones, the
    /// start in the file, and the memory. `None` if the file is not read directly.
    fn prepare<'b>(
        &self,
        buffer: &'b mut ReadBuffer,
        at: usize,
    ) -> Option<(usize, i64, &'b mut [u8])> {
        let PastCache::Direct { alignment } = self.file.past_cache_now()? else {
            return None;
        };
        let (head, start, size) = aligned(self.offset, self.len, alignment)?;
        let memory = buffer.part(at..at.checked_add(size)?)?;
        (memory.as_ptr().addr() % alignment == 0).then_some((head, start, memory))
    }
}

/// Returns the extent of a direct read for a range of a file: the bytes before the range, the start
/// in the file, and the size.
fn aligned(offset: u64, len: usize, alignment: usize) -> Option<(usize, i64, usize)> {
    let head = (offset % alignment as u64) as usize;
    let start = i64::try_from(offset - head as u64).ok()?;
    let size = head.checked_add(len)?.checked_next_multiple_of(alignment)?;
    Some((head, start, size))
}

/// The state of a file that changes if the file is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Version {
    size: u64,
    change_time: (i64, u32),
}

impl BackingFile {
    /// The file's size, in bytes.
    pub(crate) fn size(&self) -> u64 {
        // SAFETY: The file is valid, and its inode with it.
        unsafe { bindings::vfs_rs_inode_size((*self.file.as_ptr()).f_inode) as u64 }
    }

    /// The file's fs-verity digest, if it has one and that is a SHA-256: the filesystem below
    /// checks against it each page of the file that it reads.
    pub(crate) fn verity_digest(&self) -> Option<[u8; 32]> {
        let mut digest = [0; 32];
        // SAFETY: The file is valid and open, and its inode with it; the digest has 32 bytes.
        let found = unsafe {
            bindings::vfs_rs_verity_sha256((*self.file.as_ptr()).f_inode, digest.as_mut_ptr())
        };
        found.then_some(digest)
    }

    /// Returns true if a read leaves nothing in the page cache of the filesystem below: it has a
    /// method for that, and no page of the file is cached there.
    pub(crate) fn is_read_past_cache(&self) -> bool {
        self.past_cache_now().is_some()
    }

    /// Returns the method by which a read now leaves nothing in the page cache of the filesystem
    /// below.
    fn past_cache_now(&self) -> Option<PastCache> {
        self.past_cache
            // SAFETY: The file is valid and open.
            .filter(|_| !unsafe { bindings::vfs_rs_is_cached(self.file.as_ptr()) })
    }

    /// The file's present version.
    pub(crate) fn version(&self) -> Version {
        // SAFETY: The file is valid, and its inode with it.
        let inode = unsafe { (*self.file.as_ptr()).f_inode };
        let mut nanoseconds = 0;
        // SAFETY: As above.
        let seconds = unsafe { bindings::vfs_rs_inode_ctime(inode, &mut nanoseconds) };
        Version {
            size: self.size(),
            change_time: (seconds, nanoseconds),
        }
    }

    /// Reads `len` bytes from the file's byte `offset` on to a buffer, at `at` or a little behind,
    /// past the page cache of the filesystem below if possible; gives the place, which is shorter
    /// at the file's end.
    ///
    /// # Errors
    ///
    /// Those of reading the file; [`EINTR`] if this task, or the one that used the buffer before,
    /// is being killed, and leaves reads to it behind.
    pub(crate) fn read_to(
        &self,
        buffer: &mut ReadBuffer,
        at: usize,
        offset: u64,
        len: usize,
    ) -> Result<Range<usize>> {
        if !buffer.has_room(at, len) {
            return Err(EINVAL);
        }
        if buffer.is_in_flight() {
            return Err(EINTR);
        }
        let first = self.past_cache_now();
        let second = (first.is_some() && self.drops_behind).then_some(PastCache::DropBehind);
        for how in [first, second].into_iter().flatten() {
            match self.read_past_cache(buffer, at, offset, len, how) {
                // It would have to wait for somebody who may wait for us, or the filesystem below
                // says only now that it cannot do this.
                Err(e) if e == EAGAIN || e == EINVAL || e == EOPNOTSUPP => {}
                result => return result,
            }
        }
        let mut done = 0;
        while done < len {
            let from = i64::try_from(offset.saturating_add(done as u64)).map_err(|_| EFBIG)?;
            match self.read(buffer, at + done..at + len, from, None)? {
                0 => break,
                read => done += read,
            }
        }
        Ok(at..at + done)
    }

    /// Reads what covers a range; gives where in the buffer the range is.
    fn read_past_cache(
        &self,
        buffer: &mut ReadBuffer,
        at: usize,
        offset: u64,
        len: usize,
        how: PastCache,
    ) -> Result<Range<usize>> {
        let alignment = match how {
            PastCache::Direct { alignment } => alignment,
            PastCache::DropBehind => 1,
        };
        let (head, start, size) = aligned(offset, len, alignment).ok_or(EFBIG)?;
        let wanted = head + len;
        let end = at.checked_add(size).ok_or(EINVAL)?;
        let memory = buffer.part(at..end).ok_or(EINVAL)?;
        if memory.as_ptr().addr() % alignment != 0 {
            return Err(EINVAL);
        }
        let mut done = 0;
        while done < size {
            let read = self.read(buffer, at + done..end, start + done as i64, Some(how))?;
            done += read;
            // The end of the file.
            if read == 0 || done % alignment != 0 {
                break;
            }
        }
        Ok(at + head.min(done)..at + wanted.min(done))
    }

    /// Reads into a part of a buffer, beginning at the file's byte `offset`; returns how much was
    /// read, which is less than was asked for at the file's end or after an error.
    fn read(
        &self,
        buffer: &mut ReadBuffer,
        place: Range<usize>,
        offset: i64,
        past_cache: Option<PastCache>,
    ) -> Result<usize> {
        let memory = buffer.part(place).ok_or(EINVAL)?;
        let (address, len) = (memory.as_mut_ptr().cast(), memory.len());
        let guard = CredentialGuard::new(self.file.cred());
        let drop_behind = match past_cache {
            Some(PastCache::Direct { .. }) => {
                let request = bindings::vfs_rs_read {
                    file: self.file.as_ptr(),
                    buffer: address,
                    len,
                    pos: offset,
                };
                // SAFETY: The file is valid and open; the buffer's memory is of the kernel's
                // allocators, and by its invariants nobody uses it until the read has ended.
                unsafe { buffer.direct.start(&[request]) };
                drop(guard);
                buffer.direct.wait();
                return buffer.direct.result(0);
            }
            Some(PastCache::DropBehind) => true,
            None => false,
        };
        // SAFETY: The file is valid; the memory may be written, and is of the kernel's allocators,
        // as a `ReadBuffer`'s is.
        let read = unsafe {
            bindings::vfs_rs_read_buffer(self.file.as_ptr(), address, len, offset, drop_behind)
        };
        to_result(read.min(0) as c_int)?;
        Ok(read as usize)
    }

    /// Reads into folios through the page cache, as [`Self::read`] does into a buffer.
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
        // SAFETY: The file is valid, and the vectors are by the safety requirements.
        let read = unsafe {
            bindings::vfs_rs_read_vectors(self.file.as_ptr(), vectors, count, len, offset)
        };
        to_result(read.min(0) as c_int)?;
        Ok(read as usize)
    }

    /// Drops the pages of the file that the filesystem below has cached and nobody uses.
    pub(crate) fn forget_cached(&self) {
        // SAFETY: The file is valid and open.
        unsafe { bindings::vfs_rs_forget_cached(self.file.as_ptr()) };
    }

    /// Starts reading a range into the page cache of the filesystem below, without waiting for it.
    ///
    /// This is advice: an error shows when the range is read.
    pub(crate) fn will_need(&self, offset: u64, len: u64) {
        let (Ok(offset), Ok(len)) = (i64::try_from(offset), i64::try_from(len)) else {
            return;
        };
        let _guard = CredentialGuard::new(self.file.cred());
        // SAFETY: The file is valid.
        unsafe { bindings::vfs_rs_will_need(self.file.as_ptr(), offset, len) };
    }
}
