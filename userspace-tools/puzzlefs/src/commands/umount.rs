// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs umount`.

use crate::output::say;
use anyhow::Context;
use clap::Args;
use puzzlefs_lib::mount::{self, Unmounted};
use std::path::PathBuf;

/// Unmount an image
///
/// If nothing is mounted there, 'umount' says so and exits 0. It refuses to unmount any other
/// filesystem.
#[derive(Debug, Args)]
pub struct UmountArgs {
    /// Mount point of the image
    directory: PathBuf,
    /// Detach a busy mount now, and unmount it when its last user has finished
    #[arg(short, long)]
    lazy: bool,
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
