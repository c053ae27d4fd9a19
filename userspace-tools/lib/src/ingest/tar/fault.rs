// SPDX-License-Identifier: MIT OR Apache-2.0

//! The errors of reading an archive.

use std::io;

/// The cause that an archive cannot be read.
#[derive(Debug)]
pub(crate) enum Fault {
    /// Reading it failed.
    Io(io::Error),
    /// The archive ends without the blocks that mark its end.
    NoEnd,
    /// The archive is malformed; the text says how.
    Malformed(String),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Fault::Malformed("it is truncated".to_owned()),
            _ => Fault::Io(error),
        }
    }
}

pub(super) type Result<T> = std::result::Result<T, Fault>;

/// Returns a [`Fault::Malformed`].
pub(super) fn malformed<T>(what: impl Into<String>) -> Result<T> {
    Err(Fault::Malformed(what.into()))
}

/// Adds the name of a member to the error that it causes.
pub(super) fn name_fault(name: &[u8], fault: Fault) -> Fault {
    match fault {
        Fault::Malformed(what) => {
            let name = String::from_utf8_lossy(name);
            // A fault in the data of a member has its name already.
            match what.strip_prefix(&*name) {
                Some(rest) if rest.starts_with(": ") => Fault::Malformed(what),
                _ => Fault::Malformed(format!("{name}: {what}")),
            }
        }
        fault => fault,
    }
}
