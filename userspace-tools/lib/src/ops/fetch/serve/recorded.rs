// SPDX-License-Identifier: MIT OR Apache-2.0

//! Fetches the chunks that the start-up order of an image leads to, before a program reads them.
//!
//! The metadata on the way to the ranges comes first. Usually it was fetched with the root. The data follows
//! in the order of the record. If the packs are laid out by the record, this takes one range for each MiB.
//!
//! The record names data that the program reads when it starts, so this happens without background, too.

use super::super::lazy::{ChunkPlace, LazyImage};
use super::queue::{ImageNumber, Priority};
use super::server::Server;
use crate::error::{Error, Result};
use crate::image::ordered::OrderedChunks;
use crate::model::digest::Digest;
use crate::model::start_order::StartOrder;

/// Chunks of this many bytes are queued together, and are fetched in order of position.
const WINDOW: u64 = 1 << 20;
/// The most bytes of chunks that are fetched for the order of an image.
const BYTES_MAX: u64 = 256 << 20;
/// The most searches for chunks. After each, metadata is fetched that the search has lacked.
const SEARCHES_MAX: usize = 16;

/// Queues the chunks of the start-up order of an image, if it has one.
pub(super) fn run(server: &Server<'_>, number: ImageNumber, image: &LazyImage) {
    let recorded = Recorded {
        server,
        number,
        image,
    };
    match recorded.fetch() {
        // The image has left.
        Ok(()) | Err(Error::Interrupted) => {}
        // Readers request the chunks.
        Err(error) => server.warn(&error),
    }
}

struct Recorded<'r, 's> {
    server: &'r Server<'s>,
    number: ImageNumber,
    image: &'r LazyImage,
}

impl Recorded<'_, '_> {
    fn fetch(&self) -> Result<()> {
        let store = self.server.store;
        let (manifest, _) = store.manifest(self.image.manifest())?;
        let Some(order) = store.start_order(self.image.manifest(), &manifest)? else {
            return Ok(());
        };
        self.data(self.find(&order)?)
    }

    /// Finds the data chunks of an order. Fetches metadata on the way to them that the store lacks.
    fn find(&self, order: &StartOrder) -> Result<Vec<Digest>> {
        let queue = &self.server.queue;
        let mut former = Vec::new();
        let mut data = Vec::new();
        for _ in 0..SEARCHES_MAX {
            let check = || queue.check(self.number);
            let (found, lacking) =
                OrderedChunks::find_local(self.server.store, &self.image.root, order, check)?;
            data = found.data;
            // After a failure, the same chunks are lacking.
            if lacking.is_empty() || lacking == former {
                break;
            }
            let places = lacking.iter().filter_map(|digest| self.image.place(digest));
            // A large image: this is little beside its data, and the ranges of the order wait for it.
            self.server
                .submit_unrequested(self.number, places.collect(), Priority::Requested);
            queue.wait_for(self.number, &lacking)?;
            former = lacking;
        }
        Ok(data)
    }

    /// Queues those of the data chunks that the store lacks.
    fn data(&self, chunks: Vec<Digest>) -> Result<()> {
        let (mut window, mut bytes) = (Vec::new(), 0);
        let mut left = BYTES_MAX;
        for digest in chunks {
            self.server.queue.check(self.number)?;
            if self.server.has(&digest)? {
                continue;
            }
            let Some(place) = self.image.place(&digest) else {
                continue;
            };
            let len = self.stored_len(place);
            let Some(rest) = left.checked_sub(len) else {
                break;
            };
            left = rest;
            window.push(place);
            bytes += len;
            if bytes >= WINDOW {
                self.submit(std::mem::take(&mut window));
                bytes = 0;
            }
        }
        self.submit(window);
        Ok(())
    }

    fn stored_len(&self, place: ChunkPlace) -> u64 {
        let chunk = self.image.at(place);
        chunk.map_or(0, |(_, chunk)| chunk.stored_len.into())
    }

    fn submit(&self, places: Vec<ChunkPlace>) {
        self.server
            .submit_unrequested(self.number, places, Priority::Recorded);
    }
}
