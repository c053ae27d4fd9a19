// SPDX-License-Identifier: MIT OR Apache-2.0

//! Sends written blobs to the disk while others are written.
//!
//! A build is complete when its blobs are durable. One thread syncs them meanwhile, so that little is
//! left to do at the end.

use crate::error::Result;
use crate::sys::parallel::lock;
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;

/// The bytes that are written between two flushes. Each flush costs the filesystem a commit of its
/// journal.
pub(crate) const FLUSH_BYTES: u64 = 48 << 20;

/// The state that a flushing thread shares with the threads that write.
#[derive(Default)]
pub(crate) struct Flusher {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    /// Bytes that were written since the last flush.
    bytes: u64,
    is_finished: bool,
}

impl Flusher {
    /// Takes note of a write.
    pub fn written(&self, bytes: u64) {
        let mut state = lock(&self.state);
        state.bytes += bytes;
        if state.bytes >= FLUSH_BYTES {
            self.wake.notify_one();
        }
    }

    /// Does `work`; meanwhile another thread calls `flush` after each [`FLUSH_BYTES`].
    ///
    /// The first error of `flush` ends that thread, and it calls `stop`. The error of `work` is
    /// returned, or else that of `flush`: a filesystem reports a failed write once, and a later
    /// sync would succeed.
    pub fn beside<T>(
        &self,
        flush: impl Fn() -> Result<()> + Sync,
        stop: impl Fn() + Sync,
        work: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        thread::scope(|scope| {
            let flushing = scope.spawn(|| self.run(&flush).inspect_err(|_| stop()));
            let finish = Finish(self);
            let worked = work();
            drop(finish);
            let flushed = flushing.join();
            let result = worked?;
            match flushed {
                Ok(flushed) => flushed.map(|()| result),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    fn run(&self, flush: &impl Fn() -> Result<()>) -> Result<()> {
        loop {
            let mut state = lock(&self.state);
            while state.bytes < FLUSH_BYTES && !state.is_finished {
                state = self
                    .wake
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            // The rest is flushed by `Staging::commit`.
            if state.is_finished {
                return Ok(());
            }
            state.bytes = 0;
            drop(state);
            flush()?;
        }
    }
}

/// Ends the thread of a [`Flusher`] when it is dropped, also by a panic of the work.
struct Finish<'a>(&'a Flusher);

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).is_finished = true;
        self.0.wake.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use std::sync::mpsc;

    #[test]
    fn flushes_after_enough_bytes() {
        let flusher = Flusher::default();
        let (flushed, flushes) = mpsc::sync_channel(0);
        let flushed = Mutex::new(flushed);
        let flush = || {
            lock(&flushed).send(()).unwrap();
            Ok(())
        };
        let work = || {
            flusher.written(FLUSH_BYTES - 1);
            assert!(flushes.try_recv().is_err());
            flusher.written(1);
            flushes.recv().unwrap();
            flusher.written(FLUSH_BYTES);
            flushes.recv().unwrap();
            Ok(7)
        };
        assert_eq!(flusher.beside(flush, || unreachable!(), work).unwrap(), 7);
        assert!(flushes.try_recv().is_err());
    }

    #[test]
    fn an_error_stops_the_work_and_is_returned() {
        let flusher = Flusher::default();
        let (stopped, stops) = mpsc::channel();
        let stopped = Mutex::new(stopped);
        let stop = || lock(&stopped).send(()).unwrap();
        let work = || {
            flusher.written(FLUSH_BYTES);
            stops.recv().unwrap();
            Ok(())
        };
        let result = flusher.beside(
            || Err(Error::io("disk", "sync")(std::io::Error::other("broken"))),
            stop,
            work,
        );
        assert_eq!(result.unwrap_err().to_string(), "cannot sync disk: broken");
    }

    #[test]
    fn an_error_of_the_work_comes_first() {
        let flusher = Flusher::default();
        let result: Result<()> = flusher.beside(|| Ok(()), || (), || Err(Error::Interrupted));
        assert!(matches!(result, Err(Error::Interrupted)));
    }

    #[test]
    #[should_panic(expected = "in the work")]
    fn a_panic_of_the_work_is_passed_on() {
        let flusher = Flusher::default();
        let _: Result<()> = flusher.beside(|| Ok(()), || (), || panic!("in the work"));
    }
}
