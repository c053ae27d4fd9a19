// SPDX-License-Identifier: GPL-2.0

//! The task that asks for something.

use super::bindings;
use super::prelude::*;

/// Lets others run; to be called now and then in loops whose length an image says.
///
/// # Errors
///
/// [`EINTR`] if the task is being killed, and nobody waits for what it does.
pub(crate) fn relax() -> Result {
    // SAFETY: Loops of the filesystem run in process context, without locks that forbid to sleep.
    if unsafe { bindings::vfs_rs_relax() } {
        Ok(())
    } else {
        Err(EINTR)
    }
}
