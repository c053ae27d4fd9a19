// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs extract`.

use crate::cli::ExtractArgs;
use crate::format;
use crate::output::{say, Output};
use puzzlefs_lib::{extract, store, ImageRef};
use std::io::Write;

/// Extracts an image.
pub fn run(arguments: &ExtractArgs) -> anyhow::Result<()> {
    let (store, image) = store::find_image(&ImageRef::parse(&arguments.image)?)?;
    let extracted = extract::extract(&store, &image, &arguments.directory)?;
    let entries = format::count(extracted.entries, "entry", "entries");
    let mut output = Output::new();
    writeln!(output, "{} in {entries}", format::bytes(extracted.bytes))?;
    output.flush()?;
    if extracted.not_owned > 0 {
        let inodes = format::count(extracted.not_owned, "inode", "inodes");
        say(format_args!(
            "{inodes} kept this user as the owner; extracting owners takes root"
        ));
    }
    Ok(())
}
