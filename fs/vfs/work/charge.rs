// SPDX-License-Identifier: GPL-2.0

//! The control groups that pay for I/O and memory.
//!
//! The kernel charges requests and page-cache memory to the control groups of the task that submits
//! or allocates them. If a worker does so for another task, it must act for that task's groups.
//!
//! C headers: [`include/linux/kthread.h`](srctree/include/linux/kthread.h),
//! [`include/linux/sched/mm.h`](srctree/include/linux/sched/mm.h)

use crate::vfs::bindings;
use core::marker::PhantomData;
use kernel::types::NotThreadSafe;

/// The control groups that pay for the work of a task.
///
/// # Invariants
///
/// `groups` was filled by `vfs_rs_charge_get`, and holds the references that it took.
pub(in crate::vfs) struct Charge {
    groups: bindings::vfs_rs_charge,
}

// SAFETY: References to control groups may be used and dropped from any thread.
unsafe impl Send for Charge {}
// SAFETY: A shared reference only reads the pointers, whose targets have their own locks.
unsafe impl Sync for Charge {}

impl Charge {
    /// Returns the groups that pay for the current task now.
    pub(in crate::vfs) fn of_current() -> Self {
        let mut groups = bindings::vfs_rs_charge::default();
        // SAFETY: The structure may be written. The function only looks at the current task.
        unsafe { bindings::vfs_rs_charge_get(&mut groups) };
        // INVARIANT: The function has just filled the structure.
        Self { groups }
    }

    /// Charges the current worker's I/O and memory to these groups until the result is dropped.
    ///
    /// In a task that is not a kernel thread, only memory is charged to them.
    pub(in crate::vfs) fn enter(&self) -> ChargeScope<'_> {
        ChargeScope {
            // SAFETY: By the type invariants the groups are valid; `self` keeps them while the
            // scope borrows it.
            outer: unsafe { bindings::vfs_rs_charge_begin(&self.groups) },
            _charge: PhantomData,
            _not_send: NotThreadSafe,
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the references are ours.
        unsafe { bindings::vfs_rs_charge_put(&self.groups) };
    }
}

/// The stretch of a worker's run that is charged to a [`Charge`].
///
/// # Invariants
///
/// `outer` is the memory control group that paid for the same task before.
#[must_use = "charging ends when the scope is dropped"]
pub(in crate::vfs) struct ChargeScope<'a> {
    outer: *mut bindings::mem_cgroup,
    _charge: PhantomData<&'a Charge>,
    _not_send: NotThreadSafe,
}

impl Drop for ChargeScope<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants `outer` paid before; the scope does not leave its task.
        unsafe { bindings::vfs_rs_charge_end(self.outer) };
    }
}
