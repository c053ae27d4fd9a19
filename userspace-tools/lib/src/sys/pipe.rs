// SPDX-License-Identifier: MIT OR Apache-2.0

//! Passes bytes from one thread to another.

use crate::error::{Error, Result};
use std::io::{self, Read};
use std::panic;
use std::sync::mpsc::{sync_channel, Receiver};
use std::thread;

/// The number of pieces that wait for the reader.
const WAITING: usize = 8;

/// Runs `produce` in a thread of its own, and meanwhile `consume` with the bytes that it gives.
///
/// `produce` gets a function that takes pieces of any size. That function fails once `consume` has ended.
///
/// # Errors
///
/// The error of `produce`, because it is the cause of any error of `consume`; else the error of `consume`.
pub(crate) fn piped<T>(
    produce: impl FnOnce(&mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> + Send,
    consume: impl FnOnce(PipeReader) -> Result<T>,
) -> Result<T> {
    let (sender, receiver) = sync_channel::<Vec<u8>>(WAITING);
    thread::scope(|scope| {
        let producer = scope.spawn(move || {
            let mut is_read = true;
            let produced = produce(&mut |piece| {
                is_read = is_read && sender.send(piece.to_vec()).is_ok();
                // The caller never sees this error.
                is_read.then_some(()).ok_or(Error::Interrupted)
            });
            match produced {
                Err(Error::Interrupted) if !is_read => Ok(()),
                produced => produced,
            }
        });
        let consumed = consume(PipeReader {
            receiver,
            piece: Vec::new(),
            at: 0,
        });
        match producer.join() {
            Ok(Ok(())) => consumed,
            Ok(Err(error)) => Err(error),
            Err(payload) => panic::resume_unwind(payload),
        }
    })
}

/// The end of a pipe that is read. It ends early if the other end fails.
pub(crate) struct PipeReader {
    receiver: Receiver<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
}

impl Read for PipeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() {
            match self.receiver.recv() {
                Ok(piece) => (self.piece, self.at) = (piece, 0),
                Err(_) => return Ok(0),
            }
        }
        let rest = self.piece.get(self.at..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.at += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn produce(give: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        for number in 0..1000_u16 {
            give(&number.to_le_bytes())?;
            give(b"")?;
        }
        Ok(())
    }

    #[test]
    fn all_bytes_arrive_in_their_order() {
        let bytes = piped(produce, |mut reader| {
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes).unwrap();
            Ok(bytes)
        });
        let wanted: Vec<u8> = (0..1000_u16).flat_map(u16::to_le_bytes).collect();
        assert_eq!(bytes.unwrap(), wanted);
    }

    #[test]
    fn a_reader_may_end_early() {
        assert_eq!(piped(produce, |_| Ok(1)).unwrap(), 1);
        let failed: Result<()> = piped(produce, |_| Err(Error::Usage("wrong".to_owned())));
        assert!(matches!(failed, Err(Error::Usage(_))));
    }

    #[test]
    fn the_error_of_the_producer_counts() {
        let fail = |give: &mut dyn FnMut(&[u8]) -> Result<()>| {
            give(b"x")?;
            Err(Error::Usage("broken".to_owned()))
        };
        let read: Result<usize> = piped(fail, |mut reader| Ok(reader.read(&mut [0; 9]).unwrap()));
        assert!(matches!(read, Err(Error::Usage(_))));
    }
}
