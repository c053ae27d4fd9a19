// SPDX-License-Identifier: GPL-2.0

//! Differences between the kernels that the module is built for.
//!
//! The module imports [`prelude`] instead of the kernel's prelude. It adds the items of newer
//! kernels that the one at hand lacks. `Kbuild` searches the kernel's source for each item and
//! passes `--cfg vfs_has_NAME` if it is there. `Documentation/porting.md` explains how to add one.
//! Differences between C interfaces are in `compat.h`.

/// The kernel crate's prelude, complete.
pub(crate) mod prelude {
    #[cfg(not(vfs_has_errnos))]
    pub(crate) use super::errno::*;
    #[cfg(not(vfs_has_vec_zeroed))]
    pub(crate) use super::ZeroedVec as _;
    pub(crate) use kernel::prelude::*;
}

/// Error codes that the kernel crate has from 7.3 on.
#[cfg(not(vfs_has_errnos))]
mod errno {
    use core::mem::transmute;
    use kernel::{bindings, error::Error, ffi::c_int};

    // Before 7.3 no constant of this type can be made outside of the kernel crate.
    const _: () = {
        // SAFETY: Any value of four initialised bytes is an integer, and an `Error` is a
        // `NonZeroI32`.
        let number = unsafe { transmute::<Error, c_int>(kernel::error::code::EINVAL) };
        assert!(number == -(bindings::EINVAL as c_int));
    };

    macro_rules! codes {
        ($($name:ident)*) => {$(
            #[doc = concat!("The error `", stringify!($name), "`.")]
            // SAFETY: An `Error` is the negative number of an error code, as is asserted above;
            // this one is not 0 and less than `MAX_ERRNO`.
            pub(crate) const $name: Error =
                unsafe { transmute::<c_int, Error>(-(bindings::$name as c_int)) };
        )*};
    }

    codes! {
        EBADMSG EDEADLK ELOOP ENAMETOOLONG ENODATA ENOTCONN EOPNOTSUPP ESTALE EUCLEAN
    }
}

/// `Vec::zeroed`, which the kernel crate has from 7.3 on.
#[cfg(not(vfs_has_vec_zeroed))]
pub(crate) trait ZeroedVec: Sized {
    /// Allocates a vector of `n` zeros.
    fn zeroed(
        n: usize,
        flags: kernel::alloc::Flags,
    ) -> core::result::Result<Self, kernel::alloc::AllocError>;
}

#[cfg(not(vfs_has_vec_zeroed))]
impl<T: pin_init::Zeroable, A: kernel::alloc::Allocator> ZeroedVec for kernel::alloc::Vec<T, A> {
    fn zeroed(
        n: usize,
        flags: kernel::alloc::Flags,
    ) -> core::result::Result<Self, kernel::alloc::AllocError> {
        let mut vec = Self::with_capacity(n, flags | kernel::alloc::flags::__GFP_ZERO)?;
        // SAFETY: There is room for `n` elements, whose memory the allocator has zeroed: it is
        // new. Zeros are a valid value of a `Zeroable` type.
        unsafe { vec.inc_len(n) };
        Ok(vec)
    }
}
