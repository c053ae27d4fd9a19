// SPDX-License-Identifier: GPL-2.0

//! Inodes.
//!
//! C header: [`include/linux/fs.h`](srctree/include/linux/fs.h)

use super::prelude::*;
use super::{
    bindings, dir, folio, registration::Registration, sharing, superblock::SuperBlock, verity,
    xattr, FileSystem,
};
use core::{
    cell::UnsafeCell,
    marker::PhantomData,
    mem::{self, ManuallyDrop},
    ops::Deref,
    ptr::{self, NonNull},
};
use kernel::{
    ffi::{c_int, c_uint, c_void},
    page::PAGE_SIZE,
    str::{CStr, CString},
    types::Opaque,
};

/// What an inode stands for, with what only that kind has.
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

/// What a new inode is initialised with.
pub(crate) struct INodeParams<D> {
    /// What the inode stands for.
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
    /// Whether the inode may have a POSIX ACL among its extended attributes.
    pub(crate) may_have_acl: bool,
    /// The private data.
    pub(crate) data: D,
}

/// An inode of the filesystem `T`.
///
/// # Invariants
///
/// Stands for a valid, initialised `struct inode` that is the `inode` of an [`INodeAlloc<T>`], and
/// whose superblock is a `SuperBlock<T>`. Instances are reference-counted by `i_count`.
#[repr(transparent)]
pub(crate) struct INode<T: FileSystem>(Opaque<bindings::inode>, PhantomData<T>);

// SAFETY: An inode may be used from any thread; its private data is `Send` and `Sync`.
unsafe impl<T: FileSystem> Send for INode<T> {}
// SAFETY: As above.
unsafe impl<T: FileSystem> Sync for INode<T> {}

/// A reference to an inode of a superblock that is in use for `'a`.
///
/// It borrows the superblock, or an inode of it that the VFS lends for a call, because an inode
/// does not keep its superblock: no such reference may be left when the superblock is shut down.
///
/// # Invariants
///
/// Owns a reference (`i_count`) to an inode that satisfies the invariants of `INode<T>`. The
/// inode's superblock is not shut down during `'a`.
pub(crate) struct INodeRef<'a, T: FileSystem> {
    inode: NonNull<bindings::inode>,
    _superblock: PhantomData<&'a SuperBlock<T>>,
}

impl<T: FileSystem> INodeRef<'_, T> {
    /// # Safety
    ///
    /// The arguments must satisfy the type's invariants; the reference becomes the result's.
    pub(super) unsafe fn from_raw(inode: NonNull<bindings::inode>) -> Self {
        // INVARIANT: By the safety requirements.
        Self {
            inode,
            _superblock: PhantomData,
        }
    }

    /// Gives the reference away.
    pub(super) fn into_raw(self) -> *mut bindings::inode {
        ManuallyDrop::new(self).inode.as_ptr()
    }

    /// Takes another reference to an inode, which no borrow limits.
    ///
    /// # Safety
    ///
    /// The result must be dropped before the inode's superblock is shut down.
    pub(super) unsafe fn keep(inode: &INode<T>) -> Self {
        // SAFETY: The inode is valid, and a reference to it exists.
        unsafe { bindings::ihold(inode.as_ptr()) };
        // SAFETY: The reference was just taken; the superblock stays by the safety requirements.
        // An inode's address is not null.
        unsafe { Self::from_raw(NonNull::new_unchecked(inode.as_ptr())) }
    }
}

impl<T: FileSystem> Deref for INodeRef<'_, T> {
    type Target = INode<T>;

    fn deref(&self) -> &INode<T> {
        // SAFETY: By the type invariants; the reference is kept as long as `self`.
        unsafe { INode::from_raw(self.inode.as_ptr()) }
    }
}

impl<T: FileSystem> Drop for INodeRef<'_, T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the reference is ours, and its superblock in use.
        unsafe { bindings::iput(self.inode.as_ptr()) };
    }
}

