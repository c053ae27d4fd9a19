// SPDX-License-Identifier: GPL-2.0

//! The page cache: folios to be filled.
//!
//! C header: [`include/linux/pagemap.h`](srctree/include/linux/pagemap.h)

use super::prelude::*;
use super::{
    backing::BackingFile,
    bindings,
    charge::Charge,
    inode::{INode, INodeRef},
    queue::PendingWork,
    sharing, FileSystem,
};
use core::{marker::PhantomData, mem::MaybeUninit, ops::Range, ptr::NonNull};
use kernel::{
    error::to_result,
    ffi::c_int,
    impl_has_work, new_work,
    page::PAGE_SIZE,
    workqueue::{Work, WorkItem},
};

/// How many folios a run has at the most.
const MAX_FOLIOS: usize = 32;

/// How many folios are given to the filesystem below in one call.
const MAX_VECTORS: usize = 16;

/// A stretch of locked folios of one file, without gaps, to be filled from beginning to end.
///
/// The methods that fill move a cursor on; what lies behind it is done with, and what lies before
/// it when the run is dropped counts as unreadable. So no folio is given to readers before each
/// byte of it has been written.
///
/// # Invariants
///
/// The first `count` elements of `folios` are initialised: folios of the page cache, locked by this
/// run, not up to date, in the order of their positions and without gaps from `start` to `end`.
/// `cursor` is not beyond `end`. Of the folios that `cursor` has passed, those whose bit in
/// `failed` is clear have been written as far as it has passed them.
pub(crate) struct FolioRun<'a> {
    folios: [MaybeUninit<NonNull<bindings::folio>>; MAX_FOLIOS],
    count: usize,
    start: u64,
    end: u64,
    cursor: u64,
    /// The folio in which the cursor is, and the position of its first byte.
    current: (usize, u64),
    failed: u64,
    /// Why bytes could not be read that another time may well be.
    given_up: Option<Error>,
    /// Whether bytes have to wait until [`FileSystem::prepare`] has run without folio locks.
    postponed: bool,
    _locked: PhantomData<&'a mut bindings::folio>,
}

const _: () = assert!(MAX_FOLIOS <= u64::BITS as usize);

