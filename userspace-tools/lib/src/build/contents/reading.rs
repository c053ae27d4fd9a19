// SPDX-License-Identifier: MIT OR Apache-2.0

//! Reads the contents of a tree's files with several threads.
//!
//! A *batch* of consecutive small files is read and hashed; the bundler takes the batches in their
//! order and makes bundles. A *large* file is read and cut by one thread. A *piece*, a bundle or a chunk,
//! is hashed and stored. [`scheduler`](crate::build::scheduler) distributes this work: batches are
//! its batches, large files its tasks, pieces its follow-ups. The thread that cuts a large file
//! stores the chunks itself while there are other files for the other threads; chunks of the last
//! files are shared out.
//!
//! The result depends neither on the number of threads nor on their speed.

use crate::build::build_options::BuildOptions;
use crate::build::bundler::{Batch, Bundler, SmallFile};
use crate::build::contents::attempts::{Attempt, Failure, FileReader};
use crate::build::contents::cutter::{Cutter, PieceSink};
use crate::build::contents::placement::{CutPiece, PieceData, Position, Stored};
use crate::build::contents::sink::{ContentSink, Provenance, Turn};
use crate::build::flusher::Flusher;
use crate::build::layout::Layout;
use crate::build::scheduler::{Limits, Scheduler, Totals, Work};
use crate::build::source::Source;
use crate::error::{Error, Result};
use crate::model::digest::Digest;
use crate::model::tree::{FileState, Kind, NodeId, Tree};
use crate::store::staging::Staging;
use crate::sys::parallel::{into_inner, lock};
use crate::sys::pause::{self, Point};
use crate::sys::progress::Progress;
use std::borrow::Cow;
use std::sync::Mutex;

/// A batch of small files ends at this many bytes or files.
const BATCH_BYTES: u64 = 1 << 20;
const BATCH_FILES: usize = 512;
/// The number of batches that are read ahead of the bundler.
const BATCHES_AHEAD: usize = 8;
/// The number of chunks that wait for each thread.
const CHUNKS_AHEAD: usize = 4;
/// The unit of the bundles of small files. The large file of number `n` is unit `n + 1`.
const SMALL_FILES: u32 = 0;

/// A tree whose contents are read.
#[derive(Clone, Copy)]
pub(crate) struct Reading<'a> {
    pub source: &'a Source,
    pub tree: &'a Tree,
    /// For each node, true if its contents are not read.
    pub skip: &'a [bool],
    pub options: &'a BuildOptions,
    pub staging: &'a Staging<'a>,
    pub progress: &'a Progress,
}

/// Stores the contents of the regular files of a tree. `flusher` hears of the writes of `sink`.
pub(crate) fn store_contents<S: ContentSink>(
    reading: &Reading<'_>,
    sink: &S,
    flusher: &Flusher,
) -> Result<Stored<S::Key>> {
    let Reading { tree, options, .. } = *reading;
    let layout = &options.layout;
    let jobs = options.jobs.max(1);
    let (batches, large) = plan(tree, reading.skip, layout);
    let totals = Totals {
        batches: batches.len(),
        tasks: large.len(),
    };
    let limits = Limits {
        batches_ahead: BATCHES_AHEAD,
        follow_ups: CHUNKS_AHEAD * jobs,
    };
    let builder = Builder {
        batches,
        large,
        layout,
        scheduler: Scheduler::new(jobs, totals, limits),
        reader: FileReader {
            source: reading.source,
            tree,
            layout,
            xattrs: &options.rules.xattrs,
            retries: options.retry_changed,
            progress: reading.progress,
            problems: Mutex::default(),
            read_again: Mutex::default(),
        },
        bundler: Mutex::new(Bundler::new(layout)),
        sink,
        stored: Mutex::default(),
    };
    reading.progress.start_reading();
    pause::at(Point::Tree);
    if totals.batches == 0 {
        sink.end_unit(SMALL_FILES, 0)?;
    }
    flusher.beside(
        || reading.staging.flush(),
        || builder.scheduler.stop(),
        || builder.scheduler.run(&builder, reading.progress),
    )?;
    builder.finish()
}

