// SPDX-License-Identifier: MIT OR Apache-2.0

//! Unmounting what `puzzlefs mount` and mount(8) have mounted.

use super::writable::Writable;
use super::{manifest_of, Cause, Failure, FUSE_TYPE, TYPE};
use crate::sys::mounts::Mount;
use rustix::io::Errno;
use rustix::mount::UnmountFlags;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What became of an unmount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmounted {
    /// It was mounted, and is not any more.
    Done,
    /// Nothing was mounted.
    Nothing,
}

/// Unmounts an image, or a writable mount of one, from a directory, and removes what a killed mount
/// of it may have left. `lazy` takes it out of the tree although it is in use, until it is not.
///
/// What is mounted there otherwise is left alone.
pub fn unmount(directory: &Path, lazy: bool) -> Result<Unmounted, Failure> {
    let directory = absolute(directory)?;
    Writable::remove_stale(&directory);
    let Some(mount) = Mount::on(&directory) else {
        return Ok(Unmounted::Nothing);
    };
    if !is_ours(&mount) {
        let message = format!(
            "a mount of type {}, and none of PuzzleFS; umount(8) unmounts it",
            mount.fs_type
        );
        return Err(Failure::new(Cause::Failed, message));
    }
    let mut flags = UnmountFlags::NOFOLLOW;
    flags.set(UnmountFlags::DETACH, lazy);
    match rustix::mount::unmount(&directory, flags) {
        Ok(()) => Ok(Unmounted::Done),
        Err(Errno::PERM) if mount.fs_type == FUSE_TYPE => by_fusermount(&directory, lazy),
        Err(Errno::BUSY) => Err(Failure::new(Cause::Failed, busy(&directory))),
        Err(Errno::PERM) => {
            let message = "permission denied; unmounting it takes root";
            Err(Failure::new(Cause::Denied, message))
        }
        Err(errno) => Err(Failure::of_errno(errno, std::io::Error::from(errno))),
    }
}

/// Whether a mount is of an image: by the module, by us over FUSE, or a writable one.
fn is_ours(mount: &Mount) -> bool {
    match &*mount.fs_type {
        TYPE | FUSE_TYPE => true,
        "overlay" => manifest_of(&mount.source).is_some(),
        _ => false,
    }
}

/// Why a mount cannot be unmounted, and who is to be asked.
fn busy(directory: &Path) -> String {
    let shown = directory.display();
    let mut mounts = Mount::all().into_iter();
    let beneath =
        mounts.find(|mount| mount.directory != directory && mount.directory.starts_with(directory));
    match beneath {
        Some(mount) => format!(
            "busy: {} is mounted in it; unmount that first",
            mount.directory.display()
        ),
        None => format!(
            "busy: something in it is open or somebody's working directory. 'fuser -vm {shown}' or \
             'lsof {shown}' tells whose; --lazy unmounts it when it is not in use any more"
        ),
    }
}

/// Unmounts a mount over FUSE that an ordinary user has made.
fn by_fusermount(directory: &Path, lazy: bool) -> Result<Unmounted, Failure> {
    let mut command = Command::new("fusermount3");
    command.arg("-u");
    if lazy {
        command.arg("-z");
    }
    let output = command.arg("--").arg(directory).output().map_err(|error| {
        let message = format!("permission denied, and fusermount3 cannot be run: {error}");
        Failure::new(Cause::Denied, message)
    })?;
    if output.status.success() {
        return Ok(Unmounted::Done);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let message = match said.contains("busy") {
        true => busy(directory),
        false => said.trim().to_owned(),
    };
    Err(Failure::new(Cause::Failed, message))
}

/// A mount point as the table of mounts has it. It may be that of a server over FUSE that is gone,
/// which can be asked for nothing: then only what it is in is resolved.
fn absolute(directory: &Path) -> Result<PathBuf, Failure> {
    let resolved = directory.canonicalize().or_else(|error| {
        match (directory.parent(), directory.file_name()) {
            (Some(parent), Some(name)) if Errno::from_io_error(&error) == Some(Errno::NOTCONN) => {
                let parent = match parent.as_os_str().is_empty() {
                    true => Path::new("."),
                    false => parent,
                };
                Ok(parent.canonicalize()?.join(name))
            }
            _ => Err(error),
        }
    });
    resolved.map_err(|error| Failure::new(Cause::Failed, error))
}
