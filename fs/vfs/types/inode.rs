// SPDX-License-Identifier: GPL-2.0

//! Inodes.
//!
//! An inode's memory is an [`INodeAlloc`]. The VFS's locks protect it: `I_NEW` keeps an inode from
//! everybody else until it is initialised, and its private data does not change from then until the
//! inode is evicted without references. `i_mapping` changes once, atomically (see
//! [`INode::share_pages`]).
//!
//! C header: [`include/linux/fs.h`](srctree/include/linux/fs.h)

use super::superblock::SuperBlock;
use crate::vfs::{
    bindings,
    compat::prelude::*,
    filesystem_type::FileSystemType,
    sharing::{self, SharingKey},
};
use core::{
    cell::UnsafeCell,
    marker::PhantomData,
    mem::ManuallyDrop,
    ops::Deref,
    ptr::{self, NonNull},
};
use kernel::{
    ffi::{c_char, c_void},
    page::PAGE_SIZE,
    str::{CStr, CString},
    types::Opaque,
};

/// An inode of the filesystem `T`.
///
/// # Invariants
///
/// Stands for a valid, initialised `struct inode` that is the `inode` of an [`INodeAlloc<T>`], and
/// whose superblock is a `SuperBlock<T>`. Instances are reference-counted by `i_count`.
#[repr(transparent)]
pub(crate) struct INode<T: FileSystemType>(Opaque<bindings::inode>, PhantomData<T>);

// SAFETY: An inode may be used from any thread; its private data is `Send` and `Sync`.
unsafe impl<T: FileSystemType> Send for INode<T> {}
// SAFETY: The VFS's locks protect the inode; its private data is `Sync`.
unsafe impl<T: FileSystemType> Sync for INode<T> {}

/// A reference to an inode of a superblock that is in use for `'a`.
///
/// It borrows the superblock, or an inode of it that the VFS lends for a call, because an inode
/// does not keep its superblock: no such reference may be left when the superblock is shut down.
///
/// # Invariants
///
/// Owns a reference (`i_count`) to an inode that satisfies the invariants of `INode<T>`. The
/// inode's superblock is not shut down during `'a`.
pub(crate) struct INodeRef<'a, T: FileSystemType> {
    inode: NonNull<bindings::inode>,
    _superblock: PhantomData<&'a SuperBlock<T>>,
}

impl<T: FileSystemType> INodeRef<'_, T> {
    /// Takes over a reference.
    ///
    /// # Safety
    ///
    /// The arguments must satisfy the type's invariants; the reference becomes the result's.
    pub(in crate::vfs) unsafe fn from_raw(inode: NonNull<bindings::inode>) -> Self {
        // INVARIANT: By the safety requirements.
        Self {
            inode,
            _superblock: PhantomData,
        }
    }

    /// Gives the reference away.
    pub(in crate::vfs) fn into_raw(self) -> *mut bindings::inode {
        ManuallyDrop::new(self).inode.as_ptr()
    }

    /// Takes another reference to an inode, whose lifetime no borrow limits.
    ///
    /// # Safety
    ///
    /// The result must be dropped before the inode's superblock is shut down.
    pub(in crate::vfs) unsafe fn keep(inode: &INode<T>) -> Self {
        // SAFETY: The inode is valid, and a reference to it exists.
        unsafe { bindings::ihold(inode.as_ptr()) };
        // SAFETY: The reference was just taken; the superblock stays by the safety requirements.
        // An inode's address is not null.
        unsafe { Self::from_raw(NonNull::new_unchecked(inode.as_ptr())) }
    }
}

impl<T: FileSystemType> Deref for INodeRef<'_, T> {
    type Target = INode<T>;

    fn deref(&self) -> &INode<T> {
        // SAFETY: By the type invariants; the reference is kept as long as `self`.
        unsafe { INode::from_raw(self.inode.as_ptr()) }
    }
}

