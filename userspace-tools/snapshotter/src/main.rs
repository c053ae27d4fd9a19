// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs-snapshotter`: makes containerd run images of a PuzzleFS store without copying them.
//!
//! `serve` is containerd's proxy plugin for snapshots. `import` registers an image with containerd: as an
//! image of one layer, whose content is the manifest of the image in its store. The plugin reports this
//! layer as unpacked.

mod api;
mod content;
mod hosts;
mod images;
mod import;
mod lazy;
mod locks;
mod manual;
mod metrics;
mod provide;
mod registries;
mod serve;
mod service;
mod snapshots;
mod state;
mod usage;

use clap::{Args, Parser, Subcommand};
use puzzlefs_lib::error::{exit_status, Program};
use puzzlefs_lib::{message, mount};
use std::fmt::Display;
use std::path::PathBuf;
use std::process::ExitCode;

/// The socket of the snapshotter.
const SOCKET: &str = "/run/puzzlefs-snapshotter/snapshotter.sock";

/// Make containerd run images of a PuzzleFS store, mounted from the store
#[derive(Debug, Parser)]
#[command(
    name = "puzzlefs-snapshotter",
    version,
    max_term_width = 100,
    after_help = "\
In /etc/containerd/config.toml:
    [proxy_plugins.puzzlefs]
      type = \"snapshot\"
      address = \"/run/puzzlefs-snapshotter/snapshotter.sock\"

Then:
    puzzlefs-snapshotter import /srv/images:debian localhost/debian:puzzlefs
    ctr run --rm -t --snapshotter puzzlefs localhost/debian:puzzlefs NAME /bin/sh

Exit status: 0 done; 1 failed; 2 wrong usage."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve snapshots to containerd
    Serve(serve::ServeArgs),
    /// Register an image of a store with containerd
    Import(import::ImportArgs),
    /// Write manual pages into a directory
    #[command(hide = true)]
    Man(manual::ManArgs),
}

/// The containerd to connect to.
#[derive(Debug, Args)]
struct ContainerdArgs {
    /// Connect to the containerd of this socket
    #[arg(
        id = "containerd",
        long = "containerd",
        value_name = "SOCKET",
        default_value = "/run/containerd/containerd.sock",
        env = "CONTAINERD_ADDRESS"
    )]
    socket: PathBuf,
}

fn main() -> ExitCode {
    if mount::is_prefetch(std::env::args_os()) {
        return ExitCode::SUCCESS;
    }
    let cli = Cli::parse();
    let result = match &cli.command {
        Command::Serve(arguments) => serve::run(arguments),
        Command::Import(arguments) => import::run(arguments),
        Command::Man(arguments) => manual::man(arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(format_args!("{error:#}"));
            ExitCode::from(exit_status(error.as_ref(), Program::Snapshotter))
        }
    }
}

/// Writes a message to standard error, in a line of its own.
fn say(what: impl Display) {
    message::tell("puzzlefs-snapshotter", what);
}
