// SPDX-License-Identifier: MIT OR Apache-2.0

//! Uploads of blobs. An interrupted upload goes on where the registry has bytes.
//!
//! | blob | requests |
//! | --- | --- |
//! | up to 16 MiB | `POST`, and `PUT` with all bytes |
//! | larger | `POST`, `PATCH` with 16 MiB each, and `PUT` without bytes |
//! | refused because of its size | the same with 4 MiB each |
//! | larger, and the registry knows no `PATCH` | `POST`, and `PUT` with all bytes |
//!
//! After a failed `PATCH`, a `GET` asks how many bytes the registry has. The client crate has no such
//! requests, so these use its HTTP library.

use crate::client::{Attempts, Registry, Stop};
use crate::error::{Message, RegistryFault};
use crate::failure::{Failure, Remedy};
use bytes::Bytes;
use futures_util::stream;
use puzzlefs_lib::error::SystemError;
use puzzlefs_lib::{Digest, Error, Result};
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE};
use reqwest::{Body, Method, RequestBuilder, Response, Url};
use sha2::{Digest as _, Sha256};
use std::convert::Infallible;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::mpsc;

/// The size of a piece of a request, in bytes.
const PIECE: u64 = 256 << 10;
/// The size of a part of a blob, in bytes.
const PART: u64 = 16 << 20;
/// The size of a part if the registry refuses larger requests, in bytes.
const SMALL_PART: u64 = 4 << 20;
/// The time that a registry may take to store a blob whose bytes it has. Some copy it to another place.
pub(crate) const COMMIT_TIME: Duration = Duration::from_secs(300);

/// The content of a blob that is uploaded. An upload can open it several times.
pub(crate) trait Content: Sync {
    /// Opens it, at its beginning.
    fn open(&self) -> Result<File>;

    /// The path for messages.
    fn path(&self) -> PathBuf;

    /// Reads the next bytes of the opened file.
    fn read(&self, file: &mut File, piece: &mut [u8]) -> Result<()> {
        file.read_exact(piece).map_err(|cause| {
            Error::from(SystemError::Call {
                path: self.path(),
                action: "read the blob",
                cause,
            })
        })
    }
}

/// Uploads a blob.
///
/// # Errors
///
/// If the registry refuses, the blob is damaged, or the connection breaks more often than
/// [`crate::RegistryOptions::retries`].
pub(crate) fn upload(
    registry: &Registry<'_>,
    digest: &Digest,
    size: u64,
    content: &dyn Content,
) -> Result<(), Stop> {
    let mut upload = Upload {
        registry,
        content,
        digest,
        size,
        way: if size > PART {
            Way::Parts(PART)
        } else {
            Way::Whole
        },
        session: None,
        reader: None,
        shown: 0,
        stage: 0,
        is_committing: false,
    };
    let mut attempts = Attempts::new(registry.options.retries);
    let mut furthest = 0;
    loop {
        let failure = match upload.run() {
            Ok(()) => return Ok(()),
            Err(Stop::Failure(failure)) => failure,
            Err(stop) => return Err(stop),
        };
        if upload.changes_way(&failure) {
            continue;
        }
        if upload.stage > furthest {
            furthest = upload.stage;
            attempts = Attempts::new(registry.options.retries);
        }
        attempts.prepare(registry, failure)?;
    }
}

/// The way of an upload.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// All bytes in one request.
    Whole,
    /// This number of bytes in each request.
    Parts(u64),
}

/// An upload that the registry has begun.
struct Session {
    /// The place for the next request.
    url: Url,
    /// The number of bytes that the registry has.
    offset: u64,
    /// Set if the last request failed, so that the registry may have more or fewer bytes.
    is_uncertain: bool,
}

/// The bytes of a blob, and their hash up to the position of the file.
struct Reader {
    file: File,
    at: u64,
    sha256: Sha256,
}

