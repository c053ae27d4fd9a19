// SPDX-License-Identifier: MIT OR Apache-2.0

//! The process that serves a store: the image that it was started for, those that other processes hand over
//! by its socket, and those that the store has records of.
//!
//! The process ends when nothing is left to do. It holds the lock `.puzzlefs/fetcher.lock` until then, and
//! removes its socket first. A process that hands an image over at this moment gets no answer, and then takes
//! the lock itself.

use super::messages::{Messages, Ready};
use crate::arguments::registry::recorded_options;
use puzzlefs_lib::error::{exit_status, FetchError, MountError, Program};
use puzzlefs_lib::fetch::{
    Claim, Completion, Conversation, Expected, FetchRecord, FetcherReply, FetcherRequest,
    FetcherSocket, FetcherStatus, LastError, RetryPauses, Served, Service, SIGN_OF_LIFE,
};
use puzzlefs_lib::mount::FetchDevice;
use puzzlefs_lib::threads::lock;
use puzzlefs_lib::{Digest, Error, ImageRef, Progress, Result, Store};
use puzzlefs_registry::{fetch, FetchingOptions, RegistryOptions, RemoteName};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{channel, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

/// The most images that are served at once.
const IMAGES_MAX: usize = 256;
/// The most conversations at once.
const CONVERSATIONS_MAX: usize = 32;
/// The interval at which a waiting thread looks for a request to stop.
const PATIENCE: Duration = Duration::from_millis(100);
/// The longest wait for a fetcher that holds the lock and has no socket.
const UNREACHABLE: Duration = Duration::from_secs(10);

/// An image that a command line asks for.
#[derive(Debug)]
pub struct Asked {
    pub record: FetchRecord,
    /// The connection, with credentials of the command line.
    pub connection: RegistryOptions,
    pub has_creds: bool,
}

/// The end of the work of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All images are complete, or were stopped as their options say.
    Done,
    /// Another process serves the image.
    HandedOver,
}

/// Serves images of a store, or hands the image over to the process that does.
pub fn run(
    store: &Store,
    device: Arc<FetchDevice>,
    asked: Option<Asked>,
    messages: &Messages,
    progress: &Progress,
) -> Result<Outcome> {
    let start = Instant::now();
    loop {
        if let Some(claim) = Claim::take(store)? {
            return lead(store, &claim, device, asked, messages, progress);
        }
        match &asked {
            None => return Ok(Outcome::HandedOver),
            Some(asked) => {
                if hand_over(store, asked, messages, progress)? {
                    return Ok(Outcome::HandedOver);
                }
            }
        }
        // The other process has no socket yet, or none any more.
        if start.elapsed() > UNREACHABLE {
            let store = store.path().to_path_buf();
            return Err(FetchError::Unreachable { store }.into());
        }
        progress.check()?;
        thread::sleep(PATIENCE / 4);
    }
}

/// Hands an image over to the process that serves the store. Returns false if it has ended.
fn hand_over(
    store: &Store,
    asked: &Asked,
    messages: &Messages,
    progress: &Progress,
) -> Result<bool> {
    let Some(mut conversation) = Conversation::connect(store)? else {
        return Ok(false);
    };
    if asked.has_creds {
        let store = store.path().display();
        return Err(Error::Usage(format!(
            "cannot hand the image over to the fetcher of {store}: it does not get --creds; log in by \
             'podman login', or stop that process"
        )));
    }
    let request = FetcherRequest::Add(Box::new(asked.record.clone()));
    if conversation.send(&request).is_err() {
        return Ok(false);
    }
    let ready = match conversation.receive(progress)? {
        None => return Ok(false),
        Some(FetcherReply::Serves {
            manifest,
            process,
            is_new,
        }) => Digest::from_oci(&manifest).map(|manifest| Ready::Serves {
            manifest,
            process,
            is_new,
        }),
        Some(FetcherReply::Complete { manifest }) => {
            Digest::from_oci(&manifest).map(|manifest| Ready::Complete { manifest })
        }
        Some(FetcherReply::Failed { message }) => {
            let store = store.path().to_path_buf();
            return Err(FetchError::Refused { store, message }.into());
        }
        Some(_) => None,
    };
    let ready =
        ready.ok_or_else(|| Error::Usage("the fetcher sent an unknown answer".to_owned()))?;
    messages.ready(&ready)?;
    Ok(true)
}