impl<T: FileSystem> INode<T> {
    /// # Safety
    ///
    /// `inode` must satisfy the type's invariants for the duration of `'a`.
    pub(super) unsafe fn from_raw<'a>(inode: *mut bindings::inode) -> &'a Self {
        // SAFETY: By the function's safety requirements; `Self` is a transparent wrapper.
        unsafe { &*inode.cast() }
    }

    pub(super) fn as_ptr(&self) -> *mut bindings::inode {
        self.0.get()
    }

    /// The inode's number.
    pub(crate) fn ino(&self) -> u64 {
        // SAFETY: By the type invariants the inode is valid; its number does not change.
        unsafe { (*self.as_ptr()).i_ino }
    }

    /// Whether the inode is a directory's.
    pub(crate) fn is_directory(&self) -> bool {
        // SAFETY: By the type invariants the inode is valid; its type does not change.
        u32::from(unsafe { (*self.as_ptr()).i_mode }) & bindings::S_IFMT == bindings::S_IFDIR
    }

    /// Whether the inode is a regular file's.
    pub(super) fn is_regular(&self) -> bool {
        // SAFETY: As above.
        u32::from(unsafe { (*self.as_ptr()).i_mode }) & bindings::S_IFMT == bindings::S_IFREG
    }

    /// Whether all pages of the file are in the page cache, as far as their number says so.
    pub(crate) fn is_cached(&self) -> bool {
        // SAFETY: By the type invariants the inode is valid. Its mapping stays once it is set, and
        // the number of pages is only looked at.
        let (pages, size) = unsafe {
            let mapping = ptr::addr_of!((*self.as_ptr()).i_mapping).read_volatile();
            (
                ptr::addr_of!((*mapping).nrpages).read_volatile(),
                bindings::vfs_rs_inode_size(self.as_ptr()) as u64,
            )
        };
        pages as u64 >= size.div_ceil(PAGE_SIZE as u64)
    }

    /// The private data.
    pub(crate) fn data(&self) -> &T::INodeData {
        // SAFETY: By the type invariants the inode is part of an `INodeAlloc<T>`.
        let alloc = unsafe { &*INodeAlloc::<T>::of(self.as_ptr()) };
        // SAFETY: By the type invariants the inode is initialised: `data` was made `Some` before
        // anybody could find the inode, and is not touched again until `evict`, when there are no
        // references left.
        unsafe { (*alloc.data.get()).as_ref().unwrap_unchecked() }
    }
}

/// The memory of an inode, from the slab cache of its filesystem.
///
/// # Invariants
///
/// `data` and `link` are initialised from `alloc` on. `data` is `Some` from the inode's
/// initialisation until its eviction; `link` is what `i_link` points into and stays until the
/// grace period after the last use is over.
#[repr(C)]
pub(super) struct INodeAlloc<T: FileSystem> {
    inode: Opaque<bindings::inode>,
    data: UnsafeCell<Option<T::INodeData>>,
    link: UnsafeCell<Option<CString>>,
}

