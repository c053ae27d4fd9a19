// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs mount`; [`server`] is the process of `--fuse`, and `lazy` starts that of `--lazy`.

#[cfg(feature = "registry")]
mod lazy;
pub mod server;

use crate::arguments::ImageArg;
use crate::interrupt;
use crate::output::say;
use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use puzzlefs_lib::error::MountError;
use puzzlefs_lib::mount::{self, Options, Prefetch, Upper, Writable};
use puzzlefs_lib::{Error, ImageRef};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// Mount an image, read-only or writable, by the kernel module or over FUSE
///
/// An image may hold markers of overlayfs, as container engines leave them in their storage. --writable
/// shows extended attributes trusted.overlay.* as they are. It refuses an image with a character device
/// 0:0, because every overlay treats such a device as a whiteout.
#[derive(Debug, Args)]
#[command(after_help = "\
To unmount: 'puzzlefs umount DIRECTORY' or umount(8).")]
pub struct MountArgs {
    #[command(flatten)]
    image: ImageArg,
    /// Mount point
    directory: PathBuf,
    /// Set mount options, separated by commas (repeatable)
    ///
    /// Options are those of mount(8) and of mount.puzzlefs(8). digest=HEX is the fs-verity digest that
    /// the image's manifest must have; everything else is then checked against it. allow_other, with
    /// --fuse, gives other users access. prefetch reads the ranges of the image's start-up order
    /// ahead, in the background.
    #[arg(short, long, value_name = "OPTIONS")]
    pub options: Vec<OsString>,
    /// Choose how data is verified when it is read [default: none, with digest= fsverity]
    #[arg(long, value_name = "MODE")]
    pub verify: Option<Verify>,
    /// Make the mount writable by an overlay
    ///
    /// Changes go to UPPERDIR and stay there. Without UPPERDIR they go to memory and are lost at
    /// unmounting.
    #[arg(short, long, value_name = "UPPERDIR", num_args = 0..=1, require_equals = true)]
    writable: Option<Option<PathBuf>>,
    /// Serve the image over FUSE, for a kernel without the module, or as an ordinary user
    #[arg(long)]
    fuse: bool,
    /// Serve it in the foreground until it is unmounted, and report errors
    #[arg(short, long, requires = "fuse", conflicts_with = "writable")]
    foreground: bool,
    /// Be the server in the background, for a parent that waits on standard output
    #[arg(long, hide = true, requires = "fuse", conflicts_with_all = ["foreground", "writable"])]
    background: bool,
    #[cfg(feature = "registry")]
    #[command(flatten)]
    lazy: lazy::LazyArgs,
}

/// The verification of data, the mount option `verify=`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Verify {
    /// No verification
    None,
    /// By the kernel, for blobs with fs-verity ('puzzlefs enable-verity')
    Fsverity,
    /// By SHA-256, on any filesystem; not over FUSE
    Digest,
}

impl Verify {
    /// Returns the value of the option.
    pub fn name(self) -> &'static str {
        match self {
            Verify::None => "none",
            Verify::Fsverity => "fsverity",
            Verify::Digest => "digest",
        }
    }
}

/// Mounts an image.
pub fn run(arguments: &MountArgs) -> Result<()> {
    #[cfg(feature = "registry")]
    if arguments.lazy.lazy {
        let (image, directory) = (&arguments.image.image, arguments.directory.display());
        return lazy::run(arguments, options(arguments)?)
            .with_context(|| format!("{} on {directory}", image.to_string_lossy()));
    }
    let image = ImageRef::parse(&arguments.image.image)?;
    let options = options(arguments)?;
    if arguments.foreground || arguments.background {
        return server::serve(&image, &arguments.directory, options, arguments.background);
    }
    match &arguments.writable {
        Some(upper) => {
            let upper = upper.clone().map_or(Upper::Memory, Upper::Directory);
            writable(arguments, &image, &upper, options)
        }
        None => read_only(
            arguments,
            &arguments.image.image,
            &arguments.directory,
            options,
        ),
    }
    .with_context(|| format!("{image} on {}", arguments.directory.display()))
}

/// Reads the options of `-o` and `--verify`.
fn options(arguments: &MountArgs) -> Result<Options> {
    let mut lists = arguments.options.clone();
    if let Some(verify) = arguments.verify {
        lists.push(format!("verify={}", verify.name()).into());
    }
    let usage = |message: &str| Error::Usage(message.to_owned());
    let options = Options::parse(&lists)?;
    if options.remount {
        Err(usage(
            "a mount is changed by mount(8): mount -o remount,...",
        ))?;
    }
    if options.name_image() {
        Err(usage(
            "the image is given as <oci-dir>:<tag> or <oci-dir>@sha256:<digest>, not by options",
        ))?;
    }
    Ok(options)
}

/// Mounts an image read-only.
fn read_only(
    arguments: &MountArgs,
    image: &OsStr,
    directory: &Path,
    options: Options,
) -> Result<()> {
    if arguments.fuse {
        return server::start(arguments, &options, image, directory);
    }
    attach(image, directory, options)
}

/// Mounts an image by the kernel module.
fn attach(image: &OsStr, directory: &Path, mut options: Options) -> Result<()> {
    let source = mount::resolve(image, &mut options)?;
    mount::check_mount_point(directory)?;
    let mounted = mount::mount(&source, &options, directory, false);
    let remarks = mounted.map_err(|error| match error {
        Error::Mount(MountError::UnknownType { modprobe, .. }) => {
            let or_fuse = true;
            MountError::UnknownType { modprobe, or_fuse }.into()
        }
        error => error,
    })?;
    for remark in remarks {
        say(format_args!("{}: {remark}", directory.display()));
    }
    Ok(())
}

/// Mounts an image with an overlay on top.
fn writable(
    arguments: &MountArgs,
    image: &ImageRef,
    upper: &Upper,
    mut options: Options,
) -> Result<()> {
    let progress = interrupt::stoppable()?;
    let attributes = options.attributes;
    let (store, found) = mount::find(image)?;
    // The mount must use this image, even if the tag is moved meanwhile.
    let mut image = store.clone().into_os_string();
    image.push("@");
    image.push(found.manifest_digest().to_oci());
    if mount::needs_escape(&store, &found)? {
        options.escape_overlay();
    }
    let overlay = Writable::prepare(&arguments.directory, upper)?;
    // The overlay takes the place of the mount of the image.
    let is_prefetched = std::mem::take(&mut options.prefetch);
    read_only(arguments, &image, &overlay.lower(), options)?;
    let manifest = Some(found.manifest_digest());
    let prefetch = is_prefetched.then(|| Prefetch::prepare(&overlay.lower(), &store, manifest));
    let name = mount::source_name(&store, found.manifest_digest());
    overlay.finish(&name, attributes, &progress)?;
    let started = prefetch.map(|prefetch| prefetch?.start(&arguments.directory));
    if let Some(Err(error)) = started {
        say(mount::prefetch_remark(error));
    }
    Ok(())
}
