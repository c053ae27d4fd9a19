// SPDX-License-Identifier: MIT OR Apache-2.0

//! The `puzzlefs` command.

mod build;
mod cli;
mod extract;
mod format;
mod inspect;
mod progress;

use clap::Parser;
use cli::{Cli, Command};
use puzzlefs_lib::Error;
use std::process::ExitCode;

/// The exit statuses that `puzzlefs --help` documents; clap itself exits with 2 on wrong usage.
mod status {
    pub const FAILURE: u8 = 1;
    pub const USAGE: u8 = 2;
    pub const CHANGED: u8 = 3;
    pub const INTERRUPTED: u8 = 130;
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match &cli.command {
        Command::Build(arguments) => build::run(arguments),
        Command::Extract(arguments) => extract::run(arguments),
        Command::Inspect(arguments) => inspect::inspect(arguments),
        Command::Resolve(arguments) => inspect::resolve(arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("puzzlefs: {error:#}");
            ExitCode::from(match error.downcast_ref::<Error>() {
                Some(Error::Changed { .. }) => status::CHANGED,
                Some(Error::Interrupted) => status::INTERRUPTED,
                Some(Error::Reference { .. }) => status::USAGE,
                _ => status::FAILURE,
            })
        }
    }
}