/// An upload of a blob.
struct Upload<'u, 'r> {
    registry: &'u Registry<'r>,
    content: &'u dyn Content,
    digest: &'u Digest,
    /// The size of the blob, in bytes.
    size: u64,
    way: Way,
    session: Option<Session>,
    reader: Option<Reader>,
    /// The number of bytes that the progress counts as done.
    shown: u64,
    /// The furthest stage: 1 if the registry has begun the upload, 1 more for each byte that it has, and 1 if
    /// it was asked to store the blob. It never decreases, so the number of attempts has a limit.
    stage: u64,
    /// Set once the registry was asked to store the blob.
    is_committing: bool,
}

impl Upload<'_, '_> {
    /// Makes an attempt, from the last known state.
    fn run(&mut self) -> Result<(), Stop> {
        if self.is_committing && self.is_stored()? {
            return Ok(());
        }
        self.is_committing = false;
        if self
            .session
            .as_ref()
            .is_some_and(|session| session.is_uncertain)
        {
            self.session = self.ask()?;
        }
        let session = match self.session.take() {
            Some(session) => session,
            None => self.begin()?,
        };
        let Session {
            mut url, offset, ..
        } = session;
        self.show(offset);
        self.stage = self.stage.max(1 + offset);
        let Way::Parts(part) = self.way else {
            return self.commit(url, 0..self.size);
        };
        let mut offset = offset;
        while offset < self.size {
            let end = self.size.min(offset + part);
            // The state if this part fails.
            self.session = Some(Session {
                url: url.clone(),
                offset,
                is_uncertain: true,
            });
            (url, offset) = self.send_part(&url, offset..end)?;
            self.stage = self.stage.max(1 + offset);
            // The state if the rest fails before the next request.
            self.session = Some(Session {
                url: url.clone(),
                offset,
                is_uncertain: false,
            });
        }
        self.commit(url, self.size..self.size)
    }

    /// Takes another way, if the registry refuses this one. Returns false if there is none.
    fn changes_way(&mut self, failure: &Failure) -> bool {
        let next = match (failure.status, self.way) {
            _ if failure.remedy != Remedy::Stop => return false,
            (Some(413), Way::Parts(PART) | Way::Whole) => Way::Parts(SMALL_PART),
            (Some(404 | 405 | 411 | 415 | 501), Way::Parts(PART)) => Way::Whole,
            (Some(405 | 411 | 415 | 501), Way::Whole) if self.size <= PART => {
                Way::Parts(SMALL_PART)
            }
            _ => return false,
        };
        self.way = next;
        self.session = None;
        self.is_committing = false;
        true
    }

    /// Adjusts the progress to a number of bytes.
    fn show(&mut self, bytes: u64) {
        let progress = self.registry.progress;
        match bytes.checked_sub(self.shown) {
            Some(more) => progress.done_bytes(more),
            None => progress.undone_bytes(self.shown - bytes),
        }
        self.shown = bytes;
    }

    /// Returns true if the registry has the blob, although the answer to the last request was lost.
    fn is_stored(&self) -> Result<bool, Stop> {
        let registry = self.registry;
        let (client, image, name) = (
            registry.client(),
            registry.reference(),
            self.digest.to_oci(),
        );
        registry.request("blob", || client.blob_exists(image, &name))
    }

    /// Begins an upload.
    fn begin(&self) -> Result<Session, Stop> {
        let url = self.registry.url("blobs/uploads/")?;
        let request = self.request(Method::POST, &url).header(CONTENT_LENGTH, 0);
        let answer = self.answer(self.registry.wait(request.send())?)?;
        Ok(Session {
            url: location(&answer, &url).ok_or_else(|| protocol("it has no location"))?,
            offset: 0,
            is_uncertain: false,
        })
    }

    /// Asks how many bytes the registry has. Returns `None` if it has dropped the upload.
    fn ask(&self) -> Result<Option<Session>, Stop> {
        let Some(session) = &self.session else {
            return Ok(None);
        };
        let request = self.request(Method::GET, &session.url);
        let answer = match self.answer(self.registry.wait(request.send())?) {
            Ok(answer) => answer,
            Err(Stop::Failure(failure)) if is_unknown(&failure) => return Ok(None),
            Err(stop) => return Err(stop),
        };
        let offset = stored(&answer).filter(|offset| *offset <= self.size);
        Ok(offset.map(|offset| Session {
            url: location(&answer, &session.url).unwrap_or_else(|| session.url.clone()),
            offset,
            is_uncertain: false,
        }))
    }

