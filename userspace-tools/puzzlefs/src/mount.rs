// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs mount`.

use crate::output::say;
use crate::{mount_fuse, work};
use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use puzzlefs_lib::mount::{self, Cause, Failure, Options, Upper, Writable};
use puzzlefs_lib::ImageRef;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// `puzzlefs mount`.
#[derive(Debug, Args)]
#[command(after_help = "\
The options of -o are those of mount(8), and digest=HEX, the fs-verity digest that the image's
manifest must have: all the rest is then checked against it. With --fuse, allow_other too.
An image may hold markers of overlayfs, as container engines leave them in their storage. --writable
shows extended attributes trusted.overlay.* as they are. It refuses an image with a character device
0:0, which every overlay takes for a whiteout.
'puzzlefs umount DIRECTORY' unmounts all this, and so does umount(8).")]
pub struct MountArgs {
    /// The image
    #[arg(value_name = "IMAGE")]
    pub image: OsString,
    /// Where to
    pub directory: PathBuf,
    /// Mount options, separated by commas (repeatable)
    #[arg(short, long, value_name = "OPTIONS")]
    pub options: Vec<OsString>,
    /// How data is checked when it is read
    #[arg(long, value_name = "MODE")]
    pub verify: Option<Verify>,
    /// Make it writable, by an overlay: what is written goes to memory, and is gone when it is
    /// unmounted, or to UPPERDIR, and stays there
    #[arg(short, long, value_name = "UPPERDIR", num_args = 0..=1, require_equals = true)]
    pub writable: Option<Option<PathBuf>>,
    /// Serve the image over FUSE, for a kernel without the module, or as an ordinary user
    #[arg(long)]
    pub fuse: bool,
    /// Serve it until it is unmounted, rather than in the background, and tell what goes wrong
    #[arg(short, long, requires = "fuse", conflicts_with = "writable")]
    pub foreground: bool,
    /// Be the server in the background, for whoever waits at the standard output
    #[arg(long, hide = true, requires = "fuse", conflicts_with_all = ["foreground", "writable"])]
    pub background: bool,
}

/// How data is checked, the mount option `verify=`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Verify {
    /// Not at all
    None,
    /// By the kernel, of blobs on which fs-verity is enabled ('puzzlefs enable-verity')
    Fsverity,
    /// By SHA-256, whatever they are on; not over FUSE
    Digest,
}

impl Verify {
    /// The value of the option.
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
    let image = ImageRef::parse(&arguments.image)?;
    let options = options(arguments)?;
    if arguments.foreground || arguments.background {
        return mount_fuse::serve(&image, &arguments.directory, options, arguments.background);
    }
    match &arguments.writable {
        Some(upper) => {
            let upper = upper.clone().map_or(Upper::Memory, Upper::Directory);
            writable(arguments, &image, &upper, options)
        }
        None => read_only(arguments, &arguments.image, &arguments.directory, options),
    }
    .with_context(|| format!("{image} on {}", arguments.directory.display()))
}

/// The options of `-o` and `--verify`.
fn options(arguments: &MountArgs) -> Result<Options> {
    let mut lists = arguments.options.clone();
    if let Some(verify) = arguments.verify {
        lists.push(format!("verify={}", verify.name()).into());
    }
    let usage = |message: &str| Failure {
        cause: Cause::Usage,
        message: message.to_owned(),
    };
    let options = Options::parse(&lists).map_err(|message| usage(&message))?;
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

/// Mounts an image somewhere.
fn read_only(
    arguments: &MountArgs,
    image: &OsStr,
    directory: &Path,
    mut options: Options,
) -> Result<()> {
    if arguments.fuse {
        return mount_fuse::start(arguments, &options, image, directory);
    }
    let source = mount::resolve(image, &mut options)?;
    mount::check_mount_point(directory)?;
    let mounted = mount::mount(&source, &options, directory, false);
    let remarks = mounted.map_err(|failure| match failure.cause {
        Cause::UnknownType => Failure {
            message: format!("{failure}; or mount it without, by 'puzzlefs mount --fuse'"),
            ..failure
        },
        _ => failure,
    })?;
    for remark in remarks {
        say(format_args!("{}: {remark}", directory.display()));
    }
    Ok(())
}

/// Mounts an image with an overlay on it.
fn writable(
    arguments: &MountArgs,
    image: &ImageRef,
    upper: &Upper,
    mut options: Options,
) -> Result<()> {
    let progress = work::stoppable()?;
    let attributes = options.attributes;
    let (store, found) = mount::find(image)?;
    // Whatever the tag comes to name meanwhile, the image is this one.
    let mut image = store.clone().into_os_string();
    image.push("@");
    image.push(found.manifest_digest.to_oci());
    if mount::needs_escape(&store, &found)? {
        options.escape_overlay();
    }
    let overlay = Writable::prepare(&arguments.directory, upper)?;
    read_only(arguments, &image, &overlay.lower(), options)?;
    let name = mount::source_name(&store, &found.manifest_digest);
    Ok(overlay.finish(&name, attributes, &progress)?)
}
