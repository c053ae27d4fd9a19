// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs import`.

use super::build::{self, MakeArgs};
use crate::arguments::rules::RuleArgs;
use crate::arguments::PLATFORM;
use clap::Args;
use puzzlefs_lib::import::{self, ImportSource};
use puzzlefs_lib::platform::Platform;
use std::ffi::OsString;

/// Import a container image, in OCI or Docker format
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// OCI image layout (directory or archive) or 'docker save' archive; '-' reads an archive from
    /// standard input
    ///
    /// NAME chooses one of several images: a tag of a layout, or a repository and tag of Docker.
    #[arg(value_name = "IMAGE[:NAME]")]
    source: OsString,
    /// Store, created if it does not exist, and the tag to set
    #[arg(value_name = "OCI-DIR:TAG")]
    image: OsString,
    /// Import the image of this platform, such as linux/arm64 [default: this machine's]
    #[arg(long, value_name = PLATFORM)]
    platform: Option<Platform>,
    /// Keep the image's layers, instead of merging them into one [format 3]
    #[arg(long)]
    layers: bool,
    #[command(flatten)]
    rules: RuleArgs,
    #[command(flatten)]
    making: MakeArgs,
}

/// Imports a container image.
pub fn run(arguments: &ImportArgs) -> anyhow::Result<()> {
    let source = ImportSource::parse(&arguments.source, arguments.platform.clone());
    build::make(
        &source.path,
        &arguments.image,
        &arguments.rules,
        &arguments.making,
        |store, mut options, progress| {
            options.keep_layers = arguments.layers;
            import::import(&source, store, &options, progress)
        },
    )
}
