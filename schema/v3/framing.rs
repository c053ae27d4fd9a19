// SPDX-License-Identifier: MIT OR Apache-2.0

//! The stream framing of a message: where its segments are.
//!
//! A message is its segment table and then its segments, all little-endian:
//!
//! | bytes | what |
//! | --- | --- |
//! | 4 | number of segments, less one |
//! | 4 each | size of each segment, in words of eight bytes |
//! | 0 or 4 | zeros, so that the table is a whole number of words |
//! | 8 each | the words of the segments |

use crate::{
    error::{ErrorKind, Result},
    steps::step,
};
use capnp::message::ReaderSegments;

/// Bytes in a word.
pub(crate) const WORD: usize = 8;

/// The number of segments whose starts are kept.
///
/// A writer that grows its segments, as all known ones do, makes fewer: a message of a gigabyte is
/// some twenty segments.
const SLOTS: usize = 32;

/// The segment table of a message, checked against the message's length.
///
/// It borrows nothing, so that it can be kept beside the bytes that it was made of, and has some
/// 300 bytes whatever the number of segments: of a table with more than 32, the beginning of each
/// second, fourth, and so on, is kept, and the bytes themselves give the rest.
///
/// # Invariants
///
/// - Of the bytes that it was made of, `len` is the length.
/// - The segments follow each other, without a gap, from the end of the table to `len`.
/// - `starts[i]` is where, in bytes, the segment `i * stride` begins, if there is one.
#[derive(Clone, Debug)]
pub struct Framing {
    len: usize,
    count: u32,
    stride: u32,
    starts: [usize; SLOTS],
}

impl Framing {
    /// The largest number of segments of a message that is read. It is the limit of the Cap'n
    /// Proto implementations too.
    pub const MAX_SEGMENTS: u32 = 512;

    /// Reads the segment table of a message, which is all of `bytes`.
    ///
    /// Cost: the number of segments.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Truncated`], [`ErrorKind::TrailingBytes`], [`ErrorKind::TooManySegments`]; and
    /// [`ErrorKind::Misaligned`] if the bytes are not at an address that is a multiple of eight.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.as_ptr().addr() % WORD != 0 {
            return Err(ErrorKind::Misaligned.into());
        }
        let less_one = read_u32(bytes, 0).ok_or(ErrorKind::Truncated)?;
        if less_one >= Self::MAX_SEGMENTS {
            return Err(ErrorKind::TooManySegments.into());
        }
        let count = less_one.saturating_add(1);
        let stride = count.div_ceil(SLOTS as u32);

        let mut starts = [0; SLOTS];
        let mut slots = starts.iter_mut();
        let mut end = table_len(count);
        for segment in 0..count {
            if segment.checked_rem(stride) == Some(0) {
                if let Some(slot) = slots.next() {
                    *slot = end;
                }
            }
            end = segment_len(bytes, segment)
                .and_then(|len| end.checked_add(len))
                .ok_or(ErrorKind::Truncated)?;
        }
        if end > bytes.len() {
            return Err(ErrorKind::Truncated.into());
        }
        if end < bytes.len() {
            return Err(ErrorKind::TrailingBytes.into());
        }
        // INVARIANT: `end` is where the last segment ends, and is the length.
        Ok(Self {
            len: bytes.len(),
            count,
            stride,
            starts,
        })
    }

    /// Returns the number of segments.
    pub fn segments(&self) -> u32 {
        self.count
    }

    /// Returns the length of the message in words of eight bytes, including its segment table.
    ///
    /// No list in the message has more elements.
    pub fn words(&self) -> usize {
        self.len / WORD
    }

    /// Returns the length of the message in bytes.
    pub fn byte_len(&self) -> usize {
        self.len
    }

    /// Returns a segment of the message `bytes`, from which the framing was made.
    ///
    /// Cost: constant; at most 15 entries of the table are read.
    fn segment<'a>(&self, bytes: &'a [u8], id: u32) -> Option<&'a [u8]> {
        if id >= self.count || bytes.len() != self.len {
            return None;
        }
        if self.stride == 1 {
            // All starts are known, and each segment ends at the start of the next.
            let start = *self.starts.get(id as usize)?;
            let next = id.saturating_add(1);
            let end = match next < self.count {
                true => *self.starts.get(next as usize)?,
                false => self.len,
            };
            return bytes.get(start..end);
        }
        let slot = id.checked_div(self.stride)?;
        let mut start = *self.starts.get(usize::try_from(slot).ok()?)?;
        for before in slot.checked_mul(self.stride)?..id {
            start = start.checked_add(segment_len(bytes, before)?)?;
        }
        let end = start.checked_add(segment_len(bytes, id)?)?;
        bytes.get(start..end)
    }
}

/// Reads a little-endian number.
fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    let number = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes(*number))
}

/// Returns the length of the segment table, in bytes, for a number of segments within the limit.
fn table_len(count: u32) -> usize {
    // The number of segments and the size of each, and the padding.
    let fields = (count as usize).saturating_add(1);
    fields.div_ceil(2).saturating_mul(WORD)
}

/// Returns the length of a segment, in bytes.
fn segment_len(bytes: &[u8], id: u32) -> Option<usize> {
    let at = usize::try_from(id).ok()?.checked_add(1)?.checked_mul(4)?;
    usize::try_from(read_u32(bytes, at)?)
        .ok()?
        .checked_mul(WORD)
}

/// The segments of a message, as Cap'n Proto reads them.
#[derive(Clone, Copy)]
pub(crate) struct Segments<'a> {
    framing: &'a Framing,
    bytes: &'a [u8],
    /// The first segment, which most pointers need: most messages have no other.
    first: Option<&'a [u8]>,
}

impl<'a> Segments<'a> {
    pub(crate) fn new(framing: &'a Framing, bytes: &'a [u8]) -> Self {
        Self {
            framing,
            bytes,
            first: framing.segment(bytes, 0),
        }
    }

    /// Returns the first segment, or an empty slice if there is none.
    pub(crate) fn first(&self) -> &'a [u8] {
        self.first.unwrap_or_default()
    }
}

impl ReaderSegments for Segments<'_> {
    #[inline]
    fn get_segment(&self, id: u32) -> Option<&[u8]> {
        step();
        match id {
            0 => self.first,
            _ => self.framing.segment(self.bytes, id),
        }
    }

    fn len(&self) -> usize {
        self.framing.count as usize
    }
}
