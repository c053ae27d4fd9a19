// SPDX-License-Identifier: MIT OR Apache-2.0

//! The contents of a tree's files: read, cut, hashed and put into the store, by several threads.
//!
//! A *batch* of consecutive small files is read and hashed; the packer takes the batches in their
//! order and makes packs. A *large* file is read and cut by one thread. A *blob*, a pack or a chunk,
//! is hashed and written. [`scheduler`](crate::build::scheduler) distributes this work: batches are
//! its batches, large files its tasks, blobs its follow-ups. The thread that cuts a large file
//! writes the chunks itself while there are other files for the other threads; chunks of the last
//! files are shared out.
//!
//! The result depends neither on the number of threads nor on their speed.
//!
//! | module | content |
//! | --- | --- |
//! | `placement` | the extents of all files |
//! | `writer` | compresses contents, writes each blob once |
//! | `attempts` | reads files that may change meanwhile |
//! | `cutter` | cuts one file |

mod attempts;
mod cutter;
mod placement;
mod writer;

pub use crate::build::contents::writer::Blob;

use crate::build::build_options::BuildOptions;
use crate::build::contents::attempts::{Attempt, Failure, FileReader};
use crate::build::contents::cutter::{Cutter, PieceSink};
use crate::build::contents::placement::{CutPiece, Position, Stored};
use crate::build::contents::writer::Writer;
use crate::build::flusher::Flusher;
use crate::build::layout::Layout;
use crate::build::packer::{Batch, Pack, Packer, SmallFile};
use crate::build::scheduler::{Limits, Scheduler, Totals, Work};
use crate::build::source::Source;
use crate::error::{Error, Result};
use crate::image::seekable::Encoder;
use crate::model::digest::Digest;
use crate::model::extent::Extents;
use crate::model::tree::{FileState, Fresh, Kind, NodeId, Tree};
use crate::store::staging::Staging;
use crate::sys::parallel::{into_inner, lock};
use crate::sys::pause::{self, Point};
use crate::sys::progress::Progress;
use std::collections::BTreeMap;
use std::sync::Mutex;

/// A batch of small files ends at this many bytes or files.
const BATCH_BYTES: u64 = 1 << 20;
const BATCH_FILES: usize = 512;
/// The number of batches that are read ahead of the packer.
const BATCHES_AHEAD: usize = 8;
/// The number of chunks that wait for each thread.
const CHUNKS_AHEAD: usize = 4;

/// The places of the contents of a tree's files.
#[derive(Debug, Default)]
pub struct Contents {
    /// For each node the extents of its contents, in order; none if it is not a file.
    pub extents: Vec<Extents>,
    /// The blobs that they name.
    pub blobs: BTreeMap<Digest, Blob>,
    /// Files that changed while they were read, in the state in which they were read.
    pub(crate) fresh: Vec<(NodeId, Fresh)>,
}

