// SPDX-License-Identifier: MIT OR Apache-2.0

//! The connection to an object store: requests, repeated attempts, deadlines.
//!
//! Callers are ordinary threads. Each request runs on a small runtime while its thread waits, so that a
//! request to stop and the deadline end any wait.

use super::error::{ObjectError, ObjectFault};
use super::failure::Failure;
use super::http::ACTIVITY;
use super::name::{Backend, ObjectImage};
use super::stores::{self, Stores};
use crate::client::{
    runtime, Backoff, Counters, RegistryOptions, Traffic, LONGEST_PAUSE, PATIENCE,
};
use crate::error::Message;
use crate::failure::Remedy;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::StreamExt;
use object_store::path::Path;
use object_store::{
    GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
    UpdateVersion,
};
use puzzlefs_lib::{Digest, Error, Progress, Result};
use std::future::Future;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::time::Instant;

/// The end of a request without a result.
pub(super) enum Stop {
    /// The request failed, in spite of repeated attempts.
    Fault(ObjectFault),
    /// The command ends with this error.
    Error(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Error(error)
    }
}

impl From<ObjectFault> for Stop {
    fn from(fault: ObjectFault) -> Self {
        Stop::Fault(fault)
    }
}

/// A connection to the object store of an image.
pub(crate) struct Connection<'p> {
    pub(super) image: ObjectImage,
    pub(super) options: RegistryOptions,
    pub(super) progress: &'p Progress,
    pub(super) counters: Arc<Counters>,
    pub(super) stores: Stores,
    action: &'static str,
    /// Taken when the connection is dropped.
    runtime: Option<Runtime>,
}

