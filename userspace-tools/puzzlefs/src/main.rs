// SPDX-License-Identifier: MIT OR Apache-2.0

//! The `puzzlefs` command.

mod build;
mod cat;
mod cli;
mod copy;
mod diff;
mod du;
mod enable_verity;
mod export;
mod extract;
mod faults;
mod format;
mod fuse;
mod fusermount;
mod gc;
mod import;
mod inspect;
mod inspect_path;
mod list;
mod ls;
mod manual;
mod mount;
mod mount_fuse;
mod output;
mod progress;
mod tag;
mod umount;
mod verify;
mod work;

use clap::Parser;
use cli::{Cli, Command};
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
    /// As if SIGPIPE had ended the program, which Rust's runtime ignores.
    pub const BROKEN_PIPE: u8 = 141;
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match &cli.command {
        Command::Build(arguments) => build::run(arguments),
        Command::Import(arguments) => import::run(arguments),
        Command::Extract(arguments) => extract::run(arguments),
        Command::Export(arguments) => export::run(arguments),
        Command::Inspect(arguments) => match &arguments.path {
            Some(path) => inspect_path::run(arguments, path),
            None => inspect::inspect(arguments),
        },
        Command::Mount(arguments) => mount::run(arguments),
        Command::Umount(arguments) => umount::run(arguments),
        Command::Ls(arguments) => ls::run(arguments),
        Command::Cat(arguments) => cat::run(arguments),
        Command::List(arguments) => list::run(arguments),
        Command::Tag(arguments) => tag::tag(arguments),
        Command::Untag(arguments) => tag::untag(arguments),
        Command::Copy(arguments) => copy::run(arguments),
        Command::Du(arguments) => du::run(arguments),
        Command::Diff(arguments) => diff::run(arguments),
        Command::Gc(arguments) => gc::run(arguments),
        Command::Completions(arguments) => manual::completions(arguments),
        Command::Man(arguments) => manual::man(arguments),
        Command::Verify(arguments) => verify::run(arguments),
        Command::EnableVerity(arguments) => enable_verity::run(arguments),
        Command::Resolve(arguments) => inspect::resolve(arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if output::is_broken_pipe(&error) => ExitCode::from(status::BROKEN_PIPE),
        // It has said why itself.
        Err(error) if error.is::<ServerFailed>() => ExitCode::from(status_of(&error)),
        Err(error) => {
            match error.downcast_ref() {
                Some(Error::Interrupted) => output::say(format_args!("{error:#}; {}", left(&cli))),
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

/// What an interrupted command leaves.
fn left(cli: &Cli) -> &'static str {
    match cli.command {
        Command::Build(_) | Command::Import(_) | Command::Copy(_) => "nothing was tagged",
        Command::Extract(_) => "what was extracted so far is left",
        Command::Export(_) => "nothing was exported",
        _ => "not all was looked at",
    }
}

/// The exit status for an error.
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