impl<T: FileSystemType> Drop for INodeRef<'_, T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the reference is ours, and its superblock in use.
        unsafe { bindings::iput(self.inode.as_ptr()) };
    }
}

impl<T: FileSystemType> INode<T> {
    /// Borrows an inode.
    ///
    /// # Safety
    ///
    /// `inode` must satisfy the type's invariants for the duration of `'a`.
    pub(in crate::vfs) unsafe fn from_raw<'a>(inode: *mut bindings::inode) -> &'a Self {
        // SAFETY: By the function's safety requirements; `Self` is a transparent wrapper.
        unsafe { &*inode.cast() }
    }

    /// Returns the C structure.
    pub(super) fn as_ptr(&self) -> *mut bindings::inode {
        self.0.get()
    }

    /// Returns the inode's number.
    pub(crate) fn ino(&self) -> u64 {
        // SAFETY: By the type invariants the inode is valid; its number does not change.
        unsafe { (*self.as_ptr()).i_ino }
    }

    /// Returns true if the inode is a directory's.
    pub(crate) fn is_directory(&self) -> bool {
        // SAFETY: By the type invariants the inode is valid; its type does not change.
        u32::from(unsafe { (*self.as_ptr()).i_mode }) & bindings::S_IFMT == bindings::S_IFDIR
    }

    /// Returns true if the inode is a regular file's.
    fn is_regular(&self) -> bool {
        // SAFETY: By the type invariants the inode is valid; its type does not change.
        u32::from(unsafe { (*self.as_ptr()).i_mode }) & bindings::S_IFMT == bindings::S_IFREG
    }

    /// Returns true if the page cache has as many pages as the file.
    pub(crate) fn is_cached(&self) -> bool {
        let (cached, all) = self.cached_pages();
        cached >= all
    }

    /// Returns the number of pages in the page cache, and that of the file.
    pub(crate) fn cached_pages(&self) -> (u64, u64) {
        // SAFETY: By the type invariants the inode is valid. Its mapping stays once it is set, and
        // the number of pages is only looked at.
        let (pages, size) = unsafe {
            let mapping = ptr::addr_of!((*self.as_ptr()).i_mapping).read_volatile();
            (
                ptr::addr_of!((*mapping).nrpages).read_volatile(),
                bindings::vfs_rs_inode_size(self.as_ptr()) as u64,
            )
        };
        (pages as u64, size.div_ceil(PAGE_SIZE as u64))
    }

    /// Returns the private data.
    pub(crate) fn data(&self) -> &T::INodeData {
        // SAFETY: By the type invariants the inode is part of an `INodeAlloc<T>`.
        let alloc = unsafe { &*INodeAlloc::<T>::of(self.as_ptr()) };
        // SAFETY: By the type invariants the inode is initialised: `data` was made `Some` before
        // anybody could find the inode, and is not touched again until `evict`, when there are no
        // references left.
        unsafe { (*alloc.data.get()).as_ref().unwrap_unchecked() }
    }

    /// Returns the superblock that the inode belongs to.
    pub(crate) fn superblock(&self) -> &SuperBlock<T> {
        // SAFETY: By the type invariants the inode's superblock is a `SuperBlock<T>`. It outlives
        // its inodes.
        unsafe { SuperBlock::from_raw((*self.as_ptr()).i_sb) }
    }

    /// Has a regular file share its page cache with all files of equal key, which should have equal
    /// contents; returns the number of pages that are there already.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if the inode is not a regular file's, or the superblock has no
    /// [`SharedMappings`](crate::vfs::SharedMappings).
    pub(crate) fn share_pages(&self, key: &SharingKey) -> Result<usize> {
        if !self.is_regular() {
            return Err(EINVAL);
        }
        let mappings = self.superblock().mappings().ok_or(EINVAL)?;
        // SAFETY: By the type invariants the inode is valid, and a regular file's of `T`. The
        // superblock keeps the mappings in its private data, which is dropped after its inodes have
        // been evicted.
        unsafe { mappings.share(self.as_ptr(), key) }
    }

