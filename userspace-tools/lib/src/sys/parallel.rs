// SPDX-License-Identifier: MIT OR Apache-2.0

//! Runs the same work on many items in several threads.

use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
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

/// Does some work on each of the items in `jobs` threads, and passes them with the results to `take` in
/// this thread, in their order. At most `jobs` items are begun and not taken.
///
/// `work` gets a function that fails once an error has ended the others, so that long work can end, too.
///
/// # Errors
///
/// The first error, of `work` or of `take`, in the order of the items.
pub(crate) fn in_order<T: Sync, R: Send>(
    jobs: usize,
    items: &[T],
    work: impl Fn(&T, &(dyn Fn() -> Result<()> + Sync)) -> Result<R> + Sync,
    mut take: impl FnMut(&T, R) -> Result<()>,
) -> Result<()> {
    let jobs = jobs.clamp(1, items.len().max(1));
    struct State<R> {
        begun: usize,
        taken: usize,
        failed: bool,
        results: BTreeMap<usize, Result<R>>,
    }
    let state = Mutex::new(State {
        begun: 0,
        taken: 0,
        failed: false,
        results: BTreeMap::new(),
    });
    let changed = Condvar::new();
    let wait = |guard| changed.wait(guard).unwrap_or_else(PoisonError::into_inner);
    let check = || {
        if lock(&state).failed {
            return Err(Error::Interrupted);
        }
        Ok(())
    };
    let run = || loop {
        let mut guard = lock(&state);
        while !guard.failed && guard.begun >= guard.taken + jobs {
            guard = wait(guard);
        }
        let number = guard.begun;
        let item = items.get(number).filter(|_| !guard.failed);
        let Some(item) = item else { return };
        guard.begun += 1;
        drop(guard);
        // A panic must not leave this function waiting for a result.
        let result = panic::catch_unwind(AssertUnwindSafe(|| work(item, &check)));
        let (result, payload) = match result {
            Ok(result) => (result, None),
            Err(payload) => (Err(Error::Interrupted), Some(payload)),
        };
        lock(&state).results.insert(number, result);
        changed.notify_all();
        if let Some(payload) = payload {
            panic::resume_unwind(payload);
        }
    };
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(run);
        }
        let take_all = || {
            items.iter().enumerate().try_for_each(|(number, item)| {
                let mut guard = lock(&state);
                let result = loop {
                    match guard.results.remove(&number) {
                        Some(result) => break result,
                        None => guard = wait(guard),
                    }
                };
                drop(guard);
                take(item, result?)?;
                lock(&state).taken += 1;
                changed.notify_all();
                Ok(())
            })
        };
        // A panic must not leave the other threads waiting.
        let taken = panic::catch_unwind(AssertUnwindSafe(take_all));
        if !matches!(taken, Ok(Ok(()))) {
            lock(&state).failed = true;
            changed.notify_all();
        }
        taken.unwrap_or_else(|payload| panic::resume_unwind(payload))
    })
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
    fn results_are_taken_in_order() {
        for jobs in [1, 2, 7] {
            let items: Vec<u32> = (0..1000).collect();
            let mut taken = Vec::new();
            let take = |_: &u32, item| {
                taken.push(item);
                Ok(())
            };
            in_order(jobs, &items, |item, _| Ok(*item), take).unwrap();
            assert_eq!(taken, items);
        }
    }

    #[test]
    fn an_error_ends_the_work_on_other_items() {
        let items: Vec<u32> = (0..1000).collect();
        let mut taken = 0;
        let work = |item: &u32, check: &(dyn Fn() -> Result<()> + Sync)| match item {
            0..10 => Ok(()),
            10 => Err(Error::Usage("wrong".to_owned())),
            _ => loop {
                check()?;
                thread::yield_now();
            },
        };
        let result = in_order(4, &items, work, |_, ()| {
            taken += 1;
            Ok(())
        });
        assert!(matches!(result, Err(Error::Usage(_))));
        assert_eq!(taken, 10);
    }

    #[test]
    #[should_panic(expected = "taken")]
    fn a_panic_ends_the_work_on_other_items() {
        let items: Vec<u32> = (0..1000).collect();
        let _ = in_order(4, &items, |_, _| Ok(()), |_, ()| panic!("taken"));
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
