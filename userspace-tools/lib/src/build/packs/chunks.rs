// SPDX-License-Identifier: MIT OR Apache-2.0

//! Encodes contents as chunks, and writes each once, in the order of turns.
//!
//! A thread that brings a content encodes it, and then writes all chunks whose turn it is, unless another
//! thread is writing already. So each chunk is encoded by the thread that read it, and one thread at a
//! time hashes and writes packs.
//!
//! Chunks that wait for their turns are in memory up to [`PackPolicy::held`], and beyond that in a file. A
//! thread waits only while another one is writing.
//!
//! Lock order: the packs, then the state.

use crate::build::blocks::extent::{ExtentData, FileExtent};
use crate::build::blocks::StoredChunk;
use crate::build::contents::{
    store_contents, ContentSink, PieceData, Provenance, Reading, Stored as StoredContents, Turn,
};
use crate::build::flusher::Flusher;
use crate::build::packs::first::{self, FirstFiles};
use crate::build::packs::known::{KnownChunks, KnownPack};
use crate::build::packs::order::Order;
use crate::build::packs::parent::Parent;
use crate::build::packs::spill::{Spill, Spilled};
use crate::build::packs::writer::{PackPolicy, PackWriter, WrittenPack};
use crate::error::Result;
use crate::model::chunk::ChunkEncoder;
use crate::model::count::Count;
use crate::model::digest::Digest;
use crate::model::tree::{Fresh, NodeId};
use crate::store::chunks::reader::ChunkReader;
use crate::store::chunks::update::NewPack;
use crate::store::staging::Staging;
use crate::sys::parallel::{into_inner, lock};
use puzzlefs_schema::v4::ChunkRef;
use std::borrow::Cow;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::mem;
use std::sync::{Condvar, Mutex, PoisonError};

/// The number of bytes that a thread takes to write before it looks for more.
const RUN_BYTES: usize = 4 << 20;

/// The contents of a tree as chunks, and the packs that are being written.
pub(crate) struct PackedContents<'a> {
    /// For each node the extents of its contents; none if it is not a file.
    pub extents: Vec<Vec<FileExtent>>,
    /// Files that changed while they were read, in the state in which they were read.
    pub fresh: Vec<(NodeId, Fresh)>,
    pub packs: Packs<'a>,
}

/// Stores the contents of the regular files of a tree as chunks.
pub(crate) fn store_chunks<'a>(
    reading: &Reading<'_>,
    encoder: &ChunkEncoder,
    parent: Option<&Parent<'_>>,
    first: Option<&FirstFiles>,
    packs: Packs<'a>,
    flusher: &Flusher,
) -> Result<PackedContents<'a>> {
    let sink = ChunkSink {
        encoder,
        parent,
        known: packs.known,
        is_ordered: first.is_some(),
        spill: Spill::new(&reading.staging.path),
        most_held: packs.policy.held,
        state: Mutex::default(),
        written: Condvar::new(),
        packs: Mutex::new(packs),
    };
    let stored = store_contents(reading, &sink, flusher)?;
    let extents = extents(
        reading.tree.nodes.len(),
        &stored,
        &lock(&sink.state).contents,
    );
    if let Some(first) = first {
        sink.write_first(&first.chunks(&extents))?;
        sink.write_all_ready()?;
    }
    debug_assert!(lock(&sink.state).order.is_empty());
    Ok(PackedContents {
        extents,
        fresh: stored.fresh,
        packs: into_inner(sink.packs),
    })
}

/// Stores contents as chunks for several threads.
struct ChunkSink<'a, 'e, 's> {
    encoder: &'e ChunkEncoder,
    parent: Option<&'e Parent<'s>>,
    known: &'a KnownChunks<'a>,
    /// Chunks wait until all contents are known, because those of a start-up order are written first.
    is_ordered: bool,
    spill: Spill<'e>,
    /// The number of bytes in memory beyond which chunks wait in the spill.
    most_held: usize,
    state: Mutex<State>,
    /// Wakes threads that wait for one that is writing.
    written: Condvar,
    packs: Mutex<Packs<'a>>,
}

