// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs completions` and `puzzlefs man`: made of what the command line is read by.

use crate::cli::Cli;
use crate::output::Output;
use anyhow::Context;
use clap::{Args, CommandFactory};
use clap_complete::Shell;
use std::fs;
use std::io::Write;
use std::path::PathBuf;

/// `puzzlefs completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    pub shell: Shell,
}

/// `puzzlefs man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// The directory to write the pages into
    pub directory: PathBuf,
}

/// Prints what a shell reads to complete command lines.
pub fn completions(arguments: &CompletionsArgs) -> anyhow::Result<()> {
    // The generator panics where it cannot write, so it writes to memory.
    let mut script = Vec::new();
    clap_complete::generate(
        arguments.shell,
        &mut Cli::command(),
        "puzzlefs",
        &mut script,
    );
    let mut out = Output::new();
    out.write_all(&script)?;
    Ok(out.flush()?)
}

/// Writes the manual pages: `puzzlefs.1`, and one a command, `puzzlefs-build.1`.
pub fn man(arguments: &ManArgs) -> anyhow::Result<()> {
    let directory = &arguments.directory;
    let fail = || format!("{}: cannot make it", directory.display());
    fs::create_dir_all(directory).with_context(fail)?;
    let command = Cli::command().disable_help_subcommand(true);
    let fail = || format!("{}: cannot write the pages into it", directory.display());
    clap_mangen::generate_to(command, directory).with_context(fail)
}
