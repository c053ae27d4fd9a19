// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs fetch`.

use super::pull::target;
use crate::arguments::registry::{RegistryArgs, FORM};
use crate::arguments::{QuietArg, PLATFORM};
use crate::interrupt;
use crate::output::{say, Output};
use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use puzzlefs_lib::fetch::{serve, Claim, Completion, Served};
use puzzlefs_lib::mount::{self, FetchDevice};
use puzzlefs_lib::platform::Platform;
use puzzlefs_lib::{Digest, Error, Store};
use puzzlefs_registry::{fetch, FetchingOptions, RemoteName};
use rustix::fs::{Mode, OFlags};
use std::ffi::OsString;
use std::fmt::{self, Display};
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

/// The report of a process in the background: the image can be mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// The digest of the manifest.
    pub manifest: Digest,
    /// True if this process serves the image. Otherwise the store has all chunks, or another process serves.
    pub serves: bool,
}

impl Ready {
    /// Parses a line of [`Display`], without its end.
    pub fn parse(line: &str) -> Option<Self> {
        let (manifest, word) = line.split_once(' ')?;
        Some(Ready {
            manifest: Digest::from_oci(manifest)?,
            serves: word == SERVES,
        })
    }
}

impl Display for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.serves { SERVES } else { "done" };
        write!(f, "{} {word}", self.manifest.to_oci())
    }
}

/// The most characters of a line for the kernel's log, which refuses lines of 1024 bytes.
const LOG_LINE_MAX: usize = 900;
/// The word of a process that serves.
const SERVES: &str = "serves";

/// Fetch the chunks of an image while it is mounted: those first that are read
///
/// fetch brings everything that a mount needs, sets the tag, and then serves the kernel's requests for
/// missing chunks of the store. The image can be mounted as soon as the tag is set, with the mount option
/// fetch=wait: readers then wait for missing chunks. 'puzzlefs mount --lazy' does both.
///
/// Each chunk is verified before it enters the store, and again when it is read. If a chunk cannot be
/// fetched, its readers get an error, and fetch goes on. Data that has arrived remains, and another fetch
/// serves the rest.
///
/// The image must be a PuzzleFS image of format 4, at a place that sends parts of blobs. One process serves
/// a store. The command takes root and the kernel module.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit status: 0 the store has all chunks, or a signal has ended --complete=never; 1 failed; 130 interrupted.")]
pub struct FetchArgs {
    /// Image in a registry, docker://HOST:PORT/NAME:TAG or docker://HOST:PORT/NAME@sha256:DIGEST, or in an
    /// image layout at the address s3://BUCKET/PREFIX:TAG, gs://…, az://…, abfs://…, file:///… or
    /// https://HOST/PATH:TAG [default for TAG: latest]
    #[arg(value_name = FORM)]
    image: OsString,
    /// Store, created if it does not exist, and the tag to set there [default for TAG: the image's]
    #[arg(value_name = "STORE[:TAG]")]
    target: OsString,
    #[command(flatten)]
    complete: CompleteArg,
    /// Fetch the image of this platform, such as linux/arm64 [default: this machine's]
    #[arg(long, value_name = PLATFORM)]
    platform: Option<Platform>,
    #[command(flatten)]
    registry: RegistryArgs,
    #[command(flatten)]
    quiet: QuietArg,
    /// Use this device, for tests
    #[arg(long, hide = true, value_name = "PATH", default_value = mount::DEVICE)]
    device: PathBuf,
    /// Serve in the background, for a parent that waits on standard output
    #[arg(long, hide = true)]
    background: bool,
}

/// The time at which the rest of an image is fetched.
#[derive(Clone, Copy, Debug, Args)]
pub struct CompleteArg {
    /// Choose when chunks are fetched that no reader has requested
    #[arg(long, value_name = "WHEN", default_value = "idle")]
    complete: Complete,
}

/// The values of `--complete`.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Complete {
    /// At once, beside requests, which come first
    Now,
    /// While there are no requests, one range at a time
    Idle,
    /// Not at all: requests are served until SIGTERM or SIGINT
    Never,
}

impl CompleteArg {
    /// Returns the value for the library.
    fn completion(self) -> Completion {
        match self.complete {
            Complete::Now => Completion::Now,
            Complete::Idle => Completion::Idle,
            Complete::Never => Completion::Never,
        }
    }

    /// Returns true if the fetcher runs until it is stopped.
    pub fn is_never(self) -> bool {
        matches!(self.complete, Complete::Never)
    }

    /// Returns the word of a command line with this argument.
    pub fn word(self) -> OsString {
        let name = self.complete.to_possible_value();
        let name = name.map_or_else(String::new, |value| value.get_name().to_owned());
        format!("--complete={name}").into()
    }
}

