// SPDX-License-Identifier: GPL-2.0

//! Messages to the kernel log.

use super::bindings;
use super::prelude::*;
use kernel::fmt;

/// Prints one error line to the kernel log, unless there were too many of late.
///
/// For errors that a damaged image or a failing disk can raise any number of times.
pub(crate) fn error_ratelimited(message: fmt::Arguments<'_>) {
    // SAFETY: No requirements.
    if unsafe { bindings::vfs_rs_ratelimit() } {
        pr_err!("{message}\n");
    }
}
