// SPDX-License-Identifier: MIT OR Apache-2.0

//! Stored chunks that wait for their turns in a file, when there are too many for memory.

use crate::error::{Error, Result};
use crate::sys::parallel::lock;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;

/// A file without a name, made when it is first used.
pub(super) struct Spill<'a> {
    directory: &'a Path,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    file: Option<File>,
    end: u64,
}

/// The place of bytes in a [`Spill`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Spilled {
    offset: u64,
    length: usize,
}

impl<'a> Spill<'a> {
    /// A spill in a directory.
    pub fn new(directory: &'a Path) -> Self {
        Spill {
            directory,
            state: Mutex::default(),
        }
    }

    /// Writes bytes.
    pub fn write(&self, bytes: &[u8]) -> Result<Spilled> {
        // One thread writes at a time. Chunks wait here only if one file takes much longer than others.
        let mut state = lock(&self.state);
        let offset = state.end;
        let file = match &state.file {
            Some(file) => file,
            None => {
                let file = tempfile::tempfile_in(self.directory);
                let file = file.map_err(Error::io(self.directory, "create a file in"))?;
                state.file.insert(file)
            }
        };
        file.write_all_at(bytes, offset)
            .map_err(Error::io(self.directory, "write to a file in"))?;
        state.end += bytes.len() as u64;
        Ok(Spilled {
            offset,
            length: bytes.len(),
        })
    }

    /// Reads bytes that were written.
    pub fn read(&self, spilled: Spilled) -> Result<Vec<u8>> {
        let state = lock(&self.state);
        let mut bytes = vec![0; spilled.length];
        if let Some(file) = &state.file {
            file.read_exact_at(&mut bytes, spilled.offset)
                .map_err(Error::io(self.directory, "read from a file in"))?;
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back() {
        let scratch = tempfile::tempdir().unwrap();
        let spill = Spill::new(scratch.path());
        let first = spill.write(b"first").unwrap();
        let second = spill.write(b"second one").unwrap();
        assert_eq!(spill.read(second).unwrap(), b"second one");
        assert_eq!(spill.read(first).unwrap(), b"first");
        assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
    }
}
