// SPDX-License-Identifier: MIT OR Apache-2.0

//! Failures to mount or unmount an image.
//!
//! Programs prefix the messages with the image and the directory.

use crate::model::digest::Digest;
use crate::model::message::printable;
use rustix::io::Errno;
use std::io;
use std::path::PathBuf;

/// A failure to mount or unmount an image.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// A list of options has an opening quote only.
    #[error("the options have a quote without its end: {list}")]
    UnterminatedQuote {
        /// The list.
        list: String,
    },
    /// The value of `digest=` is not a digest.
    #[error(
        "digest: not an fs-verity digest: 64 digits 0-9 and a-f are expected, as \
         `puzzlefs build --json` and `puzzlefs enable-verity` print them"
    )]
    NotADigest,
    /// `digest=` and `verify=none` are given together.
    #[error("digest= has everything verified, verify=none nothing: drop one")]
    DigestUnverified,
    /// `digest=` and `rootfs=` are given together.
    #[error(
        "digest= checks an image's manifest: give the image as <oci-dir>:<tag> or \
         <oci-dir>@sha256:<digest>, without rootfs="
    )]
    DigestAndRootfs,
    /// Both the source and the options name an image.
    #[error("give either a tag or digest in the source, or the option rootfs=")]
    TwoImages,
    /// The manifest has another fs-verity digest than `digest=`.
    #[error(
        "the manifest has the fs-verity digest {found}, not {wanted}: \
         this is not the image that was asked for"
    )]
    OtherManifest {
        /// The digest of the manifest.
        found: Digest,
        /// The digest in the option.
        wanted: Digest,
    },
    /// The manifest has no digest to verify the metadata blob against.
    #[error(
        "the manifest has no fs-verity digest of the metadata blob (annotation {}): \
         the image cannot be verified",
        crate::model::oci::VERITY_ROOT_HASH
    )]
    NoRootVerity,
    /// The process cannot have mounts of its own.
    #[error("cannot make a mount namespace: {0}; run it as root")]
    Isolation(io::Error),
    /// The image has no start-up order.
    #[error("the image has no start-up order; record one with 'puzzlefs record'")]
    NoOrder,
    /// The manifest of the image, which lists the start-up order, is not known.
    #[error(
        "the options name the image by its root; give <oci-dir>:<tag> or \
         <oci-dir>@sha256:<digest>, whose manifest lists the start-up order"
    )]
    NoManifest,
    /// The table of mounts does not have a mount.
    #[error("/proc/self/mountinfo does not list the mount")]
    NoTable,
    /// The store has no absolute path.
    #[error("cannot resolve {}: {cause}", .path.display())]
    Unresolved {
        /// The path of the store.
        path: PathBuf,
        /// The cause.
        cause: io::Error,
    },
    /// The metadata blob has another size than the manifest says.
    #[error("{}: the metadata blob is damaged: it has {found} bytes instead of {wanted}",
            .path.display())]
    RootDamaged {
        /// The path of the blob.
        path: PathBuf,
        /// Its size in bytes.
        found: u64,
        /// The size in the manifest.
        wanted: u64,
    },
    /// The metadata blob does not exist.
    #[error("{}: the metadata blob is missing", .path.display())]
    RootMissing {
        /// The path of the blob.
        path: PathBuf,
    },
    /// The mount point is not a directory.
    #[error("the mount point is not a directory")]
    NotADirectory,
    /// The mount point cannot be examined.
    #[error("the mount point: {0}")]
    MountPoint(io::Error),
    /// No overlay can show the image's tree.
    #[error(
        "cannot mount the image under an overlay: {what}: {}; mount it read-only, \
         extract it, or build it without the file", printable(.path))]
    NoOverlay {
        /// The path of a file in the image.
        path: Vec<u8>,
        /// The reason.
        what: &'static str,
    },
    /// Another mount writes to the directory for changes.
    #[error(
        "{}: data written to {} goes there already; give another directory",
        .path.display(), .mount_point.display())]
    UpperInUse {
        /// The directory for changes.
        path: PathBuf,
        /// The mount point of the other mount.
        mount_point: PathBuf,
    },
    /// Another process makes a writable mount of the same directory.
    #[error("another writable mount of {} is just being made", .mount_point.display())]
    Concurrent {
        /// The mount point.
        mount_point: PathBuf,
    },
    /// A directory of a writable mount cannot be made or used.
    #[error("{}: {cause}", .path.display())]
    Directory {
        /// The path of the directory.
        path: PathBuf,
        /// The cause.
        cause: io::Error,
    },
    /// The kernel does not know PuzzleFS.
    #[error(
        "the kernel does not know file system type 'puzzlefs': its module is not loaded, and \
         'modprobe puzzlefs' {modprobe}{}", FuseRemedy(*.or_fuse))]
    UnknownType {
        /// The result of modprobe(8).
        modprobe: String,
        /// The program can serve the image over FUSE instead.
        or_fuse: bool,
    },
    /// The kernel does not know another type, which a writable mount needs.
    #[error(
        "the kernel does not know file system type '{fs_type}': its module is not loaded, and \
         'modprobe {fs_type}' {modprobe}"
    )]
    NoModule {
        /// The type.
        fs_type: String,
        /// The result of modprobe(8).
        modprobe: String,
    },
    /// The mount namespace cannot be entered.
    #[error("mount namespace {}: {cause}", .path.display())]
    Namespace {
        /// The path of the namespace.
        path: PathBuf,
        /// The cause.
        cause: io::Error,
    },
    /// Standard output cannot be written.
    #[error("standard output: cannot write to it: {0}")]
    Output(io::Error),
    /// The directory to unmount has no absolute path.
    #[error("{0}")]
    Unmountable(io::Error),
    /// A call of the mount API failed, and the kernel logged the reasons.
    #[error("{}", .log.join("; "))]
    Refused {
        /// The messages of the kernel.
        log: Vec<String>,
        /// The error number.
        errno: Errno,
    },
    /// A call of the mount API failed.
    #[error("{}", Explained(.object, *.errno))]
    Call {
        /// The object of the call: an option, "mount", "remount".
        object: String,
        /// The error number.
        errno: Errno,
    },
    /// An option contains a NUL.
    #[error("an option holds a NUL")]
    Nul,
    /// The file system at a directory is another one.
    #[error("a mount of type {fs_type}, and none of PuzzleFS; umount(8) unmounts it")]
    NotPuzzlefs {
        /// Its type.
        fs_type: String,
    },
    /// Another filesystem is mounted in the image.
    #[error("busy: {} is mounted in it; unmount that first", .inner.display())]
    MountedIn {
        /// The mount point of the other filesystem.
        inner: PathBuf,
    },
    /// Processes use the mount.
    #[error(
        "busy: a process has a file in it open or uses it as its working directory. 'fuser -vm {0}' or \
         'lsof {0}' shows the processes; --lazy unmounts it when it is no longer in use",
        .directory.display())]
    Busy {
        /// The mount point.
        directory: PathBuf,
    },
    /// An ordinary user cannot unmount.
    #[error("permission denied; unmounting it takes root")]
    UnmountDenied,
    /// unmount(2) failed.
    #[error("{}", io::Error::from(*.0))]
    Unmount(Errno),
    /// `fusermount3`, which an ordinary user needs to unmount, cannot be run.
    #[error("permission denied, and fusermount3 cannot be run: {0}")]
    NoFusermount(io::Error),
    /// FUSE or its helper failed, for the reason in the message.
    #[error("{0}")]
    Fuse(String),
    /// The server over FUSE failed. It has reported the cause itself.
    #[error("the server over FUSE has failed")]
    Server {
        /// Its exit status.
        status: u8,
    },
    /// The fetcher of a lazy mount failed. It has reported the cause itself.
    #[error("the fetcher has failed")]
    Fetcher {
        /// Its exit status.
        status: u8,
    },
}

