// SPDX-License-Identifier: MIT OR Apache-2.0

//! Fetches the chunks that nobody has requested.

use super::super::lazy::{ChunkPlace, LazyImage, LazyOptions};
use super::super::pauses::RetryPauses;
use super::super::source::RemoteBlob;
use super::super::whole::check_whole;
use super::queue::{ImageNumber, Needed, Priority};
use super::server::Server;
use crate::error::{Error, FetchError, Result};
use crate::model::digest::Digest;
use crate::store::fetches::Completion;
use puzzlefs_schema::v4::PackedChunk;
use std::cell::Cell;
use std::collections::HashSet;
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

/// Chunks of this many bytes are queued at once.
const WINDOW: u64 = 1 << 20;
/// If the rest is fetched while readers pause, chunks of this many bytes. A reader that comes meanwhile waits
/// little longer: they take 20 ms at 100 Mbit/s.
const IDLE_WINDOW: u64 = 256 << 10;
/// With a limit of the rate, chunks of fewer bytes are queued at once, and of this many at least.
const SMALL_WINDOW: u64 = 64 << 10;
/// The pause before another round if all missing chunks are under way for other images.
const OTHERS: Duration = Duration::from_millis(500);

/// Fetches the rest of an image, and ends the work for it when the store has all of it.
pub(super) fn run(
    server: &Server<'_>,
    number: ImageNumber,
    image: &LazyImage,
    options: LazyOptions,
) {
    let completer = Completer {
        server,
        number,
        image,
        options,
        next: Cell::new(Instant::now()),
    };
    server.queue.end_image(number, completer.complete());
}

struct Completer<'c, 's> {
    server: &'c Server<'s>,
    number: ImageNumber,
    image: &'c LazyImage,
    options: LazyOptions,
    /// The time at which the limit of the rate permits the next bytes.
    next: Cell<Instant>,
}

/// Returns the number of bytes of chunks that are queued at once: those of half a second, within limits.
pub(super) fn window(options: LazyOptions) -> u64 {
    let most = match options.completion {
        Completion::Idle => IDLE_WINDOW,
        Completion::Now | Completion::Never => WINDOW,
    };
    let of_rate = |rate: NonZeroU64| (rate.get() / 2).clamp(SMALL_WINDOW, most);
    options.limit_rate.map_or(most, of_rate)
}

/// The result of one round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Round {
    /// No chunk is missing.
    Whole,
    /// Missing chunks were queued.
    Queued,
    /// Chunks are missing, and all of them are under way for other images.
    Elsewhere,
}

impl Completer<'_, '_> {
    /// Goes through the packs until no chunk is missing.
    fn complete(&self) -> Result<()> {
        let Completer {
            server,
            number,
            image,
            ..
        } = *self;
        let queue = &server.queue;
        let mut pauses = RetryPauses::default();
        loop {
            let failures = queue.failures(number);
            let round = self.round();
            queue.drain(number)?;
            match round {
                Ok(Round::Whole) => match check_whole(server.store, &image.root) {
                    // The chunk was removed meanwhile.
                    Err(Error::Fetch(FetchError::NotWhole { chunk }))
                        if image.place(&chunk).is_some() => {}
                    Err(error @ Error::System(_)) => server.warn(&error),
                    checked => return checked,
                },
                Ok(Round::Elsewhere) => {
                    queue.pause(number, OTHERS)?;
                    continue;
                }
                Ok(Round::Queued) if queue.failures(number) == failures => {
                    pauses.reset();
                    continue;
                }
                Ok(Round::Queued) => {}
                Err(error) => server.warn(&error),
            }
            queue.pause(number, pauses.after_failure())?;
        }
    }

    /// Queues all chunks that are missing, in order of position.
    fn round(&self) -> Result<Round> {
        let mut round = Round::Whole;
        let window = window(self.options);
        for (pack_number, (pack, chunks)) in (0..).zip(self.image.packs()) {
            let (mut missing, mut bytes) = (Vec::new(), 0);
            for (at, chunk) in (0..).zip(chunks) {
                let digest = Digest::from(chunk.digest);
                let place = ChunkPlace {
                    pack: pack_number,
                    chunk: at,
                };
                let is_elsewhere = self.image.place(&digest) != Some(place);
                if is_elsewhere || self.server.has(&digest)? {
                    continue;
                }
                missing.push(*chunk);
                bytes += u64::from(chunk.stored_len);
                if bytes >= window {
                    self.submit(pack, std::mem::take(&mut missing), &mut round)?;
                    bytes = 0;
                }
            }
            if !missing.is_empty() {
                self.submit(pack, missing, &mut round)?;
            }
        }
        Ok(round)
    }

    /// Queues missing chunks of a pack when more may be queued. One transfer stays free for requests if
    /// there are several.
    fn submit(&self, pack: &RemoteBlob, chunks: Vec<PackedChunk>, round: &mut Round) -> Result<()> {
        let when_idle = self.options.completion == Completion::Idle;
        let limit = if when_idle {
            1
        } else {
            self.options.jobs.max(2) - 1
        };
        let queue = &self.server.queue;
        self.wait_for_rate()?;
        queue.wait_for_background(self.number, limit, when_idle)?;
        // Other images may have brought some meanwhile.
        let mut missing = Vec::new();
        for chunk in chunks {
            if !self.server.has(&chunk.digest.into())? {
                missing.push(chunk);
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let bytes = missing
            .iter()
            .map(|chunk| u64::from(chunk.stored_len))
            .sum();
        let needed = Needed {
            image: self.number,
            tried: Vec::new(),
            pack: *pack,
            chunks: missing,
        };
        if queue.submit(needed, Priority::Background, &HashSet::new()) {
            *round = Round::Queued;
            self.charge(bytes);
        } else if *round == Round::Whole {
            *round = Round::Elsewhere;
        }
        Ok(())
    }

    /// Waits until the limit of the rate permits more bytes. Requests of readers do not wait, and do not
    /// count. The limit delays ranges and not their bytes, because a reader may need a chunk of a range in
    /// transfer.
    fn wait_for_rate(&self) -> Result<()> {
        let wait = self.next.get().saturating_duration_since(Instant::now());
        if wait.is_zero() {
            return Ok(());
        }
        self.server.queue.pause(self.number, wait)
    }

    /// Counts bytes that were queued.
    fn charge(&self, bytes: u64) {
        let Some(rate) = self.options.limit_rate else {
            return;
        };
        let begin = self.next.get().max(Instant::now());
        let time = Duration::from_secs_f64(bytes as f64 / rate.get() as f64);
        // A rate of a byte per second keeps the time within the clock's range.
        self.next.set(begin.checked_add(time).unwrap_or(begin));
    }
}
