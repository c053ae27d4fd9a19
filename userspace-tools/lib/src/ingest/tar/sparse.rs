// SPDX-License-Identifier: MIT OR Apache-2.0

//! Sparse files: their maps in PAX records, in front of their data, and in GNU's headers.

use super::fault::Result;
use super::header::{Header, BLOCK};
use super::member::FileData;
use super::pax::{decimal, Pax};
use super::stream::{Input, Stream};
use crate::error::{SparseFault, TarFault};
use crate::model::tree::Piece;
use puzzlefs_schema::MAX_FILE_SIZE;

/// The largest number of pieces of a sparse file.
const PIECES_MAX: u64 = 16 << 20;

/// Returns the data of a regular file that is sparse if the PAX records before it say so.
pub(super) fn file_data<I: Input>(
    stream: &mut Stream<I>,
    size: u64,
    pax: &Pax,
) -> Result<FileData> {
    stream.expect_data(size)?;
    let sparse = &pax.sparse;
    let version = (sparse.major.flatten(), sparse.minor.flatten());
    let numbers = match (version.0, version.1, &sparse.map) {
        (Some(1), Some(0), _) => map_before_data(stream)?,
        (None | Some(0), None | Some(0 | 1), Some(map)) => map.clone(),
        (None, None, None) => return Ok(whole_file(size)),
        _ => return Err(SparseFault::Version.into()),
    };
    let Some(real_size) = sparse.size.flatten() else {
        return Err(SparseFault::NoSize.into());
    };
    sparse_file(real_size, &numbers, stream.data_left())
}

/// Returns the data of a file of GNU's own sparse type: the map is in the header and in blocks after
/// it.
pub(super) fn gnu_file_data<I: Input>(
    stream: &mut Stream<I>,
    header: &Header<'_>,
    size: u64,
) -> Result<FileData> {
    let mut numbers = Vec::new();
    header.sparse_numbers(386..482, &mut numbers)?;
    let mut more = header.0[482] != 0;
    while more {
        let block = stream.block()?;
        Header(&block).sparse_numbers(0..504, &mut numbers)?;
        more = block[504] != 0;
        if numbers.len() as u64 / 2 > PIECES_MAX {
            return Err(SparseFault::TooManyPieces.into());
        }
    }
    stream.expect_data(size)?;
    sparse_file(header.number(483..495)?, &numbers, size)
}

fn whole_file(size: u64) -> FileData {
    let piece = Piece {
        at: 0,
        length: size,
        offset: 0,
    };
    let pieces = if size > 0 { vec![piece] } else { Vec::new() };
    FileData { size, pieces }
}

/// Reads the map at the beginning of a sparse file's data, version 1.0: numbers, each in a line of
/// its own, of which the first is the number of pieces; then padding.
fn map_before_data<I: Input>(stream: &mut Stream<I>) -> Result<Vec<u64>> {
    let mut numbers = Vec::new();
    let mut wanted = None;
    let mut digits = Vec::new();
    let mut block = [0; BLOCK];
    loop {
        if stream.read_data(&mut block)? != BLOCK {
            return Err(SparseFault::UnfinishedMap.into());
        }
        for &byte in &block {
            if byte != b'\n' {
                digits.push(byte);
                if digits.len() > 20 {
                    return Err(SparseFault::MalformedMap.into());
                }
                continue;
            }
            let number = decimal(&digits)?;
            digits.clear();
            match wanted {
                None if number > PIECES_MAX => return Err(SparseFault::TooManyPieces.into()),
                None => wanted = Some(2 * number),
                Some(_) => numbers.push(number),
            }
            if wanted == Some(numbers.len() as u64) {
                return Ok(numbers);
            }
        }
    }
}

/// Returns a sparse file of the pieces that `numbers` give, offsets and lengths in turn, of which
/// `stored` bytes are in the archive.
fn sparse_file(size: u64, numbers: &[u64], stored: u64) -> Result<FileData> {
    let mut pieces = Vec::new();
    let (mut end, mut offset) = (0, 0u64);
    for pair in numbers.chunks(2) {
        let &[at, length] = pair else {
            return Err(SparseFault::HalfPiece.into());
        };
        if at < end {
            return Err(SparseFault::Order.into());
        }
        end = match at.checked_add(length) {
            Some(end) if end <= size => end,
            _ => return Err(SparseFault::BeyondEnd.into()),
        };
        if length > 0 {
            pieces.push(Piece { at, length, offset });
        }
        offset += length;
    }
    if offset != stored {
        return Err(SparseFault::DataSize.into());
    }
    if size > MAX_FILE_SIZE {
        return Err(TarFault::FileTooLarge.into());
    }
    Ok(FileData { size, pieces })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sparse_maps_are_checked() {
        let pieces = |size, numbers: &[u64], stored| sparse_file(size, numbers, stored).is_ok();
        assert!(pieces(10, &[0, 1, 5, 5], 6));
        assert!(pieces(10, &[5, 1, 10, 0], 1));
        assert!(pieces(10, &[], 0));
        assert!(!pieces(10, &[0, 1, 5, 5], 5));
        assert!(!pieces(10, &[5, 1, 0, 1], 2));
        assert!(!pieces(10, &[0, 2, 1, 1], 3));
        assert!(!pieces(10, &[9, 2], 2));
        assert!(!pieces(10, &[u64::MAX, 2], 2));
        assert!(!pieces(10, &[1], 0));
        assert!(!pieces(u64::MAX, &[], 0));
    }
}