/// Stores the contents of the regular files of a tree, except those that `skip` has, by their
/// nodes.
pub(crate) fn store_contents(
    source: &Source,
    tree: &Tree,
    skip: &[bool],
    options: &BuildOptions,
    staging: &Staging<'_>,
    progress: &Progress,
) -> Result<Contents> {
    let layout = &options.layout;
    let jobs = options.jobs.max(1);
    let (batches, large) = plan(tree, skip, layout);
    let totals = Totals {
        batches: batches.len(),
        tasks: large.len(),
    };
    let limits = Limits {
        batches_ahead: BATCHES_AHEAD,
        follow_ups: CHUNKS_AHEAD * jobs,
    };
    let flusher = Flusher::default();
    let builder = Builder {
        batches,
        large,
        layout,
        scheduler: Scheduler::new(jobs, totals, limits),
        reader: FileReader {
            source,
            tree,
            layout,
            xattrs: &options.rules.xattrs,
            retries: options.retry_changed,
            progress,
            problems: Mutex::default(),
            read_again: Mutex::default(),
        },
        packer: Mutex::new(Packer::new(layout)),
        writer: Writer::new(layout, options.compression.as_ref(), staging, &flusher),
        stored: Mutex::default(),
    };
    progress.start_reading();
    pause::at(Point::Tree);
    flusher.beside(
        || staging.flush(),
        || builder.scheduler.stop(),
        || builder.scheduler.run(&builder, progress),
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
            Kind::File(state) if layout.is_packed(state.size) => {
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
struct Builder<'a> {
    batches: Vec<Vec<NodeId>>,
    large: Vec<NodeId>,
    layout: &'a Layout,
    scheduler: Scheduler<BlobWork>,
    reader: FileReader<'a>,
    packer: Mutex<Packer<'a>>,
    writer: Writer<'a>,
    stored: Mutex<Stored>,
}

/// A blob to hash and write.
struct BlobWork {
    bytes: Vec<u8>,
    place: Place,
}

/// The use of a blob.
#[derive(Clone, Copy)]
enum Place {
    /// It is the pack of this number.
    Pack(u32),
    /// It is a chunk of a file.
    Chunk(Position),
}

/// State that a thread has for itself.
#[derive(Default)]
struct Tools {
    /// For the data of a large file.
    buffer: Vec<u8>,
    encoder: Option<Encoder>,
}

impl Work for Builder<'_> {
    type Local = Tools;
    type Batch = Batch;
    type FollowUp = BlobWork;

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

    /// Packs a batch.
    fn merge(&self, batch: Batch, is_last: bool) -> Result<Vec<BlobWork>> {
        let mut packer = lock(&self.packer);
        let mut packs = packer.add(batch);
        if is_last {
            packs.extend(packer.last_pack());
        }
        let packs = packs.into_iter().map(|Pack { number, bytes }| BlobWork {
            bytes,
            place: Place::Pack(number),
        });
        Ok(packs.collect())
    }

    /// Reads and cuts a large file.
    fn task(&self, number: usize, tools: &mut Tools) -> Result<()> {
        self.reader
            .attempt(self.large[number], |attempt| self.cut(attempt, tools))?;
        Ok(())
    }

    fn follow_up(&self, work: BlobWork, tools: &mut Tools) -> Result<()> {
        self.store(&work.bytes, work.place, &mut tools.encoder)
    }
}

impl Builder<'_> {
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
    fn cut(&self, attempt: &Attempt<'_>, tools: &mut Tools) -> Result<(), Failure> {
        let file = self.reader.open(attempt)?;
        let pieces = FilePieces {
            builder: self,
            position: Position {
                node: attempt.node,
                attempt: attempt.number,
                number: 0,
            },
            encoder: &mut tools.encoder,
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

    /// Hashes a blob's content, writes the blob if it is the first of its kind, and notes its place.
    fn store(&self, bytes: &[u8], place: Place, encoder: &mut Option<Encoder>) -> Result<()> {
        let content = Digest::of(bytes);
        self.writer.store(content, bytes, encoder)?;
        let length = bytes.len() as u64;
        let mut stored = lock(&self.stored);
        match place {
            Place::Pack(number) => stored.packs.push((number, content)),
            Place::Chunk(position) => stored.pieces.push(CutPiece {
                position,
                content,
                length,
                unit: length,
            }),
        }
        Ok(())
    }

    /// Puts together the work of the threads.
    fn finish(self) -> Result<Contents> {
        let nodes = self.reader.tree.nodes.len();
        let read_again = self.reader.finish()?;
        let mut stored = into_inner(self.stored);
        stored.retain_last_attempts(&read_again);
        let contents = self.writer.into_stored();
        let packed = into_inner(self.packer).placed();
        let extents = stored.extents(nodes, &packed, &contents);
        let mut blobs = placement::blobs(&contents);
        if !read_again.is_empty() {
            // An attempt that does not count may have stored blobs of no file.
            placement::retain_referenced(&mut blobs, &extents);
        }
        let mut fresh: Vec<_> = read_again.into_iter().collect();
        fresh.sort_unstable_by_key(|(node, _)| *node);
        let fresh = fresh.into_iter().map(|(node, (_, fresh))| (node, fresh));
        Ok(Contents {
            extents,
            blobs,
            fresh: fresh.collect(),
        })
    }
}

/// Stores the pieces of one file, in this thread or another one.
struct FilePieces<'a, 'b> {
    builder: &'a Builder<'b>,
    /// The position of the next piece.
    position: Position,
    encoder: &'a mut Option<Encoder>,
}

impl FilePieces<'_, '_> {
    /// Returns the position of a piece, and moves on.
    fn next_position(&mut self) -> Position {
        let position = self.position;
        self.position.number += 1;
        position
    }
}

impl PieceSink for FilePieces<'_, '_> {
    type Error = Error;

    fn chunk(&mut self, bytes: &[u8]) -> Result<()> {
        let place = Place::Chunk(self.next_position());
        let is_taken = self.builder.scheduler.offer(|| BlobWork {
            bytes: bytes.to_vec(),
            place,
        });
        if is_taken {
            return Ok(());
        }
        self.builder.store(bytes, place, self.encoder)
    }

    fn zeros(&mut self, length: u64) -> Result<()> {
        let position = self.next_position();
        let content = self.builder.writer.store_zeros(self.encoder)?;
        lock(&self.builder.stored).pieces.push(CutPiece {
            position,
            content,
            length,
            unit: self.builder.layout.zero_blob as u64,
        });
        Ok(())
    }
}
