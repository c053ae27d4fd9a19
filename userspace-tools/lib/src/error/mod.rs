// SPDX-License-Identifier: MIT OR Apache-2.0

//! What can go wrong, each with the path, the cause and, where there is one, the way out.

pub mod problems;

use crate::error::problems::Problems;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Shorthand for a result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call on a path failed.
    #[error("cannot {action} {}: {cause}{}", .path.display(), WayOut(.path, .cause))]
    Io {
        /// What it was about.
        path: PathBuf,
        /// The verb, which the path follows in the message: "open", "create a file in".
        action: &'static str,
        /// The cause. Not called `source`: the message has it already.
        cause: io::Error,
    },
    /// There is no room for what is extracted.
    #[error(
        "cannot {action} {}: {cause}; make room and extract into a new directory: \
         what was extracted so far is left", .path.display())]
    NoRoom {
        /// What it was about.
        path: PathBuf,
        /// The verb, which the path follows in the message.
        action: &'static str,
        /// The cause.
        cause: io::Error,
    },
    /// The tree changed under the builder.
    #[error(
        "{}: changed while it was being read ({what}); nothing was tagged. \
         Build again when the tree is quiet, or from a snapshot of it", .path.display())]
    Changed {
        /// The file or directory.
        path: PathBuf,
        /// What differed.
        what: String,
    },
    /// The directory is not an OCI image layout, or its files say something impossible.
    #[error("{}: {what}", .path.display())]
    Store {
        /// The store, or the file in it.
        path: PathBuf,
        /// What is wrong and what to do.
        what: String,
    },
    /// No image by that tag.
    #[error("{}: no image is tagged '{tag}'; {}", .store.display(), Tags(.tags))]
    NoSuchTag {
        /// The store.
        store: PathBuf,
        /// The tag asked for.
        tag: String,
        /// The tags that there are.
        tags: Vec<String>,
    },
    /// An image reference that cannot be read.
    #[error("'{reference}': {what}")]
    Reference {
        /// What was given.
        reference: String,
        /// Why it cannot be, and the right form.
        what: String,
    },
    /// The metadata blob is not well-formed.
    #[error("{}: malformed metadata: {what}", .path.display())]
    Metadata {
        /// The metadata blob.
        path: PathBuf,
        /// What the reader said.
        what: String,
    },
    /// An archive or a container image cannot be read.
    #[error("{}: cannot be read: {what}", .path.display())]
    Archive {
        /// What was to be read.
        path: PathBuf,
        /// What is wrong and what to do.
        what: String,
    },
    /// A rule of the build cannot be kept.
    #[error("{}: {what}", .path.display())]
    Rule {
        /// What it is about.
        path: PathBuf,
        /// What is wrong and what to do.
        what: String,
    },
    /// Several problems with the tree that an image is built from.
    #[error("{0}")]
    Problems(Box<Problems>),
    /// The work was interrupted on request.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// An [`Error::Io`], or [`Error::Interrupted`] where that was the cause; to be used in `map_err`.
    pub(crate) fn io<E: Into<io::Error>>(
        path: impl AsRef<Path>,
        action: &'static str,
    ) -> impl FnOnce(E) -> Error {
        move |cause| match cause.into() {
            cause if Stopped::is_cause_of(&cause) => Error::Interrupted,
            cause => Error::Io {
                path: path.as_ref().to_path_buf(),
                action,
                cause,
            },
        }
    }

    /// The same error where no store is written to.
    pub(crate) fn outside_stores(self) -> Error {
        match self {
            Error::Io {
                path,
                action,
                cause,
            } if is_full(&cause) => Error::NoRoom {
                path,
                action,
                cause,
            },
            error => error,
        }
    }

    /// An [`Error::Store`].
    pub(crate) fn store(path: impl AsRef<Path>, what: impl Into<String>) -> Error {
        Error::Store {
            path: path.as_ref().to_path_buf(),
            what: what.into(),
        }
    }
}

/// What to do about a failed system call, where something can be said.
struct WayOut<'a>(&'a Path, &'a io::Error);

impl fmt::Display for WayOut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let WayOut(path, cause) = *self;
        if !is_full(cause) {
            return Ok(());
        }
        f.write_str(
            "; make room and try again ('puzzlefs gc' frees what no image of a store needs",
        )?;
        // A tag cannot be taken away either, for gc to find something.
        f.write_str(match path.ends_with("index.json") {
            true => "; if that is nothing, something else of this filesystem has to go)",
            false => ")",
        })
    }
}

/// Whether a system call failed for want of room.
fn is_full(cause: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(cause.kind(), StorageFull | QuotaExceeded)
}

/// How a list of tags reads in a message.
struct Tags<'a>(&'a [String]);

impl fmt::Display for Tags<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 20;
        match self.0 {
            [] => f.write_str("the store holds no tags"),
            tags => {
                let shown = &tags[..tags.len().min(SHOWN)];
                write!(f, "the tags are: {}", shown.join(", "))?;
                if tags.len() > SHOWN {
                    write!(f, " and {} more", tags.len() - SHOWN)?;
                }
                Ok(())
            }
        }
    }
}

/// The cause of an error of reading that was stopped; it becomes
/// [`Error::Interrupted`].
#[derive(Debug)]
pub(crate) struct Stopped;

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Stopped {}

impl Stopped {
    /// Whether this is behind an error.
    pub fn is_cause_of(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|cause| cause.is::<Stopped>())
    }
}