    /// Returns true if the inode uses the page cache of another inode.
    pub(in crate::vfs) fn shares_pages(&self) -> bool {
        // SAFETY: By the type invariants the inode is valid.
        unsafe { sharing::is_shared(self.as_ptr()) }
    }
}

/// The memory of an inode, from the slab cache of its filesystem.
///
/// # Invariants
///
/// `data` and `link` are initialised from the allocation on. `data` is `Some` from the inode's
/// initialisation until its eviction. `i_link` points into `link`, which stays until the grace
/// period after the last use is over.
#[repr(C)]
pub(in crate::vfs) struct INodeAlloc<T: FileSystemType> {
    inode: Opaque<bindings::inode>,
    data: UnsafeCell<Option<T::INodeData>>,
    link: UnsafeCell<Option<CString>>,
}

impl<T: FileSystemType> INodeAlloc<T> {
    /// Returns the memory that an inode is the first field of.
    ///
    /// # Safety
    ///
    /// `inode` must be the first field of an `INodeAlloc<T>`.
    pub(super) unsafe fn of(inode: *mut bindings::inode) -> *mut Self {
        inode.cast()
    }

    /// Makes the fields of a new object, of which the slab allocator has constructed the inode.
    ///
    /// # Safety
    ///
    /// `inode` must be a new object of an [`INodeCache<T>`] that nobody else uses.
    unsafe fn init_fields(inode: *mut bindings::inode) {
        // SAFETY: By the safety requirements the object is an `INodeAlloc<T>` and ours. The fields
        // are written without dropping what the memory held before.
        unsafe {
            let this = Self::of(inode);
            // INVARIANT: Both fields are initialised; the inode is not yet.
            ptr::addr_of_mut!((*this).data).write(UnsafeCell::new(None));
            ptr::addr_of_mut!((*this).link).write(UnsafeCell::new(None));
        }
    }

    /// Keeps the target of a symbolic link; returns it as the VFS refers to it.
    ///
    /// # Safety
    ///
    /// `inode` must be new, locked, and part of an `INodeAlloc<T>`.
    pub(in crate::vfs) unsafe fn set_link(
        inode: *mut bindings::inode,
        target: CString,
    ) -> *mut c_char {
        // SAFETY: By the safety requirements nobody else uses the inode yet.
        let link = unsafe { &mut *(*Self::of(inode)).link.get() };
        // INVARIANT: The target stays until `free`.
        link.insert(target).as_char_ptr().cast_mut()
    }

    /// Sets the private data.
    ///
    /// # Safety
    ///
    /// `inode` must be new, locked, and part of an `INodeAlloc<T>`.
    pub(in crate::vfs) unsafe fn set_data(inode: *mut bindings::inode, data: T::INodeData) {
        // INVARIANT: The inode gets its data while it is being initialised.
        // SAFETY: By the safety requirements nobody else uses the inode yet.
        unsafe { *(*Self::of(inode)).data.get() = Some(data) };
    }

    /// Drops the private data.
    ///
    /// # Safety
    ///
    /// `inode` must be part of an `INodeAlloc<T>`, without references, and being evicted.
    pub(in crate::vfs) unsafe fn drop_data(inode: *mut bindings::inode) {
        // INVARIANT: The inode is being evicted.
        // SAFETY: Without references to the inode nobody borrows its data.
        drop(unsafe { (*(*Self::of(inode)).data.get()).take() });
    }

