// SPDX-License-Identifier: MIT OR Apache-2.0

//! Distributes work over threads.
//!
//! Each thread takes the first of these that there is:
//!
//! | work | order | bound |
//! | --- | --- | --- |
//! | follow-up | of arrival | [`Limits::follow_ups`] of those that tasks offer |
//! | batch | begun by number, in any order complete, merged by number | [`Limits::batches_ahead`] |
//! | task | begun by number | one for each thread |
//!
//! Follow-ups come first because they hold memory. The order in which batches are merged, and thus
//! the result, depends neither on the number of threads nor on their speed.
//!
//! After an error, an interruption or a panic, no thread begins anything more.
//!
//! Lock order: the batches that wait to be merged, then the state.

use crate::error::{Error, Result};
use crate::sys::parallel::lock;
use crate::sys::progress::Progress;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;

/// The work that a [`Scheduler`] distributes.
pub(crate) trait Work: Sync {
    /// State that each thread has for itself.
    type Local: Default;
    /// The result of reading a batch.
    type Batch: Send;
    /// Work that other work leads to.
    type FollowUp: Send;

    /// Reads the batch of this number.
    fn read_batch(&self, number: usize) -> Result<Self::Batch>;

    /// Merges a batch into the result. Called for each batch, in the order of their numbers, by one
    /// thread at a time. Returns the work that follows from it.
    fn merge(&self, batch: Self::Batch, is_last: bool) -> Result<Vec<Self::FollowUp>>;

    /// Does the task of this number.
    fn task(&self, number: usize, local: &mut Self::Local) -> Result<()>;

    /// Does work that other work led to.
    fn follow_up(&self, work: Self::FollowUp, local: &mut Self::Local) -> Result<()>;
}

/// Distributes numbered batches and tasks, and the follow-ups `F`, over threads.
pub(crate) struct Scheduler<F> {
    threads: usize,
    totals: Totals,
    limits: Limits,
    state: Mutex<State<F>>,
    /// Wakes threads that found nothing to take: there may be more, or it is over.
    wake: Condvar,
}

impl<F: Send> Scheduler<F> {
    /// A scheduler for `threads` threads, at least one.
    pub fn new(threads: usize, totals: Totals, limits: Limits) -> Self {
        Scheduler {
            threads: threads.max(1),
            totals,
            limits,
            state: Mutex::new(State::default()),
            wake: Condvar::new(),
        }
    }

