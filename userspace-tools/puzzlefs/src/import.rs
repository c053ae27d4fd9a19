// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs import`.

use crate::build;
use crate::cli::ImportArgs;
use puzzlefs_lib::import::{self, ImportSource};

/// Imports a container image.
pub fn run(arguments: &ImportArgs) -> anyhow::Result<()> {
    let source = ImportSource::parse(&arguments.source, arguments.platform.clone());
    build::make(
        &source.path,
        &arguments.image,
        &arguments.rules,
        &arguments.output,
        |store, mut options, progress| {
            options.keep_layers = arguments.layers;
            import::import(&source, store, &options, progress)
        },
    )
}
