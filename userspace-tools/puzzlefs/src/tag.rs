// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs tag` and `puzzlefs untag`.

use clap::Args;
use puzzlefs_lib::{Error, ImageRef, Selector, Store};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

/// `puzzlefs tag`.
#[derive(Debug, Args)]
pub struct TagArgs {
    /// The image
    #[arg(value_name = "IMAGE")]
    pub image: OsString,
    /// The tag to set in the same store; a tag of another image is moved
    #[arg(value_name = "[STORE:]NEWTAG")]
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
    // No tag has a colon.
    if !arguments.tag.as_bytes().contains(&b':') {
        let tag = ImageRef::parse_tag(&arguments.tag)?;
        Store::open(&image.store)?.tag(&image.selector, &tag)?;
        return Ok(());
    }
    let target = ImageRef::parse(&arguments.tag)?;
    let wrong = |what: String| Error::Reference {
        reference: arguments.tag.to_string_lossy().into_owned(),
        what,
    };
    let Selector::Tag(tag) = &target.selector else {
        return Err(wrong("give the new tag, <oci-dir>:<tag>".to_owned()).into());
    };
    let store = Store::open(&image.store)?;
    if !Store::open(&target.store)?.is_same(&store)? {
        let what = format!(
            "another store than that of the image; to copy it there, use 'puzzlefs copy {image} {target}'"
        );
        return Err(wrong(what).into());
    }
    store.tag(&image.selector, tag)?;
    Ok(())
}

/// Takes a tag away, or all of an image.
pub fn untag(arguments: &UntagArgs) -> anyhow::Result<()> {
    let image = ImageRef::parse(&arguments.image)?;
    Ok(Store::open(&image.store)?.untag(&image.selector)?)
}
