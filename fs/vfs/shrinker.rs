// SPDX-License-Identifier: GPL-2.0

//! Caches that give memory back under pressure.
//!
//! C header: [`include/linux/shrinker.h`](srctree/include/linux/shrinker.h)

use crate::vfs::{bindings, compat::prelude::*};
use core::ptr::NonNull;
use kernel::{
    ffi::{c_int, c_ulong},
    str::CStr,
    sync::Arc,
    types::ForeignOwnable,
};

/// A cache whose entries can be dropped.
///
/// Both methods run in memory reclaim: they must neither allocate nor wait for a task that does.
/// Locks that they take must never be held during an allocation.
pub(crate) trait Shrink: Send + Sync + 'static {
    /// Returns the number of entries that could be dropped.
    fn count(&self) -> usize;

    /// Drops up to `entries` entries, the least useful first; returns the number of entries that
    /// were dropped.
    fn shrink(&self, entries: usize) -> usize;
}

/// A registered shrinker of a cache.
///
/// # Invariants
///
/// `shrinker` is registered, and its `private_data` is an `Arc<S>` turned foreign.
pub(crate) struct ShrinkerRegistration<S: Shrink> {
    shrinker: NonNull<bindings::shrinker>,
    _cache: core::marker::PhantomData<Arc<S>>,
}

// SAFETY: A shrinker may be freed from any thread.
unsafe impl<S: Shrink> Send for ShrinkerRegistration<S> {}
// SAFETY: A shared reference has no methods.
unsafe impl<S: Shrink> Sync for ShrinkerRegistration<S> {}

impl<S: Shrink> ShrinkerRegistration<S> {
    /// Registers a shrinker for a cache. The name appears in debugfs.
    pub(crate) fn new(name: &CStr, cache: Arc<S>) -> Result<Self> {
        // SAFETY: The format takes one string, which is NUL-terminated and copied.
        let shrinker =
            unsafe { bindings::shrinker_alloc(0, c"%s".as_char_ptr(), name.as_char_ptr()) };
        let shrinker = NonNull::new(shrinker).ok_or(ENOMEM)?;
        // SAFETY: The shrinker is new and not registered, so nobody else uses it.
        unsafe {
            let raw = shrinker.as_ptr();
            (*raw).count_objects = Some(Self::count);
            (*raw).scan_objects = Some(Self::scan);
            (*raw).seeks = bindings::DEFAULT_SEEKS as c_int;
            (*raw).private_data = cache.into_foreign().cast();
            bindings::shrinker_register(raw);
        }
        // INVARIANT: The shrinker was just registered with the cache.
        Ok(Self {
            shrinker,
            _cache: core::marker::PhantomData,
        })
    }

    /// Counts entries: `shrinker.count_objects`.
    ///
    /// # Safety
    ///
    /// To be called by memory reclaim for a shrinker of an instance of this type.
    unsafe extern "C" fn count(
        shrinker: *mut bindings::shrinker,
        _control: *mut bindings::shrink_control,
    ) -> c_ulong {
        // SAFETY: The shrinker's private data is an `Arc<S>` until it is freed, which waits for
        // this callback.
        let cache = unsafe { Arc::<S>::borrow((*shrinker).private_data.cast()) };
        // 0 is "nothing to do"; the largest values are codes.
        cache.count().min(isize::MAX as usize) as c_ulong
    }

    /// Drops entries: `shrinker.scan_objects`.
    ///
    /// # Safety
    ///
    /// To be called by memory reclaim for a shrinker of an instance of this type.
    unsafe extern "C" fn scan(
        shrinker: *mut bindings::shrinker,
        control: *mut bindings::shrink_control,
    ) -> c_ulong {
        // SAFETY: The shrinker's private data is an `Arc<S>` until it is freed, which waits for
        // this callback. Memory reclaim gives a valid control block, which is ours during the call.
        let (cache, wanted) = unsafe {
            (
                Arc::<S>::borrow((*shrinker).private_data.cast()),
                (*control).nr_to_scan,
            )
        };
        match cache.shrink(wanted) {
            // SHRINK_STOP: no progress can be made.
            0 => c_ulong::MAX,
            freed => freed.min(isize::MAX as usize) as c_ulong,
        }
    }
}

impl<S: Shrink> Drop for ShrinkerRegistration<S> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the shrinker is registered and its data an `Arc<S>`.
        // `shrinker_free` waits for callbacks under way.
        unsafe {
            let data = (*self.shrinker.as_ptr()).private_data;
            bindings::shrinker_free(self.shrinker.as_ptr());
            drop(Arc::<S>::from_foreign(data.cast()));
        }
    }
}
