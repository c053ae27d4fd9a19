// SPDX-License-Identifier: GPL-2.0

//! Reads that were started, and that any number of tasks wait for.

use super::{buffer::ReadBuffer, file::BackingFile};
use crate::vfs::compat::prelude::*;
use core::ops::Range;

/// A read of a range of a file, past the page cache of the lower filesystem.
///
/// The file stays open until a task has noticed the end of the read.
pub(crate) struct StartedRead {
    buffer: ReadBuffer,
    /// The place of the range in the buffer.
    place: Range<usize>,
}

impl StartedRead {
    /// Makes an empty one, whose reads use a buffer.
    pub(crate) fn new(buffer: ReadBuffer) -> Self {
        Self {
            buffer,
            place: 0..0,
        }
    }

    /// Starts to read `len` bytes from the file's byte `offset` on, in place of the bytes before.
    /// Returns false if the file is not read directly there, or the buffer has no room.
    ///
    /// Waits for the read before, if that has not ended.
    pub(crate) fn start(&mut self, file: &BackingFile, offset: u64, len: usize) -> bool {
        self.buffer.settle();
        let place = self.buffer.start_one(file, offset, len);
        self.place = place.clone().unwrap_or(0..0);
        place.is_some()
    }

    /// Returns true if the read has ended, well or with an error. Does not wait.
    pub(crate) fn has_ended(&self) -> bool {
        self.buffer.has_ended()
    }

    /// Waits for the bytes of the range.
    ///
    /// # Errors
    ///
    /// That of the read; [`EIO`] if the file ends in the range; [`EINTR`] if this task is being
    /// killed.
    pub(crate) fn wait(&self) -> Result<&[u8]> {
        if self.buffer.wait()? < self.place.end {
            return Err(EIO);
        }
        self.buffer.get(self.place.clone()).ok_or(EIO)
    }
}
