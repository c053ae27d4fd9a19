// SPDX-License-Identifier: MIT OR Apache-2.0

//! Input that may never come or end. Reading it ends at a request to stop.

use crate::error::Stopped;
use crate::sys::progress::Progress;
use rustix::event::{poll, PollFd, PollFlags};
use rustix::fs::{OFlags, Timespec};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::Arc;

/// The time between two checks for a request to stop.
const PATIENCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

/// A file, pipe or device that is read until a request to stop.
pub(crate) struct Stoppable {
    file: File,
    stop: Arc<AtomicBool>,
}

impl Stoppable {
    /// Opens a file. Does not wait for a writer of a FIFO.
    pub fn open(path: &Path) -> io::Result<File> {
        let flags = OFlags::NONBLOCK.bits();
        File::options()
            .read(true)
            .custom_flags(flags as i32)
            .open(path)
    }

    pub fn new(file: File, progress: &Progress) -> Self {
        let stop = progress.stop();
        Stoppable { file, stop }
    }

    /// The standard input.
    pub fn stdin(progress: &Progress) -> io::Result<Self> {
        let file = rustix::io::dup(rustix::stdio::stdin())?;
        Ok(Self::new(File::from(file), progress))
    }
}

impl Read for Stoppable {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.stop.load(Relaxed) {
                return Err(io::Error::other(Stopped));
            }
            // A FIFO without a writer yet is not at its end.
            match poll(
                &mut [PollFd::new(&self.file, PollFlags::IN)],
                Some(&PATIENCE),
            ) {
                Ok(0) | Err(Errno::INTR) => continue,
                Ok(_) => {}
                Err(errno) => return Err(errno.into()),
            }
            match self.file.read(buffer) {
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                read => return read,
            }
        }
    }
}