    /// Does all work with the threads, of which the caller is one. Returns the first error.
    ///
    /// If [`Scheduler::stop`] ends it, the result is the one that was reached until then.
    pub fn run<W: Work<FollowUp = F>>(&self, work: &W, progress: &Progress) -> Result<()> {
        let merging = Mutex::new(InOrder::default());
        let run = || self.run_thread(work, progress, &merging);
        thread::scope(|scope| {
            for _ in 1..self.threads {
                scope.spawn(run);
            }
            run();
        });
        match lock(&self.state).error.take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Has another thread do the work that `make` returns, if one is about to run out of other work.
    /// Otherwise returns false and does not call `make`.
    pub fn offer(&self, make: impl FnOnce() -> F) -> bool {
        let mut state = lock(&self.state);
        let has_more =
            state.next_batch < self.totals.batches || state.next_task < self.totals.tasks;
        if self.threads == 1 || has_more || state.follow_ups.len() >= self.limits.follow_ups {
            return false;
        }
        state.follow_ups.push_back(make());
        drop(state);
        self.wake.notify_one();
        true
    }

    /// Has no thread begin anything more.
    pub fn stop(&self) {
        lock(&self.state).is_stopped = true;
        self.wake.notify_all();
    }

    fn run_thread<W: Work<FollowUp = F>>(
        &self,
        work: &W,
        progress: &Progress,
        merging: &Mutex<InOrder<W::Batch>>,
    ) {
        let mut local = W::Local::default();
        while let Some(assignment) = self.next() {
            let busy = Busy(self);
            let result = progress.check().and_then(|()| match assignment {
                Assignment::FollowUp(follow_up) => work.follow_up(follow_up, &mut local),
                Assignment::Batch(number) => self.batch(number, work, merging),
                Assignment::Task(number) => work.task(number, &mut local),
            });
            if let Err(error) = result {
                lock(&self.state).error.get_or_insert(error);
            }
            drop(busy);
        }
    }

    /// Takes an assignment; waits if work of another thread may lead to one.
    fn next(&self) -> Option<Assignment<F>> {
        let mut state = lock(&self.state);
        loop {
            if state.is_stopped || state.error.is_some() {
                return None;
            }
            let assignment = state.take(self.totals, self.limits);
            if assignment.is_some() || state.busy == 0 {
                return assignment;
            }
            state = self
                .wake
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Reads a batch, and merges it and those behind it if it is its turn.
    fn batch<W: Work<FollowUp = F>>(
        &self,
        number: usize,
        work: &W,
        merging: &Mutex<InOrder<W::Batch>>,
    ) -> Result<()> {
        let batch = work.read_batch(number)?;
        let mut waiting = lock(merging);
        waiting.push(number, batch);
        let mut follow_ups = Vec::new();
        while let Some((number, batch)) = waiting.pop() {
            follow_ups.extend(work.merge(batch, number + 1 == self.totals.batches)?);
        }
        let mut state = lock(&self.state);
        state.merged = waiting.next;
        state.follow_ups.extend(follow_ups);
        Ok(())
    }
}

/// An assignment that a thread is at. When it is dropped, the other threads look for work again.
struct Busy<'a, F>(&'a Scheduler<F>);

impl<F> Drop for Busy<'_, F> {
    fn drop(&mut self) {
        let mut state = lock(&self.0.state);
        state.busy -= 1;
        // The others would wait for the work of a thread that is gone.
        state.is_stopped |= thread::panicking();
        drop(state);
        self.0.wake.notify_all();
    }
}

/// Items that are added in any order and taken by number.
pub(crate) struct InOrder<T> {
    waiting: BTreeMap<usize, T>,
    next: usize,
}

impl<T> Default for InOrder<T> {
    fn default() -> Self {
        InOrder {
            waiting: BTreeMap::new(),
            next: 0,
        }
    }
}

impl<T> InOrder<T> {
    /// Adds the item of this number.
    pub fn push(&mut self, number: usize, item: T) {
        self.waiting.insert(number, item);
    }

    /// Takes the item whose turn it is, with its number.
    pub fn pop(&mut self) -> Option<(usize, T)> {
        let number = self.next;
        let item = self.waiting.remove(&number)?;
        self.next += 1;
        Some((number, item))
    }
}

/// The state that threads share.
///
/// # Invariants
///
/// `merged <= next_batch <= merged + Limits::batches_ahead`.
struct State<F> {
    follow_ups: VecDeque<F>,
    next_batch: usize,
    merged: usize,
    next_task: usize,
    /// The number of threads that have an assignment.
    busy: usize,
    is_stopped: bool,
    /// The first error.
    error: Option<Error>,
}

impl<F> Default for State<F> {
    fn default() -> Self {
        State {
            follow_ups: VecDeque::new(),
            next_batch: 0,
            merged: 0,
            next_task: 0,
            busy: 0,
            is_stopped: false,
            error: None,
        }
    }
}

impl<F> State<F> {
    /// Takes an assignment, and counts the thread as busy with it.
    fn take(&mut self, totals: Totals, limits: Limits) -> Option<Assignment<F>> {
        let assignment = if let Some(follow_up) = self.follow_ups.pop_front() {
            Assignment::FollowUp(follow_up)
        } else if self.next_batch < totals.batches.min(self.merged + limits.batches_ahead) {
            // INVARIANT: `next_batch` was below the bound.
            self.next_batch += 1;
            Assignment::Batch(self.next_batch - 1)
        } else if self.next_task < totals.tasks {
            self.next_task += 1;
            Assignment::Task(self.next_task - 1)
        } else {
            return None;
        };
        self.busy += 1;
        Some(assignment)
    }
}

/// A piece of work that one thread has taken.
#[derive(Debug, PartialEq, Eq)]
enum Assignment<F> {
    FollowUp(F),
    Batch(usize),
    Task(usize),
}

/// The numbers of batches and tasks.
#[derive(Clone, Copy)]
pub(crate) struct Totals {
    pub batches: usize,
    pub tasks: usize,
}

/// Bounds of the memory that work takes.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    /// The number of batches, at least one, that are begun and not merged.
    pub batches_ahead: usize,
    /// The number of waiting follow-ups beyond which [`Scheduler::offer`] returns false.
    pub follow_ups: usize,
}

#[cfg(test)]
mod tests;