/// Stops the service of an image that cannot be mounted. A process that has ended serves nothing.
pub fn forget(store: &Store, tag: &str, manifest: &Digest, progress: &Progress) -> Result<()> {
    let Some(mut conversation) = Conversation::connect(store)? else {
        return Ok(());
    };
    conversation.send(&FetcherRequest::Forget {
        tag: tag.to_owned(),
        manifest: manifest.to_oci(),
    })?;
    conversation.receive::<FetcherReply>(progress).map(|_| ())
}

/// Serves images until nothing is left to do.
fn lead(
    store: &Store,
    claim: &Claim,
    device: Arc<FetchDevice>,
    asked: Option<Asked>,
    messages: &Messages,
    progress: &Progress,
) -> Result<Outcome> {
    let (records, errors) = FetchRecord::read_all(store)?;
    for error in &errors {
        messages.warn(error);
    }
    if asked.is_none() && records.is_empty() {
        let text = format!("nothing is left to fetch in {}", messages.store);
        let reported = messages.report(&text);
        reported.map_err(|error| Error::Usage(format!("{error:#}")))?;
        return Ok(Outcome::Done);
    }
    device.attach(store)?;
    let warn = |error: &Error| messages.warn(error);
    let service = Service::new(store, device, &warn)?;
    let process = Process {
        store,
        service: &service,
        messages,
        state: Mutex::default(),
        stop: Arc::default(),
    };
    let socket = FetcherSocket::bind(store, claim)?;
    // Readers that have waited for this process request chunks at once.
    let starting = service.expect();
    let ended = service.run(|| {
        thread::scope(|scope| {
            process.start(scope, asked, records);
            drop(starting);
            let served = process.serve(scope, &socket, progress);
            process.stop();
            served
        })
    });
    // No process connects any more.
    drop(socket);
    ended??;
    let failure = lock(&process.state).failure.take();
    failure.map_or(Ok(Outcome::Done), Err)
}

/// The process that serves a store.
struct Process<'p, 's> {
    store: &'p Store,
    service: &'p Service<'s>,
    messages: &'p Messages,
    state: Mutex<State>,
    /// Set when all images end.
    stop: Arc<AtomicBool>,
}

#[derive(Default)]
struct State {
    running: BTreeMap<u64, Running>,
    last_number: u64,
    conversations: usize,
    /// The first failure that the exit status reports.
    failure: Option<Error>,
}

/// An image that is being prepared or served.
struct Running {
    tag: String,
    /// The digest of the manifest, if it is served.
    manifest: Option<Digest>,
    stop: Arc<AtomicBool>,
}

/// An entry of [`State::running`]. Dropping it removes the entry.
struct Entry<'e> {
    state: &'e Mutex<State>,
    number: u64,
    stop: Arc<AtomicBool>,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        lock(self.state).running.remove(&self.number);
    }
}

impl Entry<'_> {
    /// Notes that the image is served. Returns false if another entry serves it under the same tag.
    fn claim(&self, manifest: &Digest) -> bool {
        let mut state = lock(self.state);
        let Some(tag) = state.running.get(&self.number).map(|own| own.tag.clone()) else {
            return false;
        };
        let mut others = state.running.values();
        if others.any(|other| other.tag == tag && other.manifest.as_ref() == Some(manifest)) {
            return false;
        }
        if let Some(own) = state.running.get_mut(&self.number) {
            own.manifest = Some(*manifest);
        }
        true
    }
}

/// A conversation. Dropping it counts it no longer.
struct Talking<'t>(&'t Mutex<State>);

impl Drop for Talking<'_> {
    fn drop(&mut self) {
        lock(self.0).conversations -= 1;
    }
}

/// The origin of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// The command line of this process.
    Own,
    /// Another process.
    HandedOver,
    /// The store. Attempts go on after failures.
    Recorded,
}