/// Fetches an image and serves its chunks.
pub fn run(arguments: &FetchArgs) -> Result<()> {
    if arguments.background {
        // A new session gets no signals from the terminal.
        rustix::process::setsid().context("cannot start a session")?;
    }
    let connection = arguments.registry.options()?;
    let image = RemoteName::parse(&arguments.image, connection.settings.search())?;
    let (directory, tag) = target(&arguments.target, &image)?;
    let progress = interrupt::stoppable()?;
    // Without the module, the host does not need the image.
    let device = Arc::new(FetchDevice::open(&arguments.device)?);
    // A process in the background changes its working directory.
    let directory = std::path::absolute(&directory).context("cannot find the store")?;
    let store = Store::create(&directory)?;
    let options = FetchingOptions {
        connection,
        platform: arguments.platform.clone(),
        tag,
        completion: arguments.complete.completion(),
    };
    let place = format!("{}:{}", directory.display(), options.tag);
    let mut messages = Messages {
        name: &place,
        log: None,
        is_quiet: arguments.quiet.quiet || arguments.background,
    };
    let served = fetch(&image, &store, &options, &progress, |source, prepared| {
        let lazy = options.lazy();
        let must_serve = !prepared.is_whole() || lazy.completion == Completion::Never;
        let claim = if must_serve {
            Claim::take(&store, prepared)?
        } else {
            None
        };
        if claim.is_some() {
            device.attach(&store)?;
        }
        if arguments.background {
            messages.detach(Ready {
                manifest: *prepared.manifest(),
                serves: claim.is_some(),
            })?;
        }
        if claim.is_none() {
            return Ok(prepared.is_whole().then_some(Served::Complete));
        }
        messages.note(&format!("serving {place}"));
        let warn = |error: &Error| messages.warn(error);
        let requests = device.clone();
        serve(source, prepared, &store, requests, lazy, &progress, &warn).map(Some)
    });
    match served {
        Ok(Some(Served::Complete)) => messages.report(&format!("{image} is complete in {place}")),
        Ok(Some(Served::Stopped)) => Ok(()),
        Ok(None) => messages.report(&format!("another process serves {place}")),
        Err(error) => {
            if messages.log.is_some() && !matches!(error, Error::Interrupted) {
                messages.warn(&error);
            }
            Err(error.into())
        }
    }
}

/// The messages of a service: on standard error, or in the kernel's log if it is in the background.
struct Messages<'m> {
    name: &'m str,
    log: Option<File>,
    is_quiet: bool,
}

impl Messages<'_> {
    /// Reports a failure.
    fn warn(&self, error: &Error) {
        match &self.log {
            // 12 is the priority of warnings of user programs. A message that cannot be written is lost.
            Some(log) => {
                let mut log = log;
                let line = format!("<12>puzzlefs-fetch: {}: {error}", self.name);
                let line: String = line.chars().take(LOG_LINE_MAX).chain(['\n']).collect();
                let _ = log.write_all(line.as_bytes());
            }
            None => say(error),
        }
    }

    fn note(&self, text: &str) {
        if !self.is_quiet {
            say(text);
        }
    }

    /// Reports the result.
    fn report(&self, text: &str) -> Result<()> {
        if self.is_quiet {
            return Ok(());
        }
        let mut out = Output::new();
        let printed = writeln!(out, "{text}").map_err(Into::into);
        out.end(printed, || text.to_owned())
    }

    /// Reports to the parent. Releases the terminal, the parent's pipe and the working directory.
    fn detach(&mut self, ready: Ready) -> puzzlefs_lib::Result<()> {
        // The log exists unless the host hides it.
        self.log = File::options().write(true).open("/dev/kmsg").ok();
        let mut out = std::io::stdout();
        let told = writeln!(out, "{ready}").and_then(|()| out.flush());
        // If the parent is gone, nobody mounts the image.
        told.map_err(|_| Error::Interrupted)?;
        let null = || {
            rustix::process::chdir("/")?;
            let flags = OFlags::RDWR | OFlags::CLOEXEC;
            let null = rustix::fs::open("/dev/null", flags, Mode::empty())?;
            rustix::stdio::dup2_stdout(&null)?;
            rustix::stdio::dup2_stderr(&null)
        };
        null().map_err(|errno| Error::Usage(format!("cannot open /dev/null: {errno}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_parsed() {
        for serves in [true, false] {
            let manifest = Digest::of(b"manifest");
            let ready = Ready { manifest, serves };
            assert_eq!(Ready::parse(&ready.to_string()), Some(ready));
        }
        for other in ["", "sha256:00 serves", "serves"] {
            assert_eq!(Ready::parse(other), None);
        }
    }
}
