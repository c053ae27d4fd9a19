// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs-snapshotter man`: manual pages, generated from the definition of the command line.

use crate::Cli;
use anyhow::{Context, Result};
use clap::{Args, CommandFactory};
use std::fs;
use std::path::PathBuf;

/// `puzzlefs-snapshotter man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Directory for the pages, created if it does not exist
    pub directory: PathBuf,
}

/// Writes `puzzlefs-snapshotter.1` and one page per command.
pub fn man(arguments: &ManArgs) -> Result<()> {
    let directory = &arguments.directory;
    let fail = || format!("{}: cannot write the pages into it", directory.display());
    fs::create_dir_all(directory).with_context(fail)?;
    let command = Cli::command().disable_help_subcommand(true);
    clap_mangen::generate_to(command, directory).with_context(fail)
}
