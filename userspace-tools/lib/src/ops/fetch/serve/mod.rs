// SPDX-License-Identifier: MIT OR Apache-2.0

//! Fetches the chunks of prepared images of a store: those that the kernel module requests, and the rest in
//! the background.
//!
//! 1. A thread takes requests. Those that arrive within a few milliseconds are planned together. The first
//!    image that has a chunk gives it.
//! 2. Chunks that are neighbours in a pack become one range. Ranges are queued by priority: those that a
//!    reader waits for, other requests, the start-up order of the image, the background.
//!    A range that continues an earlier one, or is short, is extended.
//! 3. Threads of each image transfer its ranges. Each chunk is compared with its digest.
//! 4. A thread puts the chunks that have arrived into the store, durably, and answers their requests. Chunks
//!    that arrive meanwhile are stored together next. The store is locked against `gc` only during this step.
//!
//! If a range fails, another image that has its chunks gives them. If there is none, the failure is the
//! answer to the requests. It ends nothing else.
//!
//! | module | content |
//! | --- | --- |
//! | `complete` | fetches the rest |
//! | `recorded` | fetches the chunks of the start-up order |
//! | `server` | plans, transfers and stores |
//! | `inbox` | requests that have come |
//! | `readahead` | the chunks that are fetched with requested ones |
//! | `queue` | ranges and chunks under way, and the requests that wait for them |

mod complete;
mod inbox;
mod queue;
mod readahead;
mod recorded;
mod server;
#[cfg(test)]
mod tests;

use self::server::Server;
use super::lazy::{LazyImage, LazyOptions};
use super::source::BlobSource;
use crate::error::{Error, Result};
use crate::mount::ChunkRequests;
use crate::store::fetches::Completion;
use crate::store::locks::ServeLock;
use crate::store::oci_layout::Store;
use crate::sys::parallel::lock;
use crate::sys::progress::Progress;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// The end of the service of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// The store has all chunks of the image.
    Complete,
    /// A request to stop has ended it, as the options say.
    Stopped,
}

/// The claim of one process to serve the requests of a store. It ends with the process.
pub struct Claim {
    _lock: ServeLock,
}

impl Claim {
    /// Claims a store. Returns `None` if another process serves it.
    ///
    /// # Errors
    ///
    /// If the lock of the store cannot be taken.
    pub fn take(store: &Store) -> Result<Option<Self>> {
        let lock = ServeLock::take(store.locked())?;
        Ok(lock.map(|lock| Claim { _lock: lock }))
    }
}

/// The service of a store: it answers requests for chunks of any number of images.
pub struct Service<'s> {
    server: Server<'s>,
}

/// The state of a service, for its users.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceStatus {
    /// The number of images that are served.
    pub images: u64,
    /// The number of requests without an answer.
    pub requests: u64,
    /// The time for which the first of these requests has waited.
    pub longest_wait: Duration,
    /// The number of ranges in transfer.
    pub transfers: u64,
    /// The bytes of chunks that have arrived since the start.
    pub fetched_bytes: u64,
    /// The last failure, and the time since then.
    pub last_error: Option<(String, Duration)>,
}

/// An image that is being prepared. Requests for chunks that no image has wait until it is served, or until
/// this is dropped.
pub struct Expected<'e, 's> {
    server: &'e Server<'s>,
}

impl Drop for Expected<'_, '_> {
    fn drop(&mut self) {
        self.server.expect_no_more();
    }
}

impl<'s> Service<'s> {
    /// Makes the service of a store. `warn` gets failures that do not end the service.
    ///
    /// # Errors
    ///
    /// If the chunk index of the store cannot be read.
    pub fn new(
        store: &'s Store,
        requests: Arc<dyn ChunkRequests>,
        warn: &'s (dyn Fn(&Error) + Sync),
    ) -> Result<Self> {
        let server = Server::new(store, requests, warn)?;
        Ok(Service { server })
    }

    /// Answers requests while a function runs, which serves images.
    ///
    /// A thread that waits for requests stays behind. It ends with the process, or when there are no more
    /// requests.
    ///
    /// # Errors
    ///
    /// If requests cannot be taken.
    pub fn run<T>(&self, main: impl FnOnce() -> T) -> Result<T> {
        /// Also ends the threads after a panic.
        struct End<'e, 's>(&'e Service<'s>);
        impl Drop for End<'_, '_> {
            fn drop(&mut self) {
                self.0.end();
            }
        }
        let server = &self.server;
        let taker = (server.inbox.clone(), server.requests.clone());
        thread::spawn(move || taker.0.take_all(&*taker.1));
        let result = thread::scope(|scope| {
            scope.spawn(|| server.plan_all());
            scope.spawn(|| server.store_all());
            let _end = End(self);
            main()
        });
        server.queue.outcome().map(|()| result)
    }

    /// Ends the service. Requests without an answer remain for the next fetcher.
    pub fn end(&self) {
        self.server.queue.end(Ok(()));
        self.server.inbox.close();
    }

    /// Returns true after the end.
    pub fn is_over(&self) -> bool {
        self.server.queue.is_over()
    }

    /// Announces an image that is being prepared.
    pub fn expect(&self) -> Expected<'_, 's> {
        self.server.expect();
        Expected {
            server: &self.server,
        }
    }

    /// Serves requests for chunks of a prepared image until the store has all of them, until a request to
    /// stop, or until the end of the service. `expected` is dropped as soon as the image is served.
    ///
    /// # Errors
    ///
    /// If the image is not whole although all of its packs are there, or, unless the rest is never to be
    /// fetched, after a request to stop.
    pub fn serve(
        &self,
        source: &dyn BlobSource,
        image: &Arc<LazyImage>,
        options: LazyOptions,
        progress: &Progress,
        expected: Option<Expected<'_, 's>>,
    ) -> Result<Served> {
        let server = &self.server;
        let number = server.enter(image.clone(), options.jobs);
        drop(expected);
        let ended = thread::scope(|scope| {
            for _ in 0..options.jobs.max(1) {
                scope.spawn(|| server.transfer_all(number, source, progress));
            }
            scope.spawn(|| recorded::run(server, number, image));
            if options.completion != Completion::Never {
                scope.spawn(|| complete::run(server, number, image, options));
            }
            server.wait(number, progress)
        });
        server.leave(number);
        match ended {
            Err(Error::Interrupted) if options.completion == Completion::Never => {
                Ok(Served::Stopped)
            }
            Err(error) => Err(error),
            Ok(()) => Ok(Served::Complete),
        }
    }

    /// Passes a failure on, unless the same one was passed on shortly before.
    pub fn warn(&self, error: &Error) {
        self.server.warn(error);
    }

    /// Returns the state.
    pub fn status(&self) -> ServiceStatus {
        let server = &self.server;
        let counts = server.queue.counts();
        let last_error = lock(&server.last_error).clone();
        ServiceStatus {
            images: server.images() as u64,
            requests: counts.requests,
            longest_wait: counts.longest_wait,
            transfers: counts.transfers,
            fetched_bytes: server.fetched.load(Relaxed),
            last_error: last_error.map(|(text, time)| (text, time.elapsed())),
        }
    }
}
