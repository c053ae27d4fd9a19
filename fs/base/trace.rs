// SPDX-License-Identifier: GPL-2.0

//! Tracepoints: requests, the chunks that they need, and the time that each step takes.
//!
//! An event is made only while somebody traces events of its type. Otherwise each function is a
//! no-op. `Documentation/tracing.md` explains the events.

use super::range::ByteRange;
use crate::{
    ports::trace::{self, Chunk, Decode, Event, Failure, Prefetch, Read, Request, RequestEnd},
    vfs::prelude::*,
};
use kernel::fmt::{self, Write as _};
use puzzlefs_schema::{v4::Encoding, Digest};

/// The time at which a step began; zero if nobody traces its event.
#[derive(Clone, Copy)]
pub(crate) struct Start(u64);

impl Start {
    #[inline(always)]
    fn of<E: Event>() -> Self {
        if E::is_on() {
            Self(trace::now())
        } else {
            Self(0)
        }
    }

    /// Returns the time of a step that is about to get the stored bytes of a chunk.
    #[inline(always)]
    pub(crate) fn of_chunk() -> Self {
        Self::of::<Chunk>()
    }

    /// Returns the time of a step that is about to read several ranges.
    #[inline(always)]
    pub(crate) fn of_read() -> Self {
        Self::of::<Read>()
    }

    /// Returns the time of a step that is about to hash or decompress stored bytes.
    #[inline(always)]
    pub(crate) fn of_decode() -> Self {
        Self::of::<Decode>()
    }

    /// Emits an event with the time since the start, if its type was traced at both times.
    #[inline(always)]
    fn emit<E: Event>(self, make: impl FnOnce(u64) -> E) {
        self.emit_if(|| true, make);
    }

    /// Emits an event like [`Self::emit`], if a condition holds.
    #[inline(always)]
    fn emit_if<E: Event>(self, condition: impl FnOnce() -> bool, make: impl FnOnce(u64) -> E) {
        if E::is_on() && self.0 != 0 && condition() {
            make_and_emit(|| make(trace::now().saturating_sub(self.0)));
        }
    }
}

/// Emits an event, if somebody traces events of its type.
#[inline(always)]
fn emit<E: Event>(make: impl FnOnce() -> E) {
    if E::is_on() {
        make_and_emit(make);
    }
}

// Not inlined, so that events take no room on the stack below the lower filesystem.
#[cold]
#[inline(never)]
fn make_and_emit<E: Event>(make: impl FnOnce() -> E) {
    make().emit();
}

/// Returns the first bytes of a digest, which name it in events.
fn prefix(digest: &Digest) -> u64 {
    let bytes = digest.as_bytes().first_chunk();
    bytes.map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

/// A request of the page cache for a range of a file.
#[derive(Clone, Copy)]
pub(crate) struct TracedRequest {
    /// The device number of the mount.
    pub(crate) dev: u32,
    pub(crate) ino: u64,
    pub(crate) range: ByteRange,
}

impl TracedRequest {
    /// Notes that a request begins. Returns the time, for [`Self::end`].
    #[inline(always)]
    pub(crate) fn begin(&self, folios: usize, is_readahead: bool) -> Start {
        let make = || Request {
            ino: self.ino,
            offset: self.range.offset,
            len: self.range.len,
            dev: self.dev,
            folios: folios as u32,
            is_readahead: is_readahead.into(),
        };
        emit(make);
        Start::of::<RequestEnd>()
    }

    /// Notes that a request ends. `failed` returns the number of folios that remain unread.
    #[inline(always)]
    pub(crate) fn end(&self, start: Start, failed: impl FnOnce() -> usize) {
        start.emit(|duration| RequestEnd {
            ino: self.ino,
            offset: self.range.offset,
            len: self.range.len,
            duration,
            dev: self.dev,
            failed: failed() as u32,
        });
    }
}

/// The source of the stored bytes of a chunk.
#[derive(Clone, Copy)]
pub(crate) enum Origin {
    /// None were needed: the content was in memory.
    Cache,
    /// A buffer that they were read to before, alone or with those of other chunks.
    Buffer,
    /// A read that was under way, or done, before a reader needed them.
    Prefetched,
    /// A read that the reader waited for.
    Read,
    /// The page cache of the lower filesystem, which the reader filled.
    Lower,
}

impl Origin {
    fn number(self) -> u8 {
        match self {
            Self::Cache => 0,
            Self::Buffer => 1,
            Self::Prefetched => 2,
            Self::Read => 3,
            Self::Lower => 4,
        }
    }
}

/// A chunk of version 4, or a blob of version 3, and the file that stores it.
#[derive(Clone, Copy)]
pub(crate) struct TracedChunk<'a> {
    pub(crate) digest: &'a Digest,
    /// The name of the pack, of the loose chunk or of the blob.
    pub(crate) file: &'a Digest,
    /// The stored bytes that are used, in the file.
    pub(crate) stored: ByteRange,
    /// `None` for a root, whose encoding its bytes show.
    pub(crate) encoding: Option<Encoding>,
}

