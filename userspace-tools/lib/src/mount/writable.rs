// SPDX-License-Identifier: MIT OR Apache-2.0

//! A writable mount: an overlay of a directory to write to on an image.
//!
//! Overlayfs takes its layers by their paths and makes private mounts of them. So the image, and a
//! tmpfs to write to, are attached in a directory of `/run/puzzlefs` only until the overlay is made:
//! from then on the overlay alone keeps them, and unmounting it with any tool removes everything. The
//! overlay is attached as the last step. A failure before that step removes the layers again. The next
//! mount or `umount` of the same directory removes the layers of a killed process.

use super::call;
use super::options::Options;
use super::TYPE;
use crate::error::{Error, MountError, Result};
use crate::model::digest::Digest;
use crate::model::rules::XattrSelection;
use crate::sys::mounts::Mount;
use crate::sys::progress::Progress;
use crate::sys::xattrs;
use puzzlefs_schema::overlay;
use rustix::fd::OwnedFd;
use rustix::fs::{
    AtFlags, FlockOperation, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, CWD,
};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, UnmountFlags};
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The directory in which layers are attached while an overlay is made.
const RUN: &str = "/run/puzzlefs";

/// The place for changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upper {
    /// Memory. Changes are lost with the mount.
    Memory,
    /// This directory, in which changes stay.
    Directory(PathBuf),
}

/// A writable mount in the making.
#[derive(Debug)]
pub struct Writable {
    /// The mount point.
    directory: PathBuf,
    /// Holds the layers' directories.
    upper: PathBuf,
    stage: Stage,
}

impl Writable {
    /// Makes everything ready for the image to be mounted on [`lower`](Self::lower).
    pub fn prepare(directory: &Path, upper: &Upper) -> Result<Self> {
        super::check_mount_point(directory)?;
        let directory = directory.canonicalize().map_err(MountError::MountPoint)?;
        let stage = Stage::make(&directory)?;
        let upper = match upper {
            Upper::Memory => stage.layers(),
            Upper::Directory(path) => {
                let path = path.canonicalize().map_err(failed(path))?;
                refuse_in_use(&path)?;
                path
            }
        };
        Ok(Writable {
            directory,
            upper,
            stage,
        })
    }

    /// Returns the directory for the mount of the image.
    pub fn lower(&self) -> PathBuf {
        self.stage.lower()
    }

    /// Makes the overlay, called `source` in the table of mounts, and attaches it.
    pub fn finish(
        self,
        source: &OsStr,
        attributes: MountAttrFlags,
        progress: &Progress,
    ) -> Result<()> {
        let (upper, work) = (self.upper.join("upper"), self.upper.join("work"));
        make_upper(&self.lower(), &upper)?;
        make_directory(&work)?;
        let layers = [
            ("lowerdir", self.lower()),
            ("upperdir", upper),
            ("workdir", work),
        ];
        let parameters = layers.map(|(name, path)| (name.into(), Some(escaped(&path))));
        let attributes = attributes - MountAttrFlags::MOUNT_ATTR_RDONLY;
        let options = Options::new(attributes, parameters.into());
        let overlay = call::prepare("overlay", source, &options, false)?;
        let Writable {
            directory, stage, ..
        } = self;
        drop(stage);
        progress.check()?;
        call::attach(&overlay, &directory)
    }

    /// Removes what a killed process left of a writable mount of a directory, if there is anything.
    pub(super) fn remove_stale(directory: &Path) {
        if Stage::path(directory).exists() {
            drop(Stage::lock(directory));
        }
    }
}

/// The directory in which layers are attached while an overlay is being made. Dropping it takes
/// everything back.
#[derive(Debug)]
struct Stage {
    directory: PathBuf,
    /// The lock on the directory, which its process holds.
    _lock: OwnedFd,
}

impl Stage {
    /// The stage of a mount point.
    fn path(mount_point: &Path) -> PathBuf {
        let mut name = Digest::of(mount_point.as_os_str().as_bytes()).to_hex();
        name.truncate(32);
        Path::new(RUN).join(name)
    }

    /// Makes the stage: a tmpfs with a directory for the image.
    fn make(mount_point: &Path) -> Result<Self> {
        let path = Self::path(mount_point);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
        made.map_err(failed(&path))?;
        let stage = Self::lock(mount_point)?;
        // A killed process may have left mounts in it.
        stage.clear();
        let parameters = vec![("mode".into(), Some("0700".into()))];
        let options = Options::new(MountAttrFlags::empty(), parameters);
        let memory = call::prepare("tmpfs", OsStr::new(TYPE), &options, false)?;
        make_directory(&stage.layers())?;
        call::attach(&memory, &stage.layers())?;
        make_directory(&stage.lower())?;
        Ok(stage)
    }

