// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs resolve`.

use crate::arguments::ImageArg;
use crate::output::Output;
use clap::Args;
use std::io::Write;

/// Print the digest of an image's metadata, the kernel's 'rootfs=' option
///
/// It is that of the root in format 4, and of the metadata blob in format 3.
#[derive(Debug, Args)]
pub struct ResolveArgs {
    #[command(flatten)]
    image: ImageArg,
}

/// Prints the digest of an image's root or metadata blob.
pub fn run(arguments: &ResolveArgs) -> anyhow::Result<()> {
    let (_, root) = arguments.image.find_root()?;
    let mut output = Output::new();
    writeln!(output, "{}", root.digest())?;
    Ok(output.flush()?)
}
