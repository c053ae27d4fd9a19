// SPDX-License-Identifier: MIT OR Apache-2.0

//! Times.

/// A point in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Seconds since the epoch.
    pub seconds: i64,
    /// Nanoseconds past that second: less than 1,000,000,000.
    pub nanoseconds: u32,
}
