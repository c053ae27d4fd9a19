// SPDX-License-Identifier: GPL-2.0

//! The device `/dev/puzzlefs`, by which a fetcher serves the readers of a store.
//!
//! 1. The first write has the path of the store. It attaches the fetcher.
//! 2. A read gives requests for chunks, of [`REQUEST_LEN`] bytes each, and waits for the first one.
//! 3. The fetcher puts the chunk into the store: as `blobs/sha256/DIGEST`, or in a pack that the
//!    chunk index lists.
//! 4. A write of answers, of [`ANSWER_LEN`] bytes each, ends the requests.
//!
//! All numbers are little-endian.
//!
//! | request | answer |
//! | --- | --- |
//! | number, 8 bytes | number of the request, 8 bytes |
//! | digest, 32 bytes | 0 or an error number, 4 bytes |
//! | stored length, 4 bytes, 0 if it is unknown | 0, 4 bytes |
//! | flags, 4 bytes: 1 if a reader waits | |
//!
//! Only a task with `CAP_SYS_ADMIN` can open the device. What a fetcher brings is verified as any
//! data of a store.

use super::stores::Stores;
use crate::{
    base::registry::InUse,
    store::fetches::{FetchQueue, FetchRequest},
    vfs::prelude::*,
};
use kernel::{
    error::to_result,
    ffi::c_int,
    str::CStr,
    sync::{Arc, SetOnce},
};

/// The length of a request, in bytes.
const REQUEST_LEN: usize = 48;

/// The length of an answer, in bytes.
const ANSWER_LEN: usize = 16;

/// The largest error number.
const MAX_ERRNO: c_int = 4095;

/// The flag of requests that a reader waits for.
const AWAITED: u32 = 1;

/// An open file of the device.
pub(crate) struct Fetcher {
    stores: Arc<Stores>,
    attached: SetOnce<Attached>,
}

/// The requests of a store, and the number of a fetcher that is attached to them.
struct Attached {
    queue: InUse<FetchQueue>,
    number: u64,
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.queue.detach(self.number);
    }
}

impl Fetcher {
    /// Makes a fetcher, which its first write attaches to a store.
    pub(super) fn new(stores: Arc<Stores>) -> Self {
        Self {
            stores,
            attached: SetOnce::new(),
        }
    }

    /// Takes requests.
    ///
    /// # Errors
    ///
    /// [`ENOTCONN`] before a store was written; [`EINVAL`] if there is no room for one request;
    /// [`EAGAIN`] and [`ERESTARTSYS`] as [`FetchQueue::take`].
    pub(super) fn read(&self, bytes: &mut [u8], wait: bool) -> Result<usize> {
        let attached = self.attached.as_ref().ok_or(ENOTCONN)?;
        if bytes.len() < REQUEST_LEN {
            return Err(EINVAL);
        }
        let mut records = bytes.chunks_exact_mut(REQUEST_LEN);
        let mut len = 0;
        attached.queue.take(attached.number, wait, |request| {
            let Some(record) = records.next() else {
                return false;
            };
            write_request(record, request);
            len += REQUEST_LEN;
            true
        })?;
        Ok(len)
    }

    /// Attaches the fetcher to the store at a path, or takes answers.
    ///
    /// # Errors
    ///
    /// Those of opening the directories of the store; [`EINVAL`] if the path has a null byte, or
    /// the bytes are not a number of answers.
    pub(super) fn write(&self, bytes: &[u8]) -> Result<usize> {
        match self.attached.as_ref() {
            Some(attached) => attached.answer(bytes)?,
            None => self.attach(bytes)?,
        }
        Ok(bytes.len())
    }

    fn attach(&self, path: &[u8]) -> Result {
        let mut terminated = KVec::with_capacity(path.len() + 1, GFP_KERNEL)?;
        terminated.extend_from_slice(path, GFP_KERNEL)?;
        terminated.push(0, GFP_KERNEL)?;
        let path = CStr::from_bytes_with_nul(&terminated).map_err(|_| EINVAL)?;
        let queue = self.stores.fetches(path)?;
        let number = queue.attach();
        // If another task has written a path at once, this one is dropped.
        if self.attached.populate(Attached { queue, number }) {
            Ok(())
        } else {
            Err(EBUSY)
        }
    }
}

impl Attached {
    fn answer(&self, bytes: &[u8]) -> Result {
        if bytes.len() % ANSWER_LEN != 0 {
            return Err(EINVAL);
        }
        for answer in bytes.chunks_exact(ANSWER_LEN) {
            let (id, rest) = answer.split_first_chunk().ok_or(EINVAL)?;
            let (errno, _) = rest.split_first_chunk().ok_or(EINVAL)?;
            let errno = c_int::from_le_bytes(*errno);
            if !(0..=MAX_ERRNO).contains(&errno) {
                return Err(EINVAL);
            }
            self.queue
                .answer(u64::from_le_bytes(*id), to_result(-errno));
        }
        Ok(())
    }
}

/// Writes a request into memory of its length.
fn write_request(record: &mut [u8], request: &FetchRequest<'_>) {
    let flags = if request.is_awaited { AWAITED } else { 0 };
    let fields: [&[u8]; 4] = [
        &request.id.to_le_bytes(),
        request.chunk.digest.as_bytes(),
        &request.chunk.stored_len.to_le_bytes(),
        &flags.to_le_bytes(),
    ];
    let mut place = record.iter_mut();
    for (byte, to) in fields.into_iter().flatten().zip(&mut place) {
        *to = *byte;
    }
}