/// Returns the batches of small files that are read together, and the files that are cut, in the
/// order of the walk.
fn plan(tree: &Tree, skip: &[bool], layout: &Layout) -> (Vec<Vec<NodeId>>, Vec<NodeId>) {
    let (mut batches, mut large) = (Vec::new(), Vec::new());
    let (mut batch, mut bytes) = (Vec::new(), 0);
    for (id, node) in (0..).zip(&tree.nodes) {
        match &node.kind {
            Kind::File(FileState { size: 0, .. }) => {}
            _ if skip.get(id as usize) == Some(&true) => {}
            Kind::File(state) if layout.is_bundled(state.size) => {
                batch.push(id);
                bytes += state.size;
                if bytes >= BATCH_BYTES || batch.len() >= BATCH_FILES {
                    batches.push(std::mem::take(&mut batch));
                    bytes = 0;
                }
            }
            Kind::File(_) => large.push(id),
            _ => {}
        }
    }
    if !batch.is_empty() {
        batches.push(batch);
    }
    (batches, large)
}

/// Stores contents with the threads of a scheduler.
struct Builder<'a, S: ContentSink> {
    batches: Vec<Vec<NodeId>>,
    large: Vec<NodeId>,
    layout: &'a Layout,
    scheduler: Scheduler<Piece>,
    reader: FileReader<'a>,
    bundler: Mutex<Bundler<'a>>,
    sink: &'a S,
    stored: Mutex<Stored<S::Key>>,
}

/// A bundle or a chunk to hash and store.
struct Piece {
    bytes: Vec<u8>,
    place: Place,
    from: Provenance,
}

/// The use of a piece.
#[derive(Clone, Copy)]
enum Place {
    /// It is the bundle of this number.
    Bundle(u32),
    /// It is a chunk of a file.
    Chunk(Turn, Position),
}

/// State that a thread has for itself.
#[derive(Default)]
struct Tools<L> {
    /// For the data of a large file.
    buffer: Vec<u8>,
    /// The sink's.
    local: L,
}

impl<S: ContentSink> Work for Builder<'_, S> {
    type Local = Tools<S::Local>;
    type Batch = Batch;
    type FollowUp = Piece;

    /// Reads a batch of small files.
    fn read_batch(&self, number: usize) -> Result<Batch> {
        let mut batch = Batch::default();
        for &node in &self.batches[number] {
            let start = batch.bytes.len();
            let is_read = self.reader.attempt(node, |attempt| {
                batch.bytes.truncate(start);
                self.read_small(attempt, &mut batch)
            })?;
            if !is_read {
                batch.bytes.truncate(start);
            }
        }
        Ok(batch)
    }

    /// Bundles a batch.
    fn merge(&self, batch: Batch, is_last: bool) -> Result<Vec<Piece>> {
        let mut bundler = lock(&self.bundler);
        let mut bundles = bundler.add(batch);
        if is_last {
            bundles.extend(bundler.last_bundle());
            self.sink.end_unit(SMALL_FILES, bundler.bundles())?;
        }
        let bundles = bundles.into_iter().map(|bundle| Piece {
            bytes: bundle.bytes,
            place: Place::Bundle(bundle.number),
            from: Provenance::Bundle {
                digest: bundle.digest,
                first_files: bundle.first_files,
            },
        });
        Ok(bundles.collect())
    }

    /// Reads and cuts a large file.
    fn task(&self, number: usize, tools: &mut Self::Local) -> Result<()> {
        // A tree has less than 2^32 nodes.
        let unit = number as u32 + 1;
        let mut turn = Turn { unit, number: 0 };
        self.reader.attempt(self.large[number], |attempt| {
            self.cut(attempt, &mut turn, tools)
        })?;
        self.sink.end_unit(unit, turn.number)
    }

    fn follow_up(&self, piece: Piece, tools: &mut Self::Local) -> Result<()> {
        let Piece { bytes, place, from } = piece;
        self.store(Cow::Owned(bytes), place, &from, &mut tools.local)
    }
}

