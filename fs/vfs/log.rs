// SPDX-License-Identifier: GPL-2.0

//! Messages to the kernel log.

use crate::vfs::{bindings, compat::prelude::*};
use kernel::fmt;

/// Prints one error line to the kernel log, unless the rate limit is exceeded.
///
/// Use it for errors that damaged data or a failing disk can raise any number of times.
pub(crate) fn error_ratelimited(message: fmt::Arguments<'_>) {
    // SAFETY: No requirements: the state of the rate limit is static and has its own lock.
    if unsafe { bindings::vfs_rs_ratelimit() } {
        pr_err!("{message}\n");
    }
}
