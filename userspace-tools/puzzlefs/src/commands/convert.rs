// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs convert`.

use super::build::{self, MakeArgs};
use super::publish;
use crate::arguments::registry::RegistryArgs;
use crate::arguments::rules::RuleArgs;
use crate::arguments::PLATFORM;
use clap::Args;
use puzzlefs_lib::error::ReferenceError;
use puzzlefs_lib::platform::Platform;
use puzzlefs_lib::{convert, ImageRef, Store};
use puzzlefs_registry::{RemoteName, UserPassword};
use std::ffi::OsString;
use std::path::PathBuf;

/// Convert an image to another version of the format, or a registry's container image
///
/// With two names in registries or object stores, this makes a PuzzleFS image of each container image that
/// IMAGE stands for, and publishes both under TARGET: hosts without PuzzleFS pull the container image as
/// before. TARGET can be IMAGE.
#[derive(Debug, Args)]
#[command(
    mut_args = in_long_help,
    after_help = "Options for images in registries: see --help."
)]
pub struct ConvertArgs {
    /// Image, STORE:TAG, STORE@sha256:DIGEST, docker://HOST/NAME:TAG or s3://BUCKET/PREFIX:TAG
    #[arg(value_name = "IMAGE")]
    image: OsString,
    /// Store, created if it does not exist, and the tag to set; or docker://HOST/NAME:TAG, or
    /// s3://BUCKET/PREFIX:TAG [default: IMAGE]
    #[arg(value_name = "TARGET")]
    target: Option<OsString>,
    #[command(flatten)]
    rules: RuleArgs,
    #[command(flatten)]
    making: MakeArgs,
    #[command(flatten)]
    remote: RemoteArgs,
    // The heading of this group holds for everything that follows it, so the group is last.
    #[command(flatten, next_help_heading = REGISTRIES)]
    registry: RegistryArgs,
}

/// The heading of the arguments for images in registries.
const REGISTRIES: &str = "Registries";

/// Leaves the arguments for registries out of the short help, which fits a screen then.
fn in_long_help(argument: clap::Arg) -> clap::Arg {
    let of_registries = argument.get_help_heading() == Some(REGISTRIES);
    argument.hide_short_help(of_registries)
}

/// The part of the arguments for images in registries.
#[derive(Debug, Args)]
pub struct RemoteArgs {
    /// Convert the images of these platforms of an index alone, such as linux/arm64 [default: all of Linux]
    #[arg(long, value_name = PLATFORM, help_heading = REGISTRIES)]
    pub platform: Vec<Platform>,
    /// Keep the PuzzleFS images in this store, where the next version finds its chunks [default: none]
    #[arg(long, value_name = "STORE", help_heading = REGISTRIES)]
    pub store: Option<PathBuf>,
    /// Log in to IMAGE's registry with this user name and password; --creds is for that of TARGET
    #[arg(long, value_name = "USER:PASSWORD", help_heading = REGISTRIES)]
    pub src_creds: Option<UserPassword>,
}

/// Converts an image.
pub fn run(arguments: &ConvertArgs) -> anyhow::Result<()> {
    let target = arguments.target.as_ref().unwrap_or(&arguments.image);
    match [&arguments.image, target].map(|name| RemoteName::is_remote(name)) {
        [true, true] => {
            return publish::run(
                &arguments.image,
                target,
                &arguments.rules,
                &arguments.making,
                &arguments.remote,
                &arguments.registry,
            )
        }
        [false, false] => {}
        [true, false] => {
            let what =
                "'puzzlefs pull' brings an image of a registry or an object store into a store";
            return Err(ReferenceError::refused(target, what).into());
        }
        [false, true] => {
            let what = "'puzzlefs push' uploads an image of a store";
            return Err(ReferenceError::refused(target, what).into());
        }
    }
    let image = ImageRef::parse(&arguments.image)?;
    let from = Store::open(&image.store)?;
    build::make(
        &image.store,
        target,
        &arguments.rules,
        &arguments.making,
        |store, options, progress| {
            convert::convert(&from, &image.selector, store, &options, progress)
        },
    )
}