#[derive(Default)]
struct State {
    /// The contents whose turns have come to be known.
    order: Order<ContentKey>,
    contents: HashMap<ContentKey, Encoded>,
    /// The number of bytes in memory of encoded chunks.
    held: usize,
    /// A thread is writing.
    is_writing: bool,
}

/// Identifies a content. Each variant is a namespace of its own, because a file can have the digests of
/// other files as its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum ContentKey {
    /// The SHA-256 of the content.
    Content(Digest),
    /// The SHA-256 of the SHA-256 of each file of a bundle. It saves hashing the contents again.
    Files(Digest),
    /// The digest of a chunk of the parent that has the content.
    Chunk(Digest),
}

/// The chunk of a content.
enum Encoded {
    /// A thread is encoding it.
    Not,
    /// It waits for its turn.
    Waiting(ChunkRef, Place),
    /// A thread has written it or is writing it.
    Written(ChunkRef),
}

impl Encoded {
    /// Takes a chunk that waits. It is then being written.
    fn take(&mut self) -> Option<(ChunkRef, Place)> {
        let Encoded::Waiting(chunk, _) = self else {
            return None;
        };
        let written = Encoded::Written(*chunk);
        match mem::replace(self, written) {
            Encoded::Waiting(chunk, place) => Some((chunk, place)),
            _ => None,
        }
    }
}

/// The place of a chunk that waits for its turn.
enum Place {
    Memory(Vec<u8>),
    File(Spilled),
    /// In a pack of the store.
    Known(KnownPack),
}

impl ContentSink for ChunkSink<'_, '_, '_> {
    /// The content of a chunk of the parent.
    type Local = Vec<u8>;
    type Key = ContentKey;

    fn store(
        &self,
        turn: Turn,
        bytes: Cow<'_, [u8]>,
        from: &Provenance,
        local: &mut Self::Local,
    ) -> Result<ContentKey> {
        let reused = match self.parent {
            Some(parent) => self.reuse(parent, &bytes, from, local)?,
            None => None,
        };
        let content = match (&reused, from) {
            (Some((chunk, _)), _) => ContentKey::Chunk(Digest::from(*chunk.digest())),
            (None, Provenance::Bundle { digest, .. }) => ContentKey::Files(*digest),
            (None, Provenance::File(..)) => ContentKey::Content(Digest::of(&bytes)),
        };
        let is_first = {
            let mut state = lock(&self.state);
            state.order.push(turn, content);
            match state.contents.entry(content) {
                Entry::Occupied(_) => false,
                Entry::Vacant(entry) => {
                    entry.insert(Encoded::Not);
                    true
                }
            }
        };
        if is_first {
            let (chunk, place) = match reused {
                Some((chunk, pack)) => {
                    if let Some(parent) = self.parent {
                        parent.reused(&chunk);
                    }
                    (chunk, Place::Known(pack))
                }
                None => self.compress(&content, bytes)?,
            };
            let encoded = Encoded::Waiting(chunk, place);
            lock(&self.state).contents.insert(content, encoded);
        }
        self.write_ready()?;
        Ok(content)
    }

    /// Runs of zeros are holes.
    fn store_zeros(&self, _: &mut Self::Local) -> Result<()> {
        Ok(())
    }

    fn end_unit(&self, unit: u32, turns: u32) -> Result<()> {
        lock(&self.state).order.end_unit(unit, turns);
        self.write_ready()
    }
}

