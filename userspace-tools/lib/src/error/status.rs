// SPDX-License-Identifier: MIT OR Apache-2.0

//! The exit status for an error: the one policy of all programs.

use super::{BuildError, Error, MountError, ReferenceError};
use rustix::io::Errno;
use std::io;

/// The statuses of `puzzlefs`, which `puzzlefs --help` documents.
mod puzzlefs {
    pub const FAILURE: u8 = 1;
    pub const USAGE: u8 = 2;
    pub const CHANGED: u8 = 3;
    pub const INTERRUPTED: u8 = 130;
    /// The status of a program that SIGPIPE ends. Rust's runtime ignores the signal.
    pub const BROKEN_PIPE: u8 = 141;
}

/// The statuses of `mount.puzzlefs`, which mount(8) documents.
mod mount_helper {
    pub const USAGE: u8 = 1;
    pub const SYSTEM: u8 = 2;
    pub const FAILURE: u8 = 32;
}

/// The statuses of `puzzlefs-snapshotter`, which its help documents.
mod snapshotter {
    pub const FAILURE: u8 = 1;
    pub const USAGE: u8 = 2;
}

/// A program, which decides the numbers of its exit statuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// `puzzlefs`. It has the most statuses.
    Puzzlefs,
    /// `mount.puzzlefs`. mount(8) documents the statuses of its helpers.
    MountHelper,
    /// `puzzlefs-snapshotter`.
    Snapshotter,
}

/// A kind of failure. Failures of one kind have one exit status in each program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The command line asks for something that cannot be.
    Usage,
    /// The caller lacks a privilege.
    Denied,
    /// The system lacks a resource.
    System,
    /// The tree to build from changed, and another attempt may succeed.
    Changed,
    /// The work was interrupted on request.
    Interrupted,
    /// The reader of standard output is gone.
    BrokenPipe,
    /// The process in the background, a server over FUSE or a fetcher, failed with this status.
    Server(u8),
    /// Anything else.
    Failed,
}

