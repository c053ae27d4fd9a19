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
/// Both groups are valid or null, and the references to them are ours.
pub(in crate::vfs) struct Charge {
    io: *mut bindings::cgroup_subsys_state,
    memory: *mut bindings::mem_cgroup,
}

// SAFETY: References to control groups may be used and dropped from any thread.
unsafe impl Send for Charge {}
// SAFETY: A shared reference only reads the pointers, whose targets have their own locks.
unsafe impl Sync for Charge {}

impl Charge {
    /// Returns the groups that pay for the current task now.
    pub(in crate::vfs) fn of_current() -> Self {
        // SAFETY: `current` is valid, and only the task itself changes its flags. The functions
        // return null or a group with a reference.
        unsafe {
            let task = bindings::get_current();
            let memory = bindings::vfs_rs_get_memory_group();
            // A kernel thread may itself act for another group. Modules cannot read the I/O group
            // that it acts for; loop devices, the one reader of this kind, set the memory group of
            // the same cgroup.
            let io = if (*task).flags & bindings::PF_KTHREAD == 0 {
                bindings::vfs_rs_get_io_group(task)
            } else {
                bindings::vfs_rs_get_io_group_of(memory)
            };
            // INVARIANT: The references were just taken.
            Self { io, memory }
        }
    }

    /// Charges the current worker's I/O and memory to these groups until the result is dropped.
    ///
    /// In a task that is not a kernel thread, only memory is charged to them.
    pub(in crate::vfs) fn enter(&self) -> ChargeScope<'_> {
        // SAFETY: By the type invariants the groups are valid or null; `self` keeps them while the
        // scope borrows it.
        let outer = unsafe {
            bindings::vfs_rs_associate_io_group(self.io);
            bindings::vfs_rs_set_active_memory_group(self.memory)
        };
        // INVARIANT: The kernel returned the group that has paid until now.
        ChargeScope {
            outer,
            _charge: PhantomData,
            _not_send: NotThreadSafe,
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the references are ours.
        unsafe {
            if !self.io.is_null() {
                bindings::vfs_rs_put_io_group(self.io);
            }
            bindings::vfs_rs_put_memory_group(self.memory);
        }
    }
}

/// The time during which the current task's work is charged to a [`Charge`].
///
/// # Invariants
///
/// `outer` is null or the memory control group that paid for the same task before.
#[must_use = "charging ends when the scope is dropped"]
pub(in crate::vfs) struct ChargeScope<'a> {
    outer: *mut bindings::mem_cgroup,
    _charge: PhantomData<&'a Charge>,
    _not_send: NotThreadSafe,
}

impl Drop for ChargeScope<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants `outer` paid before; the scope does not leave its task.
        // The task has no I/O group of its own to return to: it is a worker.
        unsafe {
            bindings::vfs_rs_set_active_memory_group(self.outer);
            bindings::vfs_rs_associate_io_group(core::ptr::null_mut());
        }
    }
}
