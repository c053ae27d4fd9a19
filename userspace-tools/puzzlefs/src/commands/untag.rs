// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs untag`.

use crate::arguments::ImageArg;
use clap::Args;
use puzzlefs_lib::{ImageRef, Store};

/// Remove a tag
///
/// STORE@sha256:DIGEST removes all tags of the image. 'puzzlefs gc' removes its blobs.
#[derive(Debug, Args)]
pub struct UntagArgs {
    #[command(flatten)]
    image: ImageArg,
}

/// Removes a tag, or all tags of an image.
pub fn run(arguments: &UntagArgs) -> anyhow::Result<()> {
    let image = ImageRef::parse(&arguments.image.image)?;
    Ok(Store::open(&image.store)?.untag(&image.selector)?)
}
