// SPDX-License-Identifier: MIT OR Apache-2.0

//! Fetches the chunks that nobody has requested.

use super::super::lazy::{ChunkPlace, Completion, LazyOptions};
use super::super::whole::check_whole;
use super::queue::Priority;
use super::server::Server;
use crate::error::{Error, FetchError, Result};
use crate::model::digest::Digest;
use std::collections::HashSet;
use std::time::Duration;

/// Chunks of this many bytes are queued at once.
const WINDOW: u64 = 1 << 20;
/// The pause after the first round with failures. Each further pause is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
/// The longest pause between two rounds.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Fetches the rest of the image, and ends the service when the store has all of it.
pub(super) fn run(server: &Server<'_>, options: LazyOptions) {
    let completed = Completer { server, options }.complete();
    server.queue.end(completed);
}

struct Completer<'c, 's> {
    server: &'c Server<'s>,
    options: LazyOptions,
}

impl Completer<'_, '_> {
    /// Goes through the packs until no chunk is missing.
    fn complete(&self) -> Result<()> {
        let Server {
            queue,
            image,
            store,
            ..
        } = self.server;
        let mut pause = FIRST_PAUSE;
        loop {
            let failures = queue.failures();
            let queued = self.round();
            queue.drain()?;
            match queued {
                Ok(true) => match check_whole(store, &image.root) {
                    // The chunk was removed meanwhile.
                    Err(Error::Fetch(FetchError::NotWhole { chunk }))
                        if image.place(&chunk).is_some() => {}
                    Err(error @ Error::System(_)) => self.server.warn(&error),
                    checked => return checked,
                },
                Ok(false) if queue.failures() == failures => {
                    pause = FIRST_PAUSE;
                    continue;
                }
                Ok(false) => {}
                Err(error) => self.server.warn(&error),
            }
            queue.pause(pause)?;
            pause = LONGEST_PAUSE.min(pause * 2);
        }
    }

    /// Queues all chunks that are missing, in order of position. Returns true if there are none.
    fn round(&self) -> Result<bool> {
        let mut has_all = true;
        for (number, (pack, chunks)) in (0..).zip(self.server.image.packs()) {
            let (mut missing, mut bytes) = (Vec::new(), 0);
            for (at, chunk) in (0..).zip(chunks) {
                let digest = Digest::from(chunk.digest);
                let place = ChunkPlace {
                    pack: number,
                    chunk: at,
                };
                let is_elsewhere = self.server.image.place(&digest) != Some(place);
                if is_elsewhere || self.server.has(&digest)? {
                    continue;
                }
                has_all = false;
                missing.push(*chunk);
                bytes += u64::from(chunk.stored_len);
                if bytes >= WINDOW {
                    self.wait()?;
                    let missing = std::mem::take(&mut missing);
                    let queue = &self.server.queue;
                    queue.submit(pack, missing, Priority::Background, &HashSet::new());
                    bytes = 0;
                }
            }
            if !missing.is_empty() {
                self.wait()?;
                let queue = &self.server.queue;
                queue.submit(pack, missing, Priority::Background, &HashSet::new());
            }
        }
        Ok(has_all)
    }

    /// Waits until more may be queued. One transfer stays free for requests if there are several.
    fn wait(&self) -> Result<()> {
        let when_idle = self.options.completion == Completion::Idle;
        let limit = if when_idle {
            1
        } else {
            self.options.jobs.max(2) - 1
        };
        self.server.queue.wait_for_background(limit, when_idle)
    }
}
