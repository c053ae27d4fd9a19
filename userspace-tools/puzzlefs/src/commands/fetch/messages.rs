// SPDX-License-Identifier: MIT OR Apache-2.0

//! The messages of a fetcher, and its report to the process that has started it.

use crate::output::{say, Output};
use anyhow::Result;
use puzzlefs_lib::{Digest, Error};
use rustix::fs::{Mode, OFlags};
use std::fmt::{self, Display};
use std::fs::File;
use std::io::Write;
use std::sync::OnceLock;

/// The most characters of a line for the kernel's log, which refuses lines of 1024 bytes.
const LOG_LINE_MAX: usize = 900;

/// The report of a process in the background.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    /// The image can be mounted, and a process serves it.
    Serves {
        /// The digest of the manifest.
        manifest: Digest,
        /// The number of the process, which is this one or another one.
        process: u32,
        /// The process did not serve the image before.
        is_new: bool,
    },
    /// The image can be mounted, and the store has all of its chunks.
    Complete {
        /// The digest of the manifest.
        manifest: Digest,
    },
    /// The image cannot be mounted. The process has reported the cause.
    Failed {
        /// The exit status for the cause.
        status: u8,
    },
}

impl Ready {
    /// Parses a line of [`Display`], without its end.
    pub fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["failed", status] => Some(Ready::Failed {
                status: status.parse().ok()?,
            }),
            [manifest, "complete"] => Some(Ready::Complete {
                manifest: Digest::from_oci(manifest)?,
            }),
            [manifest, word @ ("serves" | "served"), process] => Some(Ready::Serves {
                manifest: Digest::from_oci(manifest)?,
                process: process.parse().ok()?,
                is_new: word == "serves",
            }),
            _ => None,
        }
    }
}

impl Display for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ready::Serves {
                manifest,
                process,
                is_new,
            } => {
                let word = if *is_new { "serves" } else { "served" };
                write!(f, "{} {word} {process}", manifest.to_oci())
            }
            Ready::Complete { manifest } => write!(f, "{} complete", manifest.to_oci()),
            Ready::Failed { status } => write!(f, "failed {status}"),
        }
    }
}

/// The messages of a service: on standard error, or in the kernel's log if it is in the background.
pub struct Messages {
    /// The name of the store.
    pub store: String,
    /// The process is to serve in the background.
    pub is_background: bool,
    pub is_quiet: bool,
    /// The kernel's log, once the process is in the background. The log is absent if the host hides it.
    pub log: OnceLock<Option<File>>,
}

impl Messages {
    /// Returns true once the process is in the background.
    pub fn is_detached(&self) -> bool {
        self.log.get().is_some()
    }

    /// Reports a failure.
    pub fn warn(&self, error: &Error) {
        match self.log.get() {
            // 12 is the priority of warnings of user programs. A message that cannot be written is lost.
            Some(Some(log)) => {
                let mut log = log;
                let line = format!("<12>puzzlefs-fetch: {}: {error}", self.store);
                let line: String = line.chars().take(LOG_LINE_MAX).chain(['\n']).collect();
                let _ = log.write_all(line.as_bytes());
            }
            Some(None) => {}
            None => say(error),
        }
    }

    /// Reports a step.
    pub fn note(&self, text: &str) {
        if !self.is_quiet && !self.is_detached() {
            say(text);
        }
    }

    /// Reports the result of an image.
    pub fn report(&self, text: &str) -> Result<()> {
        if self.is_quiet || self.is_detached() {
            return Ok(());
        }
        let mut out = Output::new();
        let printed = writeln!(out, "{text}").map_err(Into::into);
        out.end(printed, || text.to_owned())
    }

    /// Reports to the parent, if there is one. Then releases the terminal, the parent's pipe and the working
    /// directory.
    pub fn ready(&self, ready: &Ready) -> puzzlefs_lib::Result<()> {
        if !self.is_background || self.is_detached() {
            return Ok(());
        }
        let mut out = std::io::stdout();
        let told = writeln!(out, "{ready}").and_then(|()| out.flush());
        // If the parent is gone, nobody mounts the image.
        told.map_err(|_| Error::Interrupted)?;
        let log = File::options().write(true).open("/dev/kmsg").ok();
        let _ = self.log.set(log);
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
        let manifest = Digest::of(b"manifest");
        let serves = |is_new| Ready::Serves {
            manifest,
            process: 70,
            is_new,
        };
        let complete = Ready::Complete { manifest };
        let failed = Ready::Failed { status: 130 };
        for ready in [serves(true), serves(false), complete, failed] {
            assert_eq!(Ready::parse(&ready.to_string()), Some(ready));
        }
        let long = format!("{} serves 70 70", manifest.to_oci());
        for other in [
            "",
            "sha256:00 serves 70",
            "serves",
            "failed",
            "failed 300",
            &long,
        ] {
            assert_eq!(Ready::parse(other), None);
        }
    }
}