impl<T: FileSystem> INodeAlloc<T> {
    /// # Safety
    ///
    /// `inode` must be the first field of an `INodeAlloc<T>`.
    unsafe fn of(inode: *mut bindings::inode) -> *mut Self {
        inode.cast()
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
pub(super) struct INodeCache<T: FileSystem> {
    cache: NonNull<bindings::kmem_cache>,
    _filesystem: PhantomData<T>,
}

// SAFETY: A slab cache may be used and destroyed from any thread.
unsafe impl<T: FileSystem> Send for INodeCache<T> {}
// SAFETY: As above.
unsafe impl<T: FileSystem> Sync for INodeCache<T> {}

impl<T: FileSystem> INodeCache<T> {
    pub(super) fn new(name: &CStr) -> Result<Self> {
        // SAFETY: The name is copied. `construct` is for objects of this size.
        let cache = unsafe {
            bindings::vfs_rs_inode_cache_create(
                name.as_char_ptr(),
                mem::size_of::<INodeAlloc<T>>() as u32,
                Some(INodeAlloc::<T>::construct),
            )
        };
        Ok(Self {
            cache: NonNull::new(cache).ok_or(ENOMEM)?,
            _filesystem: PhantomData,
        })
    }
}

impl<T: FileSystem> Drop for INodeCache<T> {
    fn drop(&mut self) {
        // Inodes are freed after a grace period: wait for those under way.
        // SAFETY: May sleep, as modules are unloaded in process context.
        unsafe { bindings::rcu_barrier() };
        // SAFETY: By the type invariants; the filesystem is unregistered and all its superblocks
        // are gone, so no object of the cache is left.
        unsafe { bindings::kmem_cache_destroy(self.cache.as_ptr()) };
    }
}

/// Allocates an inode: `super_operations.alloc_inode`.
///
/// # Safety
///
/// To be called by the VFS for a superblock of the filesystem `T`.
pub(super) unsafe extern "C" fn alloc<T: FileSystem>(
    sb: *mut bindings::super_block,
) -> *mut bindings::inode {
    // SAFETY: The superblock's type is the one of a `Registration<T>`, which outlives it.
    let cache = unsafe { Registration::<T>::of((*sb).s_type).inode_cache() };
    // SAFETY: The superblock and the cache are valid.
    let inode = unsafe { bindings::vfs_rs_alloc_inode(sb, cache.cache.as_ptr()) };
    if !inode.is_null() {
        // SAFETY: The object is an `INodeAlloc<T>`, new and ours; the fields are written without
        // dropping what the memory held before.
        unsafe {
            let this = INodeAlloc::<T>::of(inode);
            ptr::addr_of_mut!((*this).data).write(UnsafeCell::new(None));
            ptr::addr_of_mut!((*this).link).write(UnsafeCell::new(None));
        }
    }
    inode
}

/// Frees an inode after a grace period: `super_operations.free_inode`.
///
/// # Safety
///
/// To be called by the VFS, once, for an inode of the filesystem `T` that nobody uses any more.
pub(super) unsafe extern "C" fn free<T: FileSystem>(inode: *mut bindings::inode) {
    // SAFETY: The VFS calls this when nobody can use the inode any more, not even an RCU path
    // walk. `data` is `None` by now (`evict`, or it never was initialised).
    //
    // The superblock may be gone: it is freed after a grace period of its own. So the cache cannot
    // be had from it; but the slab allocator knows the cache of an object that it is to free. The
    // cache is there: its destruction waits for this callback.
    unsafe {
        let this = INodeAlloc::<T>::of(inode);
        ptr::drop_in_place(ptr::addr_of_mut!((*this).link));
        bindings::kfree(this.cast());
    }
}

/// Evicts an inode: `super_operations.evict_inode`.
///
/// # Safety
///
/// To be called by the VFS, once, for an inode of the filesystem `T` without references.
pub(super) unsafe extern "C" fn evict<T: FileSystem>(inode: *mut bindings::inode) {
    // SAFETY: The VFS calls this when the last reference to the inode is gone.
    let host = unsafe { sharing::take_host(inode) };
    // SAFETY: As above.
    unsafe {
        bindings::truncate_inode_pages_final(ptr::addr_of_mut!((*inode).i_data));
        bindings::clear_inode(inode);
    }
    // SAFETY: Without references to the inode nobody borrows its data.
    drop(unsafe { (*(*INodeAlloc::<T>::of(inode)).data.get()).take() });
    // SAFETY: The reference was the inode's; null is taken, too.
    unsafe { bindings::iput(host) };
}

/// An inode that was asked for by its number.
pub(crate) enum CachedINode<'a, T: FileSystem> {
    /// The inode was in memory.
    Cached(INodeRef<'a, T>),
    /// The inode has to be initialised.
    New(NewINode<'a, T>),
}

/// An inode that is yet to be initialised. Those who look for it wait.
///
/// Dropping it makes it a bad inode, which is forgotten at once.
///
/// # Invariants
///
/// Owns a reference to an inode allocated by [`alloc::<T>`], which is new and locked. Its
/// superblock is not shut down during `'a`.
pub(crate) struct NewINode<'a, T: FileSystem>(
    NonNull<bindings::inode>,
    PhantomData<&'a SuperBlock<T>>,
);

impl<'a, T: FileSystem> NewINode<'a, T> {
    /// # Safety
    ///
    /// `inode` must satisfy the type's invariants.
    pub(super) unsafe fn from_raw(inode: NonNull<bindings::inode>) -> Self {
        Self(inode, PhantomData)
    }

    const DIR_INODE_OPS: bindings::inode_operations = bindings::inode_operations {
        getattr: Some(get_attributes),
        lookup: Some(dir::lookup::<T>),
        listxattr: Some(xattr::list::<T>),
        get_inode_acl: Some(xattr::get_acl::<T>),
        set_acl: Some(xattr::set_acl),
        ..pin_init::zeroed()
    };

    const FILE_INODE_OPS: bindings::inode_operations = bindings::inode_operations {
        getattr: Some(verity::get_attributes::<T>),
        fileattr_get: Some(verity::get_flags::<T>),
        listxattr: Some(xattr::list::<T>),
        get_inode_acl: Some(xattr::get_acl::<T>),
        set_acl: Some(xattr::set_acl),
        ..pin_init::zeroed()
    };

    /// Of devices, pipes and sockets.
    const SPECIAL_INODE_OPS: bindings::inode_operations = bindings::inode_operations {
        getattr: Some(get_attributes),
        listxattr: Some(xattr::list::<T>),
        get_inode_acl: Some(xattr::get_acl::<T>),
        set_acl: Some(xattr::set_acl),
        ..pin_init::zeroed()
    };

    const LINK_INODE_OPS: bindings::inode_operations = bindings::inode_operations {
        getattr: Some(get_attributes),
        get_link: Some(bindings::simple_get_link),
        listxattr: Some(xattr::list::<T>),
        ..pin_init::zeroed()
    };

    const DIR_FILE_OPS: bindings::file_operations = bindings::file_operations {
        llseek: Some(bindings::generic_file_llseek),
        read: Some(bindings::generic_read_dir),
        iterate_shared: Some(dir::iterate::<T>),
        fsync: Some(bindings::noop_fsync),
        setlease: Some(bindings::generic_setlease),
        ..pin_init::zeroed()
    };

    const FILE_FILE_OPS: bindings::file_operations = bindings::file_operations {
        open: Some(sharing::open::<T>),
        release: Some(sharing::release::<T>),
        llseek: Some(bindings::generic_file_llseek),
        read_iter: Some(sharing::read),
        mmap_prepare: Some(sharing::map),
        #[cfg(CONFIG_TRANSPARENT_HUGEPAGE)]
        get_unmapped_area: Some(bindings::thp_get_unmapped_area),
        splice_read: Some(sharing::splice),
        fadvise: Some(sharing::advise),
        unlocked_ioctl: Some(verity::control::<T>),
        #[cfg(CONFIG_COMPAT)]
        compat_ioctl: Some(verity::control::<T>),
        fsync: Some(bindings::noop_fsync),
        setlease: Some(bindings::generic_setlease),
        ..pin_init::zeroed()
    };

    const ADDRESS_SPACE_OPS: bindings::address_space_operations =
        bindings::address_space_operations {
            read_folio: Some(folio::read_folio::<T>),
            readahead: Some(folio::readahead::<T>),
            #[cfg(CONFIG_MIGRATION)]
            migrate_folio: Some(bindings::filemap_migrate_folio),
            ..pin_init::zeroed()
        };

    /// Initialises the inode, and lets those that wait for it go on.
    pub(crate) fn init(self, params: INodeParams<T::INodeData>) -> Result<INodeRef<'a, T>> {
        let size = i64::try_from(params.size).map_err(|_| EFBIG)?;
        let inode = self.0.as_ptr();

        // SAFETY: By the type invariants the inode is part of an `INodeAlloc<T>` and nobody else
        // uses it yet.
        let this = unsafe { INodeAlloc::<T>::of(inode) };
        // SAFETY: As above. The tables are promoted to statics: they are constants of function
        // pointers. What `i_link` points to lives as long as the allocation.
        unsafe {
            bindings::vfs_rs_inode_set_owner(inode, params.uid, params.gid);
            bindings::vfs_rs_inode_set_times(inode, params.mtime.0, params.mtime.1);
            bindings::vfs_rs_inode_set_size(inode, size);
            bindings::set_nlink(inode, params.nlink);
            (*inode).i_generation = SuperBlock::<T>::from_raw((*inode).i_sb).generation();
            if !params.may_have_acl {
                bindings::vfs_rs_cache_no_acl(inode);
            }

            let mode = params.permissions & 0o7777;
            (*inode).i_op = &Self::SPECIAL_INODE_OPS;
            match params.kind {
                INodeKind::Regular => {
                    (*inode).i_mode = bindings::S_IFREG as u16 | mode;
                    (*inode).i_op = &Self::FILE_INODE_OPS;
                    bindings::vfs_rs_inode_set_fop(inode, &Self::FILE_FILE_OPS);
                    (*inode).i_data.a_ops = &Self::ADDRESS_SPACE_OPS;
                    bindings::vfs_rs_mapping_allow_large_folios((*inode).i_mapping);
                }
                INodeKind::Directory => {
                    (*inode).i_mode = bindings::S_IFDIR as u16 | mode;
                    (*inode).i_op = &Self::DIR_INODE_OPS;
                    bindings::vfs_rs_inode_set_fop(inode, &Self::DIR_FILE_OPS);
                    (*inode).i_blocks = 0;
                }
                INodeKind::Symlink(target) => {
                    (*inode).i_mode = bindings::S_IFLNK as u16 | mode;
                    (*inode).i_op = &Self::LINK_INODE_OPS;
                    (*inode).i_blocks = 0;
                    let target = (*(*this).link.get()).insert(target);
                    bindings::vfs_rs_inode_set_link(inode, target.as_char_ptr().cast_mut());
                }
                INodeKind::CharDevice { major, minor } => bindings::init_special_inode(
                    inode,
                    bindings::S_IFCHR as u16 | mode,
                    device(major, minor),
                ),
                INodeKind::BlockDevice { major, minor } => bindings::init_special_inode(
                    inode,
                    bindings::S_IFBLK as u16 | mode,
                    device(major, minor),
                ),
                INodeKind::Fifo => {
                    bindings::init_special_inode(inode, bindings::S_IFIFO as u16 | mode, 0)
                }
                INodeKind::Socket => {
                    bindings::init_special_inode(inode, bindings::S_IFSOCK as u16 | mode, 0)
                }
            }
            *(*this).data.get() = Some(params.data);
            bindings::unlock_new_inode(inode);
        }

        // The reference goes to the result.
        let this = ManuallyDrop::new(self);
        // SAFETY: The inode satisfies the invariants of `INode` now, and the reference is ours.
        Ok(unsafe { INodeRef::from_raw(this.0) })
    }
}

impl<T: FileSystem> Drop for NewINode<'_, T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the inode is new and locked; the reference is given away.
        unsafe { bindings::iget_failed(self.0.as_ptr()) };
    }
}

/// `inode_operations.getattr`: what the inode says, and that nothing of it can be changed.
///
/// # Safety
///
/// To be called by the VFS for a valid path and a structure to fill.
pub(super) unsafe extern "C" fn get_attributes(
    idmap: *mut bindings::mnt_idmap,
    path: *const bindings::path,
    stat: *mut bindings::kstat,
    request_mask: u32,
    _flags: c_uint,
) -> c_int {
    let immutable = u64::from(bindings::STATX_ATTR_IMMUTABLE);
    // SAFETY: The VFS gives a positive dentry and a structure that is ours during the call.
    unsafe {
        (*stat).attributes |= immutable;
        (*stat).attributes_mask |= immutable;
        bindings::generic_fillattr(idmap, request_mask, (*(*path).dentry).d_inode, stat);
    }
    0
}

/// The kernel's device number.
fn device(major: u32, minor: u32) -> bindings::dev_t {
    (major << bindings::MINORBITS) | (minor & ((1 << bindings::MINORBITS) - 1))
}