/// Returns the exit status of a program that ends with an error.
///
/// | failure | `puzzlefs` | `mount.puzzlefs` | `puzzlefs-snapshotter` |
/// | --- | --- | --- | --- |
/// | usage | 2 | 1 | 2 |
/// | lack of a privilege | 1 | 1 | 1 |
/// | lack of a resource | 1 | 2 | 1 |
/// | tree that changes | 3 | 32 | 1 |
/// | interruption | 130 | 32 | 1 |
/// | closed standard output | 141 | 32 | 1 |
/// | process in the background | its own | 32 | 1 |
/// | any other | 1 | 32 | 1 |
pub fn exit_status(error: &(dyn std::error::Error + 'static), program: Program) -> u8 {
    let kind = Kind::of(error);
    match program {
        Program::Puzzlefs => match kind {
            Kind::Usage => puzzlefs::USAGE,
            Kind::Changed => puzzlefs::CHANGED,
            Kind::Interrupted => puzzlefs::INTERRUPTED,
            Kind::BrokenPipe => puzzlefs::BROKEN_PIPE,
            Kind::Server(status) => status,
            Kind::Denied | Kind::System | Kind::Failed => puzzlefs::FAILURE,
        },
        Program::MountHelper => match kind {
            Kind::Usage | Kind::Denied => mount_helper::USAGE,
            Kind::System => mount_helper::SYSTEM,
            _ => mount_helper::FAILURE,
        },
        Program::Snapshotter => match kind {
            Kind::Usage => snapshotter::USAGE,
            _ => snapshotter::FAILURE,
        },
    }
}

/// Returns true if a program ends because the reader of its standard output is gone.
pub fn is_broken_pipe(error: &(dyn std::error::Error + 'static)) -> bool {
    Kind::of(error) == Kind::BrokenPipe
}

impl Kind {
    /// Returns the kind of the first error of a chain of causes that has one.
    fn of(error: &(dyn std::error::Error + 'static)) -> Self {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(error) = error.downcast_ref::<Error>() {
                return Self::of_error(error);
            }
            if let Some(error) = error.downcast_ref::<MountError>() {
                return Self::of_mount(error);
            }
            if error.is::<ReferenceError>() {
                return Kind::Usage;
            }
            let io_kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
            let json_kind = || error.downcast_ref::<serde_json::Error>()?.io_error_kind();
            if io_kind.or_else(json_kind) == Some(io::ErrorKind::BrokenPipe) {
                return Kind::BrokenPipe;
            }
            next = error.source();
        }
        Kind::Failed
    }

    fn of_error(error: &Error) -> Self {
        match error {
            Error::Usage(_) | Error::Reference(_) => Kind::Usage,
            Error::Build(BuildError::Changed { .. }) => Kind::Changed,
            // Another attempt cannot succeed if there is any other problem.
            Error::Problems(problems) if problems.are_changes() => Kind::Changed,
            Error::Interrupted => Kind::Interrupted,
            Error::Mount(error) => Self::of_mount(error),
            _ => match error.system_cause().map(io::Error::kind) {
                Some(io::ErrorKind::BrokenPipe) => Kind::BrokenPipe,
                _ => Kind::Failed,
            },
        }
    }

    fn of_mount(error: &MountError) -> Self {
        match error {
            MountError::UnterminatedQuote { .. }
            | MountError::NotADigest
            | MountError::DigestUnverified
            | MountError::DigestAndRootfs
            | MountError::TwoImages => Kind::Usage,
            MountError::UnmountDenied | MountError::NoFusermount(_) => Kind::Denied,
            MountError::Unresolved { .. }
            | MountError::NoModule { .. }
            | MountError::Namespace { .. }
            | MountError::Output(_) => Kind::System,
            MountError::Refused { errno, .. }
            | MountError::Call { errno, .. }
            | MountError::Unmount(errno) => Self::of_errno(Some(*errno)),
            MountError::Directory { cause, .. } => Self::of_errno(Errno::from_io_error(cause)),
            MountError::Server { status } | MountError::Fetcher { status } => Kind::Server(*status),
            _ => Kind::Failed,
        }
    }

    fn of_errno(errno: Option<Errno>) -> Self {
        match errno {
            Some(Errno::PERM | Errno::ACCESS) => Kind::Denied,
            Some(Errno::NOMEM | Errno::MFILE | Errno::NFILE | Errno::NOSYS) => Kind::System,
            _ => Kind::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Change;

    fn changed() -> Error {
        BuildError::Changed {
            path: "tree".into(),
            change: Change::Vanished,
        }
        .into()
    }

    fn call(errno: Errno) -> Error {
        let object = "mount".to_owned();
        MountError::Call { object, errno }.into()
    }

    #[test]
    fn each_kind_has_its_status() {
        let broken = || Error::io("the archive", "write")(Errno::PIPE);
        for (error, statuses) in [
            (Error::Usage("no".to_owned()), [2, 1, 2]),
            (ReferenceError::refused("x", "no").into(), [2, 1, 2]),
            (MountError::TwoImages.into(), [2, 1, 2]),
            (MountError::UnmountDenied.into(), [1, 1, 1]),
            (call(Errno::ACCESS), [1, 1, 1]),
            (call(Errno::NOMEM), [1, 2, 1]),
            (call(Errno::BUSY), [1, 32, 1]),
            (changed(), [3, 32, 1]),
            (Error::Interrupted, [130, 32, 1]),
            (broken(), [141, 32, 1]),
            (MountError::Server { status: 7 }.into(), [7, 32, 1]),
            (Error::io("/x", "open")(Errno::NOENT), [1, 32, 1]),
        ] {
            let programs = [
                Program::Puzzlefs,
                Program::MountHelper,
                Program::Snapshotter,
            ];
            let found = programs.map(|program| exit_status(&error, program));
            assert_eq!(found, statuses, "{error}");
        }
    }

    #[test]
    fn the_cause_of_a_chain_decides() {
        #[derive(Debug, thiserror::Error)]
        #[error("context")]
        struct Context(#[source] Box<dyn std::error::Error>);
        let status =
            |error: Box<dyn std::error::Error>| exit_status(&Context(error), Program::Puzzlefs);
        assert_eq!(status(Box::new(changed())), 3);
        assert_eq!(status(Box::new(MountError::TwoImages)), 2);
        assert_eq!(status(Box::new(ReferenceError::refused("x", "no"))), 2);
        assert_eq!(status(Box::new(io::Error::from(Errno::PIPE))), 141);
        assert_eq!(status("else".into()), 1);
    }
}
