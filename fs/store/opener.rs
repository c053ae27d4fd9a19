// SPDX-License-Identifier: GPL-2.0

//! Opens files of a store for readers that must not wait for the locks that this takes.
//!
//! Opening a file takes the lock of its directory, and waits for the end of a lease if a process
//! has one. A reader may keep the holder of either waiting: it has `mmap_lock` during a page fault,
//! and the directory's lock itself if it lists the directory into memory mapped from a file of
//! ours. Therefore a work queue opens the file. The reader waits for it without folio locks, for a
//! limited time and until it is killed: see [`crate::vfs::ReadFolios::prepare`].
//!
//! # Locking
//!
//! `requests` protects the list of requests. The work queue takes locks of directories without it.
//! A request is dropped without it, because that may drop an open file.

use crate::{
    base::limits::{MAX_OPENING, OPEN_TIMEOUT},
    vfs::{prelude::*, Job, Run, WaitQueue, WorkQueue},
};
use kernel::{
    new_mutex, static_lock_class,
    sync::{
        lock::{mutex::MutexBackend, Guard},
        Arc, Mutex, SetOnce,
    },
    time::{msecs_to_jiffies, Jiffies},
};

/// A kind of things that a work queue opens.
pub(super) trait Open: Send + Sync + 'static {
    /// The name of a thing.
    type Name: Copy + PartialEq + Send + Sync;
    /// An open thing, which all waiters share.
    type Opened: Clone + Send + Sync;

    /// Opens a thing, in a worker that holds no locks and may sleep.
    fn open(&self, name: &Self::Name) -> Result<Self::Opened>;
}

/// A thing that the work queue opens.
struct OpenRequest<O: Open> {
    name: O::Name,
    shared: Arc<OpenerState<O>>,
    result: SetOnce<Result<O::Opened>>,
}

type OpenRequests<O> = KVec<Arc<Job<OpenRequest<O>>>>;

/// The state that readers and the work queue share.
#[pin_data]
struct OpenerState<O: Open> {
    kind: Arc<O>,
    /// The things that are being opened. Never grows beyond its capacity, [`MAX_OPENING`].
    #[pin]
    requests: Mutex<OpenRequests<O>>,
    /// Wakes all waiters when a request is done.
    #[pin]
    done: WaitQueue,
}

impl<O: Open> Run for OpenRequest<O> {
    fn run(&self) {
        let opened = self.shared.kind.open(&self.name);
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

/// The things of one kind that are being opened for readers.
pub(super) struct Opener<O: Open> {
    /// Dropped first: work that is left refers to the rest.
    queue: WorkQueue,
    shared: Arc<OpenerState<O>>,
}

impl<O: Open> Opener<O> {
    pub(super) fn new(kind: Arc<O>) -> Result<Self> {
        let requests = KVec::with_capacity(MAX_OPENING, GFP_KERNEL)?;
        Ok(Self {
            queue: WorkQueue::new(c"puzzlefs-open")?,
            shared: Arc::pin_init(
                pin_init!(OpenerState {
                    kind,
                    requests <- new_mutex!(requests, "puzzlefs_opener"),
                    done <- WaitQueue::new(c"puzzlefs_opener", static_lock_class!()),
                }),
                GFP_KERNEL,
            )?,
        })
    }

    /// Waits until the work queue has opened a thing.
    ///
    /// # Errors
    ///
    /// [`EINTR`] if the task is being killed, [`EDEADLK`] after [`OPEN_TIMEOUT`], and those of
    /// [`Open::open`].
    pub(super) fn open(&self, name: &O::Name) -> Result<O::Opened> {
        let mut left = msecs_to_jiffies(OPEN_TIMEOUT);
        let mut requests = self.shared.requests.lock();
        let request = loop {
            let found = requests.iter().find(|request| request.name == *name);
            if let Some(request) = found {
                break request.clone();
            }
            if requests.len() < MAX_OPENING {
                break self.request(&mut requests, name)?;
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
        requests: &mut OpenRequests<O>,
        name: &O::Name,
    ) -> Result<Arc<Job<OpenRequest<O>>>> {
        let request = Job::new(OpenRequest {
            name: *name,
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
        requests: Guard<'a, OpenRequests<O>, MutexBackend>,
        left: &mut Jiffies,
    ) -> Result<Guard<'a, OpenRequests<O>, MutexBackend>> {
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
