// SPDX-License-Identifier: MIT OR Apache-2.0

//! The contents of a tree's files: read, cut, hashed and put into the store, by several threads.
//!
//! There are three sorts of work. A *batch* of consecutive small files is read and hashed; the
//! packer takes the batches in their order and makes packs of them. A *large* file is read and
//! cut by one thread. A *blob*, which is a pack or a chunk, is hashed and written. Any thread
//! takes any work: blobs first, so that little memory waits in them. The thread that cuts a
//! large file writes its chunks itself as long as there are other files for the other threads,
//! and shares them out when it has the last one.
//!
//! One more thread has what was written go to the disk meanwhile: the builder is not done before it
//! is there, and at the end nothing else is left to do.
//!
//! What comes out does not depend on the number of threads or on who was faster.

use crate::build::build_options::BuildOptions;
use crate::build::layout::Layout;
use crate::build::packer::{Batch, Pack, Packer, SmallFile};
use crate::build::source::{OpenFile, Source};
use crate::error::problems::{Problems, Remedy};
use crate::error::{Error, Result};
use crate::image::seekable::{Compression, Encoder};
use crate::model::digest::Digest;
use crate::model::extent::{Extent, Extents};
use crate::model::rules::XattrSelection;
use crate::model::tree::Fresh;
use crate::model::tree::{FileState, Kind, NodeId, Tree};
use crate::model::verity;
use crate::store::staging::{Content, Placed, Staging};
use crate::sys::parallel::{into_inner, lock};
use crate::sys::pause::{self, Point};
use crate::sys::progress::Progress;
use std::collections::hash_map::{Entry, HashMap};
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::ops::Range;
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;

/// A batch of small files ends at this many bytes or files.
const BATCH_BYTES: u64 = 1 << 20;
const BATCH_FILES: usize = 512;
/// How many batches a thread may be ahead of the packer.
const BATCHES_AHEAD: usize = 8;
/// The most chunks a thread that waits for work has queued up for it.
const CHUNKS_AHEAD: usize = 4;
/// How many bytes are written before they are sent to the disk. Each time costs the filesystem a
/// commit of its journal.
const FLUSH_BYTES: u64 = 48 << 20;
/// The size of one read of a large file.
const READ: usize = 256 << 10;
/// The room for a large file's data that is read and not cut.
const BUFFER: usize = 2 << 20;

/// A data blob of an image.
#[derive(Clone, Copy, Debug)]
pub struct Blob {
    /// Its size in bytes.
    pub size: u64,
    /// Its fs-verity digest.
    pub verity: Digest,
    /// Whether this build brought it to the store.
    pub new: bool,
}

/// Where the contents of a tree's files are.
#[derive(Debug, Default)]
pub struct Contents {
    /// For each node the extents of its contents, in order; none for what is not a file.
    pub extents: Vec<Extents>,
    /// The blobs that they name.
    pub blobs: BTreeMap<Digest, Blob>,
    /// Files that changed while they were read, in the state in which they were read.
    pub(crate) fresh: Vec<(NodeId, Fresh)>,
}

/// Stores the contents of the regular files of a tree, but for those that `skip` has, by their
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
    let builder = Builder {
        source,
        tree,
        layout,
        compression: options.compression.as_ref(),
        xattrs: &options.rules.xattrs,
        retries: options.retry_changed,
        staging,
        progress,
        zeros: zeros_digest(layout),
        jobs,
        batches,
        large,
        schedule: Mutex::default(),
        wake: Condvar::new(),
        flush: Mutex::default(),
        flush_wake: Condvar::new(),
        packer: Mutex::new(Packer::new(layout)),
        blobs: Mutex::default(),
        written: Mutex::default(),
        stored: Mutex::default(),
    };
    progress.start_reading();
    pause::at(Point::Tree);
    thread::scope(|scope| {
        for _ in 1..jobs {
            scope.spawn(|| builder.work());
        }
        scope.spawn(|| builder.flush());
        builder.work();
        lock(&builder.flush).done = true;
        builder.flush_wake.notify_one();
    });
    builder.finish()
}

/// Which small files are read together, and which files are cut on their own, in walk order.
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

/// The digest of the shared blob of zeros.
fn zeros_digest(layout: &Layout) -> Digest {
    Digest::of(&vec![0; layout.zero_blob])
}

