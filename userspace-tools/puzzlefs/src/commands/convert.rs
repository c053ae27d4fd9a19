// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs convert`.

use super::build::{self, MakeArgs};
use crate::arguments::rules::RuleArgs;
use crate::arguments::ImageArg;
use clap::Args;
use puzzlefs_lib::{convert, ImageRef, Store};
use std::ffi::OsString;

/// Convert an image to another version of the image format
#[derive(Debug, Args)]
pub struct ConvertArgs {
    #[command(flatten)]
    image: ImageArg,
    /// Store, created if it does not exist, and the tag to set [default: IMAGE]
    #[arg(value_name = "OCI-DIR:TAG")]
    target: Option<OsString>,
    #[command(flatten)]
    rules: RuleArgs,
    #[command(flatten)]
    making: MakeArgs,
}

/// Converts an image.
pub fn run(arguments: &ConvertArgs) -> anyhow::Result<()> {
    let image = ImageRef::parse(&arguments.image.image)?;
    let from = Store::open(&image.store)?;
    let target = arguments.target.as_ref();
    build::make(
        &image.store,
        target.unwrap_or(&arguments.image.image),
        &arguments.rules,
        &arguments.making,
        |store, options, progress| {
            convert::convert(&from, &image.selector, store, &options, progress)
        },
    )
}
