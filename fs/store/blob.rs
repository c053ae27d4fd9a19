// SPDX-License-Identifier: GPL-2.0

//! Blobs: an open file of the store, and what is known of it.
//!
//! What is read of a blob goes to the buffer of a [`Workspace`], past the page cache of the
//! filesystem below, and from there, decompressed or verified, to the folios of a file: it is
//! cached once.

use crate::vfs::prelude::*;
use crate::{
    base::fault::Fault,
    base::statistics::Statistics,
    codec::frame_cache::{FrameCache, FrameName},
    io::workspace::{Stored, Wanted, Workspace, Workspaces},
    ports::{
        xxhash::xxh64,
        zstd_safe::{DCtx, WriteBuf},
    },
    vfs::{backing::BackingFile, FolioRun, WorkQueue},
};
use kernel::{
    page::PAGE_SIZE,
    sync::{
        atomic::{Atomic, Relaxed},
        Arc, SetOnce,
    },
};
use puzzlefs_schema::{Chunk, Digest, Frame, SeekTable, MAX_FRAME_SIZE, SEEK_TABLE_FOOTER_LEN};

/// The most that is read of a blob at once, in bytes: a frame of the largest size, should it not
/// compress, with its seek table. A blob is not larger if it can be verified as a whole.
pub(crate) const MAX_STORED: usize = MAX_FRAME_SIZE as usize + (64 << 10);

/// A blob of this size or less is read as a whole where others of its content are likely to be
/// wanted next, and nobody else keeps what is read.
pub(crate) const MAX_WHOLE: u64 = 256 << 10;

/// An open blob.
pub(crate) struct Blob {
    file: BackingFile,
    /// What tells it from all other blobs that were opened.
    id: u64,
    /// Its fs-verity digest, measured by the filesystem that it is on when it was opened, if that
    /// verifies its pages.
    verity: Option<Digest>,
    /// The frames of a compressed blob, once they were needed.
    frames: SetOnce<Arc<KVVec<Frame>>>,
}

/// The number of blobs that were opened.
static OPENED: Atomic<u64> = Atomic::new(0);

/// What it takes to read blobs, and where is counted what was read.
#[derive(Clone, Copy)]
pub(crate) struct Means<'a> {
    pub(crate) workspaces: &'a Arc<Workspaces>,
    /// Brings back workspaces that killed tasks leave behind.
    pub(crate) returns: &'a WorkQueue,
    pub(crate) statistics: &'a Statistics,
}

/// A range of a blob's content.
#[derive(Clone, Copy)]
pub(crate) struct Range {
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

impl Range {
    pub(crate) fn end(self) -> u64 {
        self.offset.saturating_add(self.len)
    }

    /// Where another range is in this one, if it is.
    pub(crate) fn place_of(self, other: Self) -> Option<usize> {
        let place = other.offset.checked_sub(self.offset)?;
        (other.end() <= self.end()).then(|| usize::try_from(place).ok())?
    }
}

impl Blob {
    pub(crate) fn new(file: BackingFile) -> Self {
        Self {
            id: OPENED.fetch_add(1, Relaxed),
            verity: file.verity_digest().map(Digest::new),
            file,
            frames: SetOnce::new(),
        }
    }

    /// What tells the blob from all others that were opened.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// The blob's size as it is stored, in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.file.size()
    }

    /// The file that the blob is in.
    pub(crate) fn file(&self) -> &BackingFile {
        &self.file
    }

    /// The digest against which the filesystem below checks each page that is read.
    pub(crate) fn verity(&self) -> Option<&Digest> {
        self.verity.as_ref()
    }

    /// How much memory the blob takes while it is open, in pages.
    pub(crate) fn pages(&self) -> usize {
        let frames = self.frames.as_ref().map_or(0, |frames| frames.capacity());
        1 + frames * size_of::<Frame>() / PAGE_SIZE
    }

    /// The frames of a compressed blob.
    fn frames(
        &self,
        statistics: &Statistics,
        stored: &mut Stored,
    ) -> Result<Arc<KVVec<Frame>>, Fault> {
        if let Some(frames) = self.frames.as_ref() {
            return Ok(frames.clone());
        }
        let size = self.file.size();
        let at_end = |len: u64| Range {
            offset: size.saturating_sub(len),
            len: len.min(size),
        };
        let footer = stored.read(self, statistics, at_end(SEEK_TABLE_FOOTER_LEN as u64), true)?;
        let footer = footer
            .first_chunk::<SEEK_TABLE_FOOTER_LEN>()
            .ok_or(Fault::TooShort)?;
        let table = SeekTable::parse_footer(footer, size)?;
        let at_end = at_end(table.byte_len());
        // Of more frames than most blobs have, and checksums.
        let mut larger;
        let stored = if at_end.len <= stored.room() as u64 {
            stored
        } else {
            larger = Stored::new(at_end.len as usize)?;
            &mut larger
        };
        let bytes = stored.read(self, statistics, at_end, true)?;
        let frames = Arc::new(read_frames(&table, bytes)?, GFP_KERNEL)?;
        // Another thread may have been first, or be about to: its frames are the same.
        self.frames.populate(frames.clone());
        Ok(frames)
    }