impl ChunkSink<'_, '_, '_> {
    /// Returns the chunk of the parent with a content, and the pack of the store that has it.
    fn reuse(
        &self,
        parent: &Parent<'_>,
        bytes: &[u8],
        from: &Provenance,
        buffer: &mut Vec<u8>,
    ) -> Result<Option<(ChunkRef, KnownPack)>> {
        let Some(chunk) = parent.find(bytes, from, buffer) else {
            return Ok(None);
        };
        let Some(pack) = self.known.find(&chunk)? else {
            return Ok(None);
        };
        Ok(Some((chunk, pack)))
    }

    /// Encodes a content, and keeps its stored bytes unless the store has the chunk.
    fn compress(&self, content: &ContentKey, bytes: Cow<'_, [u8]>) -> Result<(ChunkRef, Place)> {
        let digest = match content {
            ContentKey::Content(digest) => Some(digest),
            ContentKey::Files(_) | ContentKey::Chunk(_) => None,
        };
        let encoded = self.encoder.encode_hashed(&bytes, digest)?;
        let chunk = encoded.chunk;
        let is_damaged = |parent: &Parent<'_>| parent.is_unreadable(&chunk);
        let known = if self.parent.is_some_and(is_damaged) {
            None
        } else {
            self.known.find(&chunk)?
        };
        let place = match known {
            Some(pack) => Place::Known(pack),
            None => {
                let stored = match encoded.stored {
                    Cow::Owned(frame) => frame,
                    Cow::Borrowed(_) => bytes.into_owned(),
                };
                self.hold(stored)?
            }
        };
        Ok((chunk, place))
    }

    /// Keeps stored bytes in memory, or in a file if there are too many.
    fn hold(&self, stored: Vec<u8>) -> Result<Place> {
        let mut state = lock(&self.state);
        while state.is_writing && state.held >= self.most_held {
            let waited = self.written.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
        if state.held < self.most_held {
            state.held += stored.len();
            return Ok(Place::Memory(stored));
        }
        drop(state);
        self.spill.write(&stored).map(Place::File)
    }

    /// Writes the chunks whose turn it is, unless another thread is writing or others come first.
    fn write_ready(&self) -> Result<()> {
        if self.is_ordered {
            return Ok(());
        }
        self.write_all_ready()
    }

    /// Writes these chunks, when all contents are known.
    ///
    /// If the store has most of them in order, they stay there. Otherwise they are all written together.
    fn write_first(&self, chunks: &[ChunkRef]) -> Result<()> {
        let mut places = Vec::new();
        for chunk in chunks {
            places.extend(self.known.find_place(chunk)?.map(|(_, place)| place));
        }
        let copied = (!first::is_sequential(&places)).then(|| self.known.reader());
        let copied = copied.transpose()?;
        let mut contents = HashMap::new();
        for (content, encoded) in &lock(&self.state).contents {
            if let Encoded::Waiting(chunk, place) = encoded {
                // Of two contents with one chunk, either will do. What the store has needs no memory.
                if matches!(place, Place::Known(_)) || !contents.contains_key(chunk) {
                    contents.insert(*chunk, *content);
                }
            }
        }
        let (mut packs, mut stored) = (lock(&self.packs), Vec::new());
        for chunk in chunks {
            let Some(content) = contents.get(chunk) else {
                continue;
            };
            let taken = lock(&self.state).take(content);
            match taken {
                Some((chunk, Place::Known(pack))) => {
                    let digest = Digest::from(*chunk.digest());
                    let mut copy = |reader: &ChunkReader<'_>| {
                        let read = reader.read_stored(&digest, &mut stored);
                        // A chunk without an intact copy stays where the index says that it is.
                        read.is_ok()
                    };
                    if copied.as_ref().is_some_and(&mut copy) {
                        packs.copy(&chunk, &stored)?;
                    } else {
                        packs.add(&chunk, Place::Known(pack), self)?;
                    }
                }
                Some((chunk, place)) => packs.add(&chunk, place, self)?,
                None => {}
            }
        }
        Ok(())
    }

    /// Writes the chunks whose turn it is, unless another thread is writing.
    fn write_all_ready(&self) -> Result<()> {
        loop {
            let ready = {
                let mut state = lock(&self.state);
                if state.is_writing {
                    return Ok(());
                }
                let ready = state.take_ready();
                if ready.is_empty() {
                    return Ok(());
                }
                state.is_writing = true;
                ready
            };
            let writing = Writing(self);
            let mut packs = lock(&self.packs);
            for (chunk, place) in ready {
                packs.add(&chunk, place, self)?;
            }
            drop(packs);
            drop(writing);
        }
    }
}