    /// Frees the memory of an inode.
    ///
    /// # Safety
    ///
    /// `inode` must be part of an `INodeAlloc<T>` that nobody uses any more, not even in an RCU
    /// path walk. Its data must be dropped, or never have been set.
    pub(in crate::vfs) unsafe fn free(inode: *mut bindings::inode) {
        // The superblock may be gone: it is freed after a grace period of its own. Therefore the
        // cache cannot be taken from it, but the slab allocator knows the cache of each object. The
        // cache still exists: its destruction waits for the callback in which this runs.
        // SAFETY: By the safety requirements the object is ours.
        unsafe {
            let this = Self::of(inode);
            ptr::drop_in_place(ptr::addr_of_mut!((*this).link));
            bindings::kfree(this.cast());
        }
    }

    /// Constructs an object of the slab cache.
    ///
    /// # Safety
    ///
    /// To be called by the slab allocator for an object of an [`INodeCache<T>`].
    unsafe extern "C" fn construct(this: *mut c_void) {
        // SAFETY: The slab allocator calls this with memory of the cache's object size, whose
        // first field is the inode.
        unsafe { bindings::inode_init_once(this.cast()) };
    }
}

/// The slab cache of a filesystem's inodes.
///
/// # Invariants
///
/// `cache` is a valid cache of objects of the type [`INodeAlloc<T>`].
pub(in crate::vfs) struct INodeCache<T: FileSystemType> {
    cache: NonNull<bindings::kmem_cache>,
    _filesystem: PhantomData<T>,
}

// SAFETY: A slab cache may be used and destroyed from any thread.
unsafe impl<T: FileSystemType> Send for INodeCache<T> {}
// SAFETY: The slab allocator has its own locks.
unsafe impl<T: FileSystemType> Sync for INodeCache<T> {}

impl<T: FileSystemType> INodeCache<T> {
    /// Allocates an inode of a superblock; returns null if there is no memory.
    ///
    /// # Safety
    ///
    /// `sb` must be a valid superblock of the filesystem `T`.
    pub(in crate::vfs) unsafe fn alloc(
        &self,
        sb: *mut bindings::super_block,
    ) -> *mut bindings::inode {
        // SAFETY: The superblock is valid by the safety requirements, the cache by the type
        // invariants.
        let inode = unsafe { bindings::vfs_rs_alloc_inode(sb, self.cache.as_ptr()) };
        if !inode.is_null() {
            // SAFETY: The object is new, hence ours, and of this cache.
            unsafe { INodeAlloc::<T>::init_fields(inode) };
        }
        inode
    }

    /// Makes a slab cache. The name is shown in `/proc/slabinfo`.
    pub(super) fn new(name: &CStr) -> Result<Self> {
        // SAFETY: The name is NUL-terminated and copied. `construct` is for objects of this size.
        let cache = unsafe {
            bindings::vfs_rs_inode_cache_create(
                name.as_char_ptr(),
                size_of::<INodeAlloc<T>>() as u32,
                Some(INodeAlloc::<T>::construct),
            )
        };
        // INVARIANT: The cache was just made for this type.
        Ok(Self {
            cache: NonNull::new(cache).ok_or(ENOMEM)?,
            _filesystem: PhantomData,
        })
    }
}

impl<T: FileSystemType> Drop for INodeCache<T> {
    fn drop(&mut self) {
        // Inodes are freed after a grace period: wait for the callbacks under way.
        // SAFETY: This may sleep: modules are unloaded in process context.
        unsafe { bindings::rcu_barrier() };
        // SAFETY: By the type invariants the cache is valid. The registration drops it after the
        // filesystem is unregistered and all its superblocks are gone: no object is left.
        unsafe { bindings::kmem_cache_destroy(self.cache.as_ptr()) };
    }
}

