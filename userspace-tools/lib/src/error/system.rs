// SPDX-License-Identifier: MIT OR Apache-2.0

//! Failures of system calls.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A system call on a path failed.
#[derive(Debug, thiserror::Error)]
pub enum SystemError {
    /// A call failed.
    #[error("cannot {action} {}: {cause}{}", .path.display(), Remedy(.path, .cause))]
    Call {
        /// The object of the call.
        path: PathBuf,
        /// The verb, which the path follows in the message: "open", "create a file in".
        action: &'static str,
        /// The cause. It is not named `source`, because the message contains it already.
        cause: io::Error,
    },
    /// The filesystem of an extraction is full.
    #[error(
        "cannot {action} {}: {cause}; make room and extract into a new directory: \
         the files extracted so far remain", .path.display())]
    NoRoom {
        /// The object of the call.
        path: PathBuf,
        /// The verb, which the path follows in the message.
        action: &'static str,
        /// The cause.
        cause: io::Error,
    },
}

/// The remedy for a failed system call, if there is one.
struct Remedy<'a>(&'a Path, &'a io::Error);

impl fmt::Display for Remedy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Remedy(path, cause) = *self;
        if !is_full(cause) {
            return Ok(());
        }
        f.write_str(
            "; make room and try again ('puzzlefs gc' frees what no image of a store needs",
        )?;
        // To remove a tag takes room for a new index, too.
        if path.ends_with("index.json") {
            f.write_str("; if that is nothing, something else of this filesystem has to go")?;
        }
        f.write_str(")")
    }
}

/// Returns true if a system call failed because the filesystem or a quota is full.
pub(crate) fn is_full(cause: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(cause.kind(), StorageFull | QuotaExceeded)
}

/// The cause of a read error after a request to stop. It becomes [`Error::Interrupted`](super::Error).
#[derive(Debug)]
pub(crate) struct Stopped;

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Stopped {}

impl Stopped {
    /// Returns true if this is the cause of an error.
    pub fn is_cause_of(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|cause| cause.is::<Stopped>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(path: &str, kind: io::ErrorKind) -> String {
        let path = path.into();
        let cause = kind.into();
        let action = "write";
        SystemError::Call {
            path,
            action,
            cause,
        }
        .to_string()
    }

    #[test]
    fn a_full_filesystem_has_a_remedy() {
        let said = message("/s/blobs/x", io::ErrorKind::StorageFull);
        assert!(said.starts_with("cannot write /s/blobs/x: "), "{said}");
        assert!(said.ends_with("'puzzlefs gc' frees what no image of a store needs)"));
        let said = message("/s/index.json", io::ErrorKind::QuotaExceeded);
        assert!(said.ends_with("something else of this filesystem has to go)"));
        let said = message("/s/index.json", io::ErrorKind::NotFound);
        assert!(!said.contains(';'), "{said}");
    }
}
