// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs mount --lazy`: starts a fetcher in the background, and mounts the image that it serves.

use super::MountArgs;
use crate::arguments::registry::ConnectionArgs;
use crate::commands::fetch::{forget, CompleteArg, Ready, LAZY_STORES};
use crate::commands::pull;
use crate::output::say;
use anyhow::{Context, Result};
use clap::Args;
use puzzlefs_lib::error::MountError;
use puzzlefs_lib::mount::{self, Options};
use puzzlefs_lib::{Digest, Error, Progress, Store};
use puzzlefs_registry::{RegistrySettings, RemoteName};
use std::ffi::{OsStr, OsString};
use std::fs::DirBuilder;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The most characters of the name of an image in the name of its store.
const NAME_MAX: usize = 100;
/// The longest line with which a fetcher reports that it is ready.
const READY_MAX: u64 = 100;

/// A mount of an image whose data has not arrived.
#[derive(Debug, Args)]
#[command(next_help_heading = "With --lazy")]
pub struct LazyArgs {
    /// Mount an image of a registry or an object store before its data has arrived
    ///
    /// IMAGE is then a name as 'puzzlefs fetch' takes it. A process in the background fetches chunks that
    /// are read, and the rest. It ends when the store has all chunks, and writes failures to the kernel's
    /// log. Readers wait for missing chunks, for 60 s or the seconds of '-o fetch_timeout=N', and then get
    /// EIO. All data is verified when it is read.
    #[arg(long, conflicts_with_all = ["fuse", "writable"])]
    pub lazy: bool,
    /// Store for the image, and the tag to set there [default: a directory for the image in
    /// /var/lib/puzzlefs/lazy; for TAG: the image's]
    #[arg(long, value_name = "STORE[:TAG]", requires = "lazy")]
    store: Option<OsString>,
    #[command(flatten)]
    complete: CompleteArg,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Fetches an image in the background, and mounts it.
pub fn run(arguments: &MountArgs, options: Options) -> Result<()> {
    let (lazy, directory) = (&arguments.lazy, &arguments.directory);
    let settings = RegistrySettings::read().map_err(Error::from)?;
    let image = &arguments.image.image;
    let name = RemoteName::parse(image, settings.search())?;
    let (store, tag) = match &lazy.store {
        Some(target) => pull::target(target, &name)?,
        None => {
            let (store, tag) = own_store(&name);
            // The image may be secret.
            let made = DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(LAZY_STORES);
            made.context(LAZY_STORES)?;
            (store, tag)
        }
    };
    let store = std::path::absolute(store).context("cannot find the store")?;
    mount::check_mount_point(directory)?;
    let mut target = store.clone().into_os_string();
    target.push(":");
    target.push(&tag);
    let (manifest, served) = ready(start(lazy, image, &target)?)?;
    let mut source = store.clone().into_os_string();
    source.push("@");
    source.push(manifest.to_oci());
    let mounted = attach(&source, directory, options);
    match served {
        Some((_, true)) if mounted.is_err() => stop(&store, &tag, &manifest),
        Some((process, true)) if lazy.complete.is_never() => say(format_args!(
            "process {process} fetches chunks until 'kill {process}'"
        )),
        _ => {}
    }
    mounted
}

/// Starts the fetcher. The name of the image comes from the command line, and is passed on as it is.
fn start(lazy: &LazyArgs, image: &OsStr, target: &OsStr) -> Result<Child> {
    let mut command = Command::new("/proc/self/exe");
    command.args(["fetch", "--background"]);
    command.args(lazy.complete.words());
    command.args(lazy.connection.words());
    command.arg("--").arg(image).arg(target);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command.spawn().context("cannot start the fetcher")
}

/// Waits until the image can be mounted. Returns the manifest, and the number of the process that serves the
/// image, with true if it did not do so before.
fn ready(mut fetcher: Child) -> Result<(Digest, Option<(u32, bool)>)> {
    let mut line = String::new();
    let mut ready = None;
    if let Some(pipe) = fetcher.stdout.take() {
        // An error looks like a line that is missing.
        let read = BufReader::new(pipe.take(READY_MAX)).read_line(&mut line);
        ready = read.ok().and_then(|_| Ready::parse(line.trim_end()));
    }
    let status = match ready {
        Some(Ready::Serves {
            manifest,
            process,
            is_new,
        }) => return Ok((manifest, Some((process, is_new)))),
        Some(Ready::Complete { manifest }) => return Ok((manifest, None)),
        // The process may serve other images of the store.
        Some(Ready::Failed { status }) => status,
        None => {
            let status = fetcher.wait().context("cannot wait for the fetcher")?;
            let code = status.code().and_then(|code| u8::try_from(code).ok());
            code.unwrap_or(1)
        }
    };
    Err(Error::from(MountError::Fetcher { status }).into())
}

/// Mounts an image whose chunks may be missing.
fn attach(source: &OsStr, directory: &Path, mut options: Options) -> Result<()> {
    for (name, value) in [("fetch", "wait"), ("verify", "digest")] {
        let mut given = options.parameters.iter();
        if !given.any(|(given, _)| given == name) {
            options.parameters.push((name.into(), Some(value.into())));
        }
    }
    super::attach(source, directory, options)
}

/// Stops the fetch of an image that is not mounted. The failed mount is the error that counts.
fn stop(store: &Path, tag: &str, manifest: &Digest) {
    let stopped =
        Store::open(store).and_then(|store| forget(&store, tag, manifest, &Progress::default()));
    if let Err(error) = stopped {
        say(error);
    }
}

/// Returns the store of an image that is given without one, and the tag. A user can remove the store of an
/// image as a whole.
fn own_store(image: &RemoteName) -> (PathBuf, String) {
    let name = image.to_string();
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || c == '.' {
            c
        } else {
            '-'
        }
    };
    let readable: String = name.chars().map(plain).take(NAME_MAX).collect();
    let mut digest = Digest::of(name.as_bytes()).to_hex();
    digest.truncate(16);
    let store = Path::new(LAZY_STORES).join(format!("{readable}-{digest}"));
    (store, image.tag().unwrap_or("image").to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_image_has_a_store_of_its_own() {
        let store = |name: &str| own_store(&RemoteName::parse(OsStr::new(name), &[]).unwrap());
        let (one, tag) = store("docker://registry.example/team/app:1");
        let path = one.to_str().unwrap();
        let wanted = "/var/lib/puzzlefs/lazy/docker---registry.example-team-app-1-";
        assert!(path.starts_with(wanted), "{path}");
        assert_eq!((path.len(), &*tag), (wanted.len() + 16, "1"));
        let (two, _) = store("docker://registry.example/team-app:1");
        assert_ne!(one, two);
        let digest = "0".repeat(64);
        let (by_digest, tag) = store(&format!("file:///srv/images@sha256:{digest}"));
        assert_eq!(tag, "image");
        assert!(by_digest.to_str().unwrap().len() < 200);
    }
}