    /// Sends a part. Returns the place of the next one, and the number of bytes that the registry has.
    fn send_part(&mut self, url: &Url, range: Range<u64>) -> Result<(Url, u64), Stop> {
        let bytes = format!("{}-{}", range.start, range.end - 1);
        let request = self
            .request(Method::PATCH, url)
            .header(CONTENT_RANGE, bytes);
        let sent = self.send(request, range.clone(), self.registry.options.timeout);
        let answer = match sent {
            Err(Stop::Failure(failure)) if is_unknown(&failure) && range.start > 0 => {
                // Begin anew, as after a broken connection.
                self.session = None;
                return Err(Failure {
                    remedy: Remedy::Retry,
                    ..failure
                }
                .into());
            }
            sent => sent?,
        };
        let next = location(&answer, url).ok_or_else(|| protocol("it has no location"))?;
        let offset = match stored(&answer) {
            Some(offset) if range.start < offset && offset <= range.end => offset,
            _ => range.end,
        };
        Ok((next, offset))
    }

    /// Sends the last bytes, and has the blob stored.
    fn commit(&mut self, url: Url, range: Range<u64>) -> Result<(), Stop> {
        let mut commit = url.clone();
        let digest = self.digest.to_oci();
        commit.query_pairs_mut().append_pair("digest", &digest);
        let request = self.request(Method::PUT, &commit);
        self.stage = self.stage.max(2 + self.size);
        let time = self.registry.options.timeout.max(COMMIT_TIME);
        let offset = range.start;
        let Err(stop) = self.send(request, range, time) else {
            return Ok(());
        };
        let is_denied = matches!(&stop, Stop::Failure(failure) if failure.remedy == Remedy::Renew);
        self.is_committing = !is_denied;
        // Bytes of a whole blob could be there twice.
        let is_kept = is_denied || self.way != Way::Whole;
        self.session = is_kept.then_some(Session {
            url,
            offset,
            is_uncertain: !is_denied,
        });
        Err(stop)
    }

    /// Makes a request of an upload.
    fn request(&self, method: Method, url: &Url) -> RequestBuilder {
        let registry = self.registry;
        registry.count_request();
        registry.authorised(registry.http().request(method, url.clone()), url)
    }

    /// Sends a request with bytes of the blob.
    fn send(
        &mut self,
        request: RequestBuilder,
        range: Range<u64>,
        time: Duration,
    ) -> Result<Response, Stop> {
        let registry = self.registry;
        let (sender, receiver) = mpsc::channel::<Bytes>(1);
        let body = stream::unfold(receiver, |mut receiver| async {
            let piece = receiver.recv().await?;
            Some((Ok::<_, Infallible>(piece), receiver))
        });
        let request = request
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(CONTENT_LENGTH, range.end - range.start);
        let request = if range.is_empty() {
            request
        } else {
            request.body(Body::wrap_stream(body))
        };
        // An empty blob has no last piece.
        if self.size == 0 {
            self.check(&Sha256::new())?;
        }
        let sending = registry.runtime().spawn(request.send());
        let abort = sending.abort_handle();
        let fed = self.feed(range, &sender);
        drop(sender);
        let result = match fed {
            // The registry has answered before the end.
            Ok(false) => registry.wait(sending),
            Ok(true) => registry.wait_for(time, sending),
            Err(stop) => Err(stop),
        };
        abort.abort();
        match result? {
            Ok(sent) => self.answer(sent),
            Err(join) => Err(Failure::connection(join.to_string()).into()),
        }
    }