impl TracedChunk<'_> {
    /// Notes the source of the stored bytes, for which the reader waited since the start.
    #[inline(always)]
    pub(crate) fn came_from(&self, origin: Origin, start: Start) {
        start.emit(|wait| Chunk {
            chunk: prefix(self.digest),
            file: prefix(self.file),
            offset: self.stored.offset,
            len: self.stored.len,
            wait,
            encoding: match self.encoding {
                None => 0,
                Some(Encoding::Raw) => 1,
                Some(Encoding::Zstd) => 2,
            },
            source: origin.number(),
        });
    }
}

/// Notes that ranges of these lengths were read together, since a start. Does nothing if there are
/// none.
#[inline(always)]
pub(crate) fn read(start: Start, lens: impl Iterator<Item = u64> + Clone) {
    let has_read = || lens.clone().next().is_some();
    start.emit_if(has_read, |wait| Read {
        len: lens.clone().sum(),
        wait,
        reads: lens.clone().count() as u32,
    });
}

/// Notes that stored bytes were hashed.
#[inline(always)]
pub(crate) fn hashed(start: Start, len: usize) {
    decoded(start, 0, len, len);
}

/// Notes that stored bytes were decompressed.
#[inline(always)]
pub(crate) fn decompressed(start: Start, stored: usize, content: usize) {
    decoded(start, 1, stored, content);
}

#[inline(always)]
fn decoded(start: Start, step: u8, stored: usize, content: usize) {
    start.emit(|duration| Decode {
        stored: stored as u64,
        content: content as u64,
        duration,
        step,
    });
}

/// Notes that a range of a pack is being prefetched.
#[inline(always)]
pub(crate) fn prefetch(pack: &Digest, range: ByteRange) {
    let make = || Prefetch {
        file: prefix(pack),
        offset: range.offset,
        len: range.len,
    };
    emit(make);
}

/// A fault, and as much of its place as is known.
pub(crate) struct TracedFault<'a> {
    pub(crate) image: &'a Digest,
    pub(crate) ino: Option<u64>,
    pub(crate) offset: Option<u64>,
    /// The digest of the blob or the chunk.
    pub(crate) stored: Option<&'a Digest>,
    pub(crate) errno: Error,
}

impl TracedFault<'_> {
    /// Notes a fault with the text of its cause.
    #[inline(always)]
    pub(crate) fn occurred(&self, cause: impl fmt::Display) {
        let make = || Failure {
            image: prefix(self.image),
            ino: self.ino.unwrap_or(0),
            offset: self.offset.unwrap_or(0),
            digest: self.stored.map_or(0, prefix),
            error: self.errno.to_errno(),
            cause: Text::of(cause).bytes,
        };
        emit(make);
    }
}

/// The beginning of a text, in printable ASCII, which ends at the first zero.
struct Text {
    bytes: [u8; Self::SIZE],
    len: usize,
}

impl Text {
    const SIZE: usize = trace::CAUSE_SIZE;

    fn of(value: impl fmt::Display) -> Self {
        let mut text = Self {
            bytes: [0; Self::SIZE],
            len: 0,
        };
        // A text that is too long is cut.
        let _ = text.write_fmt(fmt!("{value}"));
        text
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        for byte in s.bytes() {
            let place = self.bytes.get_mut(self.len).ok_or(fmt::Error)?;
            let is_plain = byte == b' ' || byte.is_ascii_graphic();
            *place = if is_plain && byte != b'"' { byte } else { b'?' };
            self.len += 1;
        }
        Ok(())
    }
}