/// Stands for the thread that is writing, until it is dropped.
struct Writing<'a, 'b, 'c, 'd>(&'a ChunkSink<'b, 'c, 'd>);

impl Drop for Writing<'_, '_, '_, '_> {
    fn drop(&mut self) {
        lock(&self.0.state).is_writing = false;
        self.0.written.notify_all();
    }
}

impl State {
    /// Takes chunks whose turn it is.
    fn take_ready(&mut self) -> Vec<(ChunkRef, Place)> {
        let (mut ready, mut bytes) = (Vec::new(), 0);
        while bytes < RUN_BYTES {
            let Some(encoded) = self
                .order
                .peek()
                .and_then(|content| self.contents.get_mut(content))
            else {
                break;
            };
            if let Encoded::Not = encoded {
                break;
            }
            if let Some((chunk, place)) = encoded.take() {
                bytes += chunk.stored_len() as usize;
                ready.push((chunk, place));
            }
            self.order.pop();
        }
        ready
    }

    /// Takes the chunk of a content, if it waits.
    fn take(&mut self, content: &ContentKey) -> Option<(ChunkRef, Place)> {
        self.contents.get_mut(content).and_then(Encoded::take)
    }
}

/// The packs with the chunks of an image.
pub(crate) struct Packs<'a> {
    known: &'a KnownChunks<'a>,
    policy: PackPolicy,
    writer: PackWriter<'a>,
    /// The digests of the chunks that were added.
    added: HashSet<Digest>,
    /// The packs of the store with chunks of the image, in the order of their first use.
    used: Vec<KnownPack>,
    /// The chunks that the store did not have, and those that it had.
    new: Count,
    shared: Count,
}

/// The packs that together hold all chunks of an image.
pub(crate) struct ImagePacks {
    /// Their digests and sizes. The first one begins with the root, unless the store had the root.
    pub layers: Vec<KnownPack>,
    /// The packs that were written.
    pub written: Vec<NewPack>,
    /// The packs that the store did not have, and those that it had.
    pub new_packs: Count,
    pub shared_packs: Count,
    /// The chunks with data of files that the store did not have, and those that it had.
    pub new: Count,
    pub shared: Count,
    /// The chunks with metadata.
    pub metadata: Count,
}

impl<'a> Packs<'a> {
    /// Packs in a staging directory. `known` has the chunks that are not written again. `flusher`
    /// hears of each write.
    pub fn new(
        staging: &'a Staging<'a>,
        known: &'a KnownChunks<'a>,
        flusher: &'a Flusher,
        policy: PackPolicy,
    ) -> Self {
        Packs {
            known,
            policy,
            writer: PackWriter::new(staging, flusher, policy),
            added: HashSet::new(),
            used: Vec::new(),
            new: Count::default(),
            shared: Count::default(),
        }
    }

    /// Adds a chunk with data, unless it was added before.
    fn add(&mut self, chunk: &ChunkRef, place: Place, sink: &ChunkSink<'_, '_, '_>) -> Result<()> {
        let digest = Digest::from(*chunk.digest());
        let is_first = self.added.insert(digest);
        let stored = match place {
            Place::Known(pack) if is_first => {
                self.shared.add(chunk.stored_len().into());
                self.use_pack(pack);
                return Ok(());
            }
            Place::Known(_) => return Ok(()),
            Place::Memory(stored) => {
                lock(&sink.state).held -= stored.len();
                stored
            }
            Place::File(spilled) => sink.spill.read(spilled)?,
        };
        if is_first {
            self.new.add(chunk.stored_len().into());
            self.writer.add(&digest, &stored)?;
        }
        Ok(())
    }

