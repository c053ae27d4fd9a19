// SPDX-License-Identifier: MIT OR Apache-2.0

//! Runs the same work on many items in several threads.

use crate::error::Result;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

/// Does some work on each of the items, begun in their order by `jobs` threads, this one included.
/// Each thread has a state of its own that `new` makes.
///
/// After an error nothing more is begun; the first one is returned.
pub fn for_each<T: Sync, S>(
    jobs: usize,
    items: &[T],
    new: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, &T) -> Result<()> + Sync,
) -> Result<()> {
    let next = AtomicUsize::new(0);
    let outcome = Mutex::new(Ok(()));
    let run = || {
        let mut state = new();
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(error) = work(&mut state, item) {
                next.store(items.len(), Ordering::Relaxed);
                let mut outcome = lock(&outcome);
                if outcome.is_ok() {
                    *outcome = Err(error);
                }
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..jobs.min(items.len()) {
            scope.spawn(run);
        }
        run();
    });
    into_inner(outcome)
}

/// Locks a mutex, even if a thread panicked with it, because that panic ends the program.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the value of a mutex, even if a thread panicked with it, like [`lock`].
pub(crate) fn into_inner<T>(mutex: Mutex<T>) -> T {
    mutex.into_inner().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn each_item_is_worked_on_once() {
        for jobs in [1, 2, 7] {
            let items: Vec<u32> = (0..1000).collect();
            let done = Mutex::new(Vec::new());
            for_each(
                jobs,
                &items,
                || (),
                |(), item| {
                    lock(&done).push(*item);
                    Ok(())
                },
            )
            .unwrap();
            let mut done = into_inner(done);
            done.sort_unstable();
            assert_eq!(done, items);
        }
    }

    #[test]
    fn nothing_is_begun_after_an_error() {
        let items: Vec<u32> = (0..1000).collect();
        let done = Mutex::new(0);
        let result = for_each(
            1,
            &items,
            || (),
            |(), item| {
                *lock(&done) += 1;
                match item {
                    10 => Err(Error::Interrupted),
                    _ => Ok(()),
                }
            },
        );
        assert!(matches!(result, Err(Error::Interrupted)));
        assert_eq!(into_inner(done), 11);
    }
}
