// SPDX-License-Identifier: GPL-2.0

//! The current task.

use crate::vfs::{bindings, compat::prelude::*};

/// Lets other tasks run; to be called regularly in loops whose length untrusted data determines.
///
/// # Errors
///
/// [`EINTR`] if the task is being killed, so that nobody waits for its result.
pub(crate) fn relax() -> Result {
    // SAFETY: The filesystem runs in process context, without locks that forbid to sleep.
    unsafe { bindings::vfs_rs_cond_resched() };
    if is_killed() {
        return Err(EINTR);
    }
    Ok(())
}

/// Returns true if the current task is being killed.
fn is_killed() -> bool {
    // SAFETY: `current` is valid.
    unsafe { bindings::vfs_rs_fatal_signal_pending(bindings::get_current()) != 0 }
}
