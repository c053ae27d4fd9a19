// SPDX-License-Identifier: MIT OR Apache-2.0

//! Unmounting what `puzzlefs mount` and mount(8) have mounted.

use super::writable::Writable;
use super::{manifest_of, FUSE_TYPE, TYPE};
use crate::error::{Error, MountError, Result};
use crate::sys::mounts::Mount;
use rustix::io::Errno;
use rustix::mount::UnmountFlags;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The outcome of an unmount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmounted {
    /// The image was unmounted.
    Done,
    /// Nothing was mounted.
    Nothing,
}

/// Unmounts an image, or a writable mount of one, from a directory, and removes what a killed mount
/// of it may have left. `lazy` takes it out of the tree although it is in use, until it is not.
///
/// Fails for any other mount.
pub fn unmount(directory: &Path, lazy: bool) -> Result<Unmounted> {
    let directory = absolute(directory)?;
    Writable::remove_stale(&directory);
    let Some(mount) = Mount::on(&directory) else {
        return Ok(Unmounted::Nothing);
    };
    if !is_ours(&mount) {
        let fs_type = mount.fs_type;
        return Err(MountError::NotPuzzlefs { fs_type }.into());
    }
    let mut flags = UnmountFlags::NOFOLLOW;
    flags.set(UnmountFlags::DETACH, lazy);
    match rustix::mount::unmount(&directory, flags) {
        Ok(()) => Ok(Unmounted::Done),
        Err(Errno::PERM) if mount.fs_type == FUSE_TYPE => by_fusermount(&directory, lazy),
        Err(Errno::BUSY) => Err(busy(&directory)),
        Err(Errno::PERM) => Err(MountError::UnmountDenied.into()),
        Err(errno) => Err(MountError::Unmount(errno).into()),
    }
}

/// Returns true for a mount of an image: by the module, over FUSE, or writable.
fn is_ours(mount: &Mount) -> bool {
    match &*mount.fs_type {
        TYPE | FUSE_TYPE => true,
        "overlay" => manifest_of(&mount.source).is_some(),
        _ => false,
    }
}

/// Returns the error for a mount that is in use.
fn busy(directory: &Path) -> Error {
    let mut mounts = Mount::all().into_iter();
    let beneath =
        mounts.find(|mount| mount.directory != directory && mount.directory.starts_with(directory));
    match beneath {
        Some(mount) => MountError::MountedIn {
            inner: mount.directory,
        }
        .into(),
        None => MountError::Busy {
            directory: directory.to_path_buf(),
        }
        .into(),
    }
}

/// Unmounts a mount over FUSE that an ordinary user has made.
fn by_fusermount(directory: &Path, lazy: bool) -> Result<Unmounted> {
    let mut command = Command::new("fusermount3");
    command.arg("-u");
    if lazy {
        command.arg("-z");
    }
    let output = command.arg("--").arg(directory).output();
    let output = output.map_err(MountError::NoFusermount)?;
    if output.status.success() {
        return Ok(Unmounted::Done);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("busy") {
        return Err(busy(directory));
    }
    Err(MountError::Fuse(said.trim().to_owned()).into())
}

/// Returns a mount point in the form of the table of mounts. If its server over FUSE is gone, every
/// call on it fails; then only its parent directory is resolved.
fn absolute(directory: &Path) -> Result<PathBuf> {
    let resolved = directory.canonicalize().or_else(|error| {
        match (directory.parent(), directory.file_name()) {
            (Some(parent), Some(name)) if Errno::from_io_error(&error) == Some(Errno::NOTCONN) => {
                let parent = if parent.as_os_str().is_empty() {
                    Path::new(".")
                } else {
                    parent
                };
                Ok(parent.canonicalize()?.join(name))
            }
            _ => Err(error),
        }
    });
    Ok(resolved.map_err(MountError::Unmountable)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::digest::Digest;

    #[test]
    fn only_mounts_of_images_are_unmounted() {
        let name = super::super::source_name(Path::new("/s"), &Digest::of(b"manifest"));
        let name = name.to_str().unwrap();
        for (fs_type, source, wanted) in [
            (TYPE, "/s", true),
            (FUSE_TYPE, "anything", true),
            ("overlay", name, true),
            ("overlay", "overlay", false),
            ("fuse", name, false),
            ("ext4", name, false),
        ] {
            let line = format!("36 35 0:30 / /mnt ro - {fs_type} {source} ro\n");
            let mounts = Mount::parse_table(line.as_bytes());
            assert_eq!(
                mounts.iter().map(is_ours).collect::<Vec<_>>(),
                [wanted],
                "{line}"
            );
        }
    }
}
