// SPDX-License-Identifier: GPL-2.0

//! Messages to the kernel log.

use super::bindings;
use kernel::fmt;

/// Prints one error line to the kernel log, unless there were too many of late.
///
/// For errors that a damaged image or a failing disk can raise any number of times. See
/// [`error_ratelimited`](crate::vfs::error_ratelimited) for the macro-like use with [`fmt!`].
///
/// [`fmt!`]: kernel::prelude::fmt
pub(crate) fn error_ratelimited(message: fmt::Arguments<'_>) {
    // SAFETY: The helper formats its argument with `%pA`, which takes a pointer to an
    // `Arguments`; the reference is valid during the call, and nothing keeps it.
    unsafe { bindings::vfs_rs_error_ratelimited(core::ptr::from_ref(&message).cast()) };
}
