// SPDX-License-Identifier: MIT OR Apache-2.0

//! Counts what an operation does, so that tests can check its cost. Otherwise it is nothing.

#[cfg(any(test, feature = "count-steps"))]
pub use count::count;
#[cfg(any(test, feature = "count-steps"))]
pub(crate) use count::step;

/// Counts a step: an element of a list, a comparison, or a pointer that is followed.
#[cfg(not(any(test, feature = "count-steps")))]
#[inline(always)]
pub(crate) fn step() {}

#[cfg(any(test, feature = "count-steps"))]
mod count {
    use std::cell::Cell;

    std::thread_local! {
        static STEPS: Cell<u64> = const { Cell::new(0) };
    }

    /// Counts a step of this thread.
    pub(crate) fn step() {
        STEPS.set(STEPS.get().saturating_add(1));
    }

    /// Returns the steps of an operation.
    pub fn count<T>(operation: impl FnOnce() -> T) -> (u64, T) {
        let before = STEPS.get();
        let result = operation();
        (STEPS.get().saturating_sub(before), result)
    }
}
