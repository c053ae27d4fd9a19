// SPDX-License-Identifier: GPL-2.0

//! Limits of sizes, counts and times.
//!
//! Images and stores are untrusted: each allocation, loop and wait that depends on them has one of
//! these limits, or one of `puzzlefs_schema`.

use crate::vfs::lower::ReadBuffer;
use kernel::{cpu, time::Msecs};
use puzzlefs_schema::MAX_FRAME_SIZE;

/// The size of a reader's buffer, in bytes.
///
/// It has room for a frame of the largest size that did not compress, with its seek table. A blob
/// that is verified as a whole must not be larger.
pub(crate) const MAX_STORED: usize = MAX_FRAME_SIZE as usize + (64 << 10);

/// The largest blob that is read as a whole if other files in it are likely to be read next, in
/// bytes.
pub(crate) const MAX_READ_WHOLE: u64 = 256 << 10;

/// The range of a pack that is read at once if chunks are read in their order in it, in bytes.
///
/// Files that follow each other in an image do so in its packs.
pub(crate) const MAX_READ_AHEAD: u64 = 256 << 10;

/// The size of a read of bytes that nobody waits for yet, in bytes.
///
/// Devices take it as one request. With the margin for alignment its memory is a power of two, as
/// the kernel allocates it.
pub(crate) const PREFETCH_READ: u64 = (256 << 10) - ReadBuffer::MARGIN as u64;

/// The first range that is prefetched for a reader of a pack, in bytes.
pub(crate) const PREFETCH_FIRST: u64 = 128 << 10;

/// The largest range that is prefetched for a reader of a pack, in bytes: 400 MB per second from a
/// device that answers after 5 ms.
pub(crate) const PREFETCH_MAX: u64 = 2 << 20;

/// The largest range that is prefetched for a program or a library when it is mapped, in bytes.
pub(crate) const PREFETCH_MAPPED: u64 = 2 << 20;

/// The part of a mapped file that may be in memory when it is prefetched: one of so many pages.
pub(crate) const PREFETCH_UNCACHED: u64 = 4;

/// The bytes behind the end of what a reader has used that are kept for slower tasks, in bytes.
pub(crate) const PREFETCH_KEPT: u64 = 1 << 20;

/// The largest number of bytes that a reader leaves out and still moves forward through a pack.
pub(crate) const PREFETCH_GAP: u64 = 64 << 10;

/// The largest number of readers that move through packs of a store at once.
pub(crate) const PREFETCH_STREAMS: usize = 16;

/// The largest number of reads whose bytes a store keeps for readers to come: 16 MiB.
pub(crate) const PREFETCHED_READS: usize = 64;

/// The largest gap between chunks of a pack that are read in order, in bytes: shorter than most
/// chunks, and longer than the alignment of packs.
pub(crate) const MAX_GAP: u64 = 8 << 10;

/// The largest read that several ranges of a blob become if they follow each other, in bytes: half
/// a buffer. Ranges that are longer together are read by several reads.
pub(crate) const MAX_JOINED: u64 = MAX_STORED as u64 / 2;

/// The largest metadata blob that can be mounted, in bytes.
///
/// An image of a million files has about 140 MB of metadata, which is held in memory while the
/// image is mounted.
pub(crate) const MAX_METADATA: u64 = 1 << 30;

/// The largest memory of metadata chunks of format 4 that no inode in memory keeps, in bytes.
pub(crate) const MAX_UNUSED_METADATA: usize = 8 << 20;

/// The readahead of a mount, in bytes: several chunks, so that their blobs are read together.
pub(crate) const READAHEAD: usize = 512 * 1024;

/// Requests shorter than this are widened to whole frames, in bytes.
///
/// A longer request is one of many in order, and the rest of a frame comes with the next.
pub(crate) const MAX_WIDENED: u64 = 128 << 10;

/// The largest request after widening, in bytes: a frame, or a blob that is verified as a whole, at
/// both ends.
pub(crate) const MAX_WIDENED_TO: u64 = 2 * MAX_STORED as u64;

/// The largest number of workspaces of a store.
pub(crate) const MAX_WORKSPACES: usize = 16;

/// Returns the largest number of concurrent readers of a store: two per CPU, because one may wait
/// for the disk, up to [`MAX_WORKSPACES`].
pub(crate) fn max_readers() -> usize {
    (2 * cpu::nr_cpu_ids() as usize).clamp(1, MAX_WORKSPACES)
}

/// The largest number of blobs that an open file keeps open.
///
/// Each holds an open file and an inode of the lower filesystem, about 2 KiB. Opening more of them
/// with the file would delay a reader that reads only the beginning. With four, opening a file of
/// six blobs and reading its first page costs 12 % more instructions than with none, and reading
/// all of it no more.
pub(crate) const MAX_PINNED: usize = 4;

/// The largest number of chunks that are searched for blobs to open with a file.
pub(crate) const MAX_CHUNKS_PINNED: usize = 16 * MAX_PINNED;

/// The largest number of extents of version 4 that are searched for packs to open with a file. Most
/// files lie in one pack, which other files keep open.
pub(crate) const MAX_EXTENTS_PINNED: usize = MAX_PINNED;

/// The largest number of chunks in a range whose blobs are opened for it.
pub(crate) const MAX_CHUNKS_PREPARED: usize = 256;

/// The largest number of times that the blobs of a range are opened for one read.
///
/// A second time is rarely needed. Blobs that do not stay open long enough for a third are more
/// than the cache of open blobs has room for.
pub(crate) const MAX_PREPARATIONS: usize = 3;

/// The time that a reader waits for a blob to be opened, in milliseconds.
pub(crate) const OPEN_TIMEOUT: Msecs = 10_000;

/// The largest number of times that a catalogue is read because it is replaced meanwhile.
pub(crate) const MAX_INDEX_LOADS: usize = 4;

/// The largest table that is read when it is opened, in bytes: that of some 40,000 chunks.
pub(crate) const TABLE_READ_WHOLE: u64 = 2 << 20;

/// The largest number of pages of a table that are checked only once: those of a million chunks.
pub(crate) const MAX_PAGES_CHECKED: u32 = 16 << 10;

/// The number of chunks whose places in packs are kept: 28 KiB for each state of an index.
pub(crate) const PLACES_KEPT: usize = 512;

/// The largest number of chunks that are requested of a store's fetchers at once.
pub(crate) const MAX_FETCHES: usize = 1024;

/// The time in milliseconds that a reader waits for a missing chunk by default.
pub(crate) const FETCH_TIMEOUT: Msecs = 60_000;

/// The largest time in seconds that a mount can have readers wait.
pub(crate) const MAX_FETCH_TIMEOUT: u32 = 86_400;

/// The largest number of blobs that a store opens for readers at once.
pub(crate) const MAX_OPENING: usize = 64;