impl FolioRun<'_> {
    fn empty() -> Self {
        Self {
            folios: [const { MaybeUninit::uninit() }; MAX_FOLIOS],
            count: 0,
            start: 0,
            end: 0,
            cursor: 0,
            current: (0, 0),
            failed: 0,
            given_up: None,
            postponed: false,
            _locked: PhantomData,
        }
    }

    /// Adds a folio behind the others.
    ///
    /// # Safety
    ///
    /// The folio must be of the page cache, locked, not up to date and given to this run to be
    /// unlocked, and directly behind the folios that the run has; there must be room for it.
    unsafe fn push(&mut self, folio: NonNull<bindings::folio>) {
        // SAFETY: The folio is valid.
        let (start, size) = unsafe {
            (
                bindings::vfs_rs_folio_pos(folio.as_ptr()) as u64,
                bindings::vfs_rs_folio_size(folio.as_ptr()) as u64,
            )
        };
        if self.count == 0 {
            self.start = start;
            self.cursor = start;
            self.current = (0, start);
        }
        if let Some(slot) = self.folios.get_mut(self.count) {
            slot.write(folio);
            self.count += 1;
            self.end = start.saturating_add(size);
        }
    }

    /// Takes the next folios of a readahead request.
    ///
    /// # Safety
    ///
    /// `rac` must be a valid request of which this task alone takes folios.
    unsafe fn from_readahead(rac: *mut bindings::readahead_control) -> Option<Self> {
        let mut run = Self::empty();
        while run.count < MAX_FOLIOS {
            // SAFETY: The request is valid. Its folios are locked for us, and follow one another.
            let Some(folio) = NonNull::new(unsafe { bindings::vfs_rs_readahead_folio(rac) }) else {
                break;
            };
            // SAFETY: As above; there is room.
            unsafe { run.push(folio) };
        }
        (run.count > 0).then_some(run)
    }

    /// The position in the file of the run's first byte.
    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    /// The position in the file behind the run's last byte, which may be beyond the file's end.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// The position in the file of the next byte to fill.
    pub(crate) fn position(&self) -> u64 {
        self.cursor
    }

    /// The folio at the cursor, with the offset of the cursor in it and the number of bytes behind
    /// that.
    fn at_cursor(&self) -> Option<(NonNull<bindings::folio>, usize, usize)> {
        let (index, start) = self.current;
        if index >= self.count {
            return None;
        }
        // SAFETY: By the type invariants, the first `count` folios are initialised.
        let folio = unsafe { self.folios.get(index)?.assume_init() };
        // SAFETY: By the type invariants the folio is valid.
        let size = unsafe { bindings::vfs_rs_folio_size(folio.as_ptr()) };
        let offset = (self.cursor - start) as usize;
        Some((folio, offset, size - offset))
    }

    /// Moves the cursor on, in the current folio or to the beginning of the next one.
    ///
    /// `bytes` must not be more than [`Self::at_cursor`] says are left in the current folio.
    fn advance(&mut self, bytes: usize, left: usize) {
        self.cursor += bytes as u64;
        if bytes == left {
            self.current = (self.current.0 + 1, self.cursor);
        }
    }

    /// Fills the next `len` bytes, or as many as there are left, with zeros.
    pub(crate) fn fill_zeros(&mut self, mut len: u64) {
        while len > 0 {
            let Some((folio, offset, left)) = self.at_cursor() else {
                return;
            };
            let bytes = left.min(usize::try_from(len).unwrap_or(usize::MAX));
            // SAFETY: The folio is valid and locked by us; the range is inside it.
            unsafe { bindings::vfs_rs_folio_zero_range(folio.as_ptr(), offset, bytes) };
            self.advance(bytes, left);
            len -= bytes as u64;
        }
    }

    /// Fills the next bytes, as many as there are or as there is room for.
    pub(crate) fn fill_bytes(&mut self, mut bytes: &[u8]) {
        while let Some((folio, offset, left)) = self.at_cursor() {
            let (now, later) = bytes.split_at(left.min(bytes.len()));
            if now.is_empty() {
                return;
            }
            // SAFETY: The folio is valid and locked by us; the range is inside it.
            unsafe {
                bindings::vfs_rs_memcpy_to_folio(folio.as_ptr(), offset, now.as_ptr(), now.len())
            };
            self.advance(now.len(), left);
            bytes = later;
        }
    }

    /// Has the next `len` bytes written by a function, if they are in one piece of memory; returns
    /// `None` if they are not.
    ///
    /// The function gives back the memory that it was given, initialised; if it gives back
    /// something else, the bytes count as unreadable. After an error nothing has been filled.
    pub(crate) fn fill_in_place<E>(
        &mut self,
        len: usize,
        write: impl for<'b> FnOnce(&'b mut [MaybeUninit<u8>]) -> Result<&'b [u8], E>,
    ) -> Option<Result<(), E>> {
        let (folio, offset, left) = self.at_cursor()?;
        if len > left {
            return None;
        }
        // SAFETY: The folio is valid.
        let address = NonNull::new(unsafe { bindings::vfs_rs_folio_address(folio.as_ptr()) })?;
        // SAFETY: The folio is locked by us and not up to date, so nobody else reads or writes its
        // memory, which is in one piece; the range is inside it.
        let memory = unsafe {
            core::slice::from_raw_parts_mut(
                address.as_ptr().cast::<MaybeUninit<u8>>().add(offset),
                len,
            )
        };
        let start = memory.as_ptr().cast::<u8>();
        match write(memory) {
            Ok(written) if written.as_ptr() == start && written.len() == len => {
                self.advance(len, left);
                Some(Ok(()))
            }
            Ok(_) => {
                self.fail(len as u64);
                Some(Ok(()))
            }
            Err(e) => Some(Err(e)),
        }
    }

    /// Says that the next `len` bytes, or as many as there are left, cannot be read.
    ///
    /// The folios that they are in do not become up to date.
    pub(crate) fn fail(&mut self, mut len: u64) {
        while len > 0 {
            let Some((_, _, left)) = self.at_cursor() else {
                return;
            };
            let bytes = left.min(usize::try_from(len).unwrap_or(usize::MAX));
            self.failed |= 1 << self.current.0;
            self.advance(bytes, left);
            len -= bytes as u64;
        }
    }

    /// Says that the next `len` bytes, or as many as there are left, could not be read just now,
    /// for a reason that is not in the file: whoever asked for them is told it.
    pub(crate) fn give_up(&mut self, len: u64, e: Error) {
        self.given_up = Some(e);
        self.fail(len);
    }

    /// Says that the next `len` bytes, or as many as there are left, cannot be read while folios
    /// are locked: [`FileSystem::prepare`] is called without, and the read is tried again.
    pub(crate) fn postpone(&mut self, len: u64) {
        self.postponed = true;
        self.fail(len);
    }

    /// Fills the next `len` bytes, or as many as there are left, from a file of the filesystem
    /// below, beginning at its byte `offset`.
    ///
    /// # Errors
    ///
    /// Those of reading the file, and [`EIO`] if it ends too early. What was filled until then is
    /// behind the cursor.
    pub(crate) fn fill_from(&mut self, file: &BackingFile, mut offset: u64, len: u64) -> Result {
        let end = self.cursor.saturating_add(len).min(self.end);
        while self.cursor < end {
            let mut vectors = [const { MaybeUninit::<bindings::bio_vec>::uninit() }; MAX_VECTORS];
            let mut count = 0;
            // Where the cursor will be behind the vectors made so far.
            let (mut index, mut start) = self.current;
            let mut cursor = self.cursor;
            for vector in &mut vectors {
                if cursor >= end || index >= self.count {
                    break;
                }
                let Some(folio) = self.folios.get(index) else {
                    break;
                };
                // SAFETY: By the type invariants, the first `count` folios are initialised and
                // valid.
                let (folio, size) = unsafe {
                    let folio = folio.assume_init();
                    (folio, bindings::vfs_rs_folio_size(folio.as_ptr()))
                };
                let within = (cursor - start) as usize;
                let left = size - within;
                let bytes = left.min(usize::try_from(end - cursor).unwrap_or(usize::MAX));
                // SAFETY: The range is inside the folio, and the vector is written as a whole.
                unsafe {
                    bindings::vfs_rs_bvec_set_folio(
                        vector.as_mut_ptr(),
                        folio.as_ptr(),
                        bytes,
                        within,
                    )
                };
                count += 1;
                cursor += bytes as u64;
                if bytes == left {
                    index += 1;
                    start = cursor;
                }
            }
            let wanted = (cursor - self.cursor) as usize;
            let vectors = vectors.as_ptr().cast();
            // SAFETY: The first `count` vectors are initialised and describe `wanted` bytes of
            // folios that are locked by us and not up to date: nobody else reads or writes them.
            let read = unsafe { file.read_vectors(vectors, count, wanted, offset) }?;
            if read == 0 {
                return Err(EIO);
            }
            offset += read as u64;
            // Pass what was read, which may be less than what was asked for.
            let mut left_to_pass = read.min(wanted);
            while left_to_pass > 0 {
                let Some((_, _, left)) = self.at_cursor() else {
                    break;
                };
                let bytes = left.min(left_to_pass);
                self.advance(bytes, left);
                left_to_pass -= bytes;
            }
        }
        Ok(())
    }

    /// Whether all of the folio of that index has been written.
    fn is_filled(&self, index: usize) -> bool {
        self.current.0 > index && self.failed & (1 << index) == 0
    }

    /// Unlocks the folios; those that have been filled become up to date.
    fn finish(&mut self) {
        for index in 0..core::mem::take(&mut self.count) {
            let filled = self.is_filled(index);
            if let Some(folio) = self.folios.get(index) {
                // SAFETY: By the type invariants the folio is initialised, valid and locked by us.
                // It is up to date only if all its bytes have been written.
                unsafe { bindings::folio_end_read(folio.assume_init().as_ptr(), filled) };
            }
        }
    }
}