struct Builder<'a> {
    source: &'a Source,
    tree: &'a Tree,
    layout: &'a Layout,
    compression: Option<&'a Compression>,
    /// The attributes that are read of a file that is looked at again.
    xattrs: &'a XattrSelection,
    /// The number of times that a file that changes is read again.
    retries: u32,
    staging: &'a Staging<'a>,
    progress: &'a Progress,
    /// The digest of the content of the shared blob of zeros.
    zeros: Digest,
    jobs: usize,
    batches: Vec<Vec<NodeId>>,
    large: Vec<NodeId>,
    schedule: Mutex<Schedule>,
    wake: Condvar,
    flush: Mutex<Flush>,
    flush_wake: Condvar,
    packer: Mutex<Packer<'a>>,
    /// The blob of each content, by the content's digest; none while a thread is at it.
    blobs: Mutex<HashMap<Digest, Option<StoredBlob>>>,
    /// The blobs that were written, or are being.
    written: Mutex<HashSet<Digest>>,
    stored: Mutex<Stored>,
}

/// What there is to do and who is at it.
#[derive(Default)]
struct Schedule {
    blobs: VecDeque<BlobWork>,
    next_batch: usize,
    packed_batches: usize,
    next_large: usize,
    /// Threads at some work: it may lead to more.
    busy: usize,
    /// The first error; everybody stops on it.
    error: Option<Error>,
    /// Problems with files. Once there is one, files are only looked at, not read.
    problems: Problems,
}

/// What there is to send to the disk.
#[derive(Default)]
struct Flush {
    /// Bytes that were written since the last time.
    bytes: u64,
    /// There will be no more.
    done: bool,
}

enum Work {
    Blob(BlobWork),
    Batch(usize),
    Large(NodeId),
}

/// A blob to hash and write.
struct BlobWork {
    bytes: Vec<u8>,
    place: Place,
}

/// What a blob is.
#[derive(Clone, Copy)]
enum Place {
    /// The pack of this number.
    Pack(u32),
    /// The chunk of this number in a file, of an attempt to read it.
    Chunk(NodeId, u32, u32),
}

/// The blob that a content is in.
#[derive(Clone, Copy)]
struct StoredBlob {
    digest: Digest,
    blob: Blob,
    compressed: bool,
}

/// What has come out so far, in any order: digests are those of contents.
#[derive(Default)]
struct Stored {
    packs: Vec<(u32, Digest)>,
    chunks: Vec<Chunk>,
    /// The state of files that were read again, and the attempt that counts.
    fresh: HashMap<NodeId, (u32, Fresh)>,
}

/// A piece of a cut file. A run of zeros is one piece, however long.
struct Chunk {
    node: NodeId,
    attempt: u32,
    number: u32,
    content: Digest,
    length: u64,
}

/// The failure of an attempt to read a file.
enum Failure {
    /// The file cannot be read, or has changed.
    File(Error),
    /// Something else has failed.
    Other(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Other(error)
    }
}

