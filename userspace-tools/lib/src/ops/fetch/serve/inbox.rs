// SPDX-License-Identifier: MIT OR Apache-2.0

//! Requests that have come and are not planned.

use crate::error::Result;
use crate::mount::{ChunkRequest, ChunkRequests};
use crate::sys::parallel::lock;
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// The most requests without an answer. Others stay in the kernel, which has a limit of its own. This one
/// bounds the memory that requests take.
const OPEN_MAX: usize = 4096;
/// Requests that arrive within this time are planned together.
const WINDOW: Duration = Duration::from_millis(2);
/// The interval at which a waiting thread looks for a request to stop.
const PATIENCE: Duration = Duration::from_millis(100);

/// The requests.
#[derive(Default)]
pub(super) struct Inbox {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    requests: Vec<ChunkRequest>,
    /// The number of requests without an answer.
    open: usize,
    /// The outcome, if there will be no more.
    end: Option<Result<()>>,
    is_closed: bool,
}

impl Inbox {
    /// Takes requests until there are no more, or the inbox is closed.
    pub fn take_all(&self, requests: &dyn ChunkRequests) {
        loop {
            let mut state = lock(&self.state);
            while state.open >= OPEN_MAX && !state.is_closed {
                state = self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            if state.is_closed {
                return;
            }
            drop(state);
            let taken = requests.take();
            let mut state = lock(&self.state);
            match taken {
                Ok(taken) if !taken.is_empty() => {
                    state.open += taken.len();
                    state.requests.extend(taken);
                }
                end => {
                    state.end = Some(end.map(|_| ()));
                    self.changed.notify_all();
                    return;
                }
            }
            self.changed.notify_all();
        }
    }

    /// Waits for requests, for a short time. Returns those that arrive together, and perhaps none.
    ///
    /// # Errors
    ///
    /// If requests cannot be taken. `Ok(None)` means that there will be no more.
    pub fn next(&self) -> Result<Option<Vec<ChunkRequest>>> {
        let mut state = lock(&self.state);
        if state.requests.is_empty() && state.end.is_none() {
            let waited = self.changed.wait_timeout(state, PATIENCE);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if state.requests.is_empty() {
            return match state.end.take() {
                Some(end) => end.map(|()| None),
                None => Ok(Some(Vec::new())),
            };
        }
        drop(state);
        thread::sleep(WINDOW);
        Ok(Some(std::mem::take(&mut lock(&self.state).requests)))
    }

    /// Gives requests again that have no answer.
    pub fn give_again(&self, requests: Vec<ChunkRequest>) {
        lock(&self.state).requests.extend(requests);
        self.changed.notify_all();
    }

    /// Notes that requests have got answers.
    pub fn answered(&self, count: usize) {
        let mut state = lock(&self.state);
        state.open = state.open.saturating_sub(count);
        self.changed.notify_all();
    }

    /// Ends [`take_all`](Self::take_all) before it takes more.
    pub fn close(&self) {
        lock(&self.state).is_closed = true;
        self.changed.notify_all();
    }
}