impl Drop for FolioRun<'_> {
    fn drop(&mut self) {
        self.finish();
    }
}

/// `address_space_operations.readahead`.
///
/// # Safety
///
/// To be called by the VFS for a regular file of the filesystem `T`.
pub(super) unsafe extern "C" fn readahead<T: FileSystem>(rac: *mut bindings::readahead_control) {
    // SAFETY: The VFS gives a valid request for a file of this filesystem; a mapping's host lives
    // as long as its folios are locked.
    unsafe { read_ahead(INode::<T>::from_raw((*(*rac).mapping).host), rac) }
}

/// `address_space_operations.readahead` of a mapping that inodes share.
///
/// # Safety
///
/// To be called by the VFS for a mapping of a [`SharedMappings<T>`](super::SharedMappings).
pub(super) unsafe extern "C" fn readahead_shared<T: FileSystem>(
    rac: *mut bindings::readahead_control,
) {
    // SAFETY: The VFS gives a valid request, and a file that stays open during it.
    unsafe {
        if let Some(inode) = reader::<T>((*rac).file, (*rac).mapping) {
            read_ahead(inode, rac);
        }
    }
}

/// The inode that a shared mapping is read through: that of the file that is read.
///
/// # Safety
///
/// `file` must be null or a valid file for the duration of `'a`.
unsafe fn reader<'a, T: FileSystem>(
    file: *mut bindings::file,
    mapping: *const bindings::address_space,
) -> Option<&'a INode<T>> {
    // SAFETY: By the safety requirements. Only regular files of `T` are opened by this function.
    unsafe {
        bindings::vfs_rs_file_has_mapping(file, mapping, Some(sharing::open::<T>))
            .then(|| INode::from_raw((*file).f_inode))
    }
}

