// SPDX-License-Identifier: GPL-2.0

//! Requests for chunks that a store lacks.
//!
//! A fetcher is a privileged process that brings missing chunks into a store. It takes requests by
//! [`FetchQueue::take`], puts the chunks into the store, and then answers by
//! [`FetchQueue::answer`]. Readers that wait for a chunk look it up again and verify it: a fetcher
//! can withhold and delay data, but its data is not trusted.
//!
//! A chunk is requested once, however many readers wait for it. If a fetcher goes away, another one
//! takes its requests. Each reader waits until its own deadline, and until it is killed. The
//! requests refer to no inode and no mount: an unmount does not wait for them.
//!
//! # Locking
//!
//! `state` protects the list of requests and the result of each. It is held for a walk through the
//! list. Nothing is allocated or dropped under it.

use crate::{
    base::{fault::Fault, limits::MAX_FETCHES},
    vfs::{lower::Directory, prelude::*, WaitQueue},
};
use kernel::{
    new_condvar, new_mutex, static_lock_class,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc, CondVar, Mutex, SetOnce,
    },
    time::{msecs_to_jiffies, Jiffies, Msecs},
};
use puzzlefs_schema::Digest;

/// The largest number of searches for a chunk before it is requested.
const MAX_SEARCHES: usize = 8;

/// A chunk that a store lacks.
#[derive(Clone, Copy)]
pub(crate) struct MissingChunk<'a> {
    pub(crate) digest: &'a Digest,
    /// The number of stored bytes; 0 if it is unknown.
    pub(crate) stored_len: u32,
}

/// A request as a fetcher gets it.
pub(crate) struct FetchRequest<'a> {
    /// The number that the answer has.
    pub(crate) id: u64,
    pub(crate) chunk: MissingChunk<'a>,
    /// True if a reader waits for the chunk.
    pub(crate) is_awaited: bool,
}

/// A request without an answer.
#[pin_data]
struct Fetch {
    id: u64,
    digest: Digest,
    stored_len: u32,
    /// Set under the lock of the list.
    result: SetOnce<Result>,
    #[pin]
    ended: WaitQueue,
}

/// An element of the list of requests.
struct Listed {
    fetch: Arc<Fetch>,
    /// The fetcher that has taken the request.
    taken_by: Option<u64>,
    /// The number of readers that wait.
    waiters: usize,
}

/// The requests, in the order in which they were made.
///
/// # Invariants
///
/// `requests` has capacity for [`MAX_FETCHES`] elements, and never has more.
struct State {
    requests: KVec<Listed>,
    /// The number of attached fetchers.
    fetchers: usize,
    /// The number of chunks that fetchers have brought.
    brought: u64,
}

impl State {
    fn find(&mut self, digest: &Digest) -> Option<&mut Listed> {
        let mut requests = self.requests.iter_mut();
        requests.find(|listed| listed.fetch.digest == *digest)
    }

    /// Adds a request. Returns false if there is no room.
    fn add(&mut self, fetch: &Arc<Fetch>, waiters: usize) -> bool {
        // INVARIANT: The list does not grow beyond its limit, nor beyond its capacity.
        let is_full = self.requests.len() >= MAX_FETCHES;
        let listed = Listed {
            fetch: fetch.clone(),
            taken_by: None,
            waiters,
        };
        !is_full && self.requests.push_within_capacity(listed).is_ok()
    }

    /// Removes the first request that fulfils a condition.
    fn remove(&mut self, is_wanted: impl Fn(&Listed) -> bool) -> Option<Listed> {
        let index = self.requests.iter().position(is_wanted)?;
        // INVARIANT: Removal keeps the capacity.
        self.requests.remove(index).ok()
    }

    /// Returns the next request to take: those come first that a reader waits for.
    fn next(&mut self) -> Option<&mut Listed> {
        let is_free = |listed: &Listed| listed.taken_by.is_none();
        let mut requests = self.requests.iter();
        let awaited = requests.position(|listed| is_free(listed) && listed.waiters > 0);
        let index = awaited.or_else(|| self.requests.iter().position(is_free))?;
        self.requests.get_mut(index)
    }
}

