// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs mount --fuse`: the server, in the foreground or as a process of its own.

use crate::commands::mount::MountArgs;
use crate::fuse::Fuse;
use crate::fusermount;
use crate::output::say;
use anyhow::{bail, Context, Result};
use fuser::{Config, MountOption, Session, SessionACL};
use puzzlefs_lib::error::MountError;
use puzzlefs_lib::mount::{self, Options, Unmounted};
use puzzlefs_lib::reader::{Blobs, ImageReader};
use puzzlefs_lib::{Error, ImageRef, Store};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;

/// Starts a server in the background, and returns when the image is mounted.
pub fn start(
    arguments: &MountArgs,
    options: &Options,
    image: &OsStr,
    directory: &Path,
) -> Result<()> {
    // Not a copy of this process, whose signal handlers and threads a server has no use for.
    let mut command = Command::new("/proc/self/exe");
    command.args(["mount", "--fuse", "--background"]);
    for list in &arguments.options {
        command.arg("--options").arg(list);
    }
    if let Some(verify) = arguments.verify {
        command.args(["--verify", verify.name()]);
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
pub fn serve(
    image: &ImageRef,
    directory: &Path,
    mut options: Options,
    background: bool,
) -> Result<()> {
    if background {
        // Signals from a terminal are not for it any more.
        rustix::process::setsid().context("cannot become a session of its own")?;
    }
    let context = || format!("{image} on {}", directory.display());
    let digest = options.take_digest().with_context(context)?;
    let (path, found) = mount::find(image).with_context(context)?;
    let mut blobs = Blobs::default();
    if let Some(digest) = digest {
        mount::check_digest(&found, digest).with_context(context)?;
        blobs = Blobs::verified();
    }
    let mut config = config(&options, &mut blobs).with_context(context)?;
    let name = mount::source_name(&path, &found.manifest_digest);
    let name = name.to_string_lossy().into_owned();
    config.mount_options.push(MountOption::FSName(name));
    // For as long as this process lives.
    let store: &'static Store = Box::leak(Box::new(Store::open(&path).with_context(context)?));
    let reader = ImageReader::new(store, &found).with_context(context)?;
    blobs.check_root(&reader, &found).with_context(context)?;
    mount::check_mount_point(directory).with_context(context)?;
    let directory = directory.canonicalize().with_context(context)?;

    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot handle signals")?;
    let fuse = Fuse::new(reader, blobs, escapes_overlay(&options));
    let session = match fusermount::check_direct() {
        Ok(()) => Session::new(fuse, &directory, &config).map_err(explained),
        Err(reason) => fusermount::mount(&directory, &config, &reason).and_then(|connection| {
            let acl = config.acl;
            Session::from_fd(fuse, connection, acl, config).map_err(explained)
        }),
    }
    .with_context(context)?;
    if background {
        // Nobody may be waiting any more: then the mount goes, with the session.
        std::io::stdout()
            .write_all(b"\n")
            .and_then(|()| std::io::stdout().flush())
            .context("interrupted")?;
        leave()?;
    }
    let mounted_on = directory.clone();
    thread::spawn(move || {
        for signal in &mut signals {
            if background && signal == SIGHUP {
                continue;
            }
            match mount::unmount(&mounted_on, false) {
                // The mount is the lower layer of another.
                Ok(Unmounted::Done | Unmounted::Nothing) => {}
                Err(error) => say(format_args!("{}: {error}", mounted_on.display())),
            }
        }
    });
    let ended = run(session).context("the server over FUSE has failed");
    // Had it been cut off, rather than unmounted, nobody serves what is still mounted.
    if rustix::fs::statfs(&directory).is_err_and(|errno| errno == Errno::NOTCONN) {
        mount::unmount(&directory, true).with_context(context)?;
    }
    ended
}

/// Serves an image until it is unmounted, and leaves alone what is mounted there by then.
///
/// The crate unmounts the directory when it drops its part of a mount, and looks before whether that
/// still is the mount; the look is the wrong way round (for it, a connection with an error is one
/// that is mounted). So that part is never dropped: a new mount there would be gone.
fn run(session: Session<Fuse>) -> Result<()> {
    let background = session.spawn()?;
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        // All of it, not the handle alone.
        let background = background;
        let ended = background.guard.join();
        let _ = sender.send(ended);
        loop {
            thread::park();
        }
    });
    match receiver.recv()? {
        Ok(ended) => Ok(ended?),
        Err(_) => bail!("it has panicked"),
    }
}

fn usage(message: impl Into<String>) -> Error {
    Error::Usage(message.into())
}

/// Returns true if the names of extended attributes that overlayfs claims are to be escaped.
fn escapes_overlay(options: &Options) -> bool {
    let mut names = options.parameters.iter().map(|(name, _)| name);
    names.any(|name| name == mount::ESCAPE_OVERLAY)
}

/// The options as FUSE has them, and how blobs are read.
fn config(options: &Options, blobs: &mut Blobs) -> Result<Config, Error> {
    use MountAttrFlags as Attr;
    let root = rustix::process::geteuid().is_root();
    let mut config = Config::default();
    if root {
        config.acl = SessionACL::All;
    }
    for (name, value) in &options.parameters {
        match (
            name.to_str(),
            value.as_ref().and_then(|value| value.to_str()),
        ) {
            (Some("allow_other"), None) => config.acl = SessionACL::All,
            (Some(mount::ESCAPE_OVERLAY), None) | (Some("verify"), Some("none")) => {}
            (Some("verify"), Some("fsverity")) => *blobs = Blobs::verified(),
            (Some("verify"), Some("digest")) => {
                return Err(usage(
                    "verify=digest is the kernel module's; over FUSE there is verify=fsverity",
                ))
            }
            _ => {
                let name = name.to_string_lossy();
                return Err(usage(format!("'{name}' is no option over FUSE")));
            }
        }
    }
    let mut list = vec![
        MountOption::RO,
        MountOption::DefaultPermissions,
        MountOption::CUSTOM("subtype=puzzlefs".to_owned()),
    ];
    let attributes = options.attributes;
    // An ordinary user never gets the first two.
    for (attribute, with, without) in [
        (
            Attr::MOUNT_ATTR_NOSUID,
            MountOption::NoSuid,
            Some(MountOption::Suid),
        ),
        (
            Attr::MOUNT_ATTR_NODEV,
            MountOption::NoDev,
            Some(MountOption::Dev),
        ),
        (Attr::MOUNT_ATTR_NOEXEC, MountOption::NoExec, None),
        (Attr::MOUNT_ATTR_NOATIME, MountOption::NoAtime, None),
    ] {
        match attributes.contains(attribute) {
            true => list.push(with),
            false => list.extend(without.filter(|_| root)),
        }
    }
    if attributes.contains(Attr::MOUNT_ATTR_NOSYMFOLLOW) {
        return Err(usage("'nosymfollow' is no option over FUSE"));
    }
    config.mount_options = list;
    Ok(config)
}

/// The failure of a mount over FUSE.
fn explained(error: std::io::Error) -> Error {
    MountError::Fuse(error.to_string().trim_end().to_owned()).into()
}

/// Lets go of the terminal, of whoever waited, and of the working directory.
fn leave() -> Result<()> {
    rustix::process::chdir("/").context("/")?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .context("/dev/null")?;
    rustix::stdio::dup2_stdout(&null)
        .and_then(|()| rustix::stdio::dup2_stderr(&null))
        .context("/dev/null")
}
