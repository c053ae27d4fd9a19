// SPDX-License-Identifier: MIT OR Apache-2.0

//! Reads files that may change meanwhile, as often as the options allow.

use crate::build::layout::Layout;
use crate::build::source::{OpenFile, Source};
use crate::error::problems::{Problems, Remedy};
use crate::error::{Error, Result};
use crate::model::rules::XattrSelection;
use crate::model::tree::{FileState, Fresh, Kind, NodeId, Tree};
use crate::sys::parallel::{into_inner, lock};
use crate::sys::progress::Progress;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Mutex;

/// The failure of an attempt to read a file.
pub(crate) enum Failure {
    /// The file cannot be read, or has changed.
    File(Error),
    /// Something else has failed.
    Other(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Other(error)
    }
}

/// A file as an attempt reads it.
pub(crate) struct Attempt<'a> {
    pub node: NodeId,
    pub state: &'a FileState,
    /// The second of the last modification.
    pub modified: i64,
    /// 0 for the first attempt, and so on.
    pub number: u32,
}

/// Files that were read again: their state, and the number of the attempt that counts.
pub(crate) type ReadAgain = HashMap<NodeId, (u32, Fresh)>;

/// Reads the files of a tree for several threads, and collects the problems.
pub(crate) struct FileReader<'a> {
    pub source: &'a Source,
    pub tree: &'a Tree,
    pub layout: &'a Layout,
    /// The extended attributes to read of a file that is examined again.
    pub xattrs: &'a XattrSelection,
    /// The number of times that a file that changes is read again.
    pub retries: u32,
    pub progress: &'a Progress,
    /// Problems with files. After the first one, files are opened but not read.
    pub problems: Mutex<Problems>,
    pub read_again: Mutex<ReadAgain>,
}

impl FileReader<'_> {
    /// Reads a file by `read`, which is called again for a file that has changed. Returns false if
    /// the file could not be read, which is a problem of the build.
    pub fn attempt(
        &self,
        node: NodeId,
        mut read: impl FnMut(&Attempt<'_>) -> Result<(), Failure>,
    ) -> Result<bool> {
        let found = &self.tree.nodes[node as usize];
        let Kind::File(state) = &found.kind else {
            return Ok(false);
        };
        if !lock(&self.problems).is_empty() {
            self.examine(node, state)?;
            return Ok(false);
        }
        let first = Attempt {
            node,
            state,
            modified: found.mtime.seconds,
            number: 0,
        };
        match read(&first) {
            Ok(()) => Ok(true),
            Err(Failure::Other(error)) => Err(error),
            Err(Failure::File(failed)) => self.attempt_again(node, state, failed, read),
        }
    }

    /// Opens a file, only to find out whether it is a problem too.
    fn examine(&self, node: NodeId, state: &FileState) -> Result<()> {
        match self.source.open_file(self.tree, node, state) {
            Ok(_) => Ok(()),
            Err(error) => self.add_problem(node, error, Remedy::Walk),
        }
    }

    /// Reads a file again while the error is that it has changed.
    fn attempt_again(
        &self,
        node: NodeId,
        state: &FileState,
        mut failed: Error,
        mut read: impl FnMut(&Attempt<'_>) -> Result<(), Failure>,
    ) -> Result<bool> {
        for number in 1..=self.retries {
            if !failed.is_change() {
                break;
            }
            self.progress.check()?;
            let fresh = match self.source.look_again(self.tree, node, self.xattrs) {
                Ok(fresh) => fresh,
                Err(error) => {
                    self.add_problem(node, error, Remedy::Walk)?;
                    return Ok(false);
                }
            };
            let is_small = self.layout.is_bundled(fresh.state.size) && fresh.state.size > 0;
            if is_small != self.layout.is_bundled(state.size) {
                // Only a new walk puts it among the other sort of files.
                lock(&self.problems).add(failed, Remedy::Walk)?;
                return Ok(false);
            }
            let again = Attempt {
                node,
                state: &fresh.state,
                modified: fresh.mtime.seconds,
                number,
            };
            match read(&again) {
                Ok(()) => {
                    lock(&self.read_again).insert(node, (number, fresh));
                    return Ok(true);
                }
                Err(Failure::Other(error)) => return Err(error),
                Err(Failure::File(error)) => failed = error,
            }
        }
        // A file that still changes after all attempts will go on changing.
        self.add_problem(node, failed, Remedy::None)?;
        Ok(false)
    }

    /// Adds the problem that a file cannot be read, or has changed, with the remedy for the latter.
    fn add_problem(&self, node: NodeId, error: Error, if_changed: Remedy) -> Result<()> {
        let remedy = match &error {
            Error::System(_) => Remedy::LeaveOut(self.tree.path(node)),
            _ => if_changed,
        };
        lock(&self.problems).add(error, remedy)
    }

    /// Opens a file in the state that an attempt expects.
    pub fn open<'b>(&'b self, attempt: &'b Attempt<'_>) -> Result<OpenFile<'b>, Failure> {
        self.source
            .open_file(self.tree, attempt.node, attempt.state)
            .map_err(Failure::File)
    }

    /// Fills `buffer` from a file.
    pub fn read(&self, file: &OpenFile<'_>, at: u64, buffer: &mut [u8]) -> Result<(), Failure> {
        file.read(at, buffer).map_err(Failure::File)?;
        self.progress.done_bytes(buffer.len() as u64);
        Ok(())
    }

    /// Returns the next range of a file, from `at` on, that is not known to be zeros. Its ends are
    /// aligned to the grid of zeros, or the end of the file. It is empty if only zeros are left.
    pub fn next_data(
        &self,
        file: &OpenFile<'_>,
        at: u64,
        size: u64,
    ) -> Result<Range<u64>, Failure> {
        let grid = self.layout.zero_grid as u64;
        let data = file.next_data(at).map_err(Failure::File)?;
        let start = (data.start - data.start % grid).clamp(at, size);
        let end = data.end.next_multiple_of(grid).clamp(start, size);
        Ok(start..end)
    }

    /// Returns the files that were read again, or the problems.
    pub fn finish(self) -> Result<ReadAgain> {
        let problems = into_inner(self.problems);
        if problems.is_empty() {
            Ok(into_inner(self.read_again))
        } else {
            Err(Error::Problems(Box::new(problems)))
        }
    }
}
