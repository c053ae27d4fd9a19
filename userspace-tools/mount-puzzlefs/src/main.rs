// SPDX-License-Identifier: MIT OR Apache-2.0

//! `mount.puzzlefs`: what mount(8) runs to mount `<oci-dir>:<tag>` or
//! `<oci-dir>@sha256:<manifest digest>`.
//!
//! It finds the image's metadata blob and hands the kernel the store's directory and the blob's
//! digest; the kernel reads no JSON and resolves no tag.

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
Mounts a PuzzleFS image, read-only. mount(8) runs this for 'mount -t puzzlefs'.

usage: mount.puzzlefs <source> <directory> [-fsnv] [-N <namespace>] [-o <options>]

source:
  <oci-dir>:<tag>              the image that index.json lists under the tag
  <oci-dir>@sha256:<digest>    the image whose manifest has this digest
  <oci-dir>                    with -o rootfs=<hex>: the image of that metadata blob

  -o <options>    those of mount(8), and the file system's own:
     verify=none|fsverity|digest   how data is checked
     digest=<hex>                  the fs-verity digest that the manifest must have: all
                                   the rest is then checked against it, by the kernel
     rootfs_verity=<hex>           the fs-verity digest that the metadata blob must have
     noshare                       share no pages in memory with other mounts of the store
                  mount.puzzlefs(8) has more of them
  -f              fake: resolve the image and check the options, mount nothing
  -s              sloppy: leave out options that the file system does not know
  -n              accepted; no mtab is written anyway
  -v              verbose
  -N <namespace>  mount in the mount namespace of this process id or path
  -h, --help      this help
  -V, --version   the version

exit status: 0 mounted, 1 wrong usage or no permission, 2 system error, 32 mount failed
";

fn main() -> ExitCode {
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
        // What was checked at the mount is not checked again, and cannot become another.
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
    // The table of mounts has the store, without the tag: `mount -a` does not know the line again.
    if mount::is_mounted(&source, &options, directory) == Some(true) {
        if args.verbose {
            say("it is mounted there already");
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