/// The requests for the chunks of a store.
#[pin_data]
pub(crate) struct FetchQueue {
    /// The directory of the store's blobs.
    directory: Arc<Directory>,
    #[pin]
    state: Mutex<State>,
    next_id: Atomic<u64>,
    next_fetcher: Atomic<u64>,
    /// Wakes fetchers when there is a request that none has taken.
    added: Pin<KBox<CondVar>>,
    /// Wakes readers that wait for room in the list.
    #[pin]
    removed: WaitQueue,
}

impl FetchQueue {
    /// Makes the empty queue of the store whose blobs are in a directory.
    pub(crate) fn new(directory: Arc<Directory>) -> Result<Arc<Self>> {
        let state = State {
            requests: KVec::with_capacity(MAX_FETCHES, GFP_KERNEL)?,
            fetchers: 0,
            brought: 0,
        };
        let added = KBox::pin_init(new_condvar!("puzzlefs_fetches"), GFP_KERNEL)?;
        Arc::pin_init(
            pin_init!(Self {
                directory,
                state <- new_mutex!(state, "puzzlefs_fetches"),
                next_id: Atomic::new(1),
                next_fetcher: Atomic::new(1),
                added,
                removed <- WaitQueue::new(c"puzzlefs_fetches", static_lock_class!()),
            }),
            GFP_KERNEL,
        )
    }

    /// Returns true if this is the queue of the store whose blobs are in a directory.
    pub(crate) fn is_of(&self, directory: &Directory) -> bool {
        self.directory.has_inode_of(directory)
    }

    /// Makes a request that is not listed yet.
    fn fetch(&self, chunk: &MissingChunk<'_>) -> Result<Arc<Fetch>> {
        Arc::pin_init(
            pin_init!(Fetch {
                id: self.next_id.fetch_add(1, Relaxed),
                digest: *chunk.digest,
                stored_len: chunk.stored_len,
                result: SetOnce::new(),
                ended <- WaitQueue::new(c"puzzlefs_fetch", static_lock_class!()),
            }),
            GFP_KERNEL,
        )
    }

    /// Returns the number of chunks that fetchers have brought. A search for a chunk has seen those
    /// that were brought before it.
    pub(super) fn brought(&self) -> u64 {
        self.state.lock().brought
    }

    /// Requests a chunk, and does not wait for it. `seen` is [`Self::brought`] before the search
    /// that has not found it.
    ///
    /// Does nothing if it may have been brought since, no fetcher is attached, or the list is full:
    /// the reader that needs the chunk requests it again.
    pub(super) fn request(&self, chunk: &MissingChunk<'_>, seen: u64) {
        let is_new = |state: &mut State| {
            state.fetchers > 0 && state.brought == seen && state.find(chunk.digest).is_none()
        };
        if !is_new(&mut self.state.lock()) {
            return;
        }
        let Ok(fetch) = self.fetch(chunk) else {
            return;
        };
        let mut state = self.state.lock();
        if is_new(&mut state) && state.add(&fetch, 0) {
            self.added.notify_one();
        }
    }

    /// Waits until a chunk has been brought, which `is_there` searches.
    ///
    /// # Errors
    ///
    /// Those of the search; [`Fault::NotFetched`] with the error of the fetcher, or with
    /// [`ETIMEDOUT`] if none has answered in time; [`EINTR`] if the task is being killed;
    /// [`ENOMEM`].
    pub(super) fn wait_for(
        &self,
        chunk: &MissingChunk<'_>,
        timeout: Msecs,
        is_there: impl Fn() -> Result<bool, Fault>,
    ) -> Result<(), Fault> {
        let mut left = msecs_to_jiffies(timeout);
        let ours = self.fetch(chunk)?;
        let mut searches = 0;
        let fetch = loop {
            let seen = self.brought();
            if is_there()? {
                return Ok(());
            }
            searches += 1;
            let mut state = self.state.lock();
            // It may have been brought since. The limit is for a fetcher that answers without end.
            if state.brought != seen && searches < MAX_SEARCHES {
                continue;
            }
            if let Some(listed) = state.find(chunk.digest) {
                listed.waiters += 1;
                break listed.fetch.clone();
            }
            if state.add(&ours, 1) {
                self.added.notify_one();
                break ours;
            }
            left = wait_for(&self.removed, left, || drop(state))?;
        };
        let result = loop {
            let state = self.state.lock();
            if let Some(result) = fetch.result.copy() {
                break result.map_err(Fault::NotFetched);
            }
            match wait_for(&fetch.ended, left, || drop(state)) {
                Ok(rest) => left = rest,
                Err(fault) => break Err(fault),
            }
        };
        self.leave(&fetch);
        result
    }

