// SPDX-License-Identifier: MIT OR Apache-2.0

//! Results on standard output.

use crate::format;
use anyhow::Context;
use puzzlefs_lib::builder::Count;
use puzzlefs_lib::error;
use puzzlefs_lib::message::{self, printable, unwritable};
use serde::Serialize;
use std::borrow::Cow;
use std::fmt::{Display, Write as _};
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};

/// Standard output, buffered. Its errors are returned.
pub struct Output {
    stream: BufWriter<StdoutLock<'static>>,
    terminal: bool,
}

impl Output {
    /// Locks standard output.
    pub fn new() -> Self {
        let stdout = io::stdout();
        Output {
            terminal: stdout.is_terminal(),
            stream: BufWriter::with_capacity(64 << 10, stdout.lock()),
        }
    }

    /// Prints a JSON value and the end of the line.
    pub fn json(&mut self, value: &impl Serialize) -> anyhow::Result<()> {
        serde_json::to_writer(&mut *self, value).map_err(io::Error::from)?;
        Ok(self.write_all(b"\n")?)
    }

    /// Ends the report of work that is done. A closed pipe is not an error, because a failure would say
    /// that the work is not done.
    pub fn end(
        mut self,
        printed: anyhow::Result<()>,
        done: impl FnOnce() -> String,
    ) -> anyhow::Result<()> {
        match printed.and_then(|()| Ok(self.flush()?)) {
            Err(error) if is_broken_pipe(&error) => Ok(()),
            printed => printed.with_context(|| format!("{}, but cannot be reported", done())),
        }
    }

    /// Prints the number and the size of the blobs of each kind, one kind a line. The kinds' names take
    /// `width` columns.
    pub fn counts<const N: usize>(
        &mut self,
        width: usize,
        kinds: [(&str, Count); N],
    ) -> io::Result<()> {
        for (kind, count) in kinds {
            let bytes = format::bytes(count.bytes);
            let blobs = format::count(count.blobs, "blob", "blobs");
            writeln!(self, "{kind:>width$}: {bytes:>10} in {blobs}")?;
        }
        Ok(())
    }

    /// Returns a file's name for printing: escaped on a terminal, unchanged elsewhere.
    pub fn name<'a>(&self, name: &'a [u8]) -> Cow<'a, [u8]> {
        if self.terminal {
            Cow::Owned(printable(name).into_bytes())
        } else {
            Cow::Borrowed(name)
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes).map_err(unwritable)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush().map_err(unwritable)
    }
}

/// Writes a message to standard error, in a line of its own.
pub fn say(what: impl Display) {
    message::tell("puzzlefs", what);
}

/// A file's name in JSON, which has no type for bytes.
#[derive(Serialize)]
pub struct JsonPath {
    path: String,
    /// The name's bytes in hexadecimal, if they are not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
}

impl JsonPath {
    /// Makes a name of these bytes.
    pub fn new(path: &[u8]) -> Self {
        JsonPath {
            path: String::from_utf8_lossy(path).into_owned(),
            path_hex: hex_unless_text(path),
        }
    }
}

/// Returns bytes in hexadecimal, if they are not UTF-8.
pub fn hex_unless_text(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes).is_err().then(|| hex(bytes))
}

/// Returns bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// Returns true if the reader of standard output is gone.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error::is_broken_pipe(error.as_ref())
}
