// SPDX-License-Identifier: MIT OR Apache-2.0

//! Cuts the data of one file into chunks and runs of zeros.

use crate::build::layout::Layout;
use std::ops::Range;

/// The size of one read of a large file.
pub(crate) const READ: usize = 256 << 10;
/// The room for data that is read and not cut.
const BUFFER: usize = 2 << 20;

/// Receives the pieces of a file, in order.
pub(crate) trait PieceSink {
    /// The error that ends the cutting.
    type Error;

    /// Receives the chunk that follows.
    fn chunk(&mut self, bytes: &[u8]) -> Result<(), Self::Error>;

    /// Receives the run of zeros that follows, of any length.
    fn zeros(&mut self, length: u64) -> Result<(), Self::Error>;
}

/// Cuts the data of one file as it is read.
pub(crate) struct Cutter<'a, P> {
    layout: &'a Layout,
    pieces: P,
    /// Zeros that were met and not passed on.
    zeros: u64,
    buffer: &'a mut [u8],
    /// The part of `buffer` that is data and not cut.
    data: Range<usize>,
}

impl<'a, P: PieceSink> Cutter<'a, P> {
    /// A cutter at the start of a file. `buffer` may hold anything; it is reused between files.
    pub fn new(layout: &'a Layout, buffer: &'a mut Vec<u8>, pieces: P) -> Self {
        let room = layout.chunk_max + 2 * READ;
        buffer.resize(BUFFER.max(room), 0);
        Cutter {
            layout,
            pieces,
            zeros: 0,
            buffer,
            data: 0..0,
        }
    }

    /// The room for the next data: a multiple of the grid of zeros.
    pub fn room(&mut self) -> &mut [u8] {
        if self.buffer.len() - self.data.end < READ {
            self.buffer.copy_within(self.data.clone(), 0);
            self.data = 0..self.data.len();
        }
        &mut self.buffer[self.data.end..][..READ]
    }

    /// Takes the `length` bytes that were read into [`Cutter::room`], from a multiple of the
    /// grid of zeros in the file.
    pub fn take(&mut self, length: usize) -> Result<(), P::Error> {
        let end = self.data.end + length;
        while self.data.end < end {
            let block = self.data.end..end.min(self.data.end + self.layout.zero_grid);
            if is_zero(&self.buffer[block.clone()]) {
                self.cut(true)?;
                self.zeros += block.len() as u64;
                self.data = block.end..block.end;
            } else {
                self.flush_zeros()?;
                self.data.end = block.end;
            }
        }
        self.cut(false)
    }

    /// Takes zeros that were not read.
    pub fn skip(&mut self, length: u64) -> Result<(), P::Error> {
        if length > 0 {
            self.cut(true)?;
            self.zeros += length;
        }
        Ok(())
    }

    /// Passes on the rest of the file.
    pub fn finish(mut self) -> Result<(), P::Error> {
        self.cut(true)?;
        self.flush_zeros()
    }

    fn flush_zeros(&mut self) -> Result<(), P::Error> {
        if self.zeros > 0 {
            self.pieces.zeros(self.zeros)?;
            self.zeros = 0;
        }
        Ok(())
    }

    /// Cuts as much data as can be cut; all of it if the run of data ends here.
    fn cut(&mut self, last: bool) -> Result<(), P::Error> {
        while let Some(length) = self
            .layout
            .next_chunk(&self.buffer[self.data.clone()], last)
        {
            let chunk = self.data.start..self.data.start + length;
            self.pieces.chunk(&self.buffer[chunk.clone()])?;
            self.data.start = chunk.end;
        }
        Ok(())
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    const ZEROS: [u8; 4096] = [0; 4096];
    bytes
        .chunks(ZEROS.len())
        .all(|piece| *piece == ZEROS[..piece.len()])
}