/// Reads folios ahead of somebody who wants them.
///
/// # Safety
///
/// `rac` must be a valid request for contents of `inode` that is this task's alone.
unsafe fn read_ahead<T: FileSystem>(inode: &INode<T>, rac: *mut bindings::readahead_control) {
    // SAFETY: The request is valid.
    let (start, len) = unsafe {
        (
            bindings::vfs_rs_readahead_pos(rac) as u64,
            bindings::vfs_rs_readahead_length(rac) as u64,
        )
    };
    let range = start..start.saturating_add(len);
    // SAFETY: It only looks at the current task.
    let may_wait = unsafe { bindings::vfs_rs_may_wait() };
    let wider = if may_wait {
        T::read_extent(inode, &range)
    } else {
        range.clone()
    };
    if wider.start < range.start || wider.end > range.end {
        let start = wider.start.min(range.start);
        let len = wider.end.max(range.end) - start;
        if let (Ok(start), Ok(len)) = (i64::try_from(start), usize::try_from(len)) {
            // SAFETY: The request is valid, and none of its folios has been taken yet. It grows by
            // as much as there is memory for.
            unsafe { bindings::readahead_expand(rac, start, len) };
        }
    }
    // What nobody waits for yet, or may wait for, another processor may read.
    // SAFETY: The request is valid.
    let is_early = unsafe { bindings::vfs_rs_readahead_is_early(rac) };
    let mut deferred = (is_early || !may_wait)
        .then(|| Deferred::new(inode).ok())
        .flatten();
    // SAFETY: The request is ours alone.
    while let Some(run) = unsafe { FolioRun::from_readahead(rac) } {
        let kept = match &mut deferred {
            Some(deferred) => deferred.as_mut().push(run),
            None => Err(run),
        };
        if let Err(mut run) = kept {
            // What is not read now is asked for again.
            if may_wait {
                T::read_folios(inode, &mut run);
            }
        }
    }
    if let Some(deferred) = deferred {
        T::readahead_queue(inode.superblock()).enqueue(deferred);
    }
}

/// Folios of an inode that a work queue reads ahead.
#[pin_data]
struct Deferred<T: FileSystem> {
    /// Kept here: where a page cache is shared, what is locked does not keep it.
    inode: INodeRef<'static, T>,
    runs: KVec<FolioRun<'static>>,
    /// The reader's control groups, which pay for the reads.
    charge: Charge,
    #[pin]
    work: Work<Self>,
    /// Dropped last, when the inode has been given back.
    _pending: PendingWork,
}

// SAFETY: Folios may be filled and unlocked by another thread than the one that has locked them.
unsafe impl<T: FileSystem> Send for Deferred<T> {}

impl_has_work! {
    impl{T: FileSystem} HasWork<Self> for Deferred<T> { self.work }
}

impl<T: FileSystem> Deferred<T> {
    fn new(inode: &INode<T>) -> Result<Pin<KBox<Self>>> {
        KBox::pin_init(
            pin_init!(Self {
                // SAFETY: The superblock waits for this work (`_pending`) before it is shut down,
                // and the inode is given back before that.
                inode: unsafe { INodeRef::keep(inode) },
                runs: KVec::new(),
                charge: Charge::of_current(),
                work <- new_work!("puzzlefs_readahead"),
                // SAFETY: The superblock waits for it before it gives its data back.
                _pending: unsafe { inode.superblock().pending().begin() },
            }),
            GFP_NOWAIT | __GFP_NOWARN,
        )
    }

    /// Adds a run; gives it back if there is no memory.
    fn push(self: Pin<&mut Self>, run: FolioRun<'static>) -> Result<(), FolioRun<'static>> {
        let runs = self.project().runs;
        match runs.reserve(1, GFP_NOWAIT | __GFP_NOWARN) {
            Ok(()) => runs.push_within_capacity(run).map_err(|e| e.0),
            Err(_) => Err(run),
        }
    }
}

impl<T: FileSystem> WorkItem for Deferred<T> {
    type Pointer = Pin<KBox<Self>>;

