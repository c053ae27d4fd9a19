// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs tag` and `puzzlefs untag`.

use clap::Args;
use puzzlefs_lib::{ImageRef, Store};
use std::ffi::OsString;

/// `puzzlefs tag`.
#[derive(Debug, Args)]
pub struct TagArgs {
    /// The image
    #[arg(value_name = "IMAGE")]
    pub image: OsString,
    /// The tag to set in the same store; if it names another image, it is moved
    #[arg(value_name = "NEWTAG")]
    pub tag: OsString,
}

/// `puzzlefs untag`.
#[derive(Debug, Args)]
pub struct UntagArgs {
    /// The tag; by the digest of its manifest, an image loses all that it has
    #[arg(value_name = "IMAGE")]
    pub image: OsString,
}

/// Gives an image one more tag.
pub fn tag(arguments: &TagArgs) -> anyhow::Result<()> {
    let image = ImageRef::parse(&arguments.image)?;
    let tag = ImageRef::parse_tag(&arguments.tag)?;
    Store::open(&image.store)?.tag(&image.selector, &tag)?;
    Ok(())
}

/// Takes a tag away, or all of an image.
pub fn untag(arguments: &UntagArgs) -> anyhow::Result<()> {
    let image = ImageRef::parse(&arguments.image)?;
    Ok(Store::open(&image.store)?.untag(&image.selector)?)
}