    /// Adds a chunk that another pack of the store has, too, unless it was added before.
    fn copy(&mut self, chunk: &ChunkRef, stored: &[u8]) -> Result<()> {
        let digest = Digest::from(*chunk.digest());
        if self.added.insert(digest) {
            self.shared.add(chunk.stored_len().into());
            self.writer.add(&digest, stored)?;
        }
        Ok(())
    }

    fn use_pack(&mut self, pack: KnownPack) {
        if !self.used.contains(&pack) {
            self.used.push(pack);
        }
    }

    /// Adds the metadata, of which the root is first, and completes the packs.
    pub fn finish<'c>(
        mut self,
        metadata: impl IntoIterator<Item = &'c StoredChunk>,
    ) -> Result<ImagePacks> {
        let mut count = Count::default();
        let (mut found, mut missing) = (Vec::new(), Vec::new());
        for StoredChunk { chunk, stored } in metadata {
            let digest = Digest::from(*chunk.digest());
            count.add(chunk.stored_len().into());
            if !self.added.insert(digest) {
                continue;
            }
            match self.known.find(chunk)? {
                Some(pack) => found.push(pack),
                None => missing.push((digest, &stored[..])),
            }
        }
        let data = mem::take(&mut self.used);
        for pack in found.into_iter().chain(data) {
            self.use_pack(pack);
        }
        let written = self.writer.finish(missing.into_iter())?;
        Ok(ImagePacks::new(
            written,
            self.used,
            [self.new, self.shared, count],
        ))
    }
}

impl ImagePacks {
    fn new(
        written: Vec<WrittenPack>,
        used: Vec<KnownPack>,
        [new, shared, metadata]: [Count; 3],
    ) -> Self {
        let (mut new_packs, mut shared_packs) = (Count::default(), Count::default());
        for pack in &written {
            let count = if pack.new {
                &mut new_packs
            } else {
                &mut shared_packs
            };
            count.add(pack.size);
        }
        for pack in &used {
            shared_packs.add(pack.size);
        }
        let layers = written.iter().map(|written| KnownPack {
            digest: written.pack.digest,
            size: written.size,
        });
        ImagePacks {
            layers: layers.chain(used).collect(),
            written: written.into_iter().map(|written| written.pack).collect(),
            new_packs,
            shared_packs,
            new,
            shared,
            metadata,
        }
    }
}

/// Returns the extents of each of `nodes` nodes. `contents` has the chunk of each content.
fn extents(
    nodes: usize,
    stored: &StoredContents<ContentKey>,
    contents: &HashMap<ContentKey, Encoded>,
) -> Vec<Vec<FileExtent>> {
    let chunk = |content: &ContentKey, offset: u32| match contents.get(content) {
        Some(Encoded::Written(chunk) | Encoded::Waiting(chunk, _)) => ExtentData::Chunk {
            chunk: *chunk,
            offset,
        },
        // Each thread has ended.
        _ => unreachable!("each content is encoded before the places are put together"),
    };
    let mut extents = vec![Vec::new(); nodes];
    for file in &stored.small {
        let data = chunk(stored.bundle(file), file.offset);
        extents[file.node as usize] = vec![FileExtent { offset: 0, data }];
    }
    let (mut node, mut offset) = (None, 0);
    for piece in &stored.pieces {
        if node.replace(piece.position.node) != Some(piece.position.node) {
            offset = 0;
        }
        let data = match &piece.data {
            PieceData::Chunk(content) => chunk(content, 0),
            PieceData::Zeros => ExtentData::Hole,
        };
        extents[piece.position.node as usize].push(FileExtent { offset, data });
        offset += piece.length;
    }
    extents
}
