// SPDX-License-Identifier: GPL-2.0

//! The frames of a compressed blob.

use crate::{
    base::{fault::Fault, range::ByteRange},
    vfs::prelude::*,
};
use core::ops::Range;
use puzzlefs_schema::{Frame, SeekTable};

/// The frames of a compressed blob, in order.
pub(crate) struct FrameTable {
    frames: KVVec<Frame>,
}

impl FrameTable {
    /// Reads the frames of a seek table.
    pub(crate) fn read(table: &SeekTable, bytes: &[u8]) -> Result<Self, Fault> {
        let mut frames = KVVec::new();
        frames.resize(table.frames(), Frame::default(), GFP_KERNEL)?;
        table.read(bytes, &mut frames)?;
        Ok(Self { frames })
    }

    /// Returns the memory that the table takes, in bytes.
    pub(super) fn memory(&self) -> usize {
        self.frames.capacity() * size_of::<Frame>()
    }

    /// Returns the end of the frames before one, in the blob and in its content.
    fn start(&self, index: usize) -> (u64, u64) {
        index
            .checked_sub(1)
            .and_then(|before| self.frames.get(before))
            .map_or((0, 0), |frame| (frame.end, frame.content_end))
    }

    /// Returns the indices of the frames that a range of the content is in.
    pub(crate) fn covering(&self, content: ByteRange) -> Range<usize> {
        let frames = &self.frames;
        let first = frames.partition_point(|frame| frame.content_end <= content.offset);
        let last = frames.partition_point(|frame| frame.content_end < content.end());
        first..(last + 1).min(frames.len()).max(first)
    }

    /// Returns the range of the blob that consecutive frames are in.
    pub(crate) fn stored(&self, frames: Range<usize>) -> ByteRange {
        let offset = self.start(frames.start).0;
        ByteRange {
            offset,
            len: self.start(frames.end).0.saturating_sub(offset),
        }
    }

    /// Returns the range of the content that a frame has.
    pub(crate) fn content(&self, index: usize) -> ByteRange {
        let offset = self.start(index).1;
        ByteRange {
            offset,
            len: self.start(index + 1).1.saturating_sub(offset),
        }
    }

    /// Returns the checksum of a frame's content, if it has one.
    pub(crate) fn checksum(&self, index: usize) -> Option<u32> {
        self.frames.get(index)?.checksum
    }

    /// Returns true if there is a frame of this index.
    pub(crate) fn has(&self, index: usize) -> bool {
        index < self.frames.len()
    }

    /// Checks that the frames have all of a range of the content.
    pub(crate) fn check_end(&self, content: ByteRange) -> Result<(), Fault> {
        match self.frames.last() {
            Some(frame) if frame.content_end >= content.end() => Ok(()),
            _ => Err(Fault::TooShort),
        }
    }
}
