// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs-snapshotter man`: made of what the command line is read by.

use crate::Cli;
use anyhow::{Context, Result};
use clap::{Args, CommandFactory};
use std::fs;
use std::path::PathBuf;

/// `puzzlefs-snapshotter man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// The directory to write the pages into
    pub directory: PathBuf,
}

/// Writes the manual pages: `puzzlefs-snapshotter.1`, and one a command.
pub fn man(arguments: &ManArgs) -> Result<()> {
    let directory = &arguments.directory;
    let fail = || format!("{}: cannot write the pages into it", directory.display());
    fs::create_dir_all(directory).with_context(fail)?;
    let command = Cli::command().disable_help_subcommand(true);
    clap_mangen::generate_to(command, directory).with_context(fail)
}