    /// Notes that a reader no longer waits for a request. It is removed if nobody is about to
    /// answer it.
    fn leave(&self, fetch: &Arc<Fetch>) {
        let _removed = {
            let mut state = self.state.lock();
            if let Some(listed) = state.find(&fetch.digest) {
                if Arc::ptr_eq(&listed.fetch, fetch) {
                    listed.waiters = listed.waiters.saturating_sub(1);
                }
            }
            state.remove(|listed| {
                let is_left = listed.waiters == 0 && listed.taken_by.is_none();
                is_left && Arc::ptr_eq(&listed.fetch, fetch)
            })
        };
        self.removed.wake_all();
    }

    /// Attaches a fetcher. Returns its number.
    pub(crate) fn attach(&self) -> u64 {
        self.state.lock().fetchers += 1;
        self.next_fetcher.fetch_add(1, Relaxed)
    }

    /// Detaches a fetcher. Others can take the requests that it has not answered.
    pub(crate) fn detach(&self, fetcher: u64) {
        {
            let mut state = self.state.lock();
            state.fetchers = state.fetchers.saturating_sub(1);
            for listed in state.requests.iter_mut() {
                if listed.taken_by == Some(fetcher) {
                    listed.taken_by = None;
                }
            }
        }
        self.added.notify_all();
        // Without a fetcher, nobody would remove what no reader waits for.
        while self.remove_unneeded() {
            self.removed.wake_all();
        }
    }

    /// Removes a request that no reader waits for, if no fetcher is attached. Returns false if
    /// there is none.
    fn remove_unneeded(&self) -> bool {
        let removed = {
            let mut state = self.state.lock();
            let has_fetcher = state.fetchers > 0;
            state.remove(|listed| !has_fetcher && listed.waiters == 0)
        };
        removed.is_some()
    }

    /// Gives a fetcher the next requests, of which there is at least one, until `give` returns
    /// false or there are no more. Requests for which `give` has returned true are then taken.
    ///
    /// # Errors
    ///
    /// [`EAGAIN`] if there is none and the caller does not wait; [`ERESTARTSYS`] if the task has
    /// got a signal.
    pub(crate) fn take(
        &self,
        fetcher: u64,
        wait: bool,
        mut give: impl FnMut(&FetchRequest<'_>) -> bool,
    ) -> Result {
        let mut state = self.state.lock();
        let mut count = 0;
        loop {
            while let Some(listed) = state.next() {
                let fetch = &listed.fetch;
                let request = FetchRequest {
                    id: fetch.id,
                    chunk: MissingChunk {
                        digest: &fetch.digest,
                        stored_len: fetch.stored_len,
                    },
                    is_awaited: listed.waiters > 0,
                };
                if !give(&request) {
                    return Ok(());
                }
                listed.taken_by = Some(fetcher);
                count += 1;
            }
            if count > 0 {
                return Ok(());
            }
            if !wait {
                return Err(EAGAIN);
            }
            if self.added.wait_interruptible_freezable(&mut state) {
                return Err(ERESTARTSYS);
            }
        }
    }

    /// Ends a request with the answer of a fetcher. Does nothing if there is no such request: its
    /// readers may have given up, or another fetcher was faster.
    pub(crate) fn answer(&self, id: u64, result: Result) {
        let ended = {
            let mut state = self.state.lock();
            let ended = state.remove(|listed| listed.fetch.id == id);
            if let Some(listed) = &ended {
                if result.is_ok() {
                    state.brought += 1;
                }
                listed.fetch.result.populate(result);
            }
            ended
        };
        if let Some(listed) = ended {
            listed.fetch.ended.wake_all();
            self.removed.wake_all();
        }
    }
}

/// Waits in a queue; returns the time that is left.
///
/// # Errors
///
/// [`Fault::NotFetched`] if there is none; [`EINTR`] if the task is being killed.
fn wait_for(queue: &WaitQueue, left: Jiffies, unlock: impl FnOnce()) -> Result<Jiffies, Fault> {
    if left == 0 {
        unlock();
        return Err(Fault::NotFetched(ETIMEDOUT));
    }
    Ok(queue.wait_freezable_for(left, unlock)?)
}
