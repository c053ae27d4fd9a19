// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs umount`.

use crate::output::say;
use anyhow::Context;
use clap::Args;
use puzzlefs_lib::mount::{self, Unmounted};
use std::path::PathBuf;

/// `puzzlefs umount`.
#[derive(Debug, Args)]
#[command(after_help = "\
Where nothing is mounted any more, that is said and the exit status is 0. Other mounts than those of
PuzzleFS are left alone.")]
pub struct UmountArgs {
    /// Where the image is mounted
    pub directory: PathBuf,
    /// If it is in use, take it out of the tree now, and unmount it when it is not in use any more
    #[arg(short, long)]
    pub lazy: bool,
}

/// Unmounts an image.
pub fn run(arguments: &UmountArgs) -> anyhow::Result<()> {
    let shown = arguments.directory.display();
    match mount::unmount(&arguments.directory, arguments.lazy)
        .with_context(|| format!("cannot unmount {shown}"))?
    {
        Unmounted::Done => {}
        Unmounted::Nothing => say(format_args!("{shown}: nothing is mounted there")),
    }
    Ok(())
}
