// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs mount --fuse`: the server's process, in the foreground or in the background.

use super::MountArgs;
use crate::output::say;
use anyhow::{Context, Result};
use puzzlefs_fuse::{escapes_overlay, Image};
use puzzlefs_lib::error::MountError;
use puzzlefs_lib::mount::{self, Options, Unmounted};
use puzzlefs_lib::{Error, ImageRef};
use rustix::fs::{Mode, OFlags};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

/// Starts a server in the background, and returns when the image is mounted.
pub fn start(
    arguments: &MountArgs,
    options: &Options,
    image: &OsStr,
    directory: &Path,
) -> Result<()> {
    // A new program, because a fork would keep this process's signal handlers.
    let mut command = Command::new("/proc/self/exe");
    command.args(["mount", "--fuse", "--background"]);
    for list in &arguments.options {
        command.arg("--options").arg(list);
    }
    if let Some(verify) = arguments.verify {
        command.args(["--verify", verify.name()]);
    }
    if !options.prefetch {
        command.args(["--options", "noprefetch"]);
    }
    if escapes_overlay(options) {
        command.args(["--options", mount::ESCAPE_OVERLAY]);
    }
    command.arg("--").arg(image).arg(directory);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut server = command.spawn().context("cannot start the server")?;
    let mut ready = [0];
    if let Some(Ok(())) = server
        .stdout
        .take()
        .map(|mut pipe| pipe.read_exact(&mut ready))
    {
        return Ok(());
    }
    let status = server.wait().context("cannot wait for the server")?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    let status = code.unwrap_or(1);
    Err(Error::from(MountError::Server { status }).into())
}

/// Mounts an image and serves it until it is unmounted.
pub fn serve(image: &ImageRef, directory: &Path, options: Options, background: bool) -> Result<()> {
    if background {
        // A new session gets no signals from the terminal.
        rustix::process::setsid().context("cannot start a session")?;
    }
    let context = || format!("{image} on {}", directory.display());
    let opened = Image::open(image, directory, options).with_context(context)?;
    let mounted_on = opened.directory().to_owned();
    let signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot handle signals")?;
    let mount = opened.mount(|error| say(error)).with_context(context)?;
    if let Err(error) = mount.prefetch() {
        say(mount::prefetch_remark(error));
    }
    if background {
        // If the parent is gone, this fails, and dropping `mount` unmounts the image.
        std::io::stdout()
            .write_all(b"\n")
            .and_then(|()| std::io::stdout().flush())
            .context("interrupted")?;
        detach()?;
    }
    thread::spawn(move || unmount_by(signals, &mounted_on, background));
    Ok(mount.serve()?)
}

/// Unmounts the image at each signal. It stays if it is in use.
fn unmount_by(mut signals: Signals, mounted_on: &Path, background: bool) {
    for signal in &mut signals {
        if background && signal == SIGHUP {
            continue;
        }
        match mount::unmount(mounted_on, false) {
            // Nothing is mounted there if the mount is the lower layer of an overlay.
            Ok(Unmounted::Done | Unmounted::Nothing) => {}
            Err(error) => say(format_args!("{}: {error}", mounted_on.display())),
        }
    }
}

/// Releases the terminal, the parent's pipe and the working directory.
fn detach() -> Result<()> {
    rustix::process::chdir("/").context("/")?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .context("/dev/null")?;
    rustix::stdio::dup2_stdout(&null)
        .and_then(|()| rustix::stdio::dup2_stderr(&null))
        .context("/dev/null")
}