impl Builder<'_> {
    /// What each thread does until all is done or something failed.
    fn work(&self) {
        let mut tools = Tools::default();
        while let Some(work) = self.next_work() {
            let result = self.progress.check().and_then(|()| match work {
                Work::Blob(blob) => self.blob(&blob.bytes, blob.place, &mut tools.encoder),
                Work::Batch(number) => self.batch(number),
                Work::Large(node) => self.large(node, &mut tools),
            });
            let mut schedule = lock(&self.schedule);
            schedule.busy -= 1;
            if let Err(error) = result {
                schedule.error.get_or_insert(error);
            }
            drop(schedule);
            self.wake.notify_all();
        }
    }

    /// What one thread does until the others are done: has what they write go to the disk.
    fn flush(&self) {
        loop {
            let mut flush = lock(&self.flush);
            while flush.bytes < FLUSH_BYTES && !flush.done {
                flush = self
                    .flush_wake
                    .wait(flush)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            // What is left then is for `Staging::commit`.
            if flush.done {
                return;
            }
            flush.bytes = 0;
            drop(flush);
            if let Err(error) = self.staging.flush() {
                // It is told once: the commit would not hear of it.
                lock(&self.schedule).error.get_or_insert(error);
                self.wake.notify_all();
                return;
            }
        }
    }

    /// Takes some work, waiting for it where others may still bring some.
    fn next_work(&self) -> Option<Work> {
        let mut schedule = lock(&self.schedule);
        loop {
            if schedule.error.is_some() {
                return None;
            }
            let work = self.take_work(&mut schedule);
            if work.is_some() {
                schedule.busy += 1;
                return work;
            }
            if schedule.busy == 0 {
                return None;
            }
            schedule = self
                .wake
                .wait(schedule)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn take_work(&self, schedule: &mut Schedule) -> Option<Work> {
        if let Some(blob) = schedule.blobs.pop_front() {
            return Some(Work::Blob(blob));
        }
        if schedule.next_batch < self.batches.len()
            && schedule.next_batch < schedule.packed_batches + BATCHES_AHEAD
        {
            schedule.next_batch += 1;
            return Some(Work::Batch(schedule.next_batch - 1));
        }
        let large = self.large.get(schedule.next_large)?;
        schedule.next_large += 1;
        Some(Work::Large(*large))
    }

    /// Reads a batch of small files and lets the packer have it.
    fn batch(&self, number: usize) -> Result<()> {
        let mut batch = Batch::default();
        for &node in &self.batches[number] {
            let Kind::File(state) = &self.tree.nodes[node as usize].kind else {
                continue;
            };
            let start = batch.bytes.len();
            let read = self.attempts(node, state, |state, modified, _| {
                batch.bytes.truncate(start);
                let size = state.size as usize;
                let open = self.source.open_file(self.tree, node, state);
                let file = open.map_err(Failure::File)?;
                batch.bytes.resize(start + size, 0);
                let read = self.read(&file, 0, &mut batch.bytes[start..]);
                read.and_then(|()| file.check_unchanged())
                    .map_err(Failure::File)?;
                batch.files.push(SmallFile {
                    node,
                    size,
                    digest: Digest::of(&batch.bytes[start..]),
                    modified,
                });
                Ok(())
            })?;
            if !read {
                batch.bytes.truncate(start);
            }
        }
        let mut packer = lock(&self.packer);
        packer.add(number, batch);
        let mut packs = packer.packs();
        if packer.taken() == self.batches.len() {
            packs.extend(packer.last_pack());
        }
        let taken = packer.taken();
        drop(packer);
        let mut schedule = lock(&self.schedule);
        schedule.packed_batches = schedule.packed_batches.max(taken);
        let packs = packs.into_iter().map(|Pack { number, bytes }| BlobWork {
            bytes,
            place: Place::Pack(number),
        });
        schedule.blobs.extend(packs);
        Ok(())
    }

    /// Reads and cuts a large file.
    fn large(&self, node: NodeId, tools: &mut Tools) -> Result<()> {
        let Kind::File(state) = &self.tree.nodes[node as usize].kind else {
            return Ok(());
        };
        self.attempts(node, state, |state, _, attempt| {
            self.cut_file(node, state, attempt, tools)
        })?;
        Ok(())
    }

    fn cut_file(
        &self,
        node: NodeId,
        state: &FileState,
        attempt: u32,
        tools: &mut Tools,
    ) -> Result<(), Failure> {
        let open = self.source.open_file(self.tree, node, state);
        let file = open.map_err(Failure::File)?;
        let room = self.layout.chunk_max + 2 * READ;
        tools.buffer.resize(BUFFER.max(room), 0);
        let mut cutter = Cutter {
            builder: self,
            node,
            attempt,
            number: 0,
            zeros: 0,
            buffer: &mut tools.buffer,
            encoder: &mut tools.encoder,
            data: 0..0,
        };
        let mut at = 0;
        while at < state.size {
            let data = self.next_data(&file, at, state.size);
            let data = data.map_err(Failure::File)?;
            cutter.zeros(data.start - at)?;
            at = data.start;
            while at < data.end {
                self.progress.check()?;
                let room = cutter.room();
                let want = (data.end - at).min(room.len() as u64) as usize;
                let room = &mut room[..want];
                self.read(&file, at, room).map_err(Failure::File)?;
                cutter.take(want)?;
                at += want as u64;
            }
        }
        cutter.finish()?;
        file.check_unchanged().map_err(Failure::File)
    }

    /// Reads a file by a function that gets its state, its modification time and the number of the
    /// attempt. A file that has changed is read again as often as the options say. Returns false if
    /// the file could not be read, which is a problem of the build.
    fn attempts(
        &self,
        node: NodeId,
        state: &FileState,
        mut read: impl FnMut(&FileState, i64, u32) -> Result<(), Failure>,
    ) -> Result<bool> {
        let path = || self.tree.path(node);
        if !lock(&self.schedule).problems.is_empty() {
            if let Err(error) = self.source.open_file(self.tree, node, state).map(drop) {
                let remedy = match &error {
                    Error::Io { .. } => Remedy::LeaveOut(path()),
                    _ => Remedy::Walk,
                };
                lock(&self.schedule).problems.add(error, remedy)?;
            }
            return Ok(false);
        }
        let modified = self.tree.nodes[node as usize].mtime.seconds;
        let mut failed = match read(state, modified, 0) {
            Ok(()) => return Ok(true),
            Err(Failure::Other(error)) => return Err(error),
            Err(Failure::File(error)) => error,
        };
        // A file that still changes after all attempts will go on changing.
        let mut is_gone = false;
        for attempt in 1..=self.retries {
            if !matches!(failed, Error::Changed { .. }) {
                break;
            }
            self.progress.check()?;
            let fresh = match self.source.look_again(self.tree, node, self.xattrs) {
                Ok(fresh) => fresh,
                Err(error) => {
                    failed = error;
                    is_gone = true;
                    break;
                }
            };
            let is_small = self.layout.is_packed(fresh.state.size) && fresh.state.size > 0;
            if is_small != self.layout.is_packed(state.size) {
                // It belongs among the other files now: only a new walk puts it there.
                lock(&self.schedule).problems.add(failed, Remedy::Walk)?;
                return Ok(false);
            }
            match read(&fresh.state, fresh.mtime.seconds, attempt) {
                Ok(()) => {
                    lock(&self.stored).fresh.insert(node, (attempt, fresh));
                    return Ok(true);
                }
                Err(Failure::Other(error)) => return Err(error),
                Err(Failure::File(error)) => failed = error,
            }
        }
        let remedy = match &failed {
            Error::Io { .. } => Remedy::LeaveOut(path()),
            Error::Changed { .. } if is_gone => Remedy::Walk,
            _ => Remedy::None,
        };
        lock(&self.schedule).problems.add(failed, remedy)?;
        Ok(false)
    }

    /// The next range of a file, from `at` on, that is not known to be zeros. Its ends are aligned
    /// to the grid of zeros, or the end of the file. Empty where only zeros are left.
    fn next_data(&self, file: &OpenFile<'_>, at: u64, size: u64) -> Result<Range<u64>> {
        let grid = self.layout.zero_grid as u64;
        let data = file.next_data(at)?;
        let start = (data.start - data.start % grid).clamp(at, size);
        let end = data.end.next_multiple_of(grid).clamp(start, size);
        Ok(start..end)
    }

    /// Fills `buffer` from a file.
    fn read(&self, file: &OpenFile<'_>, at: u64, buffer: &mut [u8]) -> Result<()> {
        file.read(at, buffer)?;
        self.progress.done_bytes(buffer.len() as u64);
        Ok(())
    }

    /// Stores a chunk of a file, here or through another thread that has nothing better to do.
    fn chunk(
        &self,
        bytes: &[u8],
        (node, attempt, number): (NodeId, u32, u32),
        encoder: &mut Option<Encoder>,
    ) -> Result<()> {
        let place = Place::Chunk(node, attempt, number);
        if self.jobs > 1 {
            let mut schedule = lock(&self.schedule);
            let files_left =
                schedule.next_batch < self.batches.len() || schedule.next_large < self.large.len();
            if !files_left && schedule.blobs.len() < CHUNKS_AHEAD * self.jobs {
                schedule.blobs.push_back(BlobWork {
                    bytes: bytes.to_vec(),
                    place,
                });
                drop(schedule);
                self.wake.notify_one();
                return Ok(());
            }
        }
        self.blob(bytes, place, encoder)
    }

    /// Hashes a blob's content, writes the blob if it is the first of its kind, and notes what it is.
    fn blob(&self, bytes: &[u8], place: Place, encoder: &mut Option<Encoder>) -> Result<()> {
        let digest = Digest::of(bytes);
        self.store_content(digest, bytes, encoder)?;
        let mut stored = lock(&self.stored);
        match place {
            Place::Pack(number) => stored.packs.push((number, digest)),
            Place::Chunk(node, attempt, number) => stored.chunks.push(Chunk {
                node,
                attempt,
                number,
                content: digest,
                length: bytes.len() as u64,
            }),
        }
        Ok(())
    }

    /// Notes a run of zeros.
    fn zero_run(
        &self,
        (node, attempt, number): (NodeId, u32, u32),
        length: u64,
        encoder: &mut Option<Encoder>,
    ) -> Result<()> {
        if !lock(&self.blobs).contains_key(&self.zeros) {
            self.store_content(self.zeros, &vec![0; self.layout.zero_blob], encoder)?;
        }
        lock(&self.stored).chunks.push(Chunk {
            node,
            attempt,
            number,
            content: self.zeros,
            length,
        });
        Ok(())
    }

    /// Stores a content of this digest, if it is the first of its kind: compressed, if it is to be
    /// and that is worth it.
    fn store_content(
        &self,
        content: Digest,
        bytes: &[u8],
        encoder: &mut Option<Encoder>,
    ) -> Result<()> {
        match lock(&self.blobs).entry(content) {
            Entry::Occupied(_) => return Ok(()),
            // Claims it: no other thread does the same. The record is completed below.
            Entry::Vacant(entry) => entry.insert(None),
        };
        let stored = match self.compressed(bytes, encoder)? {
            Some(compressed) => self.store_blob(Digest::of(&compressed), &compressed, true)?,
            None => self.store_blob(content, bytes, false)?,
        };
        lock(&self.blobs).insert(content, Some(stored));
        Ok(())
    }

    /// The bytes of a compressed blob, if there is to be one.
    fn compressed(&self, bytes: &[u8], encoder: &mut Option<Encoder>) -> Result<Option<Vec<u8>>> {
        let Some(compression) = self.compression else {
            return Ok(None);
        };
        let fail = |error| Error::io(&self.staging.path, "compress a blob in")(error);
        let encoder = match encoder {
            Some(encoder) => encoder,
            None => encoder.insert(Encoder::new(compression).map_err(fail)?),
        };
        encoder.encode(bytes).map_err(fail)
    }

    fn store_blob(&self, digest: Digest, bytes: &[u8], compressed: bool) -> Result<StoredBlob> {
        // One content may, as it is, be what another becomes by compression.
        let first = lock(&self.written).insert(digest);
        let pieces = [bytes];
        let content = if digest == self.zeros {
            Content::Zeros(bytes.len() as u64)
        } else {
            Content::Bytes(&pieces)
        };
        let new = first && self.staging.put(&digest, content)? == Placed::New;
        if new {
            let mut flush = lock(&self.flush);
            flush.bytes += bytes.len() as u64;
            if flush.bytes >= FLUSH_BYTES {
                self.flush_wake.notify_one();
            }
        }
        Ok(StoredBlob {
            digest,
            blob: Blob {
                size: bytes.len() as u64,
                verity: verity::digest(bytes),
                new,
            },
            compressed,
        })
    }

    /// Puts together what the threads brought.
    fn finish(self) -> Result<Contents> {
        let schedule = into_inner(self.schedule);
        if let Some(error) = schedule.error {
            return Err(error);
        }
        if !schedule.problems.is_empty() {
            return Err(Error::Problems(Box::new(schedule.problems)));
        }
        let mut stored = into_inner(self.stored);
        let attempts = &stored.fresh;
        let counts = |chunk: &Chunk| {
            let attempt = attempts.get(&chunk.node).map_or(0, |(attempt, _)| *attempt);
            chunk.attempt == attempt
        };
        stored.chunks.retain(counts);
        let contents: HashMap<Digest, StoredBlob> = into_inner(self.blobs)
            .into_iter()
            .filter_map(|(content, blob)| Some((content, blob?)))
            .collect();
        let extent = |content: &Digest, offset: u64, length: u64| {
            // Every content that was noted has been stored before.
            let stored = contents[content];
            Extent {
                blob: stored.digest,
                offset,
                length,
                compressed: stored.compressed,
            }
        };
        let mut extents = vec![Extents::default(); self.tree.nodes.len()];
        stored.packs.sort_unstable_by_key(|&(number, _)| number);
        for file in into_inner(self.packer).placed() {
            let (number, content) = stored.packs[file.pack as usize];
            debug_assert_eq!(number, file.pack);
            let only = extent(&content, file.offset.into(), file.size.into());
            extents[file.node as usize] = Extents::One(only);
        }
        stored
            .chunks
            .sort_unstable_by_key(|chunk| (chunk.node, chunk.number));
        for chunk in &stored.chunks {
            let extents = &mut extents[chunk.node as usize];
            let piece = if chunk.content == self.zeros {
                self.layout.zero_blob as u64
            } else {
                chunk.length
            };
            let mut left = chunk.length;
            while left > 0 {
                let length = left.min(piece);
                extents.push(extent(&chunk.content, 0, length));
                left -= length;
            }
        }
        let mut blobs = BTreeMap::new();
        for StoredBlob { digest, blob, .. } in contents.values() {
            let known: &mut Blob = blobs.entry(*digest).or_insert(*blob);
            known.new |= blob.new;
        }
        if !stored.fresh.is_empty() {
            // An attempt that does not count may have stored blobs that no file has.
            let named = extents.iter().flat_map(|extents| extents.iter());
            let named: HashSet<Digest> = named.map(|extent| extent.blob).collect();
            blobs.retain(|digest, _| named.contains(digest));
        }
        let mut fresh: Vec<_> = stored.fresh.into_iter().collect();
        fresh.sort_unstable_by_key(|(node, _)| *node);
        let fresh = fresh.into_iter().map(|(node, (_, fresh))| (node, fresh));
        Ok(Contents {
            extents,
            blobs,
            fresh: fresh.collect(),
        })
    }
}

/// What a thread has for itself.
#[derive(Default)]
struct Tools {
    /// For the data of a large file.
    buffer: Vec<u8>,
    encoder: Option<Encoder>,
}

/// Cuts one file's data as it comes.
struct Cutter<'a, 'b> {
    builder: &'a Builder<'b>,
    node: NodeId,
    /// The attempt to read it.
    attempt: u32,
    /// The number of the next chunk.
    number: u32,
    /// Zeros that were met and are not noted yet.
    zeros: u64,
    buffer: &'a mut [u8],
    encoder: &'a mut Option<Encoder>,
    /// The part of `buffer` that is data and not cut yet.
    data: Range<usize>,
}

impl Cutter<'_, '_> {
    /// The place for the next data: a multiple of the grid of zeros.
    fn room(&mut self) -> &mut [u8] {
        if self.buffer.len() - self.data.end < READ {
            self.buffer.copy_within(self.data.clone(), 0);
            self.data = 0..self.data.len();
        }
        &mut self.buffer[self.data.end..][..READ]
    }

    /// Takes the `length` bytes that were read into [`Cutter::room`], from a multiple of the
    /// grid of zeros in the file.
    fn take(&mut self, length: usize) -> Result<()> {
        let layout = self.builder.layout;
        let end = self.data.end + length;
        while self.data.end < end {
            let block = self.data.end..end.min(self.data.end + layout.zero_grid);
            if is_zero(&self.buffer[block.clone()]) {
                self.zeros_read(block)?;
            } else {
                self.flush_zeros()?;
                self.data.end = block.end;
            }
        }
        self.cut(false)
    }

    /// A block of the buffer, next after the data, holds only zeros.
    fn zeros_read(&mut self, block: Range<usize>) -> Result<()> {
        self.cut(true)?;
        self.zeros += block.len() as u64;
        self.data = block.end..block.end;
        Ok(())
    }

    /// Takes zeros that were not read.
    fn zeros(&mut self, length: u64) -> Result<()> {
        if length > 0 {
            self.cut(true)?;
            self.zeros += length;
            self.builder.progress.done_bytes(length);
        }
        Ok(())
    }

    /// The place of the next chunk.
    fn place(&self) -> (NodeId, u32, u32) {
        (self.node, self.attempt, self.number)
    }

    fn flush_zeros(&mut self) -> Result<()> {
        if self.zeros > 0 {
            let place = self.place();
            self.builder.zero_run(place, self.zeros, self.encoder)?;
            self.number += 1;
            self.zeros = 0;
        }
        Ok(())
    }

    /// Cuts what can be cut; all of it where the run of data ends here.
    fn cut(&mut self, last: bool) -> Result<()> {
        while let Some(length) = self
            .builder
            .layout
            .next_chunk(&self.buffer[self.data.clone()], last)
        {
            let chunk = self.data.start..self.data.start + length;
            let bytes = &self.buffer[chunk.clone()];
            let place = (self.node, self.attempt, self.number);
            self.builder.chunk(bytes, place, self.encoder)?;
            self.number += 1;
            self.data.start = chunk.end;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<()> {
        self.cut(true)?;
        self.flush_zeros()
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    const ZEROS: [u8; 4096] = [0; 4096];
    bytes
        .chunks(ZEROS.len())
        .all(|piece| *piece == ZEROS[..piece.len()])
}
