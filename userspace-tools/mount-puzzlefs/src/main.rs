// SPDX-License-Identifier: MIT OR Apache-2.0

//! `mount.puzzlefs`: the helper that mount(8) runs to mount `<oci-dir>:<tag>` or
//! `<oci-dir>@sha256:<manifest digest>`.
//!
//! It finds the image's metadata blob and passes the store's directory and the blob's digest
//! to the kernel; the kernel reads no JSON and resolves no tag.

mod args;

use args::{Args, Request};
use puzzlefs_lib::error::{exit_status, MountError, Program};
use puzzlefs_lib::message;
use puzzlefs_lib::mount::{self, Options};
use puzzlefs_lib::{Error, Result};
use std::ffi::OsStr;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const HELP: &str = "\
Mount a PuzzleFS image, read-only. mount(8) runs this program for 'mount -t puzzlefs'.

usage: mount.puzzlefs <source> <directory> [-fsnv] [-N <namespace>] [-o <options>]

source:
  <oci-dir>:<tag>              the image that index.json lists under the tag
  <oci-dir>@sha256:<digest>    the image whose manifest has this digest
  <oci-dir>                    with -o rootfs=<hex>: the image with this metadata blob

  -o <options>    set options: those of mount(8), and these of the filesystem
     verify=none|fsverity|digest   verify data by this method [default: none]
     digest=<hex>                  require this fs-verity digest of the manifest; the kernel
                                   verifies all other data against it
     fetch=wait                    wait for chunks that a fetcher brings, with verify=digest
     fetch_timeout=<seconds>       how long a reader waits for a chunk [default: 60]
     rootfs_verity=<hex>           require this fs-verity digest of the metadata blob
     noshare                       share no pages in memory with other mounts of the store
     prefetch                      read the ranges of the image's start-up order ahead
     escape_overlay                escape trusted.overlay.*, for a layer of an overlay
  -f              fake: resolve the image and check the options, mount nothing
  -s              sloppy: leave out options that the filesystem does not know
  -n              ignored: no mtab is written
  -v              print the source and the options that the kernel gets
  -N <namespace>  mount in the mount namespace of this process ID or path
  -h, --help      print this help
  -V, --version   print the version

exit status: 0 mounted, 1 wrong usage or no permission, 2 system error, 32 mount failed
";

fn main() -> ExitCode {
    if mount::is_prefetch(std::env::args_os()) {
        return ExitCode::SUCCESS;
    }
    let args = match Request::parse(std::env::args_os().skip(1)) {
        Ok(Request::Mount(args)) => args,
        Ok(Request::Help) => {
            return print(HELP);
        }
        Ok(Request::Version) => {
            return print(concat!("mount.puzzlefs ", env!("CARGO_PKG_VERSION"), "\n"));
        }
        Err(message) => {
            say(format_args!("{message}; see mount.puzzlefs --help"));
            return failure(&Error::Usage(message));
        }
    };
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let (source, directory) = (Path::new(&args.source), Path::new(&args.directory));
            let (source, directory) = (source.display(), directory.display());
            say(format_args!("{source} on {directory}: {error}"));
            failure(&error)
        }
    }
}

/// Returns the exit status for an error.
fn failure(error: &Error) -> ExitCode {
    ExitCode::from(exit_status(error, Program::MountHelper))
}

/// Prints the help or the version.
fn print(text: &str) -> ExitCode {
    match message::print(text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(cause) => {
            say(&cause);
            failure(&MountError::Output(cause).into())
        }
    }
}

fn say(what: impl Display) {
    message::tell("mount.puzzlefs", what);
}

fn run(args: &Args) -> Result<()> {
    let mut options = Options::parse(&args.options)?;
    if let Some(namespace) = &args.namespace {
        enter(namespace)?;
    }
    let directory = Path::new(&args.directory);
    if options.remount {
        // The image was checked at the mount, and a remount cannot exchange it.
        options.take_digest()?;
        if !args.fake {
            mount::remount(directory, &options)?;
        }
        return Ok(());
    }
    let source = mount::resolve(&args.source, &mut options)?;
    if args.verbose {
        let (source, data) = (source.to_string_lossy(), options.data());
        let data = data.to_string_lossy();
        say(format_args!("source {source}, options {data}"));
        if options.read_write {
            say("puzzlefs is read-only: mounting read-only");
        }
    }
    mount::check_mount_point(directory)?;
    if args.fake {
        return Ok(());
    }
    // The mount table has the store without the tag, so `mount -a` does not recognise the mount.
    if mount::is_mounted(&source, &options, directory) == Some(true) {
        if args.verbose {
            say("already mounted there with these options");
        }
        return Ok(());
    }
    for remark in mount::mount(&source, &options, directory, args.sloppy)? {
        say(remark);
    }
    Ok(())
}

/// Moves this process into another mount namespace.
fn enter(namespace: &OsStr) -> Result<()> {
    use rustix::thread::{move_into_link_name_space, LinkNameSpaceType};
    use std::os::fd::AsFd;
    let number = namespace.to_str().and_then(|text| text.parse::<u32>().ok());
    let path = match number {
        Some(process) => PathBuf::from(format!("/proc/{process}/ns/mnt")),
        None => PathBuf::from(namespace),
    };
    let fail = |cause: std::io::Error| MountError::Namespace {
        path: path.clone(),
        cause,
    };
    let file = std::fs::File::open(&path).map_err(fail)?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Mount))
        .map_err(|errno| fail(errno.into()))?;
    Ok(())
}
