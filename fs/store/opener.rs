// SPDX-License-Identifier: GPL-2.0

//! Opens blobs for readers that must not wait for the locks that this takes.
//!
//! Opening a blob takes the lock of the directory of blobs, and waits for the end of a lease if a
//! process has one. A reader may keep the holder of either waiting: it has `mmap_lock` during a
//! page fault, and the directory's lock itself if it lists the directory into memory mapped from a
//! file of ours. Therefore a work queue opens the blob. The reader waits for it without folio
//! locks, for a limited time and until it is killed: see [`crate::vfs::ReadFolios::prepare`].
//!
//! # Locking
//!
//! `requests` protects the list of requests. The work queue takes the lock of the directory of
//! blobs without it. A request is dropped without it, because that may drop a blob.

use super::{blob::Blob, open_blobs::OpenBlobs};
use crate::{
    base::limits::{MAX_OPENING, OPEN_TIMEOUT},
    vfs::{lower::Directory, prelude::*, Job, Run, WaitQueue, WorkQueue},
};
use kernel::{
    new_mutex, static_lock_class,
    sync::{
        lock::{mutex::MutexBackend, Guard},
        Arc, Mutex, SetOnce,
    },
    time::{msecs_to_jiffies, Jiffies},
};
use puzzlefs_schema::Digest;

/// A blob that the work queue opens.
struct OpenRequest {
    digest: Digest,
    shared: Arc<OpenerState>,
    result: SetOnce<Result<Arc<Blob>>>,
}

type OpenRequests = KVec<Arc<Job<OpenRequest>>>;

/// The state that readers and the work queue share.
#[pin_data]
struct OpenerState {
    directory: Arc<Directory>,
    open: Arc<OpenBlobs>,
    /// The blobs that are being opened. Never grows beyond its capacity, [`MAX_OPENING`].
    #[pin]
    requests: Mutex<OpenRequests>,
    /// Wakes all waiters when a request is done.
    #[pin]
    done: WaitQueue,
}

impl Run for OpenRequest {
    fn run(&self) {
        let directory = &self.shared.directory;
        let opened = directory
            .open_file(&self.digest.to_hex(), true)
            .and_then(|file| Ok(Arc::new(Blob::new(file), GFP_KERNEL)?));
        if let Ok(blob) = &opened {
            self.shared.open.insert(&self.digest, blob);
        }
        // Before the request is taken from the list: a waiter that found it there needs the result.
        self.result.populate(opened);
        let removed = {
            let mut requests = self.shared.requests.lock();
            let mut all = requests.iter();
            let position = all.position(|request| core::ptr::eq(&***request, self));
            position.and_then(|index| requests.remove(index).ok())
        };
        drop(removed);
        self.shared.done.wake_all();
    }
}

/// The blobs of a store that are being opened for readers.
pub(crate) struct Opener {
    /// Dropped first: work that is left refers to the rest.
    queue: WorkQueue,
    shared: Arc<OpenerState>,
}

impl Opener {
    pub(crate) fn new(directory: Arc<Directory>, open: Arc<OpenBlobs>) -> Result<Self> {
        let requests = KVec::with_capacity(MAX_OPENING, GFP_KERNEL)?;
        Ok(Self {
            queue: WorkQueue::new(c"puzzlefs-open")?,
            shared: Arc::pin_init(
                pin_init!(OpenerState {
                    directory,
                    open,
                    requests <- new_mutex!(requests, "puzzlefs_opener"),
                    done <- WaitQueue::new(c"puzzlefs_opener", static_lock_class!()),
                }),
                GFP_KERNEL,
            )?,
        })
    }

    /// Waits until the work queue has opened a blob.
    ///
    /// # Errors
    ///
    /// [`EINTR`] if the task is being killed, [`EDEADLK`] after [`OPEN_TIMEOUT`], and those of
    /// opening a file.
    pub(crate) fn open(&self, digest: &Digest) -> Result<Arc<Blob>> {
        let mut left = msecs_to_jiffies(OPEN_TIMEOUT);
        let mut requests = self.shared.requests.lock();
        let request = loop {
            let found = requests.iter().find(|request| request.digest == *digest);
            if let Some(request) = found {
                break request.clone();
            }
            if requests.len() < MAX_OPENING {
                break self.request(&mut requests, digest)?;
            }
            requests = self.wait(requests, &mut left)?;
        };
        loop {
            if let Some(result) = request.result.as_ref() {
                return result.clone();
            }
            requests = self.wait(requests, &mut left)?;
        }
    }

    /// Adds a request and enqueues it.
    fn request(
        &self,
        requests: &mut OpenRequests,
        digest: &Digest,
    ) -> Result<Arc<Job<OpenRequest>>> {
        let request = Job::new(OpenRequest {
            digest: *digest,
            shared: self.shared.clone(),
            result: SetOnce::new(),
        })?;
        let added = requests.push_within_capacity(request.clone());
        added.map_err(|_| ENOMEM)?;
        self.queue.run(request.clone());
        Ok(request)
    }

    /// Waits until any request is done; `left` is the rest of the time.
    fn wait<'a>(
        &'a self,
        requests: Guard<'a, OpenRequests, MutexBackend>,
        left: &mut Jiffies,
    ) -> Result<Guard<'a, OpenRequests, MutexBackend>> {
        if *left == 0 {
            return Err(EDEADLK);
        }
        *left = self
            .shared
            .done
            .wait_killable_for(*left, || drop(requests))?;
        Ok(self.shared.requests.lock())
    }
}
