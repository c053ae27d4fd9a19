// SPDX-License-Identifier: MIT OR Apache-2.0

//! The reads of a mount, for a start-up order.
//!
//! The page cache of a new mount is cold and has no readahead, so each page that a process uses is read once,
//! when it is first used.

use puzzlefs_lib::start_order::{FileRange, StartOrder};
use puzzlefs_schema::ROOT_INO;
use std::collections::hash_map::Entry;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The reads of a mount, in order. Copies have the same reads.
#[derive(Clone, Default)]
pub struct Trace(Arc<Mutex<State>>);

/// Memory is bounded by the numbers of inodes and pages of the image.
#[derive(Default)]
struct State {
    /// The first name of each inode that was looked up, and the inode of its directory.
    names: HashMap<u64, (u64, Vec<u8>)>,
    reads: Vec<Read>,
}

/// A range of an inode. An inode that was only looked up has the length 0.
struct Read {
    ino: u64,
    offset: u64,
    length: u64,
}

impl Trace {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a name led to an inode.
    pub(crate) fn looked_up(&self, parent: u64, name: &OsStr, ino: u64) {
        let State { names, reads } = &mut *self.state();
        if let Entry::Vacant(entry) = names.entry(ino) {
            entry.insert((parent, name.as_bytes().to_vec()));
            reads.push(Read {
                ino,
                offset: 0,
                length: 0,
            });
        }
    }

    /// Notes that a range of a file was read.
    pub(crate) fn read(&self, ino: u64, offset: u64, length: u64) {
        let reads = &mut self.state().reads;
        match reads.last_mut() {
            Some(last)
                if last.ino == ino && last.length > 0 && last.offset + last.length == offset =>
            {
                last.length += length;
            }
            _ => reads.push(Read {
                ino,
                offset,
                length,
            }),
        }
    }

    /// Returns the reads as a start-up order.
    pub fn order(&self) -> StartOrder {
        let state = self.state();
        let ranges = state.reads.iter().filter_map(|read| {
            // No system call takes a path that is too long for a range.
            FileRange::new(state.path(read.ino)?, read.offset, read.length).ok()
        });
        StartOrder::of(ranges.collect())
    }
}

impl State {
    /// Returns the path by which an inode was looked up.
    fn path(&self, mut ino: u64) -> Option<Vec<u8>> {
        let mut names = Vec::new();
        while ino != ROOT_INO {
            let (parent, name) = self.names.get(&ino)?;
            names.push(&name[..]);
            ino = *parent;
            // A directory of a malformed image can be in itself.
            if names.len() > self.names.len() {
                return None;
            }
        }
        names.reverse();
        Some([b"/", &names.join(&b'/')[..]].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_become_an_order() {
        let trace = Trace::default();
        let look_up = |parent, name: &str, ino| trace.looked_up(parent, OsStr::new(name), ino);
        look_up(ROOT_INO, "bin", 20);
        look_up(20, "sh", 21);
        look_up(20, "other-name", 21);
        look_up(ROOT_INO, "link", 22);
        for (ino, offset) in [(21, 4096), (21, 8192), (23, 0), (21, 0)] {
            trace.read(ino, offset, 4096);
        }
        let wanted = "0 0 /link\n4096 8192 /bin/sh\n0 4096 /bin/sh\n";
        assert_eq!(trace.order().to_text(), wanted.as_bytes());
    }

    #[test]
    fn a_directory_in_itself_has_no_path() {
        let trace = Trace::default();
        trace.looked_up(31, OsStr::new("a"), 30);
        trace.looked_up(30, OsStr::new("b"), 31);
        assert_eq!(trace.order(), StartOrder::default());
    }
}