impl<S: ContentSink> Builder<'_, S> {
    /// Reads a small file, and adds it to a batch.
    fn read_small(&self, attempt: &Attempt<'_>, batch: &mut Batch) -> Result<(), Failure> {
        let (start, size) = (batch.bytes.len(), attempt.state.size as usize);
        let file = self.reader.open(attempt)?;
        batch.bytes.resize(start + size, 0);
        self.reader.read(&file, 0, &mut batch.bytes[start..])?;
        file.check_unchanged().map_err(Failure::File)?;
        batch.files.push(SmallFile {
            node: attempt.node,
            size,
            digest: Digest::of(&batch.bytes[start..]),
            modified: attempt.modified,
        });
        Ok(())
    }

    /// Reads a large file, and stores its chunks.
    fn cut(
        &self,
        attempt: &Attempt<'_>,
        turn: &mut Turn,
        tools: &mut Tools<S::Local>,
    ) -> Result<(), Failure> {
        let file = self.reader.open(attempt)?;
        let pieces = FilePieces {
            builder: self,
            position: Position {
                node: attempt.node,
                attempt: attempt.number,
                number: 0,
            },
            offset: 0,
            turn,
            local: &mut tools.local,
        };
        let mut cutter = Cutter::new(self.layout, &mut tools.buffer, pieces);
        let (mut at, size) = (0, attempt.state.size);
        while at < size {
            let data = self.reader.next_data(&file, at, size)?;
            cutter.skip(data.start - at)?;
            self.reader.progress.done_bytes(data.start - at);
            at = data.start;
            while at < data.end {
                self.reader.progress.check()?;
                let room = cutter.room();
                let length = (data.end - at).min(room.len() as u64) as usize;
                self.reader.read(&file, at, &mut room[..length])?;
                cutter.take(length)?;
                at += length as u64;
            }
        }
        cutter.finish()?;
        file.check_unchanged().map_err(Failure::File)
    }

    /// Stores a piece, and notes its place.
    fn store(
        &self,
        bytes: Cow<'_, [u8]>,
        place: Place,
        from: &Provenance,
        local: &mut S::Local,
    ) -> Result<()> {
        let length = bytes.len() as u64;
        match place {
            Place::Bundle(number) => {
                let unit = SMALL_FILES;
                let turn = Turn { unit, number };
                let key = self.sink.store(turn, bytes, from, local)?;
                lock(&self.stored).bundles.push((number, key));
            }
            Place::Chunk(turn, position) => {
                let key = self.sink.store(turn, bytes, from, local)?;
                lock(&self.stored).pieces.push(CutPiece {
                    position,
                    data: PieceData::Chunk(key),
                    length,
                });
            }
        }
        Ok(())
    }

    /// Puts together the work of the threads.
    fn finish(self) -> Result<Stored<S::Key>> {
        let read_again = self.reader.finish()?;
        let small = into_inner(self.bundler).placed();
        Ok(into_inner(self.stored).finish(small, read_again))
    }
}

/// Stores the pieces of one file, in this thread or another one.
struct FilePieces<'a, 'b, S: ContentSink> {
    builder: &'a Builder<'b, S>,
    /// The position of the next piece.
    position: Position,
    /// The offset of the next piece in the file.
    offset: u64,
    /// The turn of the next chunk.
    turn: &'a mut Turn,
    local: &'a mut S::Local,
}

impl<S: ContentSink> FilePieces<'_, '_, S> {
    /// Returns the position and the offset of a piece of a length, and moves on.
    fn next_position(&mut self, length: u64) -> (Position, u64) {
        let next = (self.position, self.offset);
        self.position.number += 1;
        self.offset += length;
        next
    }
}

impl<S: ContentSink> PieceSink for FilePieces<'_, '_, S> {
    type Error = Error;

    fn chunk(&mut self, bytes: &[u8]) -> Result<()> {
        let (position, offset) = self.next_position(bytes.len() as u64);
        let place = Place::Chunk(*self.turn, position);
        let from = Provenance::File(position.node, offset);
        self.turn.number += 1;
        let is_taken = self.builder.scheduler.offer(|| Piece {
            bytes: bytes.to_vec(),
            place,
            from: from.clone(),
        });
        if is_taken {
            return Ok(());
        }
        let bytes = Cow::Borrowed(bytes);
        self.builder.store(bytes, place, &from, self.local)
    }

    fn zeros(&mut self, length: u64) -> Result<()> {
        let (position, _) = self.next_position(length);
        self.builder.sink.store_zeros(self.local)?;
        lock(&self.builder.stored).pieces.push(CutPiece {
            position,
            data: PieceData::Zeros,
            length,
        });
        Ok(())
    }
}
