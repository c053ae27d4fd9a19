// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs fetch`.
//!
//! | module | content |
//! | --- | --- |
//! | `all` | continues the images of many stores |
//! | `process` | the process that serves a store |
//! | `messages` | its messages and its report |

mod all;
mod messages;
mod process;

pub use self::messages::Ready;
pub use self::process::forget;

use self::messages::Messages;
use self::process::{Asked, Outcome};
use super::pull;
use crate::arguments::registry::RegistryArgs;
use crate::arguments::{open_store, QuietArg, PLATFORM};
use crate::interrupt;
use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use puzzlefs_lib::fetch::{parse_rate, Completion};
use puzzlefs_lib::mount::{self, FetchDevice};
use puzzlefs_lib::platform::Platform;
use puzzlefs_lib::{Error, Store};
use puzzlefs_registry::RemoteName;
use std::ffi::{OsStr, OsString};
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

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
/// One process serves a store: if it runs already, it takes the image over, and fetch ends. The store records
/// its images and the options until they are complete. With STORE alone, fetch continues all of them with
/// these options, for example after the host has restarted. --creds is not recorded and not passed on.
///
/// The image must be a PuzzleFS image of format 4, at a place that sends parts of blobs. The command takes
/// root and the kernel module.
#[derive(Debug, Args)]
#[command(
    override_usage = "\
puzzlefs fetch [OPTIONS] IMAGE STORE[:TAG]
       puzzlefs fetch [OPTIONS] STORE
       puzzlefs fetch --all",
    after_help = "\
Exit status: 0 the store has all chunks, another process serves the image, or a signal has ended
--complete=never; 1 failed; 130 interrupted."
)]
pub struct FetchArgs {
    /// Image in a registry, docker://HOST:PORT/NAME:TAG or docker://HOST:PORT/NAME@sha256:DIGEST, or in an
    /// image layout at the address s3://BUCKET/PREFIX:TAG, gs://…, az://…, abfs://…, file:///… or
    /// https://HOST/PATH:TAG [default for TAG: latest]; or the store whose images are continued
    #[arg(value_name = "IMAGE", required_unless_present = "all")]
    image: Option<OsString>,
    /// Store, created if it does not exist, and the tag to set there [default for TAG: the image's]
    #[arg(value_name = "STORE[:TAG]")]
    target: Option<OsString>,
    #[command(flatten)]
    complete: CompleteArg,
    /// Fetch the image of this platform, such as linux/arm64 [default: this machine's]
    #[arg(long, value_name = PLATFORM)]
    platform: Option<Platform>,
    #[command(flatten)]
    registry: RegistryArgs,
    #[command(flatten)]
    quiet: QuietArg,
    /// Continue the images of all stores in /var/lib/puzzlefs/lazy, and of those that
    /// /etc/puzzlefs/fetchd.conf names, one a line
    ///
    /// The service puzzlefs-fetchd does so when the host starts.
    #[arg(long, conflicts_with_all = ["image", "target", "background", "platform"])]
    all: bool,
    /// Use this device, for tests
    #[arg(long, hide = true, value_name = "PATH", default_value = mount::DEVICE)]
    device: PathBuf,
    /// Serve in the background, for a parent that waits on standard output
    #[arg(long, hide = true)]
    background: bool,
}

/// The directory of the stores of images that are mounted without a store.
pub const LAZY_STORES: &str = "/var/lib/puzzlefs/lazy";

/// The time at which the rest of an image is fetched.
#[derive(Clone, Copy, Debug, Args)]
pub struct CompleteArg {
    /// Choose when chunks are fetched that no reader has requested
    ///
    /// Metadata, the start-up order of the image, and chunks that likely follow requested ones are fetched in
    /// any case.
    #[arg(long, value_name = "WHEN", default_value = "idle")]
    complete: Complete,
    /// Fetch chunks that no reader has requested at RATE bytes per second at most; with a suffix, KiB (K),
    /// MiB (M) or GiB (G) [default: no limit]
    ///
    /// Requests of readers, and chunks that are fetched in any case, are not delayed, and do not count.
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    limit_rate: Option<NonZeroU64>,
}

/// The values of `--complete`.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Complete {
    /// At once, beside requests, which come first
    Now,
    /// After 1 s without requests, one range at a time
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

    /// Returns the words of a command line with these arguments.
    pub fn words(self) -> Vec<OsString> {
        let name = self.complete.to_possible_value();
        let name = name.map_or_else(String::new, |value| value.get_name().to_owned());
        let rate = self.limit_rate.map(|rate| format!("--limit-rate={rate}"));
        let words = [format!("--complete={name}")].into_iter().chain(rate);
        words.map(Into::into).collect()
    }
}

/// Fetches an image and serves its chunks, or continues the images of a store.
pub fn run(arguments: &FetchArgs) -> Result<()> {
    if arguments.background {
        // A new session gets no signals from the terminal.
        rustix::process::setsid().context("cannot start a session")?;
    }
    let progress = interrupt::stoppable()?;
    let Some(image) = &arguments.image else {
        return all::run(&arguments.device, &progress);
    };
    let (directory, asked) = match &arguments.target {
        Some(target) => {
            let (directory, asked) = asked(arguments, image, target)?;
            (directory, Some(asked))
        }
        None if RemoteName::is_remote(image) => {
            let what = "give the store, too: puzzlefs fetch IMAGE STORE[:TAG]";
            return Err(Error::Usage(what.to_owned()).into());
        }
        None => (PathBuf::from(image), None),
    };
    // Without the module, the host does not need the image.
    let device = Arc::new(FetchDevice::open(&arguments.device)?);
    // A process in the background changes its working directory.
    let directory = std::path::absolute(&directory).context("cannot find the store")?;
    let store = match &asked {
        Some(_) => Store::create(&directory)?,
        None => open_store(&directory)?,
    };
    let place = match &asked {
        Some(asked) => format!("{}:{}", directory.display(), asked.record.tag),
        None => directory.display().to_string(),
    };
    let messages = Messages {
        store: directory.display().to_string(),
        is_background: arguments.background,
        is_quiet: arguments.quiet.quiet || arguments.background,
        log: OnceLock::new(),
    };
    match process::run(&store, device, asked, &messages, &progress)? {
        Outcome::Done => Ok(()),
        Outcome::HandedOver => messages.report(&format!("another process serves {place}")),
    }
}

/// Returns the image that the command line asks for, and the store.
fn asked(arguments: &FetchArgs, image: &OsStr, target: &OsStr) -> Result<(PathBuf, Asked)> {
    let connection = arguments.registry.options()?;
    let name = RemoteName::parse(image, connection.settings.search())?;
    let (directory, tag) = pull::target(target, &name)?;
    let record = arguments.registry.connection().record(
        // A name that was parsed is UTF-8.
        image.to_string_lossy().into_owned(),
        tag,
        arguments.platform.clone(),
        arguments.complete.completion(),
        arguments.complete.limit_rate,
    )?;
    let has_creds = arguments.registry.has_creds();
    let asked = Asked {
        record,
        connection,
        has_creds,
    };
    Ok((directory, asked))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        complete: CompleteArg,
    }

    #[test]
    fn the_words_stand_for_the_arguments() {
        for line in [
            &["x"][..],
            &["x", "--complete=now", "--limit-rate=3M"],
            &["x", "--complete=never"],
        ] {
            let given = Line::parse_from(line).complete;
            let name = [OsString::from("x")];
            let again = Line::parse_from(name.into_iter().chain(given.words())).complete;
            assert_eq!(format!("{given:?}"), format!("{again:?}"));
        }
    }
}