impl Drop for Connection<'_> {
    fn drop(&mut self) {
        // Do not wait for a blocked call, such as one for a file of a dead network filesystem.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl<'p> Connection<'p> {
    /// Prepares a connection. `action` is the verb for messages: "pull from".
    pub fn new(
        image: &ObjectImage,
        action: &'static str,
        options: &RegistryOptions,
        progress: &'p Progress,
    ) -> Result<Self> {
        // The provider can be installed once in a process.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let fail = |fault| ObjectError {
            action,
            address: image.address().to_owned(),
            object: String::new(),
            fault,
        };
        let settings = |cause: String| fail(ObjectFault::Settings(Message::new(cause)));
        let stores = match stores::open(image, options)? {
            Ok(stores) => stores,
            Err(fault) => return Err(fail(fault).into()),
        };
        Ok(Connection {
            image: image.clone(),
            options: options.clone(),
            progress,
            counters: Arc::default(),
            stores,
            action,
            runtime: Some(runtime().map_err(|cause| settings(cause.to_string()))?),
        })
    }

    /// The runtime.
    pub(super) fn runtime(&self) -> &Runtime {
        self.runtime
            .as_ref()
            .expect("a connection in use has a runtime")
    }

    /// The bytes and requests so far.
    pub fn traffic(&self) -> Traffic {
        self.counters.traffic()
    }

    /// Returns the key of an object of the layout.
    pub(super) fn key(&self, object: &str) -> Path {
        object
            .split('/')
            .fold(self.image.prefix().clone(), |path, part| path.join(part))
    }

    /// Makes an error of this layout. `object` is empty if it is about no object.
    pub(super) fn fail(&self, object: &str, fault: ObjectFault) -> Error {
        ObjectError {
            action: self.action,
            address: self.image.address().to_owned(),
            object: object.to_owned(),
            fault,
        }
        .into()
    }

    /// Makes an error of the end of a request.
    pub(super) fn stopped(&self, object: &str, stop: Stop) -> Error {
        match stop {
            Stop::Fault(fault) => self.fail(object, fault),
            Stop::Error(error) => error,
        }
    }

    /// Waits for a result, at most `timeout` without a sign of life.
    pub(super) fn wait<T>(
        &self,
        timeout: Duration,
        future: impl Future<Output = T>,
    ) -> Result<Result<T, Failure>> {
        self.runtime().block_on(async {
            let future = alive(timeout, future);
            tokio::pin!(future);
            loop {
                tokio::select! {
                    biased;
                    result = &mut future => return Ok(result),
                    () = tokio::time::sleep(PATIENCE) => self.progress.check()?,
                }
            }
        })
    }

    /// Makes a request, again and again if that can help.
    pub(super) fn request<T, F>(&self, make: impl Fn() -> F) -> Result<T, Stop>
    where
        F: Future<Output = object_store::Result<T>>,
    {
        let mut attempts = Attempts::new(self.options.retries);
        loop {
            match self.once(self.options.timeout, make())? {
                Ok(result) => return Ok(result),
                Err(failure) => self.prepare(&mut attempts, failure)?,
            }
        }
    }

    /// Makes a request once.
    pub(super) fn once<T>(
        &self,
        timeout: Duration,
        request: impl Future<Output = object_store::Result<T>>,
    ) -> Result<Result<T, Failure>> {
        self.counters.requests.fetch_add(1, Relaxed);
        let backend = self.image.backend();
        let result = self.wait(timeout, request)?;
        Ok(result.and_then(|result| result.map_err(|error| Failure::of(&error, backend))))
    }

    /// Waits before another attempt after a failure.
    ///
    /// # Errors
    ///
    /// The failure, if another attempt would not help, or there were too many.
    pub(super) fn prepare(&self, attempts: &mut Attempts, failure: Failure) -> Result<(), Stop> {
        let pause = attempts.after(failure)?;
        Ok(self.pause(pause)?)
    }

    /// Waits.
    pub(super) fn pause(&self, time: Duration) -> Result<()> {
        // The limit of the wait is longer than any pause.
        let _ = self.wait(2 * LONGEST_PAUSE, async move {
            tokio::time::sleep(time).await;
        })?;
        Ok(())
    }

    /// Returns the size of an object.
    pub(super) fn size(&self, object: &str) -> Result<Option<u64>, Stop> {
        let key = self.key(object);
        match self.request(|| self.stores.objects.head(&key)) {
            Ok(meta) => Ok(Some(meta.size)),
            Err(Stop::Fault(ObjectFault::NotFound)) => Ok(None),
            Err(stop) => Err(stop),
        }
    }

    /// Reads an object of at most `max` bytes, if it exists.
    pub(super) fn read_small(&self, object: &str, max: u64) -> Result<Option<Small>, Stop> {
        let mut attempts = Attempts::new(self.options.retries);
        loop {
            match self.read_small_once(object, max)? {
                Ok(small) => return Ok(Some(small)),
                Err(failure) if matches!(failure.fault, ObjectFault::NotFound) => return Ok(None),
                Err(failure) => self.prepare(&mut attempts, failure)?,
            }
        }
    }

    fn read_small_once(&self, object: &str, max: u64) -> Result<Result<Small, Failure>> {
        let mut reading = match self.open(object, None)? {
            Ok(reading) => reading,
            Err(failure) => return Ok(Err(failure)),
        };
        let too_large = || Failure::new(Remedy::Stop, ObjectFault::TooLarge { max });
        if reading.meta.size > max {
            return Ok(Err(too_large()));
        }
        let mut bytes = Vec::new();
        loop {
            match self.next(&mut reading)? {
                Ok(Some(piece)) if (bytes.len() + piece.len()) as u64 > max => {
                    return Ok(Err(too_large()));
                }
                Ok(Some(piece)) => bytes.extend_from_slice(&piece),
                Ok(None) => break,
                Err(failure) => return Ok(Err(failure)),
            }
        }
        if bytes.len() as u64 != reading.meta.size {
            return Ok(Err(Failure::connection("it ended early")));
        }
        let version = UpdateVersion {
            e_tag: reading.meta.e_tag,
            version: reading.meta.version,
        };
        Ok(Ok(Small { bytes, version }))
    }

    /// Requests an object, or a range of it.
    pub(super) fn open(
        &self,
        object: &str,
        range: Option<Range<u64>>,
    ) -> Result<Result<Reading, Failure>> {
        let key = self.key(object);
        let options = GetOptions {
            range: range.map(GetRange::Bounded),
            ..GetOptions::default()
        };
        let got = self.once(
            self.options.timeout,
            self.stores.objects.get_opts(&key, options),
        )?;
        Ok(got.map(|got| Reading {
            meta: got.meta.clone(),
            stream: got.into_stream(),
        }))
    }

    /// Returns the next bytes of an answer.
    pub(super) fn next(&self, reading: &mut Reading) -> Result<Result<Option<Bytes>, Failure>> {
        let backend = self.image.backend();
        Ok(
            match self.wait(self.options.timeout, reading.stream.next())? {
                Ok(Some(Ok(piece))) => {
                    self.counters
                        .received
                        .fetch_add(piece.len() as u64, Relaxed);
                    Ok(Some(piece))
                }
                Ok(Some(Err(error))) => Err(Failure::of(&error, backend)),
                Ok(None) => Ok(None),
                Err(failure) => Err(failure),
            },
        )
    }

    /// Writes an object as a whole.
    pub(super) fn put(&self, object: &str, bytes: &PutPayload, mode: &PutMode) -> Result<(), Stop> {
        let key = self.key(object);
        self.request(|| {
            let options = PutOptions::from(mode.clone());
            self.stores.objects.put_opts(&key, bytes.clone(), options)
        })?;
        let sent = bytes.content_length() as u64;
        self.counters.sent.fetch_add(sent, Relaxed);
        Ok(())
    }
}

