// SPDX-License-Identifier: MIT OR Apache-2.0

//! The `puzzlefs` command: parses the command line, runs a command of [`commands`], and maps its error
//! to an exit status.

mod arguments;
mod commands;
mod faults;
mod format;
mod inode_report;
mod interrupt;
mod output;
mod progress;

use clap::Parser;
use commands::Cli;
use puzzlefs_lib::error::{exit_status, MountError, Program};
use puzzlefs_lib::{mount, Error, Problems};
use std::process::ExitCode;

fn main() -> ExitCode {
    if mount::is_prefetch(std::env::args_os()) {
        return ExitCode::SUCCESS;
    }
    let command = Cli::parse().command;
    let Err(error) = command.run() else {
        return ExitCode::SUCCESS;
    };
    if !output::is_broken_pipe(&error) {
        match error.downcast_ref() {
            Some(Error::Interrupted) => {
                let state = command.interrupted_state();
                output::say(format_args!("{error:#}; {state}"));
            }
            Some(Error::Problems(problems)) => report(problems),
            // The process in the background has reported the cause.
            Some(Error::Mount(MountError::Server { .. } | MountError::Fetcher { .. })) => {}
            _ => output::say(format_args!("{error:#}")),
        }
    }
    ExitCode::from(exit_status(error.as_ref(), Program::Puzzlefs))
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