/// The result of a search for an inode by its number.
pub(crate) enum CachedINode<'a, T: FileSystemType> {
    /// The inode was in memory.
    Cached(INodeRef<'a, T>),
    /// The inode has to be initialised.
    New(NewINode<'a, T>),
}

impl<T: FileSystemType> SuperBlock<T> {
    /// Returns the inode of that number if it is in memory, or else a new one to be initialised.
    ///
    /// Two threads that ask for one inode get the same: the second waits until the first has
    /// initialised it.
    pub(crate) fn get_inode(&self, ino: u64) -> Result<CachedINode<'_, T>> {
        // SAFETY: By the type invariants the superblock is valid.
        let inode = unsafe { bindings::iget_locked(self.as_ptr(), ino) };
        let inode = NonNull::new(inode).ok_or(ENOMEM)?;
        // SAFETY: `iget_locked` gives a valid inode.
        if unsafe { bindings::vfs_rs_inode_is_new(inode.as_ptr()) } {
            // SAFETY: The inode was allocated by `INodeCache::<T>::alloc`, is locked, new, and the
            // reference is ours.
            Ok(CachedINode::New(unsafe { NewINode::from_raw(inode) }))
        } else {
            // SAFETY: The inode has been initialised, as it is not new; the reference is ours.
            Ok(CachedINode::Cached(unsafe { INodeRef::from_raw(inode) }))
        }
    }
}

/// An inode that is yet to be initialised. Tasks that look for it wait.
///
/// Dropping it makes it a bad inode, which is forgotten at once.
///
/// # Invariants
///
/// Owns a reference to an inode allocated by [`INodeCache<T>`], which is new and locked. Its
/// superblock is not shut down during `'a`.
pub(crate) struct NewINode<'a, T: FileSystemType>(
    NonNull<bindings::inode>,
    PhantomData<&'a SuperBlock<T>>,
);

impl<'a, T: FileSystemType> NewINode<'a, T> {
    /// Takes over a reference.
    ///
    /// # Safety
    ///
    /// `inode` must satisfy the type's invariants.
    unsafe fn from_raw(inode: NonNull<bindings::inode>) -> Self {
        // INVARIANT: By the safety requirements.
        Self(inode, PhantomData)
    }

    /// Returns the C structure.
    pub(in crate::vfs) fn as_ptr(&self) -> *mut bindings::inode {
        self.0.as_ptr()
    }

    /// Lets the tasks that wait for the inode go on.
    ///
    /// # Safety
    ///
    /// The inode must satisfy the invariants of [`INode`].
    pub(in crate::vfs) unsafe fn unlock(self) -> INodeRef<'a, T> {
        // The reference goes to the result.
        let this = ManuallyDrop::new(self);
        // SAFETY: By the type invariants the inode is new and locked.
        unsafe { bindings::unlock_new_inode(this.as_ptr()) };
        // SAFETY: The inode is initialised by the safety requirements, and the reference is ours.
        unsafe { INodeRef::from_raw(this.0) }
    }
}

impl<T: FileSystemType> Drop for NewINode<'_, T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the inode is new and locked; the reference is given away.
        unsafe { bindings::iget_failed(self.0.as_ptr()) };
    }
}

/// The type of an inode, with the data that only this type has.
pub(crate) enum INodeKind {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link, with its target.
    Symlink(CString),
    /// A character device.
    CharDevice {
        /// The device's major number.
        major: u32,
        /// The device's minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// The device's major number.
        major: u32,
        /// The device's minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// The properties that a new inode is initialised with.
pub(crate) struct INodeParams<D> {
    /// The type of the inode.
    pub(crate) kind: INodeKind,
    /// The twelve mode bits: set-uid, set-gid, sticky and the permissions.
    pub(crate) permissions: u16,
    /// The owner's number in the initial user namespace.
    pub(crate) uid: u32,
    /// The group's number in the initial user namespace.
    pub(crate) gid: u32,
    /// The number of names.
    pub(crate) nlink: u32,
    /// The size, in bytes.
    pub(crate) size: u64,
    /// The time of the last modification, in seconds since the epoch and nanoseconds.
    pub(crate) mtime: (i64, u32),
    /// False if the inode has no POSIX ACL among its extended attributes.
    pub(crate) may_have_acl: bool,
    /// The private data.
    pub(crate) data: D,
}
