// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs tag`.

use crate::arguments::ImageArg;
use clap::Args;
use puzzlefs_lib::error::ReferenceError;
use puzzlefs_lib::{ImageRef, Selector, Store};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

/// Add a tag to an image
#[derive(Debug, Args)]
pub struct TagArgs {
    #[command(flatten)]
    image: ImageArg,
    /// Tag to set in the same store; a tag of another image is moved
    #[arg(value_name = "[STORE:]NEWTAG")]
    tag: OsString,
}

/// Adds a tag to an image.
pub fn run(arguments: &TagArgs) -> anyhow::Result<()> {
    let image = ImageRef::parse(&arguments.image.image)?;
    // No tag has a colon.
    if !arguments.tag.as_bytes().contains(&b':') {
        let tag = ImageRef::parse_tag(&arguments.tag)?;
        Store::open(&image.store)?.tag(&image.selector, &tag)?;
        return Ok(());
    }
    let target = ImageRef::parse(&arguments.tag)?;
    let wrong = |what: &str| ReferenceError::refused(&arguments.tag, what);
    let Selector::Tag(tag) = &target.selector else {
        return Err(wrong("give the new tag, <oci-dir>:<tag>").into());
    };
    let store = Store::open(&image.store)?;
    if !Store::open(&target.store)?.is_same(&store)? {
        let what = format!(
            "another store than that of the image; to copy it there, use 'puzzlefs copy {image} {target}'"
        );
        return Err(wrong(&what).into());
    }
    store.tag(&image.selector, tag)?;
    Ok(())
}
