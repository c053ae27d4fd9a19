// SPDX-License-Identifier: MIT OR Apache-2.0

//! Opens an image, mounts it, and serves it until it is unmounted.

use crate::fusermount;
use crate::image_fs::ImageFs;
use crate::options::{config, escapes_overlay};
use crate::trace::Trace;
use fuser::{Config, MountOption, Session};
use puzzlefs_lib::error::{MountError, SystemError};
use puzzlefs_lib::mount::{self, MountId, Options, Prefetch};
use puzzlefs_lib::tree::{FileData, ImageTree};
use puzzlefs_lib::{Digest, Error, ImageRef, Result, Store};
use rustix::io::Errno;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;

/// An image that was opened and checked for a mount.
pub struct Image {
    tree: ImageTree<'static>,
    data: FileData,
    escape_overlay: bool,
    config: Config,
    directory: PathBuf,
    /// The store and the manifest, if files shall be read ahead.
    prefetch: Option<(PathBuf, Digest)>,
}

impl Image {
    /// Opens an image for a mount on `directory`.
    pub fn open(image: &ImageRef, directory: &Path, mut options: Options) -> Result<Self> {
        let digest = options.take_digest()?;
        let (path, found) = mount::find(image)?;
        let mut data = FileData::default();
        if let Some(digest) = digest {
            mount::check_digest(&found, digest)?;
            data = FileData::verified();
        }
        let mut config = config(&options, &mut data)?;
        let name = mount::source_name(&path, found.manifest_digest());
        let name = name.to_string_lossy().into_owned();
        config.mount_options.push(MountOption::FSName(name));
        // The session's threads borrow the store for as long as this process lives.
        let store: &'static Store = Box::leak(Box::new(Store::open(&path)?));
        let tree = ImageTree::new(store, &found)?;
        tree.check_root(&data, &found)?;
        mount::check_mount_point(directory)?;
        let directory = directory
            .canonicalize()
            .map_err(|cause| SystemError::Call {
                path: directory.to_owned(),
                action: "resolve the mount point",
                cause,
            })?;
        Ok(Image {
            tree,
            data,
            escape_overlay: escapes_overlay(&options),
            config,
            directory,
            prefetch: options.prefetch.then(|| (path, *found.manifest_digest())),
        })
    }

    /// Returns the absolute path of the mount point.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Mounts the image. The kernel's requests wait until [`Mount::serve`]. `report` gets each error
    /// for which the kernel gets an errno.
    pub fn mount(
        self,
        report: impl Fn(&puzzlefs_lib::Error) + Send + Sync + 'static,
    ) -> Result<Mount> {
        self.mount_traced(None, report)
    }

    /// Mounts the image as [`mount`](Self::mount) does. `trace` gets all reads, which are slower.
    pub fn mount_traced(
        self,
        trace: Option<Trace>,
        report: impl Fn(&puzzlefs_lib::Error) + Send + Sync + 'static,
    ) -> Result<Mount> {
        let Image {
            config,
            directory,
            prefetch,
            ..
        } = self;
        let fs = ImageFs::new(self.tree, self.data, self.escape_overlay, trace, report);
        let session = match fusermount::check_direct() {
            Ok(()) => Session::new(fs, &directory, &config).map_err(explained)?,
            Err(reason) => {
                let connection = fusermount::mount(&directory, &config, &reason)?;
                Session::from_fd(fs, connection, config.acl, config).map_err(explained)?
            }
        };
        Ok(Mount {
            id: mount::Mount::on(&directory).map(|mount| mount.id),
            session,
            directory,
            prefetch,
        })
    }
}

/// A mounted image. Dropping it unmounts the image.
pub struct Mount {
    session: Session<ImageFs>,
    directory: PathBuf,
    /// The identity of the mount; none without `/proc`.
    id: Option<MountId>,
    prefetch: Option<(PathBuf, Digest)>,
}

impl Mount {
    /// Starts to read files ahead if the options ask for it. The process waits until [`serve`](Self::serve).
    pub fn prefetch(&self) -> Result<()> {
        match &self.prefetch {
            Some((store, manifest)) => {
                Prefetch::prepare(&self.directory, store, Some(manifest))?.start(&self.directory)
            }
            None => Ok(()),
        }
    }

    /// Serves the image until it is unmounted.
    pub fn serve(self) -> Result<()> {
        let ended = run(self.session);
        // Another mount on the directory would be busy for a moment.
        let is_gone = self.id.is_some_and(|id| !id.exists());
        // If the connection was cut off, instead of unmounted, the mount must not stay without a server.
        if !is_gone
            && rustix::fs::statfs(&self.directory).is_err_and(|errno| errno == Errno::NOTCONN)
        {
            mount::unmount(&self.directory, true)?;
        }
        ended
    }
}

/// Serves an image until it is unmounted, and leaves a later mount on the directory alone.
///
/// `fuser` unmounts the directory when it drops its part of a mount. It checks first whether the mount
/// is still there, but the check is inverted: it treats a connection with an error as mounted. It would
/// remove a new mount on the directory, so its part is never dropped.
fn run(session: Session<ImageFs>) -> Result<()> {
    let background = session.spawn().map_err(server_failed)?;
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        // Moves all of it to this thread, not the handle alone.
        let background = background;
        let ended = background.guard.join();
        let _ = sender.send(ended);
        loop {
            thread::park();
        }
    });
    match receiver.recv() {
        Ok(Ok(ended)) => ended.map_err(server_failed),
        Ok(Err(_)) | Err(_) => Err(server_failed("it has panicked")),
    }
}

/// Returns the failure of a mount over FUSE.
fn explained(error: io::Error) -> Error {
    MountError::Fuse(error.to_string().trim_end().to_owned()).into()
}

/// Returns the failure of the session with the kernel.
fn server_failed(cause: impl fmt::Display) -> Error {
    MountError::Fuse(format!("the server over FUSE has failed: {cause}")).into()
}
