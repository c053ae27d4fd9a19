// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs tag` and `puzzlefs untag`.

use clap::Args;
use puzzlefs_lib::{Error, ImageRef, Selector, Store};
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
    /// The store and the tag
    #[arg(value_name = "STORE:TAG")]
    pub image: OsString,
}

/// The tag that a reference names.
fn tag_of(image: &ImageRef) -> Result<&str, Error> {
    match &image.selector {
        Selector::Tag(tag) => Ok(tag),
        Selector::Manifest(_) => Err(Error::Reference {
            reference: image.to_string(),
            what: "give the tag as <oci-dir>:<tag>".to_owned(),
        }),
    }
}

/// Gives an image one more tag.
pub fn tag(arguments: &TagArgs) -> anyhow::Result<()> {
    let image = ImageRef::parse(&arguments.image)?;
    let new = image.with_tag(&arguments.tag)?;
    Store::open(&image.store)?.tag(&image.selector, tag_of(&new)?)?;
    Ok(())
}

/// Takes a tag away.
pub fn untag(arguments: &UntagArgs) -> anyhow::Result<()> {
    let image = ImageRef::parse(&arguments.image)?;
    let tag = tag_of(&image)?;
    Ok(Store::open(&image.store)?.untag(tag)?)
}
