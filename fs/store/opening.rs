// SPDX-License-Identifier: GPL-2.0

//! The patience of callers.

/// The patience of a caller that has a file of the store opened.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opening {
    /// The caller has folios locked, and does not wait.
    Now,
    /// The caller waits, until it is killed and for a limited time.
    Waiting,
}
