// SPDX-License-Identifier: MIT OR Apache-2.0

//! Fetches the chunks of a prepared image: those that the kernel module requests, and the rest in the
//! background.
//!
//! 1. A thread takes requests. Those that arrive within a few milliseconds are planned together.
//! 2. Chunks that are neighbours in a pack become one range. Ranges are queued by priority.
//! 3. Threads transfer ranges. Each chunk is compared with its digest.
//! 4. A thread puts the chunks that have arrived into the store, durably, and answers their requests. Chunks
//!    that arrive meanwhile are stored together next. The store is locked against `gc` only during this step.
//!
//! A failure of one range is the answer to its requests. It ends nothing else.
//!
//! | module | content |
//! | --- | --- |
//! | `complete` | fetches the rest |
//! | `server` | plans, transfers and stores |
//! | `inbox` | requests that have come |
//! | `commit` | puts chunks into the store |
//! | `queue` | ranges and chunks under way, and the requests that wait for them |

mod commit;
mod complete;
mod inbox;
mod queue;
mod server;
#[cfg(test)]
mod tests;

use self::inbox::Inbox;
use self::server::Server;
use super::lazy::{Completion, LazyImage, LazyOptions};
use super::source::BlobSource;
use crate::error::{Error, FetchError, Result};
use crate::mount::ChunkRequests;
use crate::store::locks::ServeLock;
use crate::store::oci_layout::Store;
use crate::sys::progress::Progress;
use std::sync::Arc;
use std::thread;

/// The end of [`serve`].
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
    /// Claims a store for an image. Returns `None` if another process serves the same image.
    ///
    /// # Errors
    ///
    /// If another process serves another image of the store.
    pub fn take(store: &Store, image: &LazyImage) -> Result<Option<Self>> {
        match ServeLock::take(store.locked(), &image.manifest)? {
            Ok(lock) => Ok(Some(Claim { _lock: lock })),
            Err(Some(manifest)) if manifest == image.manifest => Ok(None),
            Err(_) => {
                let store = store.path().to_path_buf();
                Err(FetchError::Served { store }.into())
            }
        }
    }
}

/// Serves the requests for chunks of a prepared image until the store has all of them, or until a request to
/// stop. `warn` gets failures that do not end the service.
///
/// A thread that waits for requests stays behind. It ends with the process, or when `requests` has no more.
///
/// # Errors
///
/// If requests cannot be taken, the image is not whole although all of its packs are there, or, unless the
/// rest is never to be fetched, after a request to stop.
pub fn serve(
    source: &dyn BlobSource,
    image: &LazyImage,
    to: &Store,
    requests: Arc<dyn ChunkRequests>,
    options: LazyOptions,
    progress: &Progress,
    warn: &(dyn Fn(&Error) + Sync),
) -> Result<Served> {
    let inbox = Arc::new(Inbox::default());
    let server = Server::new(source, image, to, &*requests, &inbox, progress, warn)?;
    let taker = (inbox.clone(), requests.clone());
    thread::spawn(move || taker.0.take_all(&*taker.1));
    let ended = thread::scope(|scope| {
        scope.spawn(|| server.plan_all());
        scope.spawn(|| server.store_all());
        for _ in 0..options.jobs.max(1) {
            scope.spawn(|| server.transfer_all());
        }
        if options.completion != Completion::Never {
            scope.spawn(|| complete::run(&server, options));
        }
        server.wait()
    });
    match ended {
        Err(Error::Interrupted) if options.completion == Completion::Never => Ok(Served::Stopped),
        Err(error) => Err(error),
        Ok(()) => Ok(Served::Complete),
    }
}
