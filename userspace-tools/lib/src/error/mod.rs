// SPDX-License-Identifier: MIT OR Apache-2.0

//! Errors: one enum for each area with a variant for each failure, and [`Error`], which wraps them.
//!
//! A message is built where it is shown. It reads "cannot VERB OBJECT: CAUSE", followed by a remedy if
//! there is one. [`exit_status`] maps every error to the exit status of a program.
//!
//! | area | content |
//! | --- | --- |
//! | `status` | the exit status for an error |
//! | `problems` | several problems of one tree |
//! | `command` | failures of commands on images and stores |
//! | `mount` | failures of mounts and unmounts |
//! | `fetch` | failures to fetch images from registries |
//! | `ingest` | failures to read archives and container images |
//! | `build` | failures to build an image |
//! | `image` | failures to read an image |
//! | `store` | failures to read or write a store |
//! | `system` | failures of system calls |

mod build;
mod command;
mod fetch;
mod image;
mod ingest;
mod mount;
pub mod problems;
mod status;
mod store;
mod system;

pub use build::{BuildError, Change};
pub use command::{CommandError, LostPack, PackLoss};
pub use fetch::{FetchError, TalkFault};
pub use image::{ImageError, PathFault};
pub use ingest::{
    ContainerFault, Extension, IngestError, IngestFault, MalformedTar, SparseFault, TarFault,
    TarPlace, TreeFault, UnsupportedFormat,
};
pub use mount::MountError;
pub(crate) use mount::VALUE_MAX;
pub use status::{exit_status, is_broken_pipe, Program};
pub use store::{Damage, StoreError, TableFault};
pub use system::SystemError;
pub(crate) use system::{is_full, Stopped};

use crate::error::problems::Problems;
pub use crate::model::acl::AclFault;
pub use crate::model::chunk::{ChunkFault, EncodeError};
pub use crate::model::json::ParseError;
pub use crate::model::media::{NotImportable, NotPuzzlefs};
pub use crate::model::oci::{AnnotationsTooLarge, UnknownIndex};
pub use crate::model::owners::Unmapped;
pub use crate::model::reference::{ReferenceError, ReferenceFault};
pub use crate::model::rules::RuleError;
pub use crate::model::start_order::OrderFault;
pub use crate::model::transport::Foreign;
pub use crate::model::tree::Difference;
use std::io;
use std::path::Path;

/// Shorthand for a result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The options of a command contradict each other, for the reason in the message.
    #[error("{0}")]
    Usage(String),
    /// A system call on a path failed.
    #[error(transparent)]
    System(#[from] SystemError),
    /// The name of an image, a tag or a source cannot be used.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// A rule of a build cannot be applied to a file.
    #[error(transparent)]
    Rule(#[from] RuleError),
    /// A store cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An image cannot be read.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// An archive or a container image cannot be read.
    #[error(transparent)]
    Ingest(#[from] IngestError),
    /// An image cannot be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// A command on an image or a store cannot be carried out.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// An image cannot be mounted or unmounted.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// An image cannot be fetched from its source.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// An exchange with a registry failed. `puzzlefs-registry` has the types of these errors.
    #[error(transparent)]
    Remote(Box<dyn std::error::Error + Send + Sync>),
    /// Several problems with the tree that an image is built from.
    #[error("{0}")]
    Problems(Box<Problems>),
    /// The work was interrupted on request.
    #[error("interrupted")]
    Interrupted,
}

impl From<EncodeError> for Error {
    fn from(error: EncodeError) -> Self {
        BuildError::from(error).into()
    }
}

impl Error {
    /// Returns a function for `map_err` that makes a [`SystemError::Call`], or an
    /// [`Error::Interrupted`] if a request to stop was the cause.
    pub(crate) fn io<E: Into<io::Error>>(
        path: impl AsRef<Path>,
        action: &'static str,
    ) -> impl FnOnce(E) -> Error {
        move |cause| {
            let cause = cause.into();
            if Stopped::is_cause_of(&cause) {
                return Error::Interrupted;
            }
            SystemError::Call {
                path: path.as_ref().to_path_buf(),
                action,
                cause,
            }
            .into()
        }
    }

    /// Returns true if the tree changed while it was read.
    pub(crate) fn is_change(&self) -> bool {
        matches!(self, Error::Build(BuildError::Changed { .. }))
    }

    /// Returns true if a file does not exist.
    pub(crate) fn is_not_found(&self) -> bool {
        let cause = self.system_cause().map(io::Error::kind);
        cause == Some(io::ErrorKind::NotFound)
    }

    /// Returns the cause if a system call failed.
    pub(crate) fn system_cause(&self) -> Option<&io::Error> {
        match self {
            Error::System(SystemError::Call { cause, .. } | SystemError::NoRoom { cause, .. }) => {
                Some(cause)
            }
            _ => None,
        }
    }

    /// Returns the error for work that writes outside of stores, where `puzzlefs gc` frees nothing.
    pub(crate) fn outside_stores(self) -> Error {
        match self {
            Error::System(SystemError::Call {
                path,
                action,
                cause,
            }) if is_full(&cause) => SystemError::NoRoom {
                path,
                action,
                cause,
            }
            .into(),
            error => error,
        }
    }
}