    /// Takes the stage of a mount point, which exists, for this process alone.
    fn lock(mount_point: &Path) -> Result<Self> {
        let path = Self::path(mount_point);
        let fail = |errno: Errno| match errno {
            Errno::WOULDBLOCK | Errno::NOENT => MountError::Concurrent {
                mount_point: mount_point.to_path_buf(),
            }
            .into(),
            errno => failed(&path)(errno.into()),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let lock = rustix::fs::open(&path, flags, Mode::empty()).map_err(fail)?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(fail)?;
        Ok(Stage {
            directory: path,
            _lock: lock,
        })
    }

    /// Returns the mount point of the tmpfs.
    fn layers(&self) -> PathBuf {
        self.directory.join("layers")
    }

    /// Returns the mount point of the image.
    fn lower(&self) -> PathBuf {
        self.layers().join("lower")
    }

    /// Detaches whatever is attached here.
    fn clear(&self) {
        let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
        for path in [self.lower(), self.layers()] {
            while rustix::mount::unmount(&path, flags).is_ok() {}
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.clear();
        // They are empty. Should they not be, the next to come finds them.
        let _ = fs::remove_dir(self.layers());
        let _ = fs::remove_dir(&self.directory);
    }
}

/// Fails if an overlay writes to this directory, because two overlays would corrupt its files.
fn refuse_in_use(path: &Path) -> Result<()> {
    let upper = escaped(&path.join("upper"));
    let mut mounts = Mount::all().into_iter();
    match mounts
        .find(|m| m.fs_type == "overlay" && m.option("upperdir").is_some_and(|u| u == upper))
    {
        None => Ok(()),
        Some(mount) => {
            let path = path.to_path_buf();
            let mount_point = mount.directory;
            Err(MountError::UpperInUse { path, mount_point }.into())
        }
    }
}

/// Makes the directory to write to, unless it is there: the root directory of the overlay is as
/// this one, and so this one as that of the image.
fn make_upper(lower: &Path, upper: &Path) -> Result<()> {
    if !make_directory(upper)? {
        return Ok(());
    }
    copy_root(lower, upper).map_err(|error| {
        // Half made, it would be taken as it is next time.
        let _ = fs::remove_dir(upper);
        failed(upper)(error)
    })
}

/// Gives the top directory of an overlay, which appears as its root, the attributes of the one below:
/// owner, mode, time and extended attributes, except for those that overlayfs acts on.
pub fn copy_root(lower: &Path, upper: &Path) -> std::io::Result<()> {
    let root = fs::metadata(lower)?;
    let (uid, gid) = (Uid::from_raw(root.uid()), Gid::from_raw(root.gid()));
    rustix::fs::chown(upper, Some(uid), Some(gid))?;
    let all = XattrSelection::default();
    let xattrs = xattrs::read(lower.as_os_str().as_bytes(), &all)?.into_iter();
    for (name, value) in xattrs.filter(|(name, _)| overlay::unescape(name).is_some()) {
        match rustix::fs::setxattr(upper, &*name, &value, XattrFlags::empty()) {
            // The file system below has none of this kind.
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    fs::set_permissions(upper, root.permissions())?;
    let time = Timespec {
        tv_sec: root.mtime(),
        tv_nsec: root.mtime_nsec(),
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    Ok(rustix::fs::utimensat(CWD, upper, &times, AtFlags::empty())?)
}

/// Makes a directory; false if it is there.
fn make_directory(path: &Path) -> Result<bool> {
    match fs::create_dir(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(false),
        Err(error) => Err(failed(path)(error)),
    }
}

/// A path as overlayfs takes it.
fn escaped(path: &Path) -> OsString {
    let mut escaped = Vec::new();
    for &byte in path.as_os_str().as_bytes() {
        if byte == b'\\' {
            escaped.push(byte);
        }
        escaped.push(byte);
    }
    OsString::from_vec(escaped)
}

/// Returns a function for `map_err` that makes the error of a directory.
fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> Error + '_ {
    move |cause| {
        let path = path.to_path_buf();
        MountError::Directory { path, cause }.into()
    }
}
