// SPDX-License-Identifier: MIT OR Apache-2.0

//! The bytes of an archive: its blocks, and the data of its members.

use super::fault::Result;
use super::header::{Block, BLOCK};
use crate::error::TarFault;
use puzzlefs_schema::MAX_FILE_SIZE;
use std::io::{self, Read};
use std::mem;

/// The source of an archive.
pub(crate) trait Input: Read + Sized {
    /// Skips so many bytes.
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let skipped = io::copy(&mut self.take(bytes), &mut io::sink())?;
        if skipped == bytes {
            Ok(())
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }

    /// Returns the bytes behind a compressed archive that belong to nothing, once it is read to its
    /// end.
    fn garbage(&self) -> u64 {
        0
    }
}

/// The bytes of an archive, read in order.
pub(super) struct Stream<I> {
    pub input: I,
    /// The bytes that were read or skipped.
    pub position: u64,
    /// The bytes of the current member's data that were not read.
    data: u64,
    /// The bytes that fill its last block.
    padding: u64,
}

impl<I: Input> Stream<I> {
    pub fn new(input: I) -> Self {
        Stream {
            input,
            position: 0,
            data: 0,
            padding: 0,
        }
    }

    /// Expects data of this size next.
    pub fn expect_data(&mut self, size: u64) -> Result<()> {
        if size > MAX_FILE_SIZE {
            return Err(TarFault::FileTooLarge.into());
        }
        self.data = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
        Ok(())
    }

    /// Returns the size of the data that was not read.
    pub fn data_left(&self) -> u64 {
        self.data
    }

    /// Reads some of the current member's data; nothing at its end.
    pub fn read_data(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let length = self.data.min(buffer.len() as u64) as usize;
        self.fill(&mut buffer[..length])?;
        self.data -= length as u64;
        Ok(length)
    }

    /// Skips the data that was not read.
    pub fn skip_data(&mut self) -> Result<()> {
        self.skip(self.data)?;
        self.data = 0;
        Ok(())
    }

    /// Skips the bytes that fill the last block of the data.
    pub fn skip_padding(&mut self) -> Result<()> {
        let padding = mem::take(&mut self.padding);
        self.skip(padding)
    }

    /// Reads the next block.
    pub fn block(&mut self) -> Result<Block> {
        let mut block = [0; BLOCK];
        self.fill(&mut block)?;
        Ok(block)
    }

    /// Reads the next block, or its beginning if it is cut short; none at the end of all.
    pub fn partial_block(&mut self) -> Result<Option<Block>> {
        let mut block = [0; BLOCK];
        let mut length = 0;
        while length < BLOCK {
            match self.read_some(&mut block[length..])? {
                0 => break,
                count => length += count,
            }
        }
        Ok((length > 0).then_some(block))
    }

    /// Reads some bytes of whatever follows; nothing at the end of all.
    pub fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let count = loop {
            match self.input.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                count => break count?,
            }
        };
        self.position += count as u64;
        Ok(count)
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<()> {
        self.input.read_exact(buffer)?;
        self.position += buffer.len() as u64;
        Ok(())
    }

    fn skip(&mut self, bytes: u64) -> Result<()> {
        self.input.skip(bytes)?;
        self.position += bytes;
        Ok(())
    }
}