/// An object that was read as a whole.
pub(super) struct Small {
    pub bytes: Vec<u8>,
    /// The version, for a conditional replacement.
    pub version: UpdateVersion,
}

/// An answer that is being read.
pub(super) struct Reading {
    pub meta: ObjectMeta,
    stream: BoxStream<'static, object_store::Result<Bytes>>,
}

/// Returns the name of a blob in a layout.
pub(super) fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.to_hex())
}

/// Waits for a result, at most `timeout` without a sign of life of its requests.
pub(super) async fn alive<T>(
    timeout: Duration,
    future: impl Future<Output = T>,
) -> Result<T, Failure> {
    let activity = Arc::new(AtomicU64::new(0));
    let future = ACTIVITY.scope(Arc::clone(&activity), future);
    tokio::pin!(future);
    let (mut seen, mut since) = (0, Instant::now());
    loop {
        tokio::select! {
            biased;
            result = &mut future => return Ok(result),
            () = tokio::time::sleep_until(since + timeout) => {
                let now = activity.load(Relaxed);
                if now == seen {
                    let seconds = timeout.as_secs();
                    return Err(Failure::new(Remedy::Retry, ObjectFault::Stalled { seconds }));
                }
                (seen, since) = (now, Instant::now());
            }
        }
    }
}

/// The attempts of one request.
pub(super) struct Attempts(Backoff);

impl Attempts {
    /// No attempt yet, and so many repeated ones at most.
    pub fn new(retries: u32) -> Self {
        Attempts(Backoff::new(retries))
    }

    /// Returns the pause before another attempt after a failure.
    ///
    /// # Errors
    ///
    /// The failure, if another attempt would not help, or there were too many.
    pub fn after(&mut self, failure: Failure) -> Result<Duration, ObjectFault> {
        if failure.remedy != Remedy::Retry {
            return Err(failure.fault);
        }
        self.0.next_pause().ok_or(failure.fault)
    }
}

impl Backend {
    /// Returns true if the store can be written.
    pub(super) fn is_writable(self) -> bool {
        self != Backend::Http
    }
}