    fn run(mut this: Self::Pointer) {
        let this = this.as_mut().project();
        let _charged = this.charge.enter();
        for mut run in core::mem::take(this.runs) {
            T::read_folios(this.inode, &mut run);
        }
    }
}

/// `address_space_operations.read_folio`.
///
/// # Safety
///
/// To be called by the VFS for a regular file of the filesystem `T`.
pub(super) unsafe extern "C" fn read_folio<T: FileSystem>(
    _file: *mut bindings::file,
    folio: *mut bindings::folio,
) -> c_int {
    // SAFETY: The VFS gives a folio of a file of this filesystem, locked and not up to date; it
    // stays in its mapping while it is locked.
    unsafe { read_one(INode::<T>::from_raw((*mapping_of(folio)).host), folio) }
}

/// `address_space_operations.read_folio` of a mapping that inodes share.
///
/// # Safety
///
/// To be called by the VFS for a mapping of a [`SharedMappings<T>`](super::SharedMappings).
pub(super) unsafe extern "C" fn read_shared_folio<T: FileSystem>(
    file: *mut bindings::file,
    folio: *mut bindings::folio,
) -> c_int {
    // SAFETY: As in `read_folio`; a file stays open while it is read.
    unsafe {
        if let Some(inode) = reader::<T>(file, mapping_of(folio)) {
            return read_one(inode, folio);
        }
        // Nobody says where the contents are.
        bindings::folio_end_read(folio, false);
    }
    EIO.to_errno()
}

/// The mapping that a locked folio is in.
///
/// # Safety
///
/// The folio must be valid, locked and in a mapping.
unsafe fn mapping_of(folio: *mut bindings::folio) -> *mut bindings::address_space {
    // SAFETY: By the safety requirements.
    unsafe { bindings::vfs_rs_folio_mapping(folio) }
}

/// Reads one folio.
///
/// # Safety
///
/// The folio must be in the page cache of `inode`, locked, not up to date, and ours to unlock.
unsafe fn read_one<T: FileSystem>(inode: &INode<T>, folio: *mut bindings::folio) -> c_int {
    // SAFETY: By the safety requirements.
    let mapping = unsafe { mapping_of(folio) };
    // SAFETY: The VFS does not give null.
    let locked = unsafe { NonNull::new_unchecked(folio) };
    let mut run = FolioRun::empty();
    // SAFETY: As above; the run is empty, so there is room, and no other folio to be behind.
    unsafe { run.push(locked) };
    T::read_folios(inode, &mut run);

    if run.is_filled(0) {
        return 0;
    }
    if run.postponed {
        let range = run.start..run.end;
        // Unlocks the folio. The caller keeps the mapping, and `inode` with it.
        drop(run);
        return match T::prepare(inode, &range) {
            Ok(()) => bindings::positive_aop_returns_AOP_TRUNCATED_PAGE as c_int,
            Err(e) => e.to_errno(),
        };
    }
    if let Some(e) = run.given_up {
        return e.to_errno();
    }
    // SAFETY: The folio is still locked by the run, hence valid.
    if !unsafe { bindings::vfs_rs_folio_test_large(folio) } {
        return EIO.to_errno();
    }
    // A part of a large folio cannot be read, but another may well be. Put small folios in its
    // place, and have the VFS ask again for what it needs, page by page.
    let range = run.start()..run.end();
    // SAFETY: The folio is locked until the run is dropped: so it is in the mapping, and can be
    // taken out of the page cache.
    unsafe { bindings::generic_error_remove_folio(mapping, folio) };
    drop(run);
    // SAFETY: The mapping is that of a file which somebody reads.
    match unsafe { add_small_folios(mapping, range) } {
        Ok(()) => bindings::positive_aop_returns_AOP_TRUNCATED_PAGE as c_int,
        Err(e) => e.to_errno(),
    }
}

/// Has a range of a file read page by page, where no folio is in the page cache.
///
/// If the VFS found nothing there, it would make a large folio again, which fails as the one
/// before. It does so once the small ones have been reclaimed.
///
/// # Errors
///
/// [`ENOMEM`].
///
/// # Safety
///
/// The mapping must stay valid during the call.
unsafe fn add_small_folios(mapping: *mut bindings::address_space, range: Range<u64>) -> Result {
    // SAFETY: By the safety requirements.
    let size = unsafe { bindings::vfs_rs_inode_size((*mapping).host) } as u64;
    let pages = range.start / PAGE_SIZE as u64..range.end.min(size).div_ceil(PAGE_SIZE as u64);
    for index in pages {
        // SAFETY: By the safety requirements.
        match to_result(unsafe { bindings::vfs_rs_add_small_folio(mapping, index as usize) }) {
            // Another task was faster, and tries whatever it has put there.
            Err(e) if e != EEXIST => return Err(e),
            _ => {}
        }
    }
    Ok(())
}
