// SPDX-License-Identifier: MIT OR Apache-2.0

//! Cuts the data of one file into chunks and runs of zeros.

use crate::build::layout::Layout;
use crate::model::limits::READ_SIZE;
use std::ops::Range;

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
        let room = layout.chunk_max + 2 * READ_SIZE;
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
        if self.buffer.len() - self.data.end < READ_SIZE {
            self.buffer.copy_within(self.data.clone(), 0);
            self.data = 0..self.data.len();
        }
        &mut self.buffer[self.data.end..][..READ_SIZE]
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use std::convert::Infallible;

    const GRID: usize = 4096;

    fn layout() -> Layout {
        Layout {
            zero_grid: GRID,
            zero_blob: 4 * GRID,
            ..Layout::of_average(4 << 10)
        }
    }

    #[derive(Clone, Debug, PartialEq, Eq)]
    enum Piece {
        Chunk(Vec<u8>),
        Zeros(u64),
    }

    impl PieceSink for &mut Vec<Piece> {
        type Error = Infallible;

        fn chunk(&mut self, bytes: &[u8]) -> Result<(), Infallible> {
            self.push(Piece::Chunk(bytes.to_vec()));
            Ok(())
        }

        fn zeros(&mut self, length: u64) -> Result<(), Infallible> {
            self.push(Piece::Zeros(length));
            Ok(())
        }
    }

    /// Cuts `data`, read in steps of so many blocks in turn. A step of zeros is skipped if `holes`.
    fn cut(data: &[u8], steps: &[usize], holes: bool, buffer: &mut Vec<u8>) -> Vec<Piece> {
        let layout = layout();
        let mut pieces = Vec::new();
        let mut cutter = Cutter::new(&layout, buffer, &mut pieces);
        let (mut at, mut steps) = (0, steps.iter().cycle());
        while at < data.len() {
            let room = cutter.room();
            let step = steps.next().unwrap() * GRID;
            let length = step.min(room.len()).min(data.len() - at);
            let piece = &data[at..at + length];
            if holes && is_zero(piece) {
                cutter.skip(length as u64).unwrap();
            } else {
                room[..length].copy_from_slice(piece);
                cutter.take(length).unwrap();
            }
            at += length;
        }
        cutter.finish().unwrap();
        pieces
    }

    fn joined(pieces: &[Piece]) -> Vec<u8> {
        let mut data = Vec::new();
        for piece in pieces {
            match piece {
                Piece::Chunk(bytes) => data.extend_from_slice(bytes),
                Piece::Zeros(length) => data.resize(data.len() + *length as usize, 0),
            }
        }
        data
    }

    /// Files of runs of noise and of zeros.
    fn files() -> impl Strategy<Value = Vec<u8>> {
        let noise = vec(any::<u8>(), 1..3000).prop_flat_map(|seed| {
            (1usize..90_000).prop_map(move |size| {
                let noise = seed.iter().cycle().zip(0u32..).take(size);
                noise.map(|(byte, at)| byte ^ (at >> 8) as u8).collect()
            })
        });
        let zeros = (1usize..60_000).prop_map(|size| vec![0; size]);
        let run = prop_oneof![noise, zeros];
        vec(run, 0..8).prop_map(|runs: Vec<Vec<u8>>| runs.concat())
    }

    /// The data that waits for more is moved when the buffer is full.
    #[test]
    fn a_file_may_be_larger_than_the_buffer() {
        let mut data: Vec<u8> = (0..5u64 << 20).map(|at| (at * at / 4093) as u8).collect();
        data.push(0);
        for steps in [[64, 64], [1, 63]] {
            assert!(joined(&cut(&data, &steps, false, &mut Vec::new())) == data);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 64,
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn pieces_depend_on_the_content_alone(
            data in files(),
            steps in vec(1usize..80, 1..6),
        ) {
            let pieces = cut(&data, &[64], false, &mut Vec::new());
            prop_assert_eq!(&joined(&pieces), &data);
            prop_assert_eq!(&cut(&data, &steps, false, &mut vec![7; 9]), &pieces);
            prop_assert_eq!(&cut(&data, &steps, true, &mut Vec::new()), &pieces);
        }

        #[test]
        fn pieces_keep_to_the_layout(data in files()) {
            let layout = layout();
            let pieces = cut(&data, &[64], false, &mut Vec::new());
            let mut at = 0;
            for (number, piece) in pieces.iter().enumerate() {
                let length = match piece {
                    Piece::Chunk(bytes) => {
                        prop_assert!(bytes.len() <= layout.chunk_max);
                        let is_last = !matches!(pieces.get(number + 1), Some(Piece::Chunk(_)));
                        prop_assert!(is_last || bytes.len() >= layout.chunk_min);
                        let first = (GRID - at % GRID) % GRID;
                        let blocks = bytes.get(first..).unwrap_or_default().chunks_exact(GRID);
                        prop_assert!(blocks.into_iter().all(|block| !is_zero(block)));
                        bytes.len()
                    }
                    Piece::Zeros(length) => {
                        prop_assert_eq!(at % GRID, 0);
                        prop_assert!(!matches!(pieces.get(number + 1), Some(Piece::Zeros(_))));
                        *length as usize
                    }
                };
                at += length;
            }
        }
    }
}