impl<'s> Process<'_, 's> {
    /// Starts the image of the command line, and those of the store.
    fn start<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        asked: Option<Asked>,
        records: Vec<FetchRecord>,
    ) {
        let own_tag = asked.as_ref().map(|asked| asked.record.tag.clone());
        if let Some(Asked {
            record, connection, ..
        }) = asked
        {
            let entry = self.enter(&record.tag);
            let mut expected = Some(self.service.expect());
            scope.spawn(move || {
                let entry = entry;
                let connection = Some(connection);
                let ready = |ready: &Ready| self.messages.ready(ready);
                let origin = Origin::Own;
                let expected = &mut expected;
                let ended =
                    self.fetch_expected(&entry, &record, connection, origin, ready, expected);
                if let Err(error) = ended {
                    self.fail_own(error);
                }
            });
        }
        // The command line replaces a record of its tag.
        let records = records.into_iter();
        let others = records.filter(|record| Some(&record.tag) != own_tag.as_ref());
        // Another fetcher continues those that are too many.
        for record in others.take(IMAGES_MAX - 1) {
            let entry = self.enter(&record.tag);
            let expected = self.service.expect();
            scope.spawn(move || {
                let entry = entry;
                self.go_on(&entry, &record, expected);
            });
        }
    }

    /// Keeps the failure of the image of the command line for the exit status, and reports it to the parent.
    fn fail_own(&self, error: Error) {
        let is_detached = self.messages.is_detached();
        let has_others = lock(&self.state).running.len() > 1;
        let must_warn = is_detached || self.messages.is_background || has_others;
        if must_warn && !(is_detached && matches!(error, Error::Interrupted)) {
            self.messages.warn(&error);
        }
        let error = if self.messages.is_background && !is_detached {
            let status = exit_status(&error, Program::Puzzlefs);
            // If the parent is gone, nobody needs the report.
            let _ = self.messages.ready(&Ready::Failed { status });
            MountError::Fetcher { status }.into()
        } else {
            error
        };
        lock(&self.state).failure.get_or_insert(error);
    }

    /// Notes the end of another image. An image that is never completed has not been interrupted, not even
    /// while it was prepared.
    fn end_other(&self, complete: Completion, ended: Result<Option<Served>>) {
        match ended {
            Ok(_) => {}
            Err(Error::Interrupted) => {
                if complete != Completion::Never && self.stop.load(Relaxed) {
                    let mut state = lock(&self.state);
                    state.failure.get_or_insert(Error::Interrupted);
                }
            }
            Err(error) => self.service.warn(&error),
        }
    }

    fn enter(&self, tag: &str) -> Entry<'_> {
        let mut state = lock(&self.state);
        state.last_number += 1;
        let number = state.last_number;
        let stop = Arc::new(AtomicBool::new(self.stop.load(Relaxed)));
        let running = Running {
            tag: tag.to_owned(),
            manifest: None,
            stop: stop.clone(),
        };
        state.running.insert(number, running);
        Entry {
            state: &self.state,
            number,
            stop,
        }
    }

    /// Prepares an image and serves it. `ready` gets the report of its preparation, once. The result is
    /// `None` if the image is served already.
    fn fetch(
        &self,
        entry: &Entry<'_>,
        record: &FetchRecord,
        connection: Option<RegistryOptions>,
        origin: Origin,
        ready: impl FnMut(&Ready) -> Result<()>,
    ) -> Result<Option<Served>> {
        let expected = self.service.expect();
        self.fetch_expected(
            entry,
            record,
            connection,
            origin,
            ready,
            &mut Some(expected),
        )
    }

    /// Does the same for an image that is expected already.
    fn fetch_expected(
        &self,
        entry: &Entry<'_>,
        record: &FetchRecord,
        connection: Option<RegistryOptions>,
        origin: Origin,
        mut ready: impl FnMut(&Ready) -> Result<()>,
        expected: &mut Option<Expected<'_, 's>>,
    ) -> Result<Option<Served>> {
        let connection = match connection {
            Some(connection) => connection,
            None => recorded_options(record)?,
        };
        let search = connection.settings.search();
        let name = RemoteName::parse(OsStr::new(&record.image), search)?;
        // The image may be mounted, so another version under the name of the source does not replace it.
        let recorded = record.manifest_digest();
        let name = match recorded.filter(|_| origin == Origin::Recorded) {
            Some(manifest) => name.at(manifest),
            None => name,
        };
        let options = FetchingOptions {
            connection,
            platform: record.platform.clone(),
            tag: ImageRef::parse_tag(OsStr::new(&record.tag))?,
            completion: record.complete,
            limit_rate: record.limit_rate,
        };
        let place = format!("{}:{}", self.messages.store, options.tag);
        let progress = Progress::new(entry.stop.clone());
        let served = fetch(&name, self.store, &options, &progress, |source, image| {
            let manifest = *image.manifest();
            let is_never = options.completion == Completion::Never && origin != Origin::Recorded;
            if image.is_whole() && !is_never {
                FetchRecord::remove(self.store, &options.tag, &manifest)?;
                ready(&Ready::Complete { manifest })?;
                return Ok(Some(Served::Complete));
            }
            let is_new = entry.claim(&manifest);
            let report = Ready::Serves {
                manifest,
                process: std::process::id(),
                is_new,
            };
            if is_new {
                let manifest = Some(manifest.to_oci());
                let kept = FetchRecord {
                    manifest,
                    ..record.clone()
                };
                kept.keep(self.store)?;
            }
            let reported = ready(&report);
            if !is_new {
                return reported.map(|()| None);
            }
            if let Err(error) = reported {
                FetchRecord::remove(self.store, &options.tag, &manifest)?;
                return Err(error);
            }
            self.messages.note(&format!("serving {place}"));
            let (lazy, expected) = (options.lazy(), expected.take());
            let served = self
                .service
                .serve(source, &image, lazy, &progress, expected)?;
            if served == Served::Complete {
                FetchRecord::remove(self.store, &options.tag, &manifest)?;
            }
            Ok(Some(served))
        })?;
        if served == Some(Served::Complete) {
            let text = format!("{} is complete in {place}", record.image);
            // The report is a courtesy once others are served.
            let reported = self.messages.report(&text);
            reported.map_err(|error| Error::Usage(format!("{error:#}")))?;
        }
        Ok(served)
    }

    /// Continues an image of a record until the store has all of it.
    fn go_on(&self, entry: &Entry<'_>, record: &FetchRecord, expected: Expected<'_, 's>) {
        let mut expected = Some(expected);
        let progress = Progress::new(entry.stop.clone());
        let mut pauses = RetryPauses::default();
        loop {
            match record.is_current(self.store) {
                Ok(true) => {}
                Ok(false) => {
                    if let Some(manifest) = record.manifest_digest() {
                        let removed = FetchRecord::remove(self.store, &record.tag, &manifest);
                        self.end_other(record.complete, removed.map(|()| None));
                    }
                    return;
                }
                Err(error) => self.service.warn(&error),
            }
            let ready = |_: &Ready| Ok(());
            let ended =
                self.fetch_expected(entry, record, None, Origin::Recorded, ready, &mut expected);
            match ended {
                // No other attempt helps.
                Err(
                    Error::Interrupted
                    | Error::Reference(_)
                    | Error::Fetch(FetchError::NotWhole { .. } | FetchError::Unranged { .. }),
                )
                | Ok(_) => return self.end_other(record.complete, ended),
                Err(error) => self.service.warn(&error),
            }
            let (start, pause) = (Instant::now(), pauses.after_failure());
            while start.elapsed() < pause {
                if progress.check().is_err() {
                    return self.end_other(record.complete, Err(Error::Interrupted));
                }
                thread::sleep(PATIENCE);
            }
        }
    }

    /// Accepts connections until nothing is left to do, or until a request to stop.
    fn serve<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        socket: &FetcherSocket,
        progress: &Progress,
    ) -> Result<()> {
        loop {
            if progress.check().is_err() || self.service.is_over() {
                return Ok(());
            }
            {
                let state = lock(&self.state);
                // A conversation may still add an image.
                if state.running.is_empty() && state.conversations == 0 {
                    return Ok(());
                }
            }
            let Some(conversation) = socket.accept()? else {
                continue;
            };
            let mut state = lock(&self.state);
            // The peer tries again.
            if state.conversations >= CONVERSATIONS_MAX {
                continue;
            }
            state.conversations += 1;
            let talking = Talking(&self.state);
            scope.spawn(move || {
                let _talking = talking;
                self.converse(scope, conversation);
            });
        }
    }

    /// Ends the service, and then the images, so that requests remain for the next fetcher.
    fn stop(&self) {
        // An image that enters later finds the flag.
        self.stop.store(true, Relaxed);
        self.service.end();
        let state = lock(&self.state);
        for running in state.running.values() {
            running.stop.store(true, Relaxed);
        }
    }

    /// Answers the request of a conversation. A peer that is gone needs no answer.
    fn converse<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        mut conversation: Conversation,
    ) {
        let progress = Progress::new(self.stop.clone());
        let reply = match conversation.receive(&progress) {
            Ok(Some(FetcherRequest::Add(record))) => {
                self.add(scope, *record, &mut conversation);
                return;
            }
            Ok(Some(FetcherRequest::Forget { tag, manifest })) => {
                self.forget(&tag, &manifest);
                FetcherReply::Forgotten
            }
            Ok(Some(FetcherRequest::Status)) => FetcherReply::Status(self.status()),
            Ok(None) => return,
            Err(error) => FetcherReply::Failed {
                message: error.to_string(),
            },
        };
        let _ = conversation.send(&reply);
    }

    /// Adds an image, and answers when it is prepared.
    fn add<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        record: FetchRecord,
        conversation: &mut Conversation,
    ) {
        if lock(&self.state).running.len() >= IMAGES_MAX {
            let message = format!("it serves {IMAGES_MAX} images already");
            let _ = conversation.send(&FetcherReply::Failed { message });
            return;
        }
        let entry = self.enter(&record.tag);
        let (sender, receiver) = channel();
        scope.spawn(move || {
            let entry = entry;
            let sender: Sender<FetcherReply> = sender;
            let ready = |ready: &Ready| {
                // The peer may be gone. The image is served nevertheless.
                let _ = sender.send(reply(ready));
                Ok(())
            };
            let ended = self.fetch(&entry, &record, None, Origin::HandedOver, ready);
            if let Err(error) = &ended {
                let message = error.to_string();
                let _ = sender.send(FetcherReply::Failed { message });
            }
            drop(sender);
            self.end_other(record.complete, ended);
        });
        loop {
            match receiver.recv_timeout(SIGN_OF_LIFE) {
                Ok(reply) => {
                    let _ = conversation.send(&reply);
                    return;
                }
                Err(RecvTimeoutError::Timeout) => {
                    if conversation.send_sign_of_life().is_err() {
                        return;
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Stops the service of an image, and removes its record.
    fn forget(&self, tag: &str, manifest: &str) {
        let Some(digest) = Digest::from_oci(manifest) else {
            return;
        };
        if let Err(error) = FetchRecord::remove(self.store, tag, &digest) {
            self.service.warn(&error);
        }
        let state = lock(&self.state);
        let running = state.running.values();
        for running in running.filter(|one| one.tag == tag && one.manifest == Some(digest)) {
            running.stop.store(true, Relaxed);
        }
    }

    fn status(&self) -> FetcherStatus {
        let status = self.service.status();
        let state = lock(&self.state);
        let sorted = |is_served: bool| {
            let running = state.running.values();
            let chosen = running.filter(|one| one.manifest.is_some() == is_served);
            let mut tags: Vec<String> = chosen.map(|one| one.tag.clone()).collect();
            tags.sort_unstable();
            tags.dedup();
            tags
        };
        let last_error = status.last_error.map(|(message, ago)| LastError {
            message,
            seconds_ago: ago.as_secs_f64(),
        });
        FetcherStatus {
            process: std::process::id(),
            tags: sorted(true),
            preparing: sorted(false),
            requests: status.requests,
            longest_wait_seconds: status.longest_wait.as_secs_f64(),
            transfers: status.transfers,
            fetched_bytes: status.fetched_bytes,
            last_error,
        }
    }
}

/// Returns the answer to a process that has handed an image over.
fn reply(ready: &Ready) -> FetcherReply {
    match *ready {
        Ready::Serves {
            manifest,
            process,
            is_new,
        } => FetcherReply::Serves {
            manifest: manifest.to_oci(),
            process,
            is_new,
        },
        Ready::Complete { manifest } => FetcherReply::Complete {
            manifest: manifest.to_oci(),
        },
        Ready::Failed { status } => FetcherReply::Failed {
            message: format!("failed with status {status}"),
        },
    }
}
