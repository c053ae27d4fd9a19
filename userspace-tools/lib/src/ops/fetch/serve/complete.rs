// SPDX-License-Identifier: MIT OR Apache-2.0

//! Fetches the chunks that nobody has requested.

use super::super::lazy::{ChunkPlace, LazyImage, LazyOptions};
use super::super::source::RemoteBlob;
use super::super::whole::check_whole;
use super::queue::{ImageNumber, Needed, Priority};
use super::server::Server;
use crate::error::{Error, FetchError, Result};
use crate::model::digest::Digest;
use crate::store::fetches::Completion;
use puzzlefs_schema::v4::PackedChunk;
use std::collections::HashSet;
use std::time::Duration;

/// Chunks of this many bytes are queued at once.
const WINDOW: u64 = 1 << 20;
/// The pause after the first round with failures. Each further pause is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
/// The longest pause between two rounds.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
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
    };
    server.queue.end_image(number, completer.complete());
}

struct Completer<'c, 's> {
    server: &'c Server<'s>,
    number: ImageNumber,
    image: &'c LazyImage,
    options: LazyOptions,
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
        let mut pause = FIRST_PAUSE;
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
                    pause = FIRST_PAUSE;
                    continue;
                }
                Ok(Round::Queued) => {}
                Err(error) => server.warn(&error),
            }
            queue.pause(number, pause)?;
            pause = LONGEST_PAUSE.min(pause * 2);
        }
    }

    /// Queues all chunks that are missing, in order of position.
    fn round(&self) -> Result<Round> {
        let mut round = Round::Whole;
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
                if bytes >= WINDOW {
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
        let needed = Needed {
            image: self.number,
            tried: Vec::new(),
            pack: *pack,
            chunks: missing,
        };
        if queue.submit(needed, Priority::Background, &HashSet::new()) {
            *round = Round::Queued;
        } else if *round == Round::Whole {
            *round = Round::Elsewhere;
        }
        Ok(())
    }
}