    /// Starts reading what a part of the blob's content is made of, where the filesystem below
    /// keeps it until it is asked for.
    pub(crate) fn will_need(&self, compressed: bool, whole: bool, range: Range) {
        if self.file.is_read_past_cache() {
            return;
        }
        if whole {
            self.file.will_need(0, self.file.size());
        } else if !compressed {
            self.file.will_need(range.offset, range.len);
        } else if let Some(frames) = self.frames.as_ref() {
            let (first, last) = covering(frames, range);
            let start = frame_start(frames, first).0;
            let end = frame_start(frames, last).0;
            self.file.will_need(start, end.saturating_sub(start));
        } else if self.file.size() <= MAX_WHOLE {
            self.file.will_need(0, self.file.size());
        }
    }

    /// Whether the blob holds more than a chunk: what a small file's leaves are other small files.
    fn is_shared(&self, chunk: &Chunk) -> bool {
        chunk.len < self.size()
    }

    /// Whether all of the blob is read where a part of its content in a chunk is wanted: it has to
    /// be, or it is small, and others of its content are likely to be wanted next.
    fn is_read_whole(&self, chunk: &Chunk, verified: bool) -> bool {
        verified || ((chunk.compressed || self.is_shared(chunk)) && self.size() <= MAX_WHOLE)
    }

