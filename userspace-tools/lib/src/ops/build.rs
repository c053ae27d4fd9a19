// SPDX-License-Identifier: MIT OR Apache-2.0

//! From a directory or an archive to an image in a store.

use crate::build::build_options::BuildOptions;
use crate::build::builder::{Input, Summary};
use crate::build::packed;
use crate::build::source::Source;
use crate::error::problems::Problems;
use crate::error::{ContainerFault, Error, Result};
use crate::ingest::archive;
use crate::ingest::container;
use crate::ingest::walk::{self, WalkOptions};
use crate::model::tree::{LeftOut, Tree};
use crate::store::oci_layout::Store;
use crate::store::staging::Staging;
use crate::sys::progress::Progress;
use std::collections::HashSet;
use std::path::Path;

/// Builds an image of a directory or a tar archive into `store`. The source `-` is an archive on
/// standard input.
///
/// The image depends on nothing but names, metadata and contents. The tag does not change until the
/// image is durable.
pub fn build(
    source: &Path,
    store: &Store,
    options: &BuildOptions,
    progress: &Progress,
) -> Result<Summary> {
    if source.is_dir() {
        return build_directory(source, store, options, progress);
    }
    let staging = Staging::new(store)?.checking(options.check);
    let archive = archive::read(source, &staging, options, progress)?;
    if let Some(kind) = container::kind_of(&archive.source, &archive.tree) {
        let fault = ContainerFault::NotATree(kind);
        return Err(archive::archive_error(&archive.source.path, fault));
    }
    let input = Input {
        remarks: archive.remarks,
        ..Input::new(archive.source, archive.tree, LeftOut::default())
    };
    packed::store(input, store, &staging, options, progress)
}

/// Builds an image of a directory. If the tree has changed since it was walked, or if a file cannot be
/// read, it is walked again if the options allow that.
fn build_directory(
    path: &Path,
    store: &Store,
    options: &BuildOptions,
    progress: &Progress,
) -> Result<Summary> {
    let mut retries = options.retry_changed;
    let mut unreadable = HashSet::new();
    // Of those that the walk found to be readable and that were not.
    let mut left_out = LeftOut::default();
    loop {
        // A blob is put into it once.
        let staging = Staging::new(store)?.checking(options.check);
        let source = Source::open(path)?;
        let walk_options = WalkOptions {
            rules: &options.rules,
            one_file_system: options.one_file_system,
            store: Some(store.identity()?),
            skip_unreadable: options.skip_unreadable,
            unreadable: &unreadable,
            jobs: options.jobs,
        };
        let walked = walk::walk(&source, &walk_options, progress);
        let built = walked.and_then(|(tree, mut found)| {
            found.unreadable.extend(left_out.unreadable.iter().cloned());
            let causes = left_out.unreadable_causes.iter().cloned();
            found.unreadable_causes.extend(causes);
            let input = Input {
                remarks: container_remark(&source, &tree).into_iter().collect(),
                ..Input::new(source, tree, found)
            };
            packed::store(input, store, &staging, options, progress)
        });
        let problems = match built {
            Ok(summary) => return Ok(summary),
            Err(error) => Problems::of(error)?,
        };
        if !problems.can_be_solved(retries > 0, options.skip_unreadable) {
            return Err(problems.into_error());
        }
        if problems.has_changes() {
            retries -= 1;
        }
        let (paths, causes) = problems.into_unreadable();
        let causes = causes
            .iter()
            .filter(|cause| matches!(cause, Error::System(_)));
        left_out.unreadable.extend(paths.iter().cloned());
        let causes = causes.map(Error::to_string);
        left_out.unreadable_causes.extend(causes);
        unreadable.extend(paths);
    }
}

/// Returns a remark on a directory that holds a container image.
fn container_remark(source: &Source, tree: &Tree) -> Option<String> {
    let kind = container::kind_of(source, tree)?;
    let path = source.path.display();
    Some(format!(
        "{path}: it is {kind}, whose files are stored as they are; \
         'puzzlefs import' imports the image"
    ))
}
