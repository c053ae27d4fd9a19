// SPDX-License-Identifier: MIT OR Apache-2.0

//! The pauses of a fetcher after failures.

use std::time::Duration;

/// The pause after the first failure. Each further pause is twice as long.
const FIRST: Duration = Duration::from_secs(2);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(300);

/// The pauses between attempts of a fetcher that fail: from 2 s on, each twice as long, 300 s at most.
#[derive(Debug)]
pub struct RetryPauses {
    next: Duration,
}

impl Default for RetryPauses {
    fn default() -> Self {
        RetryPauses { next: FIRST }
    }
}

impl RetryPauses {
    /// Returns the pause after another failure.
    pub fn after_failure(&mut self) -> Duration {
        let pause = self.next;
        self.next = LONGEST.min(2 * pause);
        pause
    }

    /// Starts again with the first pause, after a success.
    pub fn reset(&mut self) {
        *self = RetryPauses::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_limit() {
        let mut pauses = RetryPauses::default();
        let seconds: Vec<u64> = (0..10).map(|_| pauses.after_failure().as_secs()).collect();
        assert_eq!(seconds, [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        pauses.reset();
        assert_eq!(pauses.after_failure(), FIRST);
    }
}
