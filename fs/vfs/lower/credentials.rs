// SPDX-License-Identifier: GPL-2.0

//! Credentials that the current task acts with for a while.

use crate::vfs::bindings;
use core::marker::PhantomData;
use kernel::{cred::Credential, types::NotThreadSafe};

/// The time during which the current task acts with other credentials.
///
/// # Invariants
///
/// `old` are the credentials that the current task had when the guard was made.
pub(super) struct CredentialGuard<'a> {
    old: *const bindings::cred,
    _credentials: PhantomData<&'a Credential>,
    _not_send: NotThreadSafe,
}

impl<'a> CredentialGuard<'a> {
    /// Overrides the credentials of the current task until the guard is dropped.
    pub(super) fn new(credentials: &'a Credential) -> Self {
        Self {
            // INVARIANT: The override returns the task's credentials before it.
            // SAFETY: The credentials are valid, and borrowed for longer than the guard exists.
            old: unsafe { bindings::vfs_rs_override_creds(credentials.as_ptr()) },
            _credentials: PhantomData,
            _not_send: NotThreadSafe,
        }
    }
}

impl Drop for CredentialGuard<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants `old` are this task's own: the guard does not leave it.
        unsafe { bindings::vfs_rs_revert_creds(self.old) };
    }
}

/// Returns true if files may be opened with one as with the other.
pub(super) fn are_equal(a: &Credential, b: &Credential) -> bool {
    // The security labels are compared by their ids.
    if a.get_secid() != b.get_secid() {
        return false;
    }
    // SAFETY: Both references are valid; credentials do not change.
    unsafe {
        let (a, b) = (a.as_ptr(), b.as_ptr());
        bindings::cred_fscmp(a, b) == 0
            && (*a).user_ns == (*b).user_ns
            && (*a).cap_effective.val == (*b).cap_effective.val
    }
}