/// The most bytes of a value that fsconfig(2) takes; it counts the terminating NUL.
pub(crate) const VALUE_MAX: usize = 255;

/// The alternative to a filesystem type that the kernel does not know.
struct FuseRemedy(bool);

impl std::fmt::Display for FuseRemedy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0 {
            f.write_str("; or mount it without, by 'puzzlefs mount --fuse'")?;
        }
        Ok(())
    }
}

/// The message for an error number of the mount API.
struct Explained<'a>(&'a str, Errno);

impl std::fmt::Display for Explained<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Explained(object, errno) = *self;
        let cause = io::Error::from(errno);
        match errno {
            Errno::PERM | Errno::ACCESS => {
                write!(f, "{object}: permission denied; mounting takes root")
            }
            Errno::NOSYS => write!(
                f,
                "{object}: this kernel lacks the call; puzzlefs needs Linux 7.0 or newer"
            ),
            Errno::NAMETOOLONG => write!(f, "{object}: a value is longer than {VALUE_MAX} bytes"),
            Errno::NOENT if object == "the mount point" => {
                f.write_str("the mount point does not exist")
            }
            Errno::NOTDIR => f.write_str("the mount point is not a directory"),
            Errno::INVAL => write!(
                f,
                "{object}: {cause}; the kernel's log (dmesg) may say more"
            ),
            _ => write!(f, "{object}: {cause}"),
        }
    }
}