    /// What a workspace is wanted for, to read a part of the blob's content in a chunk.
    pub(crate) fn wanted(&self, chunk: &Chunk, verified: bool) -> Wanted<'_> {
        // What the filesystem below keeps, all can have of it at once.
        let shared = verified || self.file.is_read_past_cache();
        Wanted {
            blob: self,
            whole: shared && self.is_read_whole(chunk, verified),
        }
    }

    /// What is read of the blob, as it is stored, for a part of its content in a chunk: all of a
    /// small one, if others of its content are likely to be wanted next, and nobody else keeps what
    /// is read. `None` if it is not known yet.
    pub(crate) fn to_read(
        &self,
        chunk: &Chunk,
        verified: bool,
        range: Range,
        cache: &FrameCache,
    ) -> Option<Range> {
        let all = Range {
            offset: 0,
            len: self.size(),
        };
        if self.is_read_whole(chunk, verified) {
            Some(all)
        } else if !chunk.compressed {
            Some(range)
        } else {
            let frames = self.frames.as_ref()?;
            let (mut first, mut last) = covering(frames, range);
            while first < last && cache.has(self.frame_name(first)) {
                first += 1;
            }
            while first < last && cache.has(self.frame_name(last - 1)) {
                last -= 1;
            }
            let offset = frame_start(frames, first).0;
            let len = frame_start(frames, last).0.saturating_sub(offset);
            (len > 0).then_some(Range { offset, len })
        }
    }

    /// The name of a frame that is decompressed without the blob being verified.
    fn frame_name(&self, index: usize) -> FrameName {
        FrameName {
            blob: self.id,
            verified: false,
            index,
        }
    }

    /// Fills a run with a part of a raw blob, as it is read: past the page cache of the filesystem
    /// below if possible, and if there is a workspace.
    pub(crate) fn fill_raw(
        &self,
        statistics: &Statistics,
        workspace: Option<&mut Workspace>,
        chunk: &Chunk,
        range: Range,
        run: &mut FolioRun<'_>,
    ) -> Result<(), Fault> {
        let Some(workspace) = workspace.filter(|_| self.file.is_read_past_cache()) else {
            run.fill_from(&self.file, range.offset, range.len)?;
            statistics.bytes_read.add(range.len);
            return Ok(());
        };
        let shared = self.is_shared(chunk);
        let mut left = range;
        while left.len > 0 {
            let part = Range {
                len: left.len.min(MAX_STORED as u64),
                ..left
            };
            run.fill_bytes(workspace.stored.read(self, statistics, part, shared)?);
            left.offset += part.len;
            left.len -= part.len;
        }
        Ok(())
    }

    /// Fills a run with a part of a compressed blob.
    pub(crate) fn fill_compressed(
        &self,
        means: Means<'_>,
        workspace: &mut Workspace,
        range: Range,
        run: &mut FolioRun<'_>,
    ) -> Result<(), Fault> {
        let frames = self.frames(means.statistics, &mut workspace.stored)?;
        self.decompress(means, &frames, workspace, range, run)
    }

    /// The part of a compressed blob's content that the frame at an offset has.
    pub(crate) fn frame_at(&self, means: Means<'_>, offset: u64) -> Option<Range> {
        let find = |frames: &[Frame]| {
            let (index, _) = covering(frames, Range { offset, len: 1 });
            let end = frames.get(index)?.content_end;
            let offset = frame_start(frames, index).1;
            let len = end.saturating_sub(offset);
            Some(Range { offset, len })
        };
        if let Some(frames) = self.frames.as_ref() {
            return find(frames);
        }
        let wanted = Wanted {
            blob: self,
            whole: self.size() <= MAX_WHOLE && self.file.is_read_past_cache(),
        };
        let Means {
            workspaces,
            returns,
            ..
        } = means;
        let found = workspaces.with(returns, wanted, false, |workspace| {
            let frames = self.frames(means.statistics, &mut workspace?.stored);
            find(&frames.ok()?)
        });
        found.ok()?
    }

    fn decompress(
        &self,
        means: Means<'_>,
        frames: &[Frame],
        workspace: &mut Workspace,
        range: Range,
        run: &mut FolioRun<'_>,
    ) -> Result<(), Fault> {
        let Means {
            workspaces,
            statistics,
            ..
        } = means;
        let cache = workspaces.frames();
        let (mut first, last) = covering(frames, range);
        while first < last {
            let part = Part::of(frames, first, range);
            if part.fill_from(cache, self.frame_name(first), run) {
                // It need not even be read.
                first += 1;
                continue;
            }
            // As many frames as fit are read at once.
            let start = frame_start(frames, first).0;
            let mut next = first + 1;
            while next < last
                && !cache.has(self.frame_name(next))
                && frame_start(frames, next + 1).0 - start <= MAX_STORED as u64
            {
                next += 1;
            }
            let group = Range {
                offset: start,
                len: frame_start(frames, next).0 - start,
            };
            let Workspace { context, stored } = &mut *workspace;
            let stored = stored.read(self, statistics, group, true)?;
            for index in first..next {
                let from = (frame_start(frames, index).0 - start) as usize;
                let to = (frame_start(frames, index + 1).0 - start) as usize;
                let frame = stored.get(from..to).ok_or(Fault::Error(EIO))?;
                let name = self.frame_name(index);
                let part = Part::of(frames, index, range);
                part.decompress(means, frame, name, context, run)?;
            }
            first = next;
        }
        check_end(frames, range)
    }

    /// Fills a run with a part of a blob all of which is read and hashed first.
    ///
    /// What is used is what was hashed: a blob that changes in between gives nothing that was not
    /// checked. What a workspace still holds of an earlier read was hashed, too.
    pub(crate) fn fill_verified(
        &self,
        means: Means<'_>,
        workspace: &mut Workspace,
        digest: &Digest,
        compressed: bool,
        range: Range,
        run: &mut FolioRun<'_>,
    ) -> Result<(), Fault> {
        let Workspace { context, stored } = workspace;
        if stored.verified(digest).is_none() {
            stored.read_verified(self, means.statistics, digest)?;
        }
        let stored = stored.verified(digest).ok_or(Fault::TooShort)?;
        let size = stored.len();
        if !compressed {
            let part = usize::try_from(range.offset)
                .ok()
                .zip(usize::try_from(range.end()).ok())
                .and_then(|(offset, end)| stored.get(offset..end))
                .ok_or(Fault::TooShort)?;
            run.fill_bytes(part);
            return Ok(());
        }
        let footer = stored
            .last_chunk::<SEEK_TABLE_FOOTER_LEN>()
            .ok_or(Fault::TooShort)?;
        let table = SeekTable::parse_footer(footer, size as u64)?;
        let bytes = stored
            .get(size.saturating_sub(table.byte_len() as usize)..)
            .ok_or(Fault::TooShort)?;
        let frames = &read_frames(&table, bytes)?;
        let (first, last) = covering(frames, range);
        for index in first..last {
            let from = frame_start(frames, index).0 as usize;
            let to = frame_start(frames, index + 1).0 as usize;
            let frame = stored.get(from..to).ok_or(Fault::TooShort)?;
            let name = FrameName {
                blob: self.id,
                verified: true,
                index,
            };
            let part = Part::of(frames, index, range);
            part.decompress(means, frame, name, context, run)?;
        }
        check_end(frames, range)
    }
}

