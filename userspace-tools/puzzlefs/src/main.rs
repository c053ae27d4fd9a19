// SPDX-License-Identifier: MIT OR Apache-2.0

//! The `puzzlefs` command: parses the command line, runs a command of [`commands`], and maps its error
//! to an exit status.

mod arguments;
mod commands;
mod faults;
mod format;
mod fuse;
mod fusermount;
mod inode_report;
mod interrupt;
mod mount_fuse;
mod output;
mod progress;

use clap::Parser;
use commands::Cli;
use mount_fuse::ServerFailed;
use puzzlefs_lib::mount::{Cause, Failure};
use puzzlefs_lib::{Error, Problems};
use std::process::ExitCode;

/// The exit statuses that `puzzlefs --help` documents; clap itself exits with 2 on wrong usage.
mod status {
    pub const FAILURE: u8 = 1;
    pub const USAGE: u8 = 2;
    pub const CHANGED: u8 = 3;
    pub const INTERRUPTED: u8 = 130;
    /// The status of a program that SIGPIPE ends. Rust's runtime ignores the signal.
    pub const BROKEN_PIPE: u8 = 141;
}

fn main() -> ExitCode {
    let command = Cli::parse().command;
    match command.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if output::is_broken_pipe(&error) => ExitCode::from(status::BROKEN_PIPE),
        // The server has reported the reason.
        Err(error) if error.is::<ServerFailed>() => ExitCode::from(status_of(&error)),
        Err(error) => {
            match error.downcast_ref() {
                Some(Error::Interrupted) => {
                    let state = command.interrupted_state();
                    output::say(format_args!("{error:#}; {state}"));
                }
                Some(Error::Problems(problems)) => report(problems),
                _ => output::say(format_args!("{error:#}")),
            }
            ExitCode::from(status_of(&error))
        }
    }
}

/// Reports problems, one a line.
fn report(problems: &Problems) {
    for error in problems.first() {
        output::say(error);
    }
    if problems.rest() > 0 {
        let rest = format::count(problems.rest(), "problem", "problems");
        output::say(format_args!("and {rest} more"));
    }
}

/// Returns the exit status for an error.
fn status_of(error: &anyhow::Error) -> u8 {
    if let Some(failure) = error.downcast_ref::<Failure>() {
        return match failure.cause {
            Cause::Usage => status::USAGE,
            Cause::Interrupted => status::INTERRUPTED,
            _ => status::FAILURE,
        };
    }
    if let Some(ServerFailed(status)) = error.downcast_ref() {
        return *status;
    }
    match error.downcast_ref::<Error>() {
        Some(Error::Changed { .. }) => status::CHANGED,
        // Another attempt cannot succeed if there is any other problem.
        Some(Error::Problems(problems)) if problems.are_changes() => status::CHANGED,
        Some(Error::Interrupted) => status::INTERRUPTED,
        Some(Error::Reference { .. }) => status::USAGE,
        _ => status::FAILURE,
    }
}