    /// Gives bytes of the blob to a request. Returns false if the request has ended early.
    fn feed(&mut self, range: Range<u64>, sender: &mpsc::Sender<Bytes>) -> Result<bool, Stop> {
        if range.is_empty() {
            return Ok(true);
        }
        let mut reader = self.reader_at(range.start)?;
        while reader.at < range.end {
            let wanted = (range.end - reader.at).min(PIECE) as usize;
            let piece = self.read(&mut reader, wanted)?;
            if reader.at == self.size {
                // Before the last piece: the registry does not get a damaged blob as a whole.
                self.check(&reader.sha256)?;
            }
            if self.registry.wait(sender.send(piece.into()))?.is_err() {
                return Ok(false);
            }
            self.registry
                .counters
                .sent
                .fetch_add(wanted as u64, Relaxed);
            self.show(reader.at);
        }
        self.reader = Some(reader);
        Ok(true)
    }

    /// Returns a reader at a position. All bytes before it are hashed.
    fn reader_at(&mut self, position: u64) -> Result<Reader> {
        let mut reader = match self.reader.take() {
            Some(reader) if reader.at <= position => reader,
            _ => Reader {
                file: self.content.open()?,
                at: 0,
                sha256: Sha256::new(),
            },
        };
        while reader.at < position {
            let wanted = (position - reader.at).min(PIECE) as usize;
            self.read(&mut reader, wanted)?;
        }
        Ok(reader)
    }

    fn read(&self, reader: &mut Reader, length: usize) -> Result<Vec<u8>> {
        let mut piece = vec![0; length];
        self.content.read(&mut reader.file, &mut piece)?;
        reader.sha256.update(&piece);
        reader.at += length as u64;
        Ok(piece)
    }

    /// Compares the hash of all bytes with the digest.
    fn check(&self, sha256: &Sha256) -> Result<(), Stop> {
        let found = Digest(sha256.clone().finalize().into());
        if found == *self.digest {
            return Ok(());
        }
        let path = self.content.path();
        let fault = RegistryFault::DamagedBlob { path, found };
        Err(Failure::new(Remedy::Stop, fault).into())
    }

    /// Returns an answer, if it is a success.
    fn answer(&self, sent: reqwest::Result<Response>) -> Result<Response, Stop> {
        let what = "such repository";
        let answer = sent.map_err(|error| Failure::of_request(&error, what))?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        Err(self.registry.refusal(answer, what)?.into())
    }
}

/// Returns true if the registry does not know the upload, or not in this state.
fn is_unknown(failure: &Failure) -> bool {
    matches!(failure.status, Some(400 | 404 | 416))
}

/// The place that an answer names, for the next request.
fn location(answer: &Response, url: &Url) -> Option<Url> {
    let location = answer.headers().get(LOCATION)?.to_str().ok()?;
    url.join(location).ok()
}

/// The number of bytes that the registry has, as an answer states it: `0-99` for 100, or for none `0-0`.
fn stored(answer: &Response) -> Option<u64> {
    let range = answer.headers().get(RANGE)?.to_str().ok()?;
    parse_range(range)
}

fn parse_range(range: &str) -> Option<u64> {
    let range = range.strip_prefix("bytes=").unwrap_or(range);
    let (start, end) = range.split_once('-')?;
    let end: u64 = end.parse().ok()?;
    match (start, end) {
        ("0", 0) => Some(0),
        ("0", end) => end.checked_add(1),
        _ => None,
    }
}

fn protocol(cause: &str) -> Stop {
    let fault = RegistryFault::Protocol(Message::new(cause));
    Failure::new(Remedy::Stop, fault).into()
}

#[cfg(test)]
mod tests {
    use super::parse_range;

    #[test]
    fn ranges_of_uploads() {
        for (range, wanted) in [
            ("0-0", Some(0)),
            ("0-99", Some(100)),
            ("bytes=0-99", Some(100)),
            ("0-18446744073709551615", None),
            ("5-9", None),
            ("0", None),
            ("", None),
            ("0--1", None),
        ] {
            assert_eq!(parse_range(range), wanted, "{range}");
        }
    }
}
