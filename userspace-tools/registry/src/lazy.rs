// SPDX-License-Identifier: MIT OR Apache-2.0

//! Images whose chunks are fetched on demand, at places of both kinds.

use crate::client::RegistryOptions;
use crate::name::RemoteName;
use crate::objects::ObjectSource;
use crate::places::Sought;
use crate::pull::Opened;
use puzzlefs_lib::fetch::{prepare, BlobSource, Completion, ImageSource, LazyImage, LazyOptions};
use puzzlefs_lib::import::find_puzzlefs;
use puzzlefs_lib::oci::Descriptor;
use puzzlefs_lib::platform::Platform;
use puzzlefs_lib::{Progress, Result, Store};
use std::num::NonZeroU64;
use std::sync::Arc;

/// The verb for messages.
const ACTION: &str = "fetch from";

/// Options of an image whose chunks are fetched on demand.
#[derive(Clone, Debug)]
pub struct FetchingOptions {
    /// The connection.
    pub connection: RegistryOptions,
    /// For which platform, if not for this one.
    pub platform: Option<Platform>,
    /// The tag to set.
    pub tag: String,
    /// The time at which the rest is fetched.
    pub completion: Completion,
    /// The rate of chunks that no reader has requested, in bytes per second.
    pub limit_rate: Option<NonZeroU64>,
}

impl FetchingOptions {
    /// Returns the options for the library.
    pub fn lazy(&self) -> LazyOptions {
        LazyOptions {
            jobs: self.connection.jobs,
            completion: self.completion,
            limit_rate: self.limit_rate,
        }
    }

    /// Prepares an image of a source.
    fn prepare(
        &self,
        source: &impl ImageSource,
        document: &Descriptor,
        to: &Store,
        progress: &Progress,
    ) -> Result<LazyImage> {
        let manifest = find_puzzlefs(source, document, self.platform.as_ref())?;
        prepare(source, &manifest, to, &self.tag, self.lazy(), progress)
    }
}

/// Prepares an image, sets its tag, and calls `serve` with the source of its chunks.
///
/// The mirrors of a registry are tried first. The first place that has the image gives all chunks.
///
/// # Errors
///
/// As for [`crate::pull`], or if the image is not a PuzzleFS image of format 4, or the place cannot send
/// parts of blobs. Errors of `serve` are returned.
pub fn fetch<T>(
    name: &RemoteName,
    to: &Store,
    options: &FetchingOptions,
    progress: &Progress,
    mut serve: impl FnMut(&dyn BlobSource, Arc<LazyImage>) -> Result<T>,
) -> Result<T> {
    let connection = &options.connection;
    match name {
        RemoteName::Objects(image) => {
            let (source, document, _) = ObjectSource::open(image, ACTION, connection, progress)?;
            let prepared = options.prepare(&source, &document, to, progress)?;
            serve(&source, Arc::new(prepared))
        }
        RemoteName::Registry(name) => {
            let sought = Sought {
                name,
                options: connection,
                target: None,
                action: ACTION,
            };
            sought.first(|attempt| {
                let opened = Opened::at(attempt, &sought, progress)?;
                let (source, document) = opened.source();
                let prepared = options.prepare(&source, &document, to, progress)?;
                serve(&source, Arc::new(prepared))
            })
        }
    }
}
