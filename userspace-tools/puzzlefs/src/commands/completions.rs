// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs completions`.

use super::Cli;
use crate::output::Output;
use clap::{Args, CommandFactory};
use clap_complete::Shell;
use std::io::Write;

/// Print completions for a shell
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// Shell that reads the completions
    shell: Shell,
}

/// Prints the script that makes a shell complete command lines.
pub fn run(arguments: &CompletionsArgs) -> anyhow::Result<()> {
    // The generator panics if it cannot write, so it writes to memory.
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