/// Reads a seek table's frames.
fn read_frames(table: &SeekTable, bytes: &[u8]) -> Result<KVVec<Frame>, Fault> {
    let mut frames = KVVec::new();
    frames.resize(table.frames(), Frame::default(), GFP_KERNEL)?;
    table.read(bytes, &mut frames)?;
    Ok(frames)
}

/// Where a frame begins, in the blob and in its content: where the one before it ends.
fn frame_start(frames: &[Frame], index: usize) -> (u64, u64) {
    index
        .checked_sub(1)
        .and_then(|before| frames.get(before))
        .map_or((0, 0), |frame| (frame.end, frame.content_end))
}

/// The frames that a part of the content is in: the first, and the one behind the last.
fn covering(frames: &[Frame], range: Range) -> (usize, usize) {
    let first = frames.partition_point(|frame| frame.content_end <= range.offset);
    let last = frames.partition_point(|frame| frame.content_end < range.end());
    (first, (last + 1).min(frames.len()).max(first))
}

/// Whether the frames have the content up to a range's end.
fn check_end(frames: &[Frame], range: Range) -> Result<(), Fault> {
    match frames.last() {
        Some(frame) if frame.content_end >= range.end() => Ok(()),
        _ => Err(Fault::TooShort),
    }
}

/// What is wanted of a frame's data.
struct Part {
    /// The size of the frame's data.
    size: usize,
    /// The part that is wanted.
    from: usize,
    to: usize,
    checksum: Option<u32>,
}

impl Part {
    /// What is wanted of a frame, if that is a range of the content.
    fn of(frames: &[Frame], index: usize, range: Range) -> Self {
        let start = frame_start(frames, index).1;
        let stop = frame_start(frames, index + 1).1;
        // A frame is not larger than `MAX_FRAME_SIZE`: the differences fit.
        Self {
            size: (stop - start) as usize,
            from: (range.offset.clamp(start, stop) - start) as usize,
            to: (range.end().clamp(start, stop) - start) as usize,
            checksum: frames.get(index).and_then(|frame| frame.checksum),
        }
    }

    /// Fills a run with what is wanted, if the frame is in the cache; says whether it was.
    fn fill_from(&self, cache: &FrameCache, name: FrameName, run: &mut FolioRun<'_>) -> bool {
        let fill = |content: &[u8]| {
            let wanted = content.get(self.from..self.to)?;
            run.fill_bytes(wanted);
            Some(())
        };
        cache.with(name, fill).flatten().is_some()
    }

    /// Decompresses the frame and fills a run with what is wanted of it: directly, if that is all
    /// of it and the memory is in one piece.
    fn decompress(
        &self,
        means: Means<'_>,
        frame: &[u8],
        name: FrameName,
        context: &mut DCtx,
        run: &mut FolioRun<'_>,
    ) -> Result<(), Fault> {
        let cache = means.workspaces.frames();
        if self.from >= self.to || self.fill_from(cache, name, run) {
            return Ok(());
        }
        let size = self.size as u64;
        if self.to - self.from == self.size {
            let direct = run.fill_in_place(self.size, |memory| self.decode(frame, context, memory));
            if let Some(result) = direct {
                means.statistics.bytes_decompressed.add(size);
                return result;
            }
        }
        let make = |content: &mut KVVec<u8>| {
            means.statistics.bytes_decompressed.add(size);
            self.decode(frame, context, content).map(drop)
        };
        cache.with_or_make(name, self.size, make, |content| {
            run.fill_bytes(content.get(self.from..self.to).ok_or(Fault::FrameSize)?);
            Ok(())
        })
    }

    /// Decompresses the frame, and checks it.
    fn decode<'b, W: WriteBuf + ?Sized>(
        &self,
        frame: &[u8],
        context: &mut DCtx,
        memory: &'b mut W,
    ) -> Result<&'b [u8], Fault> {
        let data = context
            .decompress(memory, frame)
            .map_err(|_| Fault::Frame)?;
        if data.len() != self.size {
            return Err(Fault::FrameSize);
        }
        if self
            .checksum
            .is_some_and(|checksum| checksum != xxh64(data, 0) as u32)
        {
            return Err(Fault::Checksum);
        }
        Ok(data)
    }
}
